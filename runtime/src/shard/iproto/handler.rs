//! What users write to serve iproto.

use std::net::SocketAddr;

use bytes::Bytes;
use hioload_protocol::iproto::CloseReason;

use super::body::Body;
use super::error::CallError;
use super::hijack::Hijacked;
use super::late::Reply;
use super::session::IprotoSession;
use crate::reactor::Socket;
use crate::shard::Shard;
use crate::shard::conn::Addresses;

/// What a request is answered with whose [`Reply`] was dropped, unless the handler says otherwise:
/// a return code of -1 for those who begin their bodies with one, and an error of length for those
/// who expect something else. The wire itself knows no errors.
pub(crate) const ERROR_BODY: &[u8] = &[0xff; 4];

/// Serves the connections of an iproto listener on one shard.
///
/// There is one handler per listener and shard, made on the shard's thread by the factory given to
/// [`ServerBuilder::iproto`](crate::ServerBuilder::iproto): it need not be `Send`, and nothing in it
/// needs a lock. A panic in a method costs the connection it was called for; the handler lives on.
///
/// # Examples
/// ```
/// use hioload::Shard;
/// use hioload::iproto::{Handler, Peer, Request, Session, pack, unpack};
///
/// /// Adds two numbers, and counts the requests of each connection.
/// struct Adder;
///
/// impl Handler for Adder {
///     type Session = u64;
///
///     fn accept(&mut self, _: &mut Shard, _: &Peer<'_>) -> Option<u64> {
///         Some(0)
///     }
///     fn request(&mut self, _: &mut Shard, session: &mut Session<'_, u64>, request: Request) {
///         *session.data += 1;
///         // Whatever cannot be unpacked drops the reply, which answers with an error.
///         if let Ok((a, b)) = unpack::<(u32, u32)>(&request.body)
///             && let Ok(sum) = pack(&(u64::from(a) + u64::from(b)))
///         {
///             session.reply(request.reply, sum);
///         }
///     }
/// }
///
/// let server = hioload::Server::builder().iproto("127.0.0.1:3301", |_shard| Adder);
/// ```
pub trait Handler: 'static {
    /// What is kept for each connection, beside what the runtime keeps.
    type Session: 'static;

    /// Decides on a connection: what is kept for it, or `None` to close it without a word.
    fn accept(&mut self, shard: &mut Shard, peer: &IprotoPeer<'_>) -> Option<Self::Session>;

    /// The connection was accepted: calls may be made.
    fn opened(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, Self::Session>) {
        let _ = (shard, session);
    }

    /// The peer asks. Answer now, later, or from elsewhere: see [`Reply`].
    fn request(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, Self::Session>,
        request: IprotoRequest,
    );

    /// The peer says something that wants no answer.
    fn notify(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, Self::Session>,
        msg: u32,
        body: Body,
    ) {
        let _ = (shard, session, msg, body);
    }

    /// A [call](IprotoSession::call) that was made with this token has ended: with the body of its
    /// response, or without one. Called once for each call that was not cancelled, before
    /// [`closed`](Self::closed).
    fn answered(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, Self::Session>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        let _ = (shard, session, token, response);
    }

    /// The [`Reply`] of a request was dropped: what it is answered with, or `None` to leave the
    /// peer to its timeout. Four bytes of `0xff` unless this is written.
    fn unanswered(&mut self, shard: &mut Shard, msg: u32) -> Option<Bytes> {
        let _ = (shard, msg);
        Some(Bytes::from_static(ERROR_BODY))
    }

    /// After an answer of [`Sent::Full`](crate::Sent::Full): the outbox is below its low mark.
    fn drained(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, Self::Session>) {
        let _ = (shard, session);
    }

    /// A timer that was [set](IprotoSession::set_timer) with this token is due.
    fn timer(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, Self::Session>,
        token: u64,
    ) {
        let _ = (shard, session, token);
    }

    /// The peer shuts the connection down: it sends no new requests, and no calls can be made any
    /// more. The connection ends when the open requests are answered, or after
    /// `iproto.shutdown_timeout_ms`.
    fn shutdown(&mut self, shard: &mut Shard, session: &mut IprotoSession<'_, Self::Session>) {
        let _ = (shard, session);
    }

    /// The socket of this connection, after [`IprotoSession::hijack`]: everything that was queued has
    /// left, and nothing was read beyond `hijacked.unread`. [`closed`](Self::closed) follows.
    fn hijacked(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, Self::Session>,
        hijacked: Hijacked,
    ) {
        let _ = (shard, session, hijacked);
    }

    /// The connection is over; called once for each that was accepted. Nothing can be sent.
    fn closed(
        &mut self,
        shard: &mut Shard,
        session: &mut IprotoSession<'_, Self::Session>,
        reason: IprotoClosed,
    ) {
        let _ = (shard, session, reason);
    }
}

/// A request of the peer.
#[derive(Debug)]
#[non_exhaustive]
pub struct IprotoRequest {
    /// What is asked for.
    pub msg: u32,
    /// What comes with it.
    pub body: Body,
    /// The right to answer it.
    pub reply: Reply,
}

/// Who connects.
pub struct IprotoPeer<'a> {
    net: &'a dyn Addresses,
    socket: Socket,
}

impl<'a> IprotoPeer<'a> {
    pub(super) const fn new(net: &'a dyn Addresses, socket: Socket) -> Self {
        Self { net, socket }
    }

    /// The address of the peer: one system call. `None` for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.net.peer(self.socket)
    }

    /// The address that the peer connected to: one system call.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.net.local(self.socket)
    }
}

impl std::fmt::Debug for IprotoPeer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// Why a connection ended: the first cause counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IprotoClosed {
    /// The peer shut it down, or ended its side.
    ByPeer,
    /// The handler ended it, or somebody else through the shard or its handle.
    ByHandler,
    /// The server shuts down.
    Shutdown,
    /// The protocol ended it: the peer broke a limit, or was silent for too long.
    Protocol(CloseReason),
    /// Too much waited for a peer that reads too slowly.
    SlowReader,
    /// The peer read nothing for `websocket.progress_timeout_ms`: it was dropped without a word.
    Stalled,
    /// The handler panicked.
    Panicked,
    /// The pool had no memory for what was to be sent, or received.
    OutOfMemory,
    /// Its socket was taken away.
    Hijacked,
    /// The connection broke.
    Lost,
}
