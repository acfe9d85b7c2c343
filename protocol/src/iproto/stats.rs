//! What is counted.

/// What one connection has done so far. No figure turns over while anybody lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that were read.
    pub bytes_in: u64,
    /// Packets whose last byte was read.
    pub packets_in: u64,
    /// Bytes of the packets whose headers were given out.
    pub bytes_out: u64,
    /// Packets whose headers were given out.
    pub packets_out: u64,
    /// Calls that were made.
    pub calls: u64,
    /// Calls that ended without a response: timed out or cancelled.
    pub calls_dropped: u64,
    /// Notifies that were sent.
    pub notices: u64,
    /// Requests of the peer that were delivered.
    pub requests_in: u64,
    /// Notifies of the peer that were delivered.
    pub notices_in: u64,
    /// Responses to calls that had timed out or were cancelled.
    pub late: u64,
    /// Packets that nobody waits for: responses and requests where nothing is served, packets
    /// behind the peer's shutdown.
    pub unsolicited: u64,
}

impl Stats {
    /// Nothing done yet.
    pub(super) const NONE: Self = Self {
        bytes_in: 0,
        packets_in: 0,
        bytes_out: 0,
        packets_out: 0,
        calls: 0,
        calls_dropped: 0,
        notices: 0,
        requests_in: 0,
        notices_in: 0,
        late: 0,
        unsolicited: 0,
    };

    /// The sum of both, field by field: for a pool of connections.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            bytes_in: self.bytes_in + other.bytes_in,
            packets_in: self.packets_in + other.packets_in,
            bytes_out: self.bytes_out + other.bytes_out,
            packets_out: self.packets_out + other.packets_out,
            calls: self.calls + other.calls,
            calls_dropped: self.calls_dropped + other.calls_dropped,
            notices: self.notices + other.notices,
            requests_in: self.requests_in + other.requests_in,
            notices_in: self.notices_in + other.notices_in,
            late: self.late + other.late,
            unsolicited: self.unsolicited + other.unsolicited,
        }
    }
}
