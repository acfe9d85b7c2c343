//! What waits for the shard, and bodies on their way between it and other threads: memory that is
//! used again and again, so that small ones cost no allocation.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use hioload_pools::Key;

use super::line::Want;
use super::{Call, Payload};

/// Borrowed bodies up to this size are copied behind each other.
const STAGED_BODY_MAX: usize = 2048;
/// As long as they are no more than this together; what is beyond has memory of its own.
const STAGED_MAX: usize = 64 * 1024;
/// Packets for which memory is kept.
const PACKETS_KEPT: usize = 1024;

/// Responses up to this size are copied into blocks.
const SHARED_BODY_MAX: usize = 512;
/// The size of a block: what a response that is kept for long keeps with it at the most.
const BLOCK_BYTES: usize = 4096;
/// Blocks that are used again, for each connection.
const BLOCKS_MAX: usize = 16;

/// Where a body is until the shard sends it.
#[derive(Debug)]
enum Place {
    Staged(Range<usize>),
    Owned(Bytes),
}

/// Something to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) msg: u32,
    pub(super) want: Want,
    /// Who waits for it.
    pub(super) ticket: Option<Key>,
    body: Place,
}

/// What waits for the shard.
#[derive(Debug, Default)]
pub(super) struct Batch {
    outgoing: VecDeque<Outgoing>,
    staged: Vec<u8>,
    /// Bodies, and one for each packet: an empty one costs something too.
    bytes: usize,
    /// Those of notifies that may wait for room.
    patient_bytes: usize,
    pub(super) cancelled: Vec<Call>,
}

impl Batch {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn patient_bytes(&self) -> usize {
        self.patient_bytes
    }

    pub(super) fn push(&mut self, msg: u32, body: Payload<'_>, want: Want, ticket: Option<Key>) {
        self.bytes += body.len() + 1;
        if let Want::NotifyWithin(_) = want {
            self.patient_bytes += body.len() + 1;
        }
        let body = match body.borrowed() {
            Some(bytes)
                if bytes.len() <= STAGED_BODY_MAX
                    && self.staged.len() + bytes.len() <= STAGED_MAX =>
            {
                let start = self.staged.len();
                self.staged.extend_from_slice(bytes);
                Place::Staged(start..self.staged.len())
            }
            _ => Place::Owned(body.into_bytes()),
        };
        self.outgoing.push_back(Outgoing { msg, want, ticket, body });
    }

    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    /// The body of what was taken out of this batch.
    pub(super) fn body<'a>(&'a self, outgoing: &'a Outgoing) -> &'a [u8] {
        match &outgoing.body {
            Place::Staged(range) => &self.staged[range.clone()],
            Place::Owned(bytes) => bytes,
        }
    }

    pub(super) fn owned_body(&self, outgoing: Outgoing) -> Bytes {
        match outgoing.body {
            Place::Staged(range) => Bytes::copy_from_slice(&self.staged[range]),
            Place::Owned(bytes) => bytes,
        }
    }

    /// Takes out the next thing: who waits for it, and its body.
    pub(super) fn unsent(&mut self) -> Option<(Option<Key>, Bytes)> {
        let outgoing = self.pop()?;
        Some((outgoing.ticket, self.owned_body(outgoing)))
    }

    /// Everything was taken out; keeps memory for as much again.
    pub(super) fn clear(&mut self) {
        self.outgoing.clear();
        self.outgoing.shrink_to(PACKETS_KEPT);
        self.cancelled.clear();
        self.cancelled.shrink_to(PACKETS_KEPT);
        self.staged.clear();
        (self.bytes, self.patient_bytes) = (0, 0);
    }
}

/// Memory for the bodies of responses that leave the shard.
#[derive(Debug, Default)]
pub(super) struct Blocks(VecDeque<BytesMut>);

impl Blocks {
    /// A copy of `body`. Small ones share a block, whose memory is used again when all of them
    /// are gone.
    pub(super) fn copy(&mut self, body: &[u8]) -> Bytes {
        if body.is_empty() {
            return Bytes::new();
        }
        if body.len() > SHARED_BODY_MAX {
            return Bytes::copy_from_slice(body);
        }
        let mut block = self.block_for(body.len());
        block.extend_from_slice(body);
        let copy = block.split().freeze();
        self.0.push_front(block);
        copy
    }

    /// A block with room for this many bytes, taken out.
    fn block_for(&mut self, bytes: usize) -> BytesMut {
        if let Some(mut block) = self.0.pop_front() {
            if block.capacity() >= bytes || block.try_reclaim(bytes) {
                return block;
            }
            self.0.push_back(block);
        }
        // The one that was used up first is the one that is given back first.
        if let Some(mut oldest) = self.0.pop_front() {
            if oldest.try_reclaim(bytes) {
                return oldest;
            }
            if self.0.len() + 1 < BLOCKS_MAX {
                self.0.push_front(oldest);
            }
        }
        BytesMut::with_capacity(BLOCK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_used_again_when_their_bodies_are_gone() {
        let mut blocks = Blocks::default();
        let mut kept: VecDeque<(Bytes, u8)> = VecDeque::new();
        for number in 0..100_000_u32 {
            let fill = (number % 251) as u8;
            let body = vec![fill; 1 + number as usize % SHARED_BODY_MAX];
            kept.push_back((blocks.copy(&body), fill));
            if kept.len() > 50 {
                let (body, fill) = kept.pop_front().unwrap();
                assert!(body.iter().all(|byte| *byte == fill), "a body was overwritten");
            }
        }
        assert!(blocks.0.len() <= BLOCKS_MAX, "{} blocks", blocks.0.len());
        kept.clear();
        let memory = blocks.0.iter_mut().filter_map(|it| it.try_reclaim(1).then(|| it.capacity()));
        assert!(memory.sum::<usize>() <= BLOCKS_MAX * BLOCK_BYTES);
    }

    #[test]
    fn a_batch_gives_back_what_was_not_sent() {
        let mut batch = Batch::default();
        let key = Key::from_u64(7);
        batch.push(1, "for nobody".into(), Want::Notify, None);
        batch.push(2, "small".into(), Want::Call(None), Some(key));
        batch.push(3, vec![1; 9000].into(), Want::Call(None), Some(key));
        assert_eq!(batch.bytes(), 10 + 5 + 9000 + 3);
        assert_eq!(batch.unsent(), Some((None, "for nobody".into())));
        assert_eq!(batch.unsent(), Some((Some(key), "small".into())));
        assert_eq!(batch.unsent().unwrap().1.len(), 9000);
        assert!(batch.unsent().is_none());
        batch.clear();
        assert_eq!(batch.bytes(), 0);
    }
}
