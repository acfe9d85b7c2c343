//! Every interleaving of the mailbox with a few threads and letters. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p hioload-pools --test loom --release`.
#![cfg(loom)]

use hioload_pools::mailbox::channel;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

#[test]
fn two_senders_lose_nothing_and_keep_their_order() {
    loom::model(|| {
        let (sender, mut receiver) = channel(4);
        let threads = [&[10, 11][..], &[20]].map(|letters| {
            let sender = sender.clone();
            thread::spawn(move || {
                for letter in letters {
                    sender.try_send(Box::new(*letter)).unwrap();
                }
            })
        });
        // Two looks while they send: more only repeat themselves, and take loom for ever.
        let mut letters: Vec<u32> = Vec::new();
        letters.extend(receiver.try_recv().map(|letter| *letter));
        letters.extend(receiver.try_recv().map(|letter| *letter));
        for thread in threads {
            thread.join().unwrap();
        }
        letters.extend(std::iter::from_fn(|| receiver.try_recv()).map(|letter| *letter));
        let of = |tens| letters.iter().copied().filter(move |letter| letter / 10 == tens);
        assert!(of(1).eq([10, 11]) && of(2).eq([20]), "{letters:?}");
        assert!(receiver.is_empty());
    });
}

#[test]
fn a_full_ring_gives_letters_back_and_goes_round() {
    loom::model(|| {
        let (sender, mut receiver) = channel(2);
        sender.try_send(Box::new(0)).unwrap();
        sender.try_send(Box::new(1)).unwrap();
        let late = thread::spawn(move || sender.try_send(Box::new(2)).map_err(|letter| *letter));
        assert_eq!(receiver.try_recv().as_deref(), Some(&0));
        let sent = late.join().unwrap();
        assert!(sent.is_ok() || sent == Err(2));
        let expected: &[u32] = if sent.is_ok() { &[1, 2] } else { &[1] };
        let letters: Vec<_> = std::iter::from_fn(|| receiver.try_recv()).collect();
        assert!(letters.iter().map(|letter| **letter).eq(expected.iter().copied()));
        assert!(receiver.is_empty());
    });
}

#[test]
fn what_was_sent_before_a_notice_is_there_after_it() {
    loom::model(|| {
        let (sender, mut receiver) = channel(2);
        let notices = Arc::new(AtomicUsize::new(0));
        let notify = Arc::clone(&notices);
        let thread = thread::spawn(move || {
            sender.try_send(Box::new(7)).unwrap();
            notify.fetch_add(1, Ordering::Release);
        });
        if notices.load(Ordering::Acquire) == 1 {
            assert!(!receiver.is_empty());
            assert_eq!(receiver.try_recv().as_deref(), Some(&7));
        }
        thread.join().unwrap();
    });
}

#[test]
fn letters_that_nobody_takes_are_dropped() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (sender, receiver) = channel(2);
        let letters = [Counted(Arc::clone(&drops)), Counted(Arc::clone(&drops))];
        let thread = thread::spawn(move || {
            for letter in letters {
                drop(sender.try_send(letter));
            }
        });
        drop(receiver);
        thread.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    });
}
