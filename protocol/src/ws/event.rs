//! What a connection tells of what it read.

use core::fmt;
use core::ops::Deref;

use super::frame::CONTROL_BYTES_MAX;
use super::{Body, CloseCode, MessageKind};

/// Something that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<B> {
    /// A whole message.
    Message(Message<B>),
    /// A ping: answer it with a pong of the same payload, unless a newer one came (RFC 6455
    /// sections 5.5.2 and 5.5.3).
    Ping(Control),
    /// A pong. One that nobody asked for is a heartbeat.
    Pong(Control),
    /// The peer closes: answer with a close frame unless one was sent, then call
    /// [`close_sent`](super::Connection::close_sent). Nothing else will be read.
    Close {
        /// The code; `None` if the frame had no body.
        code: Option<CloseCode>,
        /// The reason: UTF-8, at most 123 bytes.
        reason: Control,
    },
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<B> {
    /// Text (valid UTF-8, unless it is compressed) or binary.
    pub kind: MessageKind,
    /// Whether the payload has to be inflated (RFC 7692 section 7.2.2), and text to be checked
    /// then. Only where it was negotiated:
    /// [`Connection::with_deflate`](super::Connection::with_deflate).
    pub compressed: bool,
    /// Where its payload lies, unmasked.
    pub body: Body<B>,
}

/// The payload of a control frame: at most 125 bytes, kept in place (RFC 6455 section 5.5).
#[derive(Clone, Copy)]
pub struct Control {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

impl Control {
    /// A copy of `payload`; `None` if it is longer than 125 bytes.
    #[must_use]
    pub fn new(payload: &[u8]) -> Option<Self> {
        (payload.len() <= CONTROL_BYTES_MAX).then(|| Self::copied(payload))
    }

    /// A copy of `payload`, which was checked to be at most 125 bytes when its header was read.
    pub(super) fn copied(payload: &[u8]) -> Self {
        let mut bytes = [0; CONTROL_BYTES_MAX];
        bytes[..payload.len()].copy_from_slice(payload);
        // At most 125, or the line above would have panicked.
        Self { bytes, len: payload.len() as u8 }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::copied(&[])
    }
}

impl Deref for Control {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for Control {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Control {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Control {}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control(\"{}\")", self.escape_ascii())
    }
}
