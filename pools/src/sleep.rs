//! The flag between a thread that may sleep and those that wake it.
//!
//! Comes in: "I am about to sleep", "I am back", "there is something for you". Goes out: whether the
//! one must not sleep, and whether the others must end a sleep, which is the dear part. It ends no
//! sleep itself.

use crate::sync::{AtomicU8, Ordering};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// Says whether a thread sleeps, so that only one that does costs a signal.
///
/// No notice is lost: what was written before [`notify`](Self::notify) is visible to the sleeper
/// after the next [`wake_up`](Self::wake_up), and it does not fall asleep before that.
///
/// # Examples
/// ```
/// use hioload_pools::SleepFlag;
///
/// let flag = SleepFlag::new();
/// assert!(!flag.notify(), "it is awake: there is nobody to be woken");
/// assert!(!flag.fall_asleep(), "but it must look again before it sleeps");
/// assert!(flag.wake_up());
/// assert!(flag.fall_asleep());
/// assert!(flag.notify(), "now somebody has to end its sleep");
/// ```
#[derive(Debug)]
pub struct SleepFlag(AtomicU8);

impl SleepFlag {
    /// Of a thread that is awake.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU8::new(AWAKE))
    }

    /// There is something for the sleeper. `true`: the caller must end its sleep.
    #[inline]
    #[must_use]
    pub fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP
    }

    /// For the sleeper, before it sleeps. `false`: it must not, there was a notice meanwhile.
    #[inline]
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        self.0.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// For the sleeper, after it slept or might have. Answers whether there was a notice.
    #[inline]
    pub fn wake_up(&self) -> bool {
        self.0.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }
}

impl Default for SleepFlag {
    fn default() -> Self {
        Self::new()
    }
}
