//! The system calls of this reactor, each as a function that cannot be misused.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::time::Duration;

use hioload_pools::{Lease, Shared};

/// Segments that one `sendmsg` takes here; the rest goes with the next one.
pub(super) const SEGMENTS_MAX: usize = 64;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn own(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the system has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

pub(super) fn epoll_control(
    epoll: &OwnedFd,
    operation: libc::c_int,
    fd: BorrowedFd<'_>,
    events: u32,
    data: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: `event` lives through the call, which copies it.
    check(unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event)
    })?;
    Ok(())
}

/// Fills `events` and answers with their number; 0 after the time or an interruption.
pub(super) fn epoll_wait(
    epoll: &OwnedFd,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    // Rounded up: waking before the time would mean to wait again for nothing.
    let millis = timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    });
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: `events` has room for as many as is said, and lives through the call.
    let result = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, millis) };
    match check(result) {
        Ok(count) => Ok(count as usize),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

pub(super) fn event_counter() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// Adds one to an event counter. Cannot fail but by overflow, and then it is signalled already.
pub(super) fn signal(counter: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` has eight bytes and lives through the call.
    let _ = unsafe { libc::write(counter.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no address is asked for.
    own(unsafe { libc::accept4(listener.as_raw_fd(), null_mut(), null_mut(), flags) })
}

/// Receives into the whole lease; answers with the number of bytes, 0 at the end of the stream.
pub(super) fn receive(fd: BorrowedFd<'_>, lease: &mut Lease) -> io::Result<usize> {
    let len = lease.len();
    // SAFETY: the lease is exclusive and has `len` bytes.
    check_len(unsafe {
        libc::recv(fd.as_raw_fd(), lease.as_mut_ptr().cast(), len, libc::MSG_DONTWAIT)
    })
}

/// Sends as much of the first segments as the kernel takes.
pub(super) fn send<'a>(
    fd: BorrowedFd<'_>,
    segments: impl Iterator<Item = &'a Shared>,
) -> io::Result<usize> {
    let mut parts = [libc::iovec { iov_base: null_mut(), iov_len: 0 }; SEGMENTS_MAX];
    let mut count = 0;
    for (part, segment) in parts.iter_mut().zip(segments) {
        *part =
            libc::iovec { iov_base: segment.as_ptr().cast_mut().cast(), iov_len: segment.len() };
        count += 1;
    }
    // SAFETY: all zeros is a valid `msghdr`: no address, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = count;
    // SAFETY: `message` names `count` parts, each of which is borrowed from a segment that lives
    // through the call; the kernel only reads them.
    check_len(unsafe {
        libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    })
}
