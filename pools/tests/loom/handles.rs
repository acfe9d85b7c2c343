//! What the handles of connections, and the end of a server, do under a lock of the standard
//! library, step by step as the runtime does it: `client/pipe.rs`, `iproto/line.rs`,
//! `iproto/pool/shared.rs` and `server/launch.rs`. Who changes the order of steps there changes it
//! here.

use std::mem;

use hioload_pools::Queue;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::Bell;

/// What a handle and its connection share.
#[derive(Default)]
struct State {
    /// An order for the shard is on its way.
    woken: bool,
    outgoing: Vec<u32>,
    /// What came for who waits, and how it is told.
    ended: bool,
    waits: bool,
}

/// A shard with the orders of one connection.
struct Shard {
    state: Mutex<State>,
    orders: Queue<()>,
    bell: Arc<Bell>,
}

impl Shard {
    fn new() -> Arc<Self> {
        let (state, orders, bell) = (Mutex::default(), Queue::new(1), Bell::new());
        Arc::new(Self { state, orders, bell })
    }

    /// `Pipe::poll_send`, `Line::submit`: puts something in, and leaves an order outside of the lock
    /// if there is none on its way.
    fn submit(&self, item: u32) {
        let mut state = self.state.lock().unwrap();
        state.outgoing.push(item);
        let order = !mem::replace(&mut state.woken, true);
        drop(state);
        if order {
            self.orders.push(());
            self.bell.wake();
        }
    }

    /// Turns of the shard until it has taken so much: each order lets it look at everything.
    fn turn_until(&self, count: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        while taken.len() < count {
            if self.orders.pop().is_none() {
                self.bell.wait();
                continue;
            }
            let mut state = self.state.lock().unwrap();
            state.woken = false;
            taken.append(&mut state.outgoing);
        }
        taken
    }
}

#[test]
fn what_a_handle_submits_is_never_left_without_an_order() {
    loom::model(|| {
        let shard = Shard::new();
        let handle = Arc::clone(&shard);
        let thread = thread::spawn(move || {
            handle.submit(1);
            handle.submit(2);
        });
        assert_eq!(shard.turn_until(2), [1, 2]);
        thread.join().unwrap();
    });
}

#[test]
fn two_users_of_a_handle_leave_one_order_at_a_time() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shard = Shard::new();
        let threads = [1, 2].map(|item| {
            let handle = Arc::clone(&shard);
            thread::spawn(move || {
                handle.submit(item);
                assert!(handle.orders.len() <= 1, "two orders are on their way");
            })
        });
        let mut taken = shard.turn_until(2);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// `Line::poll_call`: the waker is cloned without the lock, so it looks twice. The shard tells
/// outside of the lock.
#[test]
fn who_waits_for_an_answer_is_told_of_it() {
    loom::model(|| {
        let shard = Shard::new();
        let connection = Arc::clone(&shard);
        let thread = thread::spawn(move || {
            let mut state = connection.state.lock().unwrap();
            state.ended = true;
            let waits = mem::take(&mut state.waits);
            drop(state);
            if waits {
                connection.bell.wake();
            }
        });
        while !shard.state.lock().unwrap().ended {
            let mut state = shard.state.lock().unwrap();
            let ended = state.ended;
            state.waits = !ended;
            drop(state);
            if !ended {
                shard.bell.wait();
            }
        }
        thread.join().unwrap();
    });
}

/// `Ends`: a shard's thread that ends counts first and then looks whom to tell; the control thread
/// lets itself be told first and then looks at the count.
#[test]
fn the_end_of_a_shard_is_heard_of() {
    loom::model(|| {
        let count = Arc::new(AtomicUsize::new(0));
        let stopper = Arc::new(Mutex::new(None::<Arc<Bell>>));
        let (counted, told) = (Arc::clone(&count), Arc::clone(&stopper));
        let thread = thread::spawn(move || {
            counted.fetch_add(1, Ordering::Release);
            if let Some(bell) = &*told.lock().unwrap() {
                bell.wake();
            }
        });
        let bell = Bell::new();
        *stopper.lock().unwrap() = Some(Arc::clone(&bell));
        while count.load(Ordering::Acquire) == 0 {
            bell.wait();
        }
        thread.join().unwrap();
    });
}
