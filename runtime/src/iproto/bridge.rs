//! The end of a channel's line that lives on the shard.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hioload_pools::Key;
use hioload_protocol::ws::CloseCode;

use super::batch::{Batch, Blocks, Outgoing};
use super::connect::Connect;
use super::line::{Ended, Line, Want, Wish};
use super::pool::Member;
use super::{Body, CallError, Closed, Handler, Peer, Request, Session};
use crate::Time;
use crate::shard::{IprotoDialled, Shard};
use crate::ws::{ClientId, ConnectError, Opened, Stage, Wakes};

/// The timer for notifies that wait for room.
const ROOM_TIMER: u64 = 0;

/// A notify that waits for room.
struct Held {
    ticket: Key,
    msg: u32,
    body: Bytes,
    until: Time,
}

/// The handler of a connection that a channel uses.
pub(super) struct Bridge {
    line: Arc<Line>,
    /// The connection will be opened again if it is lost.
    persists: bool,
    /// The place in a pool that it has.
    member: Option<Member>,
    /// What was taken out of the line; empty between two looks, but for its memory.
    batch: Batch,
    held: VecDeque<Held>,
    blocks: Blocks,
}

impl Bridge {
    pub(super) fn new(line: Arc<Line>, persists: bool, member: Option<Member>) -> Self {
        Self {
            line,
            persists,
            member,
            batch: Batch::default(),
            held: VecDeque::new(),
            blocks: Blocks::default(),
        }
    }

    /// Begins to connect on this shard.
    pub(super) fn begin(self, shard: &mut Shard, connect: Connect) {
        let line = Arc::clone(&self.line);
        if line.lock().wish.is_some() {
            return;
        }
        let id = shard.dial_iproto(connect, self);
        let mut state = line.lock();
        state.presence.link = Some((shard.handle(), id.key));
        (state.bytes_max, state.calls_max) = shard.iproto_marks();
        let cancelled = state.wish.is_some();
        drop(state);
        if cancelled {
            shard.close_client(id, CloseCode::GOING_AWAY);
        }
    }

    fn finish(&self, ticket: Key, ended: Ended) {
        let waker = self.line.lock().finish(ticket, ended);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn send(
        &mut self,
        batch: &Batch,
        shard: &Shard,
        session: &mut Session<'_, ()>,
        outgoing: Outgoing,
    ) {
        let (msg, body) = (outgoing.msg, batch.body(&outgoing));
        let (want, Some(ticket)) = (outgoing.want, outgoing.ticket) else {
            if let Err(error) = send_for_nobody(session, msg, body, outgoing.want) {
                tracing::debug!(%error, "a packet was dropped");
            }
            return;
        };
        match want {
            Want::NotifyWithin(_) if !self.line.lock().waits(ticket) => {}
            Want::NotifyWithin(timeout) => match session.notify(msg, body) {
                Ok(_) => self.finish(ticket, Ended::Response(Bytes::new())),
                Err(CallError::Full) => {
                    let until = shard.now().after(timeout);
                    let body = batch.owned_body(outgoing);
                    self.held.push_back(Held { ticket, msg, body, until });
                }
                Err(error) => self.not_sent(batch, outgoing, error),
            },
            Want::Call(timeout) => match session.call(msg, body, timeout, ticket.to_u64()) {
                Ok(call) if self.line.lock().made(ticket, call) => {}
                Ok(call) => {
                    session.cancel(call);
                }
                Err(error) => self.not_sent(batch, outgoing, error),
            },
            Want::Notify | Want::Send => {}
        }
    }

    fn not_sent(&self, batch: &Batch, outgoing: Outgoing, error: CallError) {
        let Some(ticket) = outgoing.ticket else { return };
        let ended = match error {
            CallError::Stopped | CallError::Full | CallError::TooManyCalls { .. } => {
                Ended::Unsent(error, batch.owned_body(outgoing))
            }
            _ => Ended::Failed(error),
        };
        self.finish(ticket, ended);
    }

    /// Sends the notifies that wait for room, as far as there is some, and ends those that have
    /// waited long enough.
    fn send_held(&mut self, now: Time, session: &mut Session<'_, ()>) {
        while let Some(Held { ticket, msg, body, until }) = self.held.pop_front() {
            if !self.line.lock().waits(ticket) {
                continue;
            }
            match session.notify(msg, &body[..]) {
                Ok(_) => self.finish(ticket, Ended::Response(Bytes::new())),
                Err(CallError::Full) => {
                    self.held.push_front(Held { ticket, msg, body, until });
                    break;
                }
                Err(error) => self.finish(ticket, Ended::Unsent(error, body)),
            }
        }
        let mut wakes = Wakes::default();
        let line = &self.line;
        self.held.retain(|Held { ticket, until, .. }| {
            let waits = *until > now;
            if !waits {
                wakes.add(&mut line.lock().finish(*ticket, Ended::Failed(CallError::Full)));
            }
            waits
        });
        wakes.call();
        if let Some(first) = self.held.iter().map(|held| held.until).min() {
            session.await_room();
            // Its only timer, and it is open.
            let _ = session.set_timer(first.since(now), ROOM_TIMER);
        }
    }
}

fn send_for_nobody(
    session: &mut Session<'_, ()>,
    msg: u32,
    body: &[u8],
    want: Want,
) -> Result<(), CallError> {
    if let Want::Send = want {
        let call = session.call(msg, body, None, 0)?;
        session.cancel(call);
    } else {
        session.notify(msg, body)?;
    }
    Ok(())
}

impl Handler for Bridge {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &Peer<'_>) -> Option<()> {
        None
    }

    fn request(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, request: Request) {
        // Nothing is served here: that answers with an error.
        drop(request);
    }

    fn answered(
        &mut self,
        _: &mut Shard,
        session: &mut Session<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        let ended = match response {
            Ok(body) => Ended::Response(self.blocks.copy(&body)),
            Err(error) => Ended::Failed(error),
        };
        let mut state = self.line.lock();
        state.stats = session.stats();
        let waker = state.finish(Key::from_u64(token), ended);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn drained(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>) {
        self.send_held(shard.now(), session);
    }

    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, _: u64) {
        self.send_held(shard.now(), session);
    }

    fn shutdown(&mut self, _: &mut Shard, _: &mut Session<'_, ()>) {
        self.line.lock().stopping = true;
        if let Some(member) = &self.member {
            member.down();
        }
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, reason: Closed) {
        let mut wakes = Wakes::default();
        let mut state = self.line.lock();
        state.stats = session.stats();
        state.presence.reason = Some(reason);
        for Held { ticket, body, .. } in mem::take(&mut self.held) {
            wakes.add(&mut state.finish(ticket, Ended::Unsent(CallError::Stopped, body)));
        }
        state.down(self.persists, &mut wakes);
        drop(state);
        if let Some(member) = &self.member {
            member.down();
        }
        wakes.call();
    }
}

impl IprotoDialled for Bridge {
    fn dialled(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, opened: &Opened) {
        let mut wakes = Wakes::default();
        let mut state = self.line.lock();
        state.presence.opened(opened.generation, &mut wakes);
        // Nobody may want it any more by now.
        let wish = state.wish;
        drop(state);
        if let Some(member) = &self.member {
            member.opened();
        }
        end(session, wish);
        wakes.call();
    }

    fn failed(&mut self, _: &mut Shard, error: &ConnectError) {
        let mut wakes = Wakes::default();
        let mut state = self.line.lock();
        state.presence.error = Some(error.clone());
        if !self.persists {
            state.end(&mut wakes);
        }
        drop(state);
        if let Some(member) = &self.member {
            member.failed(error);
        }
        wakes.call();
    }

    fn reconnecting(&mut self, _: &mut Shard, _: u32, _: Duration) {}

    fn woken(&mut self, shard: &mut Shard, id: ClientId, session: Option<&mut Session<'_, ()>>) {
        let mut batch = mem::take(&mut self.batch);
        let wish = self.line.take(&mut batch);
        match session {
            Some(session) => {
                for call in batch.cancelled.drain(..) {
                    session.cancel(call);
                }
                while let Some(outgoing) = batch.pop() {
                    self.send(&batch, shard, session, outgoing);
                }
                if !self.held.is_empty() {
                    self.send_held(shard.now(), session);
                }
                self.line.lock().stats = session.stats();
                end(session, wish);
            }
            None => {
                while let Some((ticket, body)) = batch.unsent() {
                    self.finish(ticket, Ended::Unsent(CallError::Stopped, body));
                }
            }
        }
        batch.clear();
        self.batch = batch;
        if wish.is_some() {
            shard.close_client(id, CloseCode::GOING_AWAY);
        }
    }
}

/// Ends a connection as its handle wishes.
fn end(session: &mut Session<'_, ()>, wish: Option<Wish>) {
    match wish {
        Some(Wish::Shutdown) => session.shutdown(),
        Some(Wish::Close) => session.close(),
        None => {}
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let mut wakes = Wakes::default();
        let mut state = self.line.lock();
        if state.presence.stage != Stage::Ended {
            state.presence.abandoned();
            state.end(&mut wakes);
        }
        // The shard is no longer there for it.
        let link = state.presence.link.take();
        let was_wished = state.wish.is_some();
        drop(state);
        drop(link);
        if let Some(member) = &self.member {
            member.ended(was_wished);
        }
        wakes.call();
    }
}
