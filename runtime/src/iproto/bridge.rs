//! The end of a channel's line that lives on the shard.

use std::sync::Arc;
use std::time::Duration;

use hioload_protocol::ws::CloseCode;

use super::connect::Connect;
use super::line::{Found, Line, Outgoing, Wish};
use super::{Body, CallError, Closed, Handler, Peer, Request, Session};
use crate::shard::{IprotoDialled, Shard};
use crate::ws::{ClientId, ConnectError, Opened, Stage, Wakes};

/// The handler of a connection that a channel uses.
pub(super) struct Bridge {
    line: Arc<Line>,
    /// The connection will be opened again if it is lost.
    persists: bool,
}

impl Bridge {
    pub(super) const fn new(line: Arc<Line>, persists: bool) -> Self {
        Self { line, persists }
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

    fn finish(&self, ticket: u64, result: Result<Body, CallError>) {
        let waker = self.line.lock().finish(ticket, result.map(|body| body.to_bytes()));
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn send(&self, session: &mut Session<'_, ()>, outgoing: Outgoing) {
        let Outgoing { msg, body, call } = outgoing;
        let Some((ticket, timeout)) = call else {
            if let Err(error) = session.notify(msg, body) {
                tracing::debug!(%error, "a notify was dropped");
            }
            return;
        };
        match session.call(msg, body, timeout, ticket) {
            Ok(call) if self.line.lock().made(ticket, call) => {}
            Ok(call) => {
                session.cancel(call);
            }
            Err(error) => self.finish(ticket, Err(error)),
        }
    }
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
        self.line.lock().stats = session.stats();
        self.finish(token, response);
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, reason: Closed) {
        let mut wakes = Wakes::default();
        let mut state = self.line.lock();
        state.stats = session.stats();
        state.presence.reason = Some(reason);
        state.down(self.persists, &mut wakes);
        drop(state);
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
        wakes.call();
    }

    fn reconnecting(&mut self, _: &mut Shard, _: u32, _: Duration) {}

    fn woken(&mut self, shard: &mut Shard, id: ClientId, session: Option<&mut Session<'_, ()>>) {
        let Found { outgoing, cancelled, wish } = self.line.take();
        match session {
            Some(session) => {
                for call in cancelled {
                    session.cancel(call);
                }
                outgoing.into_iter().for_each(|each| self.send(session, each));
                self.line.lock().stats = session.stats();
                end(session, wish);
            }
            None => {
                for Outgoing { call, .. } in outgoing {
                    if let Some((ticket, _)) = call {
                        self.finish(ticket, Err(CallError::Stopped));
                    }
                }
            }
        }
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
        drop(state);
        drop(link);
        wakes.call();
    }
}
