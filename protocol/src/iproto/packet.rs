//! Packets out of bytes that were cut anywhere, and bytes out of packets.

use alloc::vec::Vec;

use super::{Env, HEADER_BYTES, Header, Limits, Memory, Refusal, Violation};
use crate::receive::{Assembly, Body, Direct};

/// A whole packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<B> {
    /// Its header.
    pub header: Header,
    /// Where its body lies.
    pub body: Body<B>,
}

/// Appends a whole packet to `out`: for small ones. A large body needs no copy if its header is
/// sent in front of it ([`Header::encode`]).
///
/// # Errors
/// [`Refusal::BodyTooLong`]; nothing is appended then.
pub fn append_packet(out: &mut Vec<u8>, msg: u32, sync: u32, body: &[u8]) -> Result<(), Refusal> {
    let header = Header::new(msg, sync, body.len())?;
    out.reserve(HEADER_BYTES + body.len());
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(body);
    Ok(())
}

/// Reads packets, and knows nothing of what they mean.
///
/// `B` is the memory that [`Memory`] gives for packets that do not arrive whole. A reader between
/// two packets holds none.
#[derive(Debug)]
pub struct PacketReader<B> {
    phase: Phase,
    /// The body that did not arrive whole.
    body: Assembly<B>,
    /// When the packet began.
    started_ms: u64,
}

/// Where in a packet the input ended.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// In its header, after the first `len` bytes; 0 between two packets.
    Header { bytes: [u8; HEADER_BYTES], len: u8 },
    /// In its body, or in front of it.
    Body(Coming),
    /// Whatever comes is ignored.
    Deaf,
}

impl Phase {
    const BETWEEN_PACKETS: Self = Self::Header { bytes: [0; HEADER_BYTES], len: 0 };
}

/// A packet whose header was read.
#[derive(Clone, Copy, Debug)]
struct Coming {
    header: Header,
    /// Bytes of the body still to come.
    remaining: u32,
    /// Nobody wants it, so no byte of it is kept.
    skipped: bool,
}

/// What a reader has consumed and not given out, when the bytes are to be read by somebody else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// The beginning of a packet that is not complete, from its header on.
    pub bytes: Vec<u8>,
    /// How many bytes still come of a packet whose beginning was not kept, as nobody waits for it:
    /// they are no use to anybody.
    pub skip: usize,
}

/// A packet whose body is to be read next.
pub(super) struct Begun {
    pub(super) header: Header,
    /// Whether the header was complete only now.
    pub(super) fresh: bool,
    /// Where it starts, if all of it came in this input.
    header_at: Option<usize>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> PacketReader<B> {
    /// A reader in front of the first packet.
    #[must_use]
    pub const fn new() -> Self {
        Self { phase: Phase::BETWEEN_PACKETS, body: Assembly::new(), started_ms: 0 }
    }

    /// Reads the next packet from `input[*at..]` and moves `*at` behind it. `Ok(None)`: all of
    /// `input` is consumed, nothing of it is needed any more.
    ///
    /// A body that arrived whole stays where it is, as a [`Body::Window`]; what is cut is copied
    /// to memory from `env`.
    ///
    /// ```
    /// use hioload_protocol::iproto::{Env, HeapMemory, Limits, PacketReader};
    ///
    /// let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms: 0 };
    /// let mut reader = PacketReader::new();
    /// // A call of 42 with the body "OK", and the first byte of what follows.
    /// let input = b"\x2a\0\0\0\x02\0\0\0\x01\0\0\0OK\x2a";
    /// let mut at = 0;
    /// let packet = reader.read(input, &mut at, &mut env)?.ok_or("a whole packet")?;
    /// assert_eq!((packet.header.msg, packet.header.sync), (42, 1));
    /// assert_eq!(packet.body.bytes(input), b"OK");
    /// assert_eq!(reader.read(input, &mut at, &mut env)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The body is too big, or `env` has no memory for it. Everything that follows is consumed in
    /// silence.
    ///
    /// # Panics
    /// If `*at` is behind the end of `input`, or if [`Memory`] gives less than it was asked for.
    pub fn read<M: Memory<Buffer = B>>(
        &mut self,
        input: &[u8],
        at: &mut usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Packet<B>>, Violation> {
        let read = match self.begin(input, at, env.limits, env.now_ms) {
            Ok(Some(begun)) => self.finish(&begun, input, at, env.memory),
            Ok(None) => Ok(None),
            Err(violation) => Err(violation),
        };
        if read.is_err() {
            *at = input.len();
        }
        read
    }

    /// Lends the memory of the body that is arriving, if at least `min_bytes` of it are still to
    /// come: the rest need not go through a buffer in between.
    ///
    /// Call it when [`read`](Self::read) has consumed its input. Makes room first if there is less
    /// than `min_bytes`, so that the memory is at most twice what has arrived, or 64 KiB. The tail
    /// of the buffer may be split off to be received into; before [`filled`](Self::filled) it
    /// must be put back ([`buffer_mut`](Self::buffer_mut)), and no read may come in between.
    ///
    /// `Ok(None)`: nothing that large is arriving.
    ///
    /// # Errors
    /// There is no room, and `env` has no memory.
    pub fn direct<M: Memory<Buffer = B>>(
        &mut self,
        min_bytes: usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Direct<'_, B>>, Violation> {
        Ok(if self.earn(min_bytes, env.memory)? { self.lend() } else { None })
    }

    /// Makes room for [`direct`](Self::direct); `false` if nothing that large is arriving.
    pub(super) fn earn<M: Memory<Buffer = B>>(
        &mut self,
        min_bytes: usize,
        memory: &mut M,
    ) -> Result<bool, Violation> {
        let Phase::Body(Coming { remaining, skipped: false, .. }) = self.phase else {
            return Ok(false);
        };
        let (wanted, room) = (remaining as usize, self.body.room());
        if wanted < min_bytes {
            return Ok(false);
        }
        if room < min_bytes.max(1) && self.body.reserve(0, wanted, memory).is_err() && room == 0 {
            self.stop();
            return Err(Violation::OutOfMemory);
        }
        Ok(true)
    }

    /// The room that was made.
    pub(super) const fn lend(&mut self) -> Option<Direct<'_, B>> {
        let Phase::Body(Coming { remaining, .. }) = self.phase else { return None };
        let filled = self.body.filled();
        match self.body.buffer() {
            Some(buffer) => Some(Direct { buffer, filled, wanted: remaining as usize }),
            None => None,
        }
    }

    /// The memory of the body that is arriving, if it has any: to put back what was split off
    /// after [`direct`](Self::direct).
    pub const fn buffer_mut(&mut self) -> Option<&mut B> {
        self.body.buffer()
    }

    /// Takes the `bytes` that were received to `buffer[filled..]` of [`direct`](Self::direct). A
    /// packet that is complete with them comes out.
    ///
    /// # Panics
    /// If `bytes` is more than was lent.
    pub fn filled(&mut self, bytes: usize) -> Option<Packet<B>> {
        let Phase::Body(coming) = self.phase else {
            assert!(bytes == 0 || self.is_deaf(), "no packet is arriving");
            return None;
        };
        assert!(bytes <= coming.remaining as usize && bytes <= self.body.room(), "not lent");
        self.body.advance(bytes);
        self.take_in(coming, bytes, 0)
    }

    /// Whether a packet has begun to arrive and is not complete.
    #[must_use]
    pub const fn is_mid_packet(&self) -> bool {
        match self.phase {
            Phase::Header { len, .. } => len > 0,
            Phase::Body(_) => true,
            Phase::Deaf => false,
        }
    }

    /// When the packet that is arriving becomes too old. `None`: none is arriving, or its age has
    /// no limit.
    #[must_use]
    pub const fn packet_deadline_ms(&self, limits: &Limits) -> Option<u64> {
        if limits.packet_age_ms_max == 0 || !self.is_mid_packet() {
            return None;
        }
        Some(self.started_ms.saturating_add(limits.packet_age_ms_max))
    }

    /// Starts the age of the packet that is arriving anew: for a caller that did not read for a
    /// while, which is no fault of the peer.
    pub const fn restart_age(&mut self, now_ms: u64) {
        self.started_ms = now_ms;
    }

    /// Gives back what was consumed of a packet that is not complete, and ignores from now on
    /// whatever comes.
    pub fn take_unread(&mut self) -> Unread {
        let mut unread = Unread::default();
        match self.phase {
            Phase::Header { bytes, len } => {
                unread.bytes.extend_from_slice(&bytes[..usize::from(len)]);
            }
            Phase::Body(Coming { skipped: true, remaining, .. }) => {
                unread.skip = remaining as usize;
            }
            Phase::Body(Coming { header, .. }) => {
                unread.bytes.extend_from_slice(&header.encode());
                if let (Some(buffer), filled) = self.body.take() {
                    unread.bytes.extend_from_slice(&buffer.as_ref()[..filled]);
                }
            }
            Phase::Deaf => {}
        }
        self.stop();
        unread
    }

    /// Ignores from now on whatever comes, and gives the memory back.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Deaf;
        self.body.take();
    }

    /// Reads a header, or as much of it as has come, unless one was read already.
    #[inline]
    pub(super) fn begin(
        &mut self,
        input: &[u8],
        at: &mut usize,
        limits: &Limits,
        now_ms: u64,
    ) -> Result<Option<Begun>, Violation> {
        let (mut bytes, kept) = match self.phase {
            Phase::Body(coming) => {
                let header = coming.header;
                return Ok(Some(Begun { header, fresh: false, header_at: None }));
            }
            Phase::Deaf => {
                *at = input.len();
                return Ok(None);
            }
            Phase::Header { bytes, len } => (bytes, usize::from(len)),
        };
        let start = *at;
        let rest = &input[start..];
        if kept == 0 && !rest.is_empty() {
            self.started_ms = now_ms;
        }
        let taken = rest.len().min(HEADER_BYTES - kept);
        bytes[kept..kept + taken].copy_from_slice(&rest[..taken]);
        *at += taken;
        if kept + taken < HEADER_BYTES {
            self.phase = Phase::Header { bytes, len: (kept + taken) as u8 }; // below 12
            return Ok(None);
        }
        let header = Header::decode(&bytes);
        if header.len as usize > limits.body_bytes_max {
            self.stop();
            let limit = limits.body_bytes_max;
            return Err(Violation::BodyTooBig { len: header.len, limit });
        }
        self.phase = Phase::Body(Coming { header, remaining: header.len, skipped: false });
        Ok(Some(Begun { header, fresh: true, header_at: (kept == 0).then_some(start) }))
    }

    /// Keeps nothing of the body of the packet that has begun.
    pub(super) const fn skip(&mut self) {
        if let Phase::Body(coming) = &mut self.phase {
            coming.skipped = true;
        }
    }

    /// Reads the body of the packet that has begun, or as much of it as has come. Of one that is
    /// skipped, an empty window comes out.
    #[inline]
    pub(super) fn finish<M: Memory<Buffer = B>>(
        &mut self,
        begun: &Begun,
        input: &[u8],
        at: &mut usize,
        memory: &mut M,
    ) -> Result<Option<Packet<B>>, Violation> {
        let Phase::Body(coming) = self.phase else { return Ok(None) };
        let (available, wanted) = (input.len() - *at, coming.remaining as usize);
        if !coming.skipped && wanted <= available && self.body.is_empty() {
            let payload = *at..*at + wanted;
            *at = payload.end;
            self.phase = Phase::BETWEEN_PACKETS;
            let body = Body::Window { payload, header_at: begun.header_at };
            return Ok(Some(Packet { header: begun.header, body }));
        }
        let count = available.min(wanted);
        let arrived = &input[*at..*at + count];
        *at += count;
        if !coming.skipped && count > 0 {
            if self.body.room() < count && self.body.reserve(count, wanted, memory).is_err() {
                self.stop();
                return Err(Violation::OutOfMemory);
            }
            self.body.tail()[..count].copy_from_slice(arrived);
            self.body.advance(count);
        }
        Ok(self.take_in(coming, count, *at))
    }

    /// Counts the next `count` bytes of a body. `at` is where the empty window of one that was
    /// skipped lies.
    fn take_in(&mut self, mut coming: Coming, count: usize, at: usize) -> Option<Packet<B>> {
        coming.remaining -= count as u32; // at most what was remaining
        if coming.remaining > 0 {
            self.phase = Phase::Body(coming);
            return None;
        }
        self.phase = Phase::BETWEEN_PACKETS;
        let body = match self.body.take() {
            (Some(buffer), len) => Body::Assembled { buffer, len },
            (None, _) => Body::Window { payload: at..at, header_at: None },
        };
        Some(Packet { header: coming.header, body })
    }

    const fn is_deaf(&self) -> bool {
        matches!(self.phase, Phase::Deaf)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Default for PacketReader<B> {
    fn default() -> Self {
        Self::new()
    }
}
