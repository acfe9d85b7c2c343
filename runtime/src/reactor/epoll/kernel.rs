//! The system calls of the epoll reactor: each wrapped once, and counted.
//!
//! Comes in: descriptors and memory. Goes out: what the kernel answered. It decides nothing and
//! keeps no state but the counts.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use hioload_pools::Shared;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket as RawSocket, Type};

/// Segments that one send gathers: their list takes 1 KiB of stack, and 64 small messages fill a
/// packet.
pub(super) const SEGMENTS_MAX: usize = 64;

/// An epoll instance and what it costs.
pub(super) struct Kernel {
    epoll: OwnedFd,
    waits: Cell<u64>,
    calls: Cell<u64>,
}

impl Kernel {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: it takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        Ok(Self { epoll: owned(fd)?, waits: Cell::new(0), calls: Cell::new(0) })
    }

    /// Forgets what was counted so far.
    pub(super) fn start_to_count(&self) {
        self.calls.set(0);
    }

    /// Calls of `epoll_wait`.
    pub(super) const fn waits(&self) -> u64 {
        self.waits.get()
    }

    /// All other calls.
    pub(super) const fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// An event counter that never blocks.
    pub(super) fn event_counter(&self) -> io::Result<OwnedFd> {
        self.count();
        // SAFETY: it takes no pointers.
        owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
    }

    /// Adds a descriptor, whose events will carry `data`.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, interest: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest, data)
    }

    /// Changes which events of a descriptor matter.
    pub(super) fn modify(&self, fd: BorrowedFd<'_>, interest: u32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest, data)
    }

    /// Takes a descriptor out. Only needed where it stays open.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, what: i32, fd: BorrowedFd<'_>, events: u32, u64: u64) -> io::Result<()> {
        self.count();
        let mut event = libc::epoll_event { events, u64 };
        let (epoll, fd) = (self.epoll.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: the kernel only reads the event, which outlives the call.
        check(unsafe { libc::epoll_ctl(epoll, what, fd, &raw mut event) } as isize).map(drop)
    }

    /// Waits for events for at most `timeout_ms` (-1: for ever); answers how many there are.
    pub(super) fn wait(
        &self,
        events: &mut [libc::epoll_event],
        timeout_ms: i32,
    ) -> io::Result<usize> {
        self.waits.set(self.waits.get() + 1);
        let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
        let (epoll, events) = (self.epoll.as_raw_fd(), events.as_mut_ptr());
        // SAFETY: there is room for `room` events at `events`, exclusively borrowed.
        check(unsafe { libc::epoll_wait(epoll, events, room, timeout_ms) } as isize)
    }

    pub(super) fn accept(&self, listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.count();
        let (fd, flags) = (listener.as_raw_fd(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        let nowhere = std::ptr::null_mut::<libc::socklen_t>();
        // SAFETY: null pointers mean that the peer's address is not wanted.
        owned(unsafe { libc::accept4(fd, nowhere.cast(), nowhere, flags) })
    }

    /// Receives what is there, without waiting.
    pub(super) fn receive(&self, fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
        self.count();
        let (pointer, len) = (into.as_mut_ptr().cast(), into.len());
        // SAFETY: the memory is `len` bytes long and exclusively borrowed.
        check(unsafe { libc::recv(fd.as_raw_fd(), pointer, len, libc::MSG_DONTWAIT) })
    }

    /// Sends what is taken at once of the first [`SEGMENTS_MAX`] segments.
    pub(super) fn send(
        &self,
        fd: BorrowedFd<'_>,
        segments: &VecDeque<Shared>,
    ) -> io::Result<usize> {
        self.count();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        if let (1, Some(only)) = (segments.len(), segments.front()) {
            let (pointer, len) = (only.as_ptr().cast(), only.len());
            // SAFETY: the kernel only reads the segment, which outlives the call.
            return check(unsafe { libc::send(fd.as_raw_fd(), pointer, len, flags) });
        }
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut vectors = [none; SEGMENTS_MAX];
        let mut count = 0;
        for (vector, segment) in vectors.iter_mut().zip(segments) {
            vector.iov_base = segment.as_ptr().cast_mut().cast();
            vector.iov_len = segment.len();
            count += 1;
        }
        // SAFETY: a message header of zeros is one without address, data and control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = count;
        // SAFETY: the kernel only reads the segments, which outlive the call, as do the vectors.
        check(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) })
    }

    /// Starts to connect; `Ok(Err(..))` if that failed at once, `Ok(Ok(true))` if it is done.
    pub(super) fn connect(
        &self,
        address: SocketAddr,
    ) -> io::Result<(OwnedFd, Result<bool, io::Error>)> {
        let domain = Domain::for_address(address);
        self.count();
        let socket =
            RawSocket::new_raw(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        self.count();
        socket.set_tcp_nodelay(true)?;
        self.count();
        let state = match socket.connect(&SockAddr::from(address)) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
            Err(error) => Err(error),
        };
        Ok((socket.into(), state))
    }

    /// Makes calls on a descriptor return instead of wait.
    pub(super) fn set_nonblocking(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.count();
        let mut on: libc::c_int = 1;
        // SAFETY: the kernel only reads the integer, which outlives the call.
        let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw mut on) };
        check(answer as isize).map(drop)
    }

    /// What broke a socket, if something did.
    pub(super) fn take_error(&self, fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
        self.count();
        SockRef::from(&fd).take_error()
    }

    pub(super) fn peer_address(&self, fd: BorrowedFd<'_>) -> Option<SocketAddr> {
        self.count();
        SockRef::from(&fd).peer_addr().ok()?.as_socket()
    }

    pub(super) fn local_address(&self, fd: BorrowedFd<'_>) -> Option<SocketAddr> {
        self.count();
        SockRef::from(&fd).local_addr().ok()?.as_socket()
    }

    /// Sends FIN. That it is too late for one shows as an event of the socket.
    pub(super) fn shut_down(&self, fd: BorrowedFd<'_>) {
        self.count();
        let _ = SockRef::from(&fd).shutdown(std::net::Shutdown::Write);
    }

    /// Closes a descriptor, which takes it out of the epoll instance as well.
    pub(super) fn close(&self, fd: OwnedFd) {
        self.count();
        drop(fd);
    }

    fn count(&self) {
        self.calls.set(self.calls.get() + 1);
    }
}

/// Adds one to an event counter, whose value nobody reads: every write is an edge.
pub(super) fn ring(counter: BorrowedFd<'_>) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the kernel only reads the eight bytes, which outlive the call. It fails only when
    // the counter is full, after 2^64 wakes.
    unsafe { libc::write(counter.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

fn check(answer: isize) -> io::Result<usize> {
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    check(fd as isize)?;
    // SAFETY: the kernel just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
