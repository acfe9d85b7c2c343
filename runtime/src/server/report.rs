//! What a server says about itself: which shards, where, with which reactor and why, and what
//! memory it may take.

use std::fmt;

use crate::config::{Config, ListenAddress};
use crate::place::{MemoryBill, ShardPlace};

/// What was resolved from the configuration, and what became of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The configuration with every key.
    pub config: Config,
    /// Where WebSocket and HTTP are served.
    pub addresses: Vec<ListenAddress>,
    /// Where raw streams and iproto are served.
    pub raw_addresses: Vec<ListenAddress>,
    /// One line per shard.
    pub shards: Vec<ShardReport>,
    /// The most memory that the configuration allows, by purpose.
    pub bill: MemoryBill,
    /// What the operator should know: limits that are too low, for instance.
    pub notes: Vec<String>,
}

/// One shard: its place, and what it got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardReport {
    /// Its CPU and NUMA node.
    pub place: ShardPlace,
    /// Whether its thread is pinned to that CPU.
    pub pinned: bool,
    /// Its reactor, once it runs.
    pub reactor: Option<String>,
    /// Why it is not the reactor that was hoped for.
    pub fallback: Option<String>,
    /// What memory it got: huge pages, node.
    pub memory: String,
}

impl ShardReport {
    pub(super) fn planned(place: &ShardPlace) -> Self {
        Self {
            place: place.clone(),
            pinned: false,
            reactor: None,
            fallback: None,
            memory: String::new(),
        }
    }
}

impl Report {
    /// One warning for the whole server, as the cause is the same on every shard.
    pub(super) fn warn_of_fallback(&self) {
        if let Some(cause) = self.shards.iter().find_map(|shard| shard.fallback.as_deref()) {
            tracing::warn!(cause, "io_uring is not to be had here: epoll serves");
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.shards.len();
        let plural = if count == 1 { "shard" } else { "shards" };
        let version = env!("CARGO_PKG_VERSION");
        writeln!(f, "hioload {version}: {count} {plural}")?;
        for address in self.addresses.iter().chain(&self.raw_addresses) {
            writeln!(f, "  listening on {address}")?;
        }
        for shard in &self.shards {
            writeln!(f, "  {shard}")?;
        }
        if let Some(cause) = self.shards.iter().find_map(|shard| shard.fallback.as_deref()) {
            writeln!(f, "  epoll, because {cause}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        write!(f, "{}", self.bill)
    }
}

impl fmt::Display for ShardReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} on cpu {}", self.place.shard, self.place.cpu)?;
        if let Some(node) = self.place.node {
            write!(f, ", node {node}")?;
        }
        if let Some(reactor) = &self.reactor {
            write!(f, ": {reactor}")?;
            write!(f, "{}", if self.pinned { ", pinned" } else { ", not pinned" })?;
        }
        if !self.memory.is_empty() {
            write!(f, ", {}", self.memory)?;
        }
        Ok(())
    }
}
