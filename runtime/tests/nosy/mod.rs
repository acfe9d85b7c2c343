//! Wakers that look at something whenever they are cloned or dropped, as those of users may.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

/// What a waker looks at, and how often it did.
struct Nosy {
    look: Box<dyn Fn() + Send + Sync>,
    looks: Arc<AtomicUsize>,
}

impl Nosy {
    fn look(&self) {
        (self.look)();
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

static TABLE: RawWakerVTable = RawWakerVTable::new(clone, drop_waker, nothing, drop_waker);

#[allow(unsafe_code)]
fn waker(nosy: Arc<Nosy>) -> Waker {
    // SAFETY: each waker owns one count of the Arc, as the functions of the table take for granted.
    unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(nosy).cast(), &TABLE)) }
}

#[allow(unsafe_code)]
unsafe fn clone(data: *const ()) -> RawWaker {
    let data = data.cast::<Nosy>();
    // SAFETY: it came from an Arc, of which the waker owns a count.
    unsafe { Arc::increment_strong_count(data) };
    // SAFETY: the waker that is cloned keeps it alive.
    unsafe { &*data }.look();
    RawWaker::new(data.cast(), &TABLE)
}

/// Also wakes, which ends a waker as well: nobody waits for it.
#[allow(unsafe_code)]
unsafe fn drop_waker(data: *const ()) {
    // SAFETY: it came from an Arc, and this is the count that the waker owned.
    let nosy = unsafe { Arc::from_raw(data.cast::<Nosy>()) };
    nosy.look();
}

fn nothing(_: *const ()) {}

/// Polls a future that does not end with two wakers that look, and drops it: each of them is cloned,
/// and dropped again. Answers how often they have looked.
pub(crate) fn poll_and_drop<T>(
    mut future: Pin<Box<dyn Future<Output = T> + Send>>,
    look: impl Fn() + Clone + Send + Sync + 'static,
) -> usize {
    let looks = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let nosy = Nosy { look: Box::new(look.clone()), looks: Arc::clone(&looks) };
        let waker = waker(Arc::new(nosy));
        for _ in 0..2 {
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending(), "there is nothing to wait for");
        }
    }
    drop(future);
    looks.load(Ordering::Relaxed)
}
