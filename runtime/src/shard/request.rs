//! A handshake as the handler sees it.

use std::ops::Deref;

use hioload_protocol::http::Head;

use super::session::SessionId;

/// An HTTP request whose head arrived whole: a WebSocket handshake, or a plain `GET` or `HEAD`.
///
/// Everything about the head (path, query, headers, origin, subprotocols) is on [`Head`], to
/// which it dereferences.
#[derive(Debug)]
pub struct Request<'a> {
    head: &'a Head<'a>,
    id: SessionId,
}

/// Names a handshake that is answered later with [`Shard::answer`](super::Shard::answer).
///
/// It may leave the shard: a future or another thread carries it back through the
/// [`ShardHandle`](super::ShardHandle).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpgradeToken(pub(crate) SessionId);

impl<'a> Request<'a> {
    pub(crate) const fn new(head: &'a Head<'a>, id: SessionId) -> Self {
        Self { head, id }
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

impl<'a> Deref for Request<'a> {
    type Target = Head<'a>;

    fn deref(&self) -> &Head<'a> {
        self.head
    }
}
