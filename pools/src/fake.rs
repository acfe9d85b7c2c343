//! Stand-ins for the seams of this crate: a pool that fails on demand, and the simplest store.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::lease::Lease;
use crate::pool::{BytePool, PoolStats};
use crate::slab::{Key, ObjectPool};

/// A pool that refuses when it is told to, and else does what another one does.
///
/// # Examples
/// ```
/// use hioload_pools::fake::FailingPool;
/// use hioload_pools::{Arena, ArenaConfig, BytePool};
///
/// let pool = FailingPool::new(Arena::new(ArenaConfig::default())?);
/// pool.fail_after(1);
/// assert!(pool.acquire(100, 100).is_some());
/// assert!(pool.acquire(100, 100).is_none());
/// assert!(pool.acquire(100, 100).is_some());
/// # Ok::<(), hioload_pools::RegionError>(())
/// ```
#[derive(Debug)]
pub struct FailingPool<P> {
    pool: P,
    /// Calls that may still succeed before one fails.
    left: Cell<Option<u64>>,
    for_ever: Cell<bool>,
    calls: Cell<u64>,
}

impl<P: BytePool> FailingPool<P> {
    /// A pool that does not fail yet.
    pub const fn new(pool: P) -> Self {
        let (left, for_ever, calls) = (Cell::new(None), Cell::new(false), Cell::new(0));
        Self { pool, left, for_ever, calls }
    }

    /// After `count` more successes, one acquire or grow fails.
    pub fn fail_after(&self, count: u64) {
        self.left.set(Some(count));
        self.for_ever.set(false);
    }

    /// After `count` more successes, every acquire and grow fails.
    pub fn fail_for_ever_after(&self, count: u64) {
        self.left.set(Some(count));
        self.for_ever.set(true);
    }

    /// How often it was asked.
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    fn fails(&self) -> bool {
        self.calls.set(self.calls.get() + 1);
        match self.left.get() {
            None => false,
            Some(0) => {
                if !self.for_ever.get() {
                    self.left.set(None);
                }
                true
            }
            Some(left) => {
                self.left.set(Some(left - 1));
                false
            }
        }
    }
}

impl<P: BytePool> BytePool for FailingPool<P> {
    fn acquire(&self, len: usize, expected: usize) -> Option<Lease> {
        if self.fails() { None } else { self.pool.acquire(len, expected) }
    }

    fn grow(&self, lease: &mut Lease, used: usize, len: usize) -> bool {
        !self.fails() && self.pool.grow(lease, used, len)
    }

    fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    fn node(&self) -> Option<u32> {
        self.pool.node()
    }
}

/// An [`ObjectPool`] over a map, whose keys are never used again.
#[derive(Debug)]
pub struct FakeObjectPool<T> {
    objects: BTreeMap<u64, T>,
    next: u64,
    capacity: usize,
}

impl<T> FakeObjectPool<T> {
    /// An empty one that takes at most `capacity` objects.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self { objects: BTreeMap::new(), next: 0, capacity }
    }

    /// All objects, in the order in which they were inserted.
    #[must_use]
    pub fn values(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.objects.values().cloned().collect()
    }
}

impl<T> ObjectPool<T> for FakeObjectPool<T> {
    fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.objects.len() == self.capacity {
            return Err(value);
        }
        let key = Key::from_u64(self.next);
        self.objects.insert(self.next, value);
        self.next += 1;
        Ok(key)
    }

    fn get(&self, key: Key) -> Option<&T> {
        self.objects.get(&key.to_u64())
    }

    fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.objects.get_mut(&key.to_u64())
    }

    fn remove(&mut self, key: Key) -> Option<T> {
        self.objects.remove(&key.to_u64())
    }

    fn len(&self) -> usize {
        self.objects.len()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Arena, ArenaConfig};

    fn pool() -> FailingPool<Arena> {
        let config = ArenaConfig { capacity_bytes: 1 << 20, ..ArenaConfig::default() };
        FailingPool::new(Arena::new(config).unwrap())
    }

    #[test]
    fn one_wish_is_refused_whichever_it_is() {
        for refused in 0..4 {
            let pool = pool();
            pool.fail_after(refused);
            let mut lease = pool.acquire(100, 100);
            let mut answers = vec![lease.is_some()];
            for _ in 0..3 {
                let lease = lease.get_or_insert_with(|| pool.pool.acquire(100, 100).unwrap());
                let len = lease.len() * 2;
                answers.push(pool.grow(lease, 0, len));
                assert_eq!(lease.len() == len, answers[answers.len() - 1]);
            }
            let first_no = answers.iter().position(|answer| !answer);
            assert_eq!(first_no, Some(refused as usize));
            assert_eq!(answers.iter().filter(|answer| **answer).count(), 3);
            assert_eq!(pool.calls(), 4);
        }
    }

    #[test]
    fn a_pool_can_stay_empty_until_it_is_told_otherwise() {
        let pool = pool();
        pool.fail_for_ever_after(1);
        assert!(pool.acquire(1, 1).is_some());
        assert!((0..10).all(|_| pool.acquire(1, 1).is_none()));
        pool.fail_after(u64::MAX);
        assert!(pool.acquire(1, 1).is_some());
        assert_eq!(pool.stats().acquired, 2);
        assert_eq!(pool.node(), None);
    }
}
