//! What is being put together because it did not arrive whole.

use super::Memory;

/// How much memory a message or packet may have before that many bytes of it have arrived: small enough to
/// be lent to many peers that only announce, large enough that most never grow.
const UNEARNED_BYTES_MAX: usize = 64 * 1024;

/// [`Memory`] refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutOfMemory;

/// One contiguous buffer, filled from its start.
#[derive(Debug)]
pub(crate) struct Assembly<B> {
    buffer: Option<B>,
    filled: usize,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Assembly<B> {
    pub(crate) const fn new() -> Self {
        Self { buffer: None, filled: 0 }
    }

    /// How many bytes it has.
    pub(crate) const fn filled(&self) -> usize {
        self.filled
    }

    /// Whether it holds no memory.
    pub(crate) const fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// How many more bytes it has memory for.
    pub(crate) fn room(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.as_ref().len() - self.filled)
    }

    pub(crate) const fn buffer(&mut self) -> Option<&mut B> {
        self.buffer.as_mut()
    }

    /// Makes room for `arrived` bytes, and for more of the `coming` bytes that were announced
    /// (`arrived` among them) as far as a peer has earned it: twice what it has sent, or 64 KiB.
    /// There is never room for more than was announced.
    pub(crate) fn reserve<M: Memory<Buffer = B>>(
        &mut self,
        arrived: usize,
        coming: usize,
        memory: &mut M,
    ) -> Result<(), OutOfMemory> {
        let expected = self.filled + coming;
        let earned = (self.filled + arrived).saturating_mul(2).max(UNEARNED_BYTES_MAX);
        let len = expected.min(earned);
        let given = match &mut self.buffer {
            Some(buffer) => memory.grow(buffer, self.filled, len),
            None => {
                self.buffer = memory.acquire(len, expected);
                self.buffer.is_some()
            }
        };
        if !given {
            return Err(OutOfMemory);
        }
        assert!(self.room() >= len - self.filled, "Memory gave less than it was asked for");
        Ok(())
    }

    /// The memory behind the filled bytes.
    pub(crate) fn tail(&mut self) -> &mut [u8] {
        match &mut self.buffer {
            Some(buffer) => &mut buffer.as_mut()[self.filled..],
            None => &mut [],
        }
    }

    /// Counts the next `count` bytes, which were written behind the filled ones, and gives them.
    /// There must be room for them.
    pub(crate) fn advance(&mut self, count: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled += count;
        match &mut self.buffer {
            Some(buffer) => &mut buffer.as_mut()[start..start + count],
            None => &mut [],
        }
    }

    /// Takes the memory and its length out, and is empty again.
    pub(crate) fn take(&mut self) -> (Option<B>, usize) {
        (self.buffer.take(), core::mem::take(&mut self.filled))
    }
}
