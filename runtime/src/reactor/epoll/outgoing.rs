//! Sends that the kernel did not take whole, and leases that wait to be filled: what few sockets
//! have at a time, kept beside the table so that its entries stay small.
//!
//! It never allocates in a steady state: places and queues are used again.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use hioload_pools::Shared;

use super::kernel::{Kernel, SEGMENTS_MAX};

/// Empty queues that are kept for the next send that blocks.
const SPARES_MAX: usize = 64;
/// Room for this many segments is kept in each: a burst must not pin memory for ever.
pub(super) const SPARE_SEGMENTS_MAX: usize = 256;

/// No place.
pub(super) const NONE: u32 = u32::MAX;

/// Values by place; who stores one remembers where.
pub(super) struct Places<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Places<T> {
    pub(super) const fn new() -> Self {
        Self { values: Vec::new(), free: Vec::new() }
    }

    pub(super) fn put(&mut self, value: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.values[place as usize] = Some(value);
            return place;
        }
        self.values.push(Some(value));
        u32::try_from(self.values.len() - 1).expect("there are fewer places than sockets")
    }

    pub(super) fn get_mut(&mut self, place: u32) -> &mut T {
        self.values[place as usize].as_mut().expect("a place is asked for while it is taken")
    }

    /// Takes a value out; nothing is at [`NONE`].
    pub(super) fn take(&mut self, place: u32) -> Option<T> {
        if place == NONE {
            return None;
        }
        self.free.push(place);
        self.values[place as usize].take()
    }
}

/// Empty queues of segments, kept for their room.
pub(super) struct Spares(Vec<VecDeque<Shared>>);

impl Spares {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(SPARES_MAX))
    }

    pub(super) fn take(&mut self) -> VecDeque<Shared> {
        self.0.pop().unwrap_or_default()
    }

    /// Lets go of all segments and keeps the queue.
    pub(super) fn keep(&mut self, mut queue: VecDeque<Shared>) {
        queue.clear();
        if self.0.len() < SPARES_MAX {
            queue.shrink_to(SPARE_SEGMENTS_MAX);
            self.0.push(queue);
        }
    }
}

/// Hands segments over until all are taken or the kernel takes no more, and lets go of those that
/// were. Answers how many bytes that were.
pub(super) fn flush(
    kernel: &Kernel,
    fd: BorrowedFd<'_>,
    segments: &mut VecDeque<Shared>,
) -> io::Result<usize> {
    let mut taken = 0;
    while !segments.is_empty() {
        let offered: usize = segments.iter().take(SEGMENTS_MAX).map(|part| part.len()).sum();
        let sent = match kernel.send(fd, segments) {
            Ok(sent) => sent,
            Err(error) if is_for_later(&error) => 0,
            Err(error) => return Err(error),
        };
        forget(segments, sent);
        taken += sent;
        if sent < offered {
            break;
        }
    }
    Ok(taken)
}

/// Whether a call would have had to wait.
pub(super) fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Lets go of the first `bytes` bytes, and of empty segments behind them.
fn forget(segments: &mut VecDeque<Shared>, mut bytes: usize) {
    while let Some(first) = segments.front_mut() {
        if first.len() > bytes {
            first.advance(bytes);
            break;
        }
        bytes -= first.len();
        segments.pop_front();
    }
}
