//! The route of an iproto listener: requests out of bytes, and what the protocol does by itself.

use std::rc::Rc;

use hioload_pools::{Lease, ObjectPool};
use hioload_protocol::iproto::{Action, CloseReason, Env, Event, Limits, ReplyTo, Violation};

use super::body::Body;
use super::error::CallError;
use super::handler::{Handler, IprotoClosed, IprotoPeer, IprotoRequest};
use super::hijack::{Hijacked, is_leaving};
use super::late::{Answer, Late, Reply, What};
use super::session::IprotoSession;
use super::{Caller, Iproto};
use crate::reactor::Connection;
use crate::shard::entry::{Entry, Phase, Protocol};
use crate::shard::handler::Closed;
use crate::shard::link::Link;
use crate::shard::route::{Context, Host, Route, linger};
use crate::shard::share::Share;
use crate::shard::{SessionId, Shard};

/// From this many bytes still to come on, the rest of a body is received straight into it.
const DIRECT_BYTES_MIN: usize = 32 * 1024;

/// The handler of an iproto listener with its connections.
pub(crate) struct IprotoRoute<H: Handler> {
    host: Host<H, H::Session>,
    serves: bool,
}

impl<H: Handler> IprotoRoute<H> {
    pub(crate) fn new(handler: H, sessions_max: usize) -> Self {
        Self { host: Host::new(handler, sessions_max), serves: true }
    }

    /// Requests of the peer are counted as unsolicited, and not answered. A response to a call
    /// that was forgotten looks like one: were it answered, a peer that serves would take the
    /// answer for a request in turn, and both would go on for ever.
    pub(super) fn serving_nothing(self) -> Self {
        Self { serves: false, ..self }
    }

    /// What the peers of this route may cost.
    fn limits(&self, limits: &Limits) -> Limits {
        Limits { requests_max: if self.serves { limits.requests_max } else { 0 }, ..*limits }
    }

    /// Opens an accepted connection.
    pub(super) fn open(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        data: H::Session,
        opened: impl FnOnce(&mut H, &mut Shard, &mut IprotoSession<'_, H::Session>),
    ) {
        match self.host.sessions.insert(data) {
            Ok(user) => entry.user = user,
            Err(_) => return entry.advance(Phase::Dead, cx.egress.now_ms),
        }
        entry.protocol = Protocol::Iproto(Box::new(Iproto::new(cx.egress.now_ms)));
        entry.flags.set_opened(true);
        self.visit(cx, entry, opened);
    }

    /// Its handler, while no connection of it is looked at.
    pub(super) const fn handler(&mut self) -> &mut H {
        &mut self.host.handler
    }

    /// Calls the handler with a connection, and does what is to be done after that.
    pub(super) fn visit(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        callback: impl FnOnce(&mut H, &mut Shard, &mut IprotoSession<'_, H::Session>),
    ) {
        self.call(cx, entry, callback);
        self.after(cx, entry);
    }

    /// Calls the handler with a connection, if the user's data is still there.
    fn call(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        callback: impl FnOnce(&mut H, &mut Shard, &mut IprotoSession<'_, H::Session>),
    ) {
        let Host { handler, sessions } = &mut self.host;
        if let Some(data) = sessions.get_mut(entry.user) {
            let link = Link { shard: cx.shard.index(), entry, egress: cx.egress, net: cx.net };
            callback(handler, cx.shard, &mut IprotoSession::new(data, link));
        }
    }

    fn event(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        bytes: &mut Lease,
        at: usize,
        event: Event<Lease, Caller>,
    ) {
        match event {
            Event::Request { to, body } => {
                let body = Body::take(bytes, at, body);
                self.request(cx, entry, to, body);
            }
            Event::Notify { msg, body } => {
                let body = Body::take(bytes, at, body);
                self.notify(cx, entry, msg, body);
            }
            Event::Response { token, body, .. } => {
                let body = Body::take(bytes, at, body);
                self.answered(cx, entry, token, Ok(body));
            }
            Event::Send(header) => {
                bytes.advance(at);
                cx.link(entry).send_header(header);
            }
            Event::Shutdown => {
                bytes.advance(at);
                entry.blame(Closed::ByPeer(None));
                self.call(cx, entry, |handler, shard, session| handler.shutdown(shard, session));
            }
        }
    }

    fn request(&mut self, cx: &mut Context<'_>, entry: &mut Entry, to: ReplyTo, body: Body) {
        cx.shard.counters.messages += 1;
        let msg = to.msg();
        let session = SessionId { shard: cx.shard.index(), key: entry.key };
        let reply = Reply::new(session, to, Rc::clone(&cx.shard.late));
        let request = IprotoRequest { msg, body, reply };
        self.call(cx, entry, |handler, shard, session| handler.request(shard, session, request));
    }

    fn notify(&mut self, cx: &mut Context<'_>, entry: &mut Entry, msg: u32, body: Body) {
        cx.shard.counters.messages += 1;
        self.call(cx, entry, |handler, shard, session| handler.notify(shard, session, msg, body));
    }

    /// A call of ours has ended.
    fn answered(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        caller: Caller,
        result: Result<Body, CallError>,
    ) {
        match caller {
            Caller::Handler(token) => self.call(cx, entry, |handler, shard, session| {
                handler.answered(shard, session, token, result);
            }),
            Caller::Future(slot) => slot.fill(result),
        }
    }

    /// What is to be done after anything that was done with a connection.
    fn after(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        let settings = Rc::clone(&cx.egress.settings);
        while entry.is_open() {
            let Protocol::Iproto(iproto) = &mut entry.protocol else { return };
            match iproto.connection.poll(cx.egress.now_ms, &settings.iproto) {
                Some(Action::Send(header)) => cx.link(entry).send_header(header),
                Some(Action::TimedOut(caller)) => {
                    self.answered(cx, entry, caller, Err(CallError::Timeout));
                }
                Some(Action::Close(_)) => linger(cx, entry),
                None => break,
            }
        }
        if is_leaving(entry) {
            self.drop_calls(cx, entry, CallError::Hijacked);
        }
        let Protocol::Iproto(iproto) = &mut entry.protocol else { return };
        if entry.flags.ended() && iproto.connection.requests() == 0 && entry.phase == Phase::Open {
            // It has sent its FIN, and everything that it asked for is answered.
            return linger(cx, entry);
        }
        if iproto.is_overslept(&settings.iproto) {
            entry.flags.set_unarmed(true);
        }
    }

    /// The peer broke a limit, or there is no memory: the connection has ended.
    fn failed(cx: &mut Context<'_>, entry: &mut Entry, violation: &Violation) {
        if *violation != Violation::OutOfMemory {
            cx.shard.counters.violations += 1;
        }
        tracing::debug!(%violation, "an iproto connection ends");
        linger(cx, entry);
    }

    /// Fails every call that waits.
    fn drop_calls(&mut self, cx: &mut Context<'_>, entry: &mut Entry, why: CallError) {
        while let Protocol::Iproto(iproto) = &mut entry.protocol
            && let Some(caller) = iproto.connection.take_call()
        {
            self.answered(cx, entry, caller, Err(why));
        }
    }
}

impl<H: Handler> Route for IprotoRoute<H> {
    fn accepted(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        let peer = IprotoPeer::new(cx.net, entry.socket);
        match self.host.handler.accept(cx.shard, &peer) {
            Some(data) => self.open(cx, entry, data, |handler, shard, session| {
                handler.opened(shard, session);
            }),
            None => {
                cx.shard.counters.refused += 1;
                entry.advance(Phase::Dead, cx.egress.now_ms);
            }
        }
    }

    fn received(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        mut bytes: Lease,
        share: Share,
    ) -> Option<Lease> {
        let limits = self.limits(&cx.egress.settings.iproto);
        while entry.is_open() {
            let Protocol::Iproto(iproto) = &mut entry.protocol else { return None };
            let mut memory = cx.egress.memory();
            let now_ms = cx.egress.now_ms;
            let mut env = Env { limits: &limits, memory: &mut memory, now_ms };
            let mut at = 0;
            match iproto.connection.read(&bytes, &mut at, &mut env) {
                Ok(Some(event)) => self.event(cx, entry, &mut bytes, at, event),
                Ok(None) => break,
                Err(violation) => {
                    Self::failed(cx, entry, &violation);
                    return None;
                }
            }
            if entry.is_open() && share.may_leave(bytes.len(), at) {
                self.after(cx, entry);
                return Some(bytes);
            }
        }
        // Taken by the handler of what was just read: the rest is not for us.
        if is_leaving(entry) {
            cx.link(entry).keep(&bytes);
        }
        self.after(cx, entry);
        None
    }

    fn aim(&mut self, cx: &mut Context<'_>, entry: &mut Entry) -> Option<Lease> {
        let settings = Rc::clone(&cx.egress.settings);
        let Protocol::Iproto(iproto) = &mut entry.protocol else { return None };
        let (mut memory, now_ms) = (cx.egress.memory(), cx.egress.now_ms);
        let mut env = Env { limits: &settings.iproto, memory: &mut memory, now_ms };
        match iproto.connection.direct(DIRECT_BYTES_MIN, &mut env) {
            Ok(direct) => direct.map(|direct| direct.buffer.split_off(direct.filled)),
            Err(violation) => {
                Self::failed(cx, entry, &violation);
                None
            }
        }
    }

    fn filled(&mut self, cx: &mut Context<'_>, entry: &mut Entry, lease: Lease, filled: usize) {
        if is_leaving(entry) {
            return cx.link(entry).keep(&lease[..filled]);
        }
        let Protocol::Iproto(iproto) = &mut entry.protocol else { return };
        let Some(buffer) = iproto.connection.buffer_mut() else { return };
        if buffer.unsplit(lease).is_err() {
            unreachable!("the lease was split off this very buffer");
        }
        let event = iproto.connection.filled(filled, cx.egress.now_ms);
        let assembled = |body| match body {
            hioload_protocol::iproto::Body::Assembled { buffer, len } => {
                Body::assembled(buffer, len)
            }
            hioload_protocol::iproto::Body::Window { .. } => {
                unreachable!("only an assembled body can be received straight")
            }
        };
        match event {
            Some(Event::Request { to, body }) => self.request(cx, entry, to, assembled(body)),
            Some(Event::Notify { msg, body }) => self.notify(cx, entry, msg, assembled(body)),
            Some(Event::Response { token, body, .. }) => {
                self.answered(cx, entry, token, Ok(assembled(body)));
            }
            Some(Event::Send(header)) => cx.link(entry).send_header(header),
            Some(Event::Shutdown) | None => {}
        }
        self.after(cx, entry);
    }

    fn drained(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        self.visit(cx, entry, |handler, shard, session| handler.drained(shard, session));
    }

    fn timer(&mut self, cx: &mut Context<'_>, entry: &mut Entry, token: u64) {
        self.visit(cx, entry, |handler, shard, session| handler.timer(shard, session, token));
    }

    fn poll(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        self.after(cx, entry);
    }

    fn late(&mut self, cx: &mut Context<'_>, entry: &mut Entry, late: Late) {
        match late.what {
            What::Reply(to, Answer::Body(body)) => {
                cx.link(entry).send_reply(to, body);
            }
            What::Reply(to, Answer::Missing) => {
                cx.shard.counters.unanswered += 1;
                match self.host.handler.unanswered(cx.shard, to.msg()) {
                    Some(body) => {
                        cx.link(entry).send_reply(to, body.into());
                    }
                    None => cx.link(entry).discard(to),
                }
            }
            What::Reply(to, Answer::Nothing) => cx.link(entry).discard(to),
            What::Cancel(call) => {
                cx.link(entry).cancel_call(&call);
            }
        }
        self.after(cx, entry);
    }

    fn ended(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        if is_leaving(entry) {
            return cx.link(entry).keep_no_more();
        }
        entry.blame(Closed::ByPeer(None));
        // Nothing can answer our calls any more, but what the peer asked for it may still read.
        self.drop_calls(cx, entry, CallError::Dropped);
        if let Protocol::Iproto(iproto) = &mut entry.protocol {
            iproto.connection.shutdown(cx.egress.now_ms);
        }
        self.after(cx, entry);
    }

    fn released(&mut self, cx: &mut Context<'_>, entry: &mut Entry, connection: Connection) {
        let Some(unread) = entry.iproto_mut().and_then(Iproto::take_unread) else { return };
        let hijacked = Hijacked { connection, unread };
        self.call(cx, entry, |handler, shard, session| handler.hijacked(shard, session, hijacked));
    }

    fn closed(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        if let Protocol::Iproto(iproto) = &mut entry.protocol {
            iproto.connection.closed();
        }
        let reason = reason(entry);
        let Host { handler, sessions } = &mut self.host;
        // Taken out first: a handler that panics must not keep its place.
        let Some(mut data) = sessions.remove(entry.user) else { return };
        let shard = cx.shard.index();
        while let Some(caller) = entry.iproto_mut().and_then(|it| it.connection.take_call()) {
            let link = Link { shard, entry, egress: cx.egress, net: cx.net };
            let mut session = IprotoSession::new(&mut data, link);
            match caller {
                Caller::Handler(token) => {
                    handler.answered(cx.shard, &mut session, token, Err(CallError::Dropped));
                }
                Caller::Future(slot) => slot.fill(Err(CallError::Dropped)),
            }
        }
        let link = Link { shard, entry, egress: cx.egress, net: cx.net };
        handler.closed(cx.shard, &mut IprotoSession::new(&mut data, link), reason);
    }
}

/// Why a connection ended, as its handler is told.
fn reason(entry: &Entry) -> IprotoClosed {
    let ended = entry.iproto().and_then(|iproto| iproto.connection.close_reason());
    match (entry.ending(), ended) {
        (Closed::ByPeer(_), _) => IprotoClosed::ByPeer,
        (Closed::ByHandler(_), _) => IprotoClosed::ByHandler,
        (Closed::Shutdown, _) => IprotoClosed::Shutdown,
        (Closed::SlowReader, _) => IprotoClosed::SlowReader,
        (Closed::Stalled, _) => IprotoClosed::Stalled,
        (Closed::Panicked, _) => IprotoClosed::Panicked,
        (Closed::OutOfMemory, _) => IprotoClosed::OutOfMemory,
        _ if entry.iproto().is_some_and(Iproto::is_hijacked) => IprotoClosed::Hijacked,
        (_, Some(CloseReason::Gone) | None) => IprotoClosed::Lost,
        (_, Some(CloseReason::Failed(Violation::OutOfMemory))) => IprotoClosed::OutOfMemory,
        (_, Some(reason)) => IprotoClosed::Protocol(reason),
    }
}
