//! The limits of a shard in the form in which the turn uses them.

use std::time::Duration;

use hioload_protocol::http::{HeadLimits, OriginPolicy};
use hioload_protocol::iproto;
use hioload_protocol::ws::Limits;

use crate::config::{Compression, Config, SlowReader};

/// Everything of the configuration that a connection is measured against.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) head: HeadLimits,
    pub(crate) origins: OriginPolicy,
    pub(crate) messages: Limits,
    pub(crate) iproto: iproto::Limits,
    /// Of calls that name no time.
    pub(crate) request_timeout_ms: u64,
    pub(crate) connections_max: usize,
    pub(crate) handshakes_max: usize,
    pub(crate) handshake_timeout_ms: u64,
    /// Zero: off.
    pub(crate) idle_timeout_ms: u64,
    pub(crate) progress_timeout_ms: u64,
    pub(crate) close_timeout_ms: u64,
    pub(crate) outbox_high_bytes: usize,
    pub(crate) outbox_low_bytes: usize,
    pub(crate) outbox_max_bytes: usize,
    pub(crate) slow_reader: SlowReader,
    /// Of routes that have no setting of their own.
    pub(crate) compression: Compression,
    pub(crate) topics_max: usize,
    pub(crate) subscriptions_max: usize,
    pub(crate) spin: Duration,
}

/// What a peer must take of the backlog of a session that ends, in bytes a second: who takes less
/// is cut. A slow line of today carries more.
const BACKLOG_BYTES_A_SECOND: u64 = 16 * 1024;

impl Settings {
    /// The time that a backlog of `bytes` has to leave in the end of its session.
    pub(crate) fn backlog_ms(&self, bytes: usize) -> u64 {
        self.progress_timeout_ms + (bytes as u64 * 1000).div_ceil(BACKLOG_BYTES_A_SECOND)
    }

    /// Those of a shard in virtual time: its clock stands still while it looks for something to do,
    /// so that it would spin for ever.
    pub(crate) fn simulated(config: &Config) -> Self {
        Self { spin: Duration::ZERO, ..Self::from(config) }
    }
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let Config { limits, websocket, iproto, .. } = config;
        Self {
            head: HeadLimits {
                bytes_max: limits.header_bytes_max,
                headers_max: limits.headers_max,
            },
            origins: OriginPolicy {
                allowed: websocket.origins.clone(),
                require: websocket.require_origin,
            },
            messages: Limits {
                message_bytes_max: websocket.message_bytes_max,
                fragments_max: websocket.fragments_max,
                message_age_ms_max: websocket.message_age_ms_max,
                overhead_budget_bytes: websocket.overhead_budget_bytes,
            },
            iproto: iproto::Limits {
                body_bytes_max: iproto.body_bytes_max,
                packet_age_ms_max: iproto.packet_age_ms_max,
                calls_max: iproto.calls_max,
                requests_max: iproto.requests_max,
                late_max: iproto.late_max,
                late_ms: iproto.late_ms,
                ping_interval_ms: iproto.ping_interval_ms,
                idle_timeout_ms: iproto.idle_timeout_ms,
                shutdown_timeout_ms: iproto.shutdown_timeout_ms,
            },
            request_timeout_ms: iproto.request_timeout_ms,
            connections_max: limits.connections_max,
            handshakes_max: limits.handshakes_max,
            handshake_timeout_ms: limits.handshake_timeout_ms,
            idle_timeout_ms: websocket.idle_timeout_ms,
            progress_timeout_ms: websocket.progress_timeout_ms,
            close_timeout_ms: websocket.close_timeout_ms,
            outbox_high_bytes: websocket.outbox_high_bytes,
            outbox_low_bytes: websocket.outbox_low_bytes,
            outbox_max_bytes: websocket.outbox_max_bytes,
            slow_reader: websocket.slow_reader,
            compression: Compression::from(websocket),
            topics_max: limits.topics_max,
            subscriptions_max: limits.subscriptions_max,
            spin: Duration::from_micros(config.server.spin_us),
        }
    }
}
