//! From messages to compressed payloads, with a window that may be kept.

use core::fmt;

use zlib_rs::{Deflate, DeflateFlush, Status};

use super::{NoRoom, TAIL};

/// Compresses the messages of a connection, or of all connections that keep no context and have
/// agreed on the same window.
///
/// ```
/// use hioload_protocol::deflate::{Deflater, Inflater};
/// use hioload_protocol::ws::{Env, HeapMemory, Limits};
///
/// let (mut deflater, mut inflater) = (Deflater::new(6, 15), Inflater::new());
/// let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms: 0 };
/// let mut lens = Vec::new();
/// for _ in 0..2 {
///     let mut out = vec![0; Deflater::bound(37)];
///     let len = deflater.message(b"what was said before costs a few bytes", true, &mut out)?;
///     lens.push(len);
///     let (message, len) = inflater.message(&out[..len], true, &mut env)?;
///     assert_eq!(&message[..len], b"what was said before costs a few bytes");
/// }
/// assert!(lens[1] < lens[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Deflater {
    stream: Deflate,
    /// Whether something was written since the last reset.
    used: bool,
}

impl Deflater {
    /// Allocates its windows and tables ([`bytes`](Self::bytes)), and never again.
    ///
    /// # Panics
    /// If `level` is not 1 to 9 or `window_bits` is not 9 to 15.
    #[must_use]
    pub fn new(level: u8, window_bits: u8) -> Self {
        assert!((1..=9).contains(&level), "a level is 1 to 9");
        assert!((9..=15).contains(&window_bits), "a window that we compress for has 9 to 15 bits");
        Self { stream: Deflate::new(level.into(), false, window_bits), used: false }
    }

    /// What one for this window takes at the most, in bytes: the window twice, as much again to
    /// find repetitions in it, and 244 KiB of tables and buffers.
    #[must_use]
    pub const fn bytes(window_bits: u8) -> usize {
        (4 << window_bits) + 244 * 1024
    }

    /// Room that is always enough for a message of `len` bytes.
    #[must_use]
    pub const fn bound(len: usize) -> usize {
        // Level 1 writes every byte above 143 in 9 bits. A block of 16,383 bytes or more has a
        // header and an end of 10 bits; a flush has 6 bytes at the most.
        len + len / 8 + len / 8_192 + 64
    }

    /// Compresses one message to the front of `out` (RFC 7692 section 7.2.1),
    /// and answers how long the payload is.
    ///
    /// `keeps_context`: whether the window is kept for the next message.
    ///
    /// # Errors
    /// It does not fit. The window is forgotten then: the next message can be understood without
    /// this one, which may be sent as it is.
    pub fn message(
        &mut self,
        message: &[u8],
        keeps_context: bool,
        out: &mut [u8],
    ) -> Result<usize, NoRoom> {
        if !keeps_context {
            self.reset();
        }
        if message.is_empty() {
            return super::empty(out);
        }
        self.used = true;
        let (read, written) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.compress(message, out, DeflateFlush::SyncFlush);
        let read = self.stream.total_in() - read;
        // At most the length of `out`.
        let written = (self.stream.total_out() - written) as usize;
        let is_whole = read == message.len() as u64 && written < out.len();
        match status {
            Ok(Status::Ok) if is_whole && out[..written].ends_with(&TAIL) => {
                Ok(written - TAIL.len())
            }
            _ => {
                self.reset();
                Err(NoRoom)
            }
        }
    }

    /// Forgets the window: the next message stands alone.
    pub fn reset(&mut self) {
        if self.used {
            self.used = false;
            self.stream.reset();
        }
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("used", &self.used).finish_non_exhaustive()
    }
}
