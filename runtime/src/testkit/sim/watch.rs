//! Handlers that write down what they are called for, and call the user's.
//!
//! Nothing is changed on the way: the session and the message are the user's own.

use bytes::Bytes;

use super::ledger::{Ledger, SharedLedger, digest};
use crate::iproto::CallError;
use crate::shard::{Body, Closed, Handler, IprotoClosed, IprotoHandler, IprotoPeer, IprotoRequest};
use crate::shard::{
    Hijacked, IprotoSession, Message, RawHandler, Request, Session, Shard, Upgrade,
};
use hioload_protocol::ws::MessageKind;

/// The header in which a simulated WebSocket peer says which one it is.
pub(super) const PEER_HEADER: &str = "Sim-Peer";

/// A handler of the user's, watched.
pub(super) struct Watched<H> {
    inner: H,
    ledger: SharedLedger,
}

impl<H> Watched<H> {
    pub(super) const fn new(inner: H, ledger: SharedLedger) -> Self {
        Self { inner, ledger }
    }

    fn note(&self, note: impl FnOnce(&mut Ledger)) {
        note(&mut self.ledger.borrow_mut());
    }
}

impl<H: Handler> Handler for Watched<H> {
    type Session = H::Session;

    fn upgrade(&mut self, shard: &mut Shard, request: &Request<'_>) -> Upgrade<H::Session> {
        let peer = request.header(PEER_HEADER).and_then(|number| number.parse().ok());
        self.note(|ledger| ledger.belongs(request.session_id(), peer));
        self.inner.upgrade(shard, request)
    }

    fn opened(&mut self, shard: &mut Shard, session: &mut Session<'_, H::Session>) {
        let is_open = session.is_open();
        self.note(|ledger| ledger.opened(session.id(), is_open));
        self.inner.opened(shard, session);
    }

    fn message(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, H::Session>,
        message: Message,
    ) {
        let number = digest(u64::from(message.kind() == MessageKind::Text), &message);
        self.note(|ledger| ledger.handled(session.id(), number));
        self.inner.message(shard, session, message);
    }

    fn drained(&mut self, shard: &mut Shard, session: &mut Session<'_, H::Session>) {
        self.inner.drained(shard, session);
    }

    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, H::Session>, token: u64) {
        self.inner.timer(shard, session, token);
    }

    fn closed(&mut self, shard: &mut Shard, session: &mut Session<'_, H::Session>, reason: Closed) {
        self.note(|ledger| ledger.closed(session.id()));
        self.inner.closed(shard, session, reason);
    }
}

impl<H: RawHandler> RawHandler for Watched<H> {
    type Session = H::Session;

    fn accepted(&mut self, shard: &mut Shard) -> H::Session {
        self.inner.accepted(shard)
    }

    fn received(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, H::Session>,
        bytes: Message,
    ) {
        let (id, address) = (session.id(), session.peer_address());
        self.note(|ledger| {
            if !ledger.is_open(id) {
                let peer = ledger.peer_at(address);
                ledger.belongs(id, peer);
                ledger.opened(id, true);
            }
            ledger.handled_bytes(id, &bytes);
        });
        self.inner.received(shard, session, bytes);
    }

    fn drained(&mut self, shard: &mut Shard, session: &mut Session<'_, H::Session>) {
        self.inner.drained(shard, session);
    }

    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, H::Session>, token: u64) {
        self.inner.timer(shard, session, token);
    }

    fn closed(&mut self, shard: &mut Shard, session: &mut Session<'_, H::Session>, reason: Closed) {
        self.note(|ledger| {
            // One that never said anything is not known yet.
            if !ledger.is_known(session.id()) {
                ledger.opened(session.id(), true);
            }
            ledger.closed(session.id());
        });
        self.inner.closed(shard, session, reason);
    }
}

impl<H: IprotoHandler> IprotoHandler for Watched<H> {
    type Session = H::Session;

    fn accept(&mut self, shard: &mut Shard, peer: &IprotoPeer<'_>) -> Option<H::Session> {
        self.inner.accept(shard, peer)
    }

    fn opened(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, H::Session>) {
        let (id, address) = (session.id(), session.peer_address());
        let is_open = session.is_open();
        self.note(|ledger| {
            let peer = ledger.peer_at(address);
            ledger.belongs(id, peer);
            ledger.opened(id, is_open);
        });
        self.inner.opened(shard, session);
    }

    fn request(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, H::Session>,
        request: IprotoRequest,
    ) {
        let number = digest(u64::from(request.msg) << 1 | 1, &request.body);
        self.note(|ledger| ledger.handled(session.id(), number));
        self.inner.request(shard, session, request);
    }

    fn notify(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, H::Session>,
        msg: u32,
        body: Body,
    ) {
        let number = digest(u64::from(msg) << 1, &body);
        self.note(|ledger| ledger.handled(session.id(), number));
        self.inner.notify(shard, session, msg, body);
    }

    fn answered(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, H::Session>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        self.inner.answered(shard, session, token, response);
    }

    fn unanswered(&mut self, shard: &mut Shard, msg: u32) -> Option<Bytes> {
        self.inner.unanswered(shard, msg)
    }

    fn drained(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, H::Session>) {
        self.inner.drained(shard, session);
    }

    fn timer(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, H::Session>,
        token: u64,
    ) {
        self.inner.timer(shard, session, token);
    }

    fn shutdown(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, H::Session>) {
        self.inner.shutdown(shard, session);
    }

    fn hijacked(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, H::Session>,
        hijacked: Hijacked,
    ) {
        self.inner.hijacked(shard, session, hijacked);
    }

    fn closed(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, H::Session>,
        reason: IprotoClosed,
    ) {
        self.note(|ledger| ledger.closed(session.id()));
        self.inner.closed(shard, session, reason);
    }
}
