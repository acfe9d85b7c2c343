//! The windows of a shard's compressed sessions (permessage-deflate, RFC 7692).
//!
//! Comes in: payloads, beside the slot of their session. Goes out: compressed or decompressed
//! payloads. Whoever keeps no context between two messages uses the one window of the shard; a
//! session gets its own only with the first message that needs it.

use hioload_pools::Lease;
use hioload_protocol::deflate::{Agreement, Deflater, Direction, Inflater, Whole};
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
}

impl Windows {
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
        let slot = self.slots.get(id.0 as usize)?.as_ref()?;
        (len >= slot.bytes_min
            && slot.ours.window_bits >= hioload_protocol::deflate::DEFLATE_BITS_MIN)
            .then(|| HEADER_BYTES_MAX + slot.payload_max(len))
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
        let payload_max = slot.payload_max(message.payload.len());
        // The header goes in front of a payload of which only the most is known yet.
        let room = message.header(payload_max).encoded_len();
        let target = &mut out[room..room + payload_max];
        let len = if slot.ours.keeps_context {
            let Slot { ours, level, .. } = *slot;
            let own = slot
                .deflater
                .get_or_insert_with(|| Box::new(Deflater::new(level, ours.window_bits)));
            own.message(message.payload, true, target).ok()?
        } else {
            let whole = whole(&mut self.wholes, slot.level);
            whole.message(message.payload, slot.ours.window_bits, target).ok()?
        };
        let header = message.header(len);
        let header_len = header.encoded_len();
        if header_len < room {
            out.copy_within(room..room + len, header_len);
        }
        if let Some(key) = message.mask {
            mask(&mut out[header_len..header_len + len], key, 0);
        }
        let mut bytes = [0; HEADER_BYTES_MAX];
        header.encode(&mut bytes);
        out[..header_len].copy_from_slice(&bytes[..header_len]);
        Some(header_len + len)
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
