//! What a connection to an iproto server is asked to be.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::callbacks::{Callbacks, SettingUp};
use super::channel::{self, Channel};
use super::{Body, FreshChannel, Request};
use crate::shard::Shard;
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
    callbacks: Callbacks,
}

impl Connect {
    /// To `HOST:PORT`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
    pub fn to(address: impl AsRef<str>) -> Self {
        let target = Target::parse_address(address.as_ref());
        Self { target, timeout: TIMEOUT, reconnect: None, callbacks: Callbacks::default() }
    }

    /// How long an attempt may take: 1 s unless it is set. If the name has several addresses, each
    /// one gets its share. An [`init`](Self::init) has the same time for itself.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Opens the connection again when it is lost, or was shut down by the server.
    pub const fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = Some(reconnect);
        self
    }

    /// Serves what the server asks: the function is called for each request, on the thread of the
    /// shard, where it must not wait. It answers at once ([`Reply::send`](super::Reply::send)),
    /// later, or from another thread ([`Reply::into_remote`](super::Reply::into_remote)); a reply
    /// that is dropped answers with an error, as a server's does. Without this function requests
    /// are not answered, and counted as `unsolicited`.
    ///
    /// It is for a [`Channel`] or a pool; a [`ClientHandler`](super::ClientHandler) has methods of
    /// its own for this. It is called from the first byte on, during the [`init`](Self::init) too, and
    /// until the server has said that it asks no more, also while the channel shuts down. A panic in
    /// it costs the connection. A clone of the channel in it keeps the connection open.
    ///
    /// On the wire a response that comes so late that its call was forgotten (`iproto.late_max`,
    /// `iproto.late_ms`) is a request, and is handed to this function as one. A server takes the
    /// answer to it for a request in turn: answer the codes that the server does ask for, and
    /// [discard](super::Reply::discard) the replies to others.
    ///
    /// Both sides number what they ask from 1 on, and a request with the code and the number of a call
    /// of ours that waits is taken for the response to it: nothing on the wire tells them apart. So
    /// the codes that the server asks for are to be others than those that it is asked for.
    ///
    /// # Examples
    /// ```
    /// use hioload::iproto::Connect;
    ///
    /// let connect = Connect::to("127.0.0.1:3301").on_request(|shard, request| match request.msg {
    ///     1 => request.reply.send(shard, request.body), // echo
    ///     2 => {
    ///         let (reply, body) = (request.reply.into_remote(shard), request.body.to_bytes());
    ///         std::thread::spawn(move || reply.send(body.to_ascii_uppercase()));
    ///     }
    ///     _ => request.reply.discard(), // dropped it would answer with an error
    /// });
    /// # connect.check()?;
    /// # Ok::<(), hioload::iproto::ConnectError>(())
    /// ```
    pub fn on_request(
        mut self,
        serve: impl Fn(&mut Shard, Request) + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.request = Some(Arc::new(serve));
        self
    }

    /// Hears what the server says without wanting an answer: the function is called with the code
    /// and the body of each notify. What is said of [`on_request`](Self::on_request) holds for it too.
    ///
    /// # Examples
    /// ```
    /// use hioload::iproto::Connect;
    ///
    /// let connect = Connect::to("127.0.0.1:3301")
    ///     .on_notify(|_shard, msg, body| println!("{msg}: {} bytes", body.len()));
    /// # connect.check()?;
    /// # Ok::<(), hioload::iproto::ConnectError>(())
    /// ```
    pub fn on_notify(
        mut self,
        hear: impl Fn(&mut Shard, u32, Body) + Send + Sync + 'static,
    ) -> Self {
        self.callbacks.notify = Some(Arc::new(hear));
        self
    }

    /// Sets each new connection up before anybody else may use it, for instance with a call that
    /// authenticates: also those that are opened again, and all those of a pool. Until the future
    /// has ended the calls of others fail with [`CallError::NoChannel`](super::CallError::NoChannel),
    /// or wait if they are a pool's. It runs on the shard and need not be `Send`; the function is
    /// called on the shard's thread, and must not wait.
    ///
    /// If it ends with an error, panics, or takes longer than [`timeout`](Self::timeout), or if the
    /// connection ends meanwhile, the connection is closed, and that is an attempt that failed: with
    /// [`ConnectError::SetUp`] and the reason, and with a further attempt, after the wait that is its
    /// turn, as [`reconnect`](Self::reconnect) says. Whatever the reason was, it counts as one that
    /// may pass.
    ///
    /// It is for a [`Channel`] or a pool; a [`ClientHandler`](super::ClientHandler) makes its calls
    /// when it is told that the connection is open, and connecting it with an `init` fails.
    ///
    /// # Examples
    /// ```no_run
    /// use hioload::iproto::{Channel, Connect};
    ///
    /// # async fn example() -> Result<Channel, hioload::iproto::ConnectError> {
    /// let connect = Connect::to("127.0.0.1:3301").init(|fresh| async move {
    ///     let answer = fresh.call(1, "the token").await.map_err(|error| error.to_string())?;
    ///     if answer == "welcome" { Ok(()) } else { Err("the token was refused".to_owned()) }
    /// });
    /// let channel = connect.open().await?; // authenticated
    /// # Ok(channel)
    /// # }
    /// ```
    pub fn init<F, Fut, E>(mut self, init: F) -> Self
    where
        F: Fn(FreshChannel) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: Display + 'static,
    {
        let begin = move |fresh: FreshChannel| -> SettingUp {
            let setting_up = init(fresh);
            let told = |error: E| Arc::<str>::from(error.to_string());
            Box::pin(async move { setting_up.await.map_err(told) })
        };
        self.callbacks.init = Some(Arc::new(begin));
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

    pub(super) fn callbacks(&self) -> (Callbacks, Duration) {
        (self.callbacks.clone(), self.timeout)
    }

    /// The same for a handler, which has methods instead of functions.
    pub(crate) fn plan_for_handler(self) -> Result<Plan, ConnectError> {
        if self.callbacks.is_any() {
            return Err(ConnectError::SetUp {
                reason:
                    "`init`, `on_request` and `on_notify` are for a channel or a pool; a handler \
                         has `opened`, `request` and `notify`"
                        .into(),
            });
        }
        self.plan()
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
