//! Which shard runs on which CPU, with memory of which node, and what memory that may take.
//!
//! Comes in: a [`Config`](crate::config::Config) and a [`Topology`]. Goes out: a [`Placement`], or
//! one sentence that says which CPUs are not to be had; and a [`MemoryBill`]. A topology is plain
//! data: the reader of `/sys` here fills it, a fixture does in tests, and another source could.
//! Nothing here starts a thread.

mod bill;
mod cgroup;
mod placement;
mod topology;

pub use bill::{BillItem, MemoryBill};
pub use cgroup::Quota;
pub use placement::{Placement, ShardPlace};
pub use topology::{Cpu, Topology};

use crate::sys::affinity;

/// CPUs that an affinity mask of the C library (`cpu_set_t`) has room for.
const CPU_SET_BITS: usize = 1024;

/// Pins the calling thread to a CPU, and says whether that worked. It does not on CPUs that this
/// process may not use, nor on those numbered 1,024 and above.
#[must_use]
pub fn pin(cpu: usize) -> bool {
    affinity::remember();
    cpu < CPU_SET_BITS && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}
