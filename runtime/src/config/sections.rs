//! Every key there is: its name, type, range, default and meaning, written once.
//!
//! The macro makes of this list the public structs, their defaults, and the table of keys that
//! reading, checking and printing go by.

use super::value::{Key, Value};
use super::{CompressionMode, SlowReader, TierChoice};
use super::{CpuList, HugePagesChoice, ListenAddress, ReactorChoice, ShardCount};

/// The most milliseconds that a time may have: a day.
const DAY_MS: u64 = 86_400_000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Section by section: `key: type [range] = default;`.
macro_rules! sections {
    ($(
        $(#[doc = $about:literal])*
        $section:ident: $Section:ident {$(
            $(#[doc = $doc:literal])*
            $key:ident: $Type:ty $([$range:expr])? = $default:expr;
        )*}
    )*) => {
        /// The configuration of a server: a value for every key.
        ///
        /// [`Config::default`] is a complete configuration. Fields are the keys of the file under
        /// the same names.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Config {$(
            $(#[doc = $about])*
            pub $section: $Section,
        )*}

        impl Config {
            /// Every key, in the order of the file.
            pub(super) const KEYS: &'static [Key] = &[$($(Key {
                path: concat!(stringify!($section), ".", stringify!($key)),
                doc: &[$($doc),*],
                range: sections!(@range $($range)?),
            },)*)*];

            /// The values, in the order of [`KEYS`](Self::KEYS).
            pub(super) fn values(&self) -> Vec<&dyn Value> {
                vec![$($(&self.$section.$key,)*)*]
            }

            /// The values, to be set, in the order of [`KEYS`](Self::KEYS).
            pub(super) fn values_mut(&mut self) -> Vec<&mut dyn Value> {
                vec![$($(&mut self.$section.$key,)*)*]
            }
        }

        $(
            $(#[doc = $about])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Section {$(
                $(#[doc = $doc])*
                pub $key: $Type,
            )*}

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: $default,)* }
                }
            }
        )*
    };
    (@range) => { None };
    (@range $range:expr) => { Some($range) };
}

sections! {
    /// `[server]`: where it listens and where it runs.
    server: ServerConfig {
        /// Addresses: "127.0.0.1:9001", ":9001" (all interfaces), "unix:/run/echo.sock".
        listen: Vec<ListenAddress> = vec![ListenAddress::Tcp(([127, 0, 0, 1], 9001).into())];
        /// CPUs, one shard on each: "0-3,8", or "auto": those that this process may use, at most
        /// as many as its CPU quota, rounded up.
        cpus: CpuList = CpuList::Auto;
        /// How many shards: "auto" (one on each of those CPUs), or fewer.
        shards: ShardCount [1..=1024] = ShardCount::Auto;
        /// Only CPUs of this NUMA node; -1: of any, and memory from the node of each.
        numa_node: i32 = -1;
        /// "uring", "epoll" or "auto": io_uring, and epoll where that is refused.
        reactor: ReactorChoice = ReactorChoice::Auto;
        /// What of io_uring is used: "base", "bundles", "incremental" or "auto": the best.
        uring_tier: TierChoice = TierChoice::Auto;
        /// Whether each shard is pinned to its CPU.
        pin: bool = true;
        /// Microseconds that a shard polls before it sleeps, while what comes usually comes within
        /// that time: replies are some 10 us faster, and a CPU that is asked that often is never
        /// idle. 20 to 100 are useful; 0: it sleeps at once.
        spin_us: u64 [0..=1000] = 0;
    }
    /// `[limits]`: what connections may cost before they are sessions.
    limits: LimitsConfig {
        /// Most connections of one shard. Each needs a descriptor of the process.
        connections_max: usize [1..=16 * MIB] = 100_000;
        /// Most unfinished handshakes of one shard; beyond that the oldest goes.
        handshakes_max: usize [1..=16 * MIB] = 1024;
        /// Time from accept to the end of the handshake, in milliseconds.
        handshake_timeout_ms: u64 [1..=DAY_MS] = 5000;
        /// Most bytes of a request head.
        header_bytes_max: usize [256..=64 * KIB] = 8192;
        /// Most headers of a request.
        headers_max: usize [1..=128] = 64;
        /// Most topics of one shard that have subscribers. Each takes about 250 bytes and its
        /// name, which has at most 255.
        topics_max: usize [1..=16 * MIB] = 65_536;
        /// Most topics that one session is subscribed to. Each takes about 50 bytes.
        subscriptions_max: usize [1..=MIB] = 128;
    }
    /// `[memory]`: what a shard takes from its NUMA node.
    memory: MemoryConfig {
        /// Receive buffers of one shard; a power of two.
        buffers: usize [4..=32_768] = 64;
        /// Size of a receive buffer in bytes; a power of two.
        buffer_bytes: usize [4 * KIB..=MIB] = 65_536;
        /// Address space of a shard's pool in bytes: receive buffers, messages that are kept, and
        /// outboxes. Pages are taken only when they are touched.
        pool_bytes: usize [MIB..=256 * GIB] = 268_435_456;
        /// Huge pages for the pool: "off", "transparent" or "explicit" (reserved ones).
        huge_pages: HugePagesChoice = HugePagesChoice::Off;
    }
    /// `[uring]`: the ring of a shard, where io_uring is used.
    uring: RingConfig {
        /// Submission entries of a ring; a power of two.
        entries: u32 [8..=8192] = 1024;
    }
    /// `[websocket]`: what a session may cost, and when it ends.
    websocket: WebSocketConfig {
        /// Most payload bytes of a message, all fragments together; beyond: closed with 1009.
        message_bytes_max: usize [1..=GIB] = 1_048_576;
        /// Most frames of a message.
        fragments_max: u32 [1..=u32::MAX as u64] = 65_536;
        /// Time that a message may take from its first frame to its last byte, in milliseconds;
        /// 0: any.
        message_age_ms_max: u64 [0..=DAY_MS] = 30_000;
        /// What a peer may spend on frames that carry little or nothing, in bytes: 16 a frame,
        /// earned back by data and time; beyond: closed with 1008.
        overhead_budget_bytes: u32 [0..=u32::MAX as u64] = 65_536;
        /// Silence after which a session is closed, in milliseconds; a ping goes out at half of
        /// it. 0: never.
        idle_timeout_ms: u64 [0..=DAY_MS] = 120_000;
        /// Unsent bytes of a session from which on a send answers "full".
        outbox_high_bytes: usize [1..=GIB] = 65_536;
        /// Unsent bytes below which a session that was full is told that it drained.
        outbox_low_bytes: usize [0..=GIB] = 16_384;
        /// Unsent bytes of a session beyond which it takes no further message. One that has nothing
        /// to send takes any.
        outbox_max_bytes: usize [1..=2 * GIB] = 16_842_752;
        /// A session whose outbox is full: "pause" reading from it, "drop" messages to it, or
        /// "close" it.
        slow_reader: SlowReader = SlowReader::Pause;
        /// Time without progress of a send after which a session is closed, in milliseconds. In its
        /// end all that is queued has this long and a second for each 16 KiB.
        progress_timeout_ms: u64 [1..=DAY_MS] = 30_000;
        /// permessage-deflate, with peers that offer it: "off"; "no_context": every message stands
        /// alone, a session costs nothing more; "shared_window": what we send stands alone, the
        /// peer may keep its window (40 KiB here); "dedicated_window": both keep theirs (350 KiB).
        compression: CompressionMode = CompressionMode::Off;
        /// How hard to compress: 1 (fast) to 9.
        compression_level: u8 [1..=9] = 6;
        /// Messages shorter than this are sent as they are.
        compression_bytes_min: usize [0..=GIB] = 128;
        /// The largest window that is kept, as a power of two.
        compression_window_bits: u8 [9..=15] = 15;
        /// Origins of pages that may connect beside the server's own: `https://example.com`;
        /// "*": any.
        origins: Vec<String> = Vec::new();
        /// Whether a request without an Origin header (from a program, not a page) is refused.
        require_origin: bool = false;
        /// Time that the peer has to answer a close frame, in milliseconds.
        close_timeout_ms: u64 [1..=DAY_MS] = 2000;
    }
    /// `[iproto]`: what a connection that speaks iproto may cost, and when it ends. Its outbox and
    /// the policy for slow readers are those of `[websocket]`.
    iproto: IprotoConfig {
        /// Most bytes of a body; beyond: the connection ends at its header. 100000000 elsewhere; as
        /// much as an outbox takes beside what waits in it.
        body_bytes_max: usize [0..=GIB] = 16_777_216;
        /// Time that a packet may take from its first byte to its last, in milliseconds; 0: any.
        packet_age_ms_max: u64 [0..=DAY_MS] = 30_000;
        /// Most calls of ours that wait on one connection. Each takes about 200 bytes.
        calls_max: u32 [1..=16 * MIB] = 65_536;
        /// Most requests of a peer that are not answered yet; beyond: the connection ends.
        requests_max: u32 [1..=16 * MIB] = 65_536;
        /// How many calls without a response are remembered, so that a late one is known as such.
        late_max: u32 [0..=MIB] = 4096;
        /// How long they are remembered, in milliseconds; 0: any time.
        late_ms: u64 [0..=DAY_MS] = 300_000;
        /// Time between two pings, in milliseconds; a peer that sends nothing for twice as long
        /// after one is given up. 0: none.
        ping_interval_ms: u64 [0..=DAY_MS] = 60_000;
        /// Silence after which a connection ends, in milliseconds; 0: never, pings notice a peer
        /// that is gone.
        idle_timeout_ms: u64 [0..=DAY_MS] = 0;
        /// Time that a shutdown may take, in milliseconds; 0: any.
        shutdown_timeout_ms: u64 [0..=DAY_MS] = 5000;
        /// Time that a call waits for its response unless it says otherwise, in milliseconds.
        request_timeout_ms: u64 [1..=DAY_MS] = 5000;
    }
    /// `[shutdown]`: how the server ends.
    shutdown: ShutdownConfig {
        /// Time for every session to close after SIGINT or SIGTERM, in milliseconds.
        drain_ms: u64 [0..=DAY_MS] = 10_000;
    }
}
