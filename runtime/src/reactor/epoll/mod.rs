//! The reactor over epoll: for containers and kernels that refuse io_uring.
//!
//! epoll tells readiness, the seam tells completions: a receive is done when a socket is readable,
//! a send is tried at once and finished when the socket is writable. Level-triggered, with one
//! `epoll_ctl` per connection while nothing blocks. It never allocates in a steady state.

mod buffers;
mod calls;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hioload_pools::{Arena, Key, Lease, ObjectPool, Shared, Slab};
use socket2::{Domain, Protocol, SockRef, Type};

use self::buffers::{Arrival, Buffers};
use super::{
    BATCH_MAX, Completion, Connection, Event, Listener, Reactor, ReactorStats, Receive, Socket,
    Token, Waker,
};
use crate::Time;

/// What the reactor is made of.
#[derive(Clone, Debug)]
pub struct EpollConfig {
    /// Receive buffers. Default 64.
    pub buffers: usize,
    /// Bytes of one of them. Default 64 KiB.
    pub buffer_bytes: usize,
    /// Sockets that it takes at the most, listeners included. Default 65,536.
    pub sockets_max: usize,
    /// Where the buffers come from.
    pub pool: Arena,
}

impl EpollConfig {
    /// The defaults, with buffers from this pool.
    #[must_use]
    pub const fn new(pool: Arena) -> Self {
        Self { buffers: 64, buffer_bytes: 64 * 1024, sockets_max: 65_536, pool }
    }
}

/// Connections accepted from one listener in one wait: the rest is still there in the next.
const ACCEPTS_MAX: usize = 64;

/// Completions that one ready socket can bring at the most: what it received, and that a send
/// went on.
const COMPLETIONS_PER_SOCKET: usize = 2;

/// What the waker's counter is called among the sockets.
const WAKER: u64 = u64::MAX;

/// How long a reactor without any memory waits before it looks for some again.
const STARVED_PAUSE: Duration = Duration::from_millis(1);

/// A [`Reactor`] over epoll.
pub struct Epoll {
    epoll: OwnedFd,
    waker: Waker,
    origin: Instant,
    slots: Slab<Slot>,
    buffers: Buffers,
    /// What is told in this wait whatever the bound: sends that blocked.
    urgent: Vec<Completion>,
    /// What did not fit into the last batch, or happened outside of a wait.
    ready: VecDeque<Completion>,
    extras: Extras,
    events: Box<[libc::epoll_event]>,
    /// A receive of the last wait found no memory at all.
    starved: bool,
    stats: ReactorStats,
}

/// A socket: small, as there is one per idle connection.
struct Slot {
    fd: OwnedFd,
    /// Where its [`Extra`] is, or [`NO_EXTRA`].
    extra: u32,
    token: Token,
    kind: Kind,
    receive: Mode,
    /// What epoll watches for.
    interest: u8,
    shutdown: bool,
    broken: bool,
    /// epoll tells nothing of it, not even that it hung up.
    unwatched: bool,
}

const NO_EXTRA: u32 = u32::MAX;
const READABLE: u8 = 1;
const WRITABLE: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Listener,
    Connecting,
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Paused,
    Pool,
    Into,
    /// The peer sent FIN.
    Ended,
}

/// What a socket needs only while something of it is under way.
#[derive(Default)]
struct Extra {
    /// The lease of [`Receive::Into`].
    into: Option<Lease>,
    /// What a send left over.
    unsent: VecDeque<Shared>,
    /// Bytes of it.
    unsent_bytes: usize,
}

/// The extras in use, and spare ones with their room.
#[derive(Default)]
struct Extras {
    all: Vec<Extra>,
    spare: Vec<u32>,
}

impl Epoll {
    /// Sets up the reactor.
    ///
    /// # Errors
    /// The system has no descriptor left, or the pool no room for two buffers.
    pub fn new(config: EpollConfig) -> io::Result<Self> {
        let epoll = calls::epoll_create()?;
        let counter = Arc::new(calls::event_counter()?);
        let edges = (libc::EPOLLIN | libc::EPOLLET) as u32;
        // Edge-triggered: each signal is told once, and the counter need not be read.
        calls::epoll_control(&epoll, libc::EPOLL_CTL_ADD, counter.as_fd(), edges, WAKER)?;
        let buffers = Buffers::new(config.pool, config.buffers, config.buffer_bytes)
            .ok_or_else(|| io::Error::other("the pool has no room for two receive buffers"))?;
        let event = libc::epoll_event { events: 0, u64: 0 };
        Ok(Self {
            epoll,
            waker: Waker::new(move || calls::signal(&counter)),
            origin: Instant::now(),
            slots: Slab::new(config.sockets_max),
            buffers,
            urgent: Vec::new(),
            ready: VecDeque::new(),
            extras: Extras::default(),
            events: vec![event; BATCH_MAX / COMPLETIONS_PER_SOCKET].into(),
            starved: false,
            stats: ReactorStats::default(),
        })
    }

    fn add(&mut self, fd: OwnedFd, token: Token, kind: Kind, interest: u8) -> io::Result<Socket> {
        let slot = Slot {
            fd,
            extra: NO_EXTRA,
            token,
            kind,
            receive: Mode::Paused,
            interest,
            shutdown: false,
            broken: false,
            unwatched: false,
        };
        let full = |_| io::Error::other("the reactor has as many sockets as it takes");
        let key = self.slots.insert(slot).map_err(full)?;
        let slot = self.slots.get(key).expect("it was inserted just now");
        let watched = calls::epoll_control(
            &self.epoll,
            libc::EPOLL_CTL_ADD,
            slot.fd.as_fd(),
            mask_of(interest),
            key.to_u64(),
        );
        self.stats.calls += 1;
        if let Err(error) = watched {
            self.slots.remove(key);
            return Err(error);
        }
        Ok(Socket::new(key.index, key.generation))
    }

    /// Watches for what a socket waits for now, if that changed.
    fn watch(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let readable = match slot.kind {
            Kind::Listener => slot.receive == Mode::Pool,
            Kind::Connecting => false,
            Kind::Stream => matches!(slot.receive, Mode::Pool | Mode::Into),
        };
        let blocked = self.extras.get(slot.extra).is_some_and(|extra| extra.unsent_bytes > 0);
        let writable = slot.kind == Kind::Connecting || blocked;
        let interest = u8::from(readable) * READABLE + u8::from(writable) * WRITABLE;
        if slot.broken || slot.interest == interest {
            return;
        }
        slot.interest = interest;
        let again = std::mem::take(&mut slot.unwatched);
        let operation = if again { libc::EPOLL_CTL_ADD } else { libc::EPOLL_CTL_MOD };
        self.stats.calls += 1;
        let (fd, mask) = (slot.fd.as_fd(), mask_of(interest));
        let changed = calls::epoll_control(&self.epoll, operation, fd, mask, key.to_u64());
        if let Err(error) = changed {
            self.fail(key, error);
        }
    }

    /// Tells that a socket is broken, once, and stops watching it.
    fn fail(&mut self, key: Key, error: io::Error) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if std::mem::replace(&mut slot.broken, true) {
            return;
        }
        slot.receive = Mode::Paused;
        self.extras.release(&mut slot.extra);
        self.ready.push_back(Completion { token: slot.token, event: Event::Failed(error) });
        self.unwatch(key);
    }

    /// Wants to hear nothing more of a socket, not even what epoll tells unasked.
    fn unwatch(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if std::mem::replace(&mut slot.unwatched, true) {
            return;
        }
        slot.interest = 0;
        self.stats.calls += 1;
        // It fails only if the socket is not watched, which is what is wanted.
        let _ = calls::epoll_control(&self.epoll, libc::EPOLL_CTL_DEL, slot.fd.as_fd(), 0, 0);
    }

    fn tell(&mut self, token: Token, event: Event) {
        self.ready.push_back(Completion { token, event });
    }

    fn handle(&mut self, event: libc::epoll_event) {
        let (events, data) = (event.events, event.u64);
        let key = Key::from_u64(data);
        let Some(slot) = self.slots.get(key) else { return };
        let broken = events & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
        match slot.kind {
            Kind::Listener => self.accept_some(key),
            Kind::Connecting => self.finish_connect(key),
            Kind::Stream => {
                if events & libc::EPOLLOUT as u32 != 0 || broken {
                    self.send_on(key);
                }
                if events & libc::EPOLLIN as u32 != 0 || broken {
                    self.receive_from(key, broken);
                }
            }
        }
    }

    fn accept_some(&mut self, key: Key) {
        for _ in 0..ACCEPTS_MAX {
            let Some(slot) = self.slots.get_mut(key) else { return };
            let token = slot.token;
            self.stats.calls += 1;
            match calls::accept(slot.fd.as_fd()) {
                Ok(fd) => self.tell(token, Event::Accepted(fd.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if has_no_room(&error) => {
                    slot.receive = Mode::Paused;
                    self.watch(key);
                    return self.tell(token, Event::AcceptFailed(error));
                }
                // It concerned one connection, which is gone: the next one, please.
                Err(_) => {}
            }
        }
    }

    fn finish_connect(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        self.stats.calls += 1;
        let outcome = SockRef::from(&slot.fd).take_error();
        match outcome {
            Ok(None) => {
                slot.kind = Kind::Stream;
                let token = slot.token;
                self.tell(token, Event::Connected);
                self.watch(key);
            }
            Ok(Some(error)) | Err(error) => self.fail(key, error),
        }
    }

    fn receive_from(&mut self, key: Key, broken: bool) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.broken {
            return;
        }
        let (token, fd) = (slot.token, slot.fd.as_fd());
        let received = match slot.receive {
            Mode::Pool => {
                self.stats.calls += 1;
                self.buffers.receive(|lease| calls::receive(fd, lease))
            }
            Mode::Into => {
                self.stats.calls += 1;
                let Some(extra) = self.extras.get_mut(slot.extra) else { return };
                let Some(lease) = &mut extra.into else { return };
                match calls::receive(fd, lease) {
                    Ok(0) => Ok(Some(Arrival::End)),
                    Ok(filled) => return self.filled(key, filled),
                    Err(error) => Err(error),
                }
            }
            // Both sides have ended it, or it broke: epoll would go on telling that.
            Mode::Paused | Mode::Ended if broken => {
                return match SockRef::from(&slot.fd).take_error() {
                    Ok(None) => self.unwatch(key),
                    Ok(Some(error)) | Err(error) => self.fail(key, error),
                };
            }
            // Nobody wants it now: the interest follows only here, so that pausing costs nothing
            // where nothing arrives.
            Mode::Paused | Mode::Ended => return self.watch(key),
        };
        match received {
            Ok(Some(Arrival::Bytes(lease))) => {
                self.stats.received_bytes += lease.len() as u64;
                self.tell(token, Event::Received(lease));
            }
            Ok(Some(Arrival::End)) => {
                slot.receive = Mode::Ended;
                self.extras.forget_into(slot.extra);
                self.tell(token, Event::Ended);
                self.watch(key);
            }
            Ok(None) => {
                self.stats.starved += 1;
                self.starved = true;
            }
            Err(error) if is_not_yet(&error) => {}
            Err(error) => self.fail(key, error),
        }
    }

    /// Gives the lease of a [`Receive::Into`] back.
    fn filled(&mut self, key: Key, filled: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.receive = Mode::Paused;
        let token = slot.token;
        let Some(extra) = self.extras.get_mut(slot.extra) else { return };
        let Some(lease) = extra.into.take() else { return };
        if extra.unsent_bytes == 0 {
            self.extras.release(&mut slot.extra);
        }
        self.stats.received_bytes += filled as u64;
        self.tell(token, Event::ReceivedInto { lease, filled });
    }

    /// Goes on with a send that blocked.
    fn send_on(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(extra) = self.extras.get_mut(slot.extra) else { return };
        if extra.unsent_bytes == 0 {
            return;
        }
        let (token, before) = (slot.token, extra.unsent_bytes);
        let outcome = push(slot.fd.as_fd(), extra, &mut self.stats.calls);
        let bytes = before - extra.unsent_bytes;
        let done = extra.unsent_bytes == 0;
        self.stats.sent_bytes += bytes as u64;
        if let Err(error) = outcome {
            return self.fail(key, error);
        }
        if bytes > 0 {
            self.ready.push_back(Completion { token, event: Event::Sent { bytes, done } });
        }
        if done {
            if slot.shutdown {
                self.stats.calls += 1;
                // A peer that is gone already needs no FIN.
                let _ = SockRef::from(&slot.fd).shutdown(std::net::Shutdown::Write);
            }
            if extra.into.is_none() {
                self.extras.release(&mut slot.extra);
            }
            self.watch(key);
        }
    }
}

impl Reactor for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn now(&self) -> Time {
        let nanos = self.origin.elapsed().as_nanos();
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn listen(&mut self, listener: Listener, token: Token) -> io::Result<Socket> {
        let fd = listener.into_descriptor().ok_or_else(simulated)?;
        SockRef::from(&fd).set_nonblocking(true)?;
        let socket = self.add(fd, token, Kind::Listener, READABLE)?;
        if let Some(slot) = self.slots.get_mut(key_of(socket)) {
            slot.receive = Mode::Pool;
        }
        Ok(socket)
    }

    fn accept(&mut self, listener: Socket, armed: bool) {
        if let Some(slot) = self.slots.get_mut(key_of(listener)) {
            slot.receive = if armed { Mode::Pool } else { Mode::Paused };
            self.watch(key_of(listener));
        }
    }

    fn adopt(&mut self, connection: Connection, token: Token) -> io::Result<Socket> {
        let fd = connection.into_descriptor().ok_or_else(simulated)?;
        // Nearly always the next call asks to receive: watching for that from the start saves one
        // `epoll_ctl` per connection.
        self.add(fd, token, Kind::Stream, READABLE)
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        self.stats.calls += 4;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        self.add(socket.into(), token, Kind::Connecting, WRITABLE)
    }

    fn receive(&mut self, socket: Socket, mode: Receive) {
        let key = key_of(socket);
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.broken || slot.receive == Mode::Ended {
            return;
        }
        slot.receive = match mode {
            Receive::Paused => {
                slot.receive = Mode::Paused;
                return;
            }
            Receive::Pool => Mode::Pool,
            Receive::Into(lease) => {
                assert!(!lease.is_empty(), "there must be room to receive into");
                self.extras.of(&mut slot.extra).into = Some(lease);
                Mode::Into
            }
        };
        self.watch(key);
    }

    fn send<I: IntoIterator<Item = Shared>>(&mut self, socket: Socket, segments: I) {
        let key = key_of(socket);
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.broken || slot.shutdown {
            return;
        }
        let extra = self.extras.of(&mut slot.extra);
        assert_eq!(extra.unsent_bytes, 0, "one send of a socket may be open at a time");
        extra.unsent.extend(segments);
        extra.unsent_bytes = extra.unsent.iter().map(|segment| segment.len()).sum();
        let whole = extra.unsent_bytes;
        let outcome = push(slot.fd.as_fd(), extra, &mut self.stats.calls);
        let left = extra.unsent_bytes;
        let token = slot.token;
        self.stats.sent_bytes += (whole - left) as u64;
        if let Err(error) = outcome {
            return self.fail(key, error);
        }
        if left == 0 {
            if extra.into.is_none() {
                self.extras.release(&mut slot.extra);
            }
        } else {
            self.stats.sends_blocked += 1;
            self.urgent.push(Completion { token, event: Event::SendBlocked(left) });
            self.watch(key);
        }
    }

    fn shutdown(&mut self, socket: Socket) {
        let Some(slot) = self.slots.get_mut(key_of(socket)) else { return };
        if slot.broken || std::mem::replace(&mut slot.shutdown, true) {
            return;
        }
        if self.extras.get(slot.extra).is_none_or(|extra| extra.unsent_bytes == 0) {
            self.stats.calls += 1;
            // A peer that is gone already needs no FIN.
            let _ = SockRef::from(&slot.fd).shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, socket: Socket) {
        let Some(mut slot) = self.slots.remove(key_of(socket)) else { return };
        self.extras.release(&mut slot.extra);
        self.stats.calls += 1;
        self.tell(slot.token, Event::Closed);
    }

    fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        let slot = self.slots.get(key_of(socket))?;
        SockRef::from(&slot.fd).peer_addr().ok()?.as_socket()
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        self.buffers.begin_turn();
        let room = BATCH_MAX.saturating_sub(self.ready.len()) / COMPLETIONS_PER_SOCKET;
        if room > 0 {
            let something = !self.urgent.is_empty() || !self.ready.is_empty();
            let awake = something || !self.waker.fall_asleep();
            if std::mem::take(&mut self.starved) && !something {
                std::thread::sleep(STARVED_PAUSE);
            }
            let timeout = if awake { Some(Duration::ZERO) } else { timeout };
            self.stats.waits += 1;
            let waited = calls::epoll_wait(&self.epoll, &mut self.events[..room], timeout);
            self.waker.wake_up();
            for index in 0..waited? {
                let event = self.events[index];
                if event.u64 != WAKER {
                    self.handle(event);
                }
            }
        }
        let before = batch.len();
        batch.append(&mut self.urgent);
        let count = self.ready.len().min(BATCH_MAX);
        batch.extend(self.ready.drain(..count));
        self.stats.completions += (batch.len() - before) as u64;
        Ok(())
    }

    fn stats(&self) -> ReactorStats {
        ReactorStats {
            buffers_lent: self.buffers.lent(),
            buffers: self.buffers.count(),
            sockets: self.slots.len(),
            ..self.stats
        }
    }
}

impl Extras {
    fn get(&self, index: u32) -> Option<&Extra> {
        self.all.get(index as usize)
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Extra> {
        self.all.get_mut(index as usize)
    }

    /// The extra of a socket, which gets one if it has none.
    fn of(&mut self, index: &mut u32) -> &mut Extra {
        if *index == NO_EXTRA {
            *index = self.spare.pop().unwrap_or_else(|| {
                self.all.push(Extra::default());
                u32::try_from(self.all.len() - 1).expect("fewer extras than sockets")
            });
        }
        &mut self.all[*index as usize]
    }

    fn forget_into(&mut self, index: u32) {
        if let Some(extra) = self.get_mut(index) {
            extra.into = None;
        }
    }

    /// Takes the extra of a socket back, and drops what is in it.
    fn release(&mut self, index: &mut u32) {
        if let Some(extra) = self.get_mut(*index) {
            extra.into = None;
            extra.unsent.clear();
            extra.unsent_bytes = 0;
            self.spare.push(*index);
            *index = NO_EXTRA;
        }
    }
}

/// Sends until everything is gone or the kernel takes no more.
fn push(fd: BorrowedFd<'_>, extra: &mut Extra, calls: &mut u64) -> io::Result<()> {
    while extra.unsent_bytes > 0 {
        *calls += 1;
        let mut sent = match calls::send(fd, extra.unsent.iter()) {
            Ok(sent) => sent,
            Err(error) if is_not_yet(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        extra.unsent_bytes -= sent;
        while let Some(first) = extra.unsent.front_mut() {
            if first.len() > sent {
                first.advance(sent);
                break;
            }
            sent -= first.len();
            extra.unsent.pop_front();
        }
    }
    extra.unsent.clear();
    Ok(())
}

const fn key_of(socket: Socket) -> Key {
    Key { index: socket.index(), generation: socket.generation() }
}

fn mask_of(interest: u8) -> u32 {
    let readable = if interest & READABLE != 0 { libc::EPOLLIN } else { 0 };
    let writable = if interest & WRITABLE != 0 { libc::EPOLLOUT } else { 0 };
    (readable | writable) as u32
}

fn simulated() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a simulated socket is none of this machine")
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether an error of accept says that this process or system has no room: trying again at once
/// would fail again.
fn has_no_room(error: &io::Error) -> bool {
    let code = error.raw_os_error().unwrap_or_default();
    [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].contains(&code)
}
