//! What a handle knows of its connection, whatever that speaks, and how futures wait for it.

use std::future::poll_fn;
use std::mem;
use std::task::{Poll, Waker};

use hioload_pools::Key;

use super::error::ConnectError;
use crate::shard::ShardHandle;

/// Where the connection is, as the handle sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not open, but it may be again.
    #[default]
    Down,
    Open,
    Ended,
}

/// Futures that wait for the same thing, by a number that each one keeps.
#[derive(Default)]
pub(crate) struct Waiters {
    wakers: Vec<(u64, Waker)>,
    last: u64,
}

impl Waiters {
    /// Leaves the waker of a future that waits.
    pub(crate) fn wait(&mut self, poller: &mut Poller<'_>) {
        let at = self.wakers.iter().position(|(id, _)| Some(*id) == *poller.id);
        if at.is_some_and(|at| self.wakers[at].1.will_wake(poller.waker)) {
            return;
        }
        match (at, poller.spare.take()) {
            (_, None) => poller.lacks = true,
            (Some(at), Some(spare)) => {
                poller.spare = Some(mem::replace(&mut self.wakers[at].1, spare));
            }
            (None, Some(spare)) => {
                self.last += 1;
                *poller.id = Some(self.last);
                self.wakers.push((self.last, spare));
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.wakers.is_empty()
    }

    /// Takes a waker out, which is to be dropped when the lock is free.
    #[must_use]
    pub(crate) fn forget(&mut self, id: u64) -> Option<Waker> {
        let at = self.wakers.iter().position(|(known, _)| *known == id)?;
        Some(self.wakers.remove(at).1)
    }
}

/// A future that waits in a list, as it is polled. Its waker is of the user, and what that does when
/// it is cloned or dropped may use the very handle: both happen while the lock is free.
pub(crate) struct Poller<'a> {
    id: &'a mut Option<u64>,
    waker: &'a Waker,
    /// A clone for the list, then what that had before.
    spare: Option<Waker>,
    /// The list needs a clone, and there was none.
    lacks: bool,
}

/// Wakers that were taken out, to be called once the lock is free.
#[derive(Default)]
pub(crate) struct Wakes(Vec<Waker>);

impl Wakes {
    pub(crate) fn add_all(&mut self, waiters: &mut Waiters) {
        self.0.extend(waiters.wakers.drain(..).map(|(_, waker)| waker));
    }

    pub(crate) fn add(&mut self, waiter: &mut Option<Waker>) {
        self.0.extend(waiter.take());
    }

    pub(crate) fn call(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// The connection of a handle. `R`: why it may have ended.
pub(crate) struct Presence<R> {
    /// The shard, and the client's key there, once it knows of it.
    pub(crate) link: Option<(ShardHandle, Key)>,
    /// An order for the shard is on its way, and it will look at everything.
    pub(crate) woken: bool,
    pub(crate) stage: Stage,
    pub(crate) generation: u32,
    pub(crate) reason: Option<R>,
    pub(crate) error: Option<ConnectError>,
    pub(crate) watchers: Waiters,
}

impl<R> Default for Presence<R> {
    fn default() -> Self {
        Self {
            link: None,
            woken: false,
            stage: Stage::Down,
            generation: 0,
            reason: None,
            error: None,
            watchers: Waiters::default(),
        }
    }
}

impl<R: Copy> Presence<R> {
    /// The order that must be left with the shard, if there is none on its way.
    #[must_use]
    pub(crate) fn order(&mut self) -> Option<(ShardHandle, Key)> {
        if self.woken || self.stage == Stage::Ended {
            return None;
        }
        let link = self.link.clone()?;
        self.woken = true;
        Some(link)
    }

    pub(crate) fn opened(&mut self, generation: u32, wakes: &mut Wakes) {
        self.stage = Stage::Open;
        self.generation = generation;
        (self.error, self.reason) = (None, None);
        wakes.add_all(&mut self.watchers);
    }

    /// The shard does nothing more for it: that is the cause of the end, unless there was another.
    pub(crate) fn abandoned(&mut self) {
        if self.reason.is_none() && self.error.is_none() {
            self.error = Some(ConnectError::Stopped);
        }
    }

    /// Waits for the first connection, or the end.
    pub(crate) fn poll_opened(
        &mut self,
        poller: &mut Poller<'_>,
    ) -> Poll<Result<(), ConnectError>> {
        if self.generation > 0 {
            return Poll::Ready(Ok(()));
        }
        if self.stage == Stage::Ended {
            return Poll::Ready(Err(self.error.clone().unwrap_or(ConnectError::Stopped)));
        }
        self.watchers.wait(poller);
        Poll::Pending
    }

    /// Waits for the end, and why it came.
    pub(crate) fn poll_ended(&mut self, poller: &mut Poller<'_>) -> Poll<Option<R>> {
        if self.stage == Stage::Ended {
            return Poll::Ready(self.reason);
        }
        self.watchers.wait(poller);
        Poll::Pending
    }
}

/// A place in a list of waiters, given up when the future that waits is dropped.
struct Place<'a, L> {
    line: &'a L,
    id: Option<u64>,
    forget: fn(&L, u64),
}

impl<L> Drop for Place<'_, L> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            (self.forget)(self.line, id);
        }
    }
}

/// Waits in one of the lists of what a handle shares with its connection. `poll` is called again,
/// with a clone of the waker, if it would have left one.
pub(crate) async fn wait<L, T>(
    line: &L,
    forget: fn(&L, u64),
    mut poll: impl FnMut(&mut Poller<'_>) -> Poll<T>,
) -> T {
    let mut place = Place { line, id: None, forget };
    poll_fn(|cx| {
        let (id, waker) = (&mut place.id, cx.waker());
        let mut poller = Poller { id, waker, spare: None, lacks: false };
        let polled = poll(&mut poller);
        if polled.is_ready() || !poller.lacks {
            return polled;
        }
        poller.spare = Some(waker.clone());
        poll(&mut poller)
    })
    .await
}
