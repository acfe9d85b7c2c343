//! permessage-deflate (RFC 7692): what is agreed in the handshake, and the compression itself.
//!
//! Comes in: the offers of a `Sec-WebSocket-Extensions` header, and messages. Goes out: an
//! [`Agreement`], compressed payloads, and payloads whose size never passes a cap. The
//! [`Connection`](crate::ws::Connection) only marks a message as compressed: who owns it inflates
//! it, so that windows can be shared by all connections that keep no context.
//!
//! Negotiation is always here. [`Inflater`], [`Deflater`] and [`Whole`] need the cargo feature
//! `deflate`, which brings a DEFLATE library and an allocator for its windows; [`Whole`] is faster
//! with the feature `libdeflate`, which needs a C compiler.

#[cfg(feature = "deflate")]
mod deflater;
#[cfg(feature = "deflate")]
mod inflater;
mod negotiate;
#[cfg(feature = "deflate")]
mod whole;

#[cfg(feature = "deflate")]
pub use deflater::Deflater;
#[cfg(feature = "deflate")]
pub use inflater::Inflater;
pub use negotiate::{Agreement, Direction, Offer, Policy, ResponseFault};
#[cfg(feature = "deflate")]
pub use whole::Whole;

/// The largest window: 2^15 bytes, also what is agreed when nobody names one.
pub const WINDOW_BITS_MAX: u8 = 15;
/// The smallest window that can be agreed (RFC 7692 section 7.1.2).
pub const WINDOW_BITS_MIN: u8 = 8;
/// The smallest window that we can compress for: the library cannot do 2^8 bytes in a raw stream.
pub const DEFLATE_BITS_MIN: u8 = 9;

/// What a sender cuts off the end of a message and a receiver puts back (RFC 7692 sections 7.2.1
/// and 7.2.2): the end of an empty block without compression.
#[cfg(feature = "deflate")]
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// The payload of a message without bytes: the header of an empty block without compression (RFC
/// 7692 section 7.2.3.6).
#[cfg(feature = "deflate")]
fn empty(out: &mut [u8]) -> Result<usize, NoRoom> {
    *out.first_mut().ok_or(NoRoom)? = 0;
    Ok(1)
}

/// No payload was compressed: it does not fit the room that it was given.
#[cfg(feature = "deflate")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compressed message does not fit its buffer")]
pub struct NoRoom;
