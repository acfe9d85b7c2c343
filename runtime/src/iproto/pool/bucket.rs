//! A token bucket: how many calls a pool makes in which time.
//!
//! Comes in: the time, as a duration since some beginning. Goes out: a token, or how long to wait
//! for one. It reads no clock.

use std::time::Duration;

/// Tokens that come at a rate, up to a most that is there at once.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    burst: f64,
    /// Less than none: so many are promised.
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// A full one. A rate that is no positive number is none: no token ever comes.
    pub(super) fn new(per_second: f64, burst: u32) -> Self {
        let per_second = if per_second > 0.0 { per_second } else { 0.0 };
        // Without a rate there is nothing to begin with either.
        let burst = if per_second > 0.0 { f64::from(burst) } else { 0.0 };
        Self { per_second, burst, tokens: burst, at: Duration::ZERO }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        self.fill(now);
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }

    /// Takes a token that may only come after some time: answers after which. `None`: not within
    /// `most`, and nothing was taken.
    pub(super) fn promise(&mut self, now: Duration, most: Duration) -> Option<Duration> {
        self.fill(now);
        let missing = 1.0 - self.tokens;
        let wait = if missing <= 0.0 { 0.0 } else { missing / self.per_second };
        // Nothing comes without a rate: that is an endless wait, or no number.
        let wait = Duration::try_from_secs_f64(wait).ok().filter(|wait| *wait <= most)?;
        self.tokens -= 1.0;
        Some(wait)
    }

    /// Gives back a token that was not used.
    pub(super) fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.burst);
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(10.0, 3);
        let taken = |bucket: &mut Bucket, at| (0..10).filter(|_| bucket.take(ms(at))).count();
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(taken(&mut bucket, 99), 0);
        assert_eq!(taken(&mut bucket, 101), 1);
        assert_eq!(taken(&mut bucket, 60_000), 3, "no more than the burst is saved up");
    }

    #[test]
    fn promises_stand_in_a_row() {
        let mut bucket = Bucket::new(10.0, 1);
        let most = Duration::MAX;
        let waits: Vec<_> = (0..4).map(|_| bucket.promise(ms(0), most).unwrap()).collect();
        assert_eq!(waits, [0, 100, 200, 300].map(ms));
        assert_eq!(bucket.promise(ms(0), ms(399)), None);
        bucket.give_back();
        assert_eq!(bucket.promise(ms(0), ms(300)), Some(ms(300)));
        assert_eq!(bucket.promise(ms(350), most), Some(ms(50)));
    }

    #[rstest]
    #[case(0.0)]
    #[case(-1.0)]
    #[case(f64::NAN)]
    fn without_a_rate_nothing_comes(#[case] rate: f64) {
        let mut bucket = Bucket::new(rate, 5);
        assert!(!bucket.take(Duration::from_secs(1000)));
        assert_eq!(bucket.promise(Duration::from_secs(2000), Duration::MAX), None);
    }
}
