//! The seam through which a connection asks for memory.

use alloc::vec;
use alloc::vec::Vec;

/// What a connection asks for memory when a message or packet did not arrive whole.
///
/// It asks with the first byte that has to be kept, never for an announcement, and for at most
/// twice the bytes that have arrived or 64 KiB, whichever is more. Being refused is an ordinary
/// answer: the connection then fails, and says that it was this.
pub trait Memory {
    /// Memory that the connection owns until it is dropped or handed out with a message.
    type Buffer: AsRef<[u8]> + AsMut<[u8]>;

    /// A buffer of `len` bytes, of any content, which will probably grow to `expected` (never less
    /// than `len`): a place with room behind it saves a copy later. `None` if there is no memory.
    fn acquire(&mut self, len: usize, expected: usize) -> Option<Self::Buffer>;

    /// Makes `buffer` `len` bytes long, keeping its first `used` bytes. `false` if there is no
    /// memory; `buffer` is then as it was.
    ///
    /// May be called for every fragment of a message, so growing by a little must be cheap on average:
    /// give out blocks of which only a part is shown, or grow by doubling.
    fn grow(&mut self, buffer: &mut Self::Buffer, used: usize, len: usize) -> bool;
}

/// [`Memory`] from the global allocator, never refused: for clients, tests and tools.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapMemory;

impl Memory for HeapMemory {
    type Buffer = Vec<u8>;

    fn acquire(&mut self, len: usize, _expected: usize) -> Option<Vec<u8>> {
        Some(vec![0; len])
    }

    fn grow(&mut self, buffer: &mut Vec<u8>, _used: usize, len: usize) -> bool {
        buffer.resize(len, 0); // a Vec at least doubles when it moves
        true
    }
}
