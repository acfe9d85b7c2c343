//! What a pool is asked to be.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use super::super::{Body, Connect, FreshChannel, Request};
use super::shared::{Settings, Shared};
use super::{Owner, Pool};
use crate::shard::{Shard, ShardHandle};
use crate::ws::{ConnectError, Reconnect, background};

/// A [`Pool`] that is being described. Errors are kept until it is opened, built or checked.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// use hioload::iproto::Pool;
///
/// # async fn example() -> Result<(), hioload::ws::ConnectError> {
/// let pool = Pool::to("127.0.0.1:3301")
///     .size(8)
///     .connect_timeout(Duration::from_millis(200))
///     .redial_forever(true)
///     .fail_on_cutoff(true)
///     .rate_limit(10_000.0, 100)
///     .open()
///     .await?;
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
#[must_use = "a description does nothing until it is opened or built"]
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    connect: Connect,
    shard: Option<ShardHandle>,
    size: usize,
    connect_timeout: Duration,
    notice_timeout: Duration,
    redial_interval: Duration,
    redial_interval_max: Duration,
    redial_timeout: Duration,
    redial_forever: bool,
    fail_on_cutoff: bool,
    rate: (f64, u32),
    rate_wait: bool,
    waiting_max: usize,
}

impl PoolBuilder {
    pub(super) fn new(address: &str) -> Self {
        Self {
            connect: Connect::to(address),
            shard: None,
            size: 1,
            connect_timeout: Duration::from_secs(1),
            notice_timeout: Duration::from_secs(1),
            redial_interval: Duration::from_millis(10),
            redial_interval_max: Duration::from_millis(500),
            redial_timeout: Duration::from_secs(3600),
            redial_forever: false,
            fail_on_cutoff: false,
            rate: (0.0, 0),
            rate_wait: false,
            waiting_max: 65_536,
        }
    }

    /// The shard that the connections live on, for instance that of a
    /// [`Connector`](crate::ws::Connector::handle) or of a server: the background shard of the process
    /// unless it is set. Its `[iproto]` configuration holds for them.
    pub fn on(mut self, shard: ShardHandle) -> Self {
        self.shard = Some(shard);
        self
    }

    /// How many connections there are to be: 1 unless it is set, and at least that.
    pub fn size(mut self, connections: usize) -> Self {
        self.size = connections.max(1);
        self
    }

    /// How long one attempt to connect may take, and how long something that is asked of the pool
    /// waits in all while no connection is open: 1 s unless it is set.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a notify waits while the outbox of its connection is full: 1 s unless it is set.
    pub const fn notice_timeout(mut self, timeout: Duration) -> Self {
        self.notice_timeout = timeout;
        self
    }

    /// The most that the first wait before another attempt may be: 10 ms unless it is set. Each
    /// further one may be twice as long, and each is drawn at random below its bound. A
    /// connection that was open for ten seconds begins a new row.
    pub const fn redial_interval(mut self, first: Duration) -> Self {
        self.redial_interval = first;
        self
    }

    /// The most that any of these waits may be: 500 ms unless it is set.
    pub const fn redial_interval_max(mut self, max: Duration) -> Self {
        self.redial_interval_max = max;
        self
    }

    /// How long a connection is dialled without success before that rests: 1 h unless it is set.
    /// What is asked of the pool then begins it anew.
    pub const fn redial_timeout(mut self, timeout: Duration) -> Self {
        self.redial_timeout = timeout;
        self
    }

    /// Dials without an end, whatever [`redial_timeout`](Self::redial_timeout) is.
    pub const fn redial_forever(mut self, forever: bool) -> Self {
        self.redial_forever = forever;
        self
    }

    /// Whether what is asked while no connection is open fails at once
    /// ([`CallError::Cutoff`](super::CallError::Cutoff)), instead of waiting for one. Dialling goes
    /// on in either case. Not unless it is set.
    pub const fn fail_on_cutoff(mut self, fails: bool) -> Self {
        self.fail_on_cutoff = fails;
        self
    }

    /// How many calls, notifies, sends and [channels](Pool::next_channel) there may be in a second,
    /// and how many at once (a token bucket). Without a burst, as it is unless it is set, there is
    /// no limit; with a burst and a rate of 0 nothing is allowed.
    ///
    /// The tokens come by the clock of the machine, also where the shard's is turned by hand (a
    /// [bench](crate::testkit::Bench), a simulation): a promised turn is waited for on the shard's.
    pub const fn rate_limit(mut self, per_second: f64, burst: u32) -> Self {
        self.rate = (per_second, burst);
        self
    }

    /// Whether what is above the rate limit waits for its turn (shaping); unless it is set it is
    /// refused with [`CallError::Policed`](super::CallError::Policed) (policing). What would have to
    /// wait for longer than its [timeout](Pool::call_within), or than `iproto.request_timeout_ms` if
    /// it has none, is refused at once.
    pub const fn rate_wait(mut self, waits: bool) -> Self {
        self.rate_wait = waits;
        self
    }

    /// How much of what is asked of the pool may wait at once, for a connection or for the rate
    /// limit: 65,536 unless it is set. Each keeps a copy of its body; what is more fails with
    /// [`CallError::PoolFull`](super::CallError::PoolFull). An [init](Pool::init) counts too; it is
    /// at least 1.
    pub const fn waiting_max(mut self, most: usize) -> Self {
        self.waiting_max = if most > 0 { most } else { 1 };
        self
    }

    /// Serves what the server asks on any connection of the pool: see [`Connect::on_request`]. A clone
    /// of the pool in it keeps the pool open until that is closed or shut down.
    pub fn on_request(
        mut self,
        serve: impl Fn(&mut Shard, Request) + Send + Sync + 'static,
    ) -> Self {
        self.connect = self.connect.on_request(serve);
        self
    }

    /// Hears what the server says on any connection of the pool: see [`Connect::on_notify`].
    pub fn on_notify(
        mut self,
        hear: impl Fn(&mut Shard, u32, Body) + Send + Sync + 'static,
    ) -> Self {
        self.connect = self.connect.on_notify(hear);
        self
    }

    /// Sets each connection of the pool up before it has its turn, for instance with a call that
    /// authenticates: see [`Connect::init`]. It has [`connect_timeout`](Self::connect_timeout) for
    /// that, beside the time of the attempt to connect; what is asked of the pool waits meanwhile as
    /// it does for a connection. One that fails is an attempt that failed, in [`PoolStats`] too.
    /// ([`Pool::init`] is something else: it waits for a connection that is set up.)
    ///
    /// # Examples
    /// ```no_run
    /// use hioload::iproto::{CallError, Pool};
    ///
    /// # async fn example() -> Result<(), hioload::iproto::ConnectError> {
    /// let pool = Pool::to("127.0.0.1:3301")
    ///     .size(4)
    ///     .init(|fresh| async move {
    ///         fresh.call(1, "the token").await?;
    ///         Ok::<_, CallError>(())
    ///     })
    ///     .open()
    ///     .await?;
    /// # drop(pool);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`PoolStats`]: super::PoolStats
    pub fn init<F, Fut, E>(mut self, init: F) -> Self
    where
        F: Fn(FreshChannel) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: Display + 'static,
    {
        self.connect = self.connect.init(init);
        self
    }

    /// Checks the description without opening anything.
    ///
    /// # Errors
    /// The address is wrong.
    pub fn check(&self) -> Result<(), ConnectError> {
        self.connect.check()
    }

    /// A pool without any connection yet: it dials with the first [`Pool::init`], or with what is
    /// asked of it first.
    ///
    /// # Errors
    /// The address is wrong, or the background shard cannot be started.
    pub fn build(self) -> Result<Pool, ConnectError> {
        self.check()?;
        let shard = match self.shard {
            Some(shard) => shard,
            None => background()?,
        };
        let rule = Reconnect::default().first(self.redial_interval).max(self.redial_interval_max);
        let rule = if self.redial_forever { rule } else { rule.within(self.redial_timeout) };
        let settings = Settings {
            size: self.size,
            connect_timeout: self.connect_timeout,
            notice_timeout: self.notice_timeout,
            fail_on_cutoff: self.fail_on_cutoff,
            rate_wait: self.rate_wait,
            waiting_max: self.waiting_max,
        };
        let connect = self.connect.timeout(self.connect_timeout).reconnect(rule.always());
        Ok(Pool { owner: Owner(Shared::new(settings, connect, self.rate, shard)).into() })
    }

    /// A pool with one connection that is open, as after [`Pool::init`]; the others are dialled in
    /// the background. The future may run on any executor; dropping it gives up.
    ///
    /// # Errors
    /// The address is wrong, or nothing could be connected within the connect timeout.
    pub async fn open(self) -> Result<Pool, ConnectError> {
        let pool = self.build()?;
        pool.init().await?;
        Ok(pool)
    }
}
