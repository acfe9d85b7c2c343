//! Every interleaving of what threads share, with a few of them and a few steps each. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p hioload-pools --test loom --release`.
//!
//! The mailbox, the queue, the flags and the budget are those of the product. What the runtime does
//! under a lock of the standard library is written down again here, step by step, as
//! `handles` says.
#![cfg(loom)]
#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "loom/handles.rs"]
mod handles;

use hioload_pools::mailbox::{Receiver, channel};
use hioload_pools::{Budget, Ended, Queue, SleepFlag};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// A thread that sleeps, and what ends that: the waker of a reactor, with a lock for a descriptor.
struct Bell {
    sleep: SleepFlag,
    rings: Mutex<bool>,
    rang: Condvar,
}

impl Bell {
    fn new() -> Arc<Self> {
        let (rings, rang) = (Mutex::new(false), Condvar::new());
        Arc::new(Self { sleep: SleepFlag::new(), rings, rang })
    }

    fn wake(&self) {
        if self.sleep.notify() {
            *self.rings.lock().unwrap() = true;
            self.rang.notify_one();
        }
    }

    fn sleep(&self) {
        let mut rings = self.rings.lock().unwrap();
        while !*rings {
            rings = self.rang.wait(rings).unwrap();
        }
        *rings = false;
    }

    /// One wait of a reactor: whatever ends its sleep ends it.
    fn wait(&self) {
        if self.sleep.fall_asleep() {
            self.sleep();
        }
        self.sleep.wake_up();
    }

    /// One wait of the ring: a signal that was meant for a sleep before this one does not end it.
    fn wait_on(&self) {
        let mut asleep = self.sleep.fall_asleep();
        while asleep {
            self.sleep();
            asleep = !self.sleep.wake_up() && self.sleep.fall_asleep();
        }
        self.sleep.wake_up();
    }
}

/// Takes so many letters, and sleeps while there are none. A wake that is lost leaves it asleep for
/// ever, which loom reports.
fn take(receiver: &mut Receiver<Box<u32>>, count: usize, wait: impl Fn()) -> Vec<u32> {
    let mut letters = Vec::new();
    while letters.len() < count {
        match receiver.try_recv() {
            Some(letter) => letters.push(*letter),
            None => wait(),
        }
    }
    letters
}

#[test]
fn a_letter_ends_the_sleep() {
    loom::model(|| {
        let (sender, mut receiver) = channel(2);
        let bell = Bell::new();
        let elsewhere = Arc::clone(&bell);
        let thread = thread::spawn(move || {
            for letter in [1, 2] {
                sender.try_send(Box::new(letter)).unwrap();
                elsewhere.wake();
            }
        });
        assert_eq!(take(&mut receiver, 2, || bell.wait()), [1, 2]);
        thread.join().unwrap();
    });
}

fn two_threads_wake(wait: fn(&Bell)) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let (sender, mut receiver) = channel(2);
        let bell = Bell::new();
        let threads = [1, 2].map(|letter| {
            let (sender, bell) = (sender.clone(), Arc::clone(&bell));
            thread::spawn(move || {
                sender.try_send(Box::new(letter)).unwrap();
                bell.wake();
            })
        });
        let mut letters = take(&mut receiver, 2, || wait(&bell));
        letters.sort_unstable();
        assert_eq!(letters, [1, 2]);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_letter_of_each_of_two_threads_ends_the_sleep() {
    two_threads_wake(Bell::wait);
}

#[test]
fn a_signal_that_comes_late_costs_no_wake() {
    two_threads_wake(Bell::wait_on);
}

#[test]
fn what_one_thread_queues_comes_out_in_its_order() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(1));
        let elsewhere = Arc::clone(&queue);
        let thread = thread::spawn(move || (0..3).for_each(|number| elsewhere.push(number)));
        let mut numbers = Vec::new();
        for _ in 0..3 {
            numbers.extend(queue.pop());
        }
        thread.join().unwrap();
        numbers.extend(std::iter::from_fn(|| queue.pop()));
        assert_eq!(numbers, [0, 1, 2]);
        assert!(queue.is_empty());
    });
}

#[test]
fn two_threads_queue_and_nothing_is_lost() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let queue = Arc::new(Queue::new(1));
        let threads = [&[10, 11][..], &[20]].map(|numbers| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || numbers.iter().for_each(|number| queue.push(*number)))
        });
        let mut numbers: Vec<u32> = Vec::new();
        for _ in 0..2 {
            numbers.extend(queue.pop());
        }
        for thread in threads {
            thread.join().unwrap();
        }
        numbers.extend(std::iter::from_fn(|| queue.pop()));
        let of = |tens| numbers.iter().copied().filter(move |number| number / 10 == tens);
        assert!(of(1).eq([10, 11]) && of(2).eq([20]), "{numbers:?}");
    });
}

/// A place for one order, without any order in memory of its own.
#[test]
fn an_order_for_a_shard_that_ends_is_taken_out_by_one_of_both() {
    loom::model(|| {
        let (place, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(Ended::new()));
        let (elsewhere, end) = (Arc::clone(&place), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            elsewhere.store(1, Ordering::Relaxed);
            if end.seen_after_push() {
                elsewhere.store(0, Ordering::Relaxed);
            }
        });
        ended.set();
        if place.load(Ordering::Relaxed) == 1 {
            place.store(0, Ordering::Relaxed);
        }
        thread.join().unwrap();
        assert_eq!(place.load(Ordering::Relaxed), 0, "nobody will ever take it out");
    });
}

#[test]
fn a_budget_is_never_overdrawn_and_comes_back() {
    loom::model(|| {
        let budget = Arc::new(Budget::new(3));
        let out = Arc::new(AtomicUsize::new(0));
        let (elsewhere, there) = (Arc::clone(&budget), Arc::clone(&out));
        let thread = thread::spawn(move || [2, 1].map(|bytes| spend(&elsewhere, &there, bytes)));
        spend(&budget, &out, 2);
        thread.join().unwrap();
        assert!(budget.take(9), "all of it is there again");
    });
}

fn spend(budget: &Budget, out: &AtomicUsize, bytes: usize) {
    if budget.take(bytes) {
        let now = out.fetch_add(bytes, Ordering::SeqCst) + bytes;
        assert!(now <= 3, "{now} of 3 bytes are out");
        out.fetch_sub(bytes, Ordering::SeqCst);
        budget.give_back(bytes);
    }
}

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
