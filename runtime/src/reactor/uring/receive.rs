//! Receiving: a subscription to the reactor's buffers, or once into the caller's lease.
//!
//! A subscription is a multishot receive: armed once, it answers with each arrival until it is
//! cancelled, ends, or finds no buffer. It is armed again only for a reason: a buffer came back,
//! the caller wants it again. A lease of the caller is given to the kernel only when no
//! subscription of that socket is left, so that bytes never overtake each other: those that still
//! come through the subscription are copied into the lease.

use std::io;

use hioload_pools::{BytePool, Lease, ObjectPool};
use io_uring::{cqueue, opcode};
use tracing::warn;

use super::ring::GROUP;
use super::table::{Flags, Mode, Operation, user_data};
use super::{Tier, Uring};
use crate::reactor::{Completion, Event, Receive, Socket};

/// Refusals of a multishot receive, which are unexpected, before the shard goes without.
const REFUSALS_MAX: u32 = 3;
/// The receive buffer of a socket while the shard goes without.
const SINGLE_SHOT_BYTES: usize = 16 << 10;

impl Uring {
    pub(super) fn do_receive(&mut self, socket: Socket, receive: Receive) {
        let Some(slot) = self.table.get_mut(socket) else { return };
        if !slot.is_usable() || slot.has(Flags::LISTENER) {
            return;
        }
        assert!(slot.mode != Mode::Into, "a lease is outstanding: the contract of Receive::Into");
        let has_ended = slot.has(Flags::ENDED);
        match receive {
            Receive::Into(lease) => self.receive_into(socket, lease),
            _ if has_ended => {}
            Receive::Paused => {
                slot.mode = Mode::Paused;
                self.cancel_armed(socket);
            }
            Receive::Pool => {
                slot.mode = Mode::Pool;
                self.arm_receive(socket);
            }
        }
    }

    fn receive_into(&mut self, socket: Socket, lease: Lease) {
        assert!(!lease.is_empty(), "an empty lease: the contract of Receive::Into");
        let Some(lease) = self.fill_from_ready(socket, lease) else { return };
        if self.table.get(socket).is_none_or(|slot| slot.has(Flags::ENDED)) {
            return;
        }
        let key = self.leases.insert(lease);
        let key = key.unwrap_or_else(|_| unreachable!("a socket has one lease at a time"));
        let slot = self.table.get_mut(socket).expect("the caller has looked");
        slot.mode = Mode::Into;
        slot.lease = key;
        if slot.has(Flags::ARMED) {
            self.cancel_armed(socket);
        } else if !slot.has(Flags::CONNECTING) {
            self.arm_into(socket);
        }
    }

    /// Bytes of this socket that wait to be delivered come first: they go into the lease.
    fn fill_from_ready(&mut self, socket: Socket, mut lease: Lease) -> Option<Lease> {
        let waits = |(of, completion): &(Socket, Completion)| {
            *of == socket && matches!(completion.event, Event::Received(_))
        };
        let Some(at) = self.ready.iter().position(waits) else { return Some(lease) };
        let event = &mut self.ready[at].1.event;
        let Event::Received(window) = event else { unreachable!("just found") };
        let filled = copy(window, &mut lease);
        let rest = (filled < window.len()).then(|| window.split_off(filled));
        *event = Event::ReceivedInto { lease, filled };
        let token = self.ready[at].1.token;
        if let Some(rest) = rest {
            let event = Event::Received(rest);
            self.ready.insert(at + 1, (socket, Completion { token, event }));
        }
        if let Some(slot) = self.table.get_mut(socket) {
            slot.mode = Mode::Paused;
        }
        self.cancel_armed(socket);
        None
    }

    /// Subscribes a socket, or remembers that it waits for a buffer.
    pub(super) fn arm_receive(&mut self, socket: Socket) {
        let Some(slot) = self.table.get_mut(socket) else { return };
        if slot.has(Flags::ARMED.and(Flags::STARVED).and(Flags::CONNECTING)) {
            return;
        }
        let data = user_data(Operation::Receive, socket.index(), socket.generation());
        let fd = slot.fd();
        let entry = if self.single_shot {
            let lease = self.arena.acquire(SINGLE_SHOT_BYTES, SINGLE_SHOT_BYTES);
            let Some(mut lease) = lease else {
                return self.starve(socket);
            };
            let entry = opcode::Recv::new(fd, lease.as_mut_ptr(), SINGLE_SHOT_BYTES as u32).build();
            let index = socket.index() as usize;
            if self.singles.len() <= index {
                self.singles.resize_with(index + 1, || None);
            }
            self.singles[index] = Some(lease);
            entry
        } else if self.buffers.in_ring() == 0 {
            return self.starve(socket);
        } else if self.buffers.tier() == Tier::Bundles {
            opcode::RecvMultiBundle::new(fd, GROUP).build()
        } else {
            opcode::RecvMulti::new(fd, GROUP).build()
        };
        slot.set(Flags::ARMED);
        self.start(socket, entry.user_data(data));
    }

    /// There is no buffer: the socket is armed again when one has come back, never at once.
    fn starve(&mut self, socket: Socket) {
        self.starved += 1;
        let Some(slot) = self.table.get_mut(socket) else { return };
        if !slot.has(Flags::STARVED) {
            slot.set(Flags::STARVED);
            self.hungry.push_back(socket);
        }
    }

    /// Hands the kernel the caller's lease.
    fn arm_into(&mut self, socket: Socket) {
        let slot = self.table.get_mut(socket).expect("the caller has looked");
        let lease = self.leases.get_mut(slot.lease).expect("in this mode there is a lease");
        let len = u32::try_from(lease.len()).expect("a lease is smaller than 4 GiB");
        slot.set(Flags::INTO_ARMED);
        let data = user_data(Operation::ReceiveInto, socket.index(), socket.generation());
        let entry = opcode::Recv::new(slot.fd(), lease.as_mut_ptr(), len).build().user_data(data);
        self.start(socket, entry);
    }

    /// Arms whatever the mode of the socket asks for.
    pub(super) fn arm_wanted(&mut self, socket: Socket) {
        let Some(slot) = self.table.get(socket).filter(|slot| slot.is_usable()) else { return };
        match slot.mode {
            Mode::Paused => {}
            Mode::Pool if slot.has(Flags::LISTENER) => self.arm_accept(socket),
            Mode::Pool => self.arm_receive(socket),
            Mode::Into if slot.has(Flags::ARMED.and(Flags::INTO_ARMED)) => {}
            Mode::Into => self.arm_into(socket),
        }
    }

    /// Arms the sockets that had no buffer, as many as there are buffers. Answers whether some
    /// still wait although they need not.
    pub(super) fn feed_hungry(&mut self) -> bool {
        let servable = if self.single_shot { self.hungry.len() } else { self.buffers.in_ring() };
        for _ in 0..servable.min(self.hungry.len()) {
            let Some(socket) = self.hungry.pop_front() else { break };
            if let Some(slot) = self.table.get_mut(socket) {
                slot.unset(Flags::STARVED);
                self.arm_wanted(socket);
            }
        }
        !self.hungry.is_empty() && !self.single_shot && self.buffers.in_ring() > 0
    }

    /// Something happened on a subscription, or what stands for one while the shard goes without.
    pub(super) fn on_receive(&mut self, socket: Option<Socket>, result: i32, flags: u32) {
        let mut windows = std::mem::take(&mut self.windows);
        self.take_windows(socket, result, flags, &mut windows);
        let Some(socket) = socket else {
            windows.clear();
            self.windows = windows;
            return;
        };
        let is_last = !cqueue::more(flags);
        if is_last {
            let slot = self.completed(socket);
            slot.unset(Flags::ARMED.and(Flags::CANCELLING));
        }
        for window in windows.drain(..) {
            self.arrived(socket, window);
        }
        self.windows = windows;
        match result {
            0 => self.ended(socket),
            1.. => {}
            error => self.receive_failed(socket, -error),
        }
        if is_last {
            self.arm_wanted(socket);
            self.end_if_quiet(socket);
        }
    }

    /// The leases of the bytes that an entry tells of.
    fn take_windows(
        &mut self,
        socket: Option<Socket>,
        result: i32,
        flags: u32,
        windows: &mut Vec<Lease>,
    ) {
        let count = usize::try_from(result).unwrap_or(0);
        if let Some(id) = cqueue::buffer_select(flags) {
            let more = cqueue::buffer_more(flags);
            if self.buffers.take(id, count, more, windows).is_err() {
                self.broken = Some(io::Error::other(
                    "io_uring: the kernel filled another receive buffer than it was given",
                ));
            }
        } else if let Some(lease) = socket
            .and_then(|socket| self.singles.get_mut(socket.index() as usize))
            .and_then(Option::take)
            && count > 0
        {
            let mut lease = lease;
            lease.truncate(count);
            windows.push(lease);
        }
    }

    /// Bytes of a subscription: to the caller, or into the lease that he gave meanwhile.
    fn arrived(&mut self, socket: Socket, mut window: Lease) {
        self.received_bytes += window.len() as u64;
        let Some(slot) = self.table.get_mut(socket).filter(|slot| slot.is_live()) else { return };
        if slot.mode == Mode::Into && !slot.has(Flags::INTO_ARMED) {
            let mut lease = self.take_lease(socket).expect("in this mode there is a lease");
            let filled = copy(&window, &mut lease);
            self.tell(socket, Event::ReceivedInto { lease, filled });
            window.advance(filled);
        }
        if !window.is_empty() {
            let lease = if self.single_shot { window } else { self.buffers.deliver(window) };
            self.tell(socket, Event::Received(lease));
        }
    }

    pub(super) fn on_received_into(&mut self, socket: Socket, result: i32) {
        let slot = self.completed(socket);
        slot.unset(Flags::INTO_ARMED);
        if !slot.is_live() {
            drop(self.take_lease(socket));
            return self.end_if_quiet(socket);
        }
        match usize::try_from(result) {
            Ok(0) => self.ended(socket),
            Ok(filled) => {
                self.received_bytes += filled as u64;
                let lease = self.take_lease(socket).expect("in this mode there is a lease");
                self.tell(socket, Event::ReceivedInto { lease, filled });
            }
            Err(_) if is_passing(-result) => self.arm_wanted(socket),
            Err(_) => self.fail(socket, io::Error::from_raw_os_error(-result)),
        }
        self.end_if_quiet(socket);
    }

    /// Takes the caller's lease back from the slot, which pauses it.
    pub(super) fn take_lease(&mut self, socket: Socket) -> Option<Lease> {
        let slot = self.table.get_mut(socket).filter(|slot| slot.mode == Mode::Into)?;
        slot.mode = Mode::Paused;
        self.leases.remove(slot.lease)
    }

    fn ended(&mut self, socket: Socket) {
        let Some(slot) = self.table.get_mut(socket) else { return };
        if !slot.is_live() || slot.has(Flags::ENDED) {
            return;
        }
        slot.set(Flags::ENDED);
        drop(self.take_lease(socket));
        if let Some(slot) = self.table.get_mut(socket) {
            slot.mode = Mode::Paused;
        }
        self.tell(socket, Event::Ended);
    }

    fn receive_failed(&mut self, socket: Socket, errno: i32) {
        let Some(slot) = self.table.get_mut(socket).filter(|slot| slot.is_live()) else { return };
        match errno {
            libc::ENOBUFS if slot.mode == Mode::Pool => self.starve(socket),
            libc::ENOBUFS => self.starved += 1,
            libc::EINVAL | libc::EOPNOTSUPP if !self.single_shot => {
                self.refusals += 1;
                if self.refusals >= REFUSALS_MAX {
                    self.go_single_shot(errno);
                }
            }
            errno if is_passing(errno) => {}
            errno => self.fail(socket, io::Error::from_raw_os_error(errno)),
        }
    }

    /// From here on a receive is armed for one arrival only, with a buffer of its own.
    pub(super) fn go_single_shot(&mut self, errno: i32) {
        let error = io::Error::from_raw_os_error(errno);
        warn!(%error, "io_uring: multishot receive is refused; receiving one by one from now on");
        self.single_shot = true;
    }
}

/// Copies as much as fits.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}

const fn is_passing(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::EINTR | libc::ECANCELED)
}
