//! The world of one seed: shards and peers on one network, and the order in which they act.
//!
//! Comes in: shards, actors, an end of the faults. Goes out: a report, or the first thing that was
//! wrong. Everything happens on one thread; the clock only moves when nobody has anything to do, or
//! by the little that a turn takes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hioload_pools::{Arena, ArenaConfig, BytePool, Lease, PoolStats, mailbox};

use super::ledger::SharedLedger;
use super::peers::Actor;
use super::{Report, RouteMaker};
use crate::Time;
use crate::config::Config;
use crate::place::ShardPlace;
use crate::reactor::sim::{Faults, Knob, Net, Rng, SimConfig, SimReactor, trace};
use crate::reactor::{Reactor, Waker};
use crate::shard::{Letter, Parts, Paths, Settings, ShardHandle, Turn};

/// The ports of the first shard; those of the next ones lie [`PORTS_APART`] above.
pub(super) const HTTP_PORT: u16 = 80;
pub(super) const IPROTO_PORT: u16 = 3301;
pub(super) const RAW_PORT: u16 = 7;
pub(super) const PORTS_APART: u16 = 10_000;

/// Letters that a mailbox holds: few, so that it is full now and then.
const MAILBOX_LETTERS: usize = 64;
/// Rounds at one moment, after which the world is thought to never rest: many times what a
/// megabyte takes through the smallest window.
const ROUNDS_MAX: usize = 500_000;
/// Rounds in a row in which nothing happens, after which nothing will.
const QUIET_ROUNDS: usize = 2;
/// The longest time of a round, if rounds take any.
const ROUND_MAX: Duration = Duration::from_micros(200);
/// The longest jump of the clock.
const JUMP_MAX: Duration = Duration::from_secs(600);
/// How long after the faults everybody must have come to an end.
const CALM_MAX: Duration = Duration::from_secs(900);
/// How long a server may keep connections of peers that are gone: longer than its timeouts, and
/// than the time of a full outbox in an end.
const REST_MAX: Duration = Duration::from_secs(1200);
/// How long after the time to drain a shard may take to end: what its reactor may need to report
/// the last sockets closed.
const DRAIN_GRACE: Duration = Duration::from_secs(3);
/// What a shard holds at rest, beside its receive buffers: a staging buffer.
const REST_BYTES: usize = 64 << 10;

/// A shard of the world.
struct Unit {
    turn: Turn<SimReactor>,
    waker: Waker,
    handle: ShardHandle,
    arena: Arena,
    is_over: bool,
}

pub(super) struct World {
    net: Net,
    config: Config,
    units: Vec<Unit>,
    actors: Vec<Box<dyn Actor>>,
    ledger: SharedLedger,
    rng: Rng,
    /// Whether a round takes time.
    rounds_take_time: bool,
    buffers_bytes: usize,
    completions: u64,
}

/// What serves on each shard.
pub(super) struct Served<'a> {
    pub(super) websockets: &'a [(String, RouteMaker)],
    pub(super) iproto: Option<&'a RouteMaker>,
    pub(super) raw: Option<&'a RouteMaker>,
}

/// A pool that has no memory now and then, or once.
struct ScarcePool {
    arena: Arena,
    net: Net,
}

impl BytePool for ScarcePool {
    fn acquire(&self, len: usize, expected: usize) -> Option<Lease> {
        self.net.lends().then(|| self.arena.acquire(len, expected)).flatten()
    }

    fn grow(&self, lease: &mut Lease, used: usize, len: usize) -> bool {
        self.net.lends() && self.arena.grow(lease, used, len)
    }

    fn stats(&self) -> PoolStats {
        self.arena.stats()
    }

    fn node(&self) -> Option<u32> {
        None
    }
}

impl World {
    pub(super) fn new(
        net: Net,
        config: Config,
        shards: usize,
        ledger: SharedLedger,
        mut rng: Rng,
        served: &Served<'_>,
    ) -> Self {
        let mut parts = Vec::new();
        let mut handles = Vec::new();
        for shard in 0..shards {
            let arena =
                ArenaConfig { capacity_bytes: config.memory.pool_bytes, ..ArenaConfig::default() };
            let arena = Arena::new(arena).expect("the machine has address space for a pool");
            let reactor = SimConfig {
                buffers: config.memory.buffers,
                buffer_bytes: config.memory.buffer_bytes,
                sockets_max: config.limits.connections_max + 3,
                pool: arena.clone(),
            };
            let reactor = SimReactor::new(&net, reactor).expect("a pool has room for its buffers");
            let (sender, letters) = mailbox::channel(MAILBOX_LETTERS);
            handles.push(ShardHandle::new(shard as u16, sender, reactor.waker()));
            parts.push((arena, reactor, letters));
        }
        let handles: Arc<[ShardHandle]> = handles.into();
        let mut units = Vec::new();
        for (shard, (arena, reactor, letters)) in (0..).zip(parts) {
            let mut seed = [0; 32];
            rng.fill(&mut seed);
            let waker = reactor.waker();
            let mut turn = Turn::new(Parts {
                reactor,
                place: ShardPlace { shard, cpu: 0, node: None },
                settings: Settings::simulated(&config),
                pool: Rc::new(ScarcePool { arena: arena.clone(), net: net.clone() }),
                letters,
                handles: Arc::clone(&handles),
                seed,
            });
            served.install(&mut turn, &config, &ledger);
            served.listen(&mut turn, &net, shard);
            let handle = handles[usize::from(shard)].clone();
            units.push(Unit { turn, waker, handle, arena, is_over: false });
        }
        let buffers_bytes = config.memory.buffers * config.memory.buffer_bytes;
        let rounds_take_time = rng.percent(50);
        Self {
            net,
            config,
            units,
            actors: Vec::new(),
            ledger,
            rng,
            rounds_take_time,
            buffers_bytes,
            completions: 0,
        }
    }

    pub(super) fn add(&mut self, actor: Box<dyn Actor>) {
        self.actors.push(actor);
    }

    /// The time of faults: until `until`, or until everybody is done.
    pub(super) fn run_until(&mut self, until: Time) -> Result<(), String> {
        loop {
            self.settle()?;
            if self.net.now() >= until || self.is_done() || !self.pass(Some(until)) {
                return Ok(());
            }
        }
    }

    /// Nothing goes wrong any more: everybody must come to an end.
    pub(super) fn calm(&mut self) -> Result<(), String> {
        self.net.set_faults(Faults::none());
        self.net.note(trace::NET, "faults end", 0);
        let limit = self.net.now().after(CALM_MAX);
        loop {
            self.settle()?;
            if self.is_done() {
                return Ok(());
            }
            if self.net.now() >= limit || !self.pass(Some(limit)) {
                let waiting = self.actors.iter().filter(|actor| !actor.is_done());
                let who: Vec<_> = waiting.map(|actor| actor.describe()).collect();
                return Err(format!(
                    "nothing goes wrong any more, and {} wait for ever",
                    who.join(", ")
                ));
            }
        }
    }

    /// Tells every shard to end.
    pub(super) fn drain(&mut self) {
        let timeout_ms = self.config.shutdown.drain_ms;
        for unit in self.units.iter().filter(|unit| !unit.is_over) {
            self.net.note(trace::shard(usize::from(unit.handle.shard())), "drains", timeout_ms);
            // Who is told twice, or has a full mailbox, is told again.
            let _ = unit.handle.post(Letter::Drain { timeout_ms });
        }
    }

    /// Every shard must have ended in time.
    pub(super) fn end(&mut self) -> Result<(), String> {
        let drain = Duration::from_millis(self.config.shutdown.drain_ms);
        let limit = self.net.now().after(drain + DRAIN_GRACE);
        while self.units.iter().any(|unit| !unit.is_over) {
            self.settle()?;
            if self.net.now() >= limit {
                return Err("a shard has not ended although its time to drain is over".to_owned());
            }
            if !self.pass(Some(limit)) {
                break;
            }
        }
        Ok(())
    }

    /// What must be true when every peer is gone: so is all that was kept for them, soon.
    pub(super) fn check_rest(&mut self) -> Result<(), String> {
        let limit = self.net.now().after(REST_MAX);
        while self.units.iter().any(|unit| !unit.is_over && unit.turn.connections() > 0) {
            self.settle()?;
            if self.net.now() >= limit || !self.pass(Some(limit)) {
                break;
            }
        }
        self.settle()?;
        for (shard, unit) in self.units.iter().enumerate() {
            let connections = unit.turn.connections();
            let vanished = self.actors.iter().any(|actor| actor.has_vanished());
            if connections > 0 && !vanished && !unit.is_over {
                return Err(format!(
                    "every peer is gone, and shard {shard} has {connections} connections"
                ));
            }
            if connections == 0 {
                check_residue(shard, &unit.turn.residue())?;
                let most = self.buffers_bytes + REST_BYTES;
                let used = unit.arena.stats().in_use_bytes;
                if used > most {
                    return Err(format!(
                        "shard {shard} is at rest and holds {used} bytes of its pool, of {most}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes everything down, and checks that nothing is left.
    pub(super) fn finish(mut self) -> Result<Report, String> {
        let mut report =
            Report { virtual_time: self.net.now().since(Time::ZERO), ..Report::default() };
        report.completions = self.completions;
        report.leases = self.net.leases();
        self.actors.clear();
        for (shard, unit) in std::mem::take(&mut self.units).into_iter().enumerate() {
            let counters = unit.turn.driver.shard.stats().counters;
            report.turns += counters.turns;
            report.panics += counters.panics;
            if unit.is_over && unit.turn.connections() == 0 {
                check_residue(shard, &unit.turn.residue())?;
                let stats = unit.turn.driver.reactor.stats();
                if stats.sockets > 0 {
                    let sockets = stats.sockets;
                    return Err(format!("shard {shard} has ended and has {sockets} sockets"));
                }
            }
            drop(unit.turn);
            let used = unit.arena.stats().in_use_bytes;
            if used > 0 {
                return Err(format!(
                    "shard {shard} is gone, and {used} bytes of its pool are not free"
                ));
            }
        }
        let wires = self.net.connections();
        if wires > 0 {
            return Err(format!(
                "everybody is gone, and {wires} connections of the network are open"
            ));
        }
        let mut ledger = self.ledger.borrow_mut();
        ledger.check_end();
        (report.messages, report.sessions) = (ledger.messages(), ledger.sessions());
        report.turned = self.net.turned();
        report.fingerprint = self.net.trace().fingerprint();
        ledger.first_problem().map_or(Ok(report), |problem| Err(problem.to_owned()))
    }

    fn is_done(&self) -> bool {
        self.actors.iter().all(|actor| actor.is_done())
    }

    /// Lets everybody act until nobody has anything to do at this moment.
    fn settle(&mut self) -> Result<(), String> {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let moved = self.round()?;
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet == QUIET_ROUNDS {
                return Ok(());
            }
            if moved && self.rounds_take_time {
                self.net.advance(self.rng.duration(ROUND_MAX));
            }
        }
        Err(format!(
            "after {ROUNDS_MAX} rounds there still is something to do: somebody never rests"
        ))
    }

    /// A turn of each shard, and a step of each peer; answers whether anything happened.
    fn round(&mut self) -> Result<bool, String> {
        let mut moved = false;
        let first = self.rng.below(self.units.len());
        for at in 0..self.units.len() {
            moved |= self.turn((first + at) % self.units.len())?;
        }
        for actor in &mut self.actors {
            moved |= actor.step();
        }
        match self.ledger.borrow().first_problem() {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(moved),
        }
    }

    fn turn(&mut self, shard: usize) -> Result<bool, String> {
        let unit = &mut self.units[shard];
        if unit.is_over {
            return Ok(false);
        }
        let before = unit.turn.driver.reactor.completions();
        // A wait that was woken ends without time passing.
        unit.waker.wake();
        unit.turn.turn().map_err(|error| format!("shard {shard}: its reactor broke: {error}"))?;
        let completed = unit.turn.driver.reactor.completions() - before;
        self.completions += completed;
        if completed > 0 {
            self.net.note(trace::shard(shard), "completions", completed);
            self.check_bill(shard)?;
        }
        let unit = &mut self.units[shard];
        if unit.turn.is_over() {
            unit.is_over = true;
            self.net.note(trace::shard(shard), "is over", 0);
            return Ok(true);
        }
        Ok(completed > 0 || unit.turn.timeout() == Some(Duration::ZERO))
    }

    /// A shard may hold its receive buffers, a staging buffer or two, and what its connections may
    /// have: a message that is put together and one that is kept, and an outbox.
    fn check_bill(&self, shard: usize) -> Result<(), String> {
        let unit = &self.units[shard];
        let websocket = &self.config.websocket;
        let message = websocket.message_bytes_max.max(self.config.iproto.body_bytes_max);
        // A block is at most twice as large as what lies in it.
        let each = 2 * (2 * message + websocket.outbox_max_bytes) + REST_BYTES;
        let bill = self.buffers_bytes + 4 * REST_BYTES + unit.turn.connections() * each;
        let used = unit.arena.stats().in_use_bytes;
        if used > bill {
            return Err(format!(
                "shard {shard} holds {used} bytes of its pool, and its bill is {bill}"
            ));
        }
        Ok(())
    }

    /// Turns the clock to the next thing that is due. `false`: nothing is, before `limit`.
    fn pass(&mut self, limit: Option<Time>) -> bool {
        let now = self.net.now();
        let turns = self.units.iter().filter(|unit| !unit.is_over);
        let timers = turns.filter_map(|unit| unit.turn.timeout().map(|after| now.after(after)));
        let acts = self.actors.iter().filter_map(|actor| actor.next());
        let Some(next) = timers.chain(acts).chain(self.net.next_scheduled()).min() else {
            return false;
        };
        if self.net.strikes(Knob::ClockJump) {
            let jump = self.rng.duration(JUMP_MAX);
            self.net.advance(next.since(now).saturating_add(jump));
            self.actors.iter_mut().for_each(|actor| actor.jumped());
            return true;
        }
        let next = limit.map_or(next, |limit| next.min(limit));
        self.net.advance(next.since(now));
        true
    }
}

fn check_residue(shard: usize, residue: &[(&'static str, usize)]) -> Result<(), String> {
    match residue.iter().find(|(_, count)| *count > 0) {
        Some((what, count)) => Err(format!("shard {shard} has no connections, and {count} {what}")),
        None => Ok(()),
    }
}

impl Served<'_> {
    fn install(&self, turn: &mut Turn<SimReactor>, config: &Config, ledger: &SharedLedger) {
        let sessions_max = config.limits.connections_max;
        turn.install(|shard| {
            let mut routes = Vec::new();
            let mut paths = Paths::default();
            for (index, (path, make)) in (0..).zip(self.websockets) {
                routes.push(make(shard, sessions_max, ledger));
                paths.add_websocket(path, index).expect("the paths of a simulation differ");
            }
            for make in self.iproto.into_iter().chain(self.raw) {
                routes.push(make(shard, sessions_max, ledger));
            }
            (routes, paths)
        });
    }

    fn listen(&self, turn: &mut Turn<SimReactor>, net: &Net, shard: u16) {
        let mut route = self.websockets.len() as u16;
        let http = (!self.websockets.is_empty()).then_some((HTTP_PORT, None));
        let mut behind = |port| {
            route += 1;
            (port, Some(route - 1))
        };
        let iproto = self.iproto.map(|_| behind(IPROTO_PORT));
        let raw = self.raw.map(|_| behind(RAW_PORT));
        for (port, route) in http.into_iter().chain(iproto).chain(raw) {
            let listener = net.listen(port + shard * PORTS_APART).expect("the port is free");
            turn.listen(listener, route).expect("the listener is of this network");
        }
    }
}
