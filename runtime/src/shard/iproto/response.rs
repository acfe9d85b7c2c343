//! A call as a future of its shard.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hioload_pools::Key;
use hioload_protocol::iproto::Header;

use super::body::Body;
use super::error::CallError;
use super::late::LateQueue;

/// Where the response is put.
#[derive(Default)]
pub(crate) struct Slot {
    result: RefCell<Option<Result<Body, CallError>>>,
    waker: RefCell<Option<Waker>>,
    ended: Cell<bool>,
}

impl Slot {
    pub(super) fn fill(&self, result: Result<Body, CallError>) {
        self.ended.set(true);
        *self.result.borrow_mut() = Some(result);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The response to a call, for futures that are [spawned](crate::Shard::spawn) on the shard.
/// Dropping it cancels the call: a response that still comes is thrown away.
#[must_use = "a call whose future is dropped is cancelled"]
pub struct Response {
    slot: Rc<Slot>,
    /// What to cancel it by.
    call: Option<(Key, Header, Rc<LateQueue>)>,
}

impl Response {
    pub(super) fn waiting(
        slot: Rc<Slot>,
        session: Key,
        call: Header,
        queue: Rc<LateQueue>,
    ) -> Self {
        Self { slot, call: Some((session, call, queue)) }
    }

    pub(super) fn failed(error: CallError) -> Self {
        let slot = Slot::default();
        slot.fill(Err(error));
        Self { slot: Rc::new(slot), call: None }
    }
}

impl Future for Response {
    type Output = Result<Body, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.slot.result.borrow_mut().take() {
            return Poll::Ready(result);
        }
        // The one before is a user's, and is dropped while nothing is borrowed.
        let known = self.slot.waker.replace(Some(cx.waker().clone()));
        drop(known);
        Poll::Pending
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        if !self.slot.ended.get()
            && let Some((session, call, queue)) = self.call.take()
        {
            queue.cancel(session, call);
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("ended", &self.slot.ended.get()).finish_non_exhaustive()
    }
}
