//! WebSocket (RFC 6455): frames in, messages out, for servers and clients.
//!
//! What comes in: bytes as they were received, cut anywhere. What goes out: [`Event`]s, whose
//! payloads stay windows of those bytes where that is possible, and the headers of frames to
//! send. What this room must never do: touch a socket, a clock or a thread, or hold more memory
//! than the bytes that have arrived justify.
//!
//! [`Connection`] is the whole of it; [`frame`], [`mask`] and [`utf8`] are its parts, usable alone.

mod close;
mod connection;
mod error;
mod event;
pub mod frame;
mod limits;
pub mod mask;
mod overhead;
pub mod utf8;

pub use close::CloseCode;
pub use connection::{Connection, State};
pub use error::{Error, Violation};
pub use event::{Control, Event, Message};
pub use limits::{Env, Limits};

pub use crate::receive::{Body, Direct, HeapMemory, Memory};

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We accepted the connection: frames that come must be masked, ours must not be (RFC 6455
    /// section 5.1).
    Server,
    /// We opened the connection: frames that come must not be masked, ours must be.
    Client,
}

/// What a message says its payload is (RFC 6455 section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8 text; it was checked.
    Text,
    /// Bytes of any kind.
    Binary,
}

impl MessageKind {
    /// The opcode of the first frame of such a message.
    #[must_use]
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// What a frame is (RFC 6455 section 5.2). The reserved ones cannot be represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with the message that an earlier frame began.
    Continuation = 0x0,
    /// Begins a text message.
    Text = 0x1,
    /// Begins a binary message.
    Binary = 0x2,
    /// Begins or answers the closing handshake.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping, or comes unasked as a heartbeat.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode with these four bits; `None` for the reserved ones (3 to 7 and 11 to 15).
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xA => Some(Self::Pong),
            _ => None,
        }
    }

    /// Its four bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// Whether it is close, ping or pong: at most 125 bytes, never fragmented (section 5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}
