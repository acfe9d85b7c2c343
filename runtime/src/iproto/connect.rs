//! What a connection to an iproto server is asked to be.

use std::future::Future;
use std::time::Duration;

use super::channel::{self, Channel};
use crate::ws::{ConnectError, Connector, Plan, Reconnect, Target};

/// From the look-up of the name to the TCP connection.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to an iproto server that is being described. Errors are kept until it is opened or
/// checked.
///
/// # Examples
/// ```no_run
/// use hioload::iproto::Connect;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// hioload::ws::block_on(async {
///     let channel = Connect::to("127.0.0.1:3301").open().await?;
///     // Both are on their way at once.
///     let (one, two) = (channel.call(1, "one"), channel.call(1, "two"));
///     println!("{:?} {:?}", one.await?, two.await?);
///     Ok(())
/// })
/// # }
/// ```
#[must_use = "a description does nothing until it is opened"]
#[derive(Clone, Debug)]
pub struct Connect {
    target: Result<Target, ConnectError>,
    timeout: Duration,
    reconnect: Option<Reconnect>,
}

impl Connect {
    /// To `HOST:PORT`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
    pub fn to(address: impl AsRef<str>) -> Self {
        let target = Target::parse_address(address.as_ref());
        Self { target, timeout: TIMEOUT, reconnect: None }
    }

    /// How long an attempt may take: 1 s unless it is set. If the name has several addresses, each
    /// one gets its share.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Opens the connection again when it is lost, or was shut down by the server.
    pub const fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = Some(reconnect);
        self
    }

    /// Checks the description without opening anything.
    ///
    /// # Errors
    /// The address is wrong.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.clone().plan().map(drop)
    }

    /// Connects from the background shard of this process: see
    /// [`ws::Connect::open`](crate::ws::Connect::open).
    ///
    /// # Errors
    /// The connection could not be opened.
    pub fn open(self) -> impl Future<Output = Result<Channel, ConnectError>> + Send + use<> {
        channel::open_in_background(self)
    }

    /// Connects from the shard of a connector, with its configuration.
    ///
    /// # Errors
    /// The connection could not be opened.
    pub fn open_on(
        self,
        connector: &Connector,
    ) -> impl Future<Output = Result<Channel, ConnectError>> + Send + use<> {
        channel::open_on(connector.handle(), self)
    }

    pub(super) const fn reconnects(&self) -> bool {
        self.reconnect.is_some()
    }

    pub(crate) fn plan(self) -> Result<Plan, ConnectError> {
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        let (target, reconnect) = (self.target?, self.reconnect);
        Ok(Plan { target, timeout_ms, reconnect, upgrade: None })
    }
}
