//! The epoll reactor: for Linux where io_uring is refused, as containers do by default.
//!
//! Comes in: operations on sockets. Goes out: completions, made of readiness: what can be done at
//! once is done in the call (sends), the rest when epoll says so (receives, accepts, remainders of
//! sends). Level-triggered, so that nothing is lost when a batch is full; the interest of a socket
//! is set once, and changed only when an event came that nobody wants, or for a blocked send. It
//! must never allocate in a steady state, and never call a socket that is not ready twice in a wait.

mod entry;
mod kernel;
mod outgoing;
mod stream;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hioload_pools::{Arena, Lease, Shared};

use self::entry::{Entry, Mode, Phase, READABLE, WRITABLE};
use self::kernel::Kernel;
use self::outgoing::{NONE, Places, SPARE_SEGMENTS_MAX, Spares};
use super::batch::Batch;
use super::buffers::Buffers;
use super::sockets::{self, Sockets};
use super::{
    BATCH_MAX, Completion, Connection, Event, Listener, Reactor, ReactorStats, Receive, Socket,
    Token, Waker,
};
use crate::Time;

/// Carried by the events of the waker; no socket has this number.
const WAKER: u64 = u64::MAX;

/// What an [`Epoll`] is made of.
#[derive(Clone, Debug)]
pub struct EpollConfig {
    /// Receive buffers, taken from the pool at once.
    pub buffers: usize,
    /// Bytes of each: a power of two wastes none.
    pub buffer_bytes: usize,
    /// The most sockets at a time, listeners included: 40 bytes each, taken as they come.
    pub sockets_max: usize,
    /// Where the receive buffers come from.
    pub pool: Arena,
}

impl EpollConfig {
    /// 64 buffers of 64 KiB from this pool, and at most 65,536 sockets.
    #[must_use]
    pub const fn new(pool: Arena) -> Self {
        Self { buffers: 64, buffer_bytes: 64 << 10, sockets_max: 65_536, pool }
    }
}

/// The [`Reactor`] over `epoll_wait`, `recv` and `sendmsg`.
pub struct Epoll {
    kernel: Kernel,
    origin: Instant,
    waker: Waker,
    sockets: Sockets<Entry>,
    buffers: Buffers,
    /// Leases that wait to be filled.
    leases: Places<Lease>,
    /// Rests of blocked sends.
    blocked: Places<VecDeque<Shared>>,
    spares: Spares,
    /// The segments of the send that is being made.
    gathered: VecDeque<Shared>,
    /// Sends that blocked since the last wait, and what was left of them.
    blocked_due: Vec<(Socket, usize)>,
    /// What else happened outside of a wait.
    due: VecDeque<(Socket, Due)>,
    /// Readable sockets that found no buffer, and are not watched until one is back.
    starved: VecDeque<Socket>,
    /// Events of the last `epoll_wait`; those that found the batch full are handled by the next.
    ready: Box<[libc::epoll_event; BATCH_MAX]>,
    ready_at: usize,
    ready_end: usize,
    stats: ReactorStats,
}

/// A completion to come.
enum Due {
    Connected,
    Failed(io::Error),
    Released(Connection),
    Closed,
}

impl Epoll {
    /// Makes a reactor; its statistics count from here.
    ///
    /// # Errors
    /// The system refuses an epoll instance or an eventfd (no descriptors are left), or the pool
    /// has no room for the receive buffers.
    pub fn new(config: EpollConfig) -> io::Result<Self> {
        let buffers = Buffers::new(config.pool, config.buffers, config.buffer_bytes)?;
        let kernel = Kernel::new()?;
        let counter = Arc::new(kernel.event_counter()?);
        let edge = libc::EPOLLET as u32;
        kernel.add(counter.as_fd(), READABLE | edge, WAKER)?;
        kernel.start_to_count();
        Ok(Self {
            kernel,
            origin: Instant::now(),
            waker: Waker::new(move || kernel::ring(counter.as_fd())),
            sockets: Sockets::new(config.sockets_max),
            buffers,
            leases: Places::new(),
            blocked: Places::new(),
            spares: Spares::new(),
            gathered: VecDeque::with_capacity(SPARE_SEGMENTS_MAX),
            blocked_due: Vec::new(),
            due: VecDeque::new(),
            starved: VecDeque::new(),
            ready: Box::new([libc::epoll_event { events: 0, u64: 0 }; BATCH_MAX]),
            ready_at: 0,
            ready_end: 0,
            stats: ReactorStats::default(),
        })
    }

    /// Puts a new socket into the table and under watch.
    fn take(&mut self, entry: Entry, interest: u32) -> io::Result<Socket> {
        let socket = self.sockets.insert(entry)?;
        let entry = self.sockets.get_mut(socket).expect("it was just stored");
        let fd = entry.fd().expect("a new socket has a descriptor");
        if let Err(error) = self.kernel.add(fd, interest, sockets::to_u64(socket)) {
            self.sockets.remove(socket);
            return Err(error);
        }
        entry.interest = interest as u8;
        entry.is_watched = true;
        Ok(socket)
    }

    /// Makes epoll watch for what matters now, if that differs from what it watches for.
    fn watch(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let Some(fd) = entry.fd() else { return };
        let interest = entry.interest_wanted();
        let told = if !entry.is_watched {
            if interest == 0 {
                return;
            }
            self.kernel.add(fd, interest, sockets::to_u64(socket))
        } else if interest != u32::from(entry.interest) {
            self.kernel.modify(fd, interest, sockets::to_u64(socket))
        } else {
            return;
        };
        entry.interest = interest as u8;
        entry.is_watched = true;
        if let Err(error) = told {
            self.fail(socket, error);
        }
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

    /// Reports what happened outside of waits.
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

    /// Handles events until none is left or the batch is full.
    fn handle_ready(&mut self, batch: &mut Batch<'_>) {
        while self.ready_at < self.ready_end && !batch.is_full() {
            let libc::epoll_event { events, u64: data } = self.ready[self.ready_at];
            self.ready_at += 1;
            if data == WAKER {
                continue;
            }
            let socket = sockets::from_u64(data);
            match self.sockets.get(socket).map(|entry| entry.phase) {
                Some(Phase::Listening) => self.accept_some(socket, batch),
                Some(Phase::Connecting) => self.finish_connect(socket, batch),
                Some(Phase::Open | Phase::Releasing) => self.handle_stream(socket, events, batch),
                Some(Phase::Failed | Phase::Closed) | None => {}
            }
        }
        self.report_due(batch);
    }

    /// Asks epoll once, and sleeps for at most `patience` if that is not zero and nobody woke us.
    /// Answers whether the wait is over: patience came to an end, or somebody woke us.
    fn poll(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        let may_sleep = patience != Some(Duration::ZERO) && self.waker.fall_asleep();
        let timeout_ms = if may_sleep { to_millis(patience) } else { 0 };
        let answer = self.kernel.wait(&mut self.ready[..], timeout_ms);
        let was_woken = self.waker.wake_up();
        let (count, was_interrupted) = match answer {
            Ok(count) => (count, false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, true),
            Err(error) => return Err(error),
        };
        (self.ready_at, self.ready_end) = (0, count);
        Ok(was_woken || !may_sleep || (count == 0 && !was_interrupted))
    }
}

impl Reactor for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.origin.elapsed())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn listen(&mut self, listener: Listener, token: Token) -> io::Result<Socket> {
        let fd = listener.into_descriptor().ok_or_else(not_of_this_machine)?;
        self.kernel.set_nonblocking(fd.as_fd())?;
        self.take(Entry::new(token, fd, Phase::Listening, Mode::Pool), READABLE)
    }

    fn accept(&mut self, listener: Socket, armed: bool) {
        let Some(entry) = self.sockets.get_mut(listener) else { return };
        if entry.phase == Phase::Listening {
            entry.mode = if armed { Mode::Pool } else { Mode::Paused };
            if armed {
                self.watch(listener);
            }
        }
    }

    fn adopt(&mut self, connection: Connection, token: Token) -> io::Result<Socket> {
        let fd = connection.into_descriptor().ok_or_else(not_of_this_machine)?;
        // Readable from the start, because receiving is asked for next: one call, not two.
        self.take(Entry::new(token, fd, Phase::Open, Mode::Paused), READABLE)
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        let (fd, state) = self.kernel.connect(address)?;
        let entry = Entry::new(token, fd, Phase::Connecting, Mode::Paused);
        let socket = self.take(entry, WRITABLE)?;
        match state {
            Ok(false) => {}
            Ok(true) => self.open(socket),
            Err(error) => self.fail(socket, error),
        }
        Ok(socket)
    }

    fn receive(&mut self, socket: Socket, mode: Receive) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if !matches!(entry.phase, Phase::Connecting | Phase::Open) || entry.has_ended {
            return;
        }
        assert!(entry.lease == NONE, "nothing is received elsewhere while a lease is outstanding");
        entry.mode = match mode {
            // Not told to epoll before something arrives: most pauses are short.
            Receive::Paused => {
                entry.mode = Mode::Paused;
                return;
            }
            Receive::Pool => Mode::Pool,
            Receive::Into(lease) => {
                assert!(!lease.is_empty(), "a lease to receive into has room");
                entry.lease = self.leases.put(lease);
                Mode::Lease
            }
        };
        self.watch(socket);
    }

    fn send<I: IntoIterator<Item = Shared>>(&mut self, socket: Socket, segments: I) {
        self.send_now(socket, segments.into_iter());
    }

    fn shutdown(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if entry.phase != Phase::Open || entry.is_finishing {
            return;
        }
        entry.is_finishing = true;
        if let (NONE, Some(fd)) = (entry.blocked, entry.fd()) {
            self.kernel.shut_down(fd);
        }
    }

    fn close(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if entry.phase != Phase::Closed {
            entry.phase = Phase::Closed;
            self.give_back(socket);
            self.due.push_back((socket, Due::Closed));
        }
    }

    fn release(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if entry.phase != Phase::Open {
            return;
        }
        entry.phase = Phase::Releasing;
        self.stop_receiving(socket);
        self.hand_over_if_sent(socket);
    }

    fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        let fd = self.sockets.get(socket)?.fd()?;
        self.kernel.peer_address(fd)
    }

    fn local_address(&self, socket: Socket) -> Option<SocketAddr> {
        let fd = self.sockets.get(socket)?.fd()?;
        self.kernel.local_address(fd)
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        let mut batch = Batch::new(batch);
        self.buffers.reclaim();
        self.report_blocked(&mut batch);
        self.report_due(&mut batch);
        self.feed_starved(&mut batch);
        self.handle_ready(&mut batch);
        let deadline = timeout
            .filter(|timeout| !timeout.is_zero())
            .and_then(|timeout| Instant::now().checked_add(timeout));
        while !batch.is_full() {
            let patience = match (timeout, deadline) {
                _ if batch.added() > 0 => Some(Duration::ZERO),
                (_, Some(deadline)) => Some(deadline.saturating_duration_since(Instant::now())),
                (Some(Duration::ZERO), None) => Some(Duration::ZERO),
                (_, None) => None,
            };
            let is_over = self.poll(patience)?;
            self.handle_ready(&mut batch);
            if is_over || batch.added() > 0 {
                break;
            }
        }
        self.stats.completions += batch.added() as u64;
        Ok(())
    }

    fn stats(&self) -> ReactorStats {
        ReactorStats {
            waits: self.kernel.waits(),
            calls: self.kernel.calls(),
            buffers_lent: self.buffers.lent(),
            buffers: self.buffers.count(),
            sockets: self.sockets.len(),
            ..self.stats
        }
    }
}

/// For `epoll_wait`: rounded up, so that it never ends before its time.
fn to_millis(patience: Option<Duration>) -> i32 {
    let Some(patience) = patience else { return -1 };
    i32::try_from(patience.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

fn not_of_this_machine() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a simulated socket has no descriptor")
}
