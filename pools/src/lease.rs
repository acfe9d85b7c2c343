//! Exclusive windows of pool memory: a block comes in, `&mut [u8]` goes out. Why this is sound is
//! said in `window.rs`.

use std::borrow::{Borrow, BorrowMut};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::slice;

use crate::shared::Shared;
use crate::window::Window;

/// An exclusive window of pool memory.
///
/// It reads and writes as `[u8]`, splits without a copy, and goes back to its pool when the last
/// window of its block is dropped; its memory stays mapped until then, also without a handle of
/// the pool. Its bytes are always initialised: with zeros at first, with what earlier leases left
/// later. It takes 24 bytes, also in an `Option`, and stays on its thread:
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<hioload_pools::Lease>();
/// ```
/// ```compile_fail
/// fn needs_sync<T: Sync>() {}
/// needs_sync::<hioload_pools::Lease>();
/// ```
///
/// # Examples
/// ```
/// use hioload_pools::{Arena, ArenaConfig, BytePool};
///
/// let pool = Arena::new(ArenaConfig::default())?;
/// let mut lease = pool.acquire(10, 10).expect("a fresh pool has room");
/// lease.copy_from_slice(b"headerbody");
/// let header = lease.split_to(6);
/// assert_eq!((&header[..], &lease[..]), (&b"header"[..], &b"body"[..]));
/// # Ok::<(), hioload_pools::RegionError>(())
/// ```
pub struct Lease(Window);

impl Lease {
    /// Makes the lease of a window that overlaps no other one.
    pub(crate) fn new(window: Window) -> Self {
        Self(window)
    }

    #[cfg(test)]
    pub(crate) fn block(&self) -> u32 {
        self.0.block()
    }

    pub(crate) fn window_mut(&mut self) -> &mut Window {
        &mut self.0
    }

    /// Length of the window in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the window has no bytes. It keeps its block all the same.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The address of its first byte, for system calls that fill it. It stays where it is for as
    /// long as the lease lives, however the lease itself is moved.
    #[inline]
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.ptr().as_ptr()
    }

    /// Returns the bytes `[0, at)` and keeps the rest.
    ///
    /// # Panics
    /// If `at` is more than the length.
    #[inline]
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> Lease {
        Self(self.0.split_to(at))
    }

    /// Returns the bytes `[at, len)` and keeps those before.
    ///
    /// # Panics
    /// If `at` is more than the length.
    #[inline]
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Lease {
        Self(self.0.split_off(at))
    }

    /// Puts `tail` back behind this window.
    ///
    /// # Errors
    /// Gives `tail` back if it is of another block or does not follow directly.
    pub fn unsplit(&mut self, tail: Lease) -> Result<(), Lease> {
        self.0.join(tail.0).map_err(Self)
    }

    /// Cuts the window to `len` bytes; longer than it is changes nothing. What is cut off stays
    /// part of the block: [`reclaim`](Self::reclaim) brings it back.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Cuts `n` bytes off the front.
    ///
    /// # Panics
    /// If `n` is more than the length.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        self.0.advance(n);
    }

    /// Gives up writing for the right to be cloned. Free of cost.
    #[inline]
    #[must_use]
    pub fn freeze(self) -> Shared {
        Shared::new(self.0)
    }

    /// Whether this is the only window of its block.
    #[inline]
    #[must_use]
    pub fn is_sole(&self) -> bool {
        self.0.is_sole()
    }

    /// Widens the window to the whole block if it is the only one; says whether it was.
    #[inline]
    pub fn reclaim(&mut self) -> bool {
        let sole = self.0.is_sole();
        if sole {
            self.0.reset(self.0.block_len());
        }
        sole
    }

    /// Size of the block in bytes.
    #[inline]
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.0.block_len()
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: rules 1 to 4 of `window.rs`.
        unsafe { slice::from_raw_parts(self.0.ptr().as_ptr(), self.0.len()) }
    }
}

impl DerefMut for Lease {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: rules 1 to 4 of `window.rs`; no other window overlaps the one of a lease.
        unsafe { slice::from_raw_parts_mut(self.0.ptr().as_ptr(), self.0.len()) }
    }
}

impl AsRef<[u8]> for Lease {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Lease {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Borrow<[u8]> for Lease {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl BorrowMut<[u8]> for Lease {
    fn borrow_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// Lengths only: contents are other people's data and do not belong in logs.
impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} of {} bytes)", self.len(), self.block_len())
    }
}
