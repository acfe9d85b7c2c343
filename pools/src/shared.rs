//! Shared windows of pool memory: counted, read only. Why this is sound is said in `window.rs`.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::slice;

use crate::lease::Lease;
use crate::window::Window;

/// A window of pool memory that is only read, and can be cloned, which costs a count.
///
/// It takes 24 bytes, also in an `Option`, and stays on its thread:
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<hioload_pools::Shared>();
/// ```
/// ```compile_fail
/// fn needs_sync<T: Sync>() {}
/// needs_sync::<hioload_pools::Shared>();
/// ```
///
/// # Examples
/// ```
/// use hioload_pools::{Arena, ArenaConfig, BytePool, Shared};
///
/// let pool = Arena::new(ArenaConfig::default())?;
/// let mut lease = pool.acquire(5, 5).expect("a fresh pool has room");
/// lease.copy_from_slice(b"hello");
/// let hello = Shared::from(lease);
/// let ell = hello.slice(1, 4);
/// assert_eq!(&ell[..], b"ell");
/// let ell = ell.try_into_lease().expect_err("there is another window of the block");
/// drop(hello);
/// ell.try_into_lease().expect("it is the only window now").fill(b'.');
/// # Ok::<(), hioload_pools::RegionError>(())
/// ```
pub struct Shared(Window);

impl Shared {
    pub(crate) fn new(window: Window) -> Self {
        Self(window)
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

    /// The part from `from` up to `to`, of the same memory.
    ///
    /// # Panics
    /// The range is not within it.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Self {
        let len = self.len();
        assert!(from <= to && to <= len, "slice {from}..{to} of a window of {len} bytes");
        let mut part = self.clone();
        part.0.truncate(to);
        part.0.advance(from);
        part
    }

    /// Cuts the window to `len` bytes; longer than it is changes nothing.
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

    /// Puts `tail` back behind this window, so that both are one.
    ///
    /// # Errors
    /// Gives `tail` back if it is of another block or does not follow directly.
    pub fn unsplit(&mut self, tail: Shared) -> Result<(), Shared> {
        self.0.join(tail.0).map_err(Self)
    }

    /// Whether this is the only window of its block.
    #[inline]
    #[must_use]
    pub fn is_sole(&self) -> bool {
        self.0.is_sole()
    }

    /// Size of the block in bytes: what this window keeps from being lent again.
    #[inline]
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.0.block_len()
    }

    /// Makes the window writable again if it is the only one of its block.
    ///
    /// # Errors
    /// Gives the window back if there are others.
    pub fn try_into_lease(self) -> Result<Lease, Shared> {
        if self.0.is_sole() { Ok(Lease::new(self.0)) } else { Err(self) }
    }
}

impl Clone for Shared {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.retain())
    }
}

impl From<Lease> for Shared {
    #[inline]
    fn from(lease: Lease) -> Self {
        lease.freeze()
    }
}

impl Deref for Shared {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: rules 1 to 4 of `window.rs`; windows that overlap this one are only read.
        unsafe { slice::from_raw_parts(self.0.ptr().as_ptr(), self.0.len()) }
    }
}

impl AsRef<[u8]> for Shared {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Shared {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// Lengths only: contents are other people's data and do not belong in logs.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} of {} bytes)", self.len(), self.block_len())
    }
}
