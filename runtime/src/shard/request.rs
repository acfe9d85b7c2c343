//! A handshake as the handler sees it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;

use hioload_protocol::http::Head;

use super::conn::Addresses;
use super::extra::Kept;
use super::paths::Params;
use super::session::SessionId;
use crate::reactor::Socket;

/// An HTTP request whose head arrived whole: a WebSocket handshake, or a plain `GET` or `HEAD`.
///
/// Everything about the head (path, query, headers, origin, subprotocols) is on [`Head`], to
/// which it dereferences.
pub struct Request<'a> {
    head: &'a Head<'a>,
    /// The head as it came.
    bytes: &'a [u8],
    params: Params<'a>,
    id: SessionId,
    wire: (&'a dyn Addresses, Socket),
}

/// Names a handshake that is answered later with [`Shard::answer`](super::Shard::answer).
///
/// It may leave the shard: a future or another thread carries it back through the
/// [`ShardHandle`](super::ShardHandle).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpgradeToken(pub(crate) SessionId);

impl<'a> Request<'a> {
    pub(super) const fn new(
        head: &'a Head<'a>,
        bytes: &'a [u8],
        params: Params<'a>,
        id: SessionId,
        wire: (&'a dyn Addresses, Socket),
    ) -> Self {
        Self { head, bytes, params, id, wire }
    }

    /// What a parameter of the route stands for in this path, as it came: escapes are not decoded.
    /// See [`ServerBuilder::websocket`](crate::ServerBuilder::websocket) for such routes.
    ///
    /// # Examples
    /// ```
    /// # use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
    /// # struct Chat;
    /// # impl Handler for Chat {
    /// #   type Session = String;
    /// // Served at `/chat/{room}`.
    /// fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<String> {
    ///     match request.param("room") {
    ///         Some(room) => Upgrade::accept(room.to_owned()),
    ///         None => Upgrade::refuse(404),
    ///     }
    /// }
    /// # fn message(&mut self, _: &mut Shard, session: &mut Session<'_, String>, _: Message) {
    /// #   let room = session.data.clone();
    /// #   session.send_text(&room);
    /// # }
    /// # }
    /// # let bench = hioload::testkit::Bench::new(Chat).route("/chat/{room}");
    /// # let mut client = bench.connect("/chat/rust")?;
    /// # client.send_text("where am I?");
    /// # assert_eq!(client.receive(), Some(hioload::testkit::Received::Text("rust".into())));
    /// # Ok::<(), hioload::testkit::Refused>(())
    /// ```
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params.get(name)
    }

    /// The address of the peer (one system call); `None` for a Unix socket.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        let (addresses, socket) = self.wire;
        addresses.peer(socket)
    }

    /// The address that the peer connected to (one system call); `None` for a Unix socket.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        let (addresses, socket) = self.wire;
        addresses.local(socket)
    }

    /// What is kept of it, for a session that asks for that.
    pub(super) fn keep(&self) -> Kept {
        Kept::new(self.bytes, &self.params)
    }

    /// The id that the session has, if it is accepted.
    #[must_use]
    pub const fn session_id(&self) -> SessionId {
        self.id
    }

    /// The name under which this handshake can be answered later.
    #[must_use]
    pub const fn token(&self) -> UpgradeToken {
        UpgradeToken(self.id)
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Request");
        debug.field("head", self.head).field("params", &self.params).field("id", &self.id);
        debug.finish_non_exhaustive()
    }
}

impl<'a> Deref for Request<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        self.head
    }
}
