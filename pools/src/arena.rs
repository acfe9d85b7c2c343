//! The byte pool of a shard: a buddy allocator over one region.
//!
//! Comes in: a wish for some bytes. Goes out: a [`Lease`], or `None`: exhaustion is an answer.
//! Blocks are powers of two from 128 bytes up. Everything that is known about a block lies beside
//! the memory, never in it: a message of 1 MiB takes a block of 1 MiB, and a free page is not
//! touched. It belongs to one thread and never allocates after it was made.

use std::cell::Cell;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

use crate::lease::Lease;
use crate::region::{HugePages, Region, RegionError, RegionReport};

/// The smallest block: two cache lines, so that two blocks never share a pair that the hardware
/// fetches together.
pub const BLOCK_BYTES_MIN: usize = 128;

/// One order per power of two: blocks of 128 bytes to 256 GiB, more than any capacity.
const ORDERS: usize = 32;

/// Released blocks of one order that are kept ready, unmerged, for the next acquire: few enough
/// that they hold little memory back, many enough that a steady state never splits or merges.
const QUICK_BLOCKS_MAX: u32 = 64;
/// The most bytes that the ready blocks of one order may hold back.
const QUICK_BYTES_MAX: usize = 1 << 20;

const NONE: u32 = u32::MAX;

/// Memory by the lease. Single-threaded; a shard has one.
///
/// The contract: a lease has exactly the asked length, is never handed out twice, and its memory
/// is initialised (with zeros at first, with old bytes later). [`FailingPool`](crate::fake::FailingPool)
/// refuses on demand.
pub trait BytePool {
    /// A lease of `len` bytes, placed so that it can grow in place up to `expected` bytes for as
    /// long as nobody else needs the memory behind it. `None`: the pool is exhausted.
    fn acquire(&self, len: usize, expected: usize) -> Option<Lease>;

    /// Makes a lease `len` bytes long, in place if the memory behind it is free, by moving its
    /// first `used` bytes otherwise. The lease must be the only one of its block and start where
    /// the block starts. Answers `false`, and leaves the lease as it is, if the pool is exhausted
    /// or the lease is not such a one.
    fn grow(&self, lease: &mut Lease, used: usize, len: usize) -> bool;

    /// What it has counted.
    fn stats(&self) -> PoolStats;

    /// The NUMA node that its memory is bound to, if it is.
    fn node(&self) -> Option<u32>;
}

/// What a pool counts. Bytes are those of whole blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// All it has.
    pub capacity_bytes: usize,
    /// Leased at this moment.
    pub in_use_bytes: usize,
    /// The most that ever were.
    pub in_use_bytes_max: usize,
    /// Blocks leased at this moment.
    pub blocks: usize,
    /// Leases acquired since the start.
    pub acquired: u64,
    /// Wishes refused since the start.
    pub refused: u64,
    /// Leases that grew where they were.
    pub grown_in_place: u64,
    /// Leases that were moved to grow.
    pub grown_by_copy: u64,
}

/// What an [`Arena`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Address space in bytes; pages are taken from the system only when they are touched.
    pub capacity_bytes: usize,
    /// Which pages.
    pub huge_pages: HugePages,
    /// The NUMA node to bind to.
    pub node: Option<u32>,
}

impl Default for ArenaConfig {
    fn default() -> Self {
        Self { capacity_bytes: 256 << 20, huge_pages: HugePages::Off, node: None }
    }
}

/// A buddy allocator over one [`Region`]: the [`BytePool`] of a shard.
///
/// A clone is another handle of the same pool. The memory is given back to the system when the
/// last handle and the last lease are gone.
///
/// # Examples
/// ```
/// use hioload_pools::{Arena, ArenaConfig, BytePool};
///
/// let pool = Arena::new(ArenaConfig { capacity_bytes: 1 << 20, ..ArenaConfig::default() })?;
/// let mut lease = pool.acquire(5, 5).expect("a fresh pool has room");
/// lease.copy_from_slice(b"hello");
/// let shared = lease.freeze();
/// assert_eq!(&shared.clone()[1..], b"ello");
/// assert!(pool.acquire(2 << 20, 2 << 20).is_none());
/// # Ok::<(), hioload_pools::RegionError>(())
/// ```
#[derive(Clone)]
pub struct Arena {
    inner: Rc<Inner>,
}

/// What is known about the block that starts at a place; all zeros where none does.
struct Meta {
    /// Leases and shares of the block.
    refs: Cell<u32>,
    /// Neighbours in the list that the block is in.
    next: Cell<u32>,
    prev: Cell<u32>,
    order: Cell<u8>,
    state: Cell<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// Not the start of a block.
    Inside = 0,
    Leased = 1,
    Free = 2,
    /// Released, and kept unmerged.
    Quick = 3,
    /// Free, behind a leased block that expects to grow into it: taken by others last.
    Spare = 4,
}

/// Blocks of one order: a list, taken from the front.
struct List {
    head: Cell<u32>,
    tail: Cell<u32>,
    len: Cell<u32>,
}

pub(crate) struct Inner {
    memory: Region,
    /// One [`Meta`] per smallest block, zeroed by the system.
    metas: Region,
    /// How many smallest blocks there are.
    blocks: u32,
    free: [List; ORDERS],
    quick: [List; ORDERS],
    spare: [List; ORDERS],
    stats: Cell<PoolStats>,
}

impl Arena {
    /// Reserves the memory.
    ///
    /// # Errors
    /// The address space cannot be had.
    pub fn new(config: ArenaConfig) -> Result<Self, RegionError> {
        let ArenaConfig { capacity_bytes, huge_pages, node } = config;
        let memory = Region::new(capacity_bytes, huge_pages, node)?;
        let blocks = u32::try_from(memory.len() / BLOCK_BYTES_MIN).unwrap_or(NONE - 1);
        let metas = Region::new(blocks as usize * size_of::<Meta>(), HugePages::Off, node)?;
        let stats =
            PoolStats { capacity_bytes: blocks as usize * BLOCK_BYTES_MIN, ..PoolStats::default() };
        let inner = Inner {
            memory,
            metas,
            blocks,
            free: std::array::from_fn(|_| List::new()),
            quick: std::array::from_fn(|_| List::new()),
            spare: std::array::from_fn(|_| List::new()),
            stats: Cell::new(stats),
        };
        inner.fill();
        Ok(Self { inner: Rc::new(inner) })
    }

    /// What memory it got from the system.
    #[must_use]
    pub fn report(&self) -> &RegionReport {
        self.inner.memory.report()
    }
}

impl BytePool for Arena {
    fn acquire(&self, len: usize, expected: usize) -> Option<Lease> {
        let Some(block) = self.inner.acquire(len, expected) else {
            self.inner.count(|stats| stats.refused += 1);
            return None;
        };
        let len = u32::try_from(len).expect("a block is smaller than 4 GiB");
        Some(Lease::of_block(Rc::clone(&self.inner), block, len))
    }

    fn grow(&self, lease: &mut Lease, used: usize, len: usize) -> bool {
        assert!(used <= lease.len() && used <= len, "only bytes of the lease can be kept");
        if !lease.is_whole_block_of(&self.inner) {
            return false;
        }
        let Some(order) = order_of(len) else { return false };
        let new_len = u32::try_from(len).expect("a block is smaller than 4 GiB");
        if self.inner.widen(lease.block(), order) {
            lease.set_len(new_len);
            return true;
        }
        let Some(mut moved) = self.acquire(len, len) else { return false };
        moved[..used].copy_from_slice(&lease[..used]);
        *lease = moved;
        self.inner.count(|stats| stats.grown_by_copy += 1);
        true
    }

    fn stats(&self) -> PoolStats {
        self.inner.stats.get()
    }

    fn node(&self) -> Option<u32> {
        self.inner.memory.report().node
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl List {
    const fn new() -> Self {
        Self { head: Cell::new(NONE), tail: Cell::new(NONE), len: Cell::new(0) }
    }
}

impl Inner {
    /// The address of the first byte of a block.
    pub(crate) fn address(&self, block: u32) -> NonNull<u8> {
        assert!(block < self.blocks, "a block lies in its region");
        // SAFETY: the block lies in the region, as was just checked.
        unsafe { self.memory.start().add(block as usize * BLOCK_BYTES_MIN) }
    }

    /// Usable bytes of a leased block.
    pub(crate) fn block_len(&self, block: u32) -> usize {
        size_of_order(self.meta(block).order.get())
    }

    pub(crate) fn refs(&self, block: u32) -> u32 {
        self.meta(block).refs.get()
    }

    pub(crate) fn retain(&self, block: u32) {
        let refs = &self.meta(block).refs;
        refs.set(refs.get().checked_add(1).expect("fewer than 4 G leases of one block"));
    }

    /// One lease less; the last one gives the block back.
    pub(crate) fn release(&self, block: u32) {
        let refs = &self.meta(block).refs;
        match refs.get() {
            0 => unreachable!("a block is released once per lease"),
            1 => {
                refs.set(0);
                self.give_back(block);
            }
            more => refs.set(more - 1),
        }
    }

    fn metas(&self) -> &[Meta] {
        let start = self.metas.start().cast::<Meta>().as_ptr();
        // SAFETY: the region is page-aligned, holds `blocks` metas, lives as long as `self`, and
        // zeros are a valid `Meta` (`State::Inside` is 0); all further access goes through cells
        // on one thread.
        unsafe { std::slice::from_raw_parts(start, self.blocks as usize) }
    }

    fn meta(&self, block: u32) -> &Meta {
        &self.metas()[block as usize]
    }

    fn count(&self, change: impl FnOnce(&mut PoolStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    /// Cuts the whole memory into the largest aligned blocks.
    fn fill(&self) {
        let mut block = 0;
        while block < self.blocks {
            let fits = (self.blocks - block).ilog2();
            let aligned = if block == 0 { fits } else { block.trailing_zeros() };
            let order = fits.min(aligned).min(ORDERS as u32 - 1);
            self.push_back(&self.free, block, order as u8, State::Free);
            block += 1 << order;
        }
    }

    fn acquire(&self, len: usize, expected: usize) -> Option<u32> {
        let order = order_of(len)?;
        let wish = order_of(expected).map_or(order, |wish| wish.max(order));
        let found = self.find(order, wish).or_else(|| {
            self.merge_quick();
            self.find(order, wish)
        });
        let (block, found) = found?;
        self.split(block, found, wish.min(found), &self.free, State::Free);
        self.split(block, wish.min(found), order, &self.spare, State::Spare);
        let meta = self.meta(block);
        meta.order.set(order);
        meta.state.set(State::Leased);
        meta.refs.set(1);
        self.count(|stats| {
            stats.acquired += 1;
            stats.blocks += 1;
            stats.in_use_bytes += size_of_order(order);
            stats.in_use_bytes_max = stats.in_use_bytes_max.max(stats.in_use_bytes);
        });
        Some(block)
    }

    /// Takes a block out of a list: of the wished order or the next larger one, else the largest
    /// one below it that fits, else one that somebody hoped to grow into.
    fn find(&self, order: u8, wish: u8) -> Option<(u32, u8)> {
        let take = |lists: &[List; ORDERS], order: u8| Some((self.pop(lists, order)?, order));
        let upwards = || wish..ORDERS as u8;
        let downwards = || (order..wish).rev();
        take(&self.quick, wish)
            .or_else(|| upwards().find_map(|order| take(&self.free, order)))
            .or_else(|| downwards().find_map(|order| take(&self.free, order)))
            .or_else(|| downwards().find_map(|order| take(&self.quick, order)))
            .or_else(|| (order..ORDERS as u8).find_map(|order| take(&self.spare, order)))
    }

    /// Cuts a block down, and puts what is cut off into lists.
    fn split(&self, block: u32, from: u8, to: u8, lists: &[List; ORDERS], state: State) {
        for order in (to..from).rev() {
            self.push_front(lists, block + (1 << order), order, state);
        }
    }

    /// Grows a leased block in place, if all that it needs behind it is free.
    fn widen(&self, block: u32, to: u8) -> bool {
        let from = self.meta(block).order.get();
        if to <= from {
            return true;
        }
        let free = (from..to).all(|order| {
            let buddy = block ^ (1 << order);
            buddy > block && self.list_of_free(buddy, order).is_some()
        });
        if !free {
            return false;
        }
        for order in from..to {
            self.take_free(block + (1 << order), order);
        }
        self.meta(block).order.set(to);
        self.count(|stats| {
            stats.grown_in_place += 1;
            stats.in_use_bytes += size_of_order(to) - size_of_order(from);
            stats.in_use_bytes_max = stats.in_use_bytes_max.max(stats.in_use_bytes);
        });
        true
    }

    /// The lists that a block is in if it is free and of this order.
    fn list_of_free(&self, block: u32, order: u8) -> Option<&[List; ORDERS]> {
        let meta = self.metas().get(block as usize).filter(|meta| meta.order.get() == order)?;
        match meta.state.get() {
            State::Free => Some(&self.free),
            State::Spare => Some(&self.spare),
            State::Inside | State::Leased | State::Quick => None,
        }
    }

    /// Takes a block out of its list if it is free and of this order; answers whether.
    fn take_free(&self, block: u32, order: u8) -> bool {
        let lists = self.list_of_free(block, order);
        lists.is_some_and(|lists| {
            self.unlink(lists, block, order);
            true
        })
    }

    fn give_back(&self, block: u32) {
        let order = self.meta(block).order.get();
        self.count(|stats| {
            stats.blocks -= 1;
            stats.in_use_bytes -= size_of_order(order);
        });
        let kept = self.quick[usize::from(order)].len.get();
        let bytes = size_of_order(order) * (kept as usize + 1);
        let buddy = self.metas().get((block ^ (1 << order)) as usize);
        let could_have_grown = buddy.is_some_and(|buddy| buddy.state.get() == State::Spare);
        if !could_have_grown && kept < QUICK_BLOCKS_MAX && bytes <= QUICK_BYTES_MAX {
            self.push_front(&self.quick, block, order, State::Quick);
        } else {
            self.merge(block, order);
        }
    }

    /// Joins a block with its free buddies, as far as that goes.
    fn merge(&self, mut block: u32, mut order: u8) {
        self.meta(block).state.set(State::Inside);
        while usize::from(order) < ORDERS - 1 {
            let buddy = block ^ (1 << order);
            if !self.take_free(buddy, order) {
                break;
            }
            block = block.min(buddy);
            order += 1;
        }
        self.push_front(&self.free, block, order, State::Free);
    }

    fn merge_quick(&self) {
        for order in 0..ORDERS as u8 {
            while let Some(block) = self.pop(&self.quick, order) {
                self.merge(block, order);
            }
        }
    }

    fn pop(&self, lists: &[List; ORDERS], order: u8) -> Option<u32> {
        let block = lists[usize::from(order)].head.get();
        (block != NONE).then(|| {
            self.unlink(lists, block, order);
            block
        })
    }

    fn push_front(&self, lists: &[List; ORDERS], block: u32, order: u8, state: State) {
        let next = lists[usize::from(order)].head.get();
        self.link(lists, block, order, state, NONE, next);
    }

    fn push_back(&self, lists: &[List; ORDERS], block: u32, order: u8, state: State) {
        let prev = lists[usize::from(order)].tail.get();
        self.link(lists, block, order, state, prev, NONE);
    }

    fn link(
        &self,
        lists: &[List; ORDERS],
        block: u32,
        order: u8,
        state: State,
        prev: u32,
        next: u32,
    ) {
        let list = &lists[usize::from(order)];
        let meta = self.meta(block);
        meta.order.set(order);
        meta.state.set(state);
        meta.prev.set(prev);
        meta.next.set(next);
        self.metas().get(prev as usize).map_or(&list.head, |meta| &meta.next).set(block);
        self.metas().get(next as usize).map_or(&list.tail, |meta| &meta.prev).set(block);
        list.len.set(list.len.get() + 1);
    }

    fn unlink(&self, lists: &[List; ORDERS], block: u32, order: u8) {
        let list = &lists[usize::from(order)];
        let meta = self.meta(block);
        let (prev, next) = (meta.prev.get(), meta.next.get());
        meta.state.set(State::Inside);
        self.metas().get(prev as usize).map_or(&list.head, |meta| &meta.next).set(next);
        self.metas().get(next as usize).map_or(&list.tail, |meta| &meta.prev).set(prev);
        list.len.set(list.len.get() - 1);
    }

    #[cfg(test)]
    fn free_blocks(&self) -> Vec<(u32, u8)> {
        self.merge_quick();
        let blocks = (0..self.blocks).filter(|block| self.meta(*block).state.get() == State::Free);
        blocks.map(|block| (block, self.meta(block).order.get())).collect()
    }
}

/// The smallest order whose blocks hold `len` bytes; `None` beyond all of them.
fn order_of(len: usize) -> Option<u8> {
    let blocks = len.max(1).div_ceil(BLOCK_BYTES_MIN).checked_next_power_of_two()?;
    let order = blocks.trailing_zeros();
    // A lease counts its bytes in 32 bits.
    (u32::try_from(len).is_ok() && (order as usize) < ORDERS).then_some(order as u8)
}

const fn size_of_order(order: u8) -> usize {
    BLOCK_BYTES_MIN << order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arena(capacity_bytes: usize) -> Arena {
        Arena::new(ArenaConfig { capacity_bytes, ..ArenaConfig::default() }).unwrap()
    }

    #[test]
    fn what_is_known_of_a_block_takes_an_eighth_of_it() {
        assert_eq!(size_of::<Meta>(), BLOCK_BYTES_MIN / 8);
        assert_eq!(size_of::<Option<Lease>>(), 24);
    }

    #[test]
    fn a_capacity_that_is_no_power_of_two_is_used_whole() {
        let pool = arena(3 << 20);
        let two = pool.acquire(2 << 20, 2 << 20).unwrap();
        let one = pool.acquire(1 << 20, 1 << 20).unwrap();
        assert!(pool.acquire(1, 1).is_none());
        assert_eq!(pool.stats().in_use_bytes, 3 << 20);
        assert_eq!(pool.stats().refused, 1);
        drop((one, two));
        assert_eq!(pool.inner.free_blocks().len(), 2);
    }

    #[test]
    fn a_payload_of_1_mib_takes_a_block_of_1_mib() {
        let pool = arena(4 << 20);
        assert_eq!(pool.acquire(1 << 20, 0).unwrap().block_len(), 1 << 20);
    }

    #[test]
    fn an_expected_size_is_reached_in_place() {
        let pool = arena(8 << 20);
        let mut lease = pool.acquire(64 << 10, 1 << 20).unwrap();
        let others: Vec<_> = (0..64).map(|_| pool.acquire(1000, 1000).unwrap()).collect();
        let address = lease.as_mut_ptr();
        for kib in [128, 256, 512, 1024] {
            let used = lease.len();
            assert!(pool.grow(&mut lease, used, kib << 10));
        }
        assert_eq!(lease.as_mut_ptr(), address);
        assert_eq!(pool.stats().grown_in_place, 4);
        assert_eq!(pool.stats().grown_by_copy, 0);
        drop(others);
    }

    #[test]
    fn leases_that_never_grew_as_expected_take_the_same_memory_again() {
        let pool = arena(64 << 20);
        let address = pool.acquire(64 << 10, 1 << 20).unwrap().as_mut_ptr();
        for _ in 0..100 {
            assert_eq!(pool.acquire(64 << 10, 1 << 20).unwrap().as_mut_ptr(), address);
        }
    }

    #[test]
    fn a_lease_that_cannot_grow_in_place_moves_with_its_bytes() {
        let pool = arena(1 << 20);
        let mut lease = pool.acquire(128, 128).unwrap();
        lease.copy_from_slice(&[7; 128]);
        let behind = pool.acquire(128, 128).unwrap();
        assert!(pool.grow(&mut lease, 100, 4096));
        assert_eq!(lease.len(), 4096);
        assert_eq!(&lease[..100], &[7; 100]);
        assert_eq!(pool.stats().grown_by_copy, 1);
        drop((lease, behind));
        assert_eq!(pool.stats().in_use_bytes, 0);
    }

    #[test]
    fn a_lease_that_is_not_alone_does_not_grow() {
        let pool = arena(1 << 20);
        let mut lease = pool.acquire(1000, 1000).unwrap();
        let tail = lease.split_off(500);
        assert!(!pool.grow(&mut lease, 500, 4096));
        assert_eq!(lease.len(), 500);
        lease.unsplit(tail).unwrap();
        assert!(pool.grow(&mut lease, 500, 4096));
    }

    #[test]
    fn windows_join_only_where_they_touch() {
        let pool = arena(1 << 20);
        let mut first = pool.acquire(30, 30).unwrap();
        let mut second = first.split_off(10);
        let third = second.split_off(10);
        let third = first.unsplit(third).unwrap_err();
        assert!(first.unsplit(second).is_ok());
        assert!(first.unsplit(third).is_ok());
        assert_eq!(first.len(), 30);
        assert!(first.is_sole());
    }

    #[test]
    fn a_block_goes_back_with_its_last_window() {
        let pool = arena(1 << 20);
        let mut lease = pool.acquire(100, 100).unwrap();
        let shared = lease.split_to(50).freeze();
        let clone = shared.clone();
        drop(lease);
        drop(shared);
        assert_eq!(pool.stats().blocks, 1);
        let mut again = clone.try_into_lease().unwrap();
        assert!(again.reclaim());
        assert_eq!(again.len(), again.block_len());
        drop(again);
        assert_eq!(pool.stats().blocks, 0);
    }

    #[test]
    fn memory_outlives_its_pool_while_it_is_leased() {
        let pool = arena(1 << 20);
        let mut lease = pool.acquire(5, 5).unwrap();
        drop(pool);
        lease.copy_from_slice(b"still");
        assert_eq!(&*lease.freeze(), b"still");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn only_touched_pages_are_paid_for() {
        fn resident() -> usize {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        }
        let before = resident();
        let pool = arena(1 << 30);
        let mut leases: Vec<_> = (0..16).map(|_| pool.acquire(1 << 20, 1 << 20).unwrap()).collect();
        let grown = resident().saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes are resident for leases that nobody touched");
        for lease in &mut leases {
            lease.fill(1);
        }
        assert!(resident() - before > 15 << 20);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Acquire(usize, usize),
        Grow(usize, usize),
        Split(usize, usize),
        Join(usize, usize),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let size = prop_oneof![0usize..300, 0usize..20_000, 0usize..60_000];
        prop_oneof![
            (size.clone(), size.clone()).prop_map(|(len, more)| Step::Acquire(len, len + more)),
            (any::<usize>(), size.clone()).prop_map(|(pick, more)| Step::Grow(pick, more)),
            (any::<usize>(), any::<usize>()).prop_map(|(pick, at)| Step::Split(pick, at)),
            (any::<usize>(), any::<usize>()).prop_map(|(pick, other)| Step::Join(pick, other)),
            any::<usize>().prop_map(Step::Drop),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Every lease keeps its own bytes whatever happens to the others, and at the end the
        /// memory is as it was at first.
        #[test]
        fn leases_never_overlap(steps in prop::collection::vec(step(), 1..200)) {
            let pool = arena((1 << 20) + (1 << 18));
            let fresh = pool.inner.free_blocks();
            let mut leases: Vec<(Lease, u8)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                let mark = number as u8;
                match step {
                    Step::Acquire(len, expected) => {
                        if let Some(mut lease) = pool.acquire(len, expected) {
                            prop_assert_eq!(lease.len(), len);
                            lease.fill(mark);
                            leases.push((lease, mark));
                        }
                    }
                    Step::Grow(pick, more) if !leases.is_empty() => {
                        let at = pick % leases.len();
                        let (lease, mark) = &mut leases[at];
                        let used = lease.len();
                        if pool.grow(lease, used, used + more) {
                            prop_assert_eq!(lease.len(), used + more);
                            prop_assert!(lease[..used].iter().all(|byte| byte == mark));
                            lease.fill(*mark);
                        }
                    }
                    Step::Split(pick, at) if !leases.is_empty() => {
                        let index = pick % leases.len();
                        let (lease, mark) = &mut leases[index];
                        let tail = lease.split_off(at % (lease.len() + 1));
                        let mark = *mark;
                        leases.push((tail, mark));
                    }
                    Step::Join(pick, other) if leases.len() > 1 => {
                        let (tail, tail_mark) = leases.swap_remove(pick % leases.len());
                        let index = other % leases.len();
                        if leases[index].1 != tail_mark {
                            leases.push((tail, tail_mark));
                        } else if let Err(tail) = leases[index].0.unsplit(tail) {
                            leases.push((tail, tail_mark));
                        }
                    }
                    Step::Drop(pick) if !leases.is_empty() => {
                        leases.swap_remove(pick % leases.len());
                    }
                    _ => {}
                }
                for (lease, mark) in &leases {
                    prop_assert!(lease.iter().all(|byte| byte == mark));
                }
            }
            drop(leases);
            prop_assert_eq!(pool.stats().in_use_bytes, 0);
            prop_assert_eq!(pool.stats().blocks, 0);
            prop_assert_eq!(pool.inner.free_blocks(), fresh);
        }
    }
}
