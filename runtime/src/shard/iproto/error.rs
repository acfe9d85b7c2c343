//! Why a call has no response.

use hioload_protocol::iproto::Refusal;

/// Why a call was not made, or has no response. Each is one sentence that says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The response did not come in time. Whether the peer acted on the call is not known.
    #[error("no response came in time; whether the peer acted on the call is not known")]
    Timeout,
    /// The connection ended before the response. Whether the peer acted on the call is not known.
    #[error("the connection ended before the response; whether the peer acted is not known")]
    Dropped,
    /// The connection shuts down, or has ended: it takes no new calls.
    #[error("not sent: the connection shuts down or has ended; use another one")]
    Stopped,
    /// The connection was taken away ([`Channel::hijack`](crate::iproto::Channel::hijack)). Whether
    /// the peer acted on a call that was made before is not known.
    #[error("the connection was hijacked; whether the peer acted on a call is not known")]
    Hijacked,
    /// There is no connection at the moment: it is being opened again.
    #[error("not sent: there is no connection at the moment; try again later")]
    NoChannel,
    /// No connection of the pool is open, and it is not to wait for one: see
    /// [`PoolBuilder::fail_on_cutoff`](crate::iproto::PoolBuilder::fail_on_cutoff).
    #[error("not sent: no connection of the pool is open; try again later")]
    Cutoff,
    /// The pool makes no more calls at the moment: see
    /// [`PoolBuilder::rate_limit`](crate::iproto::PoolBuilder::rate_limit).
    #[error("not sent: there are more calls than the rate limit of the pool allows")]
    Policed,
    /// As much waits for a connection of the pool, or for its rate limit, as may: see
    /// [`PoolBuilder::waiting_max`](crate::iproto::PoolBuilder::waiting_max).
    #[error("not sent: {limit} calls wait for the pool; ask less of it, or raise its waiting_max")]
    PoolFull {
        /// What is allowed.
        limit: usize,
    },
    /// As many calls wait as `iproto.calls_max` allows.
    #[error("not sent: {limit} calls wait for their responses; raise iproto.calls_max")]
    TooManyCalls {
        /// What is allowed.
        limit: u32,
    },
    /// The length of a body is a `u32` on the wire.
    #[error("not sent: a body of {len} bytes does not fit a packet")]
    BodyTooLong {
        /// What was to be sent.
        len: usize,
    },
    /// Pings and shutdowns are the connection's own.
    #[error("not sent: {msg:#x} is sent by the connection itself; use a code below 0xff00")]
    ControlCode {
        /// The code.
        msg: u32,
    },
    /// The peer reads too slowly, or there is no memory for it.
    #[error("not sent: the peer reads too slowly, or there is no memory; try again later")]
    Full,
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Stopped => Self::Stopped,
            Refusal::TooManyCalls { limit } => Self::TooManyCalls { limit },
            Refusal::BodyTooLong { len } => Self::BodyTooLong { len },
            Refusal::ControlCode { msg } => Self::ControlCode { msg },
        }
    }
}
