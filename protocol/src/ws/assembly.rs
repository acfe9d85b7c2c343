//! The message that is being put together because it did not arrive whole.

use super::{Env, Memory, Violation};

/// How much memory a message may have before that many bytes of it have arrived: small enough to
/// be lent to many peers that only announce, large enough that most messages never grow.
const UNEARNED_BYTES_MAX: usize = 64 * 1024;

/// One contiguous buffer, filled from its start.
#[derive(Debug)]
pub(super) struct Assembly<B> {
    buffer: Option<B>,
    filled: usize,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Assembly<B> {
    pub(super) const fn new() -> Self {
        Self { buffer: None, filled: 0 }
    }

    /// How many bytes of the message it has.
    pub(super) const fn filled(&self) -> usize {
        self.filled
    }

    /// Whether it holds no memory.
    pub(super) const fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// How many more bytes it has memory for.
    pub(super) fn room(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.as_ref().len() - self.filled)
    }

    pub(super) const fn buffer(&mut self) -> Option<&mut B> {
        self.buffer.as_mut()
    }

    /// Makes room for `arrived` bytes, and for more of the `coming` bytes of the current frame
    /// (`arrived` among them) as far as a peer has earned it: twice what it has sent, or 64 KiB.
    /// There is never room for more than the current frame.
    pub(super) fn reserve<M: Memory<Buffer = B>>(
        &mut self,
        arrived: usize,
        coming: usize,
        env: &mut Env<'_, M>,
    ) -> Result<(), Violation> {
        let expected = self.filled + coming;
        let earned = (self.filled + arrived).saturating_mul(2).max(UNEARNED_BYTES_MAX);
        let len = expected.min(earned);
        let given = match &mut self.buffer {
            Some(buffer) => env.memory.grow(buffer, self.filled, len),
            None => {
                self.buffer = env.memory.acquire(len, expected);
                self.buffer.is_some()
            }
        };
        if !given {
            return Err(Violation::OutOfMemory);
        }
        assert!(self.room() >= len - self.filled, "Memory gave less than it was asked for");
        Ok(())
    }

    /// The memory behind the filled bytes.
    pub(super) fn tail(&mut self) -> &mut [u8] {
        match &mut self.buffer {
            Some(buffer) => &mut buffer.as_mut()[self.filled..],
            None => &mut [],
        }
    }

    /// Counts the next `count` bytes, which were written behind the filled ones, and gives them.
    /// There must be room for them.
    pub(super) fn advance(&mut self, count: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled += count;
        match &mut self.buffer {
            Some(buffer) => &mut buffer.as_mut()[start..start + count],
            None => &mut [],
        }
    }

    /// Takes the memory and the length of the message out, and is empty again.
    pub(super) fn take(&mut self) -> (Option<B>, usize) {
        (self.buffer.take(), core::mem::take(&mut self.filled))
    }
}
