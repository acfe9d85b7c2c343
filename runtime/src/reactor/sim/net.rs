//! The simulated network: listeners by port, and wires between two ends with a window each way.
//!
//! Comes in: bytes, FINs and resets of both ends. Goes out: what the other end reads of them, and a
//! note to the reactor that owns it. It belongs to one thread, has a clock that stands still until
//! somebody turns it, and does the same thing every time.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hioload_pools::{Key, ObjectPool, Slab};

use super::Peer;
use crate::Time;
use crate::reactor::{Listener, Socket};

/// Connections at a time in one network.
const WIRES_MAX: usize = 1 << 20;
/// Bytes that one direction holds unless told otherwise.
const WINDOW_BYTES: usize = 64 << 10;

/// Errors as Linux numbers them, so that a simulation says what a machine would.
pub(super) const EPIPE: i32 = 32;
pub(super) const ECONNRESET: i32 = 104;
pub(super) const ECONNREFUSED: i32 = 111;
const EADDRINUSE: i32 = 98;

/// A simulated network, and its clock. A clone is another handle of the same one.
///
/// # Examples
/// ```
/// use std::io::Write;
/// use std::time::Duration;
///
/// use hioload::reactor::{Event, Reactor, Token, sim};
/// use hioload_pools::{Arena, ArenaConfig};
///
/// let net = sim::Net::new();
/// let pool = Arena::new(ArenaConfig { capacity_bytes: 1 << 20, ..ArenaConfig::default() })?;
/// let config = sim::SimConfig { buffers: 4, buffer_bytes: 4096, sockets_max: 16, pool };
/// let mut reactor = sim::SimReactor::new(&net, config)?;
/// reactor.listen(net.listen(80)?, Token(1))?;
///
/// let mut peer = net.connect(80)?;
/// peer.write_all(b"hello")?;
/// let mut batch = Vec::new();
/// reactor.wait(Some(Duration::ZERO), &mut batch)?;
/// assert!(matches!(batch[0].event, Event::Accepted(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Net {
    state: Rc<RefCell<State>>,
}

/// Everything in the network.
pub(super) struct State {
    now: Time,
    window_bytes: usize,
    listeners: BTreeMap<u16, Backlog>,
    wires: Slab<Wire>,
    /// For each reactor, its sockets that something happened to.
    ready: Vec<VecDeque<Socket>>,
    schedule: BTreeMap<(Time, u64), Action>,
    scheduled: u64,
    accept_errors: VecDeque<i32>,
}

type Action = Box<dyn FnOnce(&Net)>;

struct Backlog {
    ends: VecDeque<End>,
    owner: Option<Owner>,
}

/// One end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    wire: Key,
    side: usize,
}

struct Wire {
    /// By the side that writes into it.
    pipes: [Pipe; 2],
    sides: [Side; 2],
}

struct Pipe {
    bytes: VecDeque<u8>,
    window_bytes: usize,
    has_fin: bool,
}

struct Side {
    owner: Option<Owner>,
    is_open: bool,
    /// What broke it, until somebody was told.
    error: Option<i32>,
}

/// The reactor of an end or a listener, and its name for it.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) reactor: usize,
    pub(super) socket: Socket,
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
}

impl Net {
    /// A network with nobody in it, at time zero.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            now: Time::ZERO,
            window_bytes: WINDOW_BYTES,
            listeners: BTreeMap::new(),
            wires: Slab::new(WIRES_MAX),
            ready: Vec::new(),
            schedule: BTreeMap::new(),
            scheduled: 0,
            accept_errors: VecDeque::new(),
        };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// Its clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.state.borrow().now
    }

    /// Turns the clock on, and does what was scheduled until then, each at its time.
    pub fn advance(&self, duration: Duration) {
        self.advance_to(self.now().after(duration));
    }

    /// Does something `delay` from now.
    pub fn schedule(&self, delay: Duration, action: impl FnOnce(&Self) + 'static) {
        let mut state = self.state.borrow_mut();
        let at = (state.now.after(delay), state.scheduled);
        state.scheduled += 1;
        state.schedule.insert(at, Box::new(action));
    }

    /// Opens a port for a [`Reactor::listen`](crate::reactor::Reactor::listen).
    ///
    /// # Errors
    /// The port is taken.
    pub fn listen(&self, port: u16) -> io::Result<Listener> {
        let mut state = self.state.borrow_mut();
        if state.listeners.contains_key(&port) {
            return Err(io::Error::from_raw_os_error(EADDRINUSE));
        }
        state.listeners.insert(port, Backlog { ends: VecDeque::new(), owner: None });
        Ok(Listener::simulated(u64::from(port)))
    }

    /// Connects to a port from outside of all reactors.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(&self, port: u16) -> io::Result<Peer> {
        let end = self.state().connect(port)?;
        Ok(Peer::new(self.clone(), end))
    }

    /// How many bytes each direction of connections made from now on holds until they are read.
    pub fn set_window(&self, bytes: usize) {
        self.state.borrow_mut().window_bytes = bytes;
    }

    /// Lets the next accept of anybody fail with this error of the system, such as 24 (EMFILE).
    pub fn fail_accept(&self, errno: i32) {
        self.state.borrow_mut().accept_errors.push_back(errno);
    }

    /// Connections of which at least one end is open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.borrow().wires.len()
    }

    /// When the next scheduled thing happens.
    pub(crate) fn next_scheduled(&self) -> Option<Time> {
        self.state.borrow().schedule.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn advance_to(&self, time: Time) {
        while let Some(action) = self.take_scheduled(time) {
            action(self);
        }
        let mut state = self.state.borrow_mut();
        state.now = state.now.max(time);
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// The first thing scheduled until `time`; the clock then shows its time.
    fn take_scheduled(&self, time: Time) -> Option<Action> {
        let mut state = self.state.borrow_mut();
        let (at, _) = *state.schedule.keys().next().filter(|(at, _)| *at <= time)?;
        state.now = state.now.max(at);
        state.schedule.pop_first().map(|(_, action)| action)
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("Net")
            .field("now", &state.now)
            .field("connections", &state.wires.len())
            .finish_non_exhaustive()
    }
}

impl State {
    /// A number for a new reactor.
    pub(super) fn add_reactor(&mut self) -> usize {
        self.ready.push(VecDeque::new());
        self.ready.len() - 1
    }

    /// Takes what happened to the sockets of a reactor.
    pub(super) fn take_ready(&mut self, reactor: usize, into: &mut VecDeque<Socket>) {
        into.append(&mut self.ready[reactor]);
    }

    pub(super) fn connect(&mut self, port: u16) -> io::Result<End> {
        let refused = || io::Error::from_raw_os_error(ECONNREFUSED);
        let window_bytes = self.window_bytes;
        let backlog = self.listeners.get_mut(&port).ok_or_else(refused)?;
        let pipe = || Pipe { bytes: VecDeque::new(), window_bytes, has_fin: false };
        let side = || Side { owner: None, is_open: true, error: None };
        let wire = Wire { pipes: [pipe(), pipe()], sides: [side(), side()] };
        let wire = self.wires.insert(wire).map_err(|_| refused())?;
        backlog.ends.push_back(End { wire, side: 1 });
        let owner = backlog.owner;
        self.notify(owner);
        Ok(End { wire, side: 0 })
    }

    /// Who is told of new connections; tells of those that wait already.
    pub(super) fn own_listener(&mut self, port: u16, owner: Owner) -> bool {
        let Some(backlog) = self.listeners.get_mut(&port) else { return false };
        backlog.owner = Some(owner);
        self.notify(Some(owner));
        true
    }

    /// The next connection, if one waits; those that were reset meanwhile are passed over.
    pub(super) fn accept(&mut self, port: u16) -> io::Result<Option<End>> {
        let Some(backlog) = self.listeners.get_mut(&port) else { return Ok(None) };
        if backlog.ends.is_empty() {
            return Ok(None);
        }
        if let Some(errno) = self.accept_errors.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        while let Some(end) = self.listeners.get_mut(&port).and_then(|b| b.ends.pop_front()) {
            let was_reset =
                self.wires.get(end.wire).is_none_or(|wire| wire.sides[end.side].error.is_some());
            if !was_reset {
                return Ok(Some(end));
            }
            self.close(end);
        }
        Ok(None)
    }

    /// Closes a port; connections that nobody accepted are reset.
    pub(super) fn unlisten(&mut self, port: u16) {
        let Some(backlog) = self.listeners.remove(&port) else { return };
        for end in backlog.ends {
            self.reset(end);
        }
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
        let wire = self.wires.get_mut(end.wire).ok_or_else(broken_pipe)?;
        if let Some(errno) = wire.sides[end.side].error.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let is_read = wire.sides[end.other()].is_open;
        let pipe = &mut wire.pipes[end.side];
        if pipe.has_fin {
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
        let owner = wire.sides[end.other()].owner;
        self.notify(owner);
        Ok(count)
    }

    /// Reads what is there: 0 is the end.
    pub(super) fn read(&mut self, end: End, into: &mut [u8]) -> io::Result<usize> {
        let wire = self.wires.get_mut(end.wire).ok_or_else(broken_pipe)?;
        let pipe = &mut wire.pipes[end.other()];
        if pipe.bytes.is_empty() {
            if let Some(errno) = wire.sides[end.side].error.take() {
                return Err(io::Error::from_raw_os_error(errno));
            }
            return if pipe.has_fin { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = io::Read::read(&mut pipe.bytes, into)?;
        let mut rest = &mut into[count..];
        let mut count = count;
        while !rest.is_empty() && !pipe.bytes.is_empty() {
            let more = io::Read::read(&mut pipe.bytes, rest)?;
            count += more;
            rest = &mut rest[more..];
        }
        let owner = wire.sides[end.other()].owner;
        self.notify(owner);
        Ok(count)
    }

    /// What broke an end, if nobody was told yet.
    pub(super) fn take_error(&mut self, end: End) -> Option<io::Error> {
        let wire = self.wires.get_mut(end.wire)?;
        wire.sides[end.side].error.take().map(io::Error::from_raw_os_error)
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
        wire.pipes[end.side].has_fin = true;
        let owner = wire.sides[end.other()].owner;
        self.notify(owner);
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
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        let other = &mut wire.sides[end.other()];
        other.error = Some(ECONNRESET);
        let owner = other.owner;
        self.notify(owner);
        self.forget(end);
    }

    /// The end has no owner any more; a wire without ends is gone.
    fn forget(&mut self, end: End) {
        let Some(wire) = self.wires.get_mut(end.wire) else { return };
        let side = &mut wire.sides[end.side];
        (side.is_open, side.owner) = (false, None);
        wire.pipes[end.other()].bytes.clear();
        if !wire.sides[end.other()].is_open {
            self.wires.remove(end.wire);
        }
    }

    fn notify(&mut self, owner: Option<Owner>) {
        let Some(Owner { reactor, socket }) = owner else { return };
        let ready = &mut self.ready[reactor];
        if ready.back() != Some(&socket) {
            ready.push_back(socket);
        }
    }
}

fn broken_pipe() -> io::Error {
    io::Error::from_raw_os_error(EPIPE)
}
