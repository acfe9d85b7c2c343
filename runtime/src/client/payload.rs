//! A message that any thread may hold.

use std::ops::Deref;

use bytes::Bytes;
use hioload_protocol::ws::MessageKind;

use crate::shard::Message;

/// A message on its way to or from a [`Client`](super::Client): text or binary, in memory of its
/// own. Cloning it copies no bytes.
///
/// # Examples
/// ```
/// use hioload::ws::Payload;
///
/// let greeting = Payload::from("hello");
/// assert_eq!(greeting.text(), Some("hello"));
/// assert_eq!(Payload::from(vec![1, 2, 3]).text(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    kind: MessageKind,
    bytes: Bytes,
}

impl Payload {
    /// A binary message.
    #[must_use]
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { kind: MessageKind::Binary, bytes: bytes.into() }
    }

    /// Text or binary.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The text of a text message; `None` if it is binary.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self.kind {
            MessageKind::Text => std::str::from_utf8(&self.bytes).ok(),
            MessageKind::Binary => None,
        }
    }

    /// The bytes; of a text message its UTF-8.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes without their kind.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<&Message> for Payload {
    fn from(message: &Message) -> Self {
        Self { kind: message.kind(), bytes: message.to_bytes() }
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self { kind: MessageKind::Text, bytes: Bytes::copy_from_slice(text.as_bytes()) }
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self { kind: MessageKind::Text, bytes: text.into() }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self::binary(Bytes::copy_from_slice(bytes))
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}
