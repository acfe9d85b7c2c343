//! From compressed payloads to messages, never more than a cap.

use core::fmt;

use zlib_rs::{Inflate, InflateError, InflateFlush, Status};

use super::{TAIL, WINDOW_BITS_MAX};
use crate::ws::{Env, Memory, Violation};

/// Room for a message of which nothing is known yet.
const FIRST_BYTES: usize = 512;
/// How many times larger a message usually is than its compressed payload: JSON is some 3 to 5.
const GUESSED_RATIO: usize = 4;
/// How far a window reaches back.
const WINDOW_BYTES: usize = 1 << WINDOW_BITS_MAX;
/// The most room that the library is shown at once: it counts in 32 bits.
const ROOM_BYTES_MAX: usize = 1 << 30;
/// How much copying of windows a message may cause before it has brought anything.
const RESTORED_BYTES_FREE: usize = 1024 * 1024;
/// How much more of it per byte that came or went out.
const RESTORED_RATIO: usize = 16;
/// The end that is put back, and a byte behind it that must be left over.
const TAIL_AND_MORE: [u8; 5] = [TAIL[0], TAIL[1], TAIL[2], TAIL[3], 0xFF];

/// Decompresses the messages of a connection, or of all connections that keep no context.
///
/// It owns a window of 32 KiB, whatever was agreed: a larger window than the sender's never hurts.
///
/// ```
/// use hioload_protocol::deflate::Inflater;
/// use hioload_protocol::ws::{Env, HeapMemory, Limits};
///
/// // RFC 7692 section 7.2.3.1
/// let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms: 0 };
/// let (hello, len) =
///     Inflater::new().message(b"\xf2\x48\xcd\xc9\xc9\x07\x00", false, &mut env)?;
/// assert_eq!(&hello[..len], b"Hello");
/// # Ok::<(), hioload_protocol::ws::Violation>(())
/// ```
pub struct Inflater {
    stream: Inflate,
    /// Whether something was read since the last reset.
    used: bool,
}

impl Inflater {
    /// What one takes at the most, in bytes: a window of 32 KiB, and 15 KiB of tables.
    pub const BYTES: usize = 48 * 1024;

    /// Allocates its window, and never again.
    #[must_use]
    pub fn new() -> Self {
        Self { stream: Inflate::new(false, WINDOW_BITS_MAX), used: false }
    }

    /// Decompresses the payload of one message (RFC 7692 section 7.2.2): the memory that it was
    /// given, and how many bytes of it are the message.
    ///
    /// `keeps_context`: whether the sender keeps its window, so that the next message may refer
    /// back to this one. Without it the next message starts anew.
    ///
    /// Memory begins with four times the payload and doubles as the message comes out, never above
    /// [`Limits::message_bytes_max`](crate::ws::Limits).
    ///
    /// A payload that was cut short is found out: behind it the library must wait for nothing but
    /// the four bytes that the sender left out. Two payloads that do not end so are understood all
    /// the same, as nothing of them is missing: one of no bytes, and one that ends with a block
    /// that has BFINAL set. Behind such a block the message may refer back to all of itself; what
    /// came in earlier messages is forgotten, as it is by zlib.
    ///
    /// # Errors
    /// The message is larger than the limit, the payload is no DEFLATE or ends before its end, it
    /// has far too many blocks with BFINAL set, or there is no memory. Do not use the inflater
    /// again for this connection without [`reset`](Self::reset).
    ///
    /// # Panics
    /// If [`Memory`] gives less than it was asked for.
    pub fn message<M: Memory>(
        &mut self,
        payload: &[u8],
        keeps_context: bool,
        env: &mut Env<'_, M>,
    ) -> Result<(M::Buffer, usize), Violation> {
        if !keeps_context {
            self.reset();
        }
        self.used = true;
        let limit = env.limits.message_bytes_max;
        let guess = payload.len().saturating_mul(GUESSED_RATIO).max(FIRST_BYTES).min(limit.max(1));
        let buffer = env.memory.acquire(guess, guess).ok_or(Violation::OutOfMemory)?;
        let mut out = Output { buffer, filled: 0, limit, payload_len: payload.len(), restored: 0 };
        if payload.is_empty() {
            // Not what section 7.2.3.6 asks for, but there is only one way to read it.
            return Ok((out.buffer, 0));
        }
        if !self.feed(payload, &mut out, env)? {
            self.finish(&mut out)?;
        }
        Ok((out.buffer, out.filled))
    }

    /// Forgets the window.
    pub fn reset(&mut self) {
        if self.used {
            self.used = false;
            self.stream.reset(false);
        }
    }

    /// Decompresses all of `payload`. `true` if it ends with a block that has BFINAL set.
    fn feed<M: Memory>(
        &mut self,
        payload: &[u8],
        out: &mut Output<M::Buffer>,
        env: &mut Env<'_, M>,
    ) -> Result<bool, Violation> {
        let mut input = payload;
        // Each round reads or writes something, or is the last.
        loop {
            let mut beyond = [0; 1];
            let is_full = out.filled == out.limit;
            let room = if is_full { &mut beyond[..] } else { out.room(env)? };
            let room_len = room.len();
            let (status, read, written) = self.step(input, room, InflateFlush::SyncFlush)?;
            input = &input[read..];
            if is_full && written > 0 {
                return Err(Violation::MessageTooBig);
            }
            out.filled += written;
            match status {
                // More may wait behind a full buffer, even without input.
                Status::Ok if !input.is_empty() || written == room_len => {}
                Status::Ok | Status::BufError => return Ok(false),
                Status::StreamEnd => {
                    self.restart(out)?;
                    if input.is_empty() {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Puts back what the sender cut off. A payload that is whole ends in front of the length of
    /// an empty block, so nothing comes out of these bytes, and the block ends with them.
    fn finish<B: AsRef<[u8]>>(&mut self, out: &mut Output<B>) -> Result<(), Violation> {
        let mut beyond = [0; 1];
        // Stops at the end of a block.
        let (_, read, written) = self.step(&TAIL_AND_MORE, &mut beyond, InflateFlush::Block)?;
        if (read, written) != (TAIL.len(), 0) {
            return Err(Violation::NotDeflate);
        }
        // It is the end of everything if the empty block has BFINAL set.
        let (status, ..) = self.step(&[], &mut beyond, InflateFlush::SyncFlush)?;
        match status {
            Status::StreamEnd => self.restart(out),
            Status::Ok | Status::BufError => Ok(()),
        }
    }

    /// One call of the library: what it says, and how many bytes it read and wrote.
    fn step(
        &mut self,
        input: &[u8],
        room: &mut [u8],
        flush: InflateFlush,
    ) -> Result<(Status, usize, usize), Violation> {
        let (read, written) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress(input, room, flush).map_err(violation)?;
        // At most the lengths of the slices.
        let read = (self.stream.total_in() - read) as usize;
        let written = (self.stream.total_out() - written) as usize;
        Ok((status, read, written))
    }

    /// After a block with BFINAL set, which RFC 7692 section 7.2.3.4 allows anywhere: the library
    /// takes it for the end of everything, so it starts anew with the window of this message.
    fn restart<B: AsRef<[u8]>>(&mut self, out: &mut Output<B>) -> Result<(), Violation> {
        self.stream.reset(false);
        let message = &out.buffer.as_ref()[..out.filled];
        let window = &message[message.len().saturating_sub(WINDOW_BYTES)..];
        // An empty block of two bytes would make us copy 32 KiB, as often as a peer likes.
        out.restored += window.len();
        let data = out.payload_len.saturating_add(out.filled);
        if out.restored > RESTORED_BYTES_FREE.saturating_add(data.saturating_mul(RESTORED_RATIO)) {
            return Err(Violation::OverheadExhausted);
        }
        if !window.is_empty() {
            self.stream.set_dictionary(window).map_err(violation)?;
        }
        Ok(())
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("used", &self.used).finish_non_exhaustive()
    }
}

/// A message that is coming out.
struct Output<B> {
    buffer: B,
    filled: usize,
    limit: usize,
    payload_len: usize,
    /// How many bytes of windows were copied after blocks with BFINAL set.
    restored: usize,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Output<B> {
    /// The memory behind what is filled, grown if there is none; never beyond the limit.
    fn room<M: Memory<Buffer = B>>(
        &mut self,
        env: &mut Env<'_, M>,
    ) -> Result<&mut [u8], Violation> {
        let len = self.buffer.as_ref().len();
        if self.filled == len {
            let len = (len * 2).min(self.limit);
            if !env.memory.grow(&mut self.buffer, self.filled, len) {
                return Err(Violation::OutOfMemory);
            }
        }
        let end = self.buffer.as_ref().len().min(self.limit).min(self.filled + ROOM_BYTES_MAX);
        assert!(self.filled < end, "Memory gave less than it was asked for");
        Ok(&mut self.buffer.as_mut()[self.filled..end])
    }
}

fn violation(error: InflateError) -> Violation {
    match error {
        InflateError::MemError => Violation::OutOfMemory,
        _ => Violation::NotDeflate,
    }
}
