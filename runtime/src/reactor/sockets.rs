//! The table of a reactor's sockets: what each back end knows of a socket, by index and generation.
//!
//! Comes in: the state of a new socket. Goes out: a [`Socket`] that finds it until it is removed,
//! and nothing ever after. It never touches a descriptor by itself.

use std::io;

use hioload_pools::{Key, ObjectPool, Slab};

use super::Socket;

/// A bounded, generational table; entries never move.
pub(super) struct Sockets<T> {
    slab: Slab<T>,
}

impl<T> Sockets<T> {
    /// A table for at most `sockets_max` sockets.
    pub(super) const fn new(sockets_max: usize) -> Self {
        Self { slab: Slab::new(sockets_max) }
    }

    /// Stores what is known of a new socket; what was given is dropped if the table is full.
    pub(super) fn insert(&mut self, entry: T) -> io::Result<Socket> {
        match self.slab.insert(entry) {
            Ok(key) => Ok(Socket::new(key.index, key.generation)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the reactor's table of sockets is full",
            )),
        }
    }

    pub(super) fn get(&self, socket: Socket) -> Option<&T> {
        self.slab.get(key(socket))
    }

    pub(super) fn get_mut(&mut self, socket: Socket) -> Option<&mut T> {
        self.slab.get_mut(key(socket))
    }

    /// Ends this use of the slot.
    pub(super) fn remove(&mut self, socket: Socket) -> Option<T> {
        self.slab.remove(key(socket))
    }

    /// All of them, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slab.iter()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }
}

/// A socket as one number, for the kernel to carry.
pub(super) const fn to_u64(socket: Socket) -> u64 {
    key(socket).to_u64()
}

/// The socket that [`to_u64`] made this number of.
pub(super) const fn from_u64(number: u64) -> Socket {
    let key = Key::from_u64(number);
    Socket::new(key.index, key.generation)
}

const fn key(socket: Socket) -> Key {
    Key { index: socket.index(), generation: socket.generation() }
}
