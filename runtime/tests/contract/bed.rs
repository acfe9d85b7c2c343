//! What a case gets: reactors, listeners and peers of one rig, and memory whose use is known.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use hioload::reactor::sim::{Faults, Net, Rng};
use hioload::reactor::{Listener, Reactor, Token};
use hioload_pools::{Arena, ArenaConfig, BytePool, Lease, Shared};
use socket2::{Domain, SockRef, Socket, Type};

use crate::host::{Host, LISTENER};
use crate::peer::Peer;
use crate::rigs::{AnyReactor, Limits};

/// Send buffer of accepted sockets: so little that a large send always blocks.
const SEND_BUFFER_BYTES: usize = 32 << 10;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Memory of a reactor, and of a case.
pub(crate) const POOL_BYTES: usize = 64 << 20;

pub(crate) struct Bed {
    pub(crate) rig: &'static str,
    /// The simulated network; empty for a real rig.
    pub(crate) net: Net,
    /// Memory of the cases, none of it of a reactor.
    pub(crate) arena: Arena,
    next_port: Cell<u16>,
}

impl Bed {
    pub(crate) fn new(rig: &'static str) -> Self {
        let net = match rig {
            "sim_faulty" => Net::with_faults(Rng::new(1), Faults::benign()),
            _ => Net::new(),
        };
        Self { rig, net, arena: arena(), next_port: Cell::new(1) }
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.rig.starts_with("sim")
    }

    /// A reactor with a listener, [`LISTENER`].
    pub(crate) fn host(&self) -> Host<'_> {
        self.host_with(Limits::default())
    }

    pub(crate) fn host_with(&self, limits: Limits) -> Host<'_> {
        let pool = arena();
        let mut reactor = AnyReactor::new(self.rig, limits, pool.clone(), &self.net);
        let (listener, address) = self.listener();
        let listener = reactor.listen(listener, LISTENER).unwrap();
        Host::new(self, pool, reactor, listener, address)
    }

    pub(crate) fn listener(&self) -> (Listener, SocketAddr) {
        if self.is_simulated() {
            let port = self.next_port.replace(self.next_port.get() + 1);
            return (self.net.listen(port).unwrap(), (Ipv4Addr::LOCALHOST, port).into());
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES).unwrap();
        socket.listen(BACKLOG).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (std::net::TcpListener::from(socket).into(), address)
    }

    /// An address where nobody listens.
    pub(crate) fn nowhere(&self) -> SocketAddr {
        let (listener, address) = self.listener();
        if self.is_simulated() {
            return (Ipv4Addr::LOCALHOST, 60_000).into();
        }
        drop(listener);
        address
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<Peer> {
        self.connect_with(address, false)
    }

    /// A peer that takes next to nothing before it reads.
    pub(crate) fn connect_narrow(&self, address: SocketAddr) -> Peer {
        self.connect_with(address, true).unwrap()
    }

    fn connect_with(&self, address: SocketAddr, is_narrow: bool) -> io::Result<Peer> {
        if self.is_simulated() {
            Peer::simulated(&self.net, address.port(), is_narrow)
        } else {
            Peer::real(address, is_narrow)
        }
    }

    /// Memory of a case, filled.
    pub(crate) fn shared(&self, bytes: &[u8]) -> Shared {
        let mut lease = self.lease(bytes.len());
        lease.copy_from_slice(bytes);
        lease.freeze()
    }

    pub(crate) fn lease(&self, len: usize) -> Lease {
        self.arena.acquire(len, len).unwrap()
    }

    /// Bytes of [`shared`](Self::shared) and [`lease`](Self::lease) that somebody still holds.
    pub(crate) fn in_use_bytes(&self) -> usize {
        self.arena.stats().in_use_bytes
    }
}

/// Bytes that do not repeat soon, so that a mistake in their order shows.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The token of the `number`-th connection of a case.
pub(crate) const fn token(number: u64) -> Token {
    Token(1000 + number)
}

fn arena() -> Arena {
    let config = ArenaConfig { capacity_bytes: POOL_BYTES, ..ArenaConfig::default() };
    Arena::new(config).unwrap()
}
