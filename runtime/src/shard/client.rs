//! The route of one connection to another server: one of a server that is dialled instead, and how
//! that is done for WebSocket.

use std::time::Duration;

use hioload_pools::{Lease, ObjectPool};
use hioload_protocol::deflate::Agreement;
use hioload_protocol::ws::{self, Role};

use super::Shard;
use super::entry::{Entry, Phase, Protocol};
use super::handler::{Closed, Handler, Upgrade};
use super::iproto::Late;
use super::message::Message;
use super::request::Request;
use super::route::{Context, Route};
use super::session::Session;
use super::share::Share;
use super::websocket::WebSocketRoute;
use crate::config::Compression;
use crate::reactor::Connection;
use crate::ws::{ClientHandler, ClientId, ConnectError, Opened};

/// The compression that was agreed on, and how we asked for it.
pub(crate) type Deflated = (Agreement, Compression);

/// What a client's route is told beside what every route is.
pub(crate) enum ClientCall<'a> {
    /// The server accepted: the session opens.
    Opened(&'a mut Entry, &'a Opened, Option<Deflated>),
    /// An attempt failed.
    Failed(&'a ConnectError),
    /// There will be another attempt.
    Reconnecting { attempt: u32, wait: Duration },
    /// Its handle wants something. The entry is there while the session is open.
    Woken(ClientId, Option<&'a mut Entry>),
}

/// The handler of a client's route.
pub(crate) trait Dialled: Handler<Session = ()> {
    fn dialled(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, opened: &Opened);
    fn failed(&mut self, shard: &mut Shard, error: &ConnectError);
    fn reconnecting(&mut self, shard: &mut Shard, attempt: u32, wait: Duration);
    fn woken(&mut self, shard: &mut Shard, id: ClientId, session: Option<&mut Session<'_, ()>>);
}

/// What a user wrote, as the handler of a route.
pub(super) struct ByUser<H>(pub(super) H);

impl<H: ClientHandler> Handler for ByUser<H> {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::refuse(404)
    }

    fn message(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        self.0.message(shard, session, message);
    }

    fn drained(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>) {
        self.0.drained(shard, session);
    }

    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, token: u64) {
        self.0.timer(shard, session, token);
    }

    fn closed(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, reason: Closed) {
        self.0.closed(shard, session, reason);
    }
}

impl<H: ClientHandler> Dialled for ByUser<H> {
    fn dialled(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, opened: &Opened) {
        self.0.opened(shard, session, opened);
    }

    fn failed(&mut self, shard: &mut Shard, error: &ConnectError) {
        self.0.failed(shard, error);
    }

    fn reconnecting(&mut self, shard: &mut Shard, attempt: u32, wait: Duration) {
        self.0.reconnecting(shard, attempt, wait);
    }

    fn woken(&mut self, _: &mut Shard, _: ClientId, _: Option<&mut Session<'_, ()>>) {}
}

/// A route of any protocol that can be dialled.
pub(crate) trait DialledRoute: Route {
    /// Something happened to the client.
    fn told(&mut self, cx: &mut Context<'_>, call: ClientCall<'_>);
}

/// The route of one client: nothing but dialling leads to it.
pub(crate) struct ClientRoute<R>(pub(crate) R);

impl<R: DialledRoute> Route for ClientRoute<R> {
    fn client(&mut self, cx: &mut Context<'_>, call: ClientCall<'_>) {
        self.0.told(cx, call);
    }

    fn received(
        &mut self,
        cx: &mut Context<'_>,
        entry: &mut Entry,
        bytes: Lease,
        share: Share,
    ) -> Option<Lease> {
        self.0.received(cx, entry, bytes, share)
    }

    fn aim(&mut self, cx: &mut Context<'_>, entry: &mut Entry) -> Option<Lease> {
        self.0.aim(cx, entry)
    }

    fn filled(&mut self, cx: &mut Context<'_>, entry: &mut Entry, lease: Lease, filled: usize) {
        self.0.filled(cx, entry, lease, filled);
    }

    fn drained(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        self.0.drained(cx, entry);
    }

    fn timer(&mut self, cx: &mut Context<'_>, entry: &mut Entry, token: u64) {
        self.0.timer(cx, entry, token);
    }

    fn poll(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        self.0.poll(cx, entry);
    }

    fn late(&mut self, cx: &mut Context<'_>, entry: &mut Entry, late: Late) {
        self.0.late(cx, entry, late);
    }

    fn ended(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        self.0.ended(cx, entry);
    }

    fn released(&mut self, cx: &mut Context<'_>, entry: &mut Entry, connection: Connection) {
        self.0.released(cx, entry, connection);
    }

    fn closed(&mut self, cx: &mut Context<'_>, entry: &mut Entry) {
        self.0.closed(cx, entry);
    }
}

/// The handler of one client, and its session while that is open.
pub(super) fn websocket_client<D: Dialled>(handler: D) -> ClientRoute<WebSocketRoute<D>> {
    ClientRoute(WebSocketRoute::new(handler, 1, None))
}

impl<D: Dialled> DialledRoute for WebSocketRoute<D> {
    fn told(&mut self, cx: &mut Context<'_>, call: ClientCall<'_>) {
        match call {
            ClientCall::Opened(entry, opened, deflate) => open(self, cx, entry, opened, deflate),
            ClientCall::Failed(error) => self.host.handler.failed(cx.shard, error),
            ClientCall::Reconnecting { attempt, wait } => {
                self.host.handler.reconnecting(cx.shard, attempt, wait);
            }
            ClientCall::Woken(id, None) => self.host.handler.woken(cx.shard, id, None),
            ClientCall::Woken(id, Some(entry)) => {
                self.host.call(cx, entry, |handler, shard, session| {
                    handler.woken(shard, id, Some(session));
                });
            }
        }
    }
}

fn open<D: Dialled>(
    route: &mut WebSocketRoute<D>,
    cx: &mut Context<'_>,
    entry: &mut Entry,
    opened: &Opened,
    deflate: Option<Deflated>,
) {
    let host = &mut route.host;
    let Ok(user) = host.sessions.insert(()) else {
        unreachable!("a client has one session at a time, and its place is given up first")
    };
    entry.user = user;
    let mut connection = ws::Connection::new(Role::Client);
    if let Some((agreed, compression)) = &deflate {
        connection = connection.with_deflate();
        entry.deflate = cx.egress.windows.open(agreed, Role::Client, compression);
    }
    entry.protocol = Protocol::WebSocket(connection);
    entry.advance(Phase::Open, cx.egress.now_ms);
    entry.flags.set_opened(true);
    if let Some(name) = &opened.subprotocol {
        cx.egress.extras.make(entry).subprotocol = Some(name.as_str().into());
    }
    cx.shard.counters.opened += 1;
    host.call(cx, entry, |handler, shard, session| handler.dialled(shard, session, opened));
}

/// What stands at the number of a client that is gone.
pub(super) struct Nobody;

impl Handler for Nobody {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::refuse(404)
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}
}
