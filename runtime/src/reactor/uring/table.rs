//! The sockets: a slot for each, the operations that name it, and the numbers that come back.
//!
//! A slot, its descriptor and its generation stay until the last completion that names them: that
//! is what [`Slot::operations`] counts. So a completion of the kernel always finds the slot that it
//! means; should one not, it is ignored, and only the buffers that it names are taken back.

use std::os::fd::{AsRawFd, OwnedFd};

use hioload_pools::{Key, ObjectPool, Slab};
use io_uring::types::Fd;

use crate::reactor::{Socket, Token};

/// What a completion entry is the answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    /// Multishot accept.
    Accept = 1,
    Connect,
    /// Into the reactor's buffers.
    Receive,
    /// Into the caller's lease.
    ReceiveInto,
    /// A send of this turn; only failures answer. Names the place in the turn.
    Send,
    /// The rest of a send that blocked. Names the record.
    SendRest,
    /// Only failures answer, and mean nothing: what was to be cancelled is done.
    Cancel,
    Close,
    /// The poll of the waker.
    Wake,
}

/// The user data of an operation: 8 bits of operation, 24 of generation, 32 of index.
pub(super) const fn user_data(operation: Operation, index: u32, generation: u32) -> u64 {
    (operation as u64) << 56 | ((generation & GENERATION_MASK) as u64) << 32 | index as u64
}

/// The parts of a [`user_data`].
pub(super) const fn parse(user_data: u64) -> Option<(Operation, u32, u32)> {
    let operation = match user_data >> 56 {
        1 => Operation::Accept,
        2 => Operation::Connect,
        3 => Operation::Receive,
        4 => Operation::ReceiveInto,
        5 => Operation::Send,
        6 => Operation::SendRest,
        7 => Operation::Cancel,
        8 => Operation::Close,
        9 => Operation::Wake,
        _ => return None,
    };
    Some((operation, user_data as u32, (user_data >> 32) as u32 & GENERATION_MASK))
}

const GENERATION_MASK: u32 = 0x00ff_ffff;

/// Where the received bytes of a socket shall go, or whether a listener shall accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Paused,
    /// Into the reactor's buffers; also: accepting.
    Pool,
    /// Into the lease that is kept under [`Slot::lease`].
    Into,
}

/// States of a slot that exclude each other less than one would wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u16);

impl Flags {
    /// Receiving into the reactor's buffers, or accepting, is armed.
    pub(super) const ARMED: Self = Self(1);
    /// And is being cancelled.
    pub(super) const CANCELLING: Self = Self(1 << 1);
    /// The kernel has the caller's lease.
    pub(super) const INTO_ARMED: Self = Self(1 << 2);
    /// Waits for a buffer.
    pub(super) const STARVED: Self = Self(1 << 3);
    pub(super) const CONNECTING: Self = Self(1 << 4);
    /// The peer's FIN was seen.
    pub(super) const ENDED: Self = Self(1 << 5);
    pub(super) const FAILED: Self = Self(1 << 6);
    /// Closed by the caller.
    pub(super) const CLOSING: Self = Self(1 << 7);
    /// A send of this turn is not settled.
    pub(super) const SENDING: Self = Self(1 << 8);
    /// A send is blocked.
    pub(super) const BLOCKED: Self = Self(1 << 9);
    /// The caller sends nothing more.
    pub(super) const SHUT_DOWN: Self = Self(1 << 10);
    /// FIN shall follow what is being sent.
    pub(super) const FIN_WAITS: Self = Self(1 << 11);
    pub(super) const LISTENER: Self = Self(1 << 12);
    /// To be given back to the caller, who is still told of what happens before that.
    pub(super) const RELEASING: Self = Self(1 << 13);

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// 40 bytes, 48 in the table.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) token: Token,
    /// The lease of [`Mode::Into`].
    pub(super) lease: Key,
    /// The address while connecting.
    pub(super) address: Key,
    /// Gone once the entry that closes it is pushed.
    pub(super) fd: Option<OwnedFd>,
    pub(super) generation: u32,
    flags: Flags,
    /// How many operations name this slot that have not completed.
    pub(super) operations: u8,
    pub(super) mode: Mode,
}

/// The key of nothing.
pub(super) const NOTHING: Key = Key { index: u32::MAX, generation: u32::MAX };

impl Slot {
    pub(super) const fn has(&self, any_of: Flags) -> bool {
        self.flags.0 & any_of.0 != 0
    }

    pub(super) const fn set(&mut self, flags: Flags) {
        self.flags.0 |= flags.0;
    }

    pub(super) const fn unset(&mut self, flags: Flags) {
        self.flags.0 &= !flags.0;
    }

    /// Whether the caller is still told of anything but the close.
    pub(super) const fn is_live(&self) -> bool {
        !self.has(Flags::CLOSING.and(Flags::FAILED))
    }

    /// Whether the caller can ask anything of it but to close it.
    pub(super) const fn is_usable(&self) -> bool {
        self.is_live() && !self.has(Flags::RELEASING)
    }

    /// The descriptor, for an entry.
    pub(super) fn fd(&self) -> Fd {
        Fd(self.fd.as_ref().expect("only a closing slot has no descriptor").as_raw_fd())
    }
}

pub(super) struct Table {
    slots: Slab<Slot>,
}

impl Table {
    pub(super) const fn new(sockets_max: usize) -> Self {
        Self { slots: Slab::new(sockets_max) }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds a socket, unless the table is full.
    pub(super) fn insert(&mut self, fd: OwnedFd, token: Token, flags: Flags) -> Option<Socket> {
        let slot = Slot {
            token,
            lease: NOTHING,
            address: NOTHING,
            fd: Some(fd),
            generation: 0,
            flags,
            operations: 0,
            mode: Mode::Paused,
        };
        let key = self.slots.insert(slot).ok()?;
        self.slots.get_mut(key)?.generation = key.generation;
        Some(Socket::new(key.index, key.generation))
    }

    pub(super) fn get(&self, socket: Socket) -> Option<&Slot> {
        self.slots.get(key(socket))
    }

    pub(super) fn get_mut(&mut self, socket: Socket) -> Option<&mut Slot> {
        self.slots.get_mut(key(socket))
    }

    /// The socket in slot `index` if its generation ends in these bits.
    pub(super) fn find(&self, index: u32, generation: u32) -> Option<Socket> {
        let slot = self.slots.get_index(index)?;
        let same = slot.generation & GENERATION_MASK == generation;
        same.then(|| Socket::new(index, slot.generation))
    }

    pub(super) fn remove(&mut self, socket: Socket) -> Option<Slot> {
        self.slots.remove(key(socket))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }
}

const fn key(socket: Socket) -> Key {
    Key { index: socket.index(), generation: socket.generation() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        assert_eq!(size_of::<Option<Slot>>(), 40);
    }

    #[test]
    fn user_data_comes_back_as_it_went() {
        let all = [
            Operation::Accept,
            Operation::Connect,
            Operation::Receive,
            Operation::ReceiveInto,
            Operation::Send,
            Operation::SendRest,
            Operation::Cancel,
            Operation::Close,
            Operation::Wake,
        ];
        for operation in all {
            let parts = parse(user_data(operation, u32::MAX - 1, 0x7f12_3456));
            assert_eq!(parts, Some((operation, u32::MAX - 1, 0x0012_3456)));
        }
        assert_eq!(parse(0), None);
        assert_eq!(parse(u64::MAX), None);
    }

    #[test]
    fn a_socket_of_the_past_is_not_found() {
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let mut table = Table::new(1);
        let first = table.insert(file(), Token(1), Flags::default()).unwrap();
        assert!(table.insert(file(), Token(2), Flags::default()).is_none());
        table.remove(first).unwrap();
        let second = table.insert(file(), Token(3), Flags::default()).unwrap();
        assert!(table.get(first).is_none());
        assert_eq!(table.find(second.index(), second.generation()), Some(second));
        assert_eq!(table.find(second.index(), first.generation()), None);
    }
}
