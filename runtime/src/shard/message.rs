//! A message that owns the memory it lies in.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use hioload_pools::Lease;
use hioload_protocol::ws::frame::WebSocketFrame;
use hioload_protocol::ws::{MessageKind, Opcode};

/// A complete message, or a piece of a raw stream, in a window of pool memory.
///
/// It owns its window: [send](super::Session::send) it, and an echo leaves from the buffer it
/// arrived in; change it in place; keep it; or drop it. It stays on its shard (it is not `Send`);
/// [`to_bytes`](Self::to_bytes) copies it out for other threads.
///
/// A message that is kept pins the pool memory around it: at most a receive buffer, or the block of
/// its own in which it was put together or decompressed, up to four times as large as it is. The
/// reactor bounds how many of its buffers may be kept (a quarter), and hands out copies beyond that.
pub struct Message {
    kind: MessageKind,
    /// The payload, behind what was its frame header where that is known to be ours alone.
    lease: Lease,
    /// Where in the lease the payload starts: at most the 14 bytes of a header.
    payload_at: u8,
}

impl Message {
    /// A message that fills a whole lease, for handlers that build theirs in pool memory.
    #[must_use]
    pub const fn new(kind: MessageKind, lease: Lease) -> Self {
        Self { kind, lease, payload_at: 0 }
    }

    /// A message with `room` bytes in front of its payload that belong to it alone.
    #[inline]
    pub(crate) fn with_room(kind: MessageKind, lease: Lease, room: usize) -> Self {
        let payload_at = u8::try_from(room).expect("a frame header has at most 14 bytes");
        Self { kind, lease, payload_at }
    }

    /// Text or binary. The pieces of a raw stream are binary.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The text of a text message; `None` if it is binary.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self.kind {
            MessageKind::Text => std::str::from_utf8(self).ok(),
            MessageKind::Binary => None,
        }
    }

    /// A copy that may leave the shard.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }

    /// Gives up the memory: the lease and how many bytes lie in front of the payload.
    pub(crate) fn into_parts(self) -> (Lease, usize) {
        (self.lease, usize::from(self.payload_at))
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.lease[usize::from(self.payload_at)..]
    }
}

impl DerefMut for Message {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.lease[usize::from(self.payload_at)..]
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl WebSocketFrame for Message {
    fn fin(&self) -> bool {
        true
    }

    fn opcode(&self) -> Opcode {
        match self.kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        }
    }

    fn payload(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("kind", &self.kind).field("len", &self.len()).finish()
    }
}
