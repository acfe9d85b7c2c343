//! From bytes to handlers: one dynamic call per completion, everything behind it is static.
//!
//! Comes in: an upgrade request, a window of received bytes, the end of a connection. Goes out:
//! calls of one handler, and what the protocol answers by itself (pongs, close frames). A route
//! never touches the reactor.

use std::any::Any;

use hioload_pools::{Lease, ObjectPool, Slab};
use hioload_protocol::http::{self, WebSocketRequest};
use hioload_protocol::ws::CloseCode;

use super::Shard;
use super::client::ClientCall;
use super::conn::Addresses;
use super::entry::{Entry, Phase, Protocol};
use super::handler::Closed;
use super::iproto::Late;
use super::link::Link;
use super::outbox::Egress;
use super::request::Request;
use super::session::Session;
use super::share::Share;
use crate::reactor::Connection;

/// What a route works with, beside the connection itself.
pub(crate) struct Context<'a> {
    pub(crate) shard: &'a mut Shard,
    pub(crate) egress: &'a mut Egress,
    pub(crate) net: &'a dyn Addresses,
}

impl Context<'_> {
    pub(crate) fn link<'b>(&'b mut self, entry: &'b mut Entry) -> Link<'b> {
        Link { shard: self.shard.index(), entry, egress: self.egress, net: self.net }
    }
}

/// What became of a handshake.
pub(crate) enum Outcome {
    Accepted,
    Refused(http::Response),
    Later,
    /// There was no memory for the answer: the connection is dead.
    Dropped,
}

impl Outcome {
    /// What a route answers that serves something else.
    fn no_websocket() -> Self {
        Self::Refused(http::Response::text(404, "no WebSocket here"))
    }
}

/// The handler of a route with its sessions, whatever their types.
pub(crate) trait Route {
    /// Asks the handler about a handshake and, if it accepts, opens the session. Only WebSocket has
    /// one.
    fn upgrade(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        request: &Request<'_>,
        websocket: &WebSocketRequest<'_>,
    ) -> Outcome {
        let _ = (cx, entry, request, websocket);
        Outcome::no_websocket()
    }

    /// As [`upgrade`](Self::upgrade), with an answer that came later: an `Upgrade<S>` of this
    /// route's `S`, or it is refused.
    fn answered(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        answer: Box<dyn Any>,
        request: &Request<'_>,
        websocket: &WebSocketRequest<'_>,
    ) -> Outcome {
        let _ = (cx, entry, answer, request, websocket);
        Outcome::no_websocket()
    }

    /// A raw connection was accepted. Only the routes of listeners have such.
    fn accepted(&mut self, _: &mut Context<'_>, _: &mut Entry) {
        unreachable!("no listener leads to this route");
    }

    /// Something happened to the client of this route. The routes of a server have none.
    fn client(&mut self, cx: &mut Context<'_>, call: ClientCall<'_>) {
        let _ = (cx, call);
    }

    /// Bytes arrived. Answers with what it leaves for the next turn, as far as its share allows.
    fn received(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        bytes: Lease,
        share: Share,
    ) -> Option<Lease>;

    /// Where the next bytes belong, if they need not go through a buffer: asked at the end of a
    /// turn, when nothing that arrived is left to be read.
    fn aim(&mut self, cx: &mut Context<'_>, entry: &mut Entry) -> Option<Lease>;

    /// `filled` bytes arrived in the lease that [`aim`](Self::aim) gave.
    fn filled(&mut self, cx: &mut Context<'_>, entry: &mut Entry, lease: Lease, filled: usize);

    /// The outbox is below its low mark again.
    fn drained(&mut self, cx: &mut Context<'_>, entry: &mut Entry);

    /// A timer of the session is due.
    fn timer(&mut self, cx: &mut Context<'_>, entry: &mut Entry, token: u64);

    /// A clock of the protocol is due, or it is to begin its end. Only some have one.
    fn poll(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        let _ = (cx, entry);
    }

    /// A reply came from outside of the callbacks of its session. Only iproto has such.
    fn late(&mut self, cx: &mut Context<'_>, entry: &mut Entry, late: Late) {
        let _ = (cx, entry, late);
    }

    /// The peer sent FIN, and what it still waits for may be sent. A WebSocket peer that does so is
    /// gone, and this is not called.
    fn ended(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        entry.blame(Closed::ByPeer(None));
        linger(cx, entry);
    }

    /// The socket of a session that is leaving belongs to nobody any more.
    fn released(&mut self, cx: &mut Context<'_>, entry: &mut Entry, connection: Connection) {
        let _ = (cx, entry, connection);
    }

    /// The session is over: tells the handler and forgets the user's data.
    fn closed(&mut self, cx: &mut Context<'_>, entry: &mut Entry);
}

/// A handler and what it keeps for each of its sessions.
pub(crate) struct Host<H, S> {
    pub(crate) handler: H,
    pub(crate) sessions: Slab<S>,
}

impl<H, S> Host<H, S> {
    pub(crate) fn new(handler: H, sessions_max: usize) -> Self {
        Self { handler, sessions: Slab::new(sessions_max) }
    }

    /// Calls the handler with a session for the last time. The user's data is taken out first: a
    /// handler that panics must not keep its place.
    pub(crate) fn last_call(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        callback: impl FnOnce(&mut H, &mut Shard, &mut Session<'_, S>),
    ) {
        if let Some(mut data) = self.sessions.remove(entry.user) {
            let link = Link { shard: cx.shard.index(), entry, egress: cx.egress, net: cx.net };
            callback(&mut self.handler, cx.shard, &mut Session::new(&mut data, link));
        }
    }

    /// Calls the handler with a session, if the user's data is still there.
    pub(crate) fn call(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        callback: impl FnOnce(&mut H, &mut Shard, &mut Session<'_, S>),
    ) {
        if let Some(data) = self.sessions.get_mut(entry.user) {
            let link = Link { shard: cx.shard.index(), entry, egress: cx.egress, net: cx.net };
            callback(&mut self.handler, cx.shard, &mut Session::new(data, link));
        }
    }
}

/// Ends a session for this cause with a close frame, unless one was sent already.
pub(crate) fn fail_with(cx: &mut Context<'_>, entry: &mut Entry, cause: Closed) {
    if entry.is_open() {
        entry.blame(cause);
        let code = cause.code().unwrap_or(CloseCode::INTERNAL);
        if matches!(entry.protocol, Protocol::WebSocket(_)) {
            cx.link(entry).send_close(Some(code), "");
        }
    }
    linger(cx, entry);
}

/// Our side is done: what is queued leaves, then FIN.
pub(crate) fn linger(cx: &mut Context<'_>, entry: &mut Entry) {
    if entry.phase < Phase::Lingering {
        entry.end(Phase::Lingering, &cx.egress.settings, cx.egress.now_ms);
        cx.link(entry).mark_dirty();
    }
}
