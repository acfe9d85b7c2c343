//! The smallest executor: one future, on the thread that waits for it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end on this thread, which sleeps while there is nothing to do.
///
/// For programs without an executor of their own: a [`Client`](super::Client) is used from a plain
/// thread with it. It must not be called on a shard's thread, which would then wait for itself:
/// there, [`Shard::spawn`](crate::Shard::spawn) runs futures.
///
/// # Examples
/// ```
/// let answer = hioload::ws::block_on(async { 6 * 7 });
/// assert_eq!(answer, 42);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            // What was unparked before it parks does not park.
            Poll::Pending => thread::park(),
        }
    }
}
