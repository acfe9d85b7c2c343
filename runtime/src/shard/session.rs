//! One open connection, as its handler sees it during a callback.

use std::fmt;

use hioload_pools::Key;
use hioload_protocol::ws::{CloseCode, MessageKind};

use super::link::Link;
use super::message::Message;
use super::topics::SubscribeError;

/// Names a session in the whole server, for as long as the server runs: it is never used again.
///
/// It may leave the shard: other sessions, shards and threads reach the session through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    pub(crate) shard: u16,
    pub(crate) key: Key,
}

impl SessionId {
    /// The shard that the session lives on.
    #[must_use]
    pub const fn shard(self) -> u16 {
        self.shard
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}", self.shard, self.key.to_u64())
    }
}

/// What became of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is queued, and leaves at the end of the turn or as fast as the peer reads.
    Queued,
    /// It is queued, and the outbox is above its high mark: better send no more until `drained`
    /// is called.
    Full,
    /// It was not taken: the session is closing, the outbox is at its bound, the policy for slow
    /// readers says so, or the pool is exhausted.
    Dropped,
}

/// What can be done with an open WebSocket (or raw) connection.
///
/// The interface of [`Session`] without its user data, for helpers that only send. Guarantees:
/// messages leave whole and in the order of the calls; nothing is sent after `close`; `close`
/// and pings are never dropped for lack of room in the outbox.
/// [`FakeWebSocketConn`](crate::testkit::FakeWebSocketConn) records the calls.
pub trait WebSocketConn {
    /// Sends a message. An empty outbox takes any message; otherwise its bounds decide.
    fn send(&mut self, message: Message) -> Sent;

    /// Sends a copy of `payload` as one message.
    fn send_copy(&mut self, kind: MessageKind, payload: &[u8]) -> Sent;

    /// Sends a ping with at most 125 bytes of payload, the rest is cut off
    /// (RFC 6455 section 5.5.2). Does nothing on a raw connection.
    fn ping(&mut self, payload: &[u8]);

    /// Starts the closing handshake (RFC 6455 section 7.1.2); a raw connection gets a FIN. The
    /// reason is cut to 123 bytes.
    fn close(&mut self, code: CloseCode, reason: &str);

    /// Bytes that were sent and not yet taken by the kernel.
    fn queued_bytes(&self) -> usize;

    /// Whether messages can still be sent.
    fn is_open(&self) -> bool;
}

/// An open connection and what the handler keeps for it, for the time of one callback.
#[derive(Debug)]
pub struct Session<'a, S> {
    /// What the handler keeps for this session.
    pub data: &'a mut S,
    pub(super) link: Link<'a>,
}

impl<'a, S> Session<'a, S> {
    pub(crate) const fn new(data: &'a mut S, link: Link<'a>) -> Self {
        Self { data, link }
    }

    /// The name of this session.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.link.id()
    }

    /// Sends a message, from where it lies if it is large. See [`WebSocketConn::send`].
    pub fn send(&mut self, message: Message) -> Sent {
        self.link.send(message)
    }

    /// Sends a copy of a text as one message.
    pub fn send_text(&mut self, text: &str) -> Sent {
        self.link.send_copy(MessageKind::Text, text.as_bytes())
    }

    /// Sends a copy of some bytes as one binary message; on a raw connection just the bytes.
    pub fn send_binary(&mut self, bytes: &[u8]) -> Sent {
        self.link.send_copy(MessageKind::Binary, bytes)
    }

    /// Sends a ping. See [`WebSocketConn::ping`].
    pub fn ping(&mut self, payload: &[u8]) {
        self.link.ping(payload);
    }

    /// Starts the closing handshake. See [`WebSocketConn::close`].
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.link.close(code, reason);
    }

    /// Subscribes to a topic of this shard: from now on, what is [published](super::Shard::publish)
    /// to it reaches this session. `false`: it was subscribed already. Ends with the session, or
    /// with [`unsubscribe`](Self::unsubscribe). A topic comes with its first subscriber and goes
    /// with its last.
    ///
    /// # Errors
    /// The name is too long, a limit is reached, or the session is closing.
    pub fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        self.link.subscribe(topic)
    }

    /// Ends a subscription. `false`: there was none.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        self.link.unsubscribe(topic)
    }

    /// Whether this session is subscribed to a topic.
    #[must_use]
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.link.is_subscribed(topic)
    }

    /// Bytes that were sent and not yet taken by the kernel.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.link.queued_bytes()
    }

    /// Whether messages can still be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.link.is_open()
    }
}

impl<S> WebSocketConn for Session<'_, S> {
    fn send(&mut self, message: Message) -> Sent {
        self.link.send(message)
    }

    fn send_copy(&mut self, kind: MessageKind, payload: &[u8]) -> Sent {
        self.link.send_copy(kind, payload)
    }

    fn ping(&mut self, payload: &[u8]) {
        self.link.ping(payload);
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        self.link.close(code, reason);
    }

    fn queued_bytes(&self) -> usize {
        self.link.queued_bytes()
    }

    fn is_open(&self) -> bool {
        self.link.is_open()
    }
}
