//! The 12 bytes in front of every body.

use super::Refusal;

/// How long a header is.
pub const HEADER_BYTES: usize = 12;

/// The code of a ping and of its answer.
pub const PING: u32 = 0xff00;

/// The code that ends a connection in order. Other codes from [`PING`] up are called reserved, but
/// are ordinary requests.
pub const SHUTDOWN: u32 = 0xff01;

/// What a packet is, and how long its body.
///
/// ```
/// use hioload_protocol::iproto::Header;
///
/// let request = Header::new(42, 1, 2)?;
/// assert_eq!(request.encode(), *b"\x2a\0\0\0\x02\0\0\0\x01\0\0\0");
/// assert_eq!(Header::decode(&request.encode()), request);
/// # Ok::<(), hioload_protocol::iproto::Refusal>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What is asked for.
    pub msg: u32,
    /// How many bytes of body follow.
    pub len: u32,
    /// Which request it is, or belongs to; 0 if no answer is expected.
    pub sync: u32,
}

impl Header {
    /// The header of a packet whose body has `len` bytes.
    ///
    /// # Errors
    /// [`Refusal::BodyTooLong`]: `len` is above `u32::MAX`.
    pub const fn new(msg: u32, sync: u32, len: usize) -> Result<Self, Refusal> {
        if len as u64 > u32::MAX as u64 {
            return Err(Refusal::BodyTooLong { len });
        }
        Ok(Self { msg, len: len as u32, sync }) // was just compared
    }

    /// The header of a packet without a body.
    #[must_use]
    pub const fn empty(msg: u32, sync: u32) -> Self {
        Self { msg, len: 0, sync }
    }

    /// Its bytes.
    #[must_use]
    #[inline]
    pub const fn encode(self) -> [u8; HEADER_BYTES] {
        let [m0, m1, m2, m3] = self.msg.to_le_bytes();
        let [l0, l1, l2, l3] = self.len.to_le_bytes();
        let [s0, s1, s2, s3] = self.sync.to_le_bytes();
        [m0, m1, m2, m3, l0, l1, l2, l3, s0, s1, s2, s3]
    }

    /// The header with these bytes: every 12 bytes are one.
    #[must_use]
    #[inline]
    pub const fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [m0, m1, m2, m3, l0, l1, l2, l3, s0, s1, s2, s3] = *bytes;
        Self {
            msg: u32::from_le_bytes([m0, m1, m2, m3]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            sync: u32::from_le_bytes([s0, s1, s2, s3]),
        }
    }
}
