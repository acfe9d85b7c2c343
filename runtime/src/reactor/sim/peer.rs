//! The other side of a simulated connection, in the hands of a test.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use super::net::Net;
use super::wire::End;

/// A connection of nobody's reactor. Reads and writes answer `WouldBlock` instead of waiting;
/// dropping it closes it.
pub struct Peer {
    net: Net,
    end: End,
}

impl Peer {
    pub(super) const fn new(net: Net, end: End) -> Self {
        Self { net, end }
    }

    /// The address under which the other side knows it.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.net.state().address_of(self.end)
    }

    /// Sends FIN; reading goes on.
    pub fn shutdown(&mut self) {
        self.net.state().shut_down(self.end);
    }

    /// Breaks the connection: the other side fails once it has read what came before.
    pub fn reset(self) {
        self.net.state().reset(self.end);
    }

    /// Takes at most this many bytes before they are read: 0 stalls the other side.
    pub fn set_window(&mut self, bytes: usize) {
        self.net.state().set_window(self.end, bytes);
    }
}

impl Read for Peer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.net.state().read(self.end, into)
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.net.state().write(self.end, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.net.state().close(self.end);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("end", &self.end).finish_non_exhaustive()
    }
}
