//! A caller's batch while one wait of epoll or of the simulated reactor fills it: at most
//! [`BATCH_MAX`] completions, not many more bytes than a cache holds, and blocked sends.
//!
//! io_uring does not use it: there the kernel has received before anybody looks. A batch of it has
//! at most [`BATCH_MAX`] completions too, and its bytes are bounded by the buffers that the kernel
//! was given, all of `memory.buffers`, and by the rest of each large message.

use super::{BATCH_MAX, Completion, Event, Token};

/// From so many received bytes on a batch is full: what a turn looks at, changes and sends is then
/// still in the processor's cache, of which this is a fraction.
const RECEIVED_BYTES_MAX: usize = 256 * 1024;

/// What one wait has added, and where to.
pub(super) struct Batch<'a> {
    completions: &'a mut Vec<Completion>,
    start: usize,
    received_bytes: usize,
    most: usize,
}

impl<'a> Batch<'a> {
    pub(super) const fn new(completions: &'a mut Vec<Completion>) -> Self {
        Self::at_most(completions, BATCH_MAX)
    }

    /// One that is full with fewer completions.
    pub(super) const fn at_most(completions: &'a mut Vec<Completion>, most: usize) -> Self {
        let start = completions.len();
        Self { completions, start, received_bytes: 0, most }
    }

    /// Adds a completion; there must be room.
    pub(super) fn push(&mut self, token: Token, event: Event) {
        assert!(!self.is_full(), "nothing is completed once the batch is full");
        self.received_bytes += match &event {
            Event::Received(window) => window.len(),
            Event::ReceivedInto { filled, .. } => *filled,
            _ => 0,
        };
        self.completions.push(Completion { token, event });
    }

    /// Adds that a send is blocked, whether there is room or not: the next wait after the send
    /// must tell, because its silence is success.
    pub(super) fn push_blocked(&mut self, token: Token, bytes: usize) {
        self.completions.push(Completion { token, event: Event::SendBlocked(bytes) });
    }

    pub(super) const fn is_full(&self) -> bool {
        self.added() >= self.most || self.received_bytes >= RECEIVED_BYTES_MAX
    }

    /// How many completions were added.
    pub(super) const fn added(&self) -> usize {
        self.completions.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use hioload_pools::{Arena, ArenaConfig, BytePool};

    use super::*;

    #[test]
    fn it_is_full_of_many_bytes_as_of_many_completions() {
        let pool = Arena::new(ArenaConfig { capacity_bytes: 1 << 20, ..ArenaConfig::default() });
        let pool = pool.unwrap();
        let mut completions = Vec::new();
        let mut batch = Batch::new(&mut completions);
        for _ in 0..RECEIVED_BYTES_MAX / 65_536 {
            assert!(!batch.is_full());
            let window = pool.acquire(65_536, 65_536).unwrap();
            batch.push(Token(1), Event::Received(window));
        }
        assert!(batch.is_full());

        completions.clear();
        let mut batch = Batch::new(&mut completions);
        for _ in 0..BATCH_MAX {
            assert!(!batch.is_full());
            batch.push(Token(1), Event::Ended);
        }
        assert!(batch.is_full());
    }
}
