//! The route of one connection to an iproto server: an iproto route that is dialled.

use std::time::Duration;

use bytes::Bytes;

use super::body::Body;
use super::error::CallError;
use super::handler::{ERROR_BODY, Handler, IprotoClosed, IprotoPeer, IprotoRequest};
use super::hijack::Hijacked;
use super::route::IprotoRoute;
use super::session::IprotoSession;
use crate::iproto::Connect;
use crate::shard::Shard;
use crate::shard::client::{ClientCall, ClientRoute, DialledRoute};
use crate::shard::entry::Phase;
use crate::shard::route::Context;
use crate::ws::{ClientId, ConnectError, Opened, Plan};

/// Serves one connection to an iproto server, on a shard, by callbacks. See
/// [`Handler`](super::IprotoHandler), whose methods these are, but for what a connection that we
/// make has beside them.
///
/// There is one handler per [`Shard::connect_iproto`], which lives on the shard until the connection
/// has ended and will not be opened again, and is dropped then.
///
/// # Examples
/// ```
/// use hioload::Shard;
/// use hioload::iproto::{Body, CallError, ClientHandler, Connect, Opened, Session};
///
/// /// Asks once, prints the answer, and leaves.
/// struct Asker;
///
/// impl ClientHandler for Asker {
///     fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: &Opened) {
///         if let Err(error) = session.call(1, "hello", None, 0) {
///             println!("{error}");
///         }
///     }
///     fn answered(
///         &mut self,
///         _: &mut Shard,
///         session: &mut Session<'_, ()>,
///         _token: u64,
///         response: Result<Body, CallError>,
///     ) {
///         println!("{response:?}");
///         session.shutdown();
///     }
/// }
///
/// fn ask(shard: &mut Shard) {
///     shard.connect_iproto(Connect::to("127.0.0.1:3301"), Asker);
/// }
/// ```
pub trait IprotoClientHandler: 'static {
    /// The connection is open, and calls may be made. After a loss and a reconnect it is called
    /// again.
    fn opened(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, ()>, opened: &Opened) {
        let _ = (shard, session, opened);
    }

    /// A call that was made with this token has ended.
    fn answered(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        let _ = (shard, session, token, response);
    }

    /// The server asks. Unless this is written, it is answered with an error.
    fn request(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        request: IprotoRequest,
    ) {
        let _ = (shard, session, request);
    }

    /// The server says something that wants no answer.
    fn notify(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        msg: u32,
        body: Body,
    ) {
        let _ = (shard, session, msg, body);
    }

    /// The reply of a request was dropped: see
    /// [`Handler::unanswered`](super::IprotoHandler::unanswered).
    fn unanswered(&mut self, shard: &mut Shard, msg: u32) -> Option<Bytes> {
        let _ = (shard, msg);
        Some(Bytes::from_static(ERROR_BODY))
    }

    /// After an answer of [`Sent::Full`](crate::Sent::Full): the outbox is below its low mark.
    fn drained(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, ()>) {
        let _ = (shard, session);
    }

    /// A timer of this connection is due.
    fn timer(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, ()>, token: u64) {
        let _ = (shard, session, token);
    }

    /// The server shuts the connection down.
    fn shutdown(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, ()>) {
        let _ = (shard, session);
    }

    /// The socket of this connection, after [`IprotoSession::hijack`]: everything that was queued has
    /// left, and nothing was read beyond `hijacked.unread`. [`closed`](Self::closed) follows.
    fn hijacked(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        hijacked: Hijacked,
    ) {
        let _ = (shard, session, hijacked);
    }

    /// The connection is over; called once for each [`opened`](Self::opened).
    fn closed(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        reason: IprotoClosed,
    ) {
        let _ = (shard, session, reason);
    }

    /// An attempt to connect failed. Not called for one that was cancelled.
    fn failed(&mut self, shard: &mut Shard, error: &ConnectError) {
        let _ = (shard, error);
    }

    /// There will be another attempt: its number in this row, from 1, and how long it waits.
    fn reconnecting(&mut self, shard: &mut Shard, attempt: u32, wait: Duration) {
        let _ = (shard, attempt, wait);
    }
}

/// The handler of a client's route: what is called beside what every route is.
pub(crate) trait IprotoDialled: Handler<Session = ()> {
    /// Whether what the server asks is given to the handler.
    fn serves(&self) -> bool;

    fn dialled(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, ()>, opened: &Opened);
    fn failed(&mut self, shard: &mut Shard, error: &ConnectError);
    fn reconnecting(&mut self, shard: &mut Shard, attempt: u32, wait: Duration);
    /// Its handle wants something. The session is there while it is open.
    fn woken(
        &mut self,
        shard: &mut Shard,
        id: ClientId,
        session: Option<&mut IprotoSession<'_, ()>>,
    );
}

/// What a user wrote, as the handler of a route.
struct ByUser<H>(H);

impl<H: IprotoClientHandler> IprotoDialled for ByUser<H> {
    fn serves(&self) -> bool {
        true
    }

    fn dialled(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, ()>, opened: &Opened) {
        self.0.opened(shard, session, opened);
    }

    fn failed(&mut self, shard: &mut Shard, error: &ConnectError) {
        self.0.failed(shard, error);
    }

    fn reconnecting(&mut self, shard: &mut Shard, attempt: u32, wait: Duration) {
        self.0.reconnecting(shard, attempt, wait);
    }

    fn woken(&mut self, _: &mut Shard, _: ClientId, _: Option<&mut IprotoSession<'_, ()>>) {}
}

impl<H: IprotoClientHandler> Handler for ByUser<H> {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &IprotoPeer<'_>) -> Option<()> {
        None
    }

    fn request(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        request: IprotoRequest,
    ) {
        self.0.request(shard, session, request);
    }

    fn notify(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        msg: u32,
        body: Body,
    ) {
        self.0.notify(shard, session, msg, body);
    }

    fn answered(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        self.0.answered(shard, session, token, response);
    }

    fn unanswered(&mut self, shard: &mut Shard, msg: u32) -> Option<Bytes> {
        self.0.unanswered(shard, msg)
    }

    fn drained(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, ()>) {
        self.0.drained(shard, session);
    }

    fn timer(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, ()>, token: u64) {
        self.0.timer(shard, session, token);
    }

    fn shutdown(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, ()>) {
        self.0.shutdown(shard, session);
    }

    fn hijacked(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        hijacked: Hijacked,
    ) {
        self.0.hijacked(shard, session, hijacked);
    }

    fn closed(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, ()>,
        reason: IprotoClosed,
    ) {
        self.0.closed(shard, session, reason);
    }
}

impl<D: IprotoDialled> DialledRoute for IprotoRoute<D> {
    fn told(&mut self, cx: &mut Context<'_>, call: ClientCall<'_>) {
        match call {
            ClientCall::Opened(entry, opened, _) => {
                entry.advance(Phase::Open, cx.egress.now_ms);
                cx.shard.counters.opened += 1;
                self.open(cx, entry, (), |handler, shard, session| {
                    handler.dialled(shard, session, opened);
                });
            }
            ClientCall::Failed(error) => self.handler().failed(cx.shard, error),
            ClientCall::Reconnecting { attempt, wait } => {
                self.handler().reconnecting(cx.shard, attempt, wait);
            }
            ClientCall::Woken(id, None) => self.handler().woken(cx.shard, id, None),
            ClientCall::Woken(id, Some(entry)) => {
                self.visit(cx, entry, |handler, shard, session| {
                    handler.woken(shard, id, Some(session));
                });
            }
        }
    }
}

impl Shard {
    /// Connects to an iproto server, after this callback, and lets `handler` serve the connection
    /// on this shard: see [`ClientHandler`](crate::iproto::ClientHandler).
    /// [`close_client`](Self::close_client) ends it, in order if it is open.
    pub fn connect_iproto<H: IprotoClientHandler>(
        &mut self,
        connect: Connect,
        handler: H,
    ) -> ClientId {
        let plan = connect.plan_for_handler();
        self.dial_planned(plan, ByUser(handler))
    }

    pub(crate) fn dial_iproto<D: IprotoDialled>(
        &mut self,
        connect: Connect,
        handler: D,
    ) -> ClientId {
        self.dial_planned(connect.plan(), handler)
    }

    fn dial_planned<D: IprotoDialled>(
        &mut self,
        plan: Result<Plan, ConnectError>,
        handler: D,
    ) -> ClientId {
        let serves = handler.serves();
        let route = IprotoRoute::new(handler, 1);
        let route = if serves { route } else { route.serving_nothing() };
        self.dial_route(plan, Box::new(ClientRoute(route)))
    }

    /// As [`iproto::Connect::open`](Connect::open), with the connection on this shard.
    ///
    /// # Errors
    /// The connection could not be opened.
    pub fn open_iproto(
        &self,
        connect: Connect,
    ) -> impl Future<Output = Result<crate::iproto::Channel, ConnectError>> + Send + use<> + 'static
    {
        crate::iproto::open_on(self.handle(), connect)
    }
}
