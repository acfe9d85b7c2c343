//! The mailbox between real threads.
#![cfg(not(loom))]

use std::sync::Arc;
use std::thread;

use hioload_pools::mailbox::channel;

#[test]
fn many_senders_lose_nothing_and_keep_their_order() {
    const SENDERS: usize = 4;
    // Miri and valgrind are slow; rounds of the ring matter, not letters.
    const LETTERS: usize = if cfg!(miri) { 200 } else { 50_000 };
    let (sender, mut receiver) = channel(64);
    let threads: Vec<_> = (0..SENDERS)
        .map(|number| {
            let sender = sender.clone();
            thread::spawn(move || {
                for letter in 0..LETTERS {
                    let mut letter = Box::new((number, letter));
                    while let Err(back) = sender.try_send(letter) {
                        letter = back;
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut next = [0; SENDERS];
    while next != [LETTERS; SENDERS] {
        match receiver.try_recv() {
            Some(letter) => {
                let (number, letter) = *letter;
                assert_eq!(letter, next[number], "sender {number}");
                next[number] += 1;
            }
            None => thread::yield_now(),
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(receiver.is_empty());
    assert!(receiver.try_recv().is_none());
}

#[test]
fn a_full_mailbox_gives_the_letter_back() {
    for (asked, given) in [(0, 2), (1, 2), (2, 2), (3, 4), (1000, 1024)] {
        let (sender, mut receiver) = channel(asked);
        assert_eq!((sender.capacity(), receiver.capacity()), (given, given));
        // Several rounds, so that every slot is used again.
        for round in 0..5 {
            assert!(receiver.is_empty());
            for letter in 0..given {
                assert_eq!(sender.try_send((round, letter)), Ok(()));
                assert!(!receiver.is_empty());
            }
            assert_eq!(sender.try_send((round, given)), Err((round, given)));
            for letter in 0..given {
                assert_eq!(receiver.try_recv(), Some((round, letter)));
            }
        }
    }
}

#[test]
fn letters_are_dropped_with_the_receiver_and_come_back_afterwards() {
    let letter = Arc::new(());
    let (sender, mut receiver) = channel(8);
    for _ in 0..8 {
        sender.try_send(Arc::clone(&letter)).unwrap();
    }
    assert!(receiver.try_recv().is_some());
    assert_eq!(Arc::strong_count(&letter), 8);
    drop(receiver);
    assert_eq!(Arc::strong_count(&letter), 1);
    assert!(sender.try_send(Arc::clone(&letter)).is_err());
}

#[test]
fn letters_outlive_their_senders() {
    let letter = Arc::new(());
    let (sender, mut receiver) = channel(2);
    sender.try_send(Arc::clone(&letter)).unwrap();
    sender.try_send(Arc::clone(&letter)).unwrap();
    drop(sender);
    assert!(receiver.try_recv().is_some());
    drop(receiver);
    assert_eq!(Arc::strong_count(&letter), 1);
}

#[test]
fn letters_need_not_be_sync_and_an_end_is_a_pointer() {
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}
    fn is_send<T: Send>(_: &T) {}
    let (sender, receiver) = channel::<std::cell::Cell<u8>>(2);
    is_send_and_sync(&sender);
    is_send(&receiver);
    assert_eq!(size_of_val(&sender), size_of::<usize>());
}
