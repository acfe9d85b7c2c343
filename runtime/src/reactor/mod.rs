//! The seam between a shard and the machine.
//!
//! What comes in: operations on sockets. What goes out: [`Completion`]s, collected in batches; a
//! reactor calls nobody. It knows nothing of sessions and protocols, and it must never allocate,
//! lock or copy a payload on the path of a received or sent message.
//!
//! The seam is completion-based, because io_uring and IOCP are; epoll emulates it. One folder per
//! back end: [`uring`], [`epoll`], [`sim`]. The contract that all of them keep is written on the
//! methods of [`Reactor`] and tested by one suite, `tests/contract`, run on each of them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hioload_pools::{Lease, Shared};

use crate::Time;

mod batch;
mod buffers;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub mod epoll;
mod handles;
pub mod sim;
mod sockets;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub mod uring;
mod waker;

pub use handles::{Connection, Listener};
pub use waker::Waker;

/// The most completions that one [`Reactor::wait`] adds to a batch, but for
/// [`Event::SendBlocked`]: every one of those comes with the wait that follows its send, however
/// many there are.
///
/// A bound on the work between two looks at the clock: 256 completions of a small echo are about
/// a millisecond.
pub const BATCH_MAX: usize = 256;

/// A socket that a reactor owns: an index into its table and the generation of that slot.
///
/// Opaque to callers; it becomes invalid with the [`Event::Closed`] or the [`Event::Released`] of
/// the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Socket {
    index: u32,
    generation: u32,
}

impl Socket {
    /// For implementations of [`Reactor`]: names slot `index` in its `generation`-th use.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// The slot in the reactor's table.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Which use of the slot this is.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// What the caller calls a socket: given with [`Reactor::adopt`], [`Reactor::connect`] or
/// [`Reactor::listen`], and found in each of its completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Where the received bytes of a socket shall go.
#[derive(Debug)]
pub enum Receive {
    /// Nowhere: the kernel keeps them, and the peer is slowed down by TCP. Bytes that were on
    /// their way already may still be delivered.
    Paused,
    /// A subscription: each arrival becomes an [`Event::Received`] in a window of the reactor's
    /// own buffers, until paused or pointed elsewhere.
    Pool,
    /// Straight into this lease, once: the next delivery of the socket is an
    /// [`Event::ReceivedInto`] with it, and then receiving is [`Receive::Paused`] until set again.
    /// The lease must not be empty. Bytes that are on their way into the reactor's own buffers go
    /// into the lease as well, so that none overtakes another: read all of a batch before you ask
    /// for this. If the peer ends instead, or the
    /// socket fails, the lease goes back to its pool, at the latest with [`Event::Closed`].
    Into(Lease),
}

/// Something that happened, and to whom.
#[derive(Debug)]
pub struct Completion {
    /// The token of the socket.
    pub token: Token,
    /// What happened to it.
    pub event: Event,
}

/// What a [`Completion`] tells.
#[derive(Debug)]
pub enum Event {
    /// A listener accepted a connection, which belongs to nobody yet: [`Reactor::adopt`] it here,
    /// or send it to another thread's reactor.
    Accepted(Connection),
    /// A listener could not accept, and is now paused until [`Reactor::accept`] arms it again.
    /// Errors that concern one connection only (it was reset before it was accepted) never show.
    AcceptFailed(io::Error),
    /// A [`Reactor::connect`] succeeded; sending and receiving may start.
    Connected,
    /// Bytes arrived, never zero of them, in their order.
    Received(Lease),
    /// The lease of a [`Receive::Into`] comes back; its first `filled` bytes (never zero) arrived.
    ReceivedInto {
        /// The lease that was given.
        lease: Lease,
        /// How many of its bytes were filled, from its start.
        filled: usize,
    },
    /// The peer will send nothing more (FIN). Sending still works. At most once.
    Ended,
    /// A send was not taken by the kernel at once: this many bytes of it wait. [`Event::Sent`]
    /// follows for them. Only one [`Reactor::send`] may be open at a time, so the next one must
    /// wait for `done`.
    SendBlocked(usize),
    /// Progress of a send that was blocked: `bytes` more were taken; `done` when none is left.
    Sent {
        /// Bytes taken since the last report.
        bytes: usize,
        /// Whether the send is complete.
        done: bool,
    },
    /// The socket is broken (reset, refused, timed out, an unexpected error): nothing will be
    /// sent or received any more. At most once; the socket must still be closed.
    Failed(io::Error),
    /// The last completion of a socket, after [`Reactor::close`]: its descriptor and all its
    /// buffers are released, and the [`Socket`] is invalid.
    Closed,
    /// The last completion of a socket, after [`Reactor::release`]: it belongs to nobody again, and
    /// the [`Socket`] is invalid.
    Released(Connection),
}

/// What a reactor counts, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReactorStats {
    /// System calls made for waiting and submitting (`io_uring_enter`, `epoll_wait`).
    pub waits: u64,
    /// Other system calls (`recv`, `sendmsg`, `epoll_ctl`, `close`, ...).
    pub calls: u64,
    /// Completions delivered.
    pub completions: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes handed to the kernel.
    pub sent_bytes: u64,
    /// Receive buffers lent out at this moment.
    pub buffers_lent: usize,
    /// Receive buffers in all.
    pub buffers: usize,
    /// Times a receive found no buffer.
    pub starved: u64,
    /// Sends that blocked.
    pub sends_blocked: u64,
    /// Sockets open, listeners included.
    pub sockets: usize,
    /// Connections that were accepted and wait to be delivered, on io_uring alone: beyond
    /// [`BATCH_MAX`] of them, and what the kernel completes until it is told so, a flood waits in
    /// its backlog.
    pub accepted_waiting: usize,
}

/// One thread's access to network and clock.
///
/// Ownership: a reactor owns every socket and every lease given to it until the completion that
/// gives it back, or [`Event::Closed`]. Ordering: completions of one socket come in the order in
/// which things happened to it. A reactor belongs to one thread; only its [`Waker`] may leave it.
///
/// A call that names a [`Socket`] which is no longer valid does nothing, and what it was given is
/// dropped; so does a call to a socket that failed, or was closed, or (for sends) shut down.
pub trait Reactor {
    /// Its name in reports: `uring`, `epoll`, `sim`.
    fn name(&self) -> &'static str;

    /// Now. The only clock of a shard.
    fn now(&self) -> Time;

    /// A handle with which any thread ends this reactor's [`wait`](Self::wait).
    fn waker(&self) -> Waker;

    /// Takes a listening socket and starts to accept: an [`Event::Accepted`] for each connection.
    ///
    /// # Errors
    /// The table of sockets is full, or the system refuses.
    fn listen(&mut self, listener: Listener, token: Token) -> io::Result<Socket>;

    /// Arms or pauses accepting. Connections accepted before a pause may still be delivered.
    fn accept(&mut self, listener: Socket, armed: bool);

    /// Takes a connected socket. Receiving is paused until [`receive`](Self::receive) is called.
    ///
    /// # Errors
    /// The table of sockets is full, or the system refuses; the connection is then closed.
    fn adopt(&mut self, connection: Connection, token: Token) -> io::Result<Socket>;

    /// Opens a TCP connection: [`Event::Connected`] or [`Event::Failed`] follows. Receiving is
    /// paused.
    ///
    /// # Errors
    /// The table of sockets is full, or no socket could be made.
    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket>;

    /// Says where received bytes go. While a lease of [`Receive::Into`] is outstanding the only
    /// further calls allowed for this socket are `send`, `shutdown` and `close`.
    fn receive(&mut self, socket: Socket, mode: Receive);

    /// Sends the segments in their order, as one gathered send where the system can.
    ///
    /// Nothing is reported of a send that the kernel took whole by the end of the next
    /// [`wait`](Self::wait): silence is success. Otherwise that wait reports
    /// [`Event::SendBlocked`], and [`Event::Sent`] follows as the bytes leave. The caller must not
    /// send again on this socket in the same turn (between two waits), nor while a send is blocked.
    /// The reactor keeps the segments until the kernel is done with them.
    fn send<I: IntoIterator<Item = Shared>>(&mut self, socket: Socket, segments: I);

    /// Sends FIN once everything given to [`send`](Self::send) has left. Receiving goes on.
    fn shutdown(&mut self, socket: Socket);

    /// Ends a socket or listener: what was not sent is dropped, bytes not yet delivered are
    /// forgotten, and [`Event::Closed`] is its last completion; no other event follows but those
    /// that were already in flight. Closing twice is closing once.
    fn close(&mut self, socket: Socket);

    /// Gives a connected socket back, the counterpart of [`adopt`](Self::adopt):
    /// [`Event::Released`] is its last completion. Until then nothing but [`close`](Self::close) can
    /// be asked of it.
    ///
    /// What was given to [`send`](Self::send) leaves first, and a FIN that was asked for, however
    /// long the peer takes for that. What was taken from the socket is delivered before, and nothing
    /// is taken from it after: what the peer sends from there on is found by whoever has the
    /// connection then. A lease of [`Receive::Into`] comes back with the bytes that it got, or goes
    /// back to its pool.
    ///
    /// A socket that breaks meanwhile fails as ever and is to be closed. A close meanwhile is
    /// answered with [`Event::Closed`], or with the release if that was on its way. It does nothing
    /// for a listener, nor for a socket that is still being connected.
    fn release(&mut self, socket: Socket);

    /// The address of the other side, if it has one and is still known (one system call).
    fn peer_address(&self, socket: Socket) -> Option<SocketAddr>;

    /// The address of our side, if it has one (one system call): of a connection that a listener
    /// for every interface accepted, the one that the peer connected to.
    fn local_address(&self, socket: Socket) -> Option<SocketAddr>;

    /// Submits all that was asked since the last call, and adds what completed to `batch`, at most
    /// [`BATCH_MAX`] of them (more only where more sends blocked). Waits for the first completion
    /// until `timeout` (`None`: for ever) unless there is one already or a [`Waker`] was used since
    /// the last wait ended.
    ///
    /// # Errors
    /// The reactor itself is broken; nothing about a single socket ends here.
    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()>;

    /// What it has counted.
    fn stats(&self) -> ReactorStats;
}
