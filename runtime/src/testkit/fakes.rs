//! Recorders for the small seams: what was asked of a connection, in its order.

use std::net::SocketAddr;

use hioload_pools::Shared;
use hioload_protocol::ws::{CloseCode, MessageKind};

use crate::reactor::Receive;
use crate::shard::{Message, NetConn, Sent, WebSocketConn};

/// What was asked of a [`FakeConn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnCall {
    /// A gathered send, its segments joined.
    Send(Vec<u8>),
    /// Receiving was paused.
    Pause,
    /// Receiving into the pool.
    Receive,
    /// Receiving into a lease of this size.
    ReceiveInto(usize),
    /// FIN.
    Shutdown,
    /// The end.
    Close,
}

/// A [`NetConn`] that records what it is asked.
#[derive(Debug, Default)]
pub struct FakeConn {
    /// The calls, in their order.
    pub calls: Vec<ConnCall>,
    /// What [`NetConn::peer_address`] answers.
    pub peer: Option<SocketAddr>,
    /// What [`NetConn::local_address`] answers.
    pub local: Option<SocketAddr>,
}

impl NetConn for FakeConn {
    fn send<I: IntoIterator<Item = Shared>>(&mut self, segments: I) {
        let joined = segments.into_iter().flat_map(|segment| segment.to_vec()).collect();
        self.calls.push(ConnCall::Send(joined));
    }

    fn receive(&mut self, mode: Receive) {
        self.calls.push(match mode {
            Receive::Paused => ConnCall::Pause,
            Receive::Pool => ConnCall::Receive,
            Receive::Into(lease) => ConnCall::ReceiveInto(lease.len()),
        });
    }

    fn shutdown(&mut self) {
        self.calls.push(ConnCall::Shutdown);
    }

    fn close(&mut self) {
        self.calls.push(ConnCall::Close);
    }

    fn peer_address(&self) -> Option<SocketAddr> {
        self.peer
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }
}

/// A [`WebSocketConn`] that records what was sent, and answers as it is told.
///
/// # Examples
/// ```
/// use hioload::testkit::FakeWebSocketConn;
/// use hioload::{MessageKind, Sent, shard::WebSocketConn};
///
/// fn greet(conn: &mut impl WebSocketConn) -> Sent {
///     conn.send_copy(MessageKind::Text, b"hello")
/// }
///
/// let mut conn = FakeWebSocketConn::new();
/// assert_eq!(greet(&mut conn), Sent::Queued);
/// assert_eq!(conn.sent, [(MessageKind::Text, b"hello".to_vec())]);
/// conn.answer = Sent::Full;
/// assert_eq!(greet(&mut conn), Sent::Full);
/// ```
#[derive(Debug)]
pub struct FakeWebSocketConn {
    /// The messages that were taken.
    pub sent: Vec<(MessageKind, Vec<u8>)>,
    /// The payloads of pings.
    pub pings: Vec<Vec<u8>>,
    /// How it was closed, if it was.
    pub closed: Option<(CloseCode, String)>,
    /// What the next sends answer; with [`Sent::Dropped`] nothing is taken.
    pub answer: Sent,
}

impl FakeWebSocketConn {
    /// An open connection that takes everything.
    #[must_use]
    pub const fn new() -> Self {
        Self { sent: Vec::new(), pings: Vec::new(), closed: None, answer: Sent::Queued }
    }
}

impl Default for FakeWebSocketConn {
    fn default() -> Self {
        Self::new()
    }
}

impl WebSocketConn for FakeWebSocketConn {
    fn send(&mut self, message: Message) -> Sent {
        self.send_copy(message.kind(), &message)
    }

    fn send_copy(&mut self, kind: MessageKind, payload: &[u8]) -> Sent {
        if self.closed.is_some() || self.answer == Sent::Dropped {
            return Sent::Dropped;
        }
        self.sent.push((kind, payload.to_vec()));
        self.answer
    }

    fn ping(&mut self, payload: &[u8]) {
        self.pings.push(payload[..payload.len().min(125)].to_vec());
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        self.closed.get_or_insert_with(|| (code, reason.to_owned()));
    }

    fn queued_bytes(&self) -> usize {
        self.sent.iter().map(|(_, payload)| payload.len()).sum()
    }

    fn is_open(&self) -> bool {
        self.closed.is_none()
    }
}
