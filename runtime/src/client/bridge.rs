//! The end of a handle's pipe that lives on the shard.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use hioload_protocol::ws::{CloseCode, MessageKind};

use super::connect::Connect;
use super::error::ConnectError;
use super::handler::{ClientId, Opened};
use super::payload::Payload;
use super::pipe::{Item, Pipe};
use super::presence::{Stage, Wakes};
use crate::shard::{Closed, Dialled, Handler, Message, Request, Sent, Session, Shard, Upgrade};

/// The handler of a connection that a handle uses.
pub(super) struct Bridge {
    pipe: Arc<Pipe>,
    /// Taken out of the pipe and not yet in the outbox.
    sending: VecDeque<Payload>,
    /// The connection will be opened again if it is lost.
    persists: bool,
}

impl Bridge {
    pub(super) fn new(pipe: Arc<Pipe>, connect: &Connect) -> Self {
        Self { pipe, sending: VecDeque::new(), persists: connect.reconnects() }
    }

    /// Begins to connect on this shard.
    pub(super) fn begin(self, shard: &mut Shard, connect: Connect) {
        let pipe = Arc::clone(&self.pipe);
        if pipe.lock().close.is_some() {
            return;
        }
        let id = shard.dial(connect, self);
        let mut state = pipe.lock();
        state.presence.link = Some((shard.handle(), id.key));
        let cancelled = state.close.is_some();
        drop(state);
        if cancelled {
            shard.close_client(id, CloseCode::GOING_AWAY);
        }
    }

    /// Puts into the outbox what waits, until that is full; behind the last of it the close frame,
    /// if that was asked for.
    fn push(&mut self, session: &mut Session<'_, ()>) {
        let mut sent_bytes = 0;
        let mut full = session.is_full();
        loop {
            while !full && let Some(payload) = self.sending.pop_front() {
                sent_bytes += payload.len().max(1);
                match send(session, &payload) {
                    Sent::Queued => {}
                    Sent::Full => full = true,
                    Sent::Dropped => self.dropped(session),
                }
            }
            let mut state = self.pipe.lock();
            state.outgoing_bytes = state.outgoing_bytes.saturating_sub(mem::take(&mut sent_bytes));
            if !self.sending.is_empty() || state.outgoing.is_empty() {
                state.full = full;
                let mut wakes = Wakes::default();
                if !full {
                    wakes.add_all(&mut state.writers);
                }
                let is_last = self.sending.is_empty() && state.outgoing.is_empty();
                let close = state.close.clone().filter(|_| is_last);
                drop(state);
                if let Some((code, reason)) = close {
                    session.close(code, &reason);
                }
                return wakes.call();
            }
            mem::swap(&mut state.outgoing, &mut self.sending);
        }
    }

    /// A message that was accepted cannot be sent: a stream with a hole in it must not go on.
    fn dropped(&mut self, session: &mut Session<'_, ()>) {
        self.pipe.lock().lost += 1;
        if session.is_open() {
            tracing::error!("a connection is closed: there is no memory for what it is to send");
            session.close_for(Closed::OutOfMemory);
        }
    }
}

fn send(session: &mut Session<'_, ()>, payload: &Payload) -> Sent {
    match (payload.kind(), payload.text()) {
        (MessageKind::Text, Some(text)) => session.send_text(text),
        _ => session.send_binary(payload),
    }
}

impl Handler for Bridge {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::refuse(404)
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        let payload = Payload::from(&message);
        let mut state = self.pipe.lock();
        if state.deaf || state.close.is_some() {
            return;
        }
        state.arrived(payload);
        if state.is_stuffed() && !state.paused {
            state.paused = true;
            session.pause();
        }
        let mut wakes = Wakes::default();
        wakes.add(&mut state.reader);
        drop(state);
        wakes.call();
    }

    fn drained(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
        self.push(session);
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        let unsent = mem::take(&mut self.sending).len() as u64;
        let mut wakes = Wakes::default();
        let mut state = self.pipe.lock();
        state.lost += unsent;
        state.forget_outgoing();
        state.presence.reason = Some(reason);
        state.paused = false;
        state.resume = false;
        if self.persists && state.close.is_none() {
            state.presence.stage = Stage::Down;
        } else {
            state.end(&mut wakes);
        }
        drop(state);
        wakes.call();
    }
}

impl Dialled for Bridge {
    fn dialled(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, opened: &Opened) {
        let (high, max) = shard.outbox_marks();
        let mut wakes = Wakes::default();
        let mut state = self.pipe.lock();
        state.presence.opened(opened.generation, &mut wakes);
        state.subprotocol.clone_from(&opened.subprotocol);
        state.high = high;
        state.message_max = max - high;
        if opened.generation > 1 && !state.deaf {
            state.incoming.push_back(Item::Opened(opened.generation));
            wakes.add(&mut state.reader);
        }
        // What the last connection brought may fill the inbox still.
        if state.is_stuffed() {
            state.paused = true;
            session.pause();
        }
        wakes.add_all(&mut state.writers);
        // Nobody may want it any more by now.
        let close = state.close.clone();
        drop(state);
        if let Some((code, reason)) = close {
            session.close(code, &reason);
        }
        wakes.call();
    }

    fn failed(&mut self, _: &mut Shard, error: &ConnectError) {
        let mut wakes = Wakes::default();
        let mut state = self.pipe.lock();
        state.presence.error = Some(error.clone());
        if !self.persists {
            state.end(&mut wakes);
        }
        drop(state);
        wakes.call();
    }

    fn reconnecting(&mut self, _: &mut Shard, _: u32, _: Duration) {}

    fn woken(&mut self, shard: &mut Shard, id: ClientId, session: Option<&mut Session<'_, ()>>) {
        let mut state = self.pipe.lock();
        state.presence.woken = false;
        let closes = state.close.is_some();
        // Who closes takes nothing more, but the server must not wait for that.
        let resume = mem::take(&mut state.resume) || (closes && state.paused);
        let ping = state.ping.take();
        if resume {
            state.paused = false;
        }
        drop(state);
        let Some(session) = session else {
            if closes {
                shard.close_client(id, CloseCode::GOING_AWAY);
            }
            return;
        };
        if closes {
            shard.cancel_client(id);
        }
        if resume {
            session.resume();
        }
        if let Some(payload) = ping {
            session.ping(&payload);
        }
        self.push(session);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let mut wakes = Wakes::default();
        let mut state = self.pipe.lock();
        if state.presence.stage != Stage::Ended {
            state.presence.abandoned();
            state.end(&mut wakes);
        }
        // The shard is no longer there for it.
        let link = state.presence.link.take();
        drop(state);
        drop(link);
        wakes.call();
    }
}
