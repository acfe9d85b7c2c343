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
    /// # Errors
    /// The message is larger than the limit, the payload is no DEFLATE, or there is no memory. Do
    /// not use the inflater again for this connection without [`reset`](Self::reset).
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
        let mut out = Output { buffer, filled: 0, limit };
        if payload.is_empty() {
            // Not what section 7.2.3.6 asks for, but there is only one way to read it.
            return Ok((out.buffer, 0));
        }
        self.feed(payload, &mut out, env)?;
        self.feed(&TAIL, &mut out, env)?;
        Ok((out.buffer, out.filled))
    }

    /// Forgets the window.
    pub fn reset(&mut self) {
        if self.used {
            self.used = false;
            self.stream.reset(false);
        }
    }

    /// Decompresses all of `input` behind what is there.
    fn feed<M: Memory>(
        &mut self,
        mut input: &[u8],
        out: &mut Output<M::Buffer>,
        env: &mut Env<'_, M>,
    ) -> Result<(), Violation> {
        loop {
            let mut beyond = [0; 1];
            let is_full = out.filled == out.limit;
            let room = if is_full { &mut beyond[..] } else { out.room(env)? };
            let room_len = room.len();
            let (read, written) = (self.stream.total_in(), self.stream.total_out());
            let status =
                self.stream.decompress(input, room, InflateFlush::SyncFlush).map_err(violation)?;
            let taken = usize::try_from(self.stream.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.stream.total_out() - written).unwrap_or(usize::MAX);
            input = &input[taken..];
            if is_full && written > 0 {
                return Err(Violation::MessageTooBig);
            }
            out.filled += written;
            match status {
                // More may wait behind a full buffer, even without input.
                Status::Ok if !input.is_empty() || written == room_len => {}
                Status::Ok | Status::BufError => return Ok(()),
                Status::StreamEnd => {
                    self.restart(out)?;
                    if input.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// After a block with BFINAL set, which RFC 7692 section 7.2.3.4 allows anywhere: the library
    /// takes it for the end of everything, so it starts anew with the window of this message.
    fn restart<B: AsRef<[u8]>>(&mut self, out: &Output<B>) -> Result<(), Violation> {
        self.stream.reset(false);
        let message = &out.buffer.as_ref()[..out.filled];
        let window = &message[message.len().saturating_sub(WINDOW_BYTES)..];
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
        let end = self.buffer.as_ref().len().min(self.limit);
        Ok(&mut self.buffer.as_mut()[self.filled..end])
    }
}

fn violation(error: InflateError) -> Violation {
    match error {
        InflateError::MemError => Violation::OutOfMemory,
        _ => Violation::NotDeflate,
    }
}
