//! What memory a configuration allows a server to take.

use std::fmt;

use crate::config::Config;

/// One line of the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BillItem {
    /// What it is for.
    pub purpose: &'static str,
    /// Bytes of one shard.
    pub shard_bytes: usize,
}

/// The most memory that a configuration allows, by purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBill {
    shards: usize,
    items: Vec<BillItem>,
}

/// Bytes of an entry of the submission queue with its share of the completion queue, which is four
/// times as long.
const RING_ENTRY_BYTES: usize = 64 + 4 * 16;

/// Bytes that the pool keeps beside each of its blocks of 128 bytes.
const POOL_META_PART: usize = 8;

impl MemoryBill {
    /// The bill of `shards` shards whose sessions take `session_bytes` each while they are idle.
    #[must_use]
    pub fn of(config: &Config, shards: usize, session_bytes: usize) -> Self {
        let item = |purpose, shard_bytes| BillItem { purpose, shard_bytes };
        let pool = config.memory.pool_bytes;
        let items = vec![
            item("ring", config.uring.entries as usize * RING_ENTRY_BYTES),
            item(
                "receive buffers (of the pool, in use from the start)",
                config.memory.buffers * config.memory.buffer_bytes,
            ),
            item(
                "rest of the pool (messages and outboxes, as touched)",
                pool + pool / POOL_META_PART - config.memory.buffers * config.memory.buffer_bytes,
            ),
            item("sessions (all connections)", config.limits.connections_max * session_bytes),
        ];
        Self { shards, items }
    }

    /// The lines.
    #[must_use]
    pub fn items(&self) -> &[BillItem] {
        &self.items
    }

    /// The most bytes of all shards together.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.shards * self.items.iter().map(|item| item.shard_bytes).sum::<usize>()
    }
}

impl fmt::Display for MemoryBill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  memory at the most:")?;
        for BillItem { purpose, shard_bytes } in &self.items {
            writeln!(f, "    {:>10}  {purpose}, per shard", Bytes(*shard_bytes))?;
        }
        write!(f, "    {:>10}  in all", Bytes(self.total_bytes()))
    }
}

/// A number of bytes for people.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1 << 20);
        f.pad(&if mib < 1024.0 {
            format!("{mib:.1} MiB")
        } else {
            format!("{:.1} GiB", mib / 1024.0)
        })
    }
}
