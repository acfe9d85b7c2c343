//! What a channel and its connection share: what is to be sent, and who waits for which response.
//!
//! One lock for each connection, held for a few stores at a time; wakers are called outside of it.
//! Whoever adds something for the shard leaves an order with it unless one is on its way.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::{Call, CallError, Closed, Stats};
use crate::shard::Order;
use crate::ws::{Presence, Stage, Wakes};

/// Something to be sent.
pub(super) struct Outgoing {
    pub(super) msg: u32,
    pub(super) body: Bytes,
    /// Who waits for the response, and how long; `None` for a notify.
    pub(super) call: Option<(u64, Option<Duration>)>,
}

/// How the connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Shutdown,
    Close,
}

/// A call that somebody waits for.
#[derive(Default)]
struct Waiting {
    waker: Option<Waker>,
    result: Option<Result<Bytes, CallError>>,
    /// To cancel it by, once it was made.
    call: Option<Call>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) presence: Presence<Closed>,
    pub(super) wish: Option<Wish>,
    /// Of this connection, and of those before it.
    pub(super) stats: Stats,
    pub(super) past: Stats,
    /// The most bytes that may wait for the shard.
    pub(super) bytes_max: usize,
    pub(super) calls_max: usize,
    outgoing: VecDeque<Outgoing>,
    outgoing_bytes: usize,
    cancelled: Vec<Call>,
    calls: HashMap<u64, Waiting>,
    last: u64,
}

/// What the shard finds when it looks.
pub(super) struct Found {
    pub(super) outgoing: VecDeque<Outgoing>,
    pub(super) cancelled: Vec<Call>,
    pub(super) wish: Option<Wish>,
}

impl State {
    /// A call has ended; what wakes who waits for it.
    #[must_use]
    pub(super) fn finish(
        &mut self,
        ticket: u64,
        result: Result<Bytes, CallError>,
    ) -> Option<Waker> {
        // Who does not wait any more has left the list.
        let waiting = self.calls.get_mut(&ticket)?;
        waiting.result = Some(result);
        waiting.call = None;
        waiting.waker.take()
    }

    /// A call was made. `false`: it was cancelled before that.
    pub(super) fn made(&mut self, ticket: u64, call: Call) -> bool {
        let waiting = self.calls.get_mut(&ticket);
        waiting.map(|waiting| waiting.call = Some(call)).is_some()
    }

    /// The connection is over: nothing of what waits for it will be sent.
    pub(super) fn down(&mut self, persists: bool, wakes: &mut Wakes) {
        self.past = self.past.plus(mem::take(&mut self.stats));
        self.cancelled.clear();
        self.presence.stage = Stage::Down;
        for Outgoing { call, .. } in mem::take(&mut self.outgoing) {
            let waker = call.and_then(|(ticket, _)| self.finish(ticket, Err(CallError::Stopped)));
            wakes.add(&mut { waker });
        }
        self.outgoing_bytes = 0;
        if !persists || self.wish.is_some() {
            self.end(wakes);
        }
    }

    /// It is over for good: everybody is told.
    pub(super) fn end(&mut self, wakes: &mut Wakes) {
        self.presence.stage = Stage::Ended;
        let unfinished = self.calls.values_mut().filter(|waiting| waiting.result.is_none());
        for waiting in unfinished {
            waiting.result = Some(Err(CallError::Dropped));
            wakes.add(&mut waiting.waker);
        }
        wakes.add_all(&mut self.presence.watchers);
    }

    /// Takes something for the shard, if there is room for it.
    fn push(&mut self, outgoing: Outgoing) -> Result<(), CallError> {
        match self.presence.stage {
            Stage::Ended => return Err(CallError::Stopped),
            _ if self.wish.is_some() => return Err(CallError::Stopped),
            Stage::Down => return Err(CallError::NoChannel),
            Stage::Open => {}
        }
        let bytes = self.outgoing_bytes + outgoing.body.len();
        if bytes > self.bytes_max && self.outgoing_bytes > 0 {
            return Err(CallError::Full);
        }
        // An empty one costs something too.
        self.outgoing_bytes = bytes + 1;
        self.outgoing.push_back(outgoing);
        Ok(())
    }
}

/// What a channel and its connection share.
#[derive(Default)]
pub(super) struct Line(Mutex<State>);

impl Line {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, outgoing: Outgoing) -> Result<(), CallError> {
        let mut state = self.lock();
        state.push(outgoing)?;
        Self::post(state);
        Ok(())
    }

    /// Begins a call; answers by what it is polled and cancelled.
    pub(super) fn call(
        &self,
        msg: u32,
        body: Bytes,
        timeout: Option<Duration>,
    ) -> Result<u64, CallError> {
        let mut state = self.lock();
        if state.calls.len() >= state.calls_max && state.presence.stage == Stage::Open {
            let limit = u32::try_from(state.calls_max).unwrap_or(u32::MAX);
            return Err(CallError::TooManyCalls { limit });
        }
        let ticket = state.last + 1;
        state.push(Outgoing { msg, body, call: Some((ticket, timeout)) })?;
        state.last = ticket;
        state.calls.insert(ticket, Waiting::default());
        Self::post(state);
        Ok(ticket)
    }

    pub(super) fn poll_call(
        &self,
        ticket: u64,
        cx: &Context<'_>,
    ) -> Poll<Result<Bytes, CallError>> {
        let mut state = self.lock();
        let Some(waiting) = state.calls.get_mut(&ticket) else {
            return Poll::Ready(Err(CallError::Dropped));
        };
        match waiting.result.take() {
            Some(result) => {
                state.calls.remove(&ticket);
                Poll::Ready(result)
            }
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Nobody waits for this call any more.
    pub(super) fn cancel(&self, ticket: u64) {
        let mut state = self.lock();
        let waiting = state.calls.remove(&ticket);
        if let Some(call) = waiting.and_then(|waiting| waiting.call) {
            state.cancelled.push(call);
            Self::post(state);
        }
    }

    /// Asks for the end; a wish to close is heard even after one to shut down.
    pub(super) fn wish(&self, wish: Wish) {
        let mut state = self.lock();
        if state.presence.stage != Stage::Ended && state.wish != Some(Wish::Close) {
            state.wish = Some(wish);
            Self::post(state);
        }
    }

    pub(super) fn forget_watcher(&self, id: u64) {
        self.lock().presence.watchers.forget(id);
    }

    /// Everything that waits for the shard.
    pub(super) fn take(&self) -> Found {
        let mut state = self.lock();
        state.presence.woken = false;
        state.outgoing_bytes = 0;
        Found {
            outgoing: mem::take(&mut state.outgoing),
            cancelled: mem::take(&mut state.cancelled),
            wish: state.wish,
        }
    }

    /// Leaves an order with the shard, if there is none on its way.
    fn post(mut state: MutexGuard<'_, State>) {
        let Some((shard, client)) = state.presence.order() else { return };
        drop(state);
        shard.order(Order::Wake(client));
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Line")
            .field("stage", &state.presence.stage)
            .field("generation", &state.presence.generation)
            .finish_non_exhaustive()
    }
}
