//! How any thread ends a reactor's sleep, at the price of a system call only if it sleeps.

use std::fmt;
use std::sync::Arc;

use hioload_pools::SleepFlag;

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
    sleep: SleepFlag,
    signal: Box<dyn Fn() + Send + Sync>,
}

impl Waker {
    /// For implementations of [`Reactor`](super::Reactor): `signal` must end a sleep that began.
    pub fn new(signal: impl Fn() + Send + Sync + 'static) -> Self {
        let signal = Box::new(signal);
        Self { state: Arc::new(State { sleep: SleepFlag::new(), signal }) }
    }

    /// Ends the current wait, or the next one if none is under way.
    pub fn wake(&self) {
        if self.state.sleep.notify() {
            (self.state.signal)();
        }
    }

    /// For implementations of [`Reactor`](super::Reactor): called before a wait that may sleep.
    /// Answers `false` if it must not sleep, because it was woken in the meantime.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        self.state.sleep.fall_asleep()
    }

    /// For implementations of [`Reactor`](super::Reactor): called after each wait. Answers whether
    /// it was woken.
    pub fn wake_up(&self) -> bool {
        self.state.sleep.wake_up()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").field("sleep", &self.state.sleep).finish_non_exhaustive()
    }
}
