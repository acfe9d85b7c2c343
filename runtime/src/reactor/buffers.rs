//! The receive buffers of a reactor whose kernel does not pick them: a fixed set, filled from the
//! front and lent out in windows.
//!
//! Comes in: how many bytes were received into the [`tail`](Buffers::tail). Goes out: a window of
//! them as a [`Lease`]. One handle of each buffer stays here, so that a buffer is known to be free
//! again when that is its only one. At most a quarter of the buffers stay lent to those who keep
//! what they received: beyond that, and when few are free, windows are lent as copies of their own
//! size, so that nobody who hoards runs the others dry.

use std::io;

use hioload_pools::{Arena, BytePool, Lease};

/// A buffer is left for the next one when less than this fraction of it is free, so that a receive
/// rarely cuts what would have fitted into a fresh one.
const TAIL_FRACTION_MIN: usize = 4;

/// A fixed set of buffers.
pub(super) struct Buffers {
    pool: Arena,
    buffer_bytes: usize,
    count: usize,
    /// The unfilled rest of the buffer in use. The same one is used again and again for as long as
    /// its windows come back in time: its memory is hot.
    current: Option<Lease>,
    /// Whole buffers; the one used last is on top.
    free: Vec<Lease>,
    /// What is left of buffers that are full and were not back yet when looked at last.
    lent: Vec<Lease>,
    /// How many of those had been lent in an earlier turn, when that was looked at last.
    kept: usize,
}

impl Buffers {
    /// Takes `count` buffers of `buffer_bytes` from a pool.
    pub(super) fn new(pool: Arena, count: usize, buffer_bytes: usize) -> io::Result<Self> {
        if count == 0 || buffer_bytes == 0 {
            let what = "a reactor needs at least one receive buffer of at least one byte";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut free = Vec::with_capacity(count);
        for _ in 0..count {
            let buffer = pool.acquire(buffer_bytes, buffer_bytes).ok_or_else(|| {
                let what = format!(
                    "the pool has no room for {count} receive buffers of {buffer_bytes} bytes: \
                     give it more bytes or the reactor fewer buffers"
                );
                io::Error::new(io::ErrorKind::OutOfMemory, what)
            })?;
            free.push(buffer);
        }
        let lent = Vec::with_capacity(count);
        Ok(Self { pool, buffer_bytes, count, current: None, free, lent, kept: 0 })
    }

    /// Takes back every buffer whose windows are all gone.
    pub(super) fn reclaim(&mut self) {
        if let Some(current) = &mut self.current {
            reclaim_whole(current, self.buffer_bytes);
        }
        let mut at = 0;
        while at < self.lent.len() {
            if reclaim_whole(&mut self.lent[at], self.buffer_bytes) {
                let buffer = self.lent.swap_remove(at);
                self.free.push(buffer);
            } else {
                at += 1;
            }
        }
        self.kept = self.lent.len();
    }

    /// Where the next bytes go, or `None` if all buffers are lent out.
    pub(super) fn tail(&mut self) -> Option<&mut Lease> {
        let left = self.current.as_ref().map_or(0, Lease::len);
        if left < self.buffer_bytes / TAIL_FRACTION_MIN || left == 0 {
            if let Some(next) = self.free.pop() {
                self.lent.extend(self.current.replace(next));
            } else if left == 0 {
                return None;
            }
        }
        self.current.as_mut()
    }

    /// Lends out the first `filled` bytes of the [`tail`](Self::tail), or a copy of them.
    pub(super) fn lend(&mut self, filled: usize) -> Lease {
        let tail = self.current.as_mut().expect("bytes were received into the tail");
        let quarter = (self.count / 4).max(1);
        if self.kept < quarter && self.free.len() >= quarter {
            return tail.split_to(filled);
        }
        let Some(mut copy) = self.pool.acquire(filled, filled) else {
            return tail.split_to(filled);
        };
        copy.copy_from_slice(&tail[..filled]);
        copy
    }

    /// How many buffers there are.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// How many of them have windows outside.
    pub(super) fn lent(&self) -> usize {
        self.current.iter().chain(&self.lent).filter(|buffer| !buffer.is_sole()).count()
    }
}

fn reclaim_whole(buffer: &mut Lease, buffer_bytes: usize) -> bool {
    let whole = buffer.reclaim();
    if whole {
        buffer.truncate(buffer_bytes);
    }
    whole
}

#[cfg(test)]
mod tests {
    use hioload_pools::ArenaConfig;

    use super::*;

    fn arena() -> Arena {
        Arena::new(ArenaConfig { capacity_bytes: 1 << 20, ..ArenaConfig::default() }).unwrap()
    }

    fn buffers(count: usize) -> Buffers {
        Buffers::new(arena(), count, 1024).unwrap()
    }

    #[test]
    fn the_same_buffer_is_used_again_once_its_windows_are_gone() {
        let mut buffers = buffers(2);
        let first = buffers.tail().unwrap().as_ptr();
        drop(buffers.lend(700));
        assert_ne!(buffers.tail().unwrap().as_ptr(), first);
        buffers.reclaim();
        assert_eq!(buffers.tail().unwrap().as_ptr(), first);
        assert_eq!(buffers.tail().unwrap().len(), 1024);
    }

    #[test]
    fn whoever_keeps_everything_gets_copies_and_the_buffers_stay() {
        let mut buffers = buffers(8);
        let mut kept = Vec::new();
        for _ in 0..100 {
            buffers.reclaim();
            let tail = buffers.tail().expect("there is always room");
            assert!(tail.len() >= 256);
            tail[..200].fill(7);
            kept.push(buffers.lend(200));
        }
        assert!(buffers.lent() <= 3, "{} of 8 buffers are kept", buffers.lent());
        assert!(kept.iter().all(|window| window.iter().all(|byte| *byte == 7)));
    }

    #[test]
    fn without_memory_for_copies_the_buffers_are_lent_to_the_last_byte() {
        let pool = arena();
        let mut buffers = Buffers::new(pool.clone(), 2, 1024).unwrap();
        let mut rest = Vec::new();
        while let Some(lease) = pool.acquire(128, 128) {
            rest.push(lease);
        }
        let mut held = Vec::new();
        while let Some(tail) = buffers.tail() {
            let len = tail.len();
            held.push(buffers.lend(len));
        }
        assert_eq!(held.len(), 2);
        assert_eq!(buffers.lent(), 2);
        held.clear();
        buffers.reclaim();
        assert_eq!(buffers.tail().unwrap().len(), 1024);
    }

    #[test]
    fn no_pool_is_large_enough_for_everything() {
        let refused = Buffers::new(arena(), 17, 64 << 10).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory);
    }
}
