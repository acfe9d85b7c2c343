//! Several connections to one iproto server, for any executor and any thread.
//!
//! Comes in: an address, how many connections, what happens without them. Goes out: calls on the
//! connections that are open, in turn. Each place of a pool is a [`Channel`] that dials again; the
//! pool itself only knows which of them are online, and who waits for one.

mod bucket;
mod builder;
mod shared;
mod task;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::line::{Want, Wish};
use super::{CallError, Channel, ConnectError, Payload, Stats};
use crate::ws::{block_on, wait};

pub use builder::PoolBuilder;
pub(super) use shared::Member;

use shared::{Shared, Waiter, Woken};
use task::Task;

/// Several connections to one iproto server. It is `Send` and `Sync`; clones use the same
/// connections, which are [shut down](Self::shutdown) when the last one is dropped.
///
/// * **A call goes to the next connection that is open**, in turn, and is refused as too much only
///   if each of them refuses it. A call is sent at most once: one that the connection had not
///   taken when it ended, or has no room for, goes to another one; one that was taken fails with
///   [`CallError::Dropped`] then, though some of those have not left either.
/// * **A connection that is lost is dialled again at once**, with waits that grow from
///   [`redial_interval`](PoolBuilder::redial_interval) to
///   [`redial_interval_max`](PoolBuilder::redial_interval_max) and are drawn at random below that.
///   After [`redial_timeout`](PoolBuilder::redial_timeout) without success it rests, until
///   something is asked of the pool again.
/// * **Without any connection** what is asked waits for one as long as
///   [`connect_timeout`](PoolBuilder::connect_timeout), and fails with [`CallError::NoChannel`]; or
///   it fails at once with [`CallError::Cutoff`], as [`fail_on_cutoff`](PoolBuilder::fail_on_cutoff)
///   says.
///
/// The input and output run on one shard: the background shard of the process, or the one
/// that [`PoolBuilder::on`] names. Futures of that shard change no thread, and allocate nothing for
/// a call with small bodies.
///
/// # Examples
/// ```no_run
/// use hioload::iproto::{Pool, pack, unpack};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// hioload::ws::block_on(async {
///     let pool = Pool::to("127.0.0.1:3301").size(4).open().await?;
///     // Both are on their way at once, on different connections.
///     let (one, two) = (pool.call(1, "one"), pool.call(1, "two"));
///     println!("{:?} {:?}", one.await?, two.await?);
///     println!("{:?}", pool.stats());
///     pool.shutdown().await;
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Pool {
    owner: Arc<Owner>,
}

/// Shuts the connections down when the last handle is gone.
#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.stop(Wish::Shutdown);
    }
}

/// What a [`Pool`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Connections that are open at this moment.
    pub online: usize,
    /// Attempts to connect that have ended.
    pub dials: u64,
    /// Those of them that failed.
    pub dials_failed: u64,
    /// What was refused with [`CallError::Policed`].
    pub policed: u64,
    /// What was refused with [`CallError::Cutoff`].
    pub cutoffs: u64,
    /// What waited for a connection in vain: [`CallError::NoChannel`].
    pub waits_failed: u64,
    /// What all connections together have done, those included that are gone; of each one, as of
    /// the last call that ended: see [`Channel::stats`].
    pub channels: Stats,
}

impl Pool {
    /// A pool of connections to `HOST:PORT`, where the host is a name, an IPv4 address or an IPv6
    /// address in brackets.
    pub fn to(address: impl AsRef<str>) -> PoolBuilder {
        PoolBuilder::new(address.as_ref())
    }

    /// Waits until one connection is open, as long as
    /// [`connect_timeout`](PoolBuilder::connect_timeout). A pool that was [built](PoolBuilder::build)
    /// begins to dial here, or with the first call.
    ///
    /// # Errors
    /// None is, and how the last attempt failed. The pool goes on trying.
    pub async fn init(&self) -> Result<(), ConnectError> {
        self.wait_for(1).await
    }

    /// As [`init`](Self::init), until all connections are open.
    ///
    /// # Errors
    /// Not all are, and how the last attempt failed. The pool goes on trying.
    pub async fn init_all(&self) -> Result<(), ConnectError> {
        self.wait_for(self.shared().settings.size).await
    }

    /// Asks the server. If a connection is open the call is on its way when this returns; awaiting
    /// it gives the response, and dropping it cancels the call. The response may take as long as
    /// `iproto.request_timeout_ms` says; before that it may wait as long for the
    /// [rate limit](PoolBuilder::rate_wait), and for a connection.
    pub fn call<'a>(&self, msg: u32, body: impl Into<Payload<'a>>) -> PoolCall {
        PoolCall(self.begin(msg, body.into(), Want::Call(None)))
    }

    /// As [`call`](Self::call), with a timeout of its own, for everything that it waits for: the
    /// [rate limit](PoolBuilder::rate_limit), a connection, the response. The timeout may be
    /// exceeded by the milliseconds that the clocks of the shard and of the machine differ by.
    pub fn call_within<'a>(
        &self,
        timeout: Duration,
        msg: u32,
        body: impl Into<Payload<'a>>,
    ) -> PoolCall {
        PoolCall(self.begin(msg, body.into(), Want::Call(Some(timeout))))
    }

    /// As [`call`](Self::call), on a plain thread, which waits. It must not be called on a shard's
    /// thread.
    ///
    /// # Errors
    /// There is no response.
    pub fn call_blocking<'a>(
        &self,
        msg: u32,
        body: impl Into<Payload<'a>>,
    ) -> Result<Bytes, CallError> {
        block_on(self.call(msg, body))
    }

    /// Tells the server something that wants no answer; ends when it was taken to be sent. While
    /// the outbox of the connection is full it waits as long as
    /// [`notice_timeout`](PoolBuilder::notice_timeout). Dropping it takes back what was not taken.
    pub fn notify<'a>(&self, msg: u32, body: impl Into<Payload<'a>>) -> PoolNotify {
        let want = Want::NotifyWithin(self.shared().settings.notice_timeout);
        PoolNotify(self.begin(msg, body.into(), want))
    }

    /// Asks the server, and does not wait for the response: see [`Channel::send`].
    pub fn send<'a>(&self, msg: u32, body: impl Into<Payload<'a>>) -> PoolNotify {
        PoolNotify(self.begin(msg, body.into(), Want::Send))
    }

    /// The next connection, in turn; waits for one as a call does, and counts as one for the rate
    /// limit. It may be gone when it is used. Who closes it makes the pool dial another one.
    ///
    /// # Errors
    /// There is none.
    pub async fn next_channel(&self) -> Result<Channel, CallError> {
        Task::next_channel(self.shared()).await
    }

    /// The connections that are open at this moment.
    #[must_use]
    pub fn online(&self) -> Vec<Channel> {
        self.shared().lock().online.clone()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared().lock().stats()
    }

    /// Ends all connections in order, and waits for that: nothing more is taken, calls that wait
    /// for their response may finish. Bounded by `iproto.shutdown_timeout_ms`. A future that is
    /// dropped has asked for it all the same.
    pub async fn shutdown(&self) {
        self.shared().stop(Wish::Shutdown);
        self.done().await;
    }

    /// Ends all connections at once: calls that wait fail.
    pub fn close(&self) {
        self.shared().stop(Wish::Close);
    }

    /// Waits until the pool was shut down or closed, and all its connections have ended.
    pub async fn done(&self) {
        wait(&**self.shared(), Shared::forget_watcher, |poller| self.shared().poll_done(poller))
            .await;
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.0
    }

    fn begin(&self, msg: u32, body: Payload<'_>, want: Want) -> Task {
        Task::begin(self.shared(), msg, body, want)
    }

    async fn wait_for(&self, online: usize) -> Result<(), ConnectError> {
        let shared = self.shared();
        shared.dial();
        let timeout = shared.settings.connect_timeout;
        let woken = match Waiter::new(shared, online, timeout) {
            Ok(waiter) => poll_fn(|cx| waiter.poll(cx)).await,
            Err(_) => Woken::Failed,
        };
        match woken {
            Woken::Online => Ok(()),
            Woken::Stopped => Err(ConnectError::Stopped),
            Woken::Expired | Woken::Failed => {
                let error = shared.lock().error.clone();
                Err(error.unwrap_or(ConnectError::Timeout { after: timeout }))
            }
        }
    }
}

/// A call of a pool: a future of the body of its response. Dropping it cancels the call; whether
/// the server acts on it is not known then, if it had been sent.
#[must_use = "a call that is dropped is cancelled"]
pub struct PoolCall(Task);

impl Future for PoolCall {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl fmt::Debug for PoolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolCall").finish_non_exhaustive()
    }
}

/// Something that wants no answer, on its way into a connection of a pool: a future that ends when
/// it was taken to be sent.
#[must_use = "what is dropped may not have been sent"]
pub struct PoolNotify(Task);

impl Future for PoolNotify {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map_ok(drop)
    }
}

impl fmt::Debug for PoolNotify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolNotify").finish_non_exhaustive()
    }
}
