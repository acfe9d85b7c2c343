//! What a peer can do wrong, and what we refuse to send.

/// What ended the connection: the peer broke one of our [`Limits`](super::Limits), or there is no
/// memory. Every sequence of bytes is a sequence of packets, so nothing else can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// [`Limits::body_bytes_max`](super::Limits::body_bytes_max), seen in the header.
    #[error("a packet with a body of {len} bytes came, above the limit of {limit}")]
    BodyTooBig {
        /// What the header announced.
        len: u32,
        /// What is allowed.
        limit: usize,
    },
    /// [`Limits::requests_max`](super::Limits::requests_max).
    #[error("the peer has more than {limit} requests open that were not answered yet")]
    TooManyRequests {
        /// What is allowed.
        limit: u32,
    },
    /// Not the peer's doing: [`Memory`](super::Memory) refused what this packet needs.
    #[error("there is no memory left to receive into")]
    OutOfMemory,
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The connection shuts down, or has ended: it takes no new calls.
    #[error("the connection shuts down and takes no new calls; use another one")]
    Stopped,
    /// [`Limits::calls_max`](super::Limits::calls_max).
    #[error("{limit} calls wait for their responses, which is the limit; wait for one of them")]
    TooManyCalls {
        /// What is allowed.
        limit: u32,
    },
    /// The length of a body is a `u32` on the wire.
    #[error("a body of {len} bytes does not fit a packet, which takes 4294967295 bytes at most")]
    BodyTooLong {
        /// What was to be sent.
        len: usize,
    },
    /// [`PING`](super::PING) and [`SHUTDOWN`](super::SHUTDOWN) are the connection's own: a ping
    /// that it knows nothing of could be answered without end.
    #[error("{msg:#x} is sent by the connection itself; use a code below 0xff00")]
    ControlCode {
        /// The code.
        msg: u32,
    },
}

/// What was not sent, and is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused<T> {
    /// Why.
    pub why: Refusal,
    /// What the call or reply was made with.
    pub token: T,
}
