//! Where received bytes land.
//!
//! One buffer is filled front to back by whatever sockets have something; each arrival becomes a
//! window of it. A buffer is used again when its last window is gone. What was lent in earlier
//! turns and is still out is *kept* by somebody; beyond a quarter of the buffers, arrivals are
//! handed out as copies of their own size, so that nobody who hoards runs the others dry.

use hioload_pools::{Arena, BytePool, Lease};

/// A buffer with less room than this part of it is not filled any further: the next arrival would
/// be cut.
const ROOM_MIN_PART: usize = 4;

pub(super) struct Buffers {
    pool: Arena,
    buffer_bytes: usize,
    /// Buffers that were acquired, of at most `max`.
    count: usize,
    max: usize,
    /// The unfilled part of the buffer in use.
    current: Option<Lease>,
    /// Whole buffers that are not in use.
    idle: Vec<Lease>,
    /// The ends of buffers that are filled and whose windows are out.
    lent: Vec<Lease>,
    /// How many of those were already lent when this turn began.
    kept: usize,
    /// Where arrivals land that are handed out as copies; it never leaves.
    scratch: Lease,
}

impl Buffers {
    /// `None`: the pool has no room for two buffers.
    pub(super) fn new(pool: Arena, buffers: usize, buffer_bytes: usize) -> Option<Self> {
        let scratch = pool.acquire(buffer_bytes, buffer_bytes)?;
        let first = pool.acquire(buffer_bytes, buffer_bytes)?;
        Some(Self {
            pool,
            buffer_bytes,
            count: 1,
            max: buffers.max(1),
            current: None,
            idle: vec![first],
            lent: Vec::new(),
            kept: 0,
            scratch,
        })
    }

    /// Between two turns: takes back what nobody holds any more.
    pub(super) fn begin_turn(&mut self) {
        if let Some(current) = &mut self.current {
            current.reclaim();
        }
        let mut at = 0;
        while let Some(buffer) = self.lent.get_mut(at) {
            if buffer.reclaim() {
                let buffer = self.lent.swap_remove(at);
                self.idle.push(buffer);
            } else {
                at += 1;
            }
        }
        self.kept = self.lent.len();
    }

    /// Calls `fill` with room for an arrival, and hands out the window of what it filled.
    /// `Ok(None)`: there is no memory, and `fill` was not called.
    pub(super) fn receive<E>(
        &mut self,
        fill: impl FnOnce(&mut Lease) -> Result<usize, E>,
    ) -> Result<Option<Arrival>, E> {
        let copying = self.kept * 4 >= self.max && self.kept > 0;
        if copying || !self.make_room() {
            return self.receive_copy(fill);
        }
        let Some(current) = &mut self.current else { return Ok(None) };
        let filled = fill(current)?;
        Ok(Some(if filled == 0 { Arrival::End } else { Arrival::Bytes(current.split_to(filled)) }))
    }

    pub(super) fn count(&self) -> usize {
        self.max
    }

    pub(super) fn lent(&self) -> usize {
        self.lent.len()
    }

    fn receive_copy<E>(
        &mut self,
        fill: impl FnOnce(&mut Lease) -> Result<usize, E>,
    ) -> Result<Option<Arrival>, E> {
        // Taken before anything is received: bytes that were received cannot be put back.
        let Some(mut copy) = self.pool.acquire(self.buffer_bytes, self.buffer_bytes) else {
            return Ok(None);
        };
        let filled = fill(&mut self.scratch)?;
        if filled == 0 {
            return Ok(Some(Arrival::End));
        }
        if let Some(fitting) = self.pool.acquire(filled, filled)
            && fitting.block_len() < copy.block_len()
        {
            copy = fitting;
        }
        copy.truncate(filled);
        copy.copy_from_slice(&self.scratch[..filled]);
        Ok(Some(Arrival::Bytes(copy)))
    }

    /// Sees to it that the current buffer has room for an arrival.
    fn make_room(&mut self) -> bool {
        let room_min = self.buffer_bytes / ROOM_MIN_PART;
        if self.current.as_ref().is_some_and(|current| current.len() >= room_min) {
            return true;
        }
        let next = self.idle.pop().or_else(|| {
            let more = self.count < self.max;
            let next = more.then(|| self.pool.acquire(self.buffer_bytes, self.buffer_bytes))??;
            self.count += 1;
            Some(next)
        });
        let Some(next) = next else { return false };
        if let Some(filled) = self.current.replace(next) {
            self.lent.push(filled);
        }
        true
    }
}

/// What a receive brought.
pub(super) enum Arrival {
    Bytes(Lease),
    /// The end of the stream.
    End,
}
