//! One thing that is asked of a pool, until it has ended: it waits for its turn, for a connection,
//! and for what that answers.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::channel::Pending;
use super::super::line::{Ended, Want};
use super::super::{CallError, Channel, Payload};
use super::shared::{Missing, Refusals, Shared, Waiter, Woken};

/// Waits for no number of connections, but for some time.
const NO_NUMBER: usize = usize::MAX;

pub(super) struct Task {
    pool: Arc<Shared>,
    msg: u32,
    want: Want,
    step: Step,
    /// For a connection. It is the same one if it has to wait twice.
    waiter: Option<Waiter>,
    /// Of a call with a timeout of its own: when that is over, whatever it waits for.
    until: Option<Instant>,
    refusals: Refusals,
}

enum Step {
    /// The rate limit has promised a turn.
    Paced(Turn, Bytes),
    /// No connection is open.
    Offline(Bytes),
    Sent(Channel, Pending),
    Ended(Result<Bytes, CallError>),
}

/// A turn that was promised and is given back unless it is used.
struct Turn {
    pool: Arc<Shared>,
    waiter: Waiter,
    is_used: bool,
}

impl Turn {
    fn new(pool: &Arc<Shared>, wait: Duration) -> Result<Self, CallError> {
        let waiter = Waiter::new(pool, NO_NUMBER, wait).inspect_err(|_| pool.give_back())?;
        Ok(Self { pool: Arc::clone(pool), waiter, is_used: false })
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), CallError>> {
        match ready!(self.waiter.poll(cx)) {
            Woken::Online | Woken::Expired => {
                self.is_used = true;
                Poll::Ready(Ok(()))
            }
            // No connection will be opened by itself: that is not what this waits for.
            Woken::Failed | Woken::Stopped => Poll::Ready(Err(CallError::Stopped)),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_used {
            self.pool.give_back();
        }
    }
}

impl Task {
    /// What can be done at once is done before this returns.
    pub(super) fn begin(pool: &Arc<Shared>, msg: u32, body: Payload<'_>, want: Want) -> Self {
        let step = Step::Ended(Err(CallError::Dropped));
        let refusals = Refusals::default();
        let until = match want {
            Want::Call(Some(timeout)) => Instant::now().checked_add(timeout),
            _ => None,
        };
        let mut task =
            Self { pool: Arc::clone(pool), msg, want, step, waiter: None, until, refusals };
        task.step = match pool.pace(task.most()) {
            Ok(None) => task.send(body),
            Ok(Some(wait)) => match Turn::new(pool, wait) {
                Ok(turn) => Step::Paced(turn, body.into_bytes()),
                Err(error) => Step::Ended(Err(error)),
            },
            Err(error) => Step::Ended(Err(error)),
        };
        task
    }

    /// How long it may wait before it is sent, if it says so itself.
    const fn most(&self) -> Option<Duration> {
        match self.want {
            Want::Call(timeout) => timeout,
            _ => None,
        }
    }

    /// It has waited: only what is left of its timeout goes on. `false`: nothing is.
    fn has_time(&mut self) -> bool {
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            self.want = Want::Call(Some(left));
            return left > Duration::ZERO;
        }
        true
    }

    /// Gives it to the next connection that takes it, or waits for one.
    fn send(&mut self, mut body: Payload<'_>) -> Step {
        loop {
            match self.pool.next(&self.refusals) {
                Ok(channel) => match channel.begin(self.msg, body, self.want) {
                    Ok(pending) if pending.is_nothing() => return Step::Ended(Ok(Bytes::new())),
                    Ok(pending) => return Step::Sent(channel, pending),
                    Err((
                        CallError::Stopped | CallError::Hijacked | CallError::NoChannel,
                        back,
                    )) => {
                        self.pool.forget(&channel);
                        body = back;
                    }
                    Err((error, back)) if is_refusal(error) => {
                        self.refusals.add(channel, error);
                        body = back;
                    }
                    Err((error, _)) => return Step::Ended(Err(error)),
                },
                Err(Missing::Refused(error)) => return Step::Ended(Err(error)),
                Err(Missing::Offline) => {
                    let timeout = self.pool.settings.connect_timeout;
                    let timeout = timeout.min(self.most().unwrap_or(timeout));
                    if self.waiter.is_none() {
                        self.waiter = match Waiter::new(&self.pool, 1, timeout) {
                            Ok(waiter) => Some(waiter),
                            Err(error) => return Step::Ended(Err(error)),
                        };
                    }
                    return Step::Offline(body.into_bytes());
                }
            }
        }
    }

    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Bytes, CallError>> {
        loop {
            let body = match &mut self.step {
                Step::Ended(result) => return Poll::Ready(result.clone()),
                Step::Sent(channel, pending) => match ready!(pending.poll(cx)) {
                    Ended::Unsent(error, body) => {
                        if is_refusal(error) {
                            self.refusals.add(channel.clone(), error);
                        }
                        body
                    }
                    ended => return self.ended(ended.into_result()),
                },
                Step::Paced(turn, body) => match ready!(turn.poll(cx)) {
                    Ok(()) => std::mem::take(body),
                    Err(error) => return self.ended(Err(error)),
                },
                Step::Offline(body) => match ready!(wait(self.waiter.as_ref(), cx)) {
                    Ok(()) => std::mem::take(body),
                    Err(error) => {
                        if error == CallError::NoChannel {
                            self.pool.lock().counted.waits_failed += 1;
                        }
                        return self.ended(Err(error));
                    }
                },
            };
            // What it has waited for makes room, and may be needed again.
            self.step = Step::Ended(Err(CallError::Dropped));
            if !self.has_time() {
                return self.ended(Err(CallError::Timeout));
            }
            self.step = self.send(body.into());
        }
    }

    fn ended(&mut self, result: Result<Bytes, CallError>) -> Poll<Result<Bytes, CallError>> {
        self.waiter = None;
        self.step = Step::Ended(Err(CallError::Dropped));
        Poll::Ready(result)
    }

    /// The next connection, as a call would get it.
    pub(super) async fn next_channel(pool: &Arc<Shared>) -> Result<Channel, CallError> {
        if let Some(wait) = pool.pace(None)? {
            let mut turn = Turn::new(pool, wait)?;
            poll_fn(|cx| turn.poll(cx)).await?;
        }
        let mut waiter: Option<Waiter> = None;
        loop {
            match pool.next(&Refusals::default()) {
                Ok(channel) if channel.is_open() => return Ok(channel),
                Ok(channel) => pool.forget(&channel),
                Err(Missing::Refused(error)) => return Err(error),
                Err(Missing::Offline) => {
                    let timeout = pool.settings.connect_timeout;
                    if waiter.is_none() {
                        waiter = Some(Waiter::new(pool, 1, timeout)?);
                    }
                    poll_fn(|cx| wait(waiter.as_ref(), cx)).await.inspect_err(|error| {
                        if *error == CallError::NoChannel {
                            pool.lock().counted.waits_failed += 1;
                        }
                    })?;
                }
            }
        }
    }
}

/// Another connection may have room.
const fn is_refusal(error: CallError) -> bool {
    matches!(error, CallError::Full | CallError::TooManyCalls { .. })
}

/// Waits until a connection is open.
fn wait(waiter: Option<&Waiter>, cx: &Context<'_>) -> Poll<Result<(), CallError>> {
    let woken = waiter.map_or(Poll::Ready(Woken::Failed), |waiter| waiter.poll(cx));
    woken.map(|woken| match woken {
        Woken::Online => Ok(()),
        Woken::Expired | Woken::Failed => Err(CallError::NoChannel),
        Woken::Stopped => Err(CallError::Stopped),
    })
}
