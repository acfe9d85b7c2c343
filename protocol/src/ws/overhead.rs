//! The budget against floods of frames that carry little or nothing.

use super::{Limits, Violation};

/// What a control frame or a fragment costs: about what its header costs to read.
pub(super) const FRAME_COST_BYTES: u32 = 16;
/// What a whole message earns, so that a fragmented one of a few bytes is not a loss.
pub(super) const MESSAGE_CREDIT_BYTES: u32 = 16;
/// What a second earns: 64 control frames.
pub(super) const CREDIT_BYTES_PER_SECOND: u64 = 1_024;

/// What a peer owes. Kept as a debt, so that a new connection needs to know no limit: the budget
/// that is left is [`Limits::overhead_budget_bytes`] minus this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overhead {
    debt_bytes: u32,
    /// When time was last credited: the low half of `now_ms`, which turns over after 49 days.
    credited_ms: u32,
}

impl Overhead {
    pub(super) const fn new() -> Self {
        Self { debt_bytes: 0, credited_ms: 0 }
    }

    /// Charges a frame that is overhead.
    pub(super) fn charge(&mut self, limits: &Limits, now_ms: u64) -> Result<(), Violation> {
        self.credit_time(now_ms);
        self.debt_bytes = self.debt_bytes.saturating_add(FRAME_COST_BYTES);
        if self.debt_bytes >= limits.overhead_budget_bytes {
            return Err(Violation::OverheadExhausted);
        }
        Ok(())
    }

    /// Credits payload bytes of a data frame.
    pub(super) fn credit_payload(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.debt_bytes = self.debt_bytes.saturating_sub(bytes);
    }

    /// Credits a whole message.
    pub(super) fn credit_message(&mut self) {
        self.debt_bytes = self.debt_bytes.saturating_sub(MESSAGE_CREDIT_BYTES);
    }

    /// Credits the time since the last charge. What is lost to rounding is less than a byte for
    /// each charge of 16.
    fn credit_time(&mut self, now_ms: u64) {
        let now_ms = now_ms as u32; // the low half, as documented on the field
        let elapsed_ms = u64::from(now_ms.wrapping_sub(self.credited_ms));
        self.credited_ms = now_ms;
        let credit = elapsed_ms * CREDIT_BYTES_PER_SECOND / 1_000;
        self.debt_bytes = self.debt_bytes.saturating_sub(u32::try_from(credit).unwrap_or(u32::MAX));
    }
}
