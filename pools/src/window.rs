//! A counted window of a block: the common half of [`Lease`](crate::Lease) and
//! [`Shared`](crate::Shared). It knows where bytes are and keeps them alive; it gives no access.
//!
//! # Why this is sound
//! 1. *Alive.* The block's count in the arena's metadata is the number of windows of it. A window
//!    adds itself when it is made ([`Window::retain`]) and takes itself away when it is dropped.
//!    A block with a count above zero is not leased again, and an arena with such a block is not
//!    unmapped. So `arena` and the bytes of a window are valid as long as it lives. Forgetting
//!    one leaks its block, which is safe.
//! 2. *In bounds.* `ptr..ptr + len` lies inside of the block: it starts as a part of it and is
//!    only cut, joined with a window that follows it in the same block, or reset to the block.
//! 3. *Initialised.* The memory comes zeroed from the system, and only whole bytes are written.
//! 4. *Exclusive or shared.* The windows inside of `Lease`s overlap no other window of any kind:
//!    a fresh block has one window; a split makes two disjoint ones; widening to the whole block
//!    and making a `Lease` from a `Shared` need the count to be one. The windows inside of
//!    `Shared`s overlap only each other. So `&mut` through a `Lease` and `&` through a `Shared`
//!    alias nothing.
//! 5. *One thread.* Counts are not atomic, so windows must not leave their thread. The pointers
//!    inside make `Lease`, `Shared` and `Arena` neither `Send` nor `Sync`; doc tests check it.
//! 6. *No wrapping.* A count that would overflow panics before it changes anything.

use std::ptr::NonNull;

use crate::arena::Inner;

/// Twenty-four bytes, with a niche for `Option`.
pub(crate) struct Window {
    ptr: NonNull<u8>,
    arena: NonNull<Inner>,
    len: u32,
    block: u32,
}

impl Window {
    /// The first window of a block that was just leased with a count of one.
    ///
    /// # Safety
    /// `arena` is live, `block` is a leased block of it, its count includes this window, no other
    /// window overlaps this one, and `len` is at most the block's size.
    pub(crate) unsafe fn first(arena: NonNull<Inner>, block: u32, len: usize) -> Self {
        // SAFETY: the caller promises that the arena is live.
        let ptr = unsafe { arena.as_ref() }.address(block);
        Self { ptr, arena, len: len_u32(len), block }
    }

    #[inline]
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    pub(crate) fn block(&self) -> u32 {
        self.block
    }

    #[inline]
    pub(crate) fn is_of(&self, arena: NonNull<Inner>) -> bool {
        self.arena == arena
    }

    #[inline]
    fn arena(&self) -> &Inner {
        // SAFETY: rule 1.
        unsafe { self.arena.as_ref() }
    }

    #[inline]
    pub(crate) fn block_len(&self) -> usize {
        self.arena().block_len(self.block)
    }

    /// Whether it is the only window of its block.
    #[inline]
    pub(crate) fn is_sole(&self) -> bool {
        self.arena().refs(self.block).get() == 1
    }

    pub(crate) fn starts_block(&self) -> bool {
        self.ptr == self.arena().address(self.block)
    }

    /// A second window of the same bytes. What may be done with the two is up to the caller's
    /// type (rule 4).
    #[inline]
    pub(crate) fn retain(&self) -> Self {
        let refs = self.arena().refs(self.block);
        refs.set(refs.get().checked_add(1).expect("a block has fewer than 2^32 windows"));
        Self { ..*self }
    }

    /// Cuts the window at `at`, keeps the front, and returns the rest.
    #[inline]
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        let mut tail = self.retain_checked(at);
        tail.advance(at);
        self.len = len_u32(at);
        tail
    }

    /// Cuts the window at `at`, keeps the rest, and returns the front.
    #[inline]
    pub(crate) fn split_to(&mut self, at: usize) -> Self {
        let mut head = self.retain_checked(at);
        head.len = len_u32(at);
        self.advance(at);
        head
    }

    /// Drops `tail` and takes its bytes, if they follow directly in the same block.
    pub(crate) fn join(&mut self, tail: Self) -> Result<(), Self> {
        let follows = tail.arena == self.arena
            && tail.block == self.block
            && tail.ptr.as_ptr() == self.ptr.as_ptr().wrapping_add(self.len());
        if !follows {
            return Err(tail);
        }
        self.len += tail.len;
        Ok(())
    }

    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    #[inline]
    pub(crate) fn advance(&mut self, n: usize) {
        let len = self.len();
        assert!(n <= len, "advanced by {n} bytes in a window of {len}");
        // SAFETY: `n <= len`, so the result is inside of the window or at its end (rule 2).
        self.ptr = unsafe { self.ptr.add(n) };
        self.len -= len_u32(n);
    }

    /// Makes the window the first `len` bytes of its block. It must be sole.
    pub(crate) fn reset(&mut self, len: usize) {
        assert!(self.is_sole(), "only a sole window may be widened");
        assert!(len <= self.block_len(), "a window lies inside of its block");
        self.ptr = self.arena().address(self.block);
        self.len = len_u32(len);
    }

    #[inline]
    fn retain_checked(&self, at: usize) -> Self {
        let len = self.len();
        assert!(at <= len, "split at {at} in a window of {len} bytes");
        self.retain()
    }
}

impl Drop for Window {
    #[inline]
    fn drop(&mut self) {
        let refs = self.arena().refs(self.block);
        match refs.get() {
            // SAFETY: this window is the last of its block and is not used again (rule 1).
            1 => unsafe { Inner::release(self.arena, self.block) },
            many => refs.set(many - 1),
        }
    }
}

/// Blocks are at most 2 GiB (`Inner`), so lengths inside of one fit.
#[inline]
fn len_u32(len: usize) -> u32 {
    debug_assert!(u32::try_from(len).is_ok(), "a window is smaller than 4 GiB");
    len as u32
}
