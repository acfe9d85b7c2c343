//! What a channel and its connection share: what is to be sent, and who waits for which response.
//!
//! One lock for each connection, held for a few stores at a time; wakers are called outside of it.
//! Whoever adds something for the shard leaves an order with it unless one is on its way. Nothing
//! is allocated for a call with small bodies once both sides have the memory that they need.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hioload_pools::{Key, ObjectPool, Slab};

use super::batch::Batch;
use super::{Call, CallError, Closed, Hijacked, Payload, Stats};
use crate::shard::Order;
use crate::ws::{Presence, Stage, Wakes};

/// Places for calls that wait, more than any configuration allows calls.
const PLACES_MAX: usize = 1 << 26;

/// What is asked of a connection, beside a code and a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Want {
    /// To send a notify, if there is room for it.
    Notify,
    /// To send a notify when there is room for it, and to know when it was taken.
    NotifyWithin(Duration),
    /// To make a call, and to know its response.
    Call(Option<Duration>),
    /// To make a call whose response is thrown away. It counts as a call until that is there.
    Send,
    /// To take the connection away, behind all that was asked for before.
    Hijack,
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Ended {
    Response(Bytes),
    Hijacked(Box<Hijacked>),
    Failed(CallError),
    /// Not a byte of it was sent, so that it may be made elsewhere.
    Unsent(CallError, Bytes),
}

impl Ended {
    pub(super) fn into_result(self) -> Result<Bytes, CallError> {
        match self {
            Self::Response(body) => Ok(body),
            Self::Hijacked(_) => Err(CallError::Hijacked),
            Self::Failed(error) | Self::Unsent(error, _) => Err(error),
        }
    }
}

/// Who asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Anybody,
    /// The set-up of this connection.
    SetUp(u32),
}

/// A connection that is being set up: nobody else may use it.
struct SetUp {
    /// Which connection of the client it is.
    number: u32,
    ended: Option<SetUpEnd>,
}

/// How a set-up ended: without success for which reason.
pub(super) type SetUpEnd = Result<(), Arc<str>>;

/// What was not taken, and why.
pub(super) type Refused<'a> = (CallError, Payload<'a>);

/// How the connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Shutdown,
    Close,
}

/// A call that somebody waits for, or a send.
#[derive(Default)]
struct Waiting {
    /// It is a send: what it ends with is thrown away.
    is_nobodys: bool,
    waker: Option<Waker>,
    ended: Option<Ended>,
    /// To cancel it by, once it was made.
    call: Option<Call>,
}

pub(super) struct State {
    pub(super) presence: Presence<Closed>,
    pub(super) wish: Option<Wish>,
    /// While this is there, the stage is down.
    set_up: Option<SetUp>,
    /// This connection is shut down, by whomever.
    stopping: bool,
    /// Somebody takes this connection away.
    pub(super) hijacked: bool,
    /// Of this connection, and of those before it.
    pub(super) stats: Stats,
    pub(super) past: Stats,
    /// The most bytes that may wait for the shard.
    pub(super) bytes_max: usize,
    pub(super) calls_max: usize,
    /// Of notifies that the shard has taken and that wait for room.
    held_bytes: usize,
    batch: Batch,
    calls: Slab<Waiting>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            presence: Presence::default(),
            wish: None,
            set_up: None,
            stopping: false,
            hijacked: false,
            stats: Stats::default(),
            past: Stats::default(),
            bytes_max: 0,
            calls_max: 0,
            held_bytes: 0,
            batch: Batch::default(),
            calls: Slab::new(PLACES_MAX),
        }
    }
}

/// What is left of something that has ended. It is for when the lock is free: wakers and bodies
/// are of users, and what they do when they are called, cloned or dropped may use this line.
#[must_use]
pub(super) struct Finished {
    waker: Option<Waker>,
    unwanted: Option<Ended>,
}

impl Finished {
    pub(super) fn wake(self) {
        drop(self.unwanted);
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

impl State {
    /// A call has ended.
    pub(super) fn finish(&mut self, ticket: Key, ended: Ended) -> Finished {
        match self.calls.get_mut(ticket) {
            Some(waiting) if !waiting.is_nobodys => {
                waiting.ended = Some(ended);
                waiting.call = None;
                return Finished { waker: waiting.waker.take(), unwanted: None };
            }
            Some(_) => drop(self.calls.remove(ticket)),
            // Who does not wait any more has left the list.
            None => {}
        }
        Finished { waker: None, unwanted: Some(ended) }
    }

    /// How a call ended. `None`: it has not, and another waker is to be woken then.
    fn poll(&mut self, ticket: Key, waker: &Waker) -> Option<Poll<Ended>> {
        let Some(waiting) = self.calls.get_mut(ticket) else {
            return Some(Poll::Ready(Ended::Failed(CallError::Dropped)));
        };
        if let Some(ended) = waiting.ended.take() {
            self.calls.remove(ticket);
            return Some(Poll::Ready(ended));
        }
        let known = waiting.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        known.then_some(Poll::Pending)
    }

    /// A call was made. `false`: it was cancelled before that.
    pub(super) fn made(&mut self, ticket: Key, call: Call) -> bool {
        let waiting = self.calls.get_mut(ticket);
        waiting.map(|waiting| waiting.call = Some(call)).is_some()
    }

    /// The shard has no longer so many bytes of notifies that may wait for room.
    pub(super) const fn let_go(&mut self, bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// Whether this call is wanted still.
    pub(super) fn waits(&self, ticket: Key) -> bool {
        self.calls.get(ticket).is_some()
    }

    /// Why nothing can be sent at the moment.
    fn refusal(&self) -> Option<CallError> {
        match self.presence.stage {
            Stage::Ended if self.presence.reason == Some(Closed::Hijacked) => {
                Some(CallError::Hijacked)
            }
            Stage::Ended => Some(CallError::Stopped),
            _ if self.hijacked => Some(CallError::Hijacked),
            _ if self.wish.is_some() => Some(CallError::Stopped),
            Stage::Down => Some(CallError::NoChannel),
            Stage::Open => self.stopping.then_some(CallError::Stopped),
        }
    }

    /// The same for somebody in particular.
    fn refusal_of(&self, who: Who) -> Option<CallError> {
        match who {
            Who::Anybody => self.refusal(),
            Who::SetUp(number) => {
                let is_open = |it: &SetUp| it.number == number && it.ended.is_none();
                (!self.set_up.as_ref().is_some_and(is_open)).then_some(CallError::Stopped)
            }
        }
    }

    /// This connection may be used by its set-up, and by nobody else.
    pub(super) fn begin_set_up(&mut self, number: u32) {
        self.set_up = Some(SetUp { number, ended: None });
    }

    /// How the set-up of the connection ended, if it has.
    pub(super) fn set_up_end(&self) -> Option<SetUpEnd> {
        self.set_up.as_ref()?.ended.clone()
    }

    /// The set-up is not waited for any more. `false`: there is none.
    pub(super) fn drop_set_up(&mut self) -> bool {
        self.set_up.take().is_some()
    }

    /// The connection may be used by everybody.
    pub(super) fn open(&mut self, wakes: &mut Wakes) {
        self.set_up = None;
        self.presence.opened(self.presence.generation + 1, wakes);
    }

    /// The connection takes nothing more, and ends some time. `false`: that was known.
    pub(super) fn stops(&mut self) -> bool {
        let is_new = self.presence.stage == Stage::Open && !self.stopping;
        self.stopping |= is_new;
        is_new
    }

    pub(super) fn is_open(&self) -> bool {
        self.refusal().is_none()
    }

    pub(super) fn stats(&self) -> Stats {
        self.past.plus(self.stats)
    }

    /// The connection is over: nothing of what waits for it will be sent.
    pub(super) fn down(&mut self, persists: bool, wakes: &mut Wakes) -> Vec<Finished> {
        self.past = self.past.plus(mem::take(&mut self.stats));
        self.presence.stage = Stage::Down;
        self.set_up = None;
        (self.stopping, self.hijacked) = (false, false);
        self.held_bytes = 0;
        let mut batch = mem::take(&mut self.batch);
        let mut finished = Vec::new();
        while let Some((ticket, body)) = batch.unsent() {
            let ended = Ended::Unsent(CallError::Stopped, body);
            finished.push(match ticket {
                Some(ticket) => self.finish(ticket, ended),
                None => Finished { waker: None, unwanted: Some(ended) },
            });
        }
        if !persists || self.wish.is_some() {
            self.end(wakes);
        }
        finished
    }

    /// It is over for good: everybody is told.
    pub(super) fn end(&mut self, wakes: &mut Wakes) {
        self.presence.stage = Stage::Ended;
        self.set_up = None;
        for waiting in self.calls.iter_mut().filter(|waiting| waiting.ended.is_none()) {
            waiting.ended = Some(Ended::Failed(CallError::Dropped));
            wakes.add(&mut waiting.waker);
        }
        wakes.add_all(&mut self.presence.watchers);
    }

    /// Takes something for the shard, if there is room for it.
    fn push<'a>(
        &mut self,
        msg: u32,
        body: Payload<'a>,
        want: Want,
        who: Who,
    ) -> Result<Option<Key>, Refused<'a>> {
        if let Some(error) = self.refusal_of(who) {
            return Err((error, body));
        }
        let before = match want {
            Want::NotifyWithin(_) => self.batch.patient_bytes() + self.held_bytes,
            Want::Notify | Want::Call(_) | Want::Send => self.batch.bytes(),
            // It has no body, and is not to be refused.
            Want::Hijack => 0,
        };
        if before > 0 && before + body.len() > self.bytes_max {
            return Err((CallError::Full, body));
        }
        let ticket = match want {
            Want::Notify => None,
            Want::Hijack => {
                let Ok(ticket) = self.calls.insert(Waiting::default()) else {
                    return Err((CallError::Full, body));
                };
                self.hijacked = true;
                Some(ticket)
            }
            Want::Call(_) | Want::NotifyWithin(_) | Want::Send => {
                let limit = u32::try_from(self.calls_max).unwrap_or(u32::MAX);
                let too_many = CallError::TooManyCalls { limit };
                if self.calls.len() >= self.calls_max {
                    return Err((too_many, body));
                }
                let is_nobodys = matches!(want, Want::Send);
                match self.calls.insert(Waiting { is_nobodys, ..Waiting::default() }) {
                    Ok(ticket) => Some(ticket),
                    Err(_) => return Err((too_many, body)),
                }
            }
        };
        self.batch.push(msg, body, want, ticket);
        Ok(ticket)
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

    /// Gives the shard something to do; answers by what it is polled and cancelled, if somebody
    /// can wait for it.
    pub(super) fn submit<'a>(
        &self,
        msg: u32,
        body: Payload<'a>,
        want: Want,
        who: Who,
    ) -> Result<Option<Key>, Refused<'a>> {
        let mut state = self.lock();
        let ticket = state.push(msg, body, want, who)?;
        Self::post(state);
        Ok(ticket.filter(|_| !matches!(want, Want::Send)))
    }

    pub(super) fn poll_call(&self, ticket: Key, cx: &Context<'_>) -> Poll<Ended> {
        let polled = self.lock().poll(ticket, cx.waker());
        if let Some(polled) = polled {
            return polled;
        }
        let mut waker = Some(cx.waker().clone());
        let mut state = self.lock();
        // It may have ended meanwhile.
        let polled = state.poll(ticket, cx.waker());
        if let (None, Some(waiting)) = (&polled, state.calls.get_mut(ticket)) {
            mem::swap(&mut waiting.waker, &mut waker);
        }
        drop(state);
        polled.unwrap_or(Poll::Pending)
    }

    /// Nobody waits for this call any more.
    pub(super) fn cancel(&self, ticket: Key) {
        let mut state = self.lock();
        let waiting = state.calls.remove(ticket);
        if let Some(Waiting { ended: None, call, .. }) = &waiting {
            state.batch.cancelled.extend(*call);
            // Also before it was made: the shard keeps its body until it looks.
            Self::post(state);
        } else {
            drop(state);
        }
        drop(waiting);
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
        let waker = self.lock().presence.watchers.forget(id);
        // After the lock: it is of a user.
        drop(waker);
    }

    /// The set-up of this connection has ended.
    pub(super) fn set_up_ended(&self, number: u32, end: SetUpEnd) {
        let mut state = self.lock();
        if let Some(set_up) = &mut state.set_up
            && set_up.number == number
        {
            set_up.ended = Some(end);
            Self::post(state);
        }
    }

    /// Takes everything that waits for the shard, for an empty batch.
    pub(super) fn take(&self, batch: &mut Batch) -> Option<Wish> {
        let mut state = self.lock();
        state.presence.woken = false;
        mem::swap(&mut state.batch, batch);
        state.held_bytes += batch.patient_bytes();
        state.wish
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_another_set_up_is_not_taken_for_this_one() {
        let line = Line::default();
        line.lock().begin_set_up(2);
        line.set_up_ended(1, Ok(()));
        assert_eq!(line.lock().set_up_end(), None);
        assert_eq!(line.lock().refusal_of(Who::SetUp(1)), Some(CallError::Stopped));
        assert_eq!(line.lock().refusal_of(Who::SetUp(2)), None);
        line.set_up_ended(2, Err("no".into()));
        assert_eq!(line.lock().refusal_of(Who::SetUp(2)), Some(CallError::Stopped));
        assert_eq!(line.lock().set_up_end(), Some(Err("no".into())));
    }
}
