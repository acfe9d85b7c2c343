//! What a connection tells of what it read, and what is to be done.

use super::{Header, Violation};
use crate::receive::Body;

/// Something that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<B, T> {
    /// The peer asks, and waits for [`Connection::reply`](super::Connection::reply).
    Request {
        /// What is answered to.
        to: ReplyTo,
        /// Where its body lies.
        body: Body<B>,
    },
    /// The peer says something, and waits for nothing.
    Notify {
        /// What it is.
        msg: u32,
        /// Where its body lies.
        body: Body<B>,
    },
    /// The response to a call.
    Response {
        /// What the call was made with.
        token: T,
        /// Its header: msg and sync are those of the call.
        header: Header,
        /// Where its body lies.
        body: Body<B>,
    },
    /// A packet without a body is to be sent as it stands: the answer to a ping.
    Send(Header),
    /// The peer shuts down: no new calls are taken, and nothing new will come from it. Answer what
    /// is open; [`poll`](super::Connection::poll) sees to the rest.
    Shutdown,
}

/// A request that waits for its reply. It is counted, so it goes to
/// [`reply`](super::Connection::reply) or [`discard`](super::Connection::discard) of the connection
/// that gave it; dropped alone, it stays open and a shutdown waits for it in vain.
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "a request is open until it is replied to or discarded"]
pub struct ReplyTo {
    pub(super) msg: u32,
    pub(super) sync: u32,
}

impl ReplyTo {
    /// What is asked for.
    #[must_use]
    pub const fn msg(&self) -> u32 {
        self.msg
    }

    /// Which request of the peer it is; not 0.
    #[must_use]
    pub const fn sync(&self) -> u32 {
        self.sync
    }
}

/// Something to be done because of time, or because everything before it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// A packet without a body is to be sent as it stands, behind all that was given out before: a
    /// ping, or our shutdown.
    Send(Header),
    /// A call has timed out; it was made with this token.
    TimedOut(T),
    /// The connection has ended: send what is queued, unless the peer is silent, and close.
    /// [`take_call`](super::Connection::take_call) gives the calls that were left.
    Close(CloseReason),
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CloseReason {
    /// Both sides have said so and nothing is open.
    #[error("the connection was shut down in order")]
    Finished,
    /// [`Limits::shutdown_timeout_ms`](super::Limits::shutdown_timeout_ms).
    #[error("the shutdown took longer than its timeout")]
    ShutdownTimeout,
    /// [`Limits::ping_interval_ms`](super::Limits::ping_interval_ms).
    #[error("the peer has sent nothing for two ping intervals after a ping")]
    PingTimeout,
    /// [`Limits::idle_timeout_ms`](super::Limits::idle_timeout_ms).
    #[error("the peer has sent nothing for longer than the idle timeout")]
    IdleTimeout,
    /// [`Limits::packet_age_ms_max`](super::Limits::packet_age_ms_max).
    #[error("a packet took longer to arrive than the limit")]
    PacketTooOld,
    /// The peer broke a limit, as the read has said.
    #[error("{0}")]
    Failed(Violation),
    /// [`Connection::closed`](super::Connection::closed): there is nothing to send on any more.
    #[error("the connection is gone")]
    Gone,
}
