//! Bodies: those that arrived, and what can be sent as one.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use hioload_pools::Lease;
use hioload_protocol::iproto;
use hioload_protocol::ws::MessageKind;

use crate::shard::Message;

/// The body of a packet that arrived, in a window of pool memory that it owns.
///
/// Borrow it as `&[u8]`, change it in place, send it (an echo leaves from the buffer it arrived
/// in), keep it, or drop it. It stays on its shard; [`to_bytes`](Self::to_bytes) copies it out for
/// other threads. What a [`Message`] that is kept costs, this costs.
///
/// # Examples
/// ```
/// use hioload::iproto::{Body, UnpackError, unpack};
///
/// fn sum(body: &Body) -> Result<u32, UnpackError> {
///     let (a, b) = unpack::<(u16, u16)>(body)?;
///     Ok(u32::from(a) + u32::from(b))
/// }
/// ```
pub struct Body(Message);

impl Body {
    /// Takes the body of an event out of the front `at` bytes of `bytes`.
    pub(super) fn take(bytes: &mut Lease, at: usize, body: iproto::Body<Lease>) -> Self {
        match body {
            iproto::Body::Window { payload, header_at } => {
                let rest = bytes.split_off(at);
                let mut window = std::mem::replace(bytes, rest);
                let start = header_at.unwrap_or(payload.start);
                window.truncate(payload.end);
                window.advance(start);
                Self(Message::with_room(MessageKind::Binary, window, payload.start - start))
            }
            iproto::Body::Assembled { buffer, len } => {
                bytes.advance(at);
                Self::assembled(buffer, len)
            }
        }
    }

    pub(super) fn assembled(mut buffer: Lease, len: usize) -> Self {
        buffer.truncate(len);
        Self(Message::new(MessageKind::Binary, buffer))
    }

    /// A copy that may leave the shard.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.0.to_bytes()
    }

    /// The same as a message, for instance for a WebSocket session of this shard.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.0
    }
}

impl From<Message> for Body {
    fn from(message: Message) -> Self {
        Self(message)
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Body {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("len", &self.len()).finish()
    }
}

/// What is sent as a body: borrowed bytes, which are copied; a [`Body`] or [`Message`] of this
/// shard, which beyond 2 KiB leaves from where it lies; or owned bytes.
///
/// Whatever takes one takes anything that becomes one: `&[u8]`, `&str`, `&Vec<u8>`, `Vec<u8>`,
/// `String`, `Bytes`, [`Body`], [`Message`], and `()` for a body of no bytes.
#[derive(Debug)]
pub struct Payload<'a>(pub(super) Kind<'a>);

#[derive(Debug)]
pub(super) enum Kind<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
    Pooled(Message),
}

impl Payload<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Borrowed(bytes) => bytes,
            Kind::Owned(bytes) => bytes,
            Kind::Pooled(message) => message,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// The bytes of one that is only borrowed.
    pub(crate) fn borrowed(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Borrowed(bytes) => Some(bytes),
            Kind::Owned(_) | Kind::Pooled(_) => None,
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self.0 {
            Kind::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Kind::Owned(bytes) => bytes,
            Kind::Pooled(message) => message.to_bytes(),
        }
    }
}

impl From<()> for Payload<'_> {
    fn from((): ()) -> Self {
        Self(Kind::Borrowed(&[]))
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Kind::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Kind::Borrowed(bytes))
    }
}

impl<'a> From<&'a Vec<u8>> for Payload<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self(Kind::Borrowed(bytes))
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    fn from(text: &'a str) -> Self {
        Self(Kind::Borrowed(text.as_bytes()))
    }
}

impl From<Vec<u8>> for Payload<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Kind::Owned(bytes.into()))
    }
}

impl From<String> for Payload<'_> {
    fn from(text: String) -> Self {
        Self(Kind::Owned(text.into()))
    }
}

impl From<Bytes> for Payload<'_> {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Owned(bytes))
    }
}

impl From<Body> for Payload<'_> {
    fn from(body: Body) -> Self {
        Self(Kind::Pooled(body.0))
    }
}

impl From<Message> for Payload<'_> {
    fn from(message: Message) -> Self {
        Self(Kind::Pooled(message))
    }
}
