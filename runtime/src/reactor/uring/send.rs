//! Sending: silent as long as the kernel takes everything at once.
//!
//! A send of a turn is one entry that says: take all of it now or tell me. The segments, message
//! headers and vectors of these entries live in storage that is used again each turn ([`Turn`]); it
//! is safe because the kernel works on such an entry only within the enter that consumes it: it is
//! neither queued for polling (`MSG_DONTWAIT`) nor given to a worker thread, linked or sent without
//! copying. The storage is used again only after all entries were consumed and what failed was
//! collected.
//!
//! What could not be taken at once is moved to a record of its own ([`Rest`]) and goes out as the
//! kernel finds room. So is a send of more segments than an entry can have, which is nevertheless
//! silent if the kernel takes it, entry by entry, within the wait.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::ptr;

use hioload_pools::{Key, ObjectPool, Shared, Slab};
use io_uring::squeue::{Entry, Flags as EntryFlags};
use io_uring::{opcode, types};
use socket2::SockRef;

use super::Uring;
use super::table::{Flags, NOTHING, Operation, user_data};
use crate::reactor::{Completion, Event, Socket};

/// Segments of one entry: the limit of the system (`IOV_MAX`). Up to 64 the kernel has room for
/// from one send to the next.
const SEGMENTS_MAX: usize = 1024;
/// Segments of a send that is tried entry by entry within one wait. One with more is told of as if
/// it were blocked.
const QUIET_SEGMENTS_MAX: usize = 8 * SEGMENTS_MAX;
/// Vectors per entry of the queue, on average, before a turn is submitted early: 64 KiB for 1024.
const VECTORS_PER_ENTRY: usize = 4;
/// Records of blocked sends that are kept for the next ones (up to 41 KiB each, mostly far less).
const SPARE_RESTS_MAX: usize = 64;

/// The sends of a turn, and the memory that their entries point to.
pub(super) struct Turn {
    sends: Vec<Sending>,
    segments: Vec<Shared>,
    /// Scratch for segments that have to wait for room, kept for its memory.
    aside: Vec<Shared>,
    /// Never moved, so that entries can point here.
    headers: Box<[libc::msghdr]>,
    vectors: Box<[libc::iovec]>,
    vectors_used: usize,
    /// How many entries had been pushed after the last send of this turn.
    pushed: u64,
}

#[derive(Clone, Copy)]
struct Sending {
    socket: Socket,
    /// Where its segments begin and how many they are.
    first: u32,
    count: u32,
    bytes: u32,
    /// It failed or was blocked: whatever happened was told.
    settled: bool,
}

/// Sends that blocked.
pub(super) struct Rests {
    records: Slab<Box<Rest>>,
    /// How many of the records nobody was told of.
    quiet: usize,
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    spare: Vec<Box<Rest>>,
}

/// What is left of a send. Boxed: the kernel has its address.
struct Rest {
    socket: Socket,
    key: Key,
    segments: VecDeque<Shared>,
    bytes: usize,
    /// The caller was not told that it is blocked, as it may not be.
    is_quiet: bool,
    /// What the entry in flight was given.
    offered: usize,
    header: libc::msghdr,
    vectors: Vec<libc::iovec>,
}

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

impl Turn {
    pub(super) fn new(entries: u32) -> Self {
        let entries = entries as usize;
        let vectors = (entries * VECTORS_PER_ENTRY).max(SEGMENTS_MAX);
        Self {
            sends: Vec::with_capacity(entries),
            segments: Vec::with_capacity(entries),
            aside: Vec::new(),
            headers: vec![no_header(); entries].into_boxed_slice(),
            vectors: vec![NO_VECTOR; vectors].into_boxed_slice(),
            vectors_used: 0,
            pushed: 0,
        }
    }

    fn has_room(&self, segments: usize) -> bool {
        self.sends.len() < self.headers.len() && self.vectors.len() - self.vectors_used >= segments
    }

    /// The entry for the segments from `first` on, which have just been added.
    fn entry(&mut self, fd: types::Fd, first: usize) -> Entry {
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let segments = &self.segments[first..];
        let entry = if let [segment] = segments {
            let len = u32::try_from(segment.len()).expect("a lease is smaller than 4 GiB");
            opcode::Send::new(fd, segment.as_ptr(), len).flags(flags).build()
        } else {
            let vectors = &mut self.vectors[self.vectors_used..][..segments.len()];
            for (vector, segment) in vectors.iter_mut().zip(segments) {
                *vector = vector_of(segment);
            }
            self.vectors_used += segments.len();
            let header = &mut self.headers[self.sends.len()];
            header.msg_iov = vectors.as_mut_ptr();
            header.msg_iovlen = segments.len();
            opcode::SendMsg::new(fd, header).flags(flags.cast_unsigned()).build()
        };
        let index = self.sends.len() as u32;
        entry.flags(EntryFlags::SKIP_SUCCESS).user_data(user_data(Operation::Send, index, 0))
    }
}

impl Rests {
    pub(super) const fn new(sockets_max: usize) -> Self {
        Self { records: Slab::new(sockets_max), quiet: 0, spare: Vec::new() }
    }

    fn make(&mut self, socket: Socket) -> Box<Rest> {
        let mut rest = self.spare.pop().unwrap_or_else(|| {
            Box::new(Rest {
                socket,
                key: NOTHING,
                segments: VecDeque::new(),
                bytes: 0,
                is_quiet: false,
                offered: 0,
                header: no_header(),
                vectors: Vec::new(),
            })
        });
        rest.socket = socket;
        rest.bytes = 0;
        rest.is_quiet = false;
        rest
    }

    fn release(&mut self, key: Key) {
        let mut rest = self.records.remove(key).expect("a record lives until its last completion");
        self.quiet -= usize::from(rest.is_quiet);
        rest.segments.clear();
        self.keep(rest);
    }

    fn keep(&mut self, rest: Box<Rest>) {
        let is_usual = rest.segments.capacity() <= SEGMENTS_MAX;
        if is_usual && self.spare.len() < SPARE_RESTS_MAX {
            self.spare.push(rest);
        }
    }
}

impl Rest {
    fn push(&mut self, segment: Shared) {
        self.bytes += segment.len();
        self.segments.push_back(segment);
    }

    /// Forgets the first `count` bytes.
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "the kernel takes no more than it is given");
        self.bytes -= count;
        while count > 0 {
            let segment = self.segments.front_mut().expect("bytes lie in segments");
            if segment.len() > count {
                segment.advance(count);
                return;
            }
            count -= segment.len();
            self.segments.pop_front();
        }
    }

    fn entry(&mut self, fd: types::Fd, key: Key) -> Entry {
        self.vectors.clear();
        self.vectors.extend(self.segments.iter().take(SEGMENTS_MAX).map(vector_of));
        self.offered = self.vectors.iter().map(|vector| vector.iov_len).sum();
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        let quiet = if self.is_quiet { libc::MSG_DONTWAIT | libc::MSG_WAITALL } else { 0 };
        opcode::SendMsg::new(fd, &raw const self.header)
            .flags((libc::MSG_NOSIGNAL | quiet).cast_unsigned())
            .build()
            .user_data(user_data(Operation::SendRest, key.index, key.generation))
    }
}

impl Uring {
    pub(super) fn do_send(&mut self, socket: Socket, segments: impl IntoIterator<Item = Shared>) {
        let Some(slot) = self.table.get(socket) else { return };
        if !slot.is_usable() || slot.has(Flags::SHUT_DOWN) {
            return;
        }
        let (fd, is_busy) = (slot.fd(), slot.has(Flags::SENDING.and(Flags::BLOCKED)));
        assert!(!is_busy, "one send at a time: the contract of Reactor::send");
        let mut first = self.turn.segments.len();
        self.turn.segments.extend(segments.into_iter().filter(|segment| !segment.is_empty()));
        let count = self.turn.segments.len() - first;
        let bytes: usize = self.turn.segments[first..].iter().map(|segment| segment.len()).sum();
        if count == 0 {
            return;
        }
        if !self.turn.has_room(count) {
            first = self.make_room(first);
        }
        if count > SEGMENTS_MAX || u32::try_from(bytes).is_err() || !self.turn.has_room(count) {
            let mut rest = self.rests.make(socket);
            rest.is_quiet = count <= QUIET_SEGMENTS_MAX;
            self.turn.segments.drain(first..).for_each(|segment| rest.push(segment));
            return self.block(rest);
        }
        let entry = self.turn.entry(fd, first);
        self.turn.sends.push(Sending {
            socket,
            first: first as u32,
            count: count as u32,
            bytes: bytes as u32,
            settled: false,
        });
        let slot = self.table.get_mut(socket).expect("it was there before");
        slot.set(Flags::SENDING);
        slot.operations += 1;
        self.ring.push(entry);
        self.turn.pushed = self.ring.pushed();
    }

    /// Submits this turn's sends early, but for the segments from `first` on; answers where these
    /// are then.
    fn make_room(&mut self, first: usize) -> usize {
        let Turn { segments, aside, .. } = &mut self.turn;
        aside.extend(segments.drain(first..));
        self.flush();
        let Turn { segments, aside, .. } = &mut self.turn;
        let first = segments.len();
        segments.append(aside);
        first
    }

    pub(super) fn do_shutdown(&mut self, socket: Socket) {
        let Some(slot) = self.table.get_mut(socket).filter(|slot| slot.is_usable()) else { return };
        if slot.has(Flags::SHUT_DOWN) {
            return;
        }
        slot.set(Flags::SHUT_DOWN.and(Flags::FIN_WAITS));
        self.shut_down_if_sent(socket);
    }

    /// A send of this turn did not go through.
    pub(super) fn on_send_failed(&mut self, index: u32, result: i32) {
        let Some(sending) = self.turn.sends.get_mut(index as usize) else { return };
        if std::mem::replace(&mut sending.settled, true) {
            return;
        }
        let Sending { socket, first, count, .. } = *sending;
        let slot = self.table.get_mut(socket).expect("a send in flight keeps its slot");
        slot.unset(Flags::SENDING);
        if !slot.is_live() {
            return;
        }
        let taken = match usize::try_from(result) {
            Ok(taken) => taken,
            Err(_) if is_passing(-result) => 0,
            Err(_) => return self.fail(socket, io::Error::from_raw_os_error(-result)),
        };
        let mut rest = self.rests.make(socket);
        let segments = &self.turn.segments[first as usize..][..count as usize];
        segments.iter().for_each(|segment| rest.push(segment.clone()));
        rest.advance(taken);
        self.sent_bytes += taken as u64;
        if rest.bytes == 0 {
            // It was taken whole after all: nothing to tell.
            return self.rests.keep(rest);
        }
        self.block(rest);
    }

    /// The kernel has taken some of a blocked send.
    pub(super) fn on_rest_sent(&mut self, index: u32, result: i32) {
        let Some(rest) = self.rests.records.get_index_mut(index) else { return };
        let (socket, key) = (rest.socket, rest.key);
        let slot = self.completed(socket);
        let (fd, is_live) = (slot.fd.as_ref().map(|_| slot.fd()), slot.is_live());
        let taken = usize::try_from(result).unwrap_or(0);
        let rest = self.rests.records.get_index_mut(index).expect("found above");
        if let Some(fd) = fd.filter(|_| is_live && (result >= 0 || may_retry(-result))) {
            let was_quiet = rest.is_quiet;
            rest.is_quiet &= taken == rest.offered;
            rest.advance(taken);
            let (left, is_quiet) = (rest.bytes, rest.is_quiet);
            self.sent_bytes += taken as u64;
            if left > 0 {
                let entry = rest.entry(fd, key);
                self.start(socket, entry);
            }
            if was_quiet && !is_quiet {
                self.rests.quiet -= 1;
                self.tell_blocked(socket, left);
            } else if !was_quiet && taken > 0 {
                self.tell(socket, Event::Sent { bytes: taken, done: left == 0 });
            }
            if left > 0 {
                return;
            }
        }
        self.rests.release(key);
        if let Some(slot) = self.table.get_mut(socket) {
            slot.unset(Flags::BLOCKED);
        }
        if is_live && result < 0 {
            self.fail(socket, io::Error::from_raw_os_error(-result));
        }
        self.shut_down_if_sent(socket);
        self.end_if_quiet(socket);
    }

    /// Lets go of the sends of this turn, if the kernel is done with them; answers whether, and
    /// whether no send is left of which it is not known if it blocks.
    ///
    /// It is when it has consumed their entries, as it works on them only then, and when what it
    /// had to tell was collected: the caller has just emptied the completion queue.
    pub(super) fn release_turn(&mut self) -> bool {
        if self.turn.sends.is_empty() {
            return self.rests.quiet == 0;
        }
        if self.ring.consumed() < self.turn.pushed || self.ring.has_overflow() {
            return false;
        }
        for index in 0..self.turn.sends.len() {
            let Sending { socket, bytes, settled, .. } = self.turn.sends[index];
            let slot = self.table.get_mut(socket).expect("a send in flight keeps its slot");
            slot.operations -= 1;
            if !settled {
                slot.unset(Flags::SENDING);
                self.sent_bytes += u64::from(bytes);
            }
            self.shut_down_if_sent(socket);
            self.end_if_quiet(socket);
        }
        self.turn.sends.clear();
        self.turn.segments.clear();
        self.turn.vectors_used = 0;
        self.rests.quiet == 0
    }

    /// Moves a send, or what is left of it, out of the turn, and tells so unless it is quiet.
    fn block(&mut self, rest: Box<Rest>) {
        let (socket, bytes, is_quiet) = (rest.socket, rest.bytes, rest.is_quiet);
        let key = self.rests.records.insert(rest);
        let key = key.unwrap_or_else(|_| unreachable!("a socket has one send at a time"));
        let rest = self.rests.records.get_mut(key).expect("just inserted");
        rest.key = key;
        let slot = self.table.get_mut(socket).expect("the caller has looked");
        slot.set(Flags::BLOCKED);
        let entry = rest.entry(slot.fd(), key);
        self.start(socket, entry);
        if is_quiet {
            self.rests.quiet += 1;
        } else {
            self.tell_blocked(socket, bytes);
        }
    }

    fn tell_blocked(&mut self, socket: Socket, bytes: usize) {
        let Some(slot) = self.table.get(socket) else { return };
        self.sends_blocked += 1;
        let token = slot.token;
        self.blocked.push(Completion { token, event: Event::SendBlocked(bytes) });
    }

    /// Sends the FIN that was asked for, if nothing is before it any more.
    pub(super) fn shut_down_if_sent(&mut self, socket: Socket) {
        let Some(slot) = self.table.get_mut(socket) else { return };
        let waits = Flags::SENDING.and(Flags::BLOCKED).and(Flags::CONNECTING);
        if !slot.has(Flags::FIN_WAITS) || slot.has(waits) || !slot.is_live() {
            return;
        }
        slot.unset(Flags::FIN_WAITS);
        if let Some(fd) = &slot.fd {
            self.calls.set(self.calls.get() + 1);
            // It fails only if the connection is broken, which the next operation tells.
            let _ = SockRef::from(fd).shutdown(Shutdown::Write);
        }
    }
}

fn vector_of(segment: &Shared) -> libc::iovec {
    // The kernel only reads it, whatever the type says.
    libc::iovec { iov_base: segment.as_ptr().cast_mut().cast(), iov_len: segment.len() }
}

const fn no_header() -> libc::msghdr {
    // SAFETY: a header of zeros is one that names nothing.
    unsafe { std::mem::zeroed() }
}

/// Failures of a send after which it goes on when the kernel is ready for it.
const fn is_passing(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM)
}

/// The same for a send that waits, and can be cancelled by accident.
const fn may_retry(errno: i32) -> bool {
    is_passing(errno) || errno == libc::ECANCELED
}
