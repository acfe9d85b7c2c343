//! The figures of a run, under the names that they have in JSON.

use hioload_benches::process::anonymous_bytes;
use serde::Serialize;

use crate::size::Sizes;
use crate::tally::Tally;
use crate::worker::Plan;

/// From here on a thread is as good as always busy.
const GENERATOR_FULL: f64 = 0.95;
/// Below this a server had time left.
const SERVER_FULL: f64 = 0.90;

#[derive(Serialize)]
pub(crate) struct Summary<'a> {
    url: &'a str,
    pub(crate) connections: usize,
    in_flight: usize,
    size: &'a Sizes,
    pub(crate) duration_s: f64,
    pub(crate) messages: u64,
    pub(crate) messages_per_s: f64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    latency_us: Latency,
    rate: Option<f64>,
    pub(crate) late: u64,
    pub(crate) self_cpu_s: f64,
    pub(crate) self_cpu_us_per_message: f64,
    pub(crate) server_cpu_s: Option<f64>,
    pub(crate) server_cpu_us_per_message: Option<f64>,
    pub(crate) server_rss_anon_bytes: Option<u64>,
    pub(crate) idle: Option<Idle>,
    pub(crate) bottleneck: bool,
    pub(crate) verified: bool,
    pub(crate) interrupted: bool,
    version: &'static str,
}

#[derive(Serialize)]
struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p75: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    p99_99: f64,
    max: f64,
}

/// Memory of the server, all of it `RssAnon`; without `--server-pid` nothing is known of it.
#[derive(Serialize)]
pub(crate) struct Idle {
    /// The growth from the first connections to all of them, per connection.
    pub(crate) bytes_per_connection: Option<f64>,
    /// Connections that pay for what is touched once.
    pub(crate) first_connections: usize,
    pub(crate) rss_anon_before_bytes: Option<u64>,
    pub(crate) rss_anon_after_first_bytes: Option<u64>,
    pub(crate) rss_anon_after_all_bytes: Option<u64>,
    pub(crate) rss_anon_at_end_bytes: Option<u64>,
}

impl<'a> Summary<'a> {
    pub(crate) fn new(plan: &'a Plan, size: &'a Sizes, tally: &Tally, interrupted: bool) -> Self {
        let duration_s = tally.elapsed.as_secs_f64();
        let per_message = |seconds: f64| seconds * 1e6 / tally.messages.max(1) as f64;
        let server = tally.server.map(|server| server.cpu.as_secs_f64());
        let server_is_full = tally.server.is_some_and(|server| server.busy >= SERVER_FULL);
        Self {
            url: &plan.door.target.url,
            connections: tally.connections,
            in_flight: plan.in_flight,
            size,
            duration_s,
            messages: tally.messages,
            messages_per_s: if duration_s > 0.0 { tally.messages as f64 / duration_s } else { 0.0 },
            bytes_in: tally.bytes_in,
            bytes_out: tally.bytes_out,
            latency_us: Latency::of(tally),
            rate: plan.rate,
            late: tally.late,
            self_cpu_s: tally.cpu.as_secs_f64(),
            self_cpu_us_per_message: per_message(tally.cpu.as_secs_f64()),
            server_cpu_s: server,
            server_cpu_us_per_message: server.map(per_message),
            server_rss_anon_bytes: plan.server.and_then(|server| anonymous_bytes(server).ok()),
            idle: Idle::of(plan, tally),
            bottleneck: tally.busy > GENERATOR_FULL && !server_is_full,
            verified: plan.verify,
            interrupted,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and text can be written")
    }
}

impl Latency {
    fn of(tally: &Tally) -> Self {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let quantile = |quantile| us(tally.latency.value_at_quantile(quantile));
        Self {
            min: us(tally.latency.min()),
            mean: tally.latency.mean() / 1e3,
            p50: quantile(0.5),
            p75: quantile(0.75),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            p99_99: quantile(0.9999),
            max: us(tally.latency.max()),
        }
    }
}

impl Idle {
    fn of(plan: &Plan, tally: &Tally) -> Option<Self> {
        let memory = tally.idle?;
        let known = |bytes| plan.server.map(|_| bytes);
        let others = plan.connections - memory.first_connections;
        let growth = memory.after_all as f64 - memory.after_first as f64;
        Some(Self {
            bytes_per_connection: plan
                .server
                .filter(|_| others > 0)
                .map(|_| growth / others as f64),
            first_connections: memory.first_connections,
            rss_anon_before_bytes: known(memory.before),
            rss_anon_after_first_bytes: known(memory.after_first),
            rss_anon_after_all_bytes: known(memory.after_all),
            rss_anon_at_end_bytes: known(memory.at_end),
        })
    }
}
