//! Objects by key: a generational slab that grows by chunks and never moves what it holds.
//!
//! Comes in: a value. Goes out: a [`Key`] that names it until it is removed, and nothing after
//! that: a slot that is used again has another generation.

/// Names a value in an [`ObjectPool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The slot.
    pub index: u32,
    /// Which use of the slot; below 2^31.
    pub generation: u32,
}

impl Key {
    /// Both in one number: the generation in the upper half.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// The key that [`to_u64`](Self::to_u64) made this number of.
    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self { index: number as u32, generation: (number >> 32) as u32 }
    }
}

/// A bounded store of objects that are named by keys.
///
/// The contract: a key names one object until that is removed, and no object ever after; a full
/// pool gives the value back. [`FakeObjectPool`](crate::fake::FakeObjectPool) is the simplest one.
pub trait ObjectPool<T> {
    /// Stores a value.
    ///
    /// # Errors
    /// The pool is full: the value comes back.
    fn insert(&mut self, value: T) -> Result<Key, T>;

    /// The object of a key, unless it was removed.
    fn get(&self, key: Key) -> Option<&T>;

    /// The object of a key, unless it was removed.
    fn get_mut(&mut self, key: Key) -> Option<&mut T>;

    /// Removes an object.
    fn remove(&mut self, key: Key) -> Option<T>;

    /// How many objects there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most objects that it takes.
    fn capacity(&self) -> usize;
}

/// Slots in a chunk: memory is taken for this many objects at once.
const CHUNK_SLOTS: usize = 256;

/// No slot: the end of the list of free ones.
const NONE: u32 = u32::MAX;

/// Generations are counted in 31 bits, so that keys have numbers to spare for other purposes.
const GENERATION_MASK: u32 = u32::MAX >> 1;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

/// The [`ObjectPool`] of a shard.
///
/// Memory is taken in chunks as it is needed and kept; objects never move. The space for a value is
/// that of an `Option` of it and 8 bytes.
///
/// # Examples
/// ```
/// use hioload_pools::{ObjectPool, Slab};
///
/// let mut slab = Slab::new(1000);
/// let key = slab.insert("session").expect("it is empty");
/// assert_eq!(slab.get(key), Some(&"session"));
/// slab.remove(key);
/// let next = slab.insert("another").expect("it is empty");
/// assert_eq!(next.index, key.index);
/// assert_eq!(slab.get(key), None);
/// ```
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Box<[Slot<T>]>>,
    free: u32,
    len: usize,
    capacity: usize,
}

impl<T> Slab<T> {
    /// An empty slab that takes at most `capacity` objects, 2^32 - 1 at the most.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        let most = NONE as usize;
        let capacity = if capacity < most { capacity } else { most };
        Self { chunks: Vec::new(), free: NONE, len: 0, capacity }
    }

    /// The same with memory for its first 256 objects already, for what must not allocate later.
    #[must_use]
    pub fn with_first_chunk(mut self) -> Self {
        if self.chunks.is_empty() && self.capacity > 0 {
            self.grow();
        }
        self
    }

    /// The object in a slot, whatever its generation.
    #[must_use]
    pub fn get_index(&self, index: u32) -> Option<&T> {
        self.slot(index)?.value.as_ref()
    }

    /// The object in a slot, whatever its generation.
    #[must_use]
    pub fn get_index_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slot_mut(index)?.value.as_mut()
    }

    /// All objects, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().filter_map(|slot| slot.value.as_ref())
    }

    /// All objects, in the order of their slots.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten().filter_map(|slot| slot.value.as_mut())
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let index = index as usize;
        self.chunks.get(index / CHUNK_SLOTS)?.get(index % CHUNK_SLOTS)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        let index = index as usize;
        self.chunks.get_mut(index / CHUNK_SLOTS)?.get_mut(index % CHUNK_SLOTS)
    }

    /// Adds a chunk, its slots free in the order of their indices.
    fn grow(&mut self) {
        let base = self.chunks.len() * CHUNK_SLOTS;
        let slots = CHUNK_SLOTS.min(self.capacity - base);
        let slot = |offset: usize| {
            let next = if offset + 1 < slots { (base + offset + 1) as u32 } else { NONE };
            Slot { generation: 0, next_free: next, value: None }
        };
        self.chunks.push((0..slots).map(slot).collect());
        self.free = base as u32;
    }
}

impl<T> ObjectPool<T> for Slab<T> {
    fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.len == self.capacity {
            return Err(value);
        }
        if self.free == NONE {
            self.grow();
        }
        let index = self.free;
        let slot = self.slot_mut(index).expect("the free list names slots that exist");
        assert!(slot.value.is_none(), "a free slot is empty");
        slot.value = Some(value);
        let (generation, next) = (slot.generation, slot.next_free);
        self.free = next;
        self.len += 1;
        Ok(Key { index, generation })
    }

    fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slot(key.index).filter(|slot| slot.generation == key.generation)?;
        slot.value.as_ref()
    }

    fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slot_mut(key.index).filter(|slot| slot.generation == key.generation)?;
        slot.value.as_mut()
    }

    fn remove(&mut self, key: Key) -> Option<T> {
        let free = self.free;
        let slot = self.slot_mut(key.index).filter(|slot| slot.generation == key.generation)?;
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        slot.next_free = free;
        self.free = key.index;
        self.len -= 1;
        Some(value)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fake::FakeObjectPool;

    #[test]
    fn a_full_slab_gives_the_value_back() {
        let mut slab = Slab::new(2);
        slab.insert(1).unwrap();
        slab.insert(2).unwrap();
        assert_eq!(slab.insert(3), Err(3));
        assert_eq!(slab.len(), 2);
    }

    #[test]
    fn a_stale_key_finds_nothing_for_2_to_the_31_uses() {
        let mut slab = Slab::new(1);
        let first = slab.insert(0).unwrap();
        slab.remove(first);
        for use_number in 1..1000 {
            let key = slab.insert(use_number).unwrap();
            assert_eq!(slab.get(first), None);
            assert_eq!(slab.remove(first), None);
            assert_eq!(slab.remove(key), Some(use_number));
        }
    }

    #[test]
    fn values_never_move() {
        let mut slab = Slab::new(10_000);
        let key = slab.insert(7u64).unwrap();
        let address = std::ptr::from_ref(slab.get(key).unwrap());
        for value in 0..9_999 {
            slab.insert(value).unwrap();
        }
        assert_eq!(std::ptr::from_ref(slab.get(key).unwrap()), address);
        assert_eq!(slab.iter().count(), 10_000);
    }

    #[test]
    fn a_key_survives_being_a_number() {
        let key = Key { index: 3, generation: GENERATION_MASK };
        assert_eq!(Key::from_u64(key.to_u64()), key);
    }

    proptest! {
        #[test]
        fn a_slab_does_what_a_map_does(operations in prop::collection::vec((0u8..3, 0usize..40), 1..400)) {
            let mut slab = Slab::new(20);
            let mut model = FakeObjectPool::new(20);
            let mut keys = Vec::new();
            for (number, (operation, pick)) in operations.into_iter().enumerate() {
                match operation {
                    0 => match (slab.insert(number), model.insert(number)) {
                        (Ok(real), Ok(expected)) => keys.push((real, expected)),
                        (real, expected) => prop_assert_eq!(real.is_err(), expected.is_err()),
                    },
                    1 if !keys.is_empty() => {
                        let (real, expected) = keys[pick % keys.len()];
                        prop_assert_eq!(slab.remove(real), model.remove(expected));
                    }
                    _ if !keys.is_empty() => {
                        let (real, expected) = keys[pick % keys.len()];
                        prop_assert_eq!(slab.get(real), model.get(expected));
                    }
                    _ => {}
                }
                prop_assert_eq!(slab.len(), model.len());
            }
            let mut left: Vec<_> = slab.iter().copied().collect();
            left.sort_unstable();
            prop_assert_eq!(left, model.values());
        }
    }
}
