//! The byte pool of a shard: a buddy allocator over one region.
//!
//! Comes in: a wish for some bytes. Goes out: a [`Lease`], or `None`: exhaustion is an answer.
//! Blocks are powers of two from 128 bytes up. Everything that is known about a block lies beside
//! the memory, never in it: a message of 1 MiB takes a block of 1 MiB, and a free page is not
//! touched. It belongs to one thread and never allocates after it was made.

mod bits;
mod free;
mod inner;
mod quick;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ptr::NonNull;

pub(crate) use inner::Inner;

use crate::lease::Lease;
use crate::pool::{BytePool, PoolStats};
use crate::region::{HugePages, Region, RegionError, RegionReport};
use crate::window::Window;

/// The smallest block: two cache lines, so that two blocks never share a pair that the hardware
/// fetches together.
pub const BLOCK_BYTES_MIN: usize = 128;

/// What an [`Arena`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Address space in bytes, rounded up to whole pages; pages are taken from the system only
    /// when they are touched (explicit huge pages at once).
    ///
    /// The largest block is the largest power of two that fits, 2 GiB at the most. What is beyond
    /// 512 GiB is not used.
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
/// Released blocks wait in short lists for the next wish of their size, so that a steady state
/// neither splits nor merges; before a wish is refused, all that wait are merged. It stays on its
/// thread:
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<hioload_pools::Arena>();
/// ```
/// ```compile_fail
/// fn needs_sync<T: Sync>() {}
/// needs_sync::<hioload_pools::Arena>();
/// ```
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
pub struct Arena(NonNull<Inner>);

impl Arena {
    /// Reserves the memory.
    ///
    /// # Errors
    /// The address space cannot be had.
    pub fn new(config: ArenaConfig) -> Result<Self, RegionError> {
        let ArenaConfig { capacity_bytes, huge_pages, node } = config;
        let memory = Region::new(capacity_bytes, huge_pages, node)?;
        let inner = Inner::new(memory, node)?;
        Ok(Self(NonNull::from(Box::leak(Box::new(inner)))))
    }

    /// What memory it got from the system.
    #[must_use]
    pub fn report(&self) -> &RegionReport {
        self.inner().memory().report()
    }

    fn inner(&self) -> &Inner {
        // SAFETY: this handle is counted, and `Inner` lives for as long as one is.
        unsafe { self.0.as_ref() }
    }
}

impl BytePool for Arena {
    #[inline]
    fn acquire(&self, len: usize, expected: usize) -> Option<Lease> {
        let block = self.inner().acquire(len, expected)?;
        // SAFETY: the block was just leased with a count of one, for this window, and holds `len`
        // bytes.
        Some(Lease::new(unsafe { Window::first(self.0, block, len) }))
    }

    fn grow(&self, lease: &mut Lease, used: usize, len: usize) -> bool {
        assert!(used <= lease.len() && used <= len, "only bytes of the lease can be kept");
        let window = lease.window_mut();
        if !(window.is_of(self.0) && window.starts_block() && window.is_sole()) {
            return false;
        }
        if len <= window.block_len() || self.inner().extend(window.block(), len) {
            window.reset(len);
            return true;
        }
        let Some(mut moved) = self.acquire(len, len) else { return false };
        moved[..used].copy_from_slice(&lease[..used]);
        *lease = moved;
        self.inner().count_copy();
        true
    }

    fn stats(&self) -> PoolStats {
        self.inner().stats()
    }

    fn node(&self) -> Option<u32> {
        self.report().node
    }
}

impl Clone for Arena {
    fn clone(&self) -> Self {
        self.inner().add_handle();
        Self(self.0)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: this handle is counted, and not used again.
        unsafe { Inner::drop_handle(self.0) };
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
