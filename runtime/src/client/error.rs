//! Why a connection did not open, and why it ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hioload_protocol::http::InvalidHeader;
use hioload_protocol::http::client::ResponseError;

use crate::shard::Closed;

/// Why a connection could not be opened. Each is one sentence that says what was tried, why it
/// failed and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is wrong.
    #[error("the URL `{url}` {problem}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The address of an iproto server is wrong.
    #[error("the address `{address}` {problem}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The URL asks for TLS.
    #[error("the URL `{url}` asks for TLS, which is not built in yet: use ws://")]
    TlsMissing {
        /// As it was given.
        url: String,
    },
    /// A header, the origin or a subprotocol cannot be sent.
    #[error("the request cannot be sent: {problem}")]
    Request {
        /// What is wrong with it.
        problem: String,
    },
    /// The host's name was not found.
    #[error("cannot look up `{host}`: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's answer.
        source: Arc<io::Error>,
    },
    /// The connection could not be made, or broke before the server had answered.
    #[error("cannot connect to {address}: {source}")]
    Io {
        /// The address that was tried last.
        address: SocketAddr,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// It took too long, from the look-up of the name to the end of the handshake.
    #[error("no connection within {} ms", after.as_millis())]
    Timeout {
        /// The time that was given.
        after: Duration,
    },
    /// The server answered with another HTTP status than 101: a redirect, 401, 404, ...
    #[error("the server answered {0} instead of 101")]
    Status(u16),
    /// The server's answer breaks RFC 6455 section 4.2.2, or is larger than the limits.
    #[error("{0}")]
    Response(ResponseError),
    /// The server closed the connection without an answer.
    #[error("the server {address} closed the connection without an answer")]
    Dropped {
        /// The server's address.
        address: SocketAddr,
    },
    /// The set-up of an iproto connection failed: its [init](crate::iproto::Connect::init) did.
    #[error("the set-up of the connection failed: {reason}")]
    SetUp {
        /// What the init says, or how it ended otherwise.
        reason: Arc<str>,
    },
    /// The shard has no room: `limits.connections_max` connections, or no memory.
    #[error("the shard has no room for another connection: {problem}")]
    Full {
        /// What it has none of.
        problem: &'static str,
    },
    /// The shard that was to connect shuts down or has ended.
    #[error("not connected: the shard that was to do it shuts down")]
    Stopped,
    /// The background shard could not be started.
    #[error("the background shard for connections could not be started: {reason}")]
    Start {
        /// Why, and what to do.
        reason: Arc<str>,
    },
}

impl ConnectError {
    /// Whether trying again later may help: the network, the look-up, time, the set-up of an iproto
    /// connection, and the HTTP statuses 408, 429 and 5xx; not a wrong URL, nor an answer that will be
    /// the same again. A connection that is to [reconnect](super::Reconnect) is given up after an
    /// error that is not temporary.
    ///
    /// # Examples
    /// ```
    /// use hioload::ws::ConnectError;
    ///
    /// assert!(ConnectError::Status(503).is_temporary());
    /// assert!(!ConnectError::Status(403).is_temporary());
    /// ```
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Status(status) => matches!(status, 408 | 429 | 500..=599),
            Self::Resolve { .. } | Self::Io { .. } | Self::Timeout { .. } => true,
            Self::Dropped { .. } | Self::Full { .. } | Self::SetUp { .. } => true,
            Self::Url { .. } | Self::Address { .. } | Self::TlsMissing { .. } => false,
            Self::Request { .. } | Self::Response(_) | Self::Stopped | Self::Start { .. } => false,
        }
    }

    pub(crate) fn io(address: SocketAddr, source: io::Error) -> Self {
        Self::Io { address, source: Arc::new(source) }
    }
}

impl From<InvalidHeader> for ConnectError {
    fn from(error: InvalidHeader) -> Self {
        Self::Request { problem: error.to_string() }
    }
}

impl From<ResponseError> for ConnectError {
    fn from(error: ResponseError) -> Self {
        match error {
            ResponseError::Status(status) => Self::Status(status),
            other => Self::Response(other),
        }
    }
}

/// Why a message was not taken by a [`Client`](super::Client).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is closing or has ended, and will not be opened again.
    #[error("not sent: the connection is closed")]
    Closed,
    /// No outbox of this shard can take it: raise `websocket.outbox_max_bytes`.
    #[error(
        "not sent: {len} bytes are more than an outbox takes ({max}): raise \
         websocket.outbox_max_bytes"
    )]
    TooLarge {
        /// Of the message, in bytes.
        len: usize,
        /// The most that can be sent.
        max: usize,
    },
}

/// Why the messages of a [`Client`](super::Client) end, if no closing handshake ended them.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The connection broke, the server was silent for too long, or broke the protocol.
    #[error("the connection ended without a closing handshake ({0:?})")]
    Ended(Closed),
    /// It was to be opened again, and could not be.
    #[error("the connection was lost, and could not be opened again: {0}")]
    GaveUp(#[source] ConnectError),
}
