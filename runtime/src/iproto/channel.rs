//! A connection to an iproto server, for any executor and any thread.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::bridge::Bridge;
use super::connect::Connect;
use super::line::{Line, Outgoing, Wish};
use super::{CallError, Closed, Payload, Stats};
use crate::shard::{Order, ShardHandle};
use crate::ws::{ConnectError, Stage, background, block_on, wait};

/// A connection to an iproto server, for many callers at once. It is `Send` and `Sync`; clones use
/// the same connection, which is [shut down](Self::shutdown) when the last one is dropped.
///
/// The input and output run on a shard, which pings and keeps the deadlines of its `[iproto]`
/// configuration. Calls never wait to be sent: what is beyond `iproto.calls_max` calls or
/// `websocket.outbox_max_bytes` bytes is refused ([`CallError::TooManyCalls`], [`CallError::Full`]).
///
/// What the server asks is answered with an error, and what it says is dropped: who wants to serve
/// it uses [`Shard::connect_iproto`](crate::Shard::connect_iproto).
///
/// With [`Connect::reconnect`] a lost connection is opened again; until then calls fail with
/// [`CallError::NoChannel`]. A call is sent at most once.
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

    /// Tells the server something that wants no answer. What was taken is lost if the connection
    /// is lost before it has left.
    ///
    /// # Errors
    /// It was not taken.
    pub fn notify<'a>(&self, msg: u32, body: impl Into<Payload<'a>>) -> Result<(), CallError> {
        let body = body.into().into_bytes();
        self.owner.0.send(Outgoing { msg, body, call: None })
    }

    /// Ends the connection in order, and waits for that: no new calls are taken, those that wait may
    /// finish. Bounded by `iproto.shutdown_timeout_ms`. A future that is dropped has asked for it all
    /// the same.
    pub async fn shutdown(&self) -> Closed {
        self.owner.0.wish(Wish::Shutdown);
        self.done().await
    }

    /// Ends the connection at once: calls that wait fail.
    pub fn close(&self) {
        self.owner.0.wish(Wish::Close);
    }

    /// Waits for the end of the connection, and answers why it ended.
    pub async fn done(&self) -> Closed {
        let line = &*self.owner.0;
        wait(line, Line::forget_watcher, |id, cx| line.lock().presence.poll_ended(id, cx))
            .await
            .unwrap_or(Closed::Lost)
    }

    /// Whether calls can be made at the moment.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let state = self.owner.0.lock();
        state.presence.stage == Stage::Open && state.wish.is_none()
    }

    /// Which connection it is: 1, and one more for each that was opened again.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.owner.0.lock().presence.generation
    }

    /// What the connections of this channel have done, as of the last call that ended.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.owner.0.lock();
        state.past.plus(state.stats)
    }

    fn call_with<'a>(
        &self,
        msg: u32,
        body: impl Into<Payload<'a>>,
        timeout: Option<Duration>,
    ) -> ChannelCall {
        let line = Arc::clone(&self.owner.0);
        match line.call(msg, body.into().into_bytes(), timeout) {
            Ok(ticket) => ChannelCall(Ok((line, Some(ticket)))),
            Err(error) => ChannelCall(Err(error)),
        }
    }
}

/// A call that is on its way: a future of the body of its response. Dropping it cancels the call;
/// whether the server acts on it is not known then.
#[must_use = "a call that is dropped is cancelled"]
pub struct ChannelCall(Result<(Arc<Line>, Option<u64>), CallError>);

impl Future for ChannelCall {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (line, ticket) = match &mut self.0 {
            Ok(call) => call,
            Err(error) => return Poll::Ready(Err(*error)),
        };
        let Some(number) = *ticket else { return Poll::Ready(Err(CallError::Dropped)) };
        let polled = line.poll_call(number, cx);
        if polled.is_ready() {
            *ticket = None;
        }
        polled
    }
}

impl Drop for ChannelCall {
    fn drop(&mut self) {
        if let Ok((line, Some(ticket))) = &self.0 {
            line.cancel(*ticket);
        }
    }
}

impl fmt::Debug for ChannelCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelCall").finish_non_exhaustive()
    }
}

pub(super) async fn open_in_background(connect: Connect) -> Result<Channel, ConnectError> {
    connect.check()?;
    open_on(background()?, connect).await
}

/// Connects on a shard, from wherever the future runs.
pub(crate) async fn open_on(shard: ShardHandle, connect: Connect) -> Result<Channel, ConnectError> {
    let line = Arc::new(Line::default());
    let bridge = Bridge::new(Arc::clone(&line), connect.reconnects());
    // Whatever becomes of this future, the end of the handle is the end of the connection.
    let channel = Channel { owner: Arc::new(Owner(line)) };
    shard.order(Order::Run(Box::new(move |shard| bridge.begin(shard, connect))));
    let line = &*channel.owner.0;
    wait(line, Line::forget_watcher, |id, cx| line.lock().presence.poll_opened(id, cx)).await?;
    Ok(channel)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_future_that_is_dropped_waits_no_more() {
        let line = Arc::new(Line::default());
        let channel = Channel { owner: Arc::new(Owner(Arc::clone(&line))) };
        for _ in 0..3 {
            let mut done = pin!(channel.done());
            assert!(done.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(!line.lock().presence.watchers.is_empty());
        }
        assert!(line.lock().presence.watchers.is_empty());
    }
}
