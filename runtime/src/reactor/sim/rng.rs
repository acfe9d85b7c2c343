//! The one source of randomness of a simulation.

use std::time::Duration;

use crate::random::split_mix_64;

/// Random numbers out of one seed: the same seed, the same numbers (SplitMix64).
///
/// # Examples
/// ```
/// use hioload::reactor::sim::Rng;
///
/// let (mut one, mut other) = (Rng::new(7), Rng::new(7));
/// assert_eq!(one.below(100), other.below(100));
/// ```
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator of its own for a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        split_mix_64(&mut self.0)
    }

    /// A generator whose numbers have nothing to do with those that follow here.
    pub const fn fork(&mut self) -> Self {
        Self(self.bits())
    }

    /// A number below `end`, which is not zero.
    pub const fn below(&mut self, end: usize) -> usize {
        assert!(end > 0, "there is no number below zero");
        ((self.bits() as u128 * end as u128) >> 64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub const fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// A number up to `high` whose magnitude is random: small ones are as likely as large ones.
    pub const fn magnitude(&mut self, high: usize) -> usize {
        let bits = usize::BITS - high.leading_zeros();
        let some = self.below(bits as usize + 1) as u32;
        let number = if some == 0 { 0 } else { (self.bits() >> (64 - some)) as usize };
        if number < high { number } else { high }
    }

    /// Whether something happens that happens `times` in 65,536.
    pub const fn strikes(&mut self, times: u16) -> bool {
        self.bits() >> 48 < times as u64
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub const fn percent(&mut self, percent: u8) -> bool {
        self.below(100) < percent as usize
    }

    /// One of them; there must be one.
    pub const fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A duration up to `high`, whose magnitude is random.
    pub fn duration(&mut self, high: Duration) -> Duration {
        let nanos = usize::try_from(high.as_nanos()).unwrap_or(usize::MAX);
        Duration::from_nanos(self.magnitude(nanos) as u64)
    }

    /// Puts them into a random order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }

    /// Fills it with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}
