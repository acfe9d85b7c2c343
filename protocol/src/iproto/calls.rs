//! The calls that wait for their responses, and for a while those that no longer do.
//!
//! We choose the syncs, so a call is stored at its sync modulo the size of the table, and a sync
//! whose place is taken is passed over: a response is found by one look, without hashing. At
//! least half of the places are free, so a search for one is short on average. Nothing is
//! allocated for a call once the table has its size.

use alloc::vec::Vec;

/// How many places a table begins with.
const PLACES_MIN: usize = 16;

/// What a sync stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// A call that waits.
    Waiting,
    /// A call that ended without its response.
    Late,
    /// No call of ours.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Calls<T> {
    places: Places<T>,
    /// When each call that waits times out.
    waiting: Deadlines,
    /// When each call that ended without a response is forgotten.
    late: Deadlines,
    last_sync: u32,
    /// How many deadlines there were.
    deadlines: u64,
}

impl<T> Calls<T> {
    pub(super) const fn new() -> Self {
        Self {
            places: Places(Vec::new()),
            waiting: Deadlines(Vec::new()),
            late: Deadlines(Vec::new()),
            last_sync: 0,
            deadlines: 0,
        }
    }

    /// How many calls wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting.0.len()
    }

    /// When the first call times out.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.waiting.first().map(|first| first.at_ms)
    }

    /// Stores a call and gives its sync.
    pub(super) fn insert(&mut self, msg: u32, deadline_ms: u64, token: T) -> u32 {
        if (self.waiting.0.len() + self.late.0.len() + 1) * 2 > self.places.0.len() {
            self.places.grow();
        }
        let sync = loop {
            self.last_sync = self.last_sync.wrapping_add(1);
            if self.last_sync != 0 && self.places.is_free(self.last_sync) {
                break self.last_sync;
            }
        };
        *self.places.at(sync) = Place { sync, msg, position: 0, token: Some(token) };
        let deadline = self.deadline(deadline_ms, sync);
        self.waiting.push(deadline, &mut self.places);
        sync
    }

    pub(super) fn look(&self, msg: u32, sync: u32) -> Lookup {
        match self.places.find(msg, sync) {
            None => Lookup::Unknown,
            Some(Place { token: Some(_), .. }) => Lookup::Waiting,
            Some(_) => Lookup::Late,
        }
    }

    /// Takes the call that this is the response of.
    pub(super) fn resolve(&mut self, msg: u32, sync: u32) -> Option<T> {
        let position = self.places.find(msg, sync).filter(|place| place.token.is_some())?.position;
        self.waiting.remove(position, &mut self.places);
        self.places.free(sync)
    }

    /// Forgets a call that had ended, as its response came after all.
    pub(super) fn forget_late(&mut self, msg: u32, sync: u32) {
        if let Some(Place { position, token: None, .. }) = self.places.find(msg, sync) {
            let position = *position;
            self.late.remove(position, &mut self.places);
            self.places.free(sync);
        }
    }

    /// Takes a call that will have no response, but remembers it, until `forget_ms` at most and
    /// only among the `late_max` newest.
    pub(super) fn cancel(
        &mut self,
        msg: u32,
        sync: u32,
        late_max: u32,
        forget_ms: u64,
    ) -> Option<T> {
        let position = self.places.find(msg, sync).filter(|place| place.token.is_some())?.position;
        self.waiting.remove(position, &mut self.places);
        if late_max == 0 {
            return self.places.free(sync);
        }
        while self.late.0.len() >= late_max as usize {
            self.forget_oldest();
        }
        let token = self.places.at(sync).token.take();
        let deadline = self.deadline(forget_ms, sync);
        self.late.push(deadline, &mut self.places);
        token
    }

    /// The msg and sync of a call whose time is over.
    pub(super) fn expired(&self, now_ms: u64) -> Option<(u32, u32)> {
        let first = self.waiting.first().filter(|first| first.at_ms <= now_ms)?;
        Some((self.places.get(first.sync)?.msg, first.sync))
    }

    /// Forgets the calls that were remembered long enough.
    pub(super) fn forget_until(&mut self, now_ms: u64) {
        while self.late.first().is_some_and(|first| first.at_ms <= now_ms) {
            self.forget_oldest();
        }
    }

    /// Takes any call that waits.
    pub(super) fn take(&mut self) -> Option<T> {
        let sync = self.waiting.first()?.sync;
        self.waiting.remove(0, &mut self.places);
        self.places.free(sync)
    }

    const fn deadline(&mut self, at_ms: u64, sync: u32) -> Deadline {
        self.deadlines += 1;
        Deadline { at_ms, number: self.deadlines, sync }
    }

    fn forget_oldest(&mut self) {
        if let Some(first) = self.late.first() {
            let sync = first.sync;
            self.late.remove(0, &mut self.places);
            self.places.free(sync);
        }
    }
}

/// Where calls lie: as many places as a power of two.
#[derive(Debug)]
struct Places<T>(Vec<Place<T>>);

#[derive(Debug)]
struct Place<T> {
    /// 0: the place is free.
    sync: u32,
    msg: u32,
    /// Where its deadline lies: among the waiting ones if there is a token, else the late ones.
    position: u32,
    token: Option<T>,
}

impl<T> Place<T> {
    const FREE: Self = Self { sync: 0, msg: 0, position: 0, token: None };
}

impl<T> Places<T> {
    const fn index(&self, sync: u32) -> usize {
        sync as usize & (self.0.len() - 1)
    }

    fn at(&mut self, sync: u32) -> &mut Place<T> {
        let index = self.index(sync);
        &mut self.0[index]
    }

    fn is_free(&self, sync: u32) -> bool {
        self.0[self.index(sync)].sync == 0
    }

    fn get(&self, sync: u32) -> Option<&Place<T>> {
        if sync == 0 || self.0.is_empty() {
            return None;
        }
        Some(&self.0[self.index(sync)]).filter(|place| place.sync == sync)
    }

    fn find(&self, msg: u32, sync: u32) -> Option<&Place<T>> {
        self.get(sync).filter(|place| place.msg == msg)
    }

    fn free(&mut self, sync: u32) -> Option<T> {
        core::mem::replace(self.at(sync), Place::FREE).token
    }

    /// Doubles. What lay at different places still does: its sync says more of them apart.
    fn grow(&mut self) {
        let len = (self.0.len() * 2).max(PLACES_MIN);
        let places = core::mem::take(&mut self.0);
        self.0.resize_with(len, || Place::FREE);
        for place in places {
            let sync = place.sync;
            if sync != 0 {
                *self.at(sync) = place;
            }
        }
    }
}

/// Ordered by time, and at the same time by when it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline {
    at_ms: u64,
    number: u64,
    sync: u32,
}

/// A binary heap, whose items know where they are, so that any of them can be taken out. With one
/// timeout for all calls, putting one in moves nothing.
#[derive(Debug)]
struct Deadlines(Vec<Deadline>);

impl Deadlines {
    fn first(&self) -> Option<&Deadline> {
        self.0.first()
    }

    fn push<T>(&mut self, deadline: Deadline, places: &mut Places<T>) {
        self.0.push(deadline);
        self.rise(self.0.len() - 1, places);
    }

    fn remove<T>(&mut self, position: u32, places: &mut Places<T>) {
        let at = position as usize;
        self.0.swap_remove(at);
        if at < self.0.len() {
            self.rise(at, places);
            self.sink(at, places);
        }
    }

    /// Moves an item towards the root until its parent is not later, and notes where it is.
    fn rise<T>(&mut self, mut at: usize, places: &mut Places<T>) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.0[parent] <= self.0[at] {
                break;
            }
            self.0.swap(parent, at);
            self.note(at, places);
            at = parent;
        }
        self.note(at, places);
    }

    /// Moves an item away from the root until no child is earlier.
    fn sink<T>(&mut self, mut at: usize, places: &mut Places<T>) {
        loop {
            let left = 2 * at + 1;
            let Some(first) = self.0.get(left) else { return };
            let earlier = self.0.get(left + 1).is_some_and(|right| right < first);
            let child = if earlier { left + 1 } else { left };
            if self.0[at] <= self.0[child] {
                return;
            }
            self.0.swap(at, child);
            self.note(at, places);
            self.note(child, places);
            at = child;
        }
    }

    fn note<T>(&self, at: usize, places: &mut Places<T>) {
        places.at(self.0[at].sync).position = at as u32; // there are fewer than 2^32 syncs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_turn_over_and_pass_by_0_and_those_in_use() {
        let mut calls = Calls::new();
        assert_eq!(calls.insert(7, 5, 'a'), 1);
        assert_eq!(calls.insert(7, 5, 'b'), 2);
        assert_eq!(calls.cancel(7, 2, 9, 100), Some('b'));
        calls.last_sync = u32::MAX - 1;
        assert_eq!(calls.insert(8, 5, 'c'), u32::MAX);
        assert_eq!(calls.insert(8, 5, 'd'), 3, "1 waits and 2 is remembered");
        assert_eq!(
            [(7, 1), (7, 2), (8, 2), (8, 3), (8, 0)].map(|(msg, sync)| calls.look(msg, sync)),
            [Lookup::Waiting, Lookup::Late, Lookup::Unknown, Lookup::Waiting, Lookup::Unknown,]
        );
        assert_eq!(calls.resolve(7, 1), Some('a'));
        assert_eq!(calls.resolve(8, u32::MAX), Some('c'));
    }

    /// Calls that stay while the syncs go around the table many times keep their places.
    #[test]
    fn long_calls_are_found_however_many_short_ones_pass() {
        let mut calls = Calls::new();
        let mut long = Vec::new();
        for round in 0..2_000_u32 {
            let short = calls.insert(1, u64::from(round), round);
            if round.is_multiple_of(10) {
                long.push((calls.insert(2, u64::from(round), round), round));
            }
            assert_eq!(calls.resolve(1, short), Some(round));
        }
        assert_eq!(calls.waiting(), 200);
        assert!(calls.places.0.len() <= 512, "{} places", calls.places.0.len());
        for (sync, round) in long {
            assert_eq!(calls.expired(u64::from(round)), Some((2, sync)), "the earliest is first");
            assert_eq!(calls.resolve(2, sync), Some(round));
        }
        assert_eq!(calls.take(), None);
    }
}
