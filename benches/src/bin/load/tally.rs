//! What was counted: by each thread for itself, added up at the end.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies above are counted as this: ten minutes, in nanoseconds.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_NS_MAX, SIGNIFICANT_DIGITS).expect("the bounds are sound")
}

/// What a thread counted. Only `replies` is over the whole run, the rest is of the time that is
/// measured.
pub(crate) struct Tally {
    pub(crate) connections: usize,
    /// All that came back, also in the warm-up.
    pub(crate) replies: u64,
    pub(crate) messages: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// In nanoseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    /// The part of the time in which it had something to do.
    pub(crate) busy: f64,
    /// Messages that were due at the end and could not be sent.
    pub(crate) late: u64,
    /// Connections that had waited for a reply for more than a second at the end.
    pub(crate) silent: usize,
    pub(crate) server: Option<ServerTime>,
    pub(crate) idle: Option<IdleMemory>,
    pub(crate) lost: usize,
    pub(crate) trouble: Option<Trouble>,
}

/// Why a thread ended early.
pub(crate) enum Trouble {
    /// The server closed connections; why the first.
    Lost(String),
    Other(String),
}

/// What the server did in the time that was measured.
#[derive(Clone, Copy)]
pub(crate) struct ServerTime {
    pub(crate) cpu: Duration,
    /// How much of its core the busiest thread used.
    pub(crate) busy: f64,
}

/// `RssAnon` of the server on the way to many idle connections, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct IdleMemory {
    /// Connections that pay for what is touched once.
    pub(crate) first_connections: usize,
    /// Before the first connection.
    pub(crate) before: u64,
    pub(crate) after_first: u64,
    pub(crate) after_all: u64,
    /// When they had been held.
    pub(crate) at_end: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            connections: 0,
            replies: 0,
            messages: 0,
            bytes_in: 0,
            bytes_out: 0,
            latency: histogram(),
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            busy: 0.0,
            late: 0,
            silent: 0,
            server: None,
            idle: None,
            lost: 0,
            trouble: None,
        }
    }

    /// Adds what another thread counted at the same time.
    pub(crate) fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.replies += other.replies;
        self.messages += other.messages;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        self.elapsed = self.elapsed.max(other.elapsed);
        self.cpu += other.cpu;
        self.busy = self.busy.max(other.busy);
        self.late += other.late;
        self.silent += other.silent;
        self.server = self.server.or(other.server);
        self.idle = self.idle.or(other.idle);
        self.lost += other.lost;
        // What is wrong tells more than what is lost because of it.
        self.trouble = match (self.trouble.take(), other.trouble) {
            (Some(Trouble::Other(text)), _) | (_, Some(Trouble::Other(text))) => {
                Some(Trouble::Other(text))
            }
            (own, others) => own.or(others),
        };
    }
}
