//! What a peer may cost, how long things may take, and what a read needs from outside.

/// What a peer may cost us, and how long it may take. One of these serves all connections of a
/// configuration; times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of one body, known elsewhere as the size limit. Checked when a header is
    /// read, before any memory is taken. Default 100,000,000, which is also the most memory that
    /// one connection can hold; a server for strangers wants less.
    pub body_bytes_max: usize,
    /// How long a packet may take from its first byte to its last; 0 for no bound. Default 30,000.
    pub packet_age_ms_max: u64,
    /// The most calls of ours that wait for their responses; one takes 100 to 200 bytes. Default
    /// 65,536.
    pub calls_max: u32,
    /// The most requests of the peer that are not answered yet: one more ends the connection. To
    /// slow a peer down before that, stop reading. 0: nothing is served here, and what nobody
    /// waits for is counted, not delivered. Default 65,536.
    pub requests_max: u32,
    /// How many calls that ended without a response are remembered, so that a late one is not
    /// taken for a request of the peer. The oldest are forgotten. Default 4,096.
    pub late_max: u32,
    /// How long they are remembered; 0 for no bound but their number. Default 300,000.
    pub late_ms: u64,
    /// The time between two pings; 0 for none. A peer that sends nothing at all for twice as long
    /// after one is given up. Default 60,000.
    pub ping_interval_ms: u64,
    /// How long a peer may send nothing; 0 for no bound, which is the default: pings notice a
    /// peer that is gone.
    pub idle_timeout_ms: u64,
    /// How long a shutdown may take, from where it is asked for, by us or by the peer, to the end
    /// of the handshake; 0 for no bound. Default 5,000.
    pub shutdown_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 100_000_000,
            packet_age_ms_max: 30_000,
            calls_max: 65_536,
            requests_max: 65_536,
            late_max: 4_096,
            late_ms: 300_000,
            ping_interval_ms: 60_000,
            idle_timeout_ms: 0,
            shutdown_timeout_ms: 5_000,
        }
    }
}

/// What a read is given from outside: limits, memory and time.
#[derive(Debug)]
pub struct Env<'a, M> {
    /// What the peer may cost.
    pub limits: &'a Limits,
    /// Where memory for packets that did not arrive whole comes from.
    pub memory: &'a mut M,
    /// Now, in milliseconds since a point that is the same for all that is done with a connection;
    /// it must not go backwards.
    pub now_ms: u64,
}
