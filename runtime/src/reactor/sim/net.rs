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
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hioload_pools::{ObjectPool, Slab};

use super::faults::{ACCEPT_ERRORS, Faults, Knob, Turned};
use super::trace::{self, Trace};
use super::wire::{End, Wire};
use super::{Peer, Rng};
use crate::Time;
use crate::reactor::handles::Orphans;
use crate::reactor::{Connection, Listener, Socket};

/// Connections at a time in one network.
const WIRES_MAX: usize = 1 << 20;
/// Bytes that one direction holds unless told otherwise.
const WINDOW_BYTES: usize = 64 << 10;

/// How large a window of the fault [`Knob::NarrowWindow`] is. A smaller one would only make a large
/// message take ever more steps.
const NARROW_BYTES: (usize, usize) = (128, 2048);

/// Errors as Linux numbers them, so that a simulation says what a machine would.
const ECONNREFUSED: i32 = 111;
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
    pub(super) now: Time,
    window_bytes: usize,
    listeners: BTreeMap<u16, Backlog>,
    pub(super) wires: Slab<Wire>,
    /// Connections made so far.
    connected: u64,
    /// Those that were accepted, and dropped before a reactor adopted them.
    orphans: Orphans,
    /// For each reactor, its sockets that something happened to.
    ready: Vec<VecDeque<Socket>>,
    schedule: BTreeMap<(Time, u64), Scheduled>,
    scheduled: u64,
    accept_errors: VecDeque<i32>,
    faults: Faults,
    turned: Turned,
    /// Leases that pools were asked for, and the number of one that is refused.
    leases: u64,
    refused_lease: Option<u64>,
    pub(super) rng: Rng,
    trace: Trace,
}

/// Something that waits for its time.
enum Scheduled {
    Action(Box<dyn FnOnce(&Net)>),
    /// Bytes or a FIN arrive at an end.
    Arrival(End),
    /// A reactor looks at a socket again.
    Ready(Owner),
}

struct Backlog {
    ends: VecDeque<End>,
    owner: Option<Owner>,
}

/// The reactor of an end or a listener, and its name for it.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) reactor: usize,
    pub(super) socket: Socket,
}

impl Net {
    /// A network with nobody in it, at time zero.
    #[must_use]
    pub fn new() -> Self {
        Self::with_faults(Rng::new(0), Faults::none())
    }

    /// A network in which things go wrong, the same ones each time for the same numbers.
    #[must_use]
    pub fn with_faults(rng: Rng, faults: Faults) -> Self {
        let state = State {
            now: Time::ZERO,
            window_bytes: WINDOW_BYTES,
            listeners: BTreeMap::new(),
            wires: Slab::new(WIRES_MAX),
            connected: 0,
            orphans: Orphans::default(),
            ready: Vec::new(),
            schedule: BTreeMap::new(),
            scheduled: 0,
            accept_errors: VecDeque::new(),
            faults,
            turned: Turned::default(),
            leases: 0,
            refused_lease: None,
            rng,
            trace: Trace::default(),
        };
        Self { state: Rc::new(RefCell::new(state)) }
    }

    /// From now on these things go wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// What has gone wrong so far.
    #[must_use]
    pub fn turned(&self) -> Turned {
        self.state.borrow().turned.clone()
    }

    /// Whether a knob is turned this time.
    pub(crate) fn strikes(&self, knob: Knob) -> bool {
        self.state().strikes(knob)
    }

    /// Whether a pool has memory for the lease that it is asked for.
    pub(crate) fn lends(&self) -> bool {
        self.state().lends()
    }

    /// How many leases pools were asked for.
    pub(crate) fn leases(&self) -> u64 {
        self.state.borrow().leases
    }

    /// Lets the lease of this number be refused, counted from one.
    pub(crate) fn refuse_lease(&self, number: u64) {
        self.state().refused_lease = Some(number);
    }

    /// Notes something in the trace.
    pub(crate) fn note(&self, who: u64, what: &'static str, number: u64) {
        self.state().note(who, what, number);
    }

    /// What was noted.
    pub(crate) fn trace(&self) -> RefMut<'_, Trace> {
        RefMut::map(self.state(), |state| &mut state.trace)
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
        let mut state = self.state();
        let at = state.now.after(delay);
        state.schedule(at, Scheduled::Action(Box::new(action)));
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
        let mut state = self.state();
        state.close_orphans();
        state.wires.len()
    }

    /// When the next scheduled thing happens.
    pub(crate) fn next_scheduled(&self) -> Option<Time> {
        self.state.borrow().schedule.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn advance_to(&self, time: Time) {
        self.state().close_orphans();
        while let Some(scheduled) = self.take_scheduled(time) {
            match scheduled {
                Scheduled::Action(action) => action(self),
                Scheduled::Arrival(end) => self.state().arrive(end),
                Scheduled::Ready(owner) => self.state().notify(Some(owner)),
            }
        }
        let mut state = self.state.borrow_mut();
        state.now = state.now.max(time);
    }

    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// The first thing scheduled until `time`; the clock then shows its time.
    fn take_scheduled(&self, time: Time) -> Option<Scheduled> {
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
        self.close_orphans();
        into.append(&mut self.ready[reactor]);
        if self.faults.chance(Knob::Reorder) > 0 && into.len() > 1 && self.strikes(Knob::Reorder) {
            self.rng.shuffle(into.make_contiguous());
        }
    }

    /// Whether a knob is turned this time.
    pub(super) fn strikes(&mut self, knob: Knob) -> bool {
        let chance = self.faults.chance(knob);
        let strikes = chance > 0 && self.rng.strikes(chance);
        if strikes {
            self.turn(knob);
        }
        strikes
    }

    fn turn(&mut self, knob: Knob) {
        self.turned.count(knob);
        self.note(trace::NET, knob.name(), 0);
    }

    fn lends(&mut self) -> bool {
        self.leases += 1;
        if self.refused_lease == Some(self.leases) {
            self.turn(Knob::NoMemory);
            return false;
        }
        !self.strikes(Knob::NoMemory)
    }

    /// One of these numbers of errors.
    pub(super) fn pick(&mut self, errors: &[i32]) -> i32 {
        *self.rng.pick(errors)
    }

    pub(super) fn note(&mut self, who: u64, what: &'static str, number: u64) {
        self.trace.note(self.now, who, what, number);
    }

    fn schedule(&mut self, at: Time, what: Scheduled) {
        let key = (at, self.scheduled);
        self.scheduled += 1;
        self.schedule.insert(key, what);
    }

    pub(super) fn schedule_arrival(&mut self, at: Time, end: End) {
        self.schedule(at, Scheduled::Arrival(end));
    }

    /// Lets a reactor look at a socket again after a while.
    pub(super) fn notify_later(&mut self, owner: Owner, most: Duration) {
        let at = self.now.after(self.rng.duration(most));
        self.schedule(at, Scheduled::Ready(owner));
    }

    fn close_orphans(&mut self) {
        let orphans = Arc::clone(&self.orphans);
        let mut orphans = orphans.lock().unwrap_or_else(PoisonError::into_inner);
        for number in orphans.drain(..) {
            self.close(End::from_number(number));
        }
    }

    pub(super) fn connect(&mut self, port: u16) -> io::Result<End> {
        let refused = || io::Error::from_raw_os_error(ECONNREFUSED);
        if !self.listeners.contains_key(&port) {
            return Err(refused());
        }
        let narrow = self.strikes(Knob::NarrowWindow);
        let window = if narrow {
            self.rng.between(NARROW_BYTES.0, NARROW_BYTES.1)
        } else {
            self.window_bytes
        };
        let wire = Wire::new(self.connected, window);
        let wire = self.wires.insert(wire).map_err(|_| refused())?;
        self.note(trace::connection(self.connected, 0), "connects to port", u64::from(port));
        self.connected += 1;
        let backlog = self.listeners.get_mut(&port).ok_or_else(refused)?;
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
    pub(super) fn accept(&mut self, port: u16) -> io::Result<Option<Connection>> {
        let Some(backlog) = self.listeners.get_mut(&port) else { return Ok(None) };
        if backlog.ends.is_empty() {
            return Ok(None);
        }
        if let Some(errno) = self.accept_errors.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if self.strikes(Knob::AcceptError) {
            return Err(io::Error::from_raw_os_error(self.pick(ACCEPT_ERRORS)));
        }
        while let Some(end) = self.listeners.get_mut(&port).and_then(|b| b.ends.pop_front()) {
            let was_reset = self.wires.get(end.wire).is_none_or(|wire| wire.was_reset(end));
            if !was_reset {
                let orphans = Arc::clone(&self.orphans);
                return Ok(Some(Connection::of_network(end.to_number(), orphans)));
            }
            self.close(end);
        }
        Ok(None)
    }

    /// Nobody is told of an end any more, until somebody owns it again; dropping it closes it.
    pub(super) fn disown(&mut self, end: End) -> Connection {
        if let Some(wire) = self.wires.get_mut(end.wire) {
            wire.disown(end);
        }
        Connection::of_network(end.to_number(), Arc::clone(&self.orphans))
    }

    /// Closes a port; connections that nobody accepted are reset.
    pub(super) fn unlisten(&mut self, port: u16) {
        let Some(backlog) = self.listeners.remove(&port) else { return };
        for end in backlog.ends {
            self.reset(end);
        }
    }

    pub(super) fn notify(&mut self, owner: Option<Owner>) {
        let Some(Owner { reactor, socket }) = owner else { return };
        let ready = &mut self.ready[reactor];
        if ready.back() != Some(&socket) {
            ready.push_back(socket);
        }
    }
}
