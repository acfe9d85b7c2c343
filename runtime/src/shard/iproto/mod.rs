//! iproto on a shard: connections that carry requests both ways.
//!
//! Comes in: received bytes, replies that come later or from elsewhere, the time. Goes out: calls
//! of an [`IprotoHandler`], and packets in the outbox. The rules of the protocol are in the state
//! machine of the protocol crate; here it meets leases, the outbox and the timer of the connection.

mod body;
mod client;
mod error;
mod handler;
mod hijack;
mod late;
mod mux;
mod response;
mod route;
mod send;
mod session;

use std::fmt;
use std::rc::Rc;

use hioload_pools::Lease;
use hioload_protocol::iproto::{Connection, Limits};

pub use body::{Body, Payload};
pub use client::IprotoClientHandler;
pub use error::CallError;
pub use handler::{Handler as IprotoHandler, IprotoClosed, IprotoPeer, IprotoRequest};
pub use hijack::Hijacked;
pub use late::{RemoteReply, Reply};
pub use mux::Mux;
pub use response::Response;
pub use session::{Call, IprotoSession};

pub(crate) use client::IprotoDialled;
pub(crate) use late::{Answer, Late, LateQueue};
pub(crate) use route::IprotoRoute;

use hijack::Hijack;
use response::Slot;

/// Who waits for the response to a call.
pub(crate) enum Caller {
    /// The handler, by this token.
    Handler(u64),
    /// A future on this shard.
    Future(Rc<Slot>),
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(token) => f.debug_tuple("Handler").field(token).finish(),
            Self::Future(_) => f.write_str("Future"),
        }
    }
}

/// What a connection that speaks iproto is, beside its entry.
#[derive(Debug)]
pub(crate) struct Iproto {
    pub(super) connection: Connection<Lease, Caller>,
    /// When the timer of the connection fires.
    armed_ms: u64,
    /// Somebody takes its socket.
    hijack: Option<Box<Hijack>>,
}

impl Iproto {
    /// What each connection takes beside its entry, in bytes.
    pub(crate) const BYTES: usize = size_of::<Self>();

    const fn new(now_ms: u64) -> Self {
        Self { connection: Connection::new(now_ms), armed_ms: u64::MAX, hijack: None }
    }

    /// When it must be polled if nothing happens before.
    pub(super) fn deadline_ms(&self, limits: &Limits) -> Option<u64> {
        self.connection.next_deadline_ms(limits)
    }

    /// The timer was set.
    pub(super) fn armed(&mut self, tick: Option<u64>) {
        self.armed_ms = tick.unwrap_or(u64::MAX);
    }

    /// Whether the timer would fire too late.
    fn is_overslept(&self, limits: &Limits) -> bool {
        self.deadline_ms(limits).is_some_and(|deadline| deadline < self.armed_ms)
    }
}
