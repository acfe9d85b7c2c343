//! What sessions want to send, until the end of the turn.
//!
//! Comes in: frames and raw bytes. Goes out: for each dirty session one list of segments, which
//! the turn hands to the reactor as one gathered send. Small frames are copied next to each other
//! into a staging buffer, so that a burst leaves as one segment; large payloads are sent from
//! where they lie. An idle session costs 16 bytes here: the segments lie in one list per shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use hioload_pools::{BytePool, Lease, Shared};
use hioload_protocol::ws::frame::HEADER_BYTES_MAX;
use hioload_protocol::ws::mask::mask;
use hioload_protocol::ws::{Control, Env, Limits, Memory, Violation};

use super::deflate::{DeflateId, Outgoing, StandingAlone, Windows};
use super::extra::Extras;
use super::secrets::Secrets;
use super::settings::Settings;
use super::topics::{SharedTopics, Topics};
use crate::Time;

/// Payloads up to this size are copied into the staging buffer; larger ones stay where they are.
/// Copying 2 KiB costs about as much as one more segment of a gathered send.
pub(crate) const COPIED_BYTES_MAX: usize = 2048;

/// Size of a staging buffer: what one turn of small frames usually needs.
const STAGING_BYTES: usize = 64 * 1024;

/// A block up to this size pins so little that nothing is copied out of it.
const SETTLED_BYTES: usize = 256;

/// Whether a segment keeps much more memory from being used again than it fills.
pub(super) const fn pins_too_much(len: usize, block_len: usize) -> bool {
    block_len > SETTLED_BYTES && block_len > len * 2
}

/// No node: the end of a list.
const NONE: u32 = u32::MAX;

/// One session's share of the outgoing segments.
#[derive(Debug)]
pub(crate) struct Outbox {
    head: u32,
    tail: u32,
    /// Bytes in the list.
    waiting: u32,
    /// Bytes that the reactor has and the kernel did not take yet.
    blocked: u32,
}

impl Outbox {
    pub(crate) const fn new() -> Self {
        Self { head: NONE, tail: NONE, waiting: 0, blocked: 0 }
    }

    /// Bytes accepted and not yet taken by the kernel.
    pub(crate) const fn queued(&self) -> usize {
        self.waiting as usize + self.blocked as usize
    }

    /// Whether there is something to hand to the reactor.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Whether a send is open at the reactor.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.blocked > 0
    }

    /// The reactor says that `bytes` of the last send wait.
    pub(crate) fn block(&mut self, bytes: usize) {
        self.blocked = u32::try_from(bytes).expect("an outbox is bounded below 4 GiB");
    }

    /// The reactor says that `bytes` of them left.
    pub(crate) fn progress(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("an outbox is bounded below 4 GiB");
        self.blocked = self.blocked.saturating_sub(bytes);
    }
}

#[derive(Debug)]
struct Node {
    segment: Option<Shared>,
    next: u32,
}

/// The outgoing segments of all sessions of a shard.
pub(crate) struct Egress {
    pool: Rc<dyn BytePool>,
    pub(crate) settings: Rc<Settings>,
    /// The tick of the turn.
    pub(crate) now_ms: u64,
    /// The time of the turn.
    pub(super) now: Time,
    /// The part of the staging buffer that is not yet used.
    staging: Option<Lease>,
    nodes: Vec<Node>,
    free: u32,
    /// Indices of the sessions that have something to send in this turn, each at most once
    /// (a flag of the session sees to that).
    pub(crate) dirty: Vec<u32>,
    /// The newest unanswered ping of each session whose outbox is above its mark
    /// (RFC 6455 section 5.5.3 lets us answer that one alone).
    pub(crate) late_pongs: HashMap<u32, Control>,
    /// Where heads of HTTP responses are written before they are staged.
    pub(crate) scratch: Vec<u8>,
    /// Masks and nonces of the connections that we opened.
    pub(crate) secrets: Secrets,
    /// Of the sessions that compress.
    pub(crate) windows: Windows,
    pub(crate) topics: SharedTopics,
    pub(crate) extras: Extras,
    /// What was copied last to outlive this turn, and its copy: a message that went to many is
    /// copied for the first of those that do not read, and not once for each.
    settled: Option<(Shared, Shared)>,
}

/// The pool of a shard as the protocol asks for it.
pub(crate) struct PoolMemory<'a>(&'a dyn BytePool);

impl Memory for PoolMemory<'_> {
    type Buffer = Lease;

    fn acquire(&mut self, len: usize, expected: usize) -> Option<Lease> {
        self.0.acquire(len, expected)
    }

    fn grow(&mut self, buffer: &mut Lease, used: usize, len: usize) -> bool {
        self.0.grow(buffer, used, len)
    }
}

/// The pool had no memory for what was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

impl Egress {
    pub(crate) fn new(pool: Rc<dyn BytePool>, settings: Rc<Settings>, secrets: Secrets) -> Self {
        let topics = Topics::new(settings.topics_max, settings.subscriptions_max);
        Self {
            topics: Rc::new(RefCell::new(topics)),
            extras: Extras::default(),
            settled: None,
            pool,
            settings,
            now_ms: 0,
            now: Time::ZERO,
            staging: None,
            nodes: Vec::with_capacity(1024),
            free: NONE,
            dirty: Vec::with_capacity(256),
            late_pongs: HashMap::with_capacity(64),
            scratch: Vec::new(),
            secrets,
            windows: Windows::default(),
        }
    }

    pub(crate) fn pool(&self) -> &dyn BytePool {
        &*self.pool
    }

    /// What a protocol receives into.
    pub(crate) fn memory(&self) -> PoolMemory<'_> {
        PoolMemory(&*self.pool)
    }

    /// What the protocol needs to read: limits, memory, time.
    pub(crate) fn environment(&self) -> (PoolMemory<'_>, &Limits, u64) {
        (PoolMemory(&*self.pool), &self.settings.messages, self.now_ms)
    }

    /// Between two turns: the staging buffer is used again from its start once everything in it
    /// has left.
    pub(crate) fn begin_turn(&mut self, now: Time) {
        self.now_ms = now.as_millis();
        self.now = now;
        if let Some(staging) = &mut self.staging {
            staging.reclaim();
        }
    }

    /// Appends copies of both parts, the second one masked if there is a key, next to what the
    /// session staged last where that is possible.
    pub(crate) fn stage(
        &mut self,
        outbox: &mut Outbox,
        header: &[u8],
        payload: &[u8],
        key: Option<[u8; 4]>,
    ) -> Result<(), Exhausted> {
        let len = header.len() + payload.len();
        if len == 0 {
            return Ok(());
        }
        let mut piece = self.staging_piece(len)?;
        let (front, back) = piece.split_at_mut(header.len());
        front.copy_from_slice(header);
        back.copy_from_slice(payload);
        if let Some(key) = key {
            mask(back, key, 0);
        }
        self.append(outbox, piece);
        Ok(())
    }

    /// Appends a frame with a compressed message. `Ok(false)`: it is to be sent as it is.
    pub(crate) fn stage_compressed(
        &mut self,
        outbox: &mut Outbox,
        id: DeflateId,
        message: Outgoing<'_>,
    ) -> Result<bool, Exhausted> {
        let Some(room) = self.windows.room(id, message.payload.len()) else { return Ok(false) };
        if room > STAGING_BYTES {
            let mut lease = self.pool.acquire(room, room).ok_or(Exhausted)?;
            let Some(len) = self.windows.write(id, message, &mut lease) else { return Ok(false) };
            lease.truncate(len);
            let frame = self.fitted(lease);
            self.append(outbox, frame);
            return Ok(true);
        }
        // Taken out for as long as it is written to.
        self.staging_of(room)?;
        let Some(mut staging) = self.staging.take() else { return Err(Exhausted) };
        let written = self.windows.write(id, message, &mut staging);
        let frame = written.map(|len| staging.split_to(len));
        self.staging = Some(staging);
        let Some(frame) = frame else { return Ok(false) };
        self.append(outbox, frame);
        Ok(true)
    }

    /// A frame with a compressed message that many can be sent, in memory of about its size. `None`:
    /// it would not be shorter, or there is no memory.
    pub(crate) fn deflated(&mut self, how: StandingAlone, message: Outgoing<'_>) -> Option<Shared> {
        let room = HEADER_BYTES_MAX + message.payload.len();
        let mut frame = self.pool.acquire(room, room)?;
        let len = self.windows.write_standing_alone(how, message, &mut frame)?;
        frame.truncate(len);
        Some(self.fitted(frame).freeze())
    }

    /// The same bytes, in memory of about their size if there is some: what waits is counted by its
    /// bytes, and a peer must not make us keep more than is counted.
    fn fitted(&self, frame: Lease) -> Lease {
        if !pins_too_much(frame.len(), frame.block_len()) {
            return frame;
        }
        let Some(mut copy) = self.pool.acquire(frame.len(), frame.len()) else { return frame };
        copy.copy_from_slice(&frame);
        copy
    }

    /// Decompresses a message that a session received.
    pub(crate) fn inflate(&mut self, id: DeflateId, payload: &[u8]) -> Result<Lease, Violation> {
        let mut memory = PoolMemory(&*self.pool);
        let limits = &self.settings.messages;
        let mut env = Env { limits, memory: &mut memory, now_ms: self.now_ms };
        self.windows.read(id, payload, &mut env)
    }

    /// Appends a segment that is sent from where it lies.
    pub(crate) fn append(&mut self, outbox: &mut Outbox, segment: impl Into<Shared>) {
        let segment: Shared = segment.into();
        let len = u32::try_from(segment.len()).expect("a segment lies in a pool below 4 GiB");
        let waiting = outbox.waiting.checked_add(len);
        outbox.waiting = waiting.expect("an outbox is bounded below 4 GiB");
        let segment = match self.nodes.get_mut(outbox.tail as usize) {
            Some(Node { segment: Some(last), .. }) => match last.unsplit(segment) {
                Ok(()) => return,
                Err(segment) => segment,
            },
            _ => segment,
        };
        let node = self.take_node(segment);
        match self.nodes.get_mut(outbox.tail as usize) {
            Some(last) => last.next = node,
            None => outbox.head = node,
        }
        outbox.tail = node;
    }

    /// Hands out the segments of a session, in their order, and leaves its list empty.
    pub(crate) fn drain<'a>(&'a mut self, outbox: &mut Outbox) -> Segments<'a> {
        let head = outbox.head;
        outbox.head = NONE;
        outbox.tail = NONE;
        outbox.waiting = 0;
        Segments { egress: self, next: head }
    }

    /// Copies what will outlive the turn out of buffers that it would pin, unless it fills at
    /// least half of one. Where no memory can be had, the segment stays where it is.
    pub(crate) fn settle(&mut self, outbox: &Outbox) {
        let mut at = outbox.head;
        while let Some(node) = self.nodes.get_mut(at as usize) {
            at = node.next;
            let Some(segment) = &mut node.segment else { continue };
            if !pins_too_much(segment.len(), segment.block_len()) {
                continue;
            }
            if let Some((from, copy)) = &self.settled
                && (from.as_ptr(), from.len()) == (segment.as_ptr(), segment.len())
            {
                *segment = copy.clone();
                continue;
            }
            if let Some(mut copy) = self.pool.acquire(segment.len(), segment.len()) {
                copy.copy_from_slice(segment);
                let copy = copy.freeze();
                let from = std::mem::replace(segment, copy.clone());
                self.settled = Some((from, copy));
            }
        }
    }

    /// The end of the turn: nothing is pinned only to be recognised.
    pub(crate) fn end_turn(&mut self) {
        self.settled = None;
    }

    /// How many segments wait in all outboxes.
    pub(super) fn segments(&self) -> usize {
        self.nodes.iter().filter(|node| node.segment.is_some()).count()
    }

    /// The next `len` bytes of the staging buffer.
    fn staging_piece(&mut self, len: usize) -> Result<Lease, Exhausted> {
        Ok(self.staging_of(len)?.split_to(len))
    }

    /// The staging buffer, a new one if less than `len` bytes of it are left.
    fn staging_of(&mut self, len: usize) -> Result<&mut Lease, Exhausted> {
        if self.staging.as_ref().is_none_or(|staging| staging.len() < len) {
            let size = len.max(STAGING_BYTES);
            self.staging = Some(self.pool.acquire(size, size).ok_or(Exhausted)?);
        }
        self.staging.as_mut().ok_or(Exhausted)
    }

    fn take_node(&mut self, segment: Shared) -> u32 {
        let fresh = Node { segment: Some(segment), next: NONE };
        if let Some(node) = self.nodes.get_mut(self.free as usize) {
            let index = self.free;
            self.free = node.next;
            *node = fresh;
            return index;
        }
        let index = u32::try_from(self.nodes.len()).expect("fewer segments than pool bytes");
        self.nodes.push(fresh);
        index
    }
}

/// The segments of one session on their way to the reactor.
///
/// What is not taken out is dropped with it.
pub(crate) struct Segments<'a> {
    egress: &'a mut Egress,
    next: u32,
}

impl Iterator for Segments<'_> {
    type Item = Shared;

    fn next(&mut self) -> Option<Shared> {
        let node = self.egress.nodes.get_mut(self.next as usize)?;
        let index = self.next;
        self.next = node.next;
        node.next = self.egress.free;
        self.egress.free = index;
        node.segment.take()
    }
}

impl Drop for Segments<'_> {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}
