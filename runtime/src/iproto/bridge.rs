//! The end of a channel's line that lives on the shard.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hioload_pools::Key;
use hioload_protocol::ws::CloseCode;

use super::batch::{Batch, Blocks, Outgoing};
use super::callbacks::{Callbacks, Init};
use super::connect::Connect;
use super::line::{Ended, Finished, Line, Want, Wish};
use super::pool::Member;
use super::{Body, CallError, Closed, FreshChannel, Handler, Hijacked, Peer, Request, Session};
use crate::Time;
use crate::shard::{IprotoDialled, Shard, Task};
use crate::ws::{ClientId, ConnectError, Opened, Stage, Wakes};

/// The timer for notifies that wait for room.
const ROOM_TIMER: u64 = 0;
/// The timer for the set-up of the connection.
const SET_UP_TIMER: u64 = 1;

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
    /// Who takes the connection away.
    hijacker: Option<Key>,
    blocks: Blocks,
    callbacks: Callbacks,
    /// How long a set-up may take.
    timeout: Duration,
    /// The set-up of this connection, while it runs.
    set_up: Option<Task<()>>,
    /// Why it failed, until that is told.
    failure: Option<ConnectError>,
    /// This connection was opened to everybody.
    is_open: bool,
}

impl Bridge {
    pub(super) fn new(line: Arc<Line>, persists: bool, member: Option<Member>) -> Self {
        Self {
            line,
            persists,
            member,
            batch: Batch::default(),
            held: VecDeque::new(),
            hijacker: None,
            blocks: Blocks::default(),
            callbacks: Callbacks::default(),
            timeout: Duration::ZERO,
            set_up: None,
            failure: None,
            is_open: false,
        }
    }

    /// Begins to connect on this shard.
    pub(super) fn begin(mut self, shard: &mut Shard, connect: Connect) {
        let line = Arc::clone(&self.line);
        (self.callbacks, self.timeout) = connect.callbacks();
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

    /// What the client of this line is called on its shard.
    fn client(&self, shard: &Shard) -> Option<ClientId> {
        let state = self.line.lock();
        let key = state.presence.link.as_ref().map(|(_, key)| *key)?;
        Some(ClientId { shard: shard.index(), key })
    }

    /// Lets everybody use the connection.
    fn open(&mut self, session: &mut Session<'_, ()>) {
        let mut wakes = Wakes::default();
        let mut state = self.line.lock();
        state.open(&mut wakes);
        // Nobody may want it any more by now.
        let wish = state.wish;
        drop(state);
        self.is_open = true;
        if let Some(member) = &self.member {
            member.opened();
        }
        end(session, wish);
        wakes.call();
    }

    /// Lets the function of the user set the connection up.
    fn begin_set_up(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, ()>,
        init: &Init,
        number: u32,
    ) {
        let mut state = self.line.lock();
        state.begin_set_up(number);
        let wish = state.wish;
        drop(state);
        if let Some(client) = self.client(shard) {
            shard.note_set_up(client, true);
        }
        if wish.is_some() {
            self.fail_set_up(|| ConnectError::Stopped);
            return end(session, wish);
        }
        if let Some(member) = &self.member {
            member.setting_up();
        }
        // One of two at the most, and it is open.
        let _ = session.set_timer(self.timeout, SET_UP_TIMER);
        let fresh = FreshChannel::new(Arc::clone(&self.line), number);
        let setting_up = init(fresh.clone());
        self.set_up = Some(shard.spawn(fresh.set_up(setting_up)));
    }

    /// Looks whether the set-up has ended.
    fn look_at_set_up(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, ()>,
        wish: Option<Wish>,
    ) {
        if wish.is_some() {
            self.fail_set_up(|| ConnectError::Stopped);
            return;
        }
        let ended = self.line.lock().set_up_end();
        match ended {
            Some(Ok(())) if session.is_open() => {
                self.set_up = None;
                session.cancel_timer(SET_UP_TIMER);
                if let Some(client) = self.client(shard) {
                    shard.note_set_up(client, false);
                }
                self.open(session);
            }
            // It is about to end, and will say why.
            Some(Ok(())) | None => {}
            Some(Err(_)) => {
                self.fail_set_up(|| ConnectError::Stopped);
                session.close();
            }
        }
    }

    /// The connection will not be opened; the first cause counts, and what the set-up itself said
    /// is one. `false`: nobody sets it up.
    fn fail_set_up(&mut self, why: impl FnOnce() -> ConnectError) -> bool {
        let mut state = self.line.lock();
        let said = state.set_up_end();
        let is_it = state.drop_set_up();
        drop(state);
        if is_it {
            self.failure = Some(match said {
                Some(Err(reason)) => ConnectError::SetUp { reason },
                Some(Ok(())) | None => why(),
            });
            self.set_up = None;
        }
        is_it
    }

    fn finish(&self, ticket: Key, ended: Ended) {
        let finished = self.line.lock().finish(ticket, ended);
        finished.wake();
    }

    /// Ends a notify that could wait for room.
    fn finish_notify(&self, ticket: Key, len: usize, ended: Ended) {
        let mut state = self.line.lock();
        state.let_go(len + 1);
        let finished = state.finish(ticket, ended);
        drop(state);
        finished.wake();
    }

    /// The connection takes nothing more: who has others is to use those.
    fn stops(&self) {
        let is_new = self.line.lock().stops();
        if let Some(member) = &self.member
            && is_new
        {
            member.down();
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
            // It neither waits nor overtakes those that do.
            let room = if self.held.is_empty() { Ok(()) } else { Err(CallError::Full) };
            if let Err(error) = room.and_then(|()| session.notify(msg, body)) {
                tracing::debug!(%error, "a notify was dropped");
            }
            return;
        };
        let len = body.len();
        let mut line = self.line.lock();
        if !line.waits(ticket) {
            match want {
                Want::NotifyWithin(_) => line.let_go(len + 1),
                Want::Hijack => line.hijacked = false,
                Want::Notify | Want::Call(_) | Want::Send => {}
            }
            return;
        }
        drop(line);
        match want {
            Want::NotifyWithin(timeout) => {
                let room = if self.held.is_empty() { Ok(()) } else { Err(CallError::Full) };
                match room.and_then(|()| session.notify(msg, body)) {
                    Ok(_) => self.finish_notify(ticket, len, Ended::Response(Bytes::new())),
                    Err(CallError::Full) => {
                        let until = shard.now().after(timeout);
                        let body = batch.owned_body(outgoing);
                        self.held.push_back(Held { ticket, msg, body, until });
                    }
                    Err(error) => {
                        self.line.lock().let_go(len + 1);
                        self.not_sent(batch, outgoing, error);
                    }
                }
            }
            Want::Call(_) | Want::Send => {
                let timeout = if let Want::Call(timeout) = want { timeout } else { None };
                match session.call(msg, body, timeout, ticket.to_u64()) {
                    Ok(call) if self.line.lock().made(ticket, call) => {}
                    Ok(call) => {
                        session.cancel(call);
                    }
                    Err(error) => self.not_sent(batch, outgoing, error),
                }
            }
            Want::Hijack => self.hijack(session, ticket),
            Want::Notify => {}
        }
    }

    /// Lets somebody take the connection away.
    fn hijack(&mut self, session: &mut Session<'_, ()>, ticket: Key) {
        match session.hijack() {
            Ok(()) => {
                self.hijacker = Some(ticket);
                if let Some(member) = &self.member {
                    member.down();
                }
            }
            Err(error) => {
                self.line.lock().hijacked = false;
                self.finish(ticket, Ended::Failed(error));
            }
        }
    }

    fn not_sent(&self, batch: &Batch, outgoing: Outgoing, error: CallError) {
        let Some(ticket) = outgoing.ticket else { return };
        let ended = self.unsent(error, || batch.owned_body(outgoing));
        self.finish(ticket, ended);
    }

    fn unsent(&self, error: CallError, body: impl FnOnce() -> Bytes) -> Ended {
        match error {
            // Known before it is given to another connection, or it would come here again at once.
            CallError::Stopped => self.stops(),
            CallError::Full | CallError::TooManyCalls { .. } => {}
            _ => return Ended::Failed(error),
        }
        Ended::Unsent(error, body())
    }

    /// Sends the notifies that wait for room, as far as there is some, and ends those that have
    /// waited long enough.
    fn send_held(&mut self, now: Time, session: &mut Session<'_, ()>) {
        for Held { ticket, body, .. } in self.over(now) {
            self.finish_notify(ticket, body.len(), Ended::Failed(CallError::Full));
        }
        while let Some(Held { ticket, msg, body, until }) = self.held.pop_front() {
            let len = body.len();
            match session.notify(msg, &body[..]) {
                Ok(_) => self.finish_notify(ticket, len, Ended::Response(Bytes::new())),
                Err(CallError::Full) => {
                    self.held.push_front(Held { ticket, msg, body, until });
                    break;
                }
                Err(error) => self.finish_notify(ticket, len, self.unsent(error, || body)),
            }
        }
        self.wait_for_room(now, session);
    }

    fn wait_for_room(&self, now: Time, session: &mut Session<'_, ()>) {
        if let Some(first) = self.held.iter().map(|held| held.until).min() {
            session.await_room();
            // Its only timer, and it is open.
            let _ = session.set_timer(first.since(now), ROOM_TIMER);
        }
    }

    /// Takes out what has waited long enough, and what nobody waits for.
    fn over(&mut self, now: Time) -> VecDeque<Held> {
        let state = self.line.lock();
        let (held, over) = mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.until > now && state.waits(held.ticket));
        self.held = held;
        over
    }
}

impl Handler for Bridge {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &Peer<'_>) -> Option<()> {
        None
    }

    fn request(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        if let Some(serve) = &self.callbacks.request {
            self.line.lock().stats = session.stats();
            serve(shard, request);
        }
    }

    fn notify(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, msg: u32, body: Body) {
        if let Some(hear) = &self.callbacks.notify {
            self.line.lock().stats = session.stats();
            hear(shard, msg, body);
        }
    }

    fn answered(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        let is_answer = response.is_ok();
        let ended = match response {
            Ok(body) => Ended::Response(self.blocks.copy(&body)),
            Err(error) => Ended::Failed(error),
        };
        let mut state = self.line.lock();
        state.stats = session.stats();
        let finished = state.finish(Key::from_u64(token), ended);
        drop(state);
        finished.wake();
        if is_answer && self.set_up.is_some() {
            // A server that refuses may end the connection right behind its answer, and the set-up
            // is to say why.
            shard.run_ready();
        }
    }

    fn drained(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>) {
        self.send_held(shard.now(), session);
    }

    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, token: u64) {
        if token == ROOM_TIMER {
            return self.send_held(shard.now(), session);
        }
        let limit = self.timeout.as_millis();
        if self.fail_set_up(|| set_up_failed(&format!("it took longer than {limit} ms"))) {
            session.close();
        }
    }

    fn shutdown(&mut self, _: &mut Shard, _: &mut Session<'_, ()>) {
        self.fail_set_up(|| set_up_failed("the server shut the connection down"));
        self.stops();
    }

    fn hijacked(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, hijacked: Hijacked) {
        if let Some(ticket) = self.hijacker.take() {
            self.finish(ticket, Ended::Hijacked(Box::new(hijacked)));
        }
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, reason: Closed) {
        self.fail_set_up(|| ended_in_set_up(reason));
        let failure = self.failure.take();
        let was_open = mem::take(&mut self.is_open);
        let mut wakes = Wakes::default();
        let mut state = self.line.lock();
        state.stats = session.stats();
        if was_open || state.wish.is_some() {
            state.presence.reason = Some(reason);
        } else if failure.is_some() {
            state.presence.error.clone_from(&failure);
        }
        let was_wished = state.wish.is_some();
        let hijacker = self
            .hijacker
            .take()
            .map(|ticket| state.finish(ticket, Ended::Failed(CallError::Dropped)));
        let mut finished: Vec<_> = hijacker.into_iter().collect();
        for Held { ticket, body, .. } in mem::take(&mut self.held) {
            finished.push(state.finish(ticket, Ended::Unsent(CallError::Stopped, body)));
        }
        finished.append(&mut state.down(self.persists, &mut wakes));
        drop(state);
        if let Some(member) = &self.member {
            member.down();
            if let Some(error) = failure.filter(|_| !was_wished) {
                member.failed(&error);
            }
        }
        wakes.call();
        finished.into_iter().for_each(Finished::wake);
    }
}

impl IprotoDialled for Bridge {
    fn serves(&self) -> bool {
        self.callbacks.request.is_some()
    }

    fn dialled(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, opened: &Opened) {
        match self.callbacks.init.clone() {
            Some(init) => self.begin_set_up(shard, session, &init, opened.generation),
            None => self.open(session),
        }
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
                // First what has waited for room: nothing that is new overtakes it.
                if !self.held.is_empty() {
                    self.send_held(shard.now(), session);
                }
                while let Some(outgoing) = batch.pop() {
                    self.send(&batch, shard, session, outgoing);
                }
                self.wait_for_room(shard.now(), session);
                self.line.lock().stats = session.stats();
                if self.set_up.is_some() {
                    self.look_at_set_up(shard, session, wish);
                }
                end(session, wish);
            }
            None => {
                self.stops();
                self.line.lock().let_go(batch.patient_bytes());
                while let Some((ticket, body)) = batch.unsent() {
                    if let Some(ticket) = ticket {
                        self.finish(ticket, Ended::Unsent(CallError::Stopped, body));
                    }
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

fn set_up_failed(reason: &str) -> ConnectError {
    ConnectError::SetUp { reason: reason.into() }
}

/// Why a connection was not set up that ended before that.
fn ended_in_set_up(reason: Closed) -> ConnectError {
    match reason {
        Closed::Shutdown => ConnectError::Stopped,
        Closed::ByPeer => set_up_failed("the server closed the connection"),
        Closed::Lost => set_up_failed("the connection was lost"),
        Closed::Panicked => set_up_failed("it panicked"),
        reason => set_up_failed(&format!("the connection ended meanwhile ({reason:?})")),
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
