//! How any thread ends a reactor's sleep, at the price of a system call only if it sleeps.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// Ends the current or the next [`Reactor::wait`](super::Reactor::wait) of one reactor.
///
/// Cheap to clone and to use: a reactor that is awake costs one atomic swap. A wake is never lost:
/// whatever was written before [`wake`](Self::wake) is visible to the reactor's thread after the
/// wait that it ends.
#[derive(Clone)]
pub struct Waker {
    state: Arc<State>,
}

struct State {
    sleep: AtomicU8,
    signal: Box<dyn Fn() + Send + Sync>,
}

impl Waker {
    /// For implementations of [`Reactor`](super::Reactor): `signal` must end a sleep that began.
    pub fn new(signal: impl Fn() + Send + Sync + 'static) -> Self {
        let signal = Box::new(signal);
        Self { state: Arc::new(State { sleep: AtomicU8::new(AWAKE), signal }) }
    }

    /// Ends the current wait, or the next one if none is under way.
    pub fn wake(&self) {
        if self.state.sleep.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            (self.state.signal)();
        }
    }

    /// For implementations of [`Reactor`](super::Reactor): called before a wait that may sleep.
    /// Answers `false` if it must not sleep, because it was woken in the meantime.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        self.state
            .sleep
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// For implementations of [`Reactor`](super::Reactor): called after each wait. Answers whether
    /// it was woken.
    pub fn wake_up(&self) -> bool {
        self.state.sleep.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("sleep", &self.state.sleep).finish_non_exhaustive()
    }
}
