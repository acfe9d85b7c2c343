//! Where a payload lies, and where the rest of one may be received.

use core::ops::Range;

/// Where the payload of a message or packet lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<B> {
    /// Where it arrived: it came whole in the input of this read.
    Window {
        /// The payload is `input[payload]`.
        payload: Range<usize>,
        /// Where the header in front of it starts, if all of it came in this input too and there
        /// is no other: then `input[header_at..payload.start]` belongs to this payload alone and
        /// an echo may put its own header there.
        header_at: Option<usize>,
    },
    /// It came in several pieces, and was put together in memory that [`Memory`](super::Memory)
    /// gave.
    Assembled {
        /// That memory.
        buffer: B,
        /// The payload is the first `len` bytes of it.
        len: usize,
    },
}

impl<B: AsRef<[u8]>> Body<B> {
    /// The payload; `input` is what the read that gave this body was called with.
    ///
    /// # Panics
    /// If `input` is shorter than that.
    #[must_use]
    pub fn bytes<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Window { payload, .. } => &input[payload.clone()],
            Self::Assembled { buffer, len } => &buffer.as_ref()[..*len],
        }
    }
}

/// The memory of something large, lent so that the rest of it can be received where it belongs.
///
/// Receive at most `buffer.len() - filled` bytes, which is never more than `wanted`, to
/// `buffer[filled..]`, then call `filled` of the connection that lent it.
#[derive(Debug)]
pub struct Direct<'a, B> {
    /// The memory of the message or packet.
    pub buffer: &'a mut B,
    /// Its first `filled` bytes have arrived.
    pub filled: usize,
    /// How many bytes of the current frame or packet are still to come, in all.
    pub wanted: usize,
}
