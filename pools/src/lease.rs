//! Windows of pool memory: exclusive ones ([`Lease`]) and shared, read-only ones ([`Shared`]).
//!
//! Why this is sound: a block is leased as one window; a window is only ever *split* in two that do
//! not overlap, joined again, or narrowed, so that no two exclusive windows of a block ever
//! overlap. A shared window comes from an exclusive one that it replaces, and is only read. A block
//! is counted by its windows and goes back to its pool with the last of them; the memory stays
//! mapped for as long as a window holds its pool.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::arena::Inner;

/// An exclusive window of pool memory.
///
/// It reads and writes as `[u8]`, splits without a copy, and goes back to its pool when the last
/// window of its block is dropped. It stays on its thread:
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<hioload_pools::Lease>();
/// ```
pub struct Lease {
    pool: Rc<Inner>,
    block: u32,
    start: u32,
    len: u32,
}

impl Lease {
    pub(crate) fn of_block(pool: Rc<Inner>, block: u32, len: u32) -> Self {
        Self { pool, block, start: 0, len }
    }

    pub(crate) const fn block(&self) -> u32 {
        self.block
    }

    pub(crate) fn set_len(&mut self, len: u32) {
        assert!(
            self.start as usize + len as usize <= self.block_len(),
            "a window lies in its block"
        );
        self.len = len;
    }

    /// Whether it is the only window of its block, starts where that starts, and is of `pool`.
    pub(crate) fn is_whole_block_of(&self, pool: &Rc<Inner>) -> bool {
        Rc::ptr_eq(&self.pool, pool) && self.start == 0 && self.is_sole()
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes out the first `at` bytes, and keeps the rest.
    ///
    /// # Panics
    /// `at` is beyond the end.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> Self {
        let rest = self.split_off(at);
        std::mem::replace(self, rest)
    }

    /// Keeps the first `at` bytes, and takes out the rest.
    ///
    /// # Panics
    /// `at` is beyond the end.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let at = self.position(at);
        self.pool.retain(self.block);
        let rest = Self {
            pool: Rc::clone(&self.pool),
            block: self.block,
            start: self.start + at,
            len: self.len - at,
        };
        self.len = at;
        rest
    }

    /// Joins the window that directly follows in the same block.
    ///
    /// # Errors
    /// It does not follow: it comes back.
    pub fn unsplit(&mut self, tail: Self) -> Result<(), Self> {
        let follows = Rc::ptr_eq(&self.pool, &tail.pool)
            && self.block == tail.block
            && self.start + self.len == tail.start;
        if !follows {
            return Err(tail);
        }
        self.len += tail.len;
        Ok(())
    }

    /// Forgets everything behind the first `len` bytes; does nothing if it is not longer.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.len = self.position(len);
        }
    }

    /// Forgets the first `count` bytes.
    ///
    /// # Panics
    /// It is shorter.
    pub fn advance(&mut self, count: usize) {
        let count = self.position(count);
        self.start += count;
        self.len -= count;
    }

    /// Makes it read-only, so that it can be shared.
    #[must_use]
    pub const fn freeze(self) -> Shared {
        Shared(self)
    }

    /// Whether it is the only window of its block.
    #[must_use]
    pub fn is_sole(&self) -> bool {
        self.pool.refs(self.block) == 1
    }

    /// If it is the only window of its block, widens it to the whole block; answers whether.
    pub fn reclaim(&mut self) -> bool {
        let sole = self.is_sole();
        if sole {
            self.start = 0;
            self.len = u32::try_from(self.block_len()).expect("a block is smaller than 4 GiB");
        }
        sole
    }

    /// Usable bytes of the block that it keeps from its pool.
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.pool.block_len(self.block)
    }

    /// The address of its first byte, for system calls that fill it. It stays where it is for as
    /// long as the lease lives, however the lease itself is moved.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pointer()
    }

    fn pointer(&self) -> *mut u8 {
        let block = self.pool.address(self.block);
        // SAFETY: `start` lies in the block, which lies in the region.
        unsafe { block.as_ptr().add(self.start as usize) }
    }

    fn position(&self, at: usize) -> u32 {
        assert!(at <= self.len(), "{at} is beyond the end of {} bytes", self.len());
        at as u32
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.release(self.block);
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the window is mapped and initialised, and nobody else writes it (see above).
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len()) }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the window is mapped and initialised, and nobody else reads or writes it.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.len()) }
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Lease {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} of {} bytes)", self.len, self.block_len())
    }
}

/// A window of pool memory that is only read, and can be cloned.
pub struct Shared(Lease);

impl Shared {
    /// The part from `from` up to `to`, of the same memory.
    ///
    /// # Panics
    /// The range is not within it.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Self {
        let mut part = self.clone();
        part.0.truncate(to);
        part.0.advance(from);
        part
    }

    /// Forgets the first `count` bytes.
    ///
    /// # Panics
    /// It is shorter.
    pub fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }

    /// Usable bytes of the block that it keeps from its pool.
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.0.block_len()
    }

    /// Makes it exclusive again.
    ///
    /// # Errors
    /// It is not the only window of its block: it comes back.
    pub fn try_into_lease(self) -> Result<Lease, Self> {
        if self.0.is_sole() { Ok(self.0) } else { Err(self) }
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        let Lease { pool, block, start, len } = &self.0;
        pool.retain(*block);
        Self(Lease { pool: Rc::clone(pool), block: *block, start: *start, len: *len })
    }
}

impl From<Lease> for Shared {
    fn from(lease: Lease) -> Self {
        lease.freeze()
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} of {} bytes)", self.len(), self.block_len())
    }
}
