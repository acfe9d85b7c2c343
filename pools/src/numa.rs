//! The pools of a machine with several nodes.

use crate::arena::{Arena, ArenaConfig};
use crate::region::RegionError;

/// Hands out pools whose memory lies on a NUMA node.
///
/// # Examples
/// ```
/// use hioload_pools::{ArenaConfig, BytePool, NumaPoolManager};
///
/// let manager = NumaPoolManager::new(ArenaConfig::default());
/// let pool = manager.pool(None)?;
/// assert_eq!(pool.node(), None);
/// # Ok::<(), hioload_pools::RegionError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NumaPoolManager {
    template: ArenaConfig,
}

impl NumaPoolManager {
    /// Pools will be as `template` says, except for the node.
    #[must_use]
    pub const fn new(template: ArenaConfig) -> Self {
        Self { template }
    }

    /// A fresh pool on a node; `None`: wherever the thread that first touches a page runs.
    ///
    /// It belongs to the calling thread. If the memory cannot be bound to the node, the pool has
    /// unbound memory and its report says why.
    ///
    /// # Errors
    /// The address space cannot be had.
    pub fn pool(&self, node: Option<u32>) -> Result<Arena, RegionError> {
        Arena::new(ArenaConfig { node, ..self.template })
    }
}
