//! How sockets come and go: listeners and what they accept, connecting, closing.
//!
//! A socket is closed in steps, each of which waits for the one before: everything in flight is
//! cancelled; when the last completion that names the slot has come, the descriptor is closed by
//! an entry of its own; with its completion the slot is free and the caller is told. One that is
//! released goes the same way, but only receives are cancelled, and the descriptor is handed over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use hioload_pools::ObjectPool;
use io_uring::squeue::Flags as EntryFlags;
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode};
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};
use tracing::warn;

use super::Uring;
use super::table::{Flags, Mode, Operation, Slot, user_data};
use crate::reactor::{BATCH_MAX, Completion, Connection, Event, Listener, Socket, Token};

impl Uring {
    pub(super) fn do_listen(&mut self, listener: Listener, token: Token) -> io::Result<Socket> {
        let fd = listener.into_descriptor().ok_or_else(foreign)?;
        let socket = self.table.insert(fd, token, Flags::LISTENER).ok_or_else(full)?;
        self.do_accept(socket, true);
        Ok(socket)
    }

    pub(super) fn do_adopt(&mut self, connection: Connection, token: Token) -> io::Result<Socket> {
        let fd = connection.into_descriptor().ok_or_else(foreign)?;
        self.table.insert(fd, token, Flags::default()).ok_or_else(full)
    }

    pub(super) fn do_connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        self.calls.set(self.calls.get() + 2);
        let socket =
            socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        let socket = self.table.insert(socket.into(), token, Flags::CONNECTING).ok_or_else(full)?;
        let key = self.addresses.insert(address.into());
        let key = key.unwrap_or_else(|_| unreachable!("a socket has one address"));
        let address: &SockAddr = self.addresses.get(key).expect("just inserted");
        let slot = self.table.get_mut(socket).expect("just inserted");
        slot.address = key;
        let data = user_data(Operation::Connect, socket.index(), socket.generation());
        // The address stays where it is until the completion: a slab never moves what it keeps.
        let entry = opcode::Connect::new(slot.fd(), address.as_ptr().cast(), address.len());
        self.start(socket, entry.build().user_data(data));
        Ok(socket)
    }

    pub(super) fn on_connected(&mut self, socket: Socket, result: i32) {
        let slot = self.completed(socket);
        slot.unset(Flags::CONNECTING);
        let address = slot.address;
        self.addresses.remove(address);
        if result < 0 {
            self.fail(socket, io::Error::from_raw_os_error(-result));
        } else {
            self.tell(socket, Event::Connected);
            self.arm_wanted(socket);
            self.shut_down_if_sent(socket);
        }
        self.end_if_quiet(socket);
    }

    pub(super) fn do_accept(&mut self, listener: Socket, armed: bool) {
        let Some(slot) = self.table.get_mut(listener) else { return };
        if !slot.is_live() || !slot.has(Flags::LISTENER) {
            return;
        }
        if armed {
            slot.mode = Mode::Pool;
            self.arm_accept(listener);
        } else {
            slot.mode = Mode::Paused;
            self.cancel_armed(listener);
        }
    }

    pub(super) fn arm_accept(&mut self, listener: Socket) {
        let Some(slot) = self.table.get_mut(listener) else { return };
        if slot.has(Flags::ARMED) || self.held_back.contains(&listener) {
            return;
        }
        slot.set(Flags::ARMED);
        let data = user_data(Operation::Accept, listener.index(), listener.generation());
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry = opcode::AcceptMulti::new(slot.fd()).flags(flags).build().user_data(data);
        self.start(listener, entry);
    }

    pub(super) fn on_accepted(&mut self, listener: Option<Socket>, result: i32, flags: u32) {
        let is_last = !cqueue::more(flags);
        let accepted = (result >= 0).then(|| self.accepted(result, is_last)).flatten();
        let is_live = listener.and_then(|listener| self.table.get(listener)).map(Slot::is_live);
        if accepted.is_some() && is_live != Some(true) {
            // A stale accept closes its descriptor.
            self.calls.set(self.calls.get() + 1);
        }
        let Some(listener) = listener else { return };
        if is_last {
            self.completed(listener).unset(Flags::ARMED.and(Flags::CANCELLING));
        }
        if let Some(connection) = accepted {
            self.tell_accepted(listener, connection);
        } else if result < 0 {
            self.accept_failed(listener, -result);
        }
        if is_last {
            self.arm_wanted(listener);
            self.end_if_quiet(listener);
        }
    }

    /// Tells of a connection. Once more of them wait than the next wait delivers, no more are
    /// accepted: a flood stays in the kernel's backlog, and takes no descriptors.
    fn tell_accepted(&mut self, listener: Socket, connection: Connection) {
        let Some(slot) = self.table.get(listener).filter(|slot| slot.is_live()) else { return };
        self.tell_of(listener, slot.token, Event::Accepted(connection));
        self.accepted_waiting += 1;
        if self.accepted_waiting > BATCH_MAX && !self.held_back.contains(&listener) {
            self.held_back.push(listener);
            self.cancel_armed(listener);
        }
    }

    /// The first `count` completions that wait are delivered: if few connections are left among the
    /// others, it goes on accepting.
    pub(super) fn take_accepted(&mut self, count: usize) {
        if self.accepted_waiting == 0 {
            return;
        }
        let accepted = |(_, completion): &&(Socket, Completion)| {
            matches!(completion.event, Event::Accepted(_))
        };
        self.accepted_waiting -= self.ready.iter().take(count).filter(accepted).count();
        if self.accepted_waiting <= BATCH_MAX / 2 {
            for listener in std::mem::take(&mut self.held_back) {
                self.arm_wanted(listener);
            }
        }
    }

    /// The connection that the kernel says it accepted.
    ///
    /// Some kernels (6.6 to 6.8, axboe/liburing#1062) name a wrong descriptor in the last
    /// completion of a multishot accept that found the queue full. It must not be taken for ours.
    fn accepted(&mut self, fd: i32, is_last: bool) -> Option<Connection> {
        if is_last && !self.is_new_socket(fd) {
            warn!(fd, "io_uring: accept named a descriptor that is no new connection");
            return None;
        }
        // SAFETY: the kernel gives each accepted descriptor once, and to us.
        Some(Connection::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn is_new_socket(&self, fd: i32) -> bool {
        let is_ours = |of: &OwnedFd| of.as_raw_fd() == fd;
        if self.table.iter().any(|slot| slot.fd.as_ref().is_some_and(is_ours)) {
            return false;
        }
        self.calls.set(self.calls.get() + 1);
        let mut is_listener: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the value is as long as `len` says; a number that is no socket is an error.
        let failed = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_ACCEPTCONN,
                (&raw mut is_listener).cast(),
                &raw mut len,
            )
        };
        failed == 0 && is_listener == 0
    }

    fn accept_failed(&mut self, listener: Socket, errno: i32) {
        let Some(slot) = self.table.get_mut(listener).filter(|slot| slot.is_live()) else { return };
        if concerns_one_connection(errno) {
            return;
        }
        slot.mode = Mode::Paused;
        self.tell(listener, Event::AcceptFailed(io::Error::from_raw_os_error(errno)));
    }

    /// Ends the subscription of a socket or the accepting of a listener; what was on its way still
    /// comes.
    pub(super) fn cancel_armed(&mut self, socket: Socket) {
        let Some(slot) = self.table.get_mut(socket) else { return };
        if !slot.has(Flags::ARMED) || slot.has(Flags::CANCELLING) {
            return;
        }
        slot.set(Flags::CANCELLING);
        let is_listener = slot.has(Flags::LISTENER);
        let operation = if is_listener { Operation::Accept } else { Operation::Receive };
        let target = user_data(operation, socket.index(), socket.generation());
        self.cancel(CancelBuilder::user_data(target));
    }

    fn cancel(&mut self, what: CancelBuilder) {
        let entry = opcode::AsyncCancel2::new(what)
            .build()
            .flags(EntryFlags::SKIP_SUCCESS)
            .user_data(user_data(Operation::Cancel, 0, 0));
        self.ring.push(entry);
    }

    pub(super) fn do_close(&mut self, socket: Socket) {
        let Some(slot) = self.table.get_mut(socket) else { return };
        if slot.has(Flags::CLOSING) {
            return;
        }
        slot.set(Flags::CLOSING);
        let (fd, operations) = (slot.fd(), slot.operations);
        if operations > 0 {
            self.cancel(CancelBuilder::fd(fd).all());
        }
        self.end_if_quiet(socket);
    }

    pub(super) fn do_release(&mut self, socket: Socket) {
        let Some(slot) = self.table.get_mut(socket).filter(|slot| slot.is_usable()) else { return };
        if slot.has(Flags::LISTENER.and(Flags::CONNECTING)) {
            return;
        }
        slot.set(Flags::RELEASING);
        if slot.mode == Mode::Pool {
            slot.mode = Mode::Paused;
        }
        if slot.has(Flags::INTO_ARMED) {
            let target = user_data(Operation::ReceiveInto, socket.index(), socket.generation());
            self.cancel(CancelBuilder::user_data(target));
        }
        self.cancel_armed(socket);
        self.end_if_quiet(socket);
    }

    /// Goes on with the end of a socket that no operation names any more: closes its descriptor, or
    /// hands it over.
    pub(super) fn end_if_quiet(&mut self, socket: Socket) {
        let Some(slot) = self.table.get_mut(socket) else { return };
        if slot.operations > 0 {
            return;
        }
        if slot.has(Flags::RELEASING) && slot.is_live() {
            return self.hand_over(socket);
        }
        if !slot.has(Flags::CLOSING) {
            return;
        }
        let Some(fd) = slot.fd.take() else { return };
        drop(self.take_lease(socket));
        let data = user_data(Operation::Close, socket.index(), socket.generation());
        let entry = opcode::Close::new(Fd(fd.into_raw_fd())).build().user_data(data);
        self.start(socket, entry);
    }

    fn hand_over(&mut self, socket: Socket) {
        drop(self.take_lease(socket));
        let slot = self.table.remove(socket).expect("the slot lives until now");
        let fd = slot.fd.expect("only a closing slot has no descriptor");
        self.tell_of(socket, slot.token, Event::Released(Connection::from(fd)));
    }

    pub(super) fn on_closed(&mut self, socket: Socket) {
        self.completed(socket);
        let slot = self.table.remove(socket).expect("the slot lives until now");
        assert!(slot.operations == 0, "the close is the last operation of a slot");
        if let Some(lease) = self.singles.get_mut(socket.index() as usize) {
            *lease = None;
        }
        self.tell_of(socket, slot.token, Event::Closed);
    }

    /// The address of the other side.
    pub(super) fn do_peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        let fd = self.table.get(socket)?.fd.as_ref()?;
        self.calls.set(self.calls.get() + 1);
        SockRef::from(fd).peer_addr().ok()?.as_socket()
    }

    /// The address of our side.
    pub(super) fn do_local_address(&self, socket: Socket) -> Option<SocketAddr> {
        let fd = self.table.get(socket)?.fd.as_ref()?;
        self.calls.set(self.calls.get() + 1);
        SockRef::from(fd).local_addr().ok()?.as_socket()
    }
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "io_uring: a simulated socket has no descriptor")
}

fn full() -> io::Error {
    let what = "io_uring: the table of sockets is full (`sockets_max`)";
    io::Error::new(io::ErrorKind::QuotaExceeded, what)
}

/// Whether accepting may go on as if nothing had been: see `accept(2)`.
const fn concerns_one_connection(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNABORTED
            | libc::EPROTO
            | libc::EPERM
            | libc::EINTR
            | libc::EAGAIN
            | libc::ECANCELED
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ETIMEDOUT
    )
}
