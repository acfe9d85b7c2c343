//! What the epoll reactor does when a socket is ready, and how sockets end.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};

use hioload_pools::Shared;

use super::entry::{BROKEN, HUNG_UP, Mode, Phase, READABLE, WRITABLE};
use super::outgoing::{self, NONE};
use super::{Due, Epoll};
use crate::reactor::batch::Batch;
use crate::reactor::{Connection, Event, Socket};

/// Connections that one listener accepts in one wait, so that a flood of them leaves room in the
/// batch for those that are open.
const ACCEPTS_MAX: usize = 64;

impl Epoll {
    pub(super) fn accept_some(&mut self, listener: Socket, batch: &mut Batch<'_>) {
        for _ in 0..ACCEPTS_MAX {
            let Some(entry) = self.sockets.get_mut(listener) else { return };
            let Some(fd) = entry.fd() else { return };
            if entry.mode == Mode::Paused || batch.is_full() {
                break;
            }
            let token = entry.token;
            match self.kernel.accept(fd) {
                Ok(fd) => batch.push(token, Event::Accepted(Connection::from(fd))),
                Err(error) if outgoing::is_for_later(&error) => return,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    entry.mode = Mode::Paused;
                    batch.push(token, Event::AcceptFailed(error));
                }
            }
        }
        // Paused: more connections may come now, and nobody wants to hear of them.
        self.watch(listener);
    }

    pub(super) fn finish_connect(&mut self, socket: Socket, batch: &mut Batch<'_>) {
        let Some(entry) = self.sockets.get(socket) else { return };
        let Some(fd) = entry.fd() else { return };
        match self.kernel.take_error(fd) {
            Ok(None) => {
                self.open(socket);
                self.report_due(batch);
            }
            Ok(Some(error)) | Err(error) => self.fail(socket, error),
        }
    }

    /// A connect succeeded.
    pub(super) fn open(&mut self, socket: Socket) {
        let entry = self.sockets.get_mut(socket).expect("it is connecting");
        entry.phase = Phase::Open;
        self.due.push_back((socket, Due::Connected));
        self.watch(socket);
    }

    pub(super) fn handle_stream(&mut self, socket: Socket, events: u32, batch: &mut Batch<'_>) {
        if events & WRITABLE != 0 {
            self.resume_send(socket, batch);
        }
        if events & (READABLE | BROKEN | HUNG_UP) == 0 || batch.is_full() {
            return;
        }
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let Some(fd) = entry.fd() else { return };
        if entry.wants_bytes() {
            self.receive_some(socket, events & BROKEN != 0, batch);
        } else if events & BROKEN != 0 {
            self.fail_with_its_error(socket);
        } else if events & HUNG_UP != 0 {
            // Cannot be masked: both sides have said FIN, so nothing but the rest of what the peer
            // sent can be wanted, and that is still there when receiving is asked for again.
            let _ = self.kernel.remove(fd);
            entry.is_watched = false;
        } else {
            self.watch(socket);
        }
    }

    /// One receive: more comes with the next wait, after everybody else had a turn.
    fn receive_some(&mut self, socket: Socket, is_broken: bool, batch: &mut Batch<'_>) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let Some(fd) = entry.fd() else { return };
        let room = match entry.mode {
            Mode::Lease => Some(self.leases.get_mut(entry.lease)),
            Mode::Pool | Mode::Paused => self.buffers.tail(),
        };
        let Some(room) = room else { return self.starve(socket) };
        match self.kernel.receive(fd, room) {
            Ok(0) => {
                entry.has_ended = true;
                entry.mode = Mode::Paused;
                drop(self.leases.take(mem::replace(&mut entry.lease, NONE)));
                batch.push(entry.token, Event::Ended);
            }
            Ok(filled) => {
                self.stats.received_bytes += filled as u64;
                let token = entry.token;
                let event = match self.leases.take(mem::replace(&mut entry.lease, NONE)) {
                    Some(lease) => {
                        entry.mode = Mode::Paused;
                        Event::ReceivedInto { lease, filled }
                    }
                    None => Event::Received(self.buffers.lend(filled)),
                };
                batch.push(token, event);
            }
            Err(error) if outgoing::is_for_later(&error) => {
                if is_broken {
                    self.fail_with_its_error(socket);
                }
            }
            Err(error) => self.fail(socket, error),
        }
    }

    /// Stops watching a readable socket until there is a buffer for it: it would be ready again
    /// and again.
    fn starve(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        entry.is_starved = true;
        self.stats.starved += 1;
        self.starved.push_back(socket);
        self.watch(socket);
    }

    /// Receives for those that found no buffer, in their order, while there are buffers now.
    pub(super) fn feed_starved(&mut self, batch: &mut Batch<'_>) {
        while !batch.is_full() && self.buffers.tail().is_some() {
            let Some(socket) = self.starved.pop_front() else { return };
            let Some(entry) = self.sockets.get_mut(socket) else { continue };
            entry.is_starved = false;
            if entry.wants_bytes() {
                self.watch(socket);
                self.receive_some(socket, false, batch);
            }
        }
    }

    pub(super) fn send_now(&mut self, socket: Socket, segments: impl Iterator<Item = Shared>) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let Some(fd) = entry.fd() else { return };
        if entry.phase != Phase::Open || entry.is_finishing {
            return;
        }
        assert!(entry.blocked == NONE, "nothing is sent while a send is blocked");
        self.gathered.extend(segments);
        match outgoing::flush(&self.kernel, fd, &mut self.gathered) {
            Ok(taken) => {
                self.stats.sent_bytes += taken as u64;
                if self.gathered.is_empty() {
                    return;
                }
                let rest = mem::replace(&mut self.gathered, self.spares.take());
                let bytes = rest.iter().map(|segment| segment.len()).sum();
                entry.blocked = self.blocked.put(rest);
                self.stats.sends_blocked += 1;
                self.blocked_due.push((socket, bytes));
                self.watch(socket);
            }
            Err(error) => {
                self.gathered.clear();
                self.fail(socket, error);
            }
        }
    }

    fn resume_send(&mut self, socket: Socket, batch: &mut Batch<'_>) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let Some(fd) = entry.fd() else { return };
        if entry.blocked == NONE {
            return;
        }
        let rest = self.blocked.get_mut(entry.blocked);
        let bytes = match outgoing::flush(&self.kernel, fd, rest) {
            Ok(bytes) => bytes,
            Err(error) => return self.fail(socket, error),
        };
        self.stats.sent_bytes += bytes as u64;
        let done = rest.is_empty();
        if bytes > 0 || done {
            batch.push(entry.token, Event::Sent { bytes, done });
        }
        if done {
            if entry.is_finishing {
                self.kernel.shut_down(fd);
            }
            let place = mem::replace(&mut entry.blocked, NONE);
            self.spares.keep(self.blocked.take(place).expect("it was there"));
            self.watch(socket);
            self.hand_over_if_sent(socket);
        }
    }

    fn fail_with_its_error(&mut self, socket: Socket) {
        let Some(fd) = self.sockets.get(socket).and_then(|entry| entry.fd()) else { return };
        let error = match self.kernel.take_error(fd) {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => io::Error::from_raw_os_error(libc::EIO),
        };
        self.fail(socket, error);
    }

    /// The socket is broken: gives back all that it held, and will say so.
    pub(super) fn fail(&mut self, socket: Socket, error: io::Error) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        entry.phase = Phase::Failed;
        self.give_back(socket);
        self.due.push_back((socket, Due::Failed(error)));
    }

    /// Receives nothing more for a socket, and gives back what that needs.
    pub(super) fn stop_receiving(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        entry.mode = Mode::Paused;
        drop(self.leases.take(mem::replace(&mut entry.lease, NONE)));
        if mem::take(&mut entry.is_starved) {
            self.starved.retain(|starved| *starved != socket);
        }
    }

    /// Lets go of a socket that is being released, once nothing is to be sent any more.
    pub(super) fn hand_over_if_sent(&mut self, socket: Socket) {
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        if entry.phase != Phase::Releasing || entry.blocked != NONE {
            return;
        }
        let is_watched = entry.is_watched;
        let Some(fd) = entry.take_fd() else { return };
        if is_watched {
            // It fails only if it is not watched after all.
            let _ = self.kernel.remove(fd.as_fd());
        }
        self.due.push_back((socket, Due::Released(Connection::from(fd))));
    }

    /// Gives back all that a socket holds but its row in the table.
    pub(super) fn give_back(&mut self, socket: Socket) {
        self.stop_receiving(socket);
        let Some(entry) = self.sockets.get_mut(socket) else { return };
        let fd: Option<OwnedFd> = entry.take_fd();
        if let Some(rest) = self.blocked.take(mem::replace(&mut entry.blocked, NONE)) {
            self.spares.keep(rest);
        }
        if let Some(fd) = fd {
            self.kernel.close(fd);
        }
    }
}

/// Errors of accept that tell of the connection, not of the listener: the next one may be fine.
/// Linux passes on what was pending on the new socket (accept(2)).
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EPROTO
                | libc::EPERM
                | libc::ETIMEDOUT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP
        )
    )
}
