//! One open connection, as its handler sees it during a callback.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hioload_protocol::iproto::{Header, Stats};
use hioload_protocol::ws::CloseCode;

use super::body::Payload;
use super::error::CallError;
use super::late::{LateQueue, Reply};
use super::response::{Response, Slot};
use super::{Caller, Iproto};
use crate::shard::handler::Closed;
use crate::shard::link::Link;
use crate::shard::{Sent, SessionId, TimerRefused};

/// A call that was made, to cancel it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call(pub(super) Header);

/// An open iproto connection and what the handler keeps for it, for the time of one callback.
#[derive(Debug)]
pub struct IprotoSession<'a, S> {
    /// What the handler keeps for this connection.
    pub data: &'a mut S,
    pub(super) link: Link<'a>,
}

impl<'a, S> IprotoSession<'a, S> {
    pub(super) const fn new(data: &'a mut S, link: Link<'a>) -> Self {
        Self { data, link }
    }

    /// The name of this connection: for [`Shard::close`](crate::Shard::close), which shuts it down.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.link.id()
    }

    /// Answers a request; a reply of another connection goes there, at the end of this turn.
    /// Responses leave at the end of the turn, all in one send.
    pub fn reply<'b>(&mut self, reply: Reply, body: impl Into<Payload<'b>>) -> Sent {
        match reply.take(self.link.entry.key) {
            Ok(to) => self.link.send_reply(to, body.into()),
            Err(elsewhere) => {
                elsewhere.send_elsewhere(body.into(), self.link.egress.pool());
                Sent::Queued
            }
        }
    }

    /// Asks the peer. [`Handler::answered`](super::IprotoHandler::answered) is called with
    /// `token` when the response is there, or `timeout` is over (`None`:
    /// `iproto.request_timeout_ms`), or the connection ends. Nothing waits for it meanwhile: what
    /// the peer asks is served on.
    ///
    /// # Errors
    /// The call was not made; `answered` is not called.
    pub fn call<'b>(
        &mut self,
        msg: u32,
        body: impl Into<Payload<'b>>,
        timeout: Option<Duration>,
        token: u64,
    ) -> Result<Call, CallError> {
        self.link.send_call(msg, body.into(), timeout, Caller::Handler(token)).map(Call)
    }

    /// As [`call`](Self::call), with a future for the response.
    ///
    /// # Examples
    /// A request that is answered when the peer has answered another one:
    /// ```
    /// # use hioload::Shard;
    /// # use hioload::iproto::{Handler, Peer, Request, Session};
    /// # struct Curious;
    /// # impl Handler for Curious {
    /// #   type Session = ();
    /// #   fn accept(&mut self, _: &mut Shard, _: &Peer<'_>) -> Option<()> { Some(()) }
    /// fn request(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
    ///     let (reply, handle) = (request.reply.into_remote(shard), session.id());
    ///     let name = session.ask(7, "what is your name?", None, shard);
    ///     shard
    ///         .spawn(async move {
    ///             match name.await {
    ///                 Ok(name) => reply.send(name),
    ///                 Err(error) => println!("{handle}: {error}"), // answers with an error
    ///             }
    ///         })
    ///         .detach();
    /// }
    /// # }
    /// ```
    pub fn ask<'b>(
        &mut self,
        msg: u32,
        body: impl Into<Payload<'b>>,
        timeout: Option<Duration>,
        shard: &crate::Shard,
    ) -> Response {
        let slot = Rc::new(Slot::default());
        let caller = Caller::Future(Rc::clone(&slot));
        match self.link.send_call(msg, body.into(), timeout, caller) {
            Ok(header) => {
                let queue: Rc<LateQueue> = Rc::clone(&shard.late);
                Response::waiting(slot, self.link.entry.key, header, queue)
            }
            Err(error) => Response::failed(error),
        }
    }

    /// Waits for a call no more: `answered` will not be called for it. `false`: it had ended.
    pub fn cancel(&mut self, call: Call) -> bool {
        self.link.cancel_call(&call.0)
    }

    /// Tells the peer something that wants no answer.
    ///
    /// # Errors
    /// It was not sent.
    pub fn notify<'b>(
        &mut self,
        msg: u32,
        body: impl Into<Payload<'b>>,
    ) -> Result<Sent, CallError> {
        self.link.send_notify(msg, body.into())
    }

    /// Ends the connection in order: no new calls are taken, those that wait and the requests that
    /// are open may finish, then both sides close. Bounded by `iproto.shutdown_timeout_ms`.
    pub fn shutdown(&mut self) {
        self.link.close_for(Closed::ByHandler(CloseCode::NORMAL), "");
    }

    /// Ends the connection now: what is queued leaves, calls that wait fail.
    pub fn close(&mut self) {
        self.link.end(Closed::ByHandler(CloseCode::NORMAL));
    }

    /// Takes the connection out of iproto, to speak something else on it or to give it to somebody
    /// else: what was queued leaves, calls that wait fail with [`CallError::Hijacked`], requests that
    /// are open are not answered any more, and
    /// [`Handler::hijacked`](super::IprotoHandler::hijacked) is given the socket. Bounded by
    /// `iproto.shutdown_timeout_ms`, after which the connection is dropped.
    ///
    /// The next byte that belongs to whoever takes the socket is the one behind the packet that is
    /// being handled in this callback. A handler that does not write `hijacked`, such as a
    /// [`Mux`](super::Mux), drops the socket, which closes it.
    ///
    /// # Errors
    /// The connection shuts down or has ended.
    pub fn hijack(&mut self) -> Result<(), CallError> {
        self.link.hijack()
    }

    /// Calls of ours that wait for their responses.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.iproto().map_or(0, |iproto| iproto.connection.pending())
    }

    /// Requests of the peer that were not answered yet.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.iproto().map_or(0, |iproto| iproto.connection.requests())
    }

    /// What the connection has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.iproto().map_or_else(Stats::default, |iproto| *iproto.connection.stats())
    }

    /// Bytes that were sent and not yet taken by the kernel.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.link.entry.outbox.queued()
    }

    /// Whether calls can still be made.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let iproto = self.iproto();
        self.link.entry.is_open() && iproto.is_some_and(|iproto| !iproto.connection.is_stopped())
    }

    /// The address of the peer: one system call. `None` for a Unix socket, and once the connection
    /// is lost.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.link.peer_address()
    }

    /// The address that the peer connected to: see [`peer_address`](Self::peer_address).
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.link.local_address()
    }

    /// Lets [`Handler::timer`](super::IprotoHandler::timer) be called with `token`: see
    /// [`Session::set_timer`](crate::Session::set_timer).
    ///
    /// # Errors
    /// The connection has [`TIMERS_MAX`](crate::shard::TIMERS_MAX) of them, or is closing.
    pub fn set_timer(&mut self, after: Duration, token: u64) -> Result<(), TimerRefused> {
        self.link.set_timer(after, token)
    }

    /// Takes a timer back. `false`: there was none with this token, or it was called already.
    pub fn cancel_timer(&mut self, token: u64) -> bool {
        self.link.cancel_timer(token)
    }

    /// Reads nothing more from the peer until [`resume`](Self::resume): see
    /// [`Session::pause`](crate::Session::pause). Calls time out meanwhile.
    pub fn pause(&mut self) {
        self.link.pause();
    }

    /// Reads again after [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.link.resume();
    }

    /// Lets [`Handler::drained`](super::IprotoHandler::drained) be called when less waits to be
    /// sent, also below the high mark.
    pub(crate) fn await_room(&mut self) {
        self.link.entry.flags.set_full(true);
    }

    fn iproto(&self) -> Option<&Iproto> {
        self.link.entry.iproto()
    }
}
