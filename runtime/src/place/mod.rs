//! place.

/// Where a shard runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardPlace {
    /// The number of the shard, from 0.
    pub shard: u16,
    /// Its CPU.
    pub cpu: usize,
    /// The NUMA node of that CPU, if it is known.
    pub node: Option<u32>,
}
