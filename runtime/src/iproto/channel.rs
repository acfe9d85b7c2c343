//! A connection to an iproto server, for any executor and any thread.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hioload_pools::Key;

use super::bridge::Bridge;
use super::connect::Connect;
use super::line::{Ended, Line, Refused, Want, Who, Wish};
use super::{CallError, Closed, Hijacked, Payload, Stats};
use crate::shard::{Order, ShardHandle};
use crate::ws::{ConnectError, background, block_on, wait};

/// A connection to an iproto server, for many callers at once. It is `Send` and `Sync`; clones use
/// the same connection, which is [shut down](Self::shutdown) when the last one is dropped.
///
/// The input and output run on a shard, which pings and keeps the deadlines of its `[iproto]`
/// configuration. Calls never wait to be sent: what is beyond `iproto.calls_max` calls or
/// `websocket.outbox_max_bytes` bytes is refused ([`CallError::TooManyCalls`], [`CallError::Full`]).
///
/// What the server asks goes to [`Connect::on_request`], and what it says to [`Connect::on_notify`].
/// Without the first its requests are not answered, and counted as `unsolicited`; without the second
/// its notifies are dropped.
///
/// With [`Connect::reconnect`] a lost connection is opened again; until then calls fail with
/// [`CallError::NoChannel`]. A call is sent at most once. [`Connect::init`] makes the first calls of
/// each connection, for instance one that authenticates.
///
/// # Examples
/// ```no_run
/// use hioload::iproto::{Connect, pack, unpack};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let channel = hioload::ws::block_on(Connect::to("127.0.0.1:3301").open())?;
/// let body = channel.call_blocking(1, pack(&(1_u32, 2_u32))?)?;
/// println!("{}", unpack::<u64>(&body)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Channel {
    owner: Arc<Owner>,
}

/// Shuts the connection down when the last handle is gone.
#[derive(Debug)]
struct Owner(Arc<Line>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.wish(Wish::Shutdown);
    }
}

impl Channel {
    /// Asks the server, and waits for `iproto.request_timeout_ms` at the most. The call is on its
    /// way when this returns; awaiting it gives the response, and dropping it cancels the call.
    pub fn call<'a>(&self, msg: u32, body: impl Into<Payload<'a>>) -> ChannelCall {
        self.call_with(msg, body, None)
    }

    /// As [`call`](Self::call), with a timeout of its own.
    pub fn call_within<'a>(
        &self,
        timeout: Duration,
        msg: u32,
        body: impl Into<Payload<'a>>,
    ) -> ChannelCall {
        self.call_with(msg, body, Some(timeout))
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

    /// Tells the server something that wants no answer. It never waits for room. What was taken is
    /// lost if the connection is lost before it has left, or if the server reads so slowly that
    /// the outbox is full or others wait for room in it: [`notify_within`](Self::notify_within)
    /// tells of that.
    ///
    /// # Errors
    /// It was not taken.
    pub fn notify<'a>(&self, msg: u32, body: impl Into<Payload<'a>>) -> Result<(), CallError> {
        notify(&self.owner.0, msg, body.into(), Who::Anybody)
    }

    /// As [`notify`](Self::notify), but waits as long as `timeout` while the outbox is full
    /// ([`CallError::Full`] after that), and ends when the notify is in it. Dropping the future
    /// takes back what is not in it yet. What waits may be `websocket.outbox_max_bytes` together:
    /// more is refused at once. Notifies leave in the order in which they were asked for.
    pub fn notify_within<'a>(
        &self,
        timeout: Duration,
        msg: u32,
        body: impl Into<Payload<'a>>,
    ) -> ChannelNotify {
        let taken = self.begin(msg, body.into(), Want::NotifyWithin(timeout));
        ChannelNotify(taken.map_err(|(error, _)| error))
    }

    /// Asks the server, and does not wait for the response: it is thrown away when it comes. To a
    /// server this is a call like any other, and here it counts as one (`iproto.calls_max`) until the
    /// response is there or `iproto.request_timeout_ms` is over. It never waits for room.
    ///
    /// # Errors
    /// It was not taken.
    pub fn send<'a>(&self, msg: u32, body: impl Into<Payload<'a>>) -> Result<(), CallError> {
        let line = &self.owner.0;
        line.submit(msg, body.into(), Want::Send, Who::Anybody).map_err(|(error, _)| error)?;
        Ok(())
    }

    /// Ends the connection in order, and waits for that: no new calls are taken, those that wait may
    /// finish. Bounded by `iproto.shutdown_timeout_ms`. A future that is dropped has asked for it all
    /// the same.
    pub async fn shutdown(&self) -> Closed {
        self.wish(Wish::Shutdown);
        self.done().await
    }

    /// Ends the connection at once: calls that wait fail.
    pub fn close(&self) {
        self.wish(Wish::Close);
    }

    /// Takes the socket away from this channel, to speak another protocol on it or to give it to
    /// somebody else. What was asked of the channel before leaves first, in its order; calls that
    /// wait fail with [`CallError::Hijacked`], and so does everything from here on. The socket
    /// comes with what was read of it and belongs to no packet that was handled: half a packet, for
    /// instance, comes as it is.
    ///
    /// What arrives before the hijack is still read as iproto: a server that is to speak something
    /// else waits for the first word of the new holder. On a shard
    /// [`Session::hijack`](super::Session::hijack) has no such gap.
    ///
    /// [`done`](Self::done) answers [`Closed::Hijacked`]. A channel that is to be
    /// [opened again](Connect::reconnect) opens another connection, as after a loss, and calls on it
    /// are made as ever; so does a [`Pool`](super::Pool) whose channel this is.
    ///
    /// It takes no longer than `iproto.shutdown_timeout_ms`: if what is queued has not left by then,
    /// the connection is dropped. So is the socket if the future is dropped after it has begun, which
    /// is when this is called.
    ///
    /// # Errors
    /// There is no connection, it shuts down, it is hijacked already ([`CallError::Hijacked`]), or it
    /// was lost before it could be taken ([`CallError::Dropped`]).
    ///
    /// # Examples
    /// ```no_run
    /// use std::io::{Read, Write};
    ///
    /// # async fn upgrade(channel: hioload::iproto::Channel) -> Result<(), Box<dyn std::error::Error>> {
    /// channel.call(7, "speak something else").await?;
    /// let (mut socket, unread) = channel.hijack().await?.into_tcp()?;
    /// socket.write_all(b"hello")?;
    /// let mut answer = unread.to_vec();
    /// socket.read_to_end(&mut answer)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn hijack(&self) -> impl Future<Output = Result<Hijacked, CallError>> + Send + use<> {
        let taken = self.begin(0, ().into(), Want::Hijack).map_err(|(error, _)| error);
        async move {
            let mut pending = taken?;
            match poll_fn(|cx| pending.poll(cx)).await {
                Ended::Hijacked(hijacked) => Ok(*hijacked),
                ended => ended.into_result().and(Err(CallError::Dropped)),
            }
        }
    }

    /// Waits for the end of the connection, and answers why it ended.
    pub async fn done(&self) -> Closed {
        let line = &*self.owner.0;
        wait(line, Line::forget_watcher, |poller| line.lock().presence.poll_ended(poller))
            .await
            .unwrap_or(Closed::Lost)
    }

    /// Whether calls can be made at the moment.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.owner.0.lock().is_open()
    }

    /// Which connection it is: 1, and one more for each that was opened again. One whose
    /// [init](Connect::init) failed was never open.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.owner.0.lock().presence.generation
    }

    /// What the connections of this channel have done, as of the last call that ended, or the
    /// last request or notify of the server that a function was called for.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.owner.0.lock().stats()
    }

    fn call_with<'a>(
        &self,
        msg: u32,
        body: impl Into<Payload<'a>>,
        timeout: Option<Duration>,
    ) -> ChannelCall {
        ChannelCall::begin(&self.owner.0, msg, body.into(), timeout, Who::Anybody)
    }

    /// Begins what is asked for, or gives the body back.
    pub(super) fn begin<'a>(
        &self,
        msg: u32,
        body: Payload<'a>,
        want: Want,
    ) -> Result<Pending, Refused<'a>> {
        Pending::begin(&self.owner.0, msg, body, want, Who::Anybody)
    }

    /// A channel without a connection, and its line.
    pub(super) fn new() -> (Self, Arc<Line>) {
        let line = Arc::new(Line::default());
        (Self { owner: Arc::new(Owner(Arc::clone(&line))) }, line)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner)
    }

    pub(super) fn wish(&self, wish: Wish) {
        self.owner.0.wish(wish);
    }
}

/// Something that is on its way, and who waits for it. Dropping it takes it back.
pub(super) struct Pending {
    line: Arc<Line>,
    ticket: Option<Key>,
}

impl Pending {
    fn begin<'a>(
        line: &Arc<Line>,
        msg: u32,
        body: Payload<'a>,
        want: Want,
        who: Who,
    ) -> Result<Self, Refused<'a>> {
        let ticket = line.submit(msg, body, want, who)?;
        Ok(Self { line: Arc::clone(line), ticket })
    }

    /// There is nothing to wait for.
    pub(super) const fn is_nothing(&self) -> bool {
        self.ticket.is_none()
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Ended> {
        // Without a ticket there is nothing to wait for, or it has come before.
        let Some(ticket) = self.ticket else {
            return Poll::Ready(Ended::Failed(CallError::Dropped));
        };
        let polled = self.line.poll_call(ticket, cx);
        if polled.is_ready() {
            self.ticket = None;
        }
        polled
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.line.cancel(ticket);
        }
    }
}

/// A call that is on its way: a future of the body of its response. Dropping it cancels the call;
/// whether the server acts on it is not known then.
///
/// A response of up to 512 bytes shares a block of 4 KiB with others, which is free when all of
/// them are gone: who keeps many for long copies them.
#[must_use = "a call that is dropped is cancelled"]
pub struct ChannelCall(Result<Pending, CallError>);

impl ChannelCall {
    pub(super) fn begin(
        line: &Arc<Line>,
        msg: u32,
        body: Payload<'_>,
        timeout: Option<Duration>,
        who: Who,
    ) -> Self {
        let taken = Pending::begin(line, msg, body, Want::Call(timeout), who);
        Self(taken.map_err(|(error, _)| error))
    }
}

impl Future for ChannelCall {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(pending) => pending.poll(cx).map(Ended::into_result),
            Err(error) => Poll::Ready(Err(*error)),
        }
    }
}

impl fmt::Debug for ChannelCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelCall").finish_non_exhaustive()
    }
}

/// A notify that waits for room: a future that ends when it was taken to be sent.
#[must_use = "a notify that is dropped is taken back"]
pub struct ChannelNotify(Result<Pending, CallError>);

impl Future for ChannelNotify {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(pending) => pending.poll(cx).map(|ended| ended.into_result().map(drop)),
            Err(error) => Poll::Ready(Err(*error)),
        }
    }
}

impl fmt::Debug for ChannelNotify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelNotify").finish_non_exhaustive()
    }
}

/// Gives the shard a notify that does not wait for room.
pub(super) fn notify(line: &Line, msg: u32, body: Payload<'_>, who: Who) -> Result<(), CallError> {
    line.submit(msg, body, Want::Notify, who).map_err(|(error, _)| error)?;
    Ok(())
}

pub(super) async fn open_in_background(connect: Connect) -> Result<Channel, ConnectError> {
    connect.check()?;
    open_on(background()?, connect).await
}

/// Connects on a shard, from wherever the future runs.
pub(crate) async fn open_on(shard: ShardHandle, connect: Connect) -> Result<Channel, ConnectError> {
    // Whatever becomes of this future, the end of the handle is the end of the connection.
    let (channel, line) = Channel::new();
    let bridge = Bridge::new(line, connect.reconnects(), None);
    shard.order(Order::Run(Box::new(move |shard| bridge.begin(shard, connect))));
    let line = &*channel.owner.0;
    wait(line, Line::forget_watcher, |poller| line.lock().presence.poll_opened(poller)).await?;
    Ok(channel)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_future_that_is_dropped_waits_no_more() {
        let (channel, line) = Channel::new();
        for _ in 0..3 {
            let mut done = pin!(channel.done());
            assert!(done.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(!line.lock().presence.watchers.is_empty());
        }
        assert!(line.lock().presence.watchers.is_empty());
    }
}
