//! Frame headers (RFC 6455 section 5.2): read and written, nothing else.

use alloc::vec::Vec;

use super::{CloseCode, MessageKind, Opcode, Role, Violation};

/// The longest header: two bytes, a 64-bit length, a masking key.
pub const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame (section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// The longest reason of a close frame: what its code leaves of 125 bytes.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
const MASKED: u8 = 0x80;
/// In the seven bits of the length: sixteen or sixty-four bits of length follow.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether this is the last frame of its message.
    pub fin: bool,
    /// Reserved for extensions.
    pub rsv1: bool,
    /// Reserved for extensions.
    pub rsv2: bool,
    /// Reserved for extensions.
    pub rsv3: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key, if the payload is masked.
    pub mask: Option<[u8; 4]>,
    /// The length of the payload in bytes; the top bit is 0.
    pub len: u64,
}

impl Header {
    /// The header of a frame without reserved bits and with a payload of `len` bytes.
    #[must_use]
    pub const fn new(fin: bool, opcode: Opcode, mask: Option<[u8; 4]>, len: u64) -> Self {
        Self { fin, rsv1: false, rsv2: false, rsv3: false, opcode, mask, len }
    }

    /// The header that `frame` is sent with; a client gives a new random `mask` for each frame.
    #[must_use]
    pub fn of(frame: &(impl WebSocketFrame + ?Sized), mask: Option<[u8; 4]>) -> Self {
        Self::new(frame.fin(), frame.opcode(), mask, frame.payload().len() as u64)
    }

    /// How many bytes [`encode`](Self::encode) writes: 2 to 14.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        let length = match self.len {
            0..=125 => 2,
            126..=0xFFFF => 4,
            _ => 10,
        };
        if self.mask.is_some() { length + 4 } else { length }
    }

    /// Writes the header to the front of `out` and returns its length, 2 to 14 bytes.
    ///
    /// ```
    /// use hioload_protocol::ws::Opcode;
    /// use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
    ///
    /// let mut out = [0; HEADER_BYTES_MAX];
    /// let len = Header::new(true, Opcode::Binary, None, 256).encode(&mut out);
    /// assert_eq!(out[..len], [0x82, 0x7E, 0x01, 0x00]); // RFC 6455 section 5.7
    /// ```
    #[inline]
    pub fn encode(&self, out: &mut [u8; HEADER_BYTES_MAX]) -> usize {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        out[0] = bit(self.fin, FIN)
            | bit(self.rsv1, RSV1)
            | bit(self.rsv2, RSV2)
            | bit(self.rsv3, RSV3)
            | self.opcode.bits();
        let masked = bit(self.mask.is_some(), MASKED);
        let len = match self.len {
            short @ 0..=125 => {
                out[1] = masked | short as u8;
                2
            }
            medium @ 126..=0xFFFF => {
                out[1] = masked | LENGTH_16;
                out[2..4].copy_from_slice(&(medium as u16).to_be_bytes());
                4
            }
            long => {
                out[1] = masked | LENGTH_64;
                out[2..10].copy_from_slice(&long.to_be_bytes());
                10
            }
        };
        let Some(key) = self.mask else { return len };
        out[len..len + 4].copy_from_slice(&key);
        len + 4
    }

    /// Reads the header at the front of `bytes`, and its length in bytes. `Ok(None)`: it is not
    /// whole yet. Reserved bits and the masking are left to the caller to judge, because they
    /// depend on what was negotiated and on who sends.
    ///
    /// # Errors
    /// What came cannot be the beginning of a header: a reserved opcode, a control frame that is
    /// fragmented or longer than 125 bytes, a length with the top bit set or in more bytes than it
    /// needs. Found with the first byte that shows it.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        decode(bytes, None)
    }
}

/// Who receives a frame, and what was negotiated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    pub(super) role: Role,
    /// Whether RSV1 may mark the first frame of a message as compressed (RFC 7692 section 6).
    pub(super) deflate: bool,
}

/// [`Header::decode`], and if `receiver` is given also what that side must refuse. The checks are
/// in the order of the bytes, so that a header gives the same violation however it was cut.
#[inline]
pub(super) fn decode(
    bytes: &[u8],
    receiver: Option<Receiver>,
) -> Result<Option<(Header, usize)>, Violation> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let reserved = first & (RSV1 | RSV2 | RSV3);
    if let Some(Receiver { deflate, .. }) = receiver
        && reserved != 0
    {
        // RFC 7692 section 6: not on control frames, nor on the later frames of a message.
        let begins = matches!(first & 0x0F, 0x1 | 0x2);
        if reserved != RSV1 || !deflate || !begins {
            return Err(Violation::ReservedBits);
        }
    }
    let fin = first & FIN != 0;
    let opcode = Opcode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }

    let Some(&second) = bytes.get(1) else { return Ok(None) };
    let masked = second & MASKED != 0;
    match receiver.map(|receiver| receiver.role) {
        Some(Role::Server) if !masked => return Err(Violation::ClientFrameUnmasked),
        Some(Role::Client) if masked => return Err(Violation::ServerFrameMasked),
        _ => {}
    }
    let short = second & !MASKED;
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Violation::ControlTooLong);
    }
    let Some((len, mut end)) = decode_length(short, &bytes[2..])? else { return Ok(None) };

    let mut mask = None;
    if masked {
        let Some((&key, _)) = bytes[end..].split_first_chunk::<4>() else { return Ok(None) };
        mask = Some(key);
        end += 4;
    }
    let header = Header {
        fin,
        rsv1: first & RSV1 != 0,
        rsv2: first & RSV2 != 0,
        rsv3: first & RSV3 != 0,
        opcode,
        mask,
        len,
    };
    Ok(Some((header, end)))
}

/// The header of the usual frame: a whole uncompressed message of at most 125 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short {
    pub(super) kind: MessageKind,
    /// Zeros if it is not masked.
    pub(super) key: [u8; 4],
    /// How long the header is.
    pub(super) header_len: usize,
    /// How long the payload is.
    pub(super) len: usize,
}

/// Reads a header that is as short as those of most messages, and masked as `role` wants what it
/// receives. `None`: it is another one, or not whole, and [`decode`] has to say what it is.
#[inline]
pub(super) fn decode_short(bytes: &[u8], role: Role) -> Option<Short> {
    let &[first, second, ..] = bytes else { return None };
    let kind = match first ^ FIN {
        0x1 => MessageKind::Text,
        0x2 => MessageKind::Binary,
        _ => return None,
    };
    let (len, key, header_len) = match role {
        Role::Server => (second ^ MASKED, *bytes[2..].first_chunk()?, 6),
        Role::Client => (second, [0; 4], 2),
    };
    let len = usize::from(len);
    (len <= CONTROL_BYTES_MAX).then_some(Short { kind, key, header_len, len })
}

/// The length of the payload, and where in the header it ends. `short` is its seven bits, `bytes`
/// what follows them.
#[inline]
fn decode_length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    match short {
        LENGTH_16 => {
            let Some((&len, _)) = bytes.split_first_chunk() else { return Ok(None) };
            let len = u16::from_be_bytes(len);
            if len < u16::from(LENGTH_16) {
                return Err(Violation::LengthNotMinimal);
            }
            Ok(Some((u64::from(len), 4)))
        }
        LENGTH_64 => {
            if bytes.first().is_some_and(|top| top & 0x80 != 0) {
                return Err(Violation::LengthTopBit);
            }
            let Some((&len, _)) = bytes.split_first_chunk() else { return Ok(None) };
            let len = u64::from_be_bytes(len);
            if len <= u64::from(u16::MAX) {
                return Err(Violation::LengthNotMinimal);
            }
            Ok(Some((len, 10)))
        }
        _ => Ok(Some((u64::from(short), 2))),
    }
}

/// Writes the payload of a close frame to the front of `out` and returns its length, 2 to 125
/// bytes (section 5.5.1). A reason longer than 123 bytes is cut at the end of a character.
///
/// ```
/// use hioload_protocol::ws::CloseCode;
/// use hioload_protocol::ws::frame::encode_close;
///
/// let mut out = [0; 125];
/// let len = encode_close(CloseCode::GOING_AWAY, "restart", &mut out);
/// assert_eq!(&out[..len], b"\x03\xe9restart");
/// ```
pub fn encode_close(code: CloseCode, reason: &str, out: &mut [u8; CONTROL_BYTES_MAX]) -> usize {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    let len = 2 + reason.len();
    out[..2].copy_from_slice(&code.get().to_be_bytes());
    out[2..len].copy_from_slice(reason.as_bytes());
    len
}

/// A frame to be sent: all that its header is made of, and the payload it goes in front of.
pub trait WebSocketFrame {
    /// Whether it is the last frame of its message.
    fn fin(&self) -> bool;
    /// What it is.
    fn opcode(&self) -> Opcode;
    /// Its payload, not masked.
    fn payload(&self) -> &[u8];
}

/// A [`WebSocketFrame`] for tests: three plain fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeFrame {
    /// What [`WebSocketFrame::fin`] answers.
    pub fin: bool,
    /// What [`WebSocketFrame::opcode`] answers.
    pub opcode: Opcode,
    /// What [`WebSocketFrame::payload`] answers.
    pub payload: Vec<u8>,
}

impl WebSocketFrame for FakeFrame {
    fn fin(&self) -> bool {
        self.fin
    }

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }
}
