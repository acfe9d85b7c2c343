//! Sockets on their way between threads: opaque, and owned by whoever holds them.

#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// A listening socket that no reactor has taken yet. Dropping it closes it.
#[derive(Debug)]
pub struct Listener(Inner);

/// A connected stream socket that no reactor has taken yet. Dropping it closes it.
///
/// It may be sent to another thread and adopted by that thread's reactor.
#[derive(Debug)]
pub struct Connection(Inner);

#[derive(Debug)]
enum Inner {
    #[cfg(unix)]
    Descriptor(OwnedFd),
    Simulated(Simulated),
}

/// Numbers of simulated connections that were dropped without being adopted: their network closes
/// them. A handle may be dropped on any thread, and a network belongs to one.
pub(super) type Orphans = Arc<Mutex<Vec<u64>>>;

/// The number of a socket in a simulated network.
#[derive(Debug)]
struct Simulated {
    number: u64,
    orphans: Option<Orphans>,
}

impl Drop for Simulated {
    fn drop(&mut self) {
        if let Some(orphans) = &self.orphans {
            orphans.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

impl Connection {
    /// As [`simulated`](Self::simulated), and closed when it is dropped.
    pub(super) const fn of_network(number: u64, orphans: Orphans) -> Self {
        Self(Inner::Simulated(Simulated { number, orphans: Some(orphans) }))
    }

    /// Gives up the number, if it is of a simulated network.
    pub(super) fn into_simulated(self) -> Option<u64> {
        match self.0 {
            Inner::Simulated(mut simulated) => {
                simulated.orphans = None;
                Some(simulated.number)
            }
            #[cfg(unix)]
            Inner::Descriptor(_) => None,
        }
    }
}

macro_rules! handle {
    ($name:ident) => {
        impl $name {
            /// The socket with this number in a simulated network.
            #[must_use]
            pub const fn simulated(number: u64) -> Self {
                Self(Inner::Simulated(Simulated { number, orphans: None }))
            }

            /// The number in a simulated network, if it is of one.
            #[must_use]
            pub const fn as_simulated(&self) -> Option<u64> {
                match &self.0 {
                    Inner::Simulated(simulated) => Some(simulated.number),
                    #[cfg(unix)]
                    Inner::Descriptor(_) => None,
                }
            }

            /// The descriptor, if it is one of this machine.
            #[cfg(unix)]
            #[must_use]
            pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
                match &self.0 {
                    Inner::Descriptor(fd) => Some(fd.as_fd()),
                    Inner::Simulated(_) => None,
                }
            }

            /// Gives up the descriptor, if it is one of this machine.
            #[cfg(unix)]
            #[must_use]
            pub fn into_descriptor(self) -> Option<OwnedFd> {
                match self.0 {
                    Inner::Descriptor(fd) => Some(fd),
                    Inner::Simulated(_) => None,
                }
            }
        }

        #[cfg(unix)]
        impl From<OwnedFd> for $name {
            fn from(fd: OwnedFd) -> Self {
                Self(Inner::Descriptor(fd))
            }
        }
    };
}

handle!(Listener);
handle!(Connection);

#[cfg(unix)]
impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Self {
        Self(Inner::Descriptor(listener.into()))
    }
}

#[cfg(unix)]
impl From<std::net::TcpStream> for Connection {
    fn from(stream: std::net::TcpStream) -> Self {
        Self(Inner::Descriptor(stream.into()))
    }
}
