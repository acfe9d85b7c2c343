//! One open connection, as its handler sees it during a callback.

use std::fmt;

use hioload_pools::Key;
use hioload_protocol::ws::frame::{self, Header};
use hioload_protocol::ws::{CloseCode, MessageKind, Opcode};

use super::entry::{Entry, Phase, Protocol};
use super::handler::Closed;
use super::message::Message;
use super::outbox::{COPIED_BYTES_MAX, Egress, Exhausted};
use crate::config::SlowReader;

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
    link: Link<'a>,
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

/// The way from a connection to its outbox.
pub(crate) struct Link<'a> {
    pub(crate) shard: u16,
    pub(crate) entry: &'a mut Entry,
    pub(crate) egress: &'a mut Egress,
}

impl fmt::Debug for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}

impl Link<'_> {
    pub(crate) const fn id(&self) -> SessionId {
        SessionId { shard: self.shard, key: self.entry.key }
    }

    /// Queues a frame that backpressure does not concern. Without memory for 139 bytes the
    /// connection cannot go on: it is closed without a word.
    pub(crate) fn send_control(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let len = Header::new(true, opcode, None, payload.len() as u64).encode(&mut header);
        match self.egress.stage(&mut self.entry.outbox, &header[..len], payload) {
            Ok(()) => self.mark_dirty(),
            Err(Exhausted) => self.entry.advance(Phase::Dead, self.egress.now_ms),
        }
    }

    /// Queues bytes as they are: a response head, or a raw stream.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        match self.egress.stage(&mut self.entry.outbox, bytes, &[]) {
            Ok(()) => self.mark_dirty(),
            Err(Exhausted) => self.entry.advance(Phase::Dead, self.egress.now_ms),
        }
    }

    /// Queues a close frame; `None` answers one that named no code.
    pub(crate) fn send_close(&mut self, code: Option<CloseCode>, reason: &str) {
        let mut payload = [0; 125];
        let len = code.map_or(0, |code| frame::encode_close(code, reason, &mut payload));
        self.send_control(Opcode::Close, &payload[..len]);
    }

    pub(crate) fn mark_dirty(&mut self) {
        if !self.entry.flags.dirty() {
            self.entry.flags.set_dirty(true);
            self.egress.dirty.push(self.entry.key.index);
        }
    }

    /// Whether `len` more bytes may be queued, by the bounds and the policy.
    fn admits(&mut self, len: usize) -> bool {
        let settings = &self.egress.settings;
        let queued = self.entry.outbox.queued();
        if queued == 0 {
            return true;
        }
        match settings.slow_reader {
            SlowReader::Drop if queued > settings.outbox_high_bytes => false,
            SlowReader::Close if queued > settings.outbox_high_bytes => {
                self.close(CloseCode::POLICY, "reads too slowly");
                false
            }
            _ => queued + len <= settings.outbox_max_bytes,
        }
    }

    fn verdict(&mut self) -> Sent {
        self.mark_dirty();
        if self.entry.outbox.queued() > self.egress.settings.outbox_high_bytes {
            self.entry.flags.set_full(true);
            Sent::Full
        } else {
            Sent::Queued
        }
    }

    /// The frame header for a message, or nothing on a raw connection.
    fn header_of(&self, header: Header, out: &mut [u8; frame::HEADER_BYTES_MAX]) -> usize {
        match self.entry.protocol {
            Protocol::WebSocket(_) => header.encode(out),
            Protocol::Raw | Protocol::Handshake(_) => 0,
        }
    }

    fn enqueue(&mut self, header: &[u8], message: Message) -> Result<(), Exhausted> {
        let outbox = &mut self.entry.outbox;
        if message.len() <= COPIED_BYTES_MAX {
            return self.egress.stage(outbox, header, &message);
        }
        let (mut lease, room) = message.into_parts();
        if let Some(unused) = room.checked_sub(header.len()) {
            // What was the peer's header is ours now: the frame goes back in place.
            lease.advance(unused);
            lease[..header.len()].copy_from_slice(header);
        } else {
            self.egress.stage(outbox, header, &[])?;
            lease.advance(room);
        }
        self.egress.append(outbox, lease);
        Ok(())
    }
}

impl WebSocketConn for Link<'_> {
    fn send(&mut self, message: Message) -> Sent {
        if !self.entry.is_open() || !self.admits(message.len()) {
            return Sent::Dropped;
        }
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let len = self.header_of(Header::of(&message, None), &mut header);
        match self.enqueue(&header[..len], message) {
            Ok(()) => self.verdict(),
            Err(Exhausted) => Sent::Dropped,
        }
    }

    fn send_copy(&mut self, kind: MessageKind, payload: &[u8]) -> Sent {
        if !self.entry.is_open() || !self.admits(payload.len()) {
            return Sent::Dropped;
        }
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let frame = Header::new(true, kind.opcode(), None, payload.len() as u64);
        let len = self.header_of(frame, &mut header);
        match self.egress.stage(&mut self.entry.outbox, &header[..len], payload) {
            Ok(()) => self.verdict(),
            Err(Exhausted) => Sent::Dropped,
        }
    }

    fn ping(&mut self, payload: &[u8]) {
        if self.entry.is_open() && matches!(self.entry.protocol, Protocol::WebSocket(_)) {
            self.send_control(Opcode::Ping, &payload[..payload.len().min(125)]);
        }
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.entry.is_open() {
            return;
        }
        let now_ms = self.egress.now_ms;
        self.entry.blame(Closed::ByUs(code));
        if let Protocol::WebSocket(connection) = &mut self.entry.protocol {
            connection.close_sent();
            self.entry.advance(Phase::Closing, now_ms);
            self.send_close(Some(code), reason);
        } else {
            self.entry.advance(Phase::Lingering, now_ms);
            self.mark_dirty();
        }
    }

    fn queued_bytes(&self) -> usize {
        self.entry.outbox.queued()
    }

    fn is_open(&self) -> bool {
        self.entry.is_open()
    }
}
