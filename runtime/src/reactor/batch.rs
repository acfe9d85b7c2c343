//! A caller's batch while one wait fills it: at most [`BATCH_MAX`] completions, and blocked sends.

use super::{BATCH_MAX, Completion, Event, Token};

/// What one wait has added, and where to.
pub(super) struct Batch<'a> {
    completions: &'a mut Vec<Completion>,
    start: usize,
    most: usize,
}

impl<'a> Batch<'a> {
    pub(super) const fn new(completions: &'a mut Vec<Completion>) -> Self {
        Self::at_most(completions, BATCH_MAX)
    }

    /// One that is full with fewer completions.
    pub(super) const fn at_most(completions: &'a mut Vec<Completion>, most: usize) -> Self {
        let start = completions.len();
        Self { completions, start, most }
    }

    /// Adds a completion; there must be room.
    pub(super) fn push(&mut self, token: Token, event: Event) {
        assert!(!self.is_full(), "nothing is completed once the batch is full");
        self.completions.push(Completion { token, event });
    }

    /// Adds that a send is blocked, whether there is room or not: the next wait after the send
    /// must tell, because its silence is success.
    pub(super) fn push_blocked(&mut self, token: Token, bytes: usize) {
        self.completions.push(Completion { token, event: Event::SendBlocked(bytes) });
    }

    pub(super) const fn is_full(&self) -> bool {
        self.added() >= self.most
    }

    /// How many completions were added.
    pub(super) const fn added(&self) -> usize {
        self.completions.len() - self.start
    }
}
