//! Free blocks by order: one set of bits each.
//!
//! Bits beside the blocks, not lists inside of them, for three reasons: free memory is not
//! touched (a list inside would fault its pages in), whether a buddy is free is one bit, and taking
//! the lowest address first keeps what is in use together in few pages and large blocks whole.

use std::cell::Cell;

use super::bits::BitTree;

/// The sets of all orders.
pub(super) struct FreeBlocks {
    trees: Box<[BitTree]>,
    /// Bit `k`: there are blocks of order `k`.
    orders: Cell<u32>,
}

impl FreeBlocks {
    /// Plans empty sets for `units` smallest blocks and orders up to `order_top`, with their words
    /// from `first_word` on; answers them and the first word behind.
    pub(super) fn plan(units: u32, order_top: u32, first_word: u32) -> (Self, u32) {
        let mut word = first_word;
        let plan = |order| {
            // Two more than there are blocks: the buddy of the last one may lie behind the end.
            let (tree, next) = BitTree::plan(u64::from(units >> order) + 2, word);
            word = next;
            tree
        };
        let trees = (0..=order_top).map(plan).collect();
        (Self { trees, orders: Cell::new(0) }, word)
    }

    #[inline]
    pub(super) fn contains(&self, words: &[Cell<u64>], block: u32, order: u32) -> bool {
        self.has(order) && self.trees[order as usize].contains(words, block >> order)
    }

    pub(super) fn insert(&self, words: &[Cell<u64>], block: u32, order: u32) {
        self.trees[order as usize].insert(words, block >> order);
        self.orders.set(self.orders.get() | 1 << order);
    }

    /// Takes out a block that is there.
    pub(super) fn remove(&self, words: &[Cell<u64>], block: u32, order: u32) {
        if self.trees[order as usize].remove(words, block >> order) {
            self.orders.set(self.orders.get() & !(1 << order));
        }
    }

    /// The best fit: takes a block of the smallest order from `order` on, the lowest of them.
    pub(super) fn take_from(&self, words: &[Cell<u64>], order: u32) -> Option<(u32, u32)> {
        let orders = self.orders.get() & (u32::MAX << order);
        (orders != 0).then(|| self.take(words, orders.trailing_zeros()))
    }

    /// Takes a block of the largest order of `orders`, the lowest of them.
    pub(super) fn take_largest(
        &self,
        words: &[Cell<u64>],
        orders: std::ops::Range<u32>,
    ) -> Option<(u32, u32)> {
        let order = orders.rev().find(|order| self.has(*order))?;
        Some(self.take(words, order))
    }

    fn take(&self, words: &[Cell<u64>], order: u32) -> (u32, u32) {
        let block = self.trees[order as usize].first(words) << order;
        self.remove(words, block, order);
        (block, order)
    }

    fn has(&self, order: u32) -> bool {
        self.orders.get() >> order & 1 == 1
    }
}
