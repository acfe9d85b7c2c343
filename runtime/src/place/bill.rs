//! The most memory that a configuration allows, item by item.

use std::collections::BTreeSet;
use std::fmt;

use hioload_protocol::deflate::{Inflater, Whole};

use crate::config::{Compression, CompressionMode, Config, ReactorChoice};
use crate::shard::{Letter, MAILBOX_BYTES_MAX, MAILBOX_LETTERS};

/// A submission entry of io_uring, and the four completion entries that a ring has for each.
const RING_ENTRY_BYTES: u64 = 64 + 4 * 16;

/// What the pool keeps of its own: 16 bytes for each block of 128.
const POOL_INDEX_PART: u64 = 8;

/// A topic with a name of 255 bytes: its name, its entries in two tables, and its list.
const TOPIC_BYTES: u64 = 512;

/// A subscription: its place, and its entries in the lists of its topic and its session.
const SUBSCRIPTION_BYTES: u64 = 56;

/// An entry of a provided-buffer ring.
const RING_BUFFER_BYTES: u64 = 16;

/// The most memory that a server may take, by purpose. Most of it is address space: pages are taken
/// when they are first touched. As text it is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryBill {
    shards: u64,
    items: Vec<BillItem>,
}

/// One line of a bill.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BillItem {
    /// What the memory is for.
    pub what: &'static str,
    /// Bytes of one shard, at most.
    pub shard_bytes: u64,
    /// Whether the bytes lie within the pool, so that they are counted with it already.
    pub in_pool: bool,
    /// What the figure is made of.
    pub remark: String,
}

impl MemoryBill {
    /// The bill of `shards` shards whose sessions take `session_bytes` each, beside what the
    /// reactor and the handler keep for them, and whose routes compress like `compressions`. What
    /// the server's own connections to others compress is not known here, and not billed.
    #[must_use]
    pub fn of(
        config: &Config,
        compressions: &[Compression],
        shards: usize,
        session_bytes: usize,
    ) -> Self {
        let (limits, memory) = (&config.limits, &config.memory);
        let pool = memory.pool_bytes as u64;
        let buffers = (memory.buffers as u64).saturating_mul(memory.buffer_bytes as u64);
        let sessions = limits.connections_max as u64;
        let outbox = config.websocket.outbox_max_bytes as u64;
        let counted =
            |what, shard_bytes, remark| BillItem { what, shard_bytes, in_pool: false, remark };
        let pooled = |what, bytes: u64, remark| BillItem {
            what,
            shard_bytes: bytes.min(pool),
            in_pool: true,
            remark,
        };
        let mut items = vec![
            counted("pool", pool, "address space, taken as it is touched".to_owned()),
            counted("pool index", pool / POOL_INDEX_PART, "touched like the pool".to_owned()),
            pooled(
                "receive buffers",
                buffers,
                format!("{} x {}", memory.buffers, Bytes(memory.buffer_bytes as u64)),
            ),
            pooled(
                "outboxes",
                sessions.saturating_mul(outbox).min(pool.saturating_sub(buffers)),
                format!("{} a session, as far as the pool reaches", Bytes(outbox)),
            ),
            counted(
                "sessions",
                sessions.saturating_mul(session_bytes as u64),
                format!("{sessions} x {}", Bytes(session_bytes as u64)),
            ),
        ];
        // One without any messages takes any, so also the largest.
        let messages = MAILBOX_BYTES_MAX.max(config.websocket.message_bytes_max);
        items.push(counted(
            "mailbox",
            (messages + MAILBOX_LETTERS * size_of::<Letter>()) as u64,
            format!("{MAILBOX_LETTERS} letters, {} of messages", Bytes(messages as u64)),
        ));
        let (topics, each) = (limits.topics_max as u64, limits.subscriptions_max as u64);
        let subscriptions = sessions.saturating_mul(each);
        let bytes = subscriptions.saturating_mul(SUBSCRIPTION_BYTES);
        items.push(counted(
            "topics",
            bytes.saturating_add(topics.saturating_mul(TOPIC_BYTES)),
            format!("{topics} of them, {sessions} x {each} subscriptions"),
        ));
        items.extend(windows(compressions, sessions));
        if config.server.reactor != ReactorChoice::Epoll {
            let entries = u64::from(config.uring.entries);
            let bytes = entries * RING_ENTRY_BYTES + memory.buffers as u64 * RING_BUFFER_BYTES;
            items.push(counted("ring", bytes, format!("{entries} entries")));
        }
        Self { shards: shards as u64, items }
    }

    /// The same with what each connection takes that speaks iproto, if there may be such, beside
    /// its own calls.
    pub(crate) fn with_iproto(mut self, config: &Config, bytes: Option<usize>) -> Self {
        if let Some(each) = bytes {
            let (sessions, each) = (config.limits.connections_max as u64, each as u64);
            self.items.push(BillItem {
                what: "iproto",
                shard_bytes: sessions.saturating_mul(each),
                in_pool: false,
                remark: format!("{sessions} x {}, and 200 B a call of ours", Bytes(each)),
            });
        }
        self
    }

    /// Its lines.
    #[must_use]
    pub fn items(&self) -> &[BillItem] {
        &self.items
    }

    /// All shards together, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        let counted = self.items.iter().filter(|item| !item.in_pool);
        let shard = counted.fold(0_u64, |sum, item| sum.saturating_add(item.shard_bytes));
        shard.saturating_mul(self.shards)
    }
}

impl fmt::Display for MemoryBill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  memory of a shard, at most:")?;
        for BillItem { what, shard_bytes, in_pool, remark } in &self.items {
            let size = Bytes(*shard_bytes).to_string();
            let within = if *in_pool { "in the pool: " } else { "" };
            writeln!(f, "    {what:<16}{size:>12}  {within}{remark}")?;
        }
        let total = Bytes(self.total_bytes()).to_string();
        let shards = self.shards;
        write!(f, "    {:<16}{total:>12}  {shards} x all that is not in the pool", "total")
    }
}

/// Compressors and decompressors: those that the sessions of a shard share, for each level that a
/// route asks for, and those of every session, if all are on the route where that is most.
fn windows(compressions: &[Compression], sessions: u64) -> Option<BillItem> {
    let on = || compressions.iter().filter(|each| each.mode != CompressionMode::Off);
    let levels = on().map(|each| each.level).collect::<BTreeSet<_>>().len();
    let each = on().map(Compression::session_bytes).max()? as u64;
    let shared = (levels * Whole::BYTES_MAX + Inflater::BYTES) as u64;
    Some(BillItem {
        what: "windows",
        shard_bytes: sessions.saturating_mul(each).saturating_add(shared),
        in_pool: false,
        remark: format!("{sessions} x {}, and {} for all", Bytes(each), Bytes(shared)),
    })
}

/// A size for people: at most one decimal, in the largest unit that it fills.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let unit = UNITS.into_iter().find(|(shift, _)| self.0 >> shift > 0);
        let Some((shift, unit)) = unit else { return write!(f, "{} B", self.0) };
        let size = self.0 as f64 / (1_u64 << shift) as f64;
        let decimals = usize::from(!self.0.is_multiple_of(1 << shift));
        write!(f, "{size:.decimals$} {unit}")
    }
}
