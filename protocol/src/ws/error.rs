//! What a peer can do wrong, and the close code that answers it.

use super::CloseCode;

/// The connection has failed: send a close frame with `code`, then close (RFC 6455 section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{violation} (close code {})", code.get())]
pub struct Error {
    /// The code for our close frame.
    pub code: CloseCode,
    /// What was violated.
    pub violation: Violation,
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self { code: violation.code(), violation }
    }
}

/// What was violated: a MUST of RFC 6455, or one of our limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// Section 5.2: RSV1, RSV2 and RSV3 are 0 unless an extension gave them a meaning.
    #[error("a reserved bit of the frame header is set, but no extension gave it a meaning")]
    ReservedBits,
    /// Section 5.2: opcodes 3 to 7 and 11 to 15 are reserved.
    #[error("the opcode of the frame is reserved")]
    ReservedOpcode,
    /// Section 5.5: control frames must not be fragmented.
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// Section 5.5: control frames have at most 125 bytes.
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// Section 5.1: a client masks every frame.
    #[error("a frame from a client is not masked")]
    ClientFrameUnmasked,
    /// Section 5.1: a server masks no frame.
    #[error("a frame from a server is masked")]
    ServerFrameMasked,
    /// Section 5.2: the shortest possible encoding of the length must be used.
    #[error("the length of the frame is not encoded in the fewest bytes")]
    LengthNotMinimal,
    /// Section 5.2: the most significant bit of a 64-bit length is 0.
    #[error("the top bit of the 64-bit frame length is set")]
    LengthTopBit,
    /// Section 5.4: a continuation needs a message to continue.
    #[error("a continuation frame came, but no message was begun")]
    ContinuationWithoutStart,
    /// Section 5.4: the fragments of two messages must not be interleaved.
    #[error("a new message began before the last one ended")]
    MessageInsideMessage,
    /// Section 8.1: text is UTF-8.
    #[error("the text is not UTF-8")]
    TextNotUtf8,
    /// Section 5.5.1: the body of a close frame is empty or begins with two bytes of code.
    #[error("the body of the close frame is one byte long")]
    CloseBodyOneByte,
    /// Section 7.4: the code may not be sent in a close frame.
    #[error("the code of the close frame is not one that may be sent")]
    CloseCodeInvalid,
    /// Section 5.5.1: the reason of a close frame is UTF-8.
    #[error("the reason of the close frame is not UTF-8")]
    CloseReasonNotUtf8,
    /// [`Limits::message_bytes_max`](super::Limits::message_bytes_max), seen in the frame header.
    #[error("the message is larger than the limit")]
    MessageTooBig,
    /// [`Limits::fragments_max`](super::Limits::fragments_max).
    #[error("the message has more fragments than the limit")]
    TooManyFragments,
    /// [`Limits::message_age_ms_max`](super::Limits::message_age_ms_max).
    #[error("the message took longer to arrive than the limit")]
    MessageTooOld,
    /// [`Limits::overhead_budget_bytes`](super::Limits::overhead_budget_bytes); or a compressed
    /// message of little more than ends of blocks.
    #[error("too many control frames, fragments or final blocks for the data they came with")]
    OverheadExhausted,
    /// RFC 7692 section 7.2.2: the payload of a compressed message is DEFLATE, and all of it.
    #[error("the compressed message cannot be decompressed")]
    NotDeflate,
    /// Not the peer's doing: [`Memory`](super::Memory) refused what this message needs.
    #[error("there is no memory left to receive into")]
    OutOfMemory,
}

impl Violation {
    /// The close code that answers it (RFC 6455 section 7.4.1).
    #[must_use]
    pub const fn code(self) -> CloseCode {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::ClientFrameUnmasked
            | Self::ServerFrameMasked
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::ContinuationWithoutStart
            | Self::MessageInsideMessage
            | Self::CloseBodyOneByte
            | Self::CloseCodeInvalid => CloseCode::PROTOCOL_ERROR,
            Self::TextNotUtf8 | Self::CloseReasonNotUtf8 | Self::NotDeflate => {
                CloseCode::INVALID_PAYLOAD
            }
            Self::MessageTooBig => CloseCode::TOO_BIG,
            Self::TooManyFragments | Self::MessageTooOld | Self::OverheadExhausted => {
                CloseCode::POLICY
            }
            Self::OutOfMemory => CloseCode::TRY_AGAIN,
        }
    }
}
