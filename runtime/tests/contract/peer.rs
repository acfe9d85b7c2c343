//! The other side of a connection: of the kernel or of the simulated network, never blocking.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hioload::reactor::sim;
use socket2::{Domain, SockRef, Socket, Type};

/// Receive window of a peer that takes little.
const NARROW_BYTES: usize = 4096;

pub(crate) enum Peer {
    Real(TcpStream),
    Simulated(sim::Peer),
}

impl Peer {
    /// Connects over loopback.
    pub(crate) fn real(address: SocketAddr, is_narrow: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if is_narrow {
            socket.set_recv_buffer_size(NARROW_BYTES)?;
        }
        socket.connect(&address.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self::Real(socket.into()))
    }

    /// Connects in a simulated network.
    pub(crate) fn simulated(net: &sim::Net, port: u16, is_narrow: bool) -> io::Result<Self> {
        let mut peer = net.connect(port)?;
        if is_narrow {
            peer.set_window(NARROW_BYTES);
        }
        Ok(Self::Simulated(peer))
    }

    /// What it calls itself, if it is real.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Real(stream) => Some(stream.local_addr().unwrap()),
            Self::Simulated(_) => None,
        }
    }

    /// Sends FIN.
    pub(crate) fn shutdown(&mut self) {
        match self {
            Self::Real(stream) => stream.shutdown(std::net::Shutdown::Write).unwrap(),
            Self::Simulated(peer) => peer.shutdown(),
        }
    }

    /// Sends RST.
    pub(crate) fn reset(self) {
        match self {
            Self::Real(stream) => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            Self::Simulated(peer) => peer.reset(),
        }
    }
}

impl Read for Peer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Real(stream) => stream.read(into),
            Self::Simulated(peer) => peer.read(into),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Real(stream) => stream.write(bytes),
            Self::Simulated(peer) => peer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
