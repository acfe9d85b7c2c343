//! Short lists of freed blocks that wait for the next request of their size, newest first.
//!
//! A waiting block is linked through its metadata entry (the field that counts windows while it
//! is lent), so a list needs no memory and touches no page of the block.

use std::cell::Cell;

use super::inner::Entry;

/// Blocks that may wait in one list. More would only hide them from merging.
const BLOCKS_MAX: u32 = 64;
/// Bytes that may wait in one list, so that large blocks soon merge again.
const BYTES_MAX: usize = 1 << 20;

/// The list of one order. A link is the block's number plus one; zero ends the list.
#[derive(Default)]
pub(super) struct QuickList {
    head: Cell<u32>,
    len: Cell<u32>,
}

impl QuickList {
    /// Takes `block` in, unless the list is full.
    pub(super) fn push(&self, block: u32, block_bytes: usize, entries: &[Entry]) -> bool {
        let len = self.len.get();
        let room = len < BLOCKS_MAX && (len as usize + 1) * block_bytes <= BYTES_MAX;
        if room {
            entries[block as usize].link.set(self.head.replace(block + 1));
            self.len.set(len + 1);
        }
        room
    }

    /// The block that came last.
    pub(super) fn pop(&self, entries: &[Entry]) -> Option<u32> {
        let block = self.head.get().checked_sub(1)?;
        self.head.set(entries[block as usize].link.get());
        self.len.set(self.len.get() - 1);
        Some(block)
    }
}
