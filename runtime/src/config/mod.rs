//! What can be set, and what is wrong with it.
//!
//! Comes in: a TOML file, or what a program says. Goes out: one [`Config`] in which every value has
//! been looked at, or one sentence that says what is wrong, where, and how to mend it.

mod address;
mod error;
mod parse;
mod values;

use serde::{Deserialize, Serialize};

pub use address::ListenAddress;
pub use error::ConfigError;
pub(crate) use values::parse_list;
pub use values::{CpuList, HugePagesChoice, ReactorChoice, ShardCount, SlowReader, TierChoice};

/// The exit code of a program whose configuration is wrong: `EX_CONFIG` of `sysexits.h`.
pub const EXIT_CONFIG: u8 = 78;

/// Everything that can be set. Each key may be left out; unknown keys are errors.
///
/// # Examples
/// ```
/// use hioload::config::Config;
///
/// let config = Config::from_toml("[limits]\nhandshake_timeout_ms = 1000\n", "echo.toml")?;
/// assert_eq!(config.limits.handshake_timeout_ms, 1000);
/// assert_eq!(config.limits.handshakes_max, 1024);
///
/// let wrong = Config::from_toml("[limits]\nhandshake_timeout = 1000\n", "echo.toml");
/// assert_eq!(
///     wrong.unwrap_err().to_string(),
///     "echo.toml:2: unknown key `handshake_timeout` in [limits]; did you mean \
///      `handshake_timeout_ms`?"
/// );
/// # Ok::<(), hioload::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen and on which CPUs.
    pub server: ServerConfig,
    /// Limits of connections and handshakes.
    pub limits: LimitsConfig,
    /// Memory of each shard.
    pub memory: MemoryConfig,
    /// io_uring.
    pub uring: RingConfig,
    /// WebSocket, and what waits to be sent.
    pub websocket: WebSocketConfig,
    /// The end.
    pub shutdown: ShutdownConfig,
}

/// `[server]`: where to listen and on which CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Addresses for WebSocket and HTTP. Default `["127.0.0.1:9001"]`.
    pub listen: Vec<ListenAddress>,
    /// CPUs to use: `"auto"` (those this process may use) or a list such as `"0-3,8"`.
    pub cpus: CpuList,
    /// Shards: `"auto"` (one per CPU) or a number, at most that of the CPUs.
    pub shards: ShardCount,
    /// Only CPUs of this NUMA node; -1 (the default): of any.
    pub numa_node: i32,
    /// How to talk to the kernel: `"auto"`, `"uring"` or `"epoll"`.
    pub reactor: ReactorChoice,
    /// Which features of io_uring to use: `"auto"`, `"base"`, `"bundles"` or `"incremental"`.
    pub uring_tier: TierChoice,
    /// Whether each shard's thread is pinned to its CPU. Default true.
    pub pin: bool,
}

/// `[limits]`: connections and handshakes, per shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Connections of a shard; beyond that it pauses accepting. Default 100,000.
    pub connections_max: usize,
    /// Unfinished handshakes of a shard; one more ends the oldest. Default 1,024.
    pub handshakes_max: usize,
    /// From accept to the 101 response, at the most. Default 5,000.
    pub handshake_timeout_ms: u64,
    /// Bytes of an HTTP head. Default 8,192.
    pub header_bytes_max: usize,
    /// Header fields of a head, at most 128. Default 64.
    pub headers_max: usize,
}

/// `[memory]`: what each shard takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Receive buffers. Default 64.
    pub buffers: usize,
    /// Bytes of a receive buffer: a power of two from 4 KiB to 1 MiB. Default 65,536.
    pub buffer_bytes: usize,
    /// Address space of the pool that buffers and messages come from; pages are taken only when
    /// they are touched. Default 268,435,456.
    pub pool_bytes: usize,
    /// `"off"`, `"transparent"` or `"explicit"`.
    pub huge_pages: HugePagesChoice,
}

/// `[uring]`: io_uring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RingConfig {
    /// Entries of the submission queue: a power of two from 64 to 32,768. Default 1,024.
    pub entries: u32,
}

/// `[websocket]`: messages, silence, and what waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocketConfig {
    /// Bytes of a message; a larger one ends the session with 1009. Default 1,048,576.
    pub message_bytes_max: usize,
    /// Frames of a message. Default 65,536.
    pub fragments_max: u32,
    /// From the first byte of a message to its last; 0: any time. Default 30,000.
    pub message_age_ms_max: u64,
    /// What control frames and fragments may cost before data pays for them. Default 65,536.
    pub overhead_budget_bytes: u32,
    /// Silence after which a session is closed; a ping goes out at half of it; 0: never. Default
    /// 120,000.
    pub idle_timeout_ms: u64,
    /// Waiting bytes of a session above which `send` answers `Full`. Default 65,536.
    pub outbox_high_bytes: usize,
    /// Waiting bytes below which `drained` is called. Default 16,384.
    pub outbox_low_bytes: usize,
    /// Waiting bytes beyond which nothing is taken; an empty outbox takes any message. Default
    /// 16,777,216.
    pub outbox_max_bytes: usize,
    /// What happens to a peer above the high mark: `"pause"` (it is not read from), `"drop"`
    /// (messages to it are dropped) or `"close"`. Default `"pause"`.
    pub slow_reader: SlowReader,
    /// Time in which a peer for whom bytes wait must take some. Default 30,000.
    pub progress_timeout_ms: u64,
    /// Time for the closing handshake, and for the peer's FIN. Default 2,000.
    pub close_timeout_ms: u64,
    /// Origins that may connect beside the same one; `"*"`: any. Default none.
    pub origins: Vec<String>,
    /// Whether a handshake without an origin is refused. Default false.
    pub require_origin: bool,
}

/// `[shutdown]`: the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// Time for every connection to close. Default 10,000.
    pub drain_ms: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddress::Tcp(([127, 0, 0, 1], 9001).into())],
            cpus: CpuList::Auto,
            shards: ShardCount::Auto,
            numa_node: -1,
            reactor: ReactorChoice::Auto,
            uring_tier: TierChoice::Auto,
            pin: true,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            handshakes_max: 1024,
            handshake_timeout_ms: 5000,
            header_bytes_max: 8192,
            headers_max: 64,
        }
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            buffers: 64,
            buffer_bytes: 64 << 10,
            pool_bytes: 256 << 20,
            huge_pages: HugePagesChoice::Off,
        }
    }
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { entries: 1024 }
    }
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            message_bytes_max: 1 << 20,
            fragments_max: 65_536,
            message_age_ms_max: 30_000,
            overhead_budget_bytes: 65_536,
            idle_timeout_ms: 120_000,
            outbox_high_bytes: 64 << 10,
            outbox_low_bytes: 16 << 10,
            outbox_max_bytes: 16 << 20,
            slow_reader: SlowReader::Pause,
            progress_timeout_ms: 30_000,
            close_timeout_ms: 2000,
            origins: Vec::new(),
            require_origin: false,
        }
    }
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { drain_ms: 10_000 }
    }
}

impl Config {
    /// Looks at every value, and at those that must fit each other.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self { server, limits, memory, uring, websocket, .. } = self;
        let rule = |holds: bool, key: &'static str, must: &str| {
            if holds { Ok(()) } else { Err(ConfigError::value(key, must)) }
        };
        let between = |value: usize, low: usize, high: usize, key: &'static str| {
            rule((low..=high).contains(&value), key, &format!("must be from {low} to {high}"))
        };
        rule(!server.listen.is_empty(), "server.listen", "must name at least one address")?;
        rule(server.numa_node >= -1, "server.numa_node", "must be a node, or -1 for any")?;
        between(limits.connections_max, 1, 100_000_000, "limits.connections_max")?;
        between(limits.handshakes_max, 1, 1_000_000, "limits.handshakes_max")?;
        rule(limits.handshake_timeout_ms > 0, "limits.handshake_timeout_ms", "must be above 0")?;
        between(limits.header_bytes_max, 256, 1 << 20, "limits.header_bytes_max")?;
        between(limits.headers_max, 4, 128, "limits.headers_max")?;
        between(memory.buffers, 4, 32_768, "memory.buffers")?;
        between(memory.buffer_bytes, 4 << 10, 1 << 20, "memory.buffer_bytes")?;
        let power = memory.buffer_bytes.is_power_of_two();
        rule(power, "memory.buffer_bytes", "must be a power of two")?;
        let buffers = memory.buffers * memory.buffer_bytes;
        let room = memory.pool_bytes / 2 >= buffers;
        let must = format!("must be at least {}: twice buffers x buffer_bytes", 2 * buffers);
        rule(room, "memory.pool_bytes", &must)?;
        between(memory.pool_bytes, 1 << 20, 1 << 38, "memory.pool_bytes")?;
        between(uring.entries as usize, 64, 32_768, "uring.entries")?;
        rule(uring.entries.is_power_of_two(), "uring.entries", "must be a power of two")?;
        between(websocket.message_bytes_max, 125, 1 << 30, "websocket.message_bytes_max")?;
        let room = memory.pool_bytes / 4 >= websocket.message_bytes_max;
        let must = format!("must be at most {}: a quarter of pool_bytes", memory.pool_bytes / 4);
        rule(room, "websocket.message_bytes_max", &must)?;
        between(websocket.fragments_max as usize, 1, 1 << 30, "websocket.fragments_max")?;
        let budget = websocket.overhead_budget_bytes as usize;
        between(budget, 1024, u32::MAX as usize, "websocket.overhead_budget_bytes")?;
        between(websocket.outbox_max_bytes, 1024, 1 << 30, "websocket.outbox_max_bytes")?;
        let high = websocket.outbox_high_bytes <= websocket.outbox_max_bytes;
        rule(high, "websocket.outbox_high_bytes", "must be at most outbox_max_bytes")?;
        let low = websocket.outbox_low_bytes <= websocket.outbox_high_bytes;
        rule(low, "websocket.outbox_low_bytes", "must be at most outbox_high_bytes")?;
        rule(
            websocket.progress_timeout_ms > 0,
            "websocket.progress_timeout_ms",
            "must be above 0",
        )?;
        rule(websocket.close_timeout_ms > 0, "websocket.close_timeout_ms", "must be above 0")?;
        rule(websocket.idle_timeout_ms != 1, "websocket.idle_timeout_ms", "must be 0 or above 1")
    }
}
