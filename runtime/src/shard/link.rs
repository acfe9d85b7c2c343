//! The way from a connection to its outbox: frames out of messages, bounds, policies.
//!
//! Comes in: what a handler or the protocol wants to send. Goes out: segments in the outbox, and
//! the connection marked as dirty. Nothing is sent here; the end of the turn does that.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hioload_protocol::http::Head;
use hioload_protocol::ws::frame::{self, Header};
use hioload_protocol::ws::mask::mask;
use hioload_protocol::ws::{CloseCode, MessageKind, Opcode, Role};

use super::conn::Addresses;
use super::deflate::{DeflateId, Outgoing};
use super::entry::{Entry, Phase, Protocol};
use super::extra::{Extra, SessionStats, TimerRefused, tick_after};
use super::handler::Closed;
use super::message::Message;
use super::outbox::{COPIED_BYTES_MAX, Egress, Exhausted};
use super::session::{Sent, SessionId, WebSocketConn};
use super::topics::{Encoding, Publication, SubscribeError};
use crate::Time;
use crate::config::SlowReader;

/// The longest message that an outbox takes when it is empty: it counts in 32 bits.
const MESSAGE_BYTES_MAX: usize = 2 << 30;

/// The way from a connection to its outbox.
pub(crate) struct Link<'a> {
    pub(crate) shard: u16,
    pub(crate) entry: &'a mut Entry,
    pub(crate) egress: &'a mut Egress,
    pub(crate) net: &'a dyn Addresses,
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
        let frame = Header::new(true, opcode, self.mask_key(), payload.len() as u64);
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let len = frame.encode(&mut header);
        match self.egress.stage(&mut self.entry.outbox, &header[..len], payload, frame.mask) {
            Ok(()) => self.mark_dirty(),
            Err(Exhausted) => {
                self.entry.blame(Closed::OutOfMemory);
                self.entry.advance(Phase::Dead, self.egress.now_ms);
            }
        }
    }

    /// Queues bytes as they are: a response head, or a raw stream.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        match self.egress.stage(&mut self.entry.outbox, bytes, &[], None) {
            Ok(()) => self.mark_dirty(),
            Err(Exhausted) => {
                self.entry.blame(Closed::OutOfMemory);
                self.entry.advance(Phase::Dead, self.egress.now_ms);
            }
        }
    }

    /// Starts the closing handshake for this cause.
    pub(crate) fn close_for(&mut self, cause: Closed, reason: &str) {
        if !self.entry.is_open() {
            return;
        }
        let now_ms = self.egress.now_ms;
        self.entry.blame(cause);
        match &mut self.entry.protocol {
            Protocol::WebSocket(connection) => {
                connection.close_sent();
                self.entry.end(Phase::Closing, &self.egress.settings, now_ms);
                self.send_close(cause.code(), reason);
            }
            // Its handshake is the next poll's.
            Protocol::Iproto(iproto) => iproto.connection.shutdown(now_ms),
            Protocol::Raw | Protocol::Handshake(_) | Protocol::Dialing(_) => {
                self.entry.end(Phase::Lingering, &self.egress.settings, now_ms);
                self.mark_dirty();
            }
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

    /// Whether messages can be sent: what is no packet would be the end of an iproto connection.
    fn takes_messages(&self) -> bool {
        self.entry.is_open() && self.entry.iproto().is_none()
    }

    /// Whether `len` more bytes may be queued, by the bounds and the policy.
    pub(super) fn admits(&mut self, len: usize) -> bool {
        let settings = &self.egress.settings;
        let queued = self.entry.outbox.queued();
        if queued == 0 {
            return len <= MESSAGE_BYTES_MAX;
        }
        match settings.slow_reader {
            SlowReader::Drop if queued > settings.outbox_high_bytes => false,
            SlowReader::Close if queued > settings.outbox_high_bytes => {
                self.close_for(Closed::SlowReader, "reads too slowly");
                false
            }
            _ => queued + len <= settings.outbox_max_bytes,
        }
    }

    /// A message of `len` bytes was queued.
    pub(super) fn verdict(&mut self, len: usize) -> Sent {
        self.mark_dirty();
        self.egress.extras.count_out(self.entry, len);
        if self.is_full() { Sent::Full } else { Sent::Queued }
    }

    /// Whether the outbox is above its high mark; the handler is then told when it is low again.
    pub(super) fn is_full(&mut self) -> bool {
        let is_full = self.entry.outbox.queued() > self.egress.settings.outbox_high_bytes;
        if is_full {
            self.entry.flags.set_full(true);
        }
        is_full
    }

    /// A new key to mask a frame with, if we are the client of this connection (RFC 6455 section
    /// 5.3): unpredictable, and never used twice.
    fn mask_key(&mut self) -> Option<[u8; 4]> {
        match &self.entry.protocol {
            Protocol::WebSocket(connection) if connection.role() == Role::Client => {
                Some(self.egress.secrets.bytes())
            }
            _ => None,
        }
    }

    /// The header of a frame that holds a whole message; a raw connection has none.
    fn header_of(&mut self, kind: MessageKind, len: usize) -> Option<Header> {
        let is_websocket = matches!(self.entry.protocol, Protocol::WebSocket(_));
        is_websocket.then(|| Header::new(true, kind.opcode(), self.mask_key(), len as u64))
    }

    /// Queues a message compressed, if that was agreed and is worth it; says whether it did.
    #[inline]
    fn compress(&mut self, kind: MessageKind, payload: &[u8]) -> Result<bool, Exhausted> {
        if self.entry.deflate == DeflateId::NONE {
            return Ok(false);
        }
        let mask = self.mask_key();
        let message = Outgoing { kind, payload, mask };
        self.egress.stage_compressed(&mut self.entry.outbox, self.entry.deflate, message)
    }

    /// Queues a copy of a message.
    fn stage(&mut self, frame: Option<Header>, payload: &[u8]) -> Result<(), Exhausted> {
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let len = frame.map_or(0, |frame| frame.encode(&mut header));
        let mask = frame.and_then(|frame| frame.mask);
        self.egress.stage(&mut self.entry.outbox, &header[..len], payload, mask)
    }

    /// Queues a message that is too large to be copied.
    fn append(&mut self, frame: Option<Header>, message: Message) -> Result<(), Exhausted> {
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let len = frame.map_or(0, |frame| frame.encode(&mut header));
        self.append_behind(&header[..len], message, frame.and_then(|frame| frame.mask))
    }

    /// Queues a message from where it lies, behind this header.
    pub(super) fn append_behind(
        &mut self,
        header: &[u8],
        message: Message,
        key: Option<[u8; 4]>,
    ) -> Result<(), Exhausted> {
        let len = header.len();
        let (mut lease, room) = message.into_parts();
        if let Some(key) = key {
            mask(&mut lease[room..], key, 0);
        }
        if let Some(unused) = room.checked_sub(len) {
            // What was the peer's header is ours now: the frame goes back in place.
            lease.advance(unused);
            lease[..len].copy_from_slice(header);
        } else {
            self.egress.stage(&mut self.entry.outbox, header, &[], None)?;
            lease.advance(room);
        }
        self.egress.append(&mut self.entry.outbox, lease);
        Ok(())
    }
}

/// What a session may ask of its connection, and what it set for itself.
impl Link<'_> {
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.net.peer(self.entry.socket)
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.net.local(self.entry.socket)
    }

    pub(crate) fn extra(&self) -> Option<&Extra> {
        self.egress.extras.get(self.entry)
    }

    /// Asks the head of the request, if it was kept.
    pub(crate) fn head<'a>(
        &'a self,
        ask: impl FnOnce(&Head<'a>) -> Option<&'a str>,
    ) -> Option<&'a str> {
        let head = self.extra()?.kept.as_ref()?.parse(&self.egress.settings.head)?;
        ask(&head)
    }

    pub(crate) fn stats(&self) -> Option<SessionStats> {
        let stats = self.extra()?.stats.as_ref()?;
        let heard_at = Time::from_nanos(self.entry.heard_ms * 1_000_000);
        Some(SessionStats { heard_at, ..**stats })
    }

    pub(crate) fn set_timer(&mut self, after: Duration, token: u64) -> Result<(), TimerRefused> {
        if !self.entry.is_open() {
            return Err(TimerRefused);
        }
        let at_ms = tick_after(self.egress.now, after);
        self.egress.extras.set_timer(self.entry, at_ms, token)
    }

    pub(crate) fn cancel_timer(&mut self, token: u64) -> bool {
        self.egress.extras.cancel_timer(self.entry, token)
    }

    pub(crate) fn set_deadline(&mut self, deadline: Option<(Duration, CloseCode)>) {
        if self.entry.is_open() {
            let now = self.egress.now;
            let deadline = deadline.map(|(after, code)| (tick_after(now, after), code));
            self.egress.extras.set_deadline(self.entry, deadline);
        }
    }
}

/// Topics.
impl Link<'_> {
    pub(crate) fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        if !self.entry.is_open() {
            return Err(SubscribeError::NotOpen);
        }
        let subscribed = self.egress.topics.borrow_mut().subscribe(self.entry.key.index, topic)?;
        self.entry.flags.set_subscribed(true);
        Ok(subscribed)
    }

    pub(crate) fn unsubscribe(&mut self, topic: &str) -> bool {
        self.entry.flags.subscribed()
            && self.egress.topics.borrow_mut().unsubscribe(self.entry.key.index, topic)
    }

    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        self.entry.flags.subscribed()
            && self.egress.topics.borrow().is_subscribed(self.entry.key.index, topic)
    }

    /// The form in which a published message can be shared with this connection. `None`: none, as
    /// a client masks each of its frames with a key of its own (RFC 6455 section 5.3).
    fn encoding(&self, len: usize) -> Option<Encoding> {
        match &self.entry.protocol {
            Protocol::WebSocket(connection) if connection.role() == Role::Client => None,
            Protocol::WebSocket(_) => {
                let how = self.egress.windows.standing_alone(self.entry.deflate, len);
                Some(how.map_or(Encoding::Plain, Encoding::Deflated))
            }
            Protocol::Raw | Protocol::Iproto(_) | Protocol::Handshake(_) | Protocol::Dialing(_) => {
                Some(Encoding::Bytes)
            }
        }
    }

    /// Queues a published message, by reference.
    pub(super) fn send_published(&mut self, publication: &mut Publication) -> Sent {
        let Some(encoding) = self.encoding(publication.payload.len()) else {
            return self.send_copy(publication.kind, &publication.payload);
        };
        if !self.entry.is_open() || !self.admits(publication.payload.len()) {
            return Sent::Dropped;
        }
        let Some(encoded) = publication.encoded(encoding, self.egress) else {
            return Sent::Dropped;
        };
        if encoded.is_compressed {
            self.egress.windows.interrupt(self.entry.deflate);
        }
        if let Some(header) = encoded.header {
            self.egress.append(&mut self.entry.outbox, header);
        }
        self.egress.append(&mut self.entry.outbox, encoded.body);
        self.verdict(publication.payload.len())
    }
}

impl WebSocketConn for Link<'_> {
    fn send(&mut self, message: Message) -> Sent {
        if !self.takes_messages() || !self.admits(message.len()) {
            return Sent::Dropped;
        }
        let len = message.len();
        match self.compress(message.kind(), &message) {
            Ok(false) => {}
            Ok(true) => return self.verdict(len),
            Err(Exhausted) => return Sent::Dropped,
        }
        let frame = self.header_of(message.kind(), len);
        let queued = if len <= COPIED_BYTES_MAX {
            self.stage(frame, &message)
        } else {
            self.append(frame, message)
        };
        match queued {
            Ok(()) => self.verdict(len),
            Err(Exhausted) => Sent::Dropped,
        }
    }

    fn send_copy(&mut self, kind: MessageKind, payload: &[u8]) -> Sent {
        if !self.takes_messages() || !self.admits(payload.len()) {
            return Sent::Dropped;
        }
        match self.compress(kind, payload) {
            Ok(false) => {}
            Ok(true) => return self.verdict(payload.len()),
            Err(Exhausted) => return Sent::Dropped,
        }
        let frame = self.header_of(kind, payload.len());
        match self.stage(frame, payload) {
            Ok(()) => self.verdict(payload.len()),
            Err(Exhausted) => Sent::Dropped,
        }
    }

    fn ping(&mut self, payload: &[u8]) {
        if self.entry.is_open() && matches!(self.entry.protocol, Protocol::WebSocket(_)) {
            self.send_control(Opcode::Ping, &payload[..payload.len().min(125)]);
        }
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        self.close_for(Closed::ByHandler(code), reason);
    }

    fn queued_bytes(&self) -> usize {
        self.entry.outbox.queued()
    }

    fn is_open(&self) -> bool {
        self.entry.is_open()
    }
}
