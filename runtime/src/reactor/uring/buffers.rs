//! The provided buffers: which of them the kernel may fill, which are lent out, and the way back.
//!
//! Comes in: "so many bytes lie in buffer so and so". Goes out: a lease of exactly those. Each
//! buffer is one block of the pool, and a lease of its unfilled part always stays here: it is what
//! the kernel writes to, nobody else can reach it, and when it is the only lease of its block left,
//! the buffer may be filled again. Giving it back is one store, never a system call.
//!
//! The kernel must never find the ring empty because somebody keeps what he got: see
//! [`Buffers::deliver`].
//!
//! The kernel takes buffers in the order in which they were put into the ring. If all of them were
//! there, every message would arrive in memory that was used longest ago, and with the usual 4 MiB
//! that is not in the cache of the core any more. So the ring holds as many as are needed, and the
//! others wait in a stack, the one used last on top.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use hioload_pools::{Arena, BytePool, Lease};
use io_uring::types::BufRingEntry;

use super::error::UringError;
use super::ring::Ring;
use super::{Tier, UringConfig};

/// Bytes that the ring holds at the least.
const RING_BYTES_MIN: usize = 512 * 1024;
/// Buffers that it holds at the least.
const RING_BUFFERS_MIN: usize = 4;
/// Turns until a ring that holds too many holds half of them.
const CALM_TURNS: u32 = 4096;

pub(super) struct Buffers {
    /// What the kernel reads: a ring of `buffers.len()` entries.
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    /// Where the next entry goes; the kernel sees it as the tail.
    tail: u16,
    buffers: Vec<Buffer>,
    /// Buffers that are not in the ring, as their windows are lent.
    retired: Vec<u16>,
    /// Buffers that are not in the ring, as enough others are.
    spare: Vec<u16>,
    /// How many belong into the ring.
    wanted: usize,
    /// Turns in a row that could have done with half of that.
    calm: u32,
    /// The buffer that was put into the ring last.
    last: u16,
    bytes: usize,
    /// How many retired buffers outlived a turn, at the last [`recycle`](Self::recycle).
    kept: usize,
    tier: Tier,
    arena: Arena,
    is_leaked: bool,
}

struct Buffer {
    /// The part that is not filled yet.
    rest: Lease,
    /// The buffer that was put into the ring after this one.
    next: u16,
    retired: bool,
}

/// What the kernel reported and cannot be.
#[derive(Debug)]
pub(super) struct Inconsistent;

impl Buffers {
    /// Takes the memory and registers the ring; also tells the tier.
    pub(super) fn new(config: &UringConfig, ring: &Ring) -> Result<Self, UringError> {
        let count = config.buffers;
        let exhausted = || UringError::Pool { buffers: count, buffer_bytes: config.buffer_bytes };
        let mut buffers = Vec::with_capacity(count);
        for _ in 0..count {
            let rest = config.pool.acquire(config.buffer_bytes, config.buffer_bytes);
            let rest = rest.ok_or_else(exhausted)?;
            buffers.push(Buffer { rest, next: 0, retired: false });
        }
        let layout = Layout::array::<BufRingEntry>(count)
            .and_then(|layout| layout.align_to(page_bytes()))
            .expect("32768 entries of 16 bytes are a layout");
        // SAFETY: the layout is not empty, as there is at least one buffer.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(memory.cast()) else { handle_alloc_error(layout) };
        let mut buffers = Self {
            entries,
            layout,
            tail: 0,
            buffers,
            retired: Vec::with_capacity(count),
            spare: (0..count as u16).rev().collect(),
            wanted: wanted_min(config.buffer_bytes).min(count),
            calm: 0,
            last: 0,
            bytes: config.buffer_bytes,
            kept: 0,
            tier: Tier::Base,
            arena: config.pool.clone(),
            is_leaked: false,
        };
        let address = buffers.entries.as_ptr().addr() as u64;
        // SAFETY: the entries are zeroed, page aligned, and stay until the reactor has drained
        // and unregistered them: nothing else drops `Buffers` before the ring.
        buffers.tier = unsafe { ring.register_buffers(address, count as u16, config.tier) }?;
        buffers.fill();
        Ok(buffers)
    }

    pub(super) const fn tier(&self) -> Tier {
        self.tier
    }

    /// How many buffers there are.
    pub(super) const fn len(&self) -> usize {
        self.buffers.len()
    }

    /// How many the kernel may fill.
    pub(super) const fn in_ring(&self) -> usize {
        self.available() - self.spare.len()
    }

    /// How many it may fill now or later.
    const fn available(&self) -> usize {
        self.buffers.len() - self.retired.len()
    }

    /// Of how many somebody holds a lease.
    pub(super) fn lent(&self) -> usize {
        self.buffers.iter().filter(|buffer| !buffer.rest.is_sole()).count()
    }

    /// Takes the `count` bytes that the kernel put into buffer `id`, or into that one and the next
    /// ones (a bundle), as windows given to `each`. `more`: it will go on filling that buffer.
    pub(super) fn take(
        &mut self,
        mut id: u16,
        mut count: usize,
        more: bool,
        windows: &mut Vec<Lease>,
    ) -> Result<(), Inconsistent> {
        let incremental = self.tier == Tier::Incremental;
        loop {
            let buffer = self.buffers.get_mut(usize::from(id)).ok_or(Inconsistent)?;
            if buffer.retired {
                return Err(Inconsistent);
            }
            let filled = count.min(buffer.rest.len());
            if filled > 0 {
                windows.push(buffer.rest.split_to(filled));
            }
            count -= filled;
            let next = buffer.next;
            // Without bytes an incremental buffer stays where it is, whatever `more` says: the
            // kernels that have the flag differ there, but none moves on.
            if !incremental || (!more && filled > 0) {
                buffer.retired = true;
                self.retired.push(id);
            }
            match count {
                0 => return Ok(()),
                _ if self.tier != Tier::Bundles => return Err(Inconsistent),
                _ => id = next,
            }
        }
    }

    /// What to hand out for a window: the window itself or, when buffers run short, a copy in
    /// memory of its own size.
    ///
    /// Short means that a quarter of the buffers outlived a turn in somebody's hands, or that only
    /// a quarter is left for the kernel in this turn. Should the pool be exhausted too, the window
    /// is lent all the same: bytes that arrived are never lost.
    pub(super) fn deliver(&mut self, window: Lease) -> Lease {
        let quarter = (self.buffers.len() / 4).max(1);
        if self.kept < quarter && self.available() > quarter {
            return window;
        }
        let Some(mut copy) = self.arena.acquire(window.len(), window.len()) else { return window };
        copy.copy_from_slice(&window);
        drop(window);
        if let Some(id) = self.retired.pop() {
            // The block of the window, if it was retired, was so last.
            if self.reclaim(id) {
                self.fill();
            } else {
                self.retired.push(id);
            }
        }
        copy
    }

    /// Gives the kernel what came back since the last time.
    pub(super) fn recycle(&mut self) {
        self.adapt();
        let mut at = 0;
        while let Some(&id) = self.retired.get(at) {
            if self.reclaim(id) {
                self.retired.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.kept = self.retired.len();
        self.fill();
    }

    /// Judges by what the last turn left in the ring how many belong there: more at once, as an
    /// empty ring is expensive, and fewer only after a long time.
    fn adapt(&mut self) {
        let used = self.wanted.saturating_sub(self.in_ring());
        if used > self.wanted / 2 {
            self.wanted = (self.wanted * 2).min(self.buffers.len());
            self.calm = 0;
        } else if used > self.wanted / 4 {
            self.calm = 0;
        } else {
            self.calm += 1;
            if self.calm == CALM_TURNS {
                self.calm = 0;
                let least = wanted_min(self.bytes).min(self.buffers.len());
                self.wanted = (self.wanted / 2).max(least);
            }
        }
    }

    /// Puts as many into the ring as belong there.
    fn fill(&mut self) {
        while self.in_ring() < self.wanted
            && let Some(id) = self.spare.pop()
        {
            self.put(id);
        }
    }

    /// Lets the memory live for ever, as the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.is_leaked = true;
        std::mem::forget(std::mem::take(&mut self.buffers));
    }

    /// Whether all windows of a buffer are gone: then it is spare.
    fn reclaim(&mut self, id: u16) -> bool {
        let buffer = &mut self.buffers[usize::from(id)];
        let whole = buffer.rest.reclaim();
        if whole {
            buffer.retired = false;
            self.spare.push(id);
        }
        whole
    }

    /// Puts a buffer, nobody else's and whole, at the end of the ring.
    fn put(&mut self, id: u16) {
        let buffer = &mut self.buffers[usize::from(id)];
        buffer.rest.truncate(self.bytes);
        let address = buffer.rest.as_mut_ptr().addr() as u64;
        let at = usize::from(self.tail) & (self.buffers.len() - 1);
        // SAFETY: `at` is below the number of entries.
        let entry = unsafe { self.entries.add(at) };
        // SAFETY: the kernel has consumed this entry, as there are no more buffers than entries;
        // until it sees the new tail, nobody else looks at it.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(self.bytes as u32);
        entry.set_bid(id);
        self.buffers[usize::from(self.last)].next = id;
        self.last = id;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the address is that of the first entry, all of them are initialised.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is two bytes, aligned, mapped, and only ever accessed atomically: by us
        // here, by the kernel elsewhere.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.is_leaked {
            return;
        }
        // SAFETY: allocated in `new` with this layout; the kernel does not know it any more, as
        // the reactor has unregistered it.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}

/// How many buffers are in the ring at the least: they fit into the second-level cache of most cores.
const fn wanted_min(buffer_bytes: usize) -> usize {
    let count = RING_BYTES_MIN / buffer_bytes;
    if count < RING_BUFFERS_MIN { RING_BUFFERS_MIN } else { count }
}

fn page_bytes() -> usize {
    // SAFETY: sysconf takes a number and gives one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("a page has a size")
}
