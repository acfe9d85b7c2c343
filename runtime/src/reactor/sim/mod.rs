//! The sim reactor: the same contract over a network in memory and a clock that is turned by hand.
//!
//! Comes in: operations on simulated sockets. Goes out: completions, the same ones in the same
//! order every time. A wait with nothing to do turns the clock to the next thing that is
//! scheduled, or to its timeout, instead of sleeping. [`Net`] is the network, [`Peer`] the other
//! side of a connection; it knows nothing of this machine. A network with [`Faults`] does what a
//! machine does seldom, as often as it is told to, and never what the contract forbids.

mod faults;
mod net;
mod peer;
mod rng;
mod stream;
pub(crate) mod trace;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use hioload_pools::{Arena, Lease, Shared};

use self::faults::CONNECT_ERRORS;
pub use self::faults::{Faults, Knob, Turned};
pub use self::net::Net;
use self::net::Owner;
pub use self::peer::Peer;
pub use self::rng::Rng;
use self::wire::End;
use super::batch::Batch;
use super::buffers::Buffers;
use super::sockets::Sockets;
use super::{
    BATCH_MAX, Completion, Connection, Event, Listener, Reactor, ReactorStats, Receive, Socket,
    Token, Waker,
};
use crate::Time;

/// The longest time for which the end of a socket is kept back.
const CLOSE_DELAY_MAX: Duration = Duration::from_millis(5);
/// Completions of a wait whose queue is short.
const SHORT_MAX: usize = 4;

/// What a [`SimReactor`] is made of.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Receive buffers, taken from the pool at once.
    pub buffers: usize,
    /// Bytes of each: a power of two wastes none.
    pub buffer_bytes: usize,
    /// The most sockets at a time, listeners included.
    pub sockets_max: usize,
    /// Where the receive buffers come from.
    pub pool: Arena,
}

/// A [`Reactor`] of a simulated network.
///
/// Several may share one network, and its clock: whoever drives them from one thread gives them
/// timeouts of zero and turns the clock with [`Net::advance`] when all are idle. A wait for ever
/// with nothing scheduled really sleeps, until its [`Waker`] is used. Connections that were
/// accepted and dropped are closed when somebody looks at the network next.
pub struct SimReactor {
    net: Net,
    number: usize,
    waker: Waker,
    alarm: Arc<Alarm>,
    sockets: Sockets<Entry>,
    buffers: Buffers,
    blocked_due: Vec<(Socket, usize)>,
    due: VecDeque<(Socket, Due)>,
    starved: VecDeque<Socket>,
    /// Sockets to look at in this wait, and those of them that are to be looked at in the next.
    ready: VecDeque<Socket>,
    again: Vec<Socket>,
    /// Sockets whose subscription ended, to be made again.
    unsubscribed: Vec<Socket>,
    stats: ReactorStats,
}

struct Entry {
    token: Token,
    /// `None` once it failed or was closed.
    place: Option<Place>,
    phase: Phase,
    mode: Receive,
    /// What is left of a blocked send.
    blocked: VecDeque<Shared>,
    has_ended: bool,
    is_finishing: bool,
    is_starved: bool,
    /// Its subscription has ended: nothing is received until it is made again.
    is_unsubscribed: bool,
    /// Its end, or that it is released, is still to be reported.
    is_ending: bool,
}

/// Where in the network a socket is.
#[derive(Clone, Copy)]
enum Place {
    Port(u16),
    End(End),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// To be handed over when what blocked has left.
    Releasing,
    Failed,
    Closed,
}

/// A completion to come.
enum Due {
    Connected,
    Failed(io::Error),
    /// It was in flight when the socket was closed.
    InFlight(Event),
    Released(Connection),
    Closed,
}

/// Ends a real sleep.
#[derive(Default)]
struct Alarm {
    rings: Mutex<bool>,
    rang: Condvar,
}

impl Alarm {
    fn ring(&self) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rang.notify_one();
    }

    fn sleep(&self) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rings {
            rings = self.rang.wait(rings).unwrap_or_else(PoisonError::into_inner);
        }
        *rings = false;
    }
}

impl SimReactor {
    /// Adds a reactor to a network.
    ///
    /// # Errors
    /// The pool has no room for the receive buffers.
    pub fn new(net: &Net, config: SimConfig) -> io::Result<Self> {
        let buffers = Buffers::new(config.pool.clone(), config.buffers, config.buffer_bytes)?;
        let alarm = Arc::new(Alarm::default());
        let signal = Arc::clone(&alarm);
        Ok(Self {
            net: net.clone(),
            number: net.state().add_reactor(),
            waker: Waker::new(move || signal.ring()),
            alarm,
            sockets: Sockets::new(config.sockets_max),
            buffers,
            blocked_due: Vec::new(),
            due: VecDeque::new(),
            starved: VecDeque::new(),
            ready: VecDeque::new(),
            again: Vec::new(),
            unsubscribed: Vec::new(),
            stats: ReactorStats::default(),
        })
    }

    fn take(&mut self, token: Token, place: Option<Place>, mode: Receive) -> io::Result<Socket> {
        let entry = Entry {
            token,
            place,
            phase: Phase::Open,
            mode,
            blocked: VecDeque::new(),
            has_ended: false,
            is_finishing: false,
            is_starved: false,
            is_unsubscribed: false,
            is_ending: false,
        };
        self.sockets.insert(entry)
    }

    /// How many completions it has delivered.
    pub(crate) const fn completions(&self) -> u64 {
        self.stats.completions
    }

    const fn owner(&self, socket: Socket) -> Owner {
        Owner { reactor: self.number, socket }
    }

    /// Reports the sends that blocked since the last wait, every one of them.
    fn report_blocked(&mut self, batch: &mut Batch<'_>) {
        for (socket, bytes) in self.blocked_due.drain(..) {
            if let Some(entry) = self.sockets.get(socket)
                && entry.phase != Phase::Closed
            {
                batch.push_blocked(entry.token, bytes);
            }
        }
    }

    fn report_due(&mut self, batch: &mut Batch<'_>) {
        while !batch.is_full() {
            let Some((socket, due)) = self.due.pop_front() else { return };
            let Some(entry) = self.sockets.get(socket) else { continue };
            let (token, is_closed) = (entry.token, entry.phase == Phase::Closed);
            match due {
                Due::Closed => {
                    self.sockets.remove(socket);
                    batch.push(token, Event::Closed);
                }
                Due::InFlight(event) => batch.push(token, event),
                _ if is_closed => {}
                Due::Connected => batch.push(token, Event::Connected),
                Due::Failed(error) => batch.push(token, Event::Failed(error)),
                Due::Released(connection) => {
                    self.sockets.remove(socket);
                    batch.push(token, Event::Released(connection));
                }
            }
        }
    }

    /// Looks at each socket that something happened to, once.
    fn handle_ready(&mut self, batch: &mut Batch<'_>) {
        self.net.state().take_ready(self.number, &mut self.ready);
        while !batch.is_full() {
            let Some(socket) = self.ready.pop_front() else { break };
            let Some(entry) = self.sockets.get_mut(socket) else { continue };
            if mem::take(&mut entry.is_ending) {
                self.end(socket);
                continue;
            }
            match entry.place {
                Some(Place::Port(port)) => self.accept_some(socket, port, batch),
                Some(Place::End(end)) => self.handle_stream(socket, end, batch),
                None => {}
            }
        }
        self.report_due(batch);
    }

    /// Lets time pass until something may have happened; answers whether the wait is over.
    fn pass_time(&mut self, deadline: Option<Time>) -> bool {
        if deadline.is_some_and(|deadline| deadline <= self.now()) || !self.waker.fall_asleep() {
            self.waker.wake_up();
            return true;
        }
        let next = self.net.next_scheduled();
        match (next, deadline) {
            (Some(next), _) if deadline.is_none_or(|deadline| next <= deadline) => {
                self.net.advance_to(next);
            }
            (_, Some(deadline)) => self.net.advance_to(deadline),
            (_, None) => self.alarm.sleep(),
        }
        self.waker.wake_up()
    }
}

impl Reactor for SimReactor {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn now(&self) -> Time {
        self.net.now()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn listen(&mut self, listener: Listener, token: Token) -> io::Result<Socket> {
        let number = listener.as_simulated().ok_or_else(not_simulated)?;
        let port = u16::try_from(number).map_err(|_| not_simulated())?;
        let socket = self.take(token, Some(Place::Port(port)), Receive::Pool)?;
        if !self.net.state().own_listener(port, self.owner(socket)) {
            self.sockets.remove(socket);
            return Err(not_simulated());
        }
        Ok(socket)
    }

    fn accept(&mut self, listener: Socket, armed: bool) {
        let Some(entry) = self.sockets.get_mut(listener) else { return };
        if let Some(Place::Port(_)) = entry.place {
            entry.mode = if armed { Receive::Pool } else { Receive::Paused };
            self.ready.push_back(listener);
        }
    }

    fn adopt(&mut self, connection: Connection, token: Token) -> io::Result<Socket> {
        let number = connection.into_simulated().ok_or_else(not_simulated)?;
        let end = End::from_number(number);
        match self.take(token, Some(Place::End(end)), Receive::Paused) {
            Ok(socket) if self.net.state().own(end, self.owner(socket)) => Ok(socket),
            Ok(socket) => {
                self.sockets.remove(socket);
                Err(not_simulated())
            }
            Err(error) => {
                self.net.state().close(end);
                Err(error)
            }
        }
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        let socket = self.take(token, None, Receive::Paused)?;
        let connected = self.net.state().connect(address.port());
        match connected {
            Ok(_) if self.net.strikes(Knob::ConnectError) => {
                let end = connected.expect("this arm is for a success");
                self.net.state().close(end);
                let errno = self.net.state().pick(CONNECT_ERRORS);
                self.fail(socket, io::Error::from_raw_os_error(errno));
            }
            Ok(end) => {
                let entry = self.sockets.get_mut(socket).expect("it was just stored");
                entry.place = Some(Place::End(end));
                self.due.push_back((socket, Due::Connected));
                let owner = self.owner(socket);
                self.net.state().own(end, owner);
            }
            Err(error) => self.fail(socket, error),
        }
        Ok(socket)
    }

    fn receive(&mut self, socket: Socket, mode: Receive) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if entry.place.is_none() || entry.has_ended || entry.phase != Phase::Open {
            return;
        }
        let is_outstanding = matches!(entry.mode, Receive::Into(_));
        assert!(!is_outstanding, "nothing is received elsewhere while a lease is outstanding");
        let has_room = !matches!(&mode, Receive::Into(lease) if lease.is_empty());
        assert!(has_room, "a lease to receive into has room");
        entry.mode = mode;
        self.ready.push_back(socket);
    }

    fn send<I: IntoIterator<Item = Shared>>(&mut self, socket: Socket, segments: I) {
        self.send_now(socket, segments.into_iter());
    }

    fn shutdown(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let Some(Place::End(end)) = entry.place else { return };
        if !entry.is_finishing && entry.phase == Phase::Open {
            entry.is_finishing = true;
            if entry.blocked.is_empty() {
                self.net.state().shut_down(end);
            }
        }
    }

    fn close(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if entry.phase == Phase::Closed {
            return;
        }
        if self.net.strikes(Knob::LateCompletion) {
            self.catch_in_flight(socket);
        }
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        entry.phase = Phase::Closed;
        self.end_soon(socket);
        self.give_back(socket);
    }

    fn release(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get(socket) else { return };
        let is_connecting =
            |(of, due): &(Socket, Due)| *of == socket && matches!(due, Due::Connected);
        let is_open = entry.phase == Phase::Open && !self.due.iter().any(is_connecting);
        if !is_open || !matches!(entry.place, Some(Place::End(_))) {
            return;
        }
        if self.net.strikes(Knob::LateCompletion) {
            self.catch_in_flight(socket);
        }
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        entry.phase = Phase::Releasing;
        self.stop_receiving(socket);
        self.release_if_sent(socket);
    }

    fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        let Some(Place::End(end)) = self.sockets.get(socket)?.place else { return None };
        self.net.state().address_of(end)
    }

    /// That of the peer with another host.
    fn local_address(&self, socket: Socket) -> Option<SocketAddr> {
        let peer = self.peer_address(socket)?;
        Some((Ipv4Addr::new(192, 0, 2, 2), peer.port()).into())
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        let short = self.net.strikes(Knob::ShortQueue);
        let most = if short { self.net.state().rng.between(1, SHORT_MAX) } else { BATCH_MAX };
        let mut batch = Batch::at_most(batch, most);
        self.stats.waits += 1;
        self.buffers.reclaim();
        self.subscribe_again();
        self.ready.extend(self.again.drain(..));
        self.report_blocked(&mut batch);
        self.report_due(&mut batch);
        self.feed_starved(&mut batch);
        let deadline = timeout.map(|timeout| self.now().after(timeout));
        loop {
            self.handle_ready(&mut batch);
            if batch.added() > 0 {
                self.waker.wake_up();
                break;
            }
            if self.pass_time(deadline) {
                break;
            }
        }
        self.stats.completions += batch.added() as u64;
        Ok(())
    }

    fn stats(&self) -> ReactorStats {
        ReactorStats {
            buffers_lent: self.buffers.lent(),
            buffers: self.buffers.count(),
            sockets: self.sockets.len(),
            ..self.stats
        }
    }
}

impl Drop for SimReactor {
    fn drop(&mut self) {
        let mut state = self.net.state();
        for entry in self.sockets.iter() {
            match entry.place {
                Some(Place::Port(port)) => state.unlisten(port),
                Some(Place::End(end)) => state.close(end),
                None => {}
            }
        }
    }
}

impl fmt::Debug for SimReactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimReactor").field("net", &self.net).finish_non_exhaustive()
    }
}

fn not_simulated() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "this is no socket of the simulated network")
}

fn take_lease(mode: &mut Receive) -> Option<Lease> {
    match mem::replace(mode, Receive::Paused) {
        Receive::Into(lease) => Some(lease),
        Receive::Pool | Receive::Paused => None,
    }
}
