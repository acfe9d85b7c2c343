//! Timers: a hierarchical wheel of 1 ms ticks, one timer per index.
//!
//! Comes in: "wake index 7 at tick 1000", and later "it is tick 1002". Goes out: each index once,
//! in the order of the ticks, never early. Setting and cancelling take constant time, and an idle
//! gap of any length costs nothing to cross.

/// Slots of a level: one per value of six bits of the tick.
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;

/// Eleven levels have all 64 bits of a tick: none is too far away.
const LEVELS: usize = 11;

/// Timers in a chunk of memory.
const CHUNK_TIMERS: usize = 1024;

const NONE: u32 = u32::MAX;

/// Set in `prev` of the first timer of a slot, whose number is in the other bits.
const FIRST: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
struct Timer {
    tick: u64,
    next: u32,
    /// The timer before it, or [`FIRST`] and its slot, or [`NONE`] while it is not set.
    prev: u32,
}

const UNSET: Timer = Timer { tick: 0, next: NONE, prev: NONE };

/// A timer wheel. Indices are the caller's, below 2^31; memory grows to the highest one, 16 bytes
/// each.
///
/// # Examples
/// ```
/// use hioload_pools::Wheel;
///
/// let mut wheel = Wheel::new();
/// wheel.set(7, 1000);
/// wheel.set(8, 10);
/// wheel.cancel(8);
/// let mut fired = Vec::new();
/// wheel.advance(999, &mut |index| fired.push(index));
/// assert!(fired.is_empty());
/// wheel.advance(1002, &mut |index| fired.push(index));
/// assert_eq!(fired, [7]);
/// ```
#[derive(Debug)]
pub struct Wheel {
    timers: Vec<Box<[Timer; CHUNK_TIMERS]>>,
    /// The first timer of each slot of each level.
    slots: [[u32; SLOTS]; LEVELS],
    /// Which slots of a level have timers.
    occupied: [u64; LEVELS],
    /// All ticks up to this one have been fired.
    elapsed: u64,
    len: usize,
}

impl Wheel {
    /// A wheel without timers, at tick 0.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            timers: Vec::new(),
            slots: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            elapsed: 0,
            len: 0,
        }
    }

    /// Sets the timer of an index to a tick, instead of the one that it is set to. A tick that is
    /// over fires with the next one.
    pub fn set(&mut self, index: u32, tick: u64) {
        assert!(index < FIRST, "an index has 31 bits");
        self.cancel(index);
        while self.timers.len() <= index as usize / CHUNK_TIMERS {
            self.timers.push(Box::new([UNSET; CHUNK_TIMERS]));
        }
        self.timer(index).tick = tick.max(self.elapsed.saturating_add(1));
        self.link(index);
        self.len += 1;
    }

    /// Unsets the timer of an index, if it is set.
    pub fn cancel(&mut self, index: u32) {
        if self.is_set(index) {
            self.unlink(index);
            self.len -= 1;
        }
    }

    /// Whether the timer of an index is set.
    #[must_use]
    pub fn is_set(&self, index: u32) -> bool {
        let chunk = self.timers.get(index as usize / CHUNK_TIMERS);
        chunk.is_some_and(|chunk| chunk[index as usize % CHUNK_TIMERS].prev != NONE)
    }

    /// How many timers are set.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A tick up to which nothing fires: that of the next timer if it is near, an earlier one if
    /// it is far. Sleep until then and call [`advance`](Self::advance).
    #[must_use]
    pub fn next_tick(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, tick)| tick)
    }

    /// It is tick `now`: calls `fire` with the index of each timer that is due, which is then unset.
    pub fn advance(&mut self, now: u64, fire: &mut impl FnMut(u32)) {
        while let Some((level, slot, tick)) = self.next_slot()
            && tick <= now
        {
            self.elapsed = self.elapsed.max(tick);
            // One by one, so that a `fire` that panics leaves the others where they are.
            while self.slots[level][slot] != NONE {
                let index = self.slots[level][slot];
                let due = self.timer(index).tick;
                self.unlink(index);
                if due <= tick {
                    self.len -= 1;
                    fire(index);
                } else {
                    self.timer(index).tick = due;
                    self.link(index);
                }
            }
        }
        self.elapsed = self.elapsed.max(now);
    }

    /// The earliest slot with timers, and the first of its ticks. On lower levels everything is
    /// earlier than on higher ones, and nothing is in a slot that is over.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|occupied| *occupied != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = SLOT_BITS * level as u32;
        let above = u64::MAX.checked_shl(shift + SLOT_BITS).unwrap_or(0);
        Some((level, slot, self.elapsed & above | (slot as u64) << shift))
    }

    /// The slot for a tick that is not over: the level of the highest six bits in which it differs
    /// from `elapsed`. It stays the right one until `elapsed` comes to the slot.
    fn slot_of(&self, tick: u64) -> (usize, usize) {
        let level = (self.elapsed ^ tick).checked_ilog2().unwrap_or(0) / SLOT_BITS;
        (level as usize, (tick >> (SLOT_BITS * level)) as usize % SLOTS)
    }

    fn timer(&mut self, index: u32) -> &mut Timer {
        &mut self.timers[index as usize / CHUNK_TIMERS][index as usize % CHUNK_TIMERS]
    }

    fn link(&mut self, index: u32) {
        let tick = self.timer(index).tick;
        let (level, slot) = self.slot_of(tick);
        let next = std::mem::replace(&mut self.slots[level][slot], index);
        self.occupied[level] |= 1 << slot;
        if next != NONE {
            self.timer(next).prev = index;
        }
        let timer = self.timer(index);
        timer.next = next;
        timer.prev = FIRST | (level * SLOTS + slot) as u32;
    }

    fn unlink(&mut self, index: u32) {
        let Timer { next, prev, .. } = std::mem::replace(self.timer(index), UNSET);
        if prev & FIRST == 0 {
            self.timer(prev).next = next;
        } else {
            let slot = (prev & !FIRST) as usize;
            self.slots[slot / SLOTS][slot % SLOTS] = next;
            if next == NONE {
                self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
            }
        }
        if next != NONE {
            self.timer(next).prev = prev;
        }
    }
}

impl Default for Wheel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut fired = Vec::new();
        wheel.advance(now, &mut |index| fired.push(index));
        fired
    }

    #[test]
    fn a_timer_is_no_larger_than_16_bytes() {
        assert_eq!(size_of::<Timer>(), 16);
    }

    #[test]
    fn timers_fire_in_the_order_of_their_ticks() {
        let mut wheel = Wheel::new();
        for (index, tick) in [(0, 90_000), (1, 3), (2, 64), (3, 5_000_000_000), (4, 63)] {
            wheel.set(index, tick);
        }
        assert_eq!(fired(&mut wheel, 6_000_000_000), [1, 4, 2, 0, 3]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn setting_again_replaces() {
        let mut wheel = Wheel::new();
        wheel.set(1, 10);
        wheel.set(1, 20);
        assert_eq!(fired(&mut wheel, 15), []);
        assert_eq!(fired(&mut wheel, 20), [1]);
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn a_tick_that_is_over_fires_with_the_next() {
        let mut wheel = Wheel::new();
        fired(&mut wheel, 100);
        wheel.set(1, 50);
        assert_eq!(wheel.next_tick(), Some(101));
        assert_eq!(fired(&mut wheel, 101), [1]);
    }

    #[test]
    fn a_timer_years_away_is_behind_one_of_this_month() {
        let mut wheel = Wheel::new();
        fired(&mut wheel, 1);
        wheel.set(1, 1 << 37);
        wheel.set(2, 1 << 31);
        assert!(wheel.next_tick().unwrap() <= 1 << 31);
        assert_eq!(fired(&mut wheel, 1 << 31), [2]);
        assert_eq!(fired(&mut wheel, (1 << 37) - 1), []);
        assert_eq!(fired(&mut wheel, 1 << 37), [1]);
    }

    #[test]
    fn a_callback_that_panics_loses_no_other_timer() {
        let mut wheel = Wheel::new();
        (0..5).for_each(|index| wheel.set(index, 10));
        let mut first = true;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wheel.advance(10, &mut |_| assert!(std::mem::take(&mut first), "the second one"));
        }));
        assert!(panicked.is_err());
        assert_eq!(wheel.len(), 3);
        assert_eq!(fired(&mut wheel, 10).len(), 3);
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn the_last_tick_of_all_is_a_tick() {
        let mut wheel = Wheel::new();
        wheel.set(1, u64::MAX);
        assert_eq!(fired(&mut wheel, u64::MAX - 1), []);
        assert_eq!(fired(&mut wheel, u64::MAX), [1]);
        wheel.set(2, 0);
        assert_eq!(fired(&mut wheel, u64::MAX), [2]);
    }

    #[test]
    fn a_clock_that_goes_back_fires_nothing() {
        let mut wheel = Wheel::new();
        fired(&mut wheel, 1000);
        wheel.set(1, 1500);
        assert_eq!(fired(&mut wheel, 10), []);
        assert_eq!(fired(&mut wheel, 1499), []);
        assert_eq!(fired(&mut wheel, 1500), [1]);
    }

    proptest! {
        /// Whoever sleeps until the next tick each time fires every timer exactly when it is due,
        /// and wakes in vain once per level and timer at the most.
        #[test]
        fn sleeping_until_the_next_tick_fires_in_time(
            start in 0u64..1 << 62,
            distances in prop::collection::vec((0u32..63, any::<u64>()), 1..40)
        ) {
            let mut wheel = Wheel::new();
            fired(&mut wheel, start);
            let tick = |(bits, random): &(u32, u64)| start + 1 + random % (1 << bits);
            let ticks: Vec<u64> = distances.iter().map(tick).collect();
            (0..).zip(&ticks).for_each(|(index, tick)| wheel.set(index, *tick));
            let mut vain = 0;
            let mut count = 0;
            while let Some(now) = wheel.next_tick() {
                let due = fired(&mut wheel, now);
                prop_assert!(due.iter().all(|index| ticks[*index as usize] == now));
                vain += usize::from(due.is_empty());
                count += due.len();
                prop_assert!(vain < ticks.len() * LEVELS);
            }
            prop_assert_eq!(count, ticks.len());
        }

        #[test]
        fn a_wheel_does_what_a_sorted_map_does(
            operations in prop::collection::vec((0u8..4, 0u32..30, 0u32..34), 1..300)
        ) {
            let mut wheel = Wheel::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0u64;
            for (operation, index, exponent) in operations {
                let distance = (1u64 << exponent) + u64::from(index) * 7;
                match operation {
                    0 | 1 => {
                        wheel.set(index, now + distance);
                        model.insert(index, now + distance);
                    }
                    2 => {
                        wheel.cancel(index);
                        model.remove(&index);
                    }
                    _ => {
                        now += distance / 2;
                        let mut due: Vec<_> = model.iter().filter(|(_, tick)| **tick <= now)
                            .map(|(index, tick)| (*tick, *index)).collect();
                        due.sort_unstable();
                        model.retain(|_, tick| *tick > now);
                        let got = fired(&mut wheel, now);
                        let ticks: BTreeMap<u32, u64> = due.iter().map(|(t, i)| (*i, *t)).collect();
                        let order: Vec<u64> = got.iter().map(|index| ticks[index]).collect();
                        prop_assert!(order.is_sorted());
                        prop_assert_eq!(got.len(), due.len());
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                if let Some(next) = wheel.next_tick() {
                    prop_assert!(next > now);
                    prop_assert!(next <= *model.values().min().unwrap());
                }
            }
        }
    }
}
