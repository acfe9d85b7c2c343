//! The io_uring reactor: one system call per wait submits everything and collects everything.
//!
//! Comes in: operations, which become entries of the ring. Goes out: completions, in batches. In a
//! steady state it makes no system call but `io_uring_enter`, allocates nothing, and copies no
//! payload unless somebody keeps what he was lent.
//!
//! What the kernel holds: entries name descriptors, leases, headers and addresses. All of these
//! are owned by the reactor until the completion that ends their use, and on the way out the ring
//! is drained before anything is let go ([`Drop`]). `ring` is the ring, `buffers` the memory that
//! it receives into, `table` the sockets; `send`, `receive` and `sockets` what is done with them.

mod buffers;
mod error;
mod receive;
mod ring;
mod send;
mod sockets;
mod table;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hioload_pools::{Arena, Lease, Shared, Slab};
use io_uring::squeue::{Entry, Flags as EntryFlags};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode};
use socket2::SockAddr;
use tracing::error;

pub use error::UringError;

use self::buffers::Buffers;
use self::ring::{Cqe, Ring, Sleep};
use self::send::{Rests, Turn};
use self::table::{Flags, Mode, Operation, Slot, Table, parse, user_data};
use super::{
    BATCH_MAX, Completion, Connection, Event, Listener, Reactor, ReactorStats, Receive, Socket,
    Token, Waker,
};
use crate::Time;

/// The most receive buffers of a ring: a limit of the kernel.
const BUFFERS_MAX: usize = 1 << 15;
/// How often one wait enters again to get rid of what the kernel did not take or could not tell.
const FLUSHES_MAX: usize = 16;
/// The longest sleep that is handed to the kernel: about 68 years, which it can count.
const SLEEP_MAX: Duration = Duration::from_secs(1 << 31);
/// How often, and how long each time, a reactor on its way out waits for the kernel to let go.
const DRAINS_MAX: usize = 500;
const DRAIN_WAIT: Duration = Duration::from_millis(10);

/// Which abilities of the kernel are used. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Multishot accept and receive with provided buffers, a buffer for each arrival (6.1).
    ///
    /// An arrival keeps a whole buffer until it is released, so this tier and the next want more
    /// and smaller buffers than the last one: 256 of 32 KiB rather than 64 of 64 KiB.
    Base,
    /// The same, and one completion may fill several buffers (6.10).
    Bundles,
    /// Buffers that are filled piece by piece, by all sockets in turn (6.12). The best one, and
    /// used without bundles.
    Incremental,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Bundles => "bundles",
            Self::Incremental => "incremental",
        })
    }
}

/// What an [`Uring`] is made of.
#[derive(Clone, Debug)]
pub struct UringConfig {
    /// Entries of the submission queue; the completion queue has four times as many. A power of
    /// two from 8 to 8192. 1024 take 64 KiB, and 64 KiB for completions.
    pub entries: u32,
    /// Receive buffers: a power of two up to 32768.
    pub buffers: usize,
    /// Bytes of a receive buffer: a power of two from 128 to 1048576.
    pub buffer_bytes: usize,
    /// The most sockets, listeners included. A socket takes 48 bytes.
    pub sockets_max: usize,
    /// The tier that must be used; `None`: the best that this kernel has.
    pub tier: Option<Tier>,
    /// Where the receive buffers, and the copies made of them, come from.
    pub pool: Arena,
}

impl UringConfig {
    /// The usual sizes: 1024 entries, 64 buffers of 64 KiB, 100,000 sockets, the best tier.
    #[must_use]
    pub const fn new(pool: Arena) -> Self {
        Self {
            entries: 1024,
            buffers: 64,
            buffer_bytes: 64 << 10,
            sockets_max: 100_000,
            tier: None,
            pool,
        }
    }
}

/// A [`Reactor`] on a ring of its own. It belongs to the thread that made it.
///
/// # Examples
/// ```
/// use hioload::reactor::Reactor;
/// use hioload::reactor::uring::{Uring, UringConfig};
/// use hioload_pools::{Arena, ArenaConfig};
///
/// let pool = Arena::new(ArenaConfig::default())?;
/// match Uring::new(UringConfig::new(pool)) {
///     Ok(reactor) => assert_eq!(reactor.name(), "uring"),
///     Err(error) => eprintln!("{error}"), // says why, and what to do
/// }
/// # Ok::<(), hioload_pools::RegionError>(())
/// ```
pub struct Uring {
    // Dropped first: before any memory that its entries name.
    ring: Ring,
    buffers: Buffers,
    table: Table,
    turn: Turn,
    rests: Rests,
    /// Leases of [`Receive::Into`].
    leases: Slab<Lease>,
    /// Addresses of sockets that connect.
    addresses: Slab<SockAddr>,
    /// By slot: receive buffers of sockets, once multishot receives were given up.
    singles: Vec<Option<Lease>>,
    /// Completions to deliver, and whose they are.
    ready: VecDeque<(Socket, Completion)>,
    /// Connections among those, and the listeners that wait until there are fewer.
    accepted_waiting: usize,
    held_back: Vec<Socket>,
    /// Sends that blocked: told by the very next wait, however full the batch is, as its silence
    /// would be success.
    blocked: Vec<Completion>,
    /// Sockets that wait for a receive buffer.
    hungry: VecDeque<Socket>,
    /// Scratch of a harvest, kept for its memory.
    entries: Vec<Cqe>,
    /// Scratch of a receive, kept for its memory.
    windows: Vec<Lease>,
    arena: Arena,
    waker: Waker,
    wake_fd: Arc<OwnedFd>,
    /// The waker's signal has come.
    signalled: bool,
    /// Receives are armed one by one.
    single_shot: bool,
    refusals: u32,
    /// Operations that will still complete.
    in_flight: usize,
    /// Why the reactor cannot go on.
    broken: Option<io::Error>,
    origin: Instant,
    calls: Cell<u64>,
    completions: u64,
    received_bytes: u64,
    sent_bytes: u64,
    starved: u64,
    sends_blocked: u64,
}

impl Uring {
    /// Makes a ring and gives it its buffers.
    ///
    /// # Errors
    /// [`UringError`] says what this machine lacks or refuses, and what to do about it.
    pub fn new(config: UringConfig) -> Result<Self, UringError> {
        UringError::check(&config)?;
        let wake_fd =
            Arc::new(event_fd().map_err(|source| UringError::of_call("eventfd", source))?);
        let signal_fd = Arc::clone(&wake_fd);
        let ring = Ring::new(&config)?;
        let buffers = Buffers::new(&config, &ring)?;
        let mut uring = Self {
            ring,
            buffers,
            table: Table::new(config.sockets_max),
            turn: Turn::new(config.entries),
            rests: Rests::new(config.sockets_max),
            // A message that is received straight must not allocate, the first one neither.
            leases: Slab::new(config.sockets_max).with_first_chunk(),
            addresses: Slab::new(config.sockets_max),
            singles: Vec::new(),
            ready: VecDeque::with_capacity(BATCH_MAX),
            blocked: Vec::new(),
            accepted_waiting: 0,
            held_back: Vec::new(),
            hungry: VecDeque::new(),
            entries: Vec::with_capacity(config.entries as usize),
            windows: Vec::with_capacity(config.buffers),
            arena: config.pool,
            waker: Waker::new(move || signal(&signal_fd)),
            wake_fd,
            signalled: false,
            single_shot: false,
            refusals: 0,
            in_flight: 0,
            broken: None,
            origin: Instant::now(),
            calls: Cell::new(0),
            completions: 0,
            received_bytes: 0,
            sent_bytes: 0,
            starved: 0,
            sends_blocked: 0,
        };
        uring.arm_waker();
        Ok(uring)
    }

    /// The tier in use.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.buffers.tier()
    }

    /// Puts an operation of a socket into the ring.
    fn start(&mut self, socket: Socket, entry: Entry) {
        let slot = self.table.get_mut(socket).expect("operations are started for live slots");
        slot.operations += 1;
        self.in_flight += 1;
        self.ring.push(entry);
    }

    /// An operation of a socket has had its last completion.
    fn completed(&mut self, socket: Socket) -> &mut Slot {
        let slot = self.table.get_mut(socket).expect("an operation in flight keeps its slot");
        slot.operations -= 1;
        self.in_flight -= 1;
        slot
    }

    /// Adds an event to those that are to be delivered, if the socket is still listened to.
    fn tell(&mut self, socket: Socket, event: Event) {
        if let Some(slot) = self.table.get(socket).filter(|slot| slot.is_live()) {
            self.tell_of(socket, slot.token, event);
        }
    }

    /// Whether there is anything to deliver.
    fn has_news(&self) -> bool {
        !self.ready.is_empty() || !self.blocked.is_empty()
    }

    fn tell_of(&mut self, socket: Socket, token: Token, event: Event) {
        self.ready.push_back((socket, Completion { token, event }));
    }

    /// Tells that a socket is broken, once, and stops working for it.
    fn fail(&mut self, socket: Socket, error: io::Error) {
        let Some(slot) = self.table.get_mut(socket).filter(|slot| slot.is_live()) else { return };
        let token = slot.token;
        slot.set(Flags::FAILED);
        if !slot.has(Flags::INTO_ARMED) {
            drop(self.take_lease(socket));
        }
        if let Some(slot) = self.table.get_mut(socket)
            && slot.mode == Mode::Pool
        {
            slot.mode = Mode::Paused;
        }
        self.tell_of(socket, token, Event::Failed(error));
    }

    fn arm_waker(&mut self) {
        let events = libc::POLLIN.cast_unsigned().into();
        let entry = opcode::PollAdd::new(Fd(self.wake_fd.as_raw_fd()), events)
            .multi(true)
            .build()
            .user_data(user_data(Operation::Wake, 0, 0));
        self.in_flight += 1;
        self.ring.push(entry);
    }

    /// Enters until there is something to tell, as `asleep` and `timeout` allow.
    fn run(&mut self, mut asleep: bool, timeout: Option<Duration>) -> io::Result<()> {
        let started = timeout.filter(|_| asleep).map(|_| Instant::now());
        let mut sleep = match timeout {
            _ if !asleep => Sleep::No,
            None => Sleep::ForEver,
            Some(timeout) => Sleep::For(timeout.min(SLEEP_MAX)),
        };
        loop {
            if asleep || self.ring.has_work() {
                self.ring.enter(sleep)?;
            }
            self.collect()?;
            self.settle_turn()?;
            if self.signalled {
                self.signalled = false;
                // A signal that came too late for the sleep it was meant for ends no other one.
                asleep = asleep && !self.waker.wake_up() && self.waker.fall_asleep();
            }
            if !asleep || self.has_news() {
                return Ok(());
            }
            if let (Some(timeout), Some(started)) = (timeout, started) {
                let rest = timeout.saturating_sub(started.elapsed());
                if rest.is_zero() {
                    return Ok(());
                }
                sleep = Sleep::For(rest.min(SLEEP_MAX));
            }
            self.buffers.recycle();
            self.feed_hungry();
        }
    }

    /// Lets go of the sends of this turn, so that their storage can be used again.
    fn settle_turn(&mut self) -> io::Result<()> {
        for _ in 0..FLUSHES_MAX {
            if self.release_turn() {
                return Ok(());
            }
            // Some entries were not consumed: the kernel was short of something.
            self.ring.enter(Sleep::No)?;
            self.collect()?;
        }
        Err(io::Error::other("io_uring: the kernel does not take what it is given to send"))
    }

    /// Submits without sleeping, to make room in this turn.
    fn flush(&mut self) {
        let entered = self.ring.enter(Sleep::No).and_then(|()| self.collect());
        if let Err(error) = entered.and_then(|()| self.settle_turn()) {
            self.broken = Some(error);
        }
    }

    /// Empties the completion queue, also of what did not fit into it.
    fn collect(&mut self) -> io::Result<()> {
        for _ in 0..FLUSHES_MAX {
            let mut entries = std::mem::take(&mut self.entries);
            self.ring.harvest(&mut entries);
            for entry in entries.drain(..) {
                self.dispatch(entry);
            }
            self.entries = entries;
            if !self.ring.has_overflow() {
                break;
            }
            self.ring.enter(Sleep::No)?;
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    fn dispatch(&mut self, entry: Cqe) {
        let Cqe { user_data, result, flags } = entry;
        let Some((operation, index, generation)) = parse(user_data) else { return };
        let socket = self.table.find(index, generation);
        match (operation, socket) {
            (Operation::Receive, socket) => self.on_receive(socket, result, flags),
            (Operation::Accept, socket) => self.on_accepted(socket, result, flags),
            (Operation::Send, _) => self.on_send_failed(index, result),
            (Operation::SendRest, _) => self.on_rest_sent(index, result),
            (Operation::Wake, _) => {
                self.signalled = true;
                if !cqueue::more(flags) {
                    self.in_flight -= 1;
                    self.arm_waker();
                }
            }
            (Operation::ReceiveInto, Some(socket)) => self.on_received_into(socket, result),
            (Operation::Connect, Some(socket)) => self.on_connected(socket, result),
            (Operation::Close, Some(socket)) => self.on_closed(socket),
            (Operation::Cancel, _) | (_, None) => {}
        }
    }

    /// Cancels everything and waits until the kernel has let go of it; answers whether it has.
    fn drain(&mut self) -> bool {
        for _ in 0..DRAINS_MAX {
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any())
                .build()
                .flags(EntryFlags::SKIP_SUCCESS)
                .user_data(user_data(Operation::Cancel, 0, 0));
            self.ring.push(entry);
            let sleep = if self.in_flight > 0 { Sleep::For(DRAIN_WAIT) } else { Sleep::No };
            if self.ring.enter(sleep).is_err() {
                return false;
            }
            let mut entries = std::mem::take(&mut self.entries);
            self.ring.harvest(&mut entries);
            for entry in entries.drain(..) {
                self.let_go(entry);
            }
            self.entries = entries;
            let is_submitted = self.ring.consumed() == self.ring.pushed();
            if self.in_flight == 0 && is_submitted && !self.ring.has_overflow() {
                return true;
            }
        }
        false
    }

    /// What is left of [`dispatch`](Self::dispatch) for a reactor on its way out.
    fn let_go(&mut self, entry: Cqe) {
        let Some((operation, ..)) = parse(entry.user_data) else { return };
        if operation == Operation::Accept && entry.result >= 0 {
            // SAFETY: the kernel gives each accepted descriptor once, and to us.
            drop(unsafe { OwnedFd::from_raw_fd(entry.result) });
        }
        let is_counted = !matches!(operation, Operation::Send | Operation::Cancel);
        if is_counted && !cqueue::more(entry.flags) {
            self.in_flight -= 1;
        }
    }

    /// Lets the memory that the kernel may still use live for ever.
    fn leak(&mut self) {
        self.buffers.leak();
        std::mem::forget(std::mem::replace(&mut self.turn, Turn::new(0)));
        std::mem::forget(std::mem::replace(&mut self.rests, Rests::new(0)));
        std::mem::forget(std::mem::replace(&mut self.leases, Slab::new(0)));
        std::mem::forget(std::mem::replace(&mut self.addresses, Slab::new(0)));
        std::mem::forget(std::mem::take(&mut self.singles));
    }
}

impl Reactor for Uring {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.origin.elapsed())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn listen(&mut self, listener: Listener, token: Token) -> io::Result<Socket> {
        self.do_listen(listener, token)
    }

    fn accept(&mut self, listener: Socket, armed: bool) {
        self.do_accept(listener, armed);
    }

    fn adopt(&mut self, connection: Connection, token: Token) -> io::Result<Socket> {
        self.do_adopt(connection, token)
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        self.do_connect(address, token)
    }

    fn receive(&mut self, socket: Socket, mode: Receive) {
        self.do_receive(socket, mode);
    }

    fn send<I: IntoIterator<Item = Shared>>(&mut self, socket: Socket, segments: I) {
        self.do_send(socket, segments);
    }

    fn shutdown(&mut self, socket: Socket) {
        self.do_shutdown(socket);
    }

    fn close(&mut self, socket: Socket) {
        self.do_close(socket);
    }

    fn release(&mut self, socket: Socket) {
        self.do_release(socket);
    }

    fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        self.do_peer_address(socket)
    }

    fn local_address(&self, socket: Socket) -> Option<SocketAddr> {
        self.do_local_address(socket)
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        self.buffers.recycle();
        let must_go_on = self.feed_hungry();
        let may_sleep = !self.has_news() && !must_go_on && timeout != Some(Duration::ZERO);
        let asleep = may_sleep && self.waker.fall_asleep();
        let result = self.run(asleep, timeout);
        self.waker.wake_up();
        result?;
        let count = self.ready.len().min(BATCH_MAX.saturating_sub(self.blocked.len()));
        self.completions += (self.blocked.len() + count) as u64;
        batch.append(&mut self.blocked);
        self.take_accepted(count);
        batch.extend(self.ready.drain(..count).map(|(_, completion)| completion));
        Ok(())
    }

    fn stats(&self) -> ReactorStats {
        ReactorStats {
            waits: self.ring.enters(),
            calls: self.calls.get(),
            completions: self.completions,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            buffers_lent: self.buffers.lent(),
            buffers: self.buffers.len(),
            starved: self.starved,
            sends_blocked: self.sends_blocked,
            sockets: self.table.len(),
            accepted_waiting: self.accepted_waiting,
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Leases that were never delivered first: some may be windows of the buffers.
        self.ready.clear();
        let drained = self.drain();
        if !drained || self.ring.unregister_buffers().is_err() {
            error!(
                operations = self.in_flight,
                "io_uring: the kernel does not let go; the memory of this reactor is not freed"
            );
            self.leak();
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring").field("tier", &self.tier()).field("stats", &self.stats()).finish()
    }
}

fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers, gives a descriptor or -1.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends the sleep of the reactor that polls `fd`. The poll sees each write, so nobody ever reads:
/// the counter would be full after 2^64 sleeps.
fn signal(fd: &OwnedFd) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: eight readable bytes, as an eventfd wants them.
    let written = unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    debug_assert_eq!(written, 8, "an eventfd always takes a one");
}
