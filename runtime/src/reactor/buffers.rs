//! The receive buffers of a reactor whose kernel does not pick them: a fixed set, filled from the
//! front and lent out in windows.
//!
//! Comes in: how many bytes were received into the [`tail`](Buffers::tail). Goes out: a window of
//! them as a [`Lease`]. One handle of each buffer stays here, so that a buffer is known to be free
//! again when that is its only one. It never allocates after it was made.

use std::io;

use hioload_pools::{BytePool, Lease};

/// A buffer is left for the next one when less than this fraction of it is free, so that a receive
/// rarely cuts what would have fitted into a fresh one.
const TAIL_FRACTION_MIN: usize = 4;

/// A fixed set of buffers.
pub(super) struct Buffers {
    buffer_bytes: usize,
    count: usize,
    /// The unfilled rest of the buffer in use. The same one is used again and again for as long as
    /// its windows come back in time: its memory is hot.
    current: Option<Lease>,
    /// Whole buffers; the one used last is on top.
    free: Vec<Lease>,
    /// What is left of buffers that are full and were not back yet when looked at last.
    lent: Vec<Lease>,
}

impl Buffers {
    /// Takes `count` buffers of `buffer_bytes` from a pool.
    pub(super) fn new(pool: &impl BytePool, count: usize, buffer_bytes: usize) -> io::Result<Self> {
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
        Ok(Self { buffer_bytes, count, current: None, free, lent: Vec::with_capacity(count) })
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

    /// Lends out the first `filled` bytes of the [`tail`](Self::tail).
    pub(super) fn lend(&mut self, filled: usize) -> Lease {
        let tail = self.current.as_mut().expect("bytes were received into the tail");
        tail.split_to(filled)
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
    use hioload_pools::{Arena, ArenaConfig};

    use super::*;

    fn buffers(count: usize) -> Buffers {
        let pool = Arena::new(ArenaConfig { capacity_bytes: 1 << 20, ..ArenaConfig::default() });
        Buffers::new(&pool.unwrap(), count, 1024).unwrap()
    }

    #[test]
    fn the_same_buffer_is_used_again_once_its_windows_are_gone() {
        let mut buffers = buffers(2);
        let first = buffers.tail().unwrap().as_ptr();
        drop(buffers.lend(600));
        assert_ne!(buffers.tail().unwrap().as_ptr(), first);
        buffers.reclaim();
        assert_eq!(buffers.tail().unwrap().as_ptr(), first);
        assert_eq!(buffers.tail().unwrap().len(), 1024);
    }

    #[test]
    fn a_short_tail_is_left_for_a_fresh_buffer_but_used_when_there_is_none() {
        let mut buffers = buffers(2);
        buffers.tail().unwrap();
        let held = [buffers.lend(1000)];
        assert_eq!(buffers.tail().unwrap().len(), 1024);
        let more = [buffers.lend(1020)];
        buffers.reclaim();
        assert_eq!(buffers.tail().unwrap().len(), 4);
        let last = buffers.lend(4);
        assert!(buffers.tail().is_none());
        assert_eq!(buffers.lent(), 2);
        drop((held, more, last));
        assert_eq!(buffers.lent(), 0);
        buffers.reclaim();
        assert_eq!(buffers.tail().unwrap().len(), 1024);
    }

    #[test]
    fn no_pool_is_large_enough_for_everything() {
        let pool = Arena::new(ArenaConfig { capacity_bytes: 1 << 20, ..ArenaConfig::default() });
        let refused = Buffers::new(&pool.unwrap(), 17, 64 << 10).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory);
    }
}
