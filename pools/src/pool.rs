//! The seam for byte memory: what a reactor or a session asks of a pool, whoever implements it.

use crate::Lease;

/// Memory by the lease. Single-threaded; a shard has one.
///
/// The contract: a lease has exactly the asked length, is never handed out twice, and its memory
/// is initialised (with zeros at first, with old bytes later). A pool that has run dry says so
/// and never falls back on the global allocator. [`FailingPool`](crate::fake::FailingPool)
/// refuses on demand. Leases are only ever made by an [`Arena`](crate::Arena), so every other
/// implementation wraps one.
pub trait BytePool {
    /// A lease of `len` bytes, placed so that it can grow in place up to `expected` bytes for as
    /// long as nobody else needs the memory behind it. `None`: the pool is exhausted.
    fn acquire(&self, len: usize, expected: usize) -> Option<Lease>;

    /// Makes a lease `len` bytes long, in place if the memory behind it is free, by moving its
    /// first `used` bytes otherwise. The lease must be the only one of its block and start where
    /// the block starts. Answers `false`, and leaves the lease as it is, if the pool is exhausted
    /// or the lease is not such a one.
    ///
    /// # Panics
    /// `used` is more than the old or the new length.
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
