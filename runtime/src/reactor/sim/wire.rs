//! The wires of the simulated network: bytes of both directions, on their way and arrived.
//!
//! Comes in: writes, reads and ends of both sides. Goes out: what the other side reads of them, cut
//! and delayed as the faults of the network want it, and never reordered within a direction.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hioload_pools::{Key, ObjectPool};

use super::faults::Knob;
use super::net::{Owner, State};
use super::trace;
use crate::Time;

/// Errors as Linux numbers them, so that a simulation says what a machine would.
pub(super) const EPIPE: i32 = 32;
pub(super) const ECONNRESET: i32 = 104;

/// The longest way of delayed bytes.
const DELAY_MAX: Duration = Duration::from_millis(40);

/// One end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) wire: Key,
    pub(super) side: usize,
}

pub(super) struct Wire {
    /// Which connection of the network it is.
    number: u64,
    /// By the side that writes into it.
    pipes: [Pipe; 2],
    sides: [Side; 2],
}

struct Pipe {
    /// All that was written and not read, of which the first `arrived` can be read.
    bytes: VecDeque<u8>,
    arrived: usize,
    window_bytes: usize,
    /// The rest of the bytes, and a FIN perhaps, by when they arrive.
    flights: VecDeque<Flight>,
    /// The writer has said that it is done.
    is_finished: bool,
    /// The reader can know of it.
    has_fin: bool,
}

struct Flight {
    at: Time,
    bytes: usize,
    has_fin: bool,
}

struct Side {
    owner: Option<Owner>,
    is_open: bool,
    /// What broke it: nothing is sent or received any more but what has arrived.
    error: Option<i32>,
}

impl End {
    pub(super) const fn to_number(self) -> u64 {
        self.wire.to_u64() << 1 | self.side as u64
    }

    pub(super) const fn from_number(number: u64) -> Self {
        Self { wire: Key::from_u64(number >> 1), side: (number & 1) as usize }
    }

    const fn other(self) -> usize {
        1 - self.side
    }

    const fn opposite(self) -> Self {
        Self { wire: self.wire, side: self.other() }
    }
}

impl Wire {
    pub(super) fn new(number: u64, window_bytes: usize) -> Self {
        let pipe = || Pipe {
            bytes: VecDeque::new(),
            arrived: 0,
            window_bytes,
            flights: VecDeque::new(),
            is_finished: false,
            has_fin: false,
        };
        let side = || Side { owner: None, is_open: true, error: None };
        Self { number, pipes: [pipe(), pipe()], sides: [side(), side()] }
    }

    pub(super) const fn disown(&mut self, end: End) {
        self.sides[end.side].owner = None;
    }

    pub(super) const fn was_reset(&self, end: End) -> bool {
        self.sides[end.side].error.is_some()
    }
}

impl Pipe {
    /// What was due until now has arrived; answers whether something was.
    fn land(&mut self, now: Time) -> bool {
        let mut landed = false;
        while let Some(flight) = self.flights.pop_front_if(|flight| flight.at <= now) {
            self.arrived += flight.bytes;
            self.has_fin |= flight.has_fin;
            landed = true;
        }
        landed
    }

    /// Whatever is on its way has arrived.
    fn land_all(&mut self) {
        self.land(Time::from_nanos(u64::MAX));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.flights.clear();
        self.arrived = 0;
    }
}

impl State {
    /// Which connection of the network an end belongs to.
    pub(super) fn number_of(&self, end: End) -> Option<u64> {
        self.wires.get(end.wire).map(|wire| wire.number)
    }

    /// An address of the documentation range: all simulated peers share it, each with a port of its
    /// own while there are fewer than those.
    pub(super) fn address_of(&self, end: End) -> Option<SocketAddr> {
        let number = self.number_of(end)?;
        Some((Ipv4Addr::new(192, 0, 2, 1), (number % 65_535) as u16 + 1).into())
    }

    /// Who is told of an end; tells at once, as something may have happened already.
    pub(super) fn own(&mut self, end: End, owner: Owner) -> bool {
        let Some(wire) = self.wires.get_mut(end.wire) else { return false };
        wire.sides[end.side].owner = Some(owner);
        self.notify(Some(owner));
        true
    }

    /// Writes what the window takes.
    pub(super) fn write(&mut self, end: End, bytes: &[u8]) -> io::Result<usize> {
        if self.strikes(Knob::Reset) {
            self.cut(end);
        }
        let wire = self.wires.get_mut(end.wire).ok_or_else(broken_pipe)?;
        if let Some(errno) = wire.sides[end.side].error {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let is_read = wire.sides[end.other()].is_open;
        let pipe = &mut wire.pipes[end.side];
        if pipe.is_finished {
            return Err(broken_pipe());
        }
        if !is_read {
            // Nobody is there: it leaves, and a reset comes back.
            wire.sides[end.side].error = Some(ECONNRESET);
            let owner = wire.sides[end.side].owner;
            self.notify(owner);
            return Ok(bytes.len());
        }
        let count = bytes.len().min(pipe.window_bytes.saturating_sub(pipe.bytes.len()));
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.bytes.extend(&bytes[..count]);
        self.note_end(end, "wrote", count as u64);
        self.take_off(end, count, false);
        Ok(count)
    }

    /// Lets bytes, or a FIN, leave for the other end: they arrive at once, or later.
    fn take_off(&mut self, end: End, bytes: usize, has_fin: bool) {
        let delayed = self.strikes(Knob::Delay);
        let delay = if delayed { self.rng.duration(DELAY_MAX) } else { Duration::ZERO };
        let now = self.now;
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        let pipe = &mut wire.pipes[end.side];
        let behind = pipe.flights.back().map(|flight| flight.at);
        let at = now.after(delay).max(behind.unwrap_or(now));
        pipe.flights.push_back(Flight { at, bytes, has_fin });
        if at > now {
            self.schedule_arrival(at, end.opposite());
        } else {
            self.arrive(end.opposite());
        }
    }

    /// The time has come for something to arrive at an end.
    pub(super) fn arrive(&mut self, end: End) {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        if wire.pipes[end.other()].land(now) {
            let owner = wire.sides[end.side].owner;
            self.notify(owner);
        }
    }

    /// Reads what is there: 0 is the end.
    pub(super) fn read(&mut self, end: End, into: &mut [u8]) -> io::Result<usize> {
        let wire = self.wires.get_mut(end.wire).ok_or_else(broken_pipe)?;
        let pipe = &mut wire.pipes[end.other()];
        if pipe.arrived == 0 {
            if let Some(errno) = wire.sides[end.side].error {
                return Err(io::Error::from_raw_os_error(errno));
            }
            return if pipe.has_fin { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = into.len().min(pipe.arrived);
        let (front, back) = pipe.bytes.as_slices();
        let cut = count.min(front.len());
        into[..cut].copy_from_slice(&front[..cut]);
        into[cut..count].copy_from_slice(&back[..count - cut]);
        pipe.bytes.drain(..count);
        pipe.arrived -= count;
        let owner = wire.sides[end.other()].owner;
        self.notify(owner);
        self.note_end(end, "read", count as u64);
        Ok(count)
    }

    /// How much could be read now.
    pub(super) fn readable(&self, end: End) -> usize {
        self.wires.get(end.wire).map_or(0, |wire| wire.pipes[end.other()].arrived)
    }

    /// What broke an end.
    pub(super) fn error_of(&self, end: End) -> Option<io::Error> {
        let wire = self.wires.get(end.wire)?;
        wire.sides[end.side].error.map(io::Error::from_raw_os_error)
    }

    /// How many bytes an end accepts before it reads.
    pub(super) fn set_window(&mut self, end: End, bytes: usize) {
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        wire.pipes[end.other()].window_bytes = bytes;
        let owner = wire.sides[end.other()].owner;
        self.notify(owner);
    }

    /// FIN.
    pub(super) fn shut_down(&mut self, end: End) {
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        if !std::mem::replace(&mut wire.pipes[end.side].is_finished, true) {
            self.note_end(end, "FIN", 0);
            self.take_off(end, 0, true);
        }
    }

    /// Ends it as close(2) does: with a FIN, or a reset if something was not read.
    pub(super) fn close(&mut self, end: End) {
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        if !wire.pipes[end.other()].bytes.is_empty() {
            return self.reset(end);
        }
        self.shut_down(end);
        self.forget(end);
    }

    /// RST: the other end reads what it has, then fails.
    pub(super) fn reset(&mut self, end: End) {
        self.note_end(end, "RST", 0);
        self.break_side(end.opposite());
        self.forget(end);
    }

    /// The network breaks a connection: both ends fail.
    fn cut(&mut self, end: End) {
        self.note_end(end, "cut", 0);
        self.break_side(end);
        self.break_side(end.opposite());
    }

    fn break_side(&mut self, end: End) {
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        wire.pipes[end.other()].land_all();
        let side = &mut wire.sides[end.side];
        side.error = Some(ECONNRESET);
        let owner = side.owner;
        self.notify(owner);
    }

    /// The end has no owner any more; a wire without ends is gone.
    fn forget(&mut self, end: End) {
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        let side = &mut wire.sides[end.side];
        (side.is_open, side.owner) = (false, None);
        wire.pipes[end.other()].clear();
        if !wire.sides[end.other()].is_open {
            self.wires.remove(end.wire);
        }
    }

    fn note_end(&mut self, end: End, what: &'static str, number: u64) {
        if let Some(wire) = self.number_of(end) {
            self.note(trace::connection(wire, end.side), what, number);
        }
    }
}

fn broken_pipe() -> io::Error {
    io::Error::from_raw_os_error(EPIPE)
}
