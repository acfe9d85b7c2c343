//! The windows of a shard's compressed sessions (permessage-deflate, RFC 7692).
//!
//! Comes in: payloads, beside the slot of their session. Goes out: compressed or decompressed
//! payloads. Whoever keeps no context between two messages uses the one window of the shard; a
//! session gets its own only with the first message that needs it.

use hioload_pools::Lease;
use hioload_protocol::deflate::{
    Agreement, DEFLATE_BITS_MIN, Deflater, Direction, Inflater, NoRoom, WINDOW_BITS_MAX, Whole,
};
use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::mask::mask;
use hioload_protocol::ws::{Env, MessageKind, Role, Violation};

use super::outbox::PoolMemory;
use crate::config::Compression;

/// Names the slot of a session; `NONE` for a session that does not compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeflateId(u32);

impl DeflateId {
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// What a session agreed on, and the windows that are its own.
struct Slot {
    ours: Direction,
    theirs: Direction,
    level: u8,
    bytes_min: usize,
    deflater: Option<Box<Deflater>>,
    inflater: Option<Box<Inflater>>,
    /// Whether it was sent something that its deflater does not know.
    interrupted: bool,
}

/// Every window of a shard.
#[derive(Default)]
pub(crate) struct Windows {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// By level, for messages that stand alone.
    wholes: Vec<(u8, Whole)>,
    /// For messages that stand alone.
    inflater: Option<Box<Inflater>>,
}

/// A message that is to be sent compressed.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) kind: MessageKind,
    pub(crate) payload: &'a [u8],
    /// The key to mask it with, of a client.
    pub(crate) mask: Option<[u8; 4]>,
}

impl Outgoing<'_> {
    fn header(&self, len: usize) -> Header {
        let header = Header::new(true, self.kind.opcode(), self.mask, len as u64);
        Header { rsv1: true, ..header }
    }

    /// Writes header and payload to the front of `out`, the payload by `compress`, which is given
    /// room for `payload_max` bytes.
    fn write(
        &self,
        payload_max: usize,
        out: &mut [u8],
        compress: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, NoRoom>,
    ) -> Option<usize> {
        // The header goes in front of a payload of which only the most is known yet.
        let room = self.header(payload_max).encoded_len();
        let len = compress(self.payload, &mut out[room..room + payload_max]).ok()?;
        let header = self.header(len);
        let header_len = header.encoded_len();
        if header_len < room {
            out.copy_within(room..room + len, header_len);
        }
        if let Some(key) = self.mask {
            mask(&mut out[header_len..header_len + len], key, 0);
        }
        let mut bytes = [0; HEADER_BYTES_MAX];
        header.encode(&mut bytes);
        out[..header_len].copy_from_slice(&bytes[..header_len]);
        Some(header_len + len)
    }
}

/// How a message that stands alone is compressed: the same for everybody with the same of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StandingAlone {
    level: u8,
    window_bits: u8,
    /// Whether the receiver goes on with its window.
    keeps_context: bool,
}

impl Windows {
    /// How many sessions have a place.
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// A place for a session that agreed on compression.
    pub(crate) fn open(
        &mut self,
        agreed: &Agreement,
        role: Role,
        compression: &Compression,
    ) -> DeflateId {
        let slot = Slot {
            ours: agreed.sent_by(role),
            theirs: agreed.received_by(role),
            level: compression.level,
            bytes_min: compression.bytes_min.max(1),
            deflater: None,
            inflater: None,
            interrupted: false,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer sessions than 2^32")
        });
        self.slots[index as usize] = Some(slot);
        DeflateId(index)
    }

    /// The end of a session; `id` names nothing any more.
    pub(crate) fn close(&mut self, id: &mut DeflateId) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            *slot = None;
            self.free.push(id.0);
            *id = DeflateId::NONE;
        }
    }

    /// How much room [`write`](Self::write) needs for a message of `len` bytes; `None` if it is not
    /// to be compressed.
    pub(crate) fn room(&self, id: DeflateId, len: usize) -> Option<usize> {
        let slot = self.compressing(id, len)?;
        Some(HEADER_BYTES_MAX + slot.payload_max(len))
    }

    /// Writes a frame to the front of `out` and answers how long it is. `None`: compression does
    /// not make the message shorter; it is to be sent as it is.
    pub(crate) fn write(
        &mut self,
        id: DeflateId,
        message: Outgoing<'_>,
        out: &mut [u8],
    ) -> Option<usize> {
        let slot = self.slots.get_mut(id.0 as usize)?.as_mut()?;
        let Slot { ours, level, .. } = *slot;
        let payload_max = slot.payload_max(message.payload.len());
        if !ours.keeps_context {
            let whole = whole(&mut self.wholes, level);
            return message.write(payload_max, out, |payload, room| {
                whole.message(payload, ours.window_bits, room)
            });
        }
        let fresh = || Box::new(Deflater::new(level, ours.window_bits));
        let own = slot.deflater.get_or_insert_with(fresh);
        if std::mem::take(&mut slot.interrupted) {
            own.reset();
        }
        message.write(payload_max, out, |payload, room| own.message(payload, true, room))
    }

    /// How a message of `len` bytes that goes to many is to be compressed for this session; `None`
    /// if it is not.
    pub(crate) fn standing_alone(&self, id: DeflateId, len: usize) -> Option<StandingAlone> {
        let Slot { ours, level, .. } = *self.compressing(id, len)?;
        // No reference is longer than the message: a short one is the same for every window.
        let fits = len <= 1 << ours.window_bits;
        let window_bits = if fits { WINDOW_BITS_MAX } else { ours.window_bits };
        Some(StandingAlone { level, window_bits, keeps_context: ours.keeps_context })
    }

    /// As [`write`](Self::write), for everybody who wants it like this. It needs room for the
    /// payload and a header.
    pub(crate) fn write_standing_alone(
        &mut self,
        how: StandingAlone,
        message: Outgoing<'_>,
        out: &mut [u8],
    ) -> Option<usize> {
        let whole = whole(&mut self.wholes, how.level);
        message.write(message.payload.len(), out, |payload, room| {
            if how.keeps_context {
                whole.flushed(payload, how.window_bits, room)
            } else {
                whole.message(payload, how.window_bits, room)
            }
        })
    }

    /// A session was sent a message that stands alone: what it is sent from now on must not refer
    /// back beyond that, as the distances have changed.
    pub(crate) fn interrupt(&mut self, id: DeflateId) {
        if let Some(Some(slot)) = self.slots.get_mut(id.0 as usize) {
            slot.interrupted = true;
        }
    }

    /// The slot of a session that compresses messages of this length.
    fn compressing(&self, id: DeflateId, len: usize) -> Option<&Slot> {
        let slot = self.slots.get(id.0 as usize)?.as_ref()?;
        let can = slot.ours.window_bits >= DEFLATE_BITS_MIN;
        (can && len >= slot.bytes_min).then_some(slot)
    }

    /// Decompresses what a session received.
    pub(crate) fn read(
        &mut self,
        id: DeflateId,
        payload: &[u8],
        env: &mut Env<'_, PoolMemory<'_>>,
    ) -> Result<Lease, Violation> {
        let slot = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut);
        let slot = slot.expect("only a session that agreed on it gets compressed messages");
        let keeps_context = slot.theirs.keeps_context;
        let inflater = if keeps_context { &mut slot.inflater } else { &mut self.inflater };
        let inflater = inflater.get_or_insert_default();
        let (mut message, len) = inflater.message(payload, keeps_context, env)?;
        message.truncate(len);
        Ok(message)
    }
}

impl Slot {
    /// The longest payload that a message of `len` bytes may become. One that stands alone is worth
    /// it only if it gets shorter; one that others refer to has to be taken in.
    const fn payload_max(&self, len: usize) -> usize {
        if self.ours.keeps_context { Deflater::bound(len) } else { len }
    }
}

fn whole(wholes: &mut Vec<(u8, Whole)>, level: u8) -> &mut Whole {
    let at = wholes.iter().position(|(known, _)| *known == level).unwrap_or_else(|| {
        wholes.push((level, Whole::new(level)));
        wholes.len() - 1
    });
    &mut wholes[at].1
}
