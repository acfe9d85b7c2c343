//! What a connection to another server is asked to be.

use std::future::Future;
use std::time::Duration;

use hioload_protocol::http::HeadLimits;
use hioload_protocol::http::client::{Accepted, Handshake, encode_key};

use super::connector;
use super::error::ConnectError;
use super::handle::Client;
use super::reconnect::Reconnect;
use super::url::Target;
use crate::config::Compression;

/// From the look-up of the name to the 101.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Messages and bytes that a handle keeps for its user before it stops reading.
const INBOX: (usize, usize) = (1024, 1024 * 1024);

/// A connection that is being described. Errors are kept until it is opened or checked.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// use hioload::ws::{self, Connect};
///
/// let connect = Connect::to("ws://127.0.0.1:9001/chat?room=1")
///     .header("Authorization", "Bearer abc")
///     .subprotocol("chat.v2")
///     .subprotocol("chat.v1")
///     .timeout(Duration::from_secs(3));
/// let client = ws::block_on(connect.open())?;
/// println!("they chose {:?}", client.subprotocol());
/// # Ok::<(), ws::ConnectError>(())
/// ```
#[must_use = "a description does nothing until it is opened"]
#[derive(Clone, Debug)]
pub struct Connect {
    target: Result<Target, ConnectError>,
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
    origin: Option<String>,
    timeout: Duration,
    reconnect: Option<Reconnect>,
    compression: Compression,
    inbox: (usize, usize),
}

impl Connect {
    /// To `ws://HOST[:PORT][/PATH][?QUERY]`. The host is a name, an IPv4 address or an IPv6
    /// address in brackets; the port is 80 unless it is given.
    pub fn to(url: impl AsRef<str>) -> Self {
        Self {
            target: Target::parse(url.as_ref()),
            headers: Vec::new(),
            subprotocols: Vec::new(),
            origin: None,
            timeout: TIMEOUT,
            reconnect: None,
            compression: Compression::off(),
            inbox: INBOX,
        }
    }

    /// Adds a header to the request: `Cookie`, `Authorization`. Those of the handshake are set by
    /// itself.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Offers a subprotocol; call it for each one, the best first (RFC 6455 section 1.9).
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocols.push(name.into());
        self
    }

    /// Sends an `Origin` header, as a browser does.
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// How long an attempt may take, from the look-up of the name to the end of the handshake:
    /// 10 s unless it is set. If the name has several addresses, each one gets its share.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Opens the connection again when it is lost.
    pub const fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = Some(reconnect);
        self
    }

    /// Offers permessage-deflate (RFC 7692), unless it is off, as it is by default. What
    /// [`Compression`] says of a server's sessions holds for this connection: what we send stands
    /// alone with [`no_context`](Compression::no_context) and
    /// [`shared_window`](Compression::shared_window); with `no_context` the server is asked to
    /// keep no window either. A server that does not know the extension leaves it out.
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// How much a [`Client`] keeps of what arrived and was not taken with
    /// [`next`](Client::next): when there are so many messages, or so many bytes in them, nothing
    /// more is read from the socket. 1024 messages and 1 MiB unless it is set; at least one message
    /// is kept, and what had arrived by then comes on top: at most the receive buffers of the
    /// shard.
    pub fn inbox(mut self, messages: usize, bytes: usize) -> Self {
        self.inbox = (messages.max(1), bytes.max(1));
        self
    }

    /// Checks the description without opening anything.
    ///
    /// # Errors
    /// The URL is wrong, or a header, the origin or a subprotocol cannot be sent.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.clone().plan().map(drop)
    }

    /// Connects from the background shard of this process: one thread, started by the first one
    /// who needs it, not pinned, with the default configuration. The future may run on any
    /// executor; dropping it gives up.
    ///
    /// With [`reconnect`](Self::reconnect) a first attempt that fails is followed by others too.
    ///
    /// # Errors
    /// The connection could not be opened.
    pub fn open(
        self,
    ) -> impl Future<Output = Result<Client, ConnectError>> + Send + use<> + 'static {
        connector::open_in_background(self)
    }

    pub(super) const fn reconnects(&self) -> bool {
        self.reconnect.is_some()
    }

    pub(super) const fn inbox_limits(&self) -> (usize, usize) {
        self.inbox
    }

    /// What the shard works with.
    pub(crate) fn plan(self) -> Result<Plan, ConnectError> {
        let Self { target, headers, subprotocols, origin, timeout, reconnect, compression, .. } =
            self;
        let target = target?;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        let upgrade = Some(Asked { headers, subprotocols, origin, compression });
        let plan = Plan { target, timeout_ms, reconnect, upgrade };
        plan.write_request(&encode_key([0; 16]), &mut Vec::new())?;
        Ok(plan)
    }
}

/// A description that was found good.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) timeout_ms: u64,
    pub(crate) reconnect: Option<Reconnect>,
    /// `None`: iproto, which is spoken from the first byte on.
    pub(crate) upgrade: Option<Asked>,
}

/// What the request of a WebSocket asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
    origin: Option<String>,
    compression: Compression,
}

impl Plan {
    /// Appends the request of one attempt.
    pub(crate) fn write_request(&self, key: &str, out: &mut Vec<u8>) -> Result<(), ConnectError> {
        Ok(self.with_handshake(key, |handshake| handshake.write_request(out))?)
    }

    /// Checks the head of the answer to it.
    pub(crate) fn check_response(
        &self,
        key: &str,
        head: &[u8],
        limits: &HeadLimits,
    ) -> Result<Accepted, ConnectError> {
        Ok(self.with_handshake(key, |handshake| handshake.check_response(head, limits))?)
    }

    /// The compression that was offered.
    pub(crate) fn compression(&self) -> Compression {
        self.upgrade.as_ref().map_or_else(Compression::off, |asked| asked.compression)
    }

    /// What is asked for, and what an answer is checked against.
    fn with_handshake<T>(&self, key: &str, run: impl FnOnce(&Handshake<'_>) -> T) -> T {
        let Some(asked) = &self.upgrade else {
            unreachable!("only a WebSocket begins with a request")
        };
        let subprotocols: Vec<&str> = asked.subprotocols.iter().map(String::as_str).collect();
        let headers: Vec<(&str, &str)> =
            asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        run(&Handshake {
            origin: asked.origin.as_deref(),
            subprotocols: &subprotocols,
            deflate: asked.compression.offer(),
            headers: &headers,
            ..Handshake::new(&self.target.authority, &self.target.path, key)
        })
    }
}
