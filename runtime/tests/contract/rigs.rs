//! The back ends under test: the one place that names them. A new one is a name, a way to make it,
//! and a line in `contract!`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hioload::Time;
use hioload::reactor::epoll::{Epoll, EpollConfig};
use hioload::reactor::sim::{Net, SimConfig, SimReactor};
use hioload::reactor::uring::{Tier, Uring, UringConfig};
use hioload::reactor::{
    Completion, Connection, Listener, Reactor, ReactorStats, Receive, Socket, Token, Waker,
};
use hioload_pools::{Arena, Shared};

pub(crate) const NAMES: [&str; 6] =
    ["epoll", "uring_base", "uring_bundles", "uring_incremental", "sim", "sim_faulty"];

/// Cases that say how bytes are cut, when something happens or what is counted: faults change
/// that, and the contract allows it. Those of `sim_faulty` are all others.
const EXACT: &[&str] = &[
    "everything_returns_to_zero",
    "neighbours_in_a_buffer_do_not_touch",
    "one_segment_goes_to_many_sockets",
];

/// Makes a test of each case on each back end, and the list of them.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        pub(crate) const CASES: &[&str] = &[$(stringify!($case)),+];

        mod on {
            $(
                #[rstest::rstest]
                #[case::epoll("epoll")]
                #[case::uring_base("uring_base")]
                #[case::uring_bundles("uring_bundles")]
                #[case::uring_incremental("uring_incremental")]
                #[case::sim("sim")]
                #[case::sim_faulty("sim_faulty")]
                fn $case(#[case] rig: &'static str) {
                    if !crate::rigs::is_skipped(rig) && crate::rigs::holds(rig, stringify!($case)) {
                        super::$case(&crate::bed::Bed::new(rig));
                    }
                }
            )+
        }
    };
}

/// Whether a case is one for this rig.
pub(crate) fn holds(rig: &str, case: &str) -> bool {
    rig != "sim_faulty" || !EXACT.contains(&case)
}

/// Named in `HIOLOAD_SKIP_REACTORS`.
pub(crate) fn is_skipped(rig: &str) -> bool {
    let skipped = std::env::var("HIOLOAD_SKIP_REACTORS").unwrap_or_default();
    skipped.split(',').any(|name| name.trim() == rig)
}

/// How much a reactor may have.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) buffers: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) sockets_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { buffers: 16, buffer_bytes: 4096, sockets_max: 64 }
    }
}

/// Whichever back end is under test.
pub(crate) enum AnyReactor {
    Epoll(Box<Epoll>),
    Uring(Box<Uring>),
    Sim(Box<SimReactor>),
}

impl AnyReactor {
    /// Makes the one of this name; the network is that of the simulated one.
    pub(crate) fn new(rig: &str, limits: Limits, pool: Arena, net: &Net) -> Self {
        let Limits { buffers, buffer_bytes, sockets_max } = limits;
        let uring = |tier| {
            let pool = pool.clone();
            let tier = Some(tier);
            let config =
                UringConfig { entries: 256, buffers, buffer_bytes, sockets_max, tier, pool };
            let reactor = Uring::new(config);
            Self::Uring(Box::new(reactor.unwrap_or_else(|e| panic!("{rig} cannot run here: {e}"))))
        };
        match rig {
            "epoll" => {
                let pool = pool.clone();
                let config = EpollConfig { buffers, buffer_bytes, sockets_max, pool };
                Self::Epoll(Box::new(Epoll::new(config).expect("epoll can run everywhere")))
            }
            "uring_base" => uring(Tier::Base),
            "uring_bundles" => uring(Tier::Bundles),
            "uring_incremental" => uring(Tier::Incremental),
            "sim" | "sim_faulty" => {
                let config = SimConfig { buffers, buffer_bytes, sockets_max, pool };
                Self::Sim(Box::new(SimReactor::new(net, config).expect("it needs nothing")))
            }
            _ => panic!("there is no reactor called {rig}"),
        }
    }
}

macro_rules! each {
    ($any:expr, $reactor:ident => $call:expr) => {
        match $any {
            AnyReactor::Epoll($reactor) => $call,
            AnyReactor::Uring($reactor) => $call,
            AnyReactor::Sim($reactor) => $call,
        }
    };
}

impl Reactor for AnyReactor {
    fn name(&self) -> &'static str {
        each!(self, reactor => reactor.name())
    }

    fn now(&self) -> Time {
        each!(self, reactor => reactor.now())
    }

    fn waker(&self) -> Waker {
        each!(self, reactor => reactor.waker())
    }

    fn listen(&mut self, listener: Listener, token: Token) -> io::Result<Socket> {
        each!(self, reactor => reactor.listen(listener, token))
    }

    fn accept(&mut self, listener: Socket, armed: bool) {
        each!(self, reactor => reactor.accept(listener, armed));
    }

    fn adopt(&mut self, connection: Connection, token: Token) -> io::Result<Socket> {
        each!(self, reactor => reactor.adopt(connection, token))
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        each!(self, reactor => reactor.connect(address, token))
    }

    fn receive(&mut self, socket: Socket, mode: Receive) {
        each!(self, reactor => reactor.receive(socket, mode));
    }

    fn send<I: IntoIterator<Item = Shared>>(&mut self, socket: Socket, segments: I) {
        each!(self, reactor => reactor.send(socket, segments));
    }

    fn shutdown(&mut self, socket: Socket) {
        each!(self, reactor => reactor.shutdown(socket));
    }

    fn close(&mut self, socket: Socket) {
        each!(self, reactor => reactor.close(socket));
    }

    fn release(&mut self, socket: Socket) {
        each!(self, reactor => reactor.release(socket));
    }

    fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        each!(self, reactor => reactor.peer_address(socket))
    }

    fn local_address(&self, socket: Socket) -> Option<SocketAddr> {
        each!(self, reactor => reactor.local_address(socket))
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        each!(self, reactor => reactor.wait(timeout, batch))
    }

    fn stats(&self) -> ReactorStats {
        each!(self, reactor => reactor.stats())
    }
}
