//! Looking again instead of sleeping, as long as it pays.
//!
//! To be woken costs a thread some 10 to 20 us, most of the time of an echo on a quiet connection. A
//! shard that may spin polls for that long before it sleeps, but only while what comes usually comes
//! within that time: one that is idle, or asked too seldom, sleeps as if there were no spinning.

use std::time::Duration;

use crate::Time;

/// Polls in vain, one after the other, until a shard sleeps at once.
const MISSES_MAX: u32 = 4;

/// What being woken takes: a sleep that is no longer than this beyond the time to spin would not
/// have been one.
const WAKE: Duration = Duration::from_micros(30);

/// Whether a shard spins, and for how long.
#[derive(Debug)]
pub(crate) struct Spin {
    /// Zero: never.
    spin: Duration,
    misses: u32,
}

impl Spin {
    /// Begins without spinning: first something must come quickly.
    pub(crate) const fn new(spin: Duration) -> Self {
        Self { spin, misses: MISSES_MAX }
    }

    /// Whether it may be worth it at all, so that the clock is to be read.
    pub(crate) const fn is_on(&self) -> bool {
        !self.spin.is_zero()
    }

    /// Until when to poll before a sleep that begins `now`.
    pub(crate) fn until(&self, now: Time) -> Time {
        if self.misses < MISSES_MAX { now.after(self.spin) } else { now }
    }

    /// Something came while it polled.
    pub(crate) const fn hit(&mut self) {
        self.misses = 0;
    }

    /// It had to sleep, for so long.
    pub(crate) fn slept(&mut self, duration: Duration) {
        let would_hit = duration <= self.spin + WAKE;
        self.misses = if would_hit { 0 } else { (self.misses + 1).min(MISSES_MAX) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: fn(u64) -> Duration = Duration::from_micros;
    const NOW: Time = Time::from_nanos(1_000_000);

    #[test]
    fn it_sleeps_at_once_until_something_came_quickly() {
        let mut spin = Spin::new(US(50));
        assert_eq!(spin.until(NOW), NOW);
        spin.slept(US(1000));
        assert_eq!(spin.until(NOW), NOW);
        spin.slept(US(70));
        assert_eq!(spin.until(NOW), NOW.after(US(50)));
    }

    #[test]
    fn it_gives_up_after_some_misses_in_a_row() {
        let mut spin = Spin::new(US(50));
        spin.slept(US(10));
        for _ in 0..MISSES_MAX - 1 {
            spin.slept(US(1000));
            assert_eq!(spin.until(NOW), NOW.after(US(50)), "one more try");
        }
        spin.hit();
        for _ in 0..MISSES_MAX {
            assert_eq!(spin.until(NOW), NOW.after(US(50)), "a hit makes up for all misses");
            spin.slept(US(1000));
        }
        assert_eq!(spin.until(NOW), NOW);
    }

    #[test]
    fn without_time_to_spin_it_never_does() {
        let mut spin = Spin::new(Duration::ZERO);
        spin.slept(Duration::ZERO);
        assert!(!spin.is_on());
        assert_eq!(spin.until(NOW), NOW);
    }
}
