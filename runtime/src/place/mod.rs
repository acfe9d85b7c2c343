//! Where shards run: which CPUs this process may use, which of them get a shard, and what memory
//! that may take.

mod bill;
mod placement;
mod topology;

pub use bill::{BillItem, MemoryBill};
pub use placement::{Placement, ShardPlace};
pub use topology::{Cpu, Topology};

/// Pins the calling thread to a CPU; answers whether the system did so.
#[must_use]
pub fn pin(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}
