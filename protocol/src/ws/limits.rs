//! What a peer may cost, and what a read needs from outside.

/// What a peer may cost us. One of these serves all connections of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most payload bytes of one message, all its fragments together. Checked when a frame
    /// header is read, before any memory is taken. Of a compressed message it is what comes out,
    /// checked while it comes; what arrives may have
    /// [`compressed_bytes_max`](Self::compressed_bytes_max). Default 1 MiB, which is also the most
    /// memory that one connection can hold (beside 125 bytes of a control frame that was cut),
    /// unless it has agreed on compression: then it is both together while a message is inflated.
    pub message_bytes_max: usize,
    /// The most frames of one fragmented message. Default 65,536: more than any honest sender
    /// needs, and a bound on the work that one message can cause.
    pub fragments_max: u32,
    /// How long a message may take from its first frame header to its last byte, in milliseconds;
    /// 0 for no bound. Default 30,000.
    pub message_age_ms_max: u64,
    /// How much a peer may spend on frames that carry little or nothing, in bytes. A control frame
    /// or a fragment costs 16; a byte of data earns 1, a whole message 16, a second 1,024, never
    /// above this figure. A peer with nothing left is closed with 1008. Default 65,536, which is
    /// 4,096 pings at a stretch and 64 a second for ever; with 0 no control frame and no fragment
    /// is accepted.
    pub overhead_budget_bytes: u32,
}

impl Limits {
    /// The most payload bytes of a message that is compressed: what cannot be compressed becomes a
    /// little longer, at most by an eighth.
    #[must_use]
    pub const fn compressed_bytes_max(&self) -> usize {
        self.message_bytes_max.saturating_add(self.message_bytes_max / 8 + 64)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1024 * 1024,
            fragments_max: 65_536,
            message_age_ms_max: 30_000,
            overhead_budget_bytes: 65_536,
        }
    }
}

/// What a read is given from outside: limits, memory and time.
#[derive(Debug)]
pub struct Env<'a, M> {
    /// What the peer may cost.
    pub limits: &'a Limits,
    /// Where memory for messages that did not arrive whole comes from.
    pub memory: &'a mut M,
    /// Now, in milliseconds since a point that is the same for all reads of a connection; it must
    /// not go backwards.
    pub now_ms: u64,
}
