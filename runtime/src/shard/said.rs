//! How often something is logged that peers may be able to cause: a few lines, then a count.

/// Lines in [`INTERVAL_MS`].
const LINES_MAX: u32 = 5;
const INTERVAL_MS: u64 = 60_000;

/// What was said of one cause, and what was not.
#[derive(Debug, Default)]
pub(super) struct Said {
    began_ms: u64,
    lines: u32,
    unsaid: u64,
}

impl Said {
    /// Whether this is to be logged; then, how many were not since the last one that was.
    pub(super) fn admit(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms >= self.began_ms + INTERVAL_MS {
            (self.began_ms, self.lines) = (now_ms, 0);
        }
        if self.lines == LINES_MAX {
            self.unsaid += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unsaid))
    }

    /// When [`overdue`](Self::overdue) may answer something; `None` if never.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (self.unsaid > 0).then_some(self.began_ms + INTERVAL_MS)
    }

    /// How many were not logged, if nothing came behind them that would say so: a line of its own.
    pub(super) fn overdue(&mut self, now_ms: u64) -> Option<u64> {
        self.due_ms().filter(|due| *due <= now_ms)?;
        (self.began_ms, self.lines) = (now_ms, 1);
        self.rest()
    }

    /// How many were not logged, if any, when nothing comes any more.
    pub(super) fn rest(&mut self) -> Option<u64> {
        (self.unsaid > 0).then(|| std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::Said;

    #[test]
    fn a_minute_has_five_lines_and_the_next_one_counts_the_rest() {
        let mut said = Said::default();
        let admitted = (0..100).filter(|number| said.admit(number * 100) == Some(0)).count();
        assert_eq!(admitted, 5);
        assert_eq!(said.admit(60_000), Some(95));
        assert_eq!(said.admit(60_001), Some(0));
    }

    #[test]
    fn what_was_not_said_is_said_when_nothing_follows() {
        let mut said = Said::default();
        (0..5).for_each(|_| assert_eq!(said.admit(1), Some(0)));
        assert_eq!(said.due_ms(), None);
        assert_eq!(said.admit(2), None);
        assert_eq!((said.due_ms(), said.overdue(59_999)), (Some(60_000), None));
        assert_eq!(said.overdue(60_000), Some(1));
        assert_eq!((said.due_ms(), said.overdue(120_000)), (None, None));
        // It was a line as any other.
        assert_eq!((0..10).filter(|_| said.admit(60_001).is_some()).count(), 4);
    }
}
