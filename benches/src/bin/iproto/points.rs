//! What is measured: the loads, and who takes part in each.

use hioload_benches::machine::Cores;

use crate::call::How;
use crate::contenders::{Client, Pair, Programs, Reactor, Server, Work};
use crate::turn::{self, Sample};

/// Polling for longer than any round trip takes.
const SPIN_US: u64 = 100;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    /// What it is, as a heading.
    pub(crate) about: &'static str,
    pub(crate) in_flight: u16,
    spins: bool,
    /// How many connections of `load` there are, if it is what calls.
    load: Option<u16>,
}

/// All of them.
pub(crate) const POINTS: [Point; 4] = [
    Point {
        name: "many",
        about: "128 calls in flight on one connection",
        in_flight: 128,
        spins: false,
        load: None,
    },
    Point { name: "single", about: "one call in flight", in_flight: 1, spins: false, load: None },
    Point {
        name: "spin",
        about: "one call in flight, both ends of ours poll before they sleep",
        in_flight: 1,
        spins: true,
        load: None,
    },
    Point {
        name: "server",
        about: "256 connections with 16 calls in flight on each",
        in_flight: 16,
        spins: false,
        load: Some(256),
    },
];

/// Who takes part in a point; the ratios of a contender are to one of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contender {
    pub(crate) pair: Option<Pair>,
    pub(crate) server: Server,
    /// The place of the one that it is compared with.
    pub(crate) base: usize,
}

impl Contender {
    pub(crate) fn client_name(&self) -> String {
        self.pair.map_or_else(|| "load".to_owned(), |(client, _)| client.name())
    }
}

impl Point {
    /// Everybody, the base first.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        if self.load.is_some() {
            let alone = |server, base| Contender { pair: None, server, base };
            return vec![
                alone(Server::Raw(Reactor::Uring), 0),
                alone(Server::Ours(Reactor::Uring), 0),
                alone(Server::Raw(Reactor::Epoll), 2),
                alone(Server::Ours(Reactor::Epoll), 2),
                alone(Server::Go, 0),
            ];
        }
        let mut pairs: Vec<Pair> = vec![(Client::Go, Server::Go)];
        for reactor in [Reactor::Uring, Reactor::Epoll] {
            // On one core a thread that polls would keep the other from working.
            let is_possible = |how: &How| !self.spins || *how != How::Channel;
            let hows = [How::Channel, How::Spawned, How::Handler].into_iter().filter(is_possible);
            pairs.extend(hows.map(|how| (Client::Ours(reactor, how), Server::Ours(reactor))));
        }
        if !self.spins {
            pairs.push((Client::Ours(Reactor::Uring, How::Handler), Server::Go));
            pairs.push((Client::Go, Server::Ours(Reactor::Uring)));
        }
        let contender = |pair: Pair| Contender { pair: Some(pair), server: pair.1, base: 0 };
        pairs.into_iter().map(contender).collect()
    }

    /// One measurement.
    pub(crate) fn measure(
        &self,
        contender: &Contender,
        programs: &Programs,
        cores: Cores,
        work: Work,
    ) -> Result<Sample, String> {
        let spin_us = if self.spins { SPIN_US } else { 0 };
        let work = Work { in_flight: self.in_flight, spin_us, ..work };
        match (contender.pair, self.load) {
            (Some(pair), _) => turn::calls(programs, cores, pair, &work),
            (None, connections) => {
                let connections = connections.unwrap_or(1);
                turn::load(programs, cores, contender.server, connections, &work)
            }
        }
    }

    /// Whether it is about the server alone.
    pub(crate) fn is_load(&self) -> bool {
        self.load.is_some()
    }
}
