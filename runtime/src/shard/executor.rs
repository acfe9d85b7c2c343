//! Futures on a shard: a small executor that the turn runs, and timers to wait for.
//!
//! A future runs on the shard's thread between callbacks and need not be `Send`. It reaches
//! sessions through a [`ShardHandle`](super::ShardHandle), never through a `&mut Shard`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use async_task::Runnable;
use hioload_pools::Queue;

use crate::Time;
use crate::reactor::Waker;

/// Woken tasks for which there is memory from the beginning on.
const READY_ROOM: usize = 1024;

/// A future that was spawned on a shard; resolves to its result.
///
/// Dropping it cancels the future; [`detach`](Self::detach) lets it run on its own.
#[must_use = "dropping a task cancels it: call `detach` to let it run"]
#[derive(Debug)]
pub struct Task<T>(async_task::Task<T>);

impl<T> Task<T> {
    /// Lets the future run to its end without anybody waiting for it.
    pub fn detach(self) {
        self.0.detach();
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx)
    }
}

pub(crate) struct Executor {
    /// Woken tasks. Any thread may wake one, so the queue is shared; it takes no lock.
    ready: Arc<Queue<Runnable>>,
    waker: Waker,
    timers: Rc<Timers>,
}

impl Executor {
    /// Tasks polled in one turn at the most: what is ready beyond that waits for the next one, so
    /// that futures cannot starve the network.
    pub(crate) const POLLS_MAX: usize = 256;

    pub(crate) fn new(waker: Waker) -> Self {
        Self { ready: Arc::new(Queue::new(READY_ROOM)), waker, timers: Rc::default() }
    }

    pub(crate) fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let (ready, waker) = (Arc::clone(&self.ready), self.waker.clone());
        let schedule = move |task: Runnable| {
            ready.push(task);
            waker.wake();
        };
        let (task, handle) = async_task::spawn_local(future, schedule);
        task.schedule();
        Task(handle)
    }

    pub(crate) fn timers(&self) -> &Rc<Timers> {
        &self.timers
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Polls the next future that is ready, if there is one; an error is a panic in it.
    pub(crate) fn run_next(&self) -> Option<thread::Result<bool>> {
        let task = self.ready.pop()?;
        Some(catch_unwind(AssertUnwindSafe(|| task.run())))
    }
}

/// The sleeping futures of a shard.
#[derive(Default)]
pub(crate) struct Timers {
    now: Cell<u64>,
    serial: Cell<u64>,
    sleepers: RefCell<BTreeMap<(u64, u64), std::task::Waker>>,
}

impl Timers {
    /// When the next sleeper wakes, in nanoseconds.
    pub(crate) fn next(&self) -> Option<Time> {
        let sleepers = self.sleepers.borrow();
        sleepers.first_key_value().map(|((at, _), _)| Time::from_nanos(*at))
    }

    /// Wakes whoever slept long enough.
    pub(crate) fn advance(&self, now: Time) {
        self.now.set(now.as_nanos());
        loop {
            let mut sleepers = self.sleepers.borrow_mut();
            let Some(first) = sleepers.first_entry() else { return };
            if first.key().0 > now.as_nanos() {
                return;
            }
            let waker = first.remove();
            // Waking may run the destructor of a task, which may cancel another sleep.
            drop(sleepers);
            waker.wake();
        }
    }
}

/// A future that is ready after some time; made by [`Shard::sleep`](super::Shard::sleep).
pub struct Sleep {
    timers: Rc<Timers>,
    at: u64,
    /// The key under which it waits, once it was polled.
    serial: Option<u64>,
}

impl Sleep {
    pub(crate) fn new(timers: &Rc<Timers>, duration: Duration) -> Self {
        let at = Time::from_nanos(timers.now.get()).after(duration).as_nanos();
        Self { timers: Rc::clone(timers), at, serial: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.timers.now.get() >= self.at {
            return Poll::Ready(());
        }
        let serial = self.serial.unwrap_or_else(|| {
            let serial = self.timers.serial.get();
            self.timers.serial.set(serial + 1);
            serial
        });
        self.serial = Some(serial);
        let waker = cx.waker().clone();
        // The one before is a user's, and is dropped while nothing is borrowed.
        let known = self.timers.sleepers.borrow_mut().insert((self.at, serial), waker);
        drop(known);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(serial) = self.serial {
            let waker = self.timers.sleepers.borrow_mut().remove(&(self.at, serial));
            drop(waker);
        }
    }
}
