//! The allocator: which blocks are free, which are leased, how they split and merge.
//!
//! It deals in *units* of 128 bytes and *orders*: a block of order `k` is 2^k units, begins at a
//! multiple of its size, and is numbered by its first unit. It gives out numbers and counts; access
//! to bytes is the business of windows.

use std::cell::Cell;
use std::ptr::NonNull;
use std::slice;

use super::BLOCK_BYTES_MIN;
use super::free::FreeBlocks;
use super::quick::QuickList;
use crate::pool::PoolStats;
use crate::region::{HugePages, Region, RegionError};

/// The largest order: blocks of 2 GiB, so that lengths fit 32 bits.
const ORDER_MAX: u32 = 24;
const ORDERS: usize = ORDER_MAX as usize + 1;

/// Units that fit 32 bits, less a few so that a number plus one does, too.
const UNITS_MAX: u32 = u32::MAX - 1;

/// What is known of the block that begins at a unit; all zeros where none does. Eight bytes.
pub(super) struct Entry {
    /// Of a leased block, how many windows it has. Of a waiting one, the link of its quick list.
    pub(super) link: Cell<u32>,
    order: Cell<u8>,
    state: Cell<u8>,
}

/// No leased or waiting block begins here; if a free one does, its bit says so.
const STATE_NONE: u8 = 0;
const STATE_LEASED: u8 = 1;
/// In a quick list: neither leased nor free.
const STATE_WAITING: u8 = 2;

pub(crate) struct Inner {
    memory: Region,
    /// Entries, then the words of the bit sets: zeroed, and touched lazily like the blocks.
    metadata: Region,
    units: u32,
    words: u32,
    order_top: u32,
    free: FreeBlocks,
    /// Free, behind a leased block that expects to grow into them: taken by others last.
    spare: FreeBlocks,
    quick: [QuickList; ORDERS],
    waiting: Cell<u32>,
    handles: Cell<usize>,
    blocks: Cell<usize>,
    in_use_bytes: Cell<usize>,
    in_use_bytes_max: Cell<usize>,
    acquired: Cell<u64>,
    refused: Cell<u64>,
    grown_in_place: Cell<u64>,
    grown_by_copy: Cell<u64>,
}

impl Inner {
    /// Starts with one handle and everything free.
    pub(super) fn new(memory: Region, node: Option<u32>) -> Result<Self, RegionError> {
        let units = u32::try_from(memory.len() / BLOCK_BYTES_MIN).unwrap_or(u32::MAX);
        let units = units.min(UNITS_MAX);
        let order_top = units.ilog2().min(ORDER_MAX);
        let (free, words) = FreeBlocks::plan(units, order_top, 0);
        let (spare, words) = FreeBlocks::plan(units, order_top, words);
        let bytes = units as usize * size_of::<Entry>() + words as usize * size_of::<u64>();
        let inner = Self {
            memory,
            metadata: Region::new(bytes, HugePages::Off, node)?,
            units,
            words,
            order_top,
            free,
            spare,
            quick: std::array::from_fn(|_| QuickList::default()),
            waiting: Cell::new(0),
            handles: Cell::new(1),
            blocks: Cell::new(0),
            in_use_bytes: Cell::new(0),
            in_use_bytes_max: Cell::new(0),
            acquired: Cell::new(0),
            refused: Cell::new(0),
            grown_in_place: Cell::new(0),
            grown_by_copy: Cell::new(0),
        };
        inner.free_everything();
        Ok(inner)
    }

    /// Leases a block of at least `len` bytes with a count of one.
    #[inline]
    pub(super) fn acquire(&self, len: usize, expected: usize) -> Option<u32> {
        let order = order_of(len);
        if order > self.order_top {
            bump(&self.refused);
            return None;
        }
        let wish = order_of(expected).clamp(order, self.order_top);
        let Some((block, found)) = self.pop_waiting(wish).or_else(|| self.find(order, wish)) else {
            bump(&self.refused);
            return None;
        };
        self.split(&self.free, block, found, wish.min(found));
        self.split(&self.spare, block, wish.min(found), order);
        self.lease(block, order);
        Some(block)
    }

    /// Gives a block back, and frees the arena if it was the last one and no handle is left.
    ///
    /// # Safety
    /// `this` is live, `block` is leased and has no window any more, and the caller uses neither
    /// afterwards.
    #[inline(never)]
    pub(crate) unsafe fn release(this: NonNull<Self>, block: u32) {
        // SAFETY: the caller promises that it is live.
        let inner = unsafe { this.as_ref() };
        let entry = inner.entry(block);
        assert_eq!(entry.state.get(), STATE_LEASED, "block {block} is leased");
        let order = u32::from(entry.order.get());
        let bytes = bytes_of(order);
        inner.in_use_bytes.set(inner.in_use_bytes.get() - bytes);
        // A block that never grew as expected is merged with what was spared for it.
        let could_have_grown = inner.spare.contains(inner.words(), block ^ units_of(order), order);
        let quick = &inner.quick[order as usize];
        if !could_have_grown && quick.push(block, bytes, inner.entries()) {
            entry.state.set(STATE_WAITING);
            inner.waiting.set(inner.waiting.get() + 1);
        } else {
            entry.state.set(STATE_NONE);
            inner.merge(block, order);
        }
        let blocks = inner.blocks.get() - 1;
        inner.blocks.set(blocks);
        if blocks == 0 && inner.handles.get() == 0 {
            // SAFETY: no block and no handle is left, so nobody else knows `this`.
            unsafe { Self::free(this) };
        }
    }

    /// Extends a leased block over what is behind it until it has `len` bytes; `false`, and
    /// nothing changed, if that is not free or the block would not begin at a multiple of its
    /// size.
    pub(super) fn extend(&self, block: u32, len: usize) -> bool {
        let from = u32::from(self.entry(block).order.get());
        let to = order_of(len);
        let fits = to <= self.order_top && block & (units_of(to) - 1) == 0;
        if !fits || !(from..to).all(|order| self.is_free_now(block + units_of(order), order)) {
            return false;
        }
        for order in from..to {
            self.remove_free(block + units_of(order), order);
        }
        self.entry(block).order.set(to as u8);
        self.use_bytes(bytes_of(to) - bytes_of(from));
        bump(&self.grown_in_place);
        true
    }

    /// How many windows a leased block has.
    #[inline]
    pub(crate) fn refs(&self, block: u32) -> &Cell<u32> {
        let entry = self.entry(block);
        debug_assert_eq!(entry.state.get(), STATE_LEASED, "windows are of leased blocks");
        &entry.link
    }

    /// Usable bytes of a leased block.
    #[inline]
    pub(crate) fn block_len(&self, block: u32) -> usize {
        bytes_of(u32::from(self.entry(block).order.get()))
    }

    /// The address of the first byte of a block.
    #[inline]
    pub(crate) fn address(&self, block: u32) -> NonNull<u8> {
        assert!(block < self.units, "a block lies in its region");
        // SAFETY: the region holds `units` units, and the block begins at one of them.
        unsafe { self.memory.start().add(block as usize * BLOCK_BYTES_MIN) }
    }

    pub(super) fn memory(&self) -> &Region {
        &self.memory
    }

    pub(super) fn stats(&self) -> PoolStats {
        PoolStats {
            capacity_bytes: self.units as usize * BLOCK_BYTES_MIN,
            in_use_bytes: self.in_use_bytes.get(),
            in_use_bytes_max: self.in_use_bytes_max.get(),
            blocks: self.blocks.get(),
            acquired: self.acquired.get(),
            refused: self.refused.get(),
            grown_in_place: self.grown_in_place.get(),
            grown_by_copy: self.grown_by_copy.get(),
        }
    }

    pub(super) fn count_copy(&self) {
        bump(&self.grown_by_copy);
    }

    pub(super) fn add_handle(&self) {
        let handles = self.handles.get().checked_add(1);
        self.handles.set(handles.expect("handles that are not forgotten fit the memory"));
    }

    /// # Safety
    /// `this` is live, and the caller's counted handle is not used afterwards.
    pub(super) unsafe fn drop_handle(this: NonNull<Self>) {
        // SAFETY: the caller promises that it is live.
        let inner = unsafe { this.as_ref() };
        let handles = inner.handles.get() - 1;
        inner.handles.set(handles);
        if handles == 0 && inner.blocks.get() == 0 {
            // SAFETY: no block and no handle is left, so nobody else knows `this`.
            unsafe { Self::free(this) };
        }
    }

    /// # Safety
    /// Nobody else knows `this`, and the caller does not use it afterwards.
    #[cold]
    unsafe fn free(this: NonNull<Self>) {
        // SAFETY: `Arena::new` leaked it out of a box, and nobody uses it any more.
        drop(unsafe { Box::from_raw(this.as_ptr()) });
    }

    /// Finds a block when none of the wished order waits: as large as wished if there is one, else
    /// the largest that holds `order`, else one that somebody hopes to grow into; and all of that
    /// once more after everything that waits was merged.
    fn find(&self, order: u32, wish: u32) -> Option<(u32, u32)> {
        let search = || {
            let words = self.words();
            self.free
                .take_from(words, wish)
                .or_else(|| self.free.take_largest(words, order..wish))
                .or_else(|| (order..wish).rev().find_map(|order| self.pop_waiting(order)))
                .or_else(|| self.spare.take_from(words, order))
        };
        search().or_else(|| {
            if self.waiting.get() == 0 {
                return None;
            }
            (0..=self.order_top).for_each(|order| self.flush(order));
            search()
        })
    }

    #[inline]
    fn pop_waiting(&self, order: u32) -> Option<(u32, u32)> {
        let block = self.quick[order as usize].pop(self.entries())?;
        self.waiting.set(self.waiting.get() - 1);
        self.entry(block).state.set(STATE_NONE);
        Some((block, order))
    }

    /// Cuts the upper halves off a block, into `blocks`, until it is of order `to`.
    #[inline]
    fn split(&self, blocks: &FreeBlocks, block: u32, from: u32, to: u32) {
        for order in (to..from).rev() {
            blocks.insert(self.words(), block + units_of(order), order);
        }
    }

    /// Frees a block, joined with its buddies as far as they are free.
    fn merge(&self, mut block: u32, mut order: u32) {
        while order < self.order_top && self.is_free(block ^ units_of(order), order) {
            self.remove_free(block ^ units_of(order), order);
            block &= !units_of(order);
            order += 1;
        }
        self.free.insert(self.words(), block, order);
    }

    fn flush(&self, order: u32) {
        while let Some((block, order)) = self.pop_waiting(order) {
            self.merge(block, order);
        }
    }

    /// Whether a block is free, also if it has to be taken out of a quick list for that: a lease
    /// that grows comes before a wish that may come.
    fn is_free_now(&self, block: u32, order: u32) -> bool {
        let Some(entry) = self.entries().get(block as usize) else { return false };
        if entry.state.get() == STATE_WAITING && u32::from(entry.order.get()) == order {
            self.flush(order);
        }
        self.is_free(block, order)
    }

    fn is_free(&self, block: u32, order: u32) -> bool {
        let words = self.words();
        self.free.contains(words, block, order) || self.spare.contains(words, block, order)
    }

    fn remove_free(&self, block: u32, order: u32) {
        let words = self.words();
        let free = self.free.contains(words, block, order);
        if free { &self.free } else { &self.spare }.remove(words, block, order);
    }

    /// Covers the units with the largest blocks that fit. Each begins at a multiple of its size,
    /// because those before it are not smaller.
    fn free_everything(&self) {
        let mut block = 0;
        while block < self.units {
            let order = (self.units - block).ilog2().min(self.order_top);
            self.free.insert(self.words(), block, order);
            block += units_of(order);
        }
    }

    #[inline]
    fn lease(&self, block: u32, order: u32) {
        let entry = self.entry(block);
        assert_eq!(entry.state.get(), STATE_NONE, "block {block} is free");
        entry.link.set(1);
        entry.order.set(order as u8);
        entry.state.set(STATE_LEASED);
        self.blocks.set(self.blocks.get() + 1);
        bump(&self.acquired);
        self.use_bytes(bytes_of(order));
    }

    #[inline]
    fn use_bytes(&self, bytes: usize) {
        let in_use = self.in_use_bytes.get() + bytes;
        self.in_use_bytes.set(in_use);
        self.in_use_bytes_max.set(self.in_use_bytes_max.get().max(in_use));
    }

    #[inline]
    fn entry(&self, block: u32) -> &Entry {
        &self.entries()[block as usize]
    }

    #[inline]
    fn entries(&self) -> &[Entry] {
        let start = self.metadata.start().cast::<Entry>().as_ptr();
        // SAFETY: the region begins with `units` entries (`new`), page-aligned, and lives as long
        // as `self`; zeros are an entry; all access goes through cells on one thread.
        unsafe { slice::from_raw_parts(start, self.units as usize) }
    }

    #[inline]
    fn words(&self) -> &[Cell<u64>] {
        let entries = self.metadata.start().cast::<Entry>();
        // SAFETY: the region begins with `units` entries (`new`).
        let start = unsafe { entries.add(self.units as usize) }.cast::<Cell<u64>>().as_ptr();
        // SAFETY: `words` words follow the entries (`new`), aligned because an entry is as large
        // as a word; zeros are a word; all access goes through cells on one thread.
        unsafe { slice::from_raw_parts(start, self.words as usize) }
    }
}

const _: () = assert!(size_of::<Entry>() == size_of::<u64>());

/// The order of the smallest block that holds `len` bytes; beyond every arena's for huge ones.
#[inline]
const fn order_of(len: usize) -> u32 {
    usize::BITS - (len.saturating_sub(1) / BLOCK_BYTES_MIN).leading_zeros()
}

#[inline]
const fn bytes_of(order: u32) -> usize {
    BLOCK_BYTES_MIN << order
}

#[inline]
const fn units_of(order: u32) -> u32 {
    1 << order
}

#[inline]
fn bump(counter: &Cell<u64>) {
    counter.set(counter.get().wrapping_add(1));
}

#[cfg(test)]
impl Inner {
    /// Number and order of each free block, after everything that waits was merged.
    pub(super) fn free_blocks(&self) -> Vec<(u32, u32)> {
        (0..=self.order_top).for_each(|order| self.flush(order));
        let starts = |order| (0..=self.units >> order).map(move |at| (at << order, order));
        let mut blocks: Vec<_> = (0..=self.order_top)
            .flat_map(starts)
            .filter(|&(block, order)| self.free.contains(self.words(), block, order))
            .collect();
        blocks.sort_unstable();
        blocks
    }
}
