//! Shards that connect and listen to nobody.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::bridge::Bridge;
use super::connect::Connect;
use super::error::ConnectError;
use super::handle::Client;
use super::pipe::Pipe;
use crate::config::Config;
use crate::server::{StartError, start_lone};
use crate::shard::{Letter, Order, ShardHandle};

/// A shard of its own for connections to other servers, with its own configuration, reactor and
/// thread (which is not pinned).
///
/// [`Connect::open`] needs none of it: this is for other limits than the defaults, or for more than
/// one thread. Of the configuration `server.reactor`, `server.uring_tier`, `server.spin_us`, `limits`,
/// `memory`, `uring`, `websocket`, `iproto` and `shutdown` count. Dropping it closes its connections with 1001
/// and lets the thread end by itself; [`stop`](Self::stop) waits for that.
///
/// # Examples
/// ```
/// use hioload::config::{Config, ReactorChoice};
/// use hioload::ws::{self, Connect, Connector};
///
/// let mut config = Config::default();
/// config.server.reactor = ReactorChoice::Epoll;
/// config.websocket.message_bytes_max = 4 << 20;
/// let connector = Connector::start(config)?;
/// // Nobody listens on port 1.
/// let refused = ws::block_on(connector.open(Connect::to("ws://127.0.0.1:1/")));
/// assert!(refused.is_err());
/// connector.stop()?;
/// # Ok::<(), hioload::StartError>(())
/// ```
#[derive(Debug)]
pub struct Connector {
    shard: ShardHandle,
    thread: Option<JoinHandle<Result<(), String>>>,
    drain_ms: u64,
}

impl Connector {
    /// Starts the shard.
    ///
    /// # Errors
    /// The configuration is wrong, or the shard has no reactor, no memory or no thread.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let drain_ms = config.shutdown.drain_ms;
        let (shard, thread) = start_lone(config)?;
        Ok(Self { shard, thread: Some(thread), drain_ms })
    }

    /// Connects. See [`Connect::open`].
    ///
    /// # Errors
    /// The connection could not be opened.
    pub fn open(
        &self,
        connect: Connect,
    ) -> impl Future<Output = Result<Client, ConnectError>> + Send + use<> + 'static {
        open_on(self.shard.clone(), connect)
    }

    /// The way to its shard, for instance for [callbacks](crate::Shard::connect).
    #[must_use]
    pub fn handle(&self) -> ShardHandle {
        self.shard.clone()
    }

    /// Closes every connection with 1001, those of dropped handles after all that was accepted to be
    /// sent, and returns when all are gone or `shutdown.drain_ms` is over.
    ///
    /// # Errors
    /// The shard had ended by itself, and why.
    pub fn stop(mut self) -> Result<(), StartError> {
        self.ask_to_drain();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let reason = match thread.join() {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(_) => "its thread panicked, which is a bug of hioload".to_owned(),
        };
        Err(StartError::Ended { shard: 0, reason })
    }

    fn ask_to_drain(&self) {
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        // A full mailbox empties in a turn; a shard that ended takes nothing and needs nothing.
        while self.shard.post(Letter::Drain { timeout_ms: self.drain_ms }).is_err() && !ended() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.ask_to_drain();
        }
    }
}

/// The background shard of the process, once somebody needed it.
static BACKGROUND: Mutex<Option<ShardHandle>> = Mutex::new(None);

pub(crate) fn background() -> Result<ShardHandle, ConnectError> {
    let mut shard = BACKGROUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shard) = shard.as_ref().filter(|shard| !shard.has_ended()) {
        return Ok(shard.clone());
    }
    let failed = |error: StartError| ConnectError::Start { reason: error.to_string().into() };
    // Its thread ends with the process.
    let (handle, _) = start_lone(Config::default()).map_err(failed)?;
    *shard = Some(handle.clone());
    Ok(handle)
}

pub(super) async fn open_in_background(connect: Connect) -> Result<Client, ConnectError> {
    connect.check()?;
    open_on(background()?, connect).await
}

/// Connects on a shard, from wherever the future runs.
pub(crate) async fn open_on(shard: ShardHandle, connect: Connect) -> Result<Client, ConnectError> {
    let pipe = Arc::new(Pipe::new(connect.inbox_limits()));
    let bridge = Bridge::new(Arc::clone(&pipe), &connect);
    // Whatever becomes of this future, the end of the handle is the end of the connection.
    let client = Client::new(pipe);
    shard.order(Order::Run(Box::new(move |shard| bridge.begin(shard, connect))));
    client.opened().await?;
    Ok(client)
}
