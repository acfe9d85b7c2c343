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
}
