//! A whole server in a simulation: shards, network and clock out of one seed.
//!
//! [`Sim`] serves your handlers on several shards to simulated peers, over a network in which
//! everything goes wrong that may: receives and sends in parts, errors, resets, delays, descriptors
//! and memory that run out, a clock that jumps ([`Knob`] has the list). What goes wrong, and when,
//! follows from the seed alone, so a failure that was seen once can be repeated for ever. No real
//! time passes: hours of silence take a millisecond.
//!
//! Of every run this is checked, without a word of yours:
//!
//! * every message that a peer sent is handled once and in order, and all of them are if the
//!   closing handshake says so;
//! * `opened` is called for a session that is open, and `closed` once for each that was opened;
//! * at rest, and at the end, connections, timers, buffers and sockets are back to zero, and on
//!   the way the pool holds no more than the bill;
//! * once nothing goes wrong any more, every peer comes to its end within a quarter of an hour (so a
//!   script has to have one), new ones are served, and a drain ends in time;
//! * no handler panics, and the server keeps the rules of the protocols.
//!
//! Where memory may run out, [`Sim::refuse_lease`] tries one place after the other.
//!
//! # Examples
//! All that it takes, in thirty lines:
//! ```
//! use hioload::testkit::{Received, sim::{Act, Client, WebSocketWire, explore}};
//! use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
//!
//! struct Echo; // the handler that is to be tried: put yours here
//! impl Handler for Echo {
//!     type Session = ();
//!     fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
//!         Upgrade::accept(())
//!     }
//!     fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
//!         session.send(message);
//!     }
//! }
//!
//! struct Guest(u32); // a client of it, which counts aloud up to what it has heard again
//! impl Client for Guest {
//!     fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
//!         if self.0 == 3 {
//!             return Act::Close;
//!         }
//!         wire.send_text(&self.0.to_string());
//!         Act::Wait // for the answer: in vain is a failure, as is what `wire.fail` is called for
//!     }
//!     fn received(&mut self, _: &mut WebSocketWire<'_>, received: Received) {
//!         self.0 += u32::from(received == Received::Text(self.0.to_string()));
//!     }
//! }
//!
//! explore(0..50, |sim| sim.websocket("/", |_shard| Echo).clients("/", 5, |_number| Guest(0)))
//!     .unwrap_or_else(|failure| panic!("{failure}")); // it says how to repeat the seed
//! ```

mod ledger;
mod outcome;
mod peers;
mod watch;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use self::outcome::{Failure, Report, SEED_VARIABLE, Totals, explore};
pub use self::peers::{Act, Caller, Client, IprotoWire, RawWire, Stream, WebSocketWire};
pub use crate::reactor::sim::{Faults, Knob, Rng, Turned};

use self::ledger::SharedLedger;
use self::peers::{Actor, IprotoSpeaker, Line, RawSpeaker, Speaking, WebSocketSpeaker};
use self::watch::Watched;
use self::world::{HTTP_PORT, IPROTO_PORT, PORTS_APART, RAW_PORT, Served, World};
use crate::Time;
use crate::config::Config;
use crate::reactor::sim::Net;
use crate::shard::{Handler, IprotoHandler, RawHandler, Route, Shard};
use crate::shard::{iproto_route, raw_route, websocket_route};

/// How long faults go on, at the most.
const FAULTS_MAX: Duration = Duration::from_secs(120);
/// Peers come within this time.
const ARRIVALS_MAX: Duration = Duration::from_secs(5);
/// Shards, unless it is said how many.
const SHARDS_MAX: usize = 3;
/// New peers of each kind that come when nothing goes wrong any more.
const PROBES: usize = 1;
/// Peers of each kind that are there when the server ends.
const STAYING: usize = 3;

type RouteMaker = Box<dyn Fn(&mut Shard, usize, &SharedLedger) -> Box<dyn Route>>;
type PeerMaker = Box<dyn FnMut(Line, usize) -> Box<dyn Actor>>;

/// Peers of one kind.
struct Group {
    count: usize,
    port: u16,
    make: PeerMaker,
}

/// One run of a simulated server. See the [module](self).
pub struct Sim {
    seed: u64,
    rng: Rng,
    shards: usize,
    config: Config,
    faults: Faults,
    refused_lease: Option<u64>,
    websockets: Vec<(String, RouteMaker)>,
    iproto: Option<RouteMaker>,
    raw: Option<RouteMaker>,
    groups: Vec<Group>,
    panics_allowed: bool,
    keeps_connections: bool,
    drains_last: bool,
    traced: bool,
}

impl Sim {
    /// A run in which everything follows from this number: how many shards there are, when peers
    /// come, and what goes wrong.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let faults = Faults::swarm(&mut rng.fork());
        let shards = rng.between(1, SHARDS_MAX);
        Self {
            seed,
            rng,
            shards,
            config: small_config(),
            faults,
            refused_lease: None,
            websockets: Vec::new(),
            iproto: None,
            raw: None,
            groups: Vec::new(),
            panics_allowed: false,
            keeps_connections: false,
            drains_last: false,
            traced: false,
        }
    }

    /// Randomness for what a scenario wants to vary from seed to seed.
    pub const fn rng(&mut self) -> Rng {
        self.rng.fork()
    }

    /// So many shards, up to five, instead of one to three.
    #[must_use]
    pub const fn shards(mut self, shards: usize) -> Self {
        assert!(shards > 0 && shards <= 5, "a simulation has one to five shards");
        self.shards = shards;
        self
    }

    /// These faults instead of those that the seed drew.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// The faults of the seed, and this one `times` in 65,536 as well.
    #[must_use]
    pub fn also(mut self, knob: Knob, times: u16) -> Self {
        self.faults = self.faults.with(knob, times);
        self
    }

    /// Lets the pools have memory for every lease but this one, counted from one over all shards:
    /// what handlers and protocols do without, and growing a lease counts as one. Zero refuses
    /// none. It takes the place of [`Knob::NoMemory`].
    ///
    /// Up to the refusal the run is the same as with any other number, so a loop tries whatever may
    /// fail:
    ///
    /// ```
    /// # use hioload::testkit::Received;
    /// # use hioload::testkit::sim::{Act, Client, Sim, WebSocketWire};
    /// # use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type Session = ();
    /// #     fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
    /// #         Upgrade::accept(())
    /// #     }
    /// #     fn message(&mut self, _: &mut Shard, it: &mut Session<'_, ()>, message: Message) {
    /// #         it.send(message);
    /// #     }
    /// # }
    /// # struct Visitor(usize);
    /// # impl Client for Visitor {
    /// #     fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
    /// #         if self.0 == 0 {
    /// #             return Act::Close;
    /// #         }
    /// #         self.0 -= 1;
    /// #         wire.send_text("hello");
    /// #         Act::Again(std::time::Duration::from_millis(10))
    /// #     }
    /// #     fn received(&mut self, _: &mut WebSocketWire<'_>, _: Received) {}
    /// # }
    /// let run = |lease| {
    ///     let sim = Sim::seed(7).refuse_lease(lease);
    ///     sim.websocket("/", |_shard| Echo).clients("/", 3, |_number| Visitor(5)).run()
    /// };
    /// let leases = run(0)?.leases;
    /// assert!(leases > 0);
    /// for lease in 1..=leases {
    ///     run(lease).unwrap_or_else(|failure| panic!("without lease {lease}: {failure}"));
    /// }
    /// # Ok::<(), hioload::testkit::sim::Failure>(())
    /// ```
    #[must_use]
    pub const fn refuse_lease(mut self, number: u64) -> Self {
        self.refused_lease = Some(number);
        self
    }

    /// The server ends when every peer has come to its end, and not, as in a quarter of all seeds,
    /// in the middle of everything.
    #[must_use]
    pub const fn drains_last(mut self) -> Self {
        self.drains_last = true;
        self
    }

    /// The shards have connections of their own, which last until they drain.
    #[must_use]
    pub const fn keeps_connections(mut self) -> Self {
        self.keeps_connections = true;
        self
    }

    /// Changes the configuration. It has small buffers and pools, so that their limits are met; the
    /// section `[server]` does not matter.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Serves WebSocket at a path, as [`ServerBuilder::websocket`](crate::ServerBuilder::websocket)
    /// does.
    #[must_use]
    pub fn websocket<H: Handler>(
        mut self,
        path: &str,
        factory: impl Fn(&mut Shard) -> H + 'static,
    ) -> Self {
        let make: RouteMaker = Box::new(move |shard, sessions_max, ledger| {
            let handler = Watched::new(factory(shard), SharedLedger::clone(ledger));
            websocket_route(handler, sessions_max, None)
        });
        self.websockets.push((path.to_owned(), make));
        self
    }

    /// Serves iproto.
    #[must_use]
    pub fn iproto<H: IprotoHandler>(mut self, factory: impl Fn(&mut Shard) -> H + 'static) -> Self {
        self.iproto = Some(Box::new(move |shard, sessions_max, ledger| {
            let handler = Watched::new(factory(shard), SharedLedger::clone(ledger));
            iproto_route(handler, sessions_max)
        }));
        self
    }

    /// Serves raw streams.
    #[must_use]
    pub fn raw<H: RawHandler>(mut self, factory: impl Fn(&mut Shard) -> H + 'static) -> Self {
        self.raw = Some(Box::new(move |shard, sessions_max, ledger| {
            raw_route(Watched::new(factory(shard), SharedLedger::clone(ledger)), sessions_max)
        }));
        self
    }

    /// So many WebSocket clients that connect to this path. `make` is given the number of each; the
    /// numbers from `count` on are of those that come when nothing goes wrong any more.
    #[must_use]
    pub fn clients<C: Client>(
        mut self,
        path: &str,
        count: usize,
        mut make: impl FnMut(usize) -> C + 'static,
    ) -> Self {
        let path = path.to_owned();
        let make: PeerMaker = Box::new(move |mut line, number| {
            let client = Box::new(make(number));
            let speaker = WebSocketSpeaker::new(client, &path, &mut line.rng);
            Box::new(Speaking::new(line, speaker))
        });
        self.groups.push(Group { count, port: HTTP_PORT, make });
        self
    }

    /// As [`clients`](Self::clients), those of [`iproto`](Self::iproto).
    #[must_use]
    pub fn callers<C: Caller>(
        mut self,
        count: usize,
        mut make: impl FnMut(usize) -> C + 'static,
    ) -> Self {
        let make: PeerMaker = Box::new(move |line, number| {
            Box::new(Speaking::new(line, IprotoSpeaker::new(Box::new(make(number)))))
        });
        self.groups.push(Group { count, port: IPROTO_PORT, make });
        self
    }

    /// As [`clients`](Self::clients), those of [`raw`](Self::raw).
    #[must_use]
    pub fn streams<S: Stream>(
        mut self,
        count: usize,
        mut make: impl FnMut(usize) -> S + 'static,
    ) -> Self {
        let make: PeerMaker = Box::new(move |line, number| {
            Box::new(Speaking::new(line, RawSpeaker(Box::new(make(number)))))
        });
        self.groups.push(Group { count, port: RAW_PORT, make });
        self
    }

    /// Panics of handlers are no failure.
    #[must_use]
    pub const fn panics_allowed(mut self) -> Self {
        self.panics_allowed = true;
        self
    }

    /// Keeps the last things that happened as readable lines: a [`Failure`] has them.
    #[must_use]
    pub const fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    /// Runs it.
    ///
    /// # Errors
    /// Something of what is checked was not true, and which.
    pub fn run(mut self) -> Result<Report, Failure> {
        let mut faults = self.faults.clone();
        if self.refused_lease.is_some() {
            faults = faults.with(Knob::NoMemory, 0);
        }
        let net = Net::with_faults(self.rng.fork(), faults);
        if let Some(number) = self.refused_lease {
            net.refuse_lease(number);
        }
        if self.traced {
            net.trace().keep_lines();
        }
        let seed = self.seed;
        let ran = catch_unwind(AssertUnwindSafe(|| self.run_on(&net)));
        let problem = match ran {
            Ok(Ok(report)) => return Ok(report),
            Ok(Err(problem)) => problem,
            Err(panic) => format!("something panicked: {}", outcome::panic_text(&*panic)),
        };
        let trace = net.trace().take_lines();
        Err(Failure { seed, problem, trace })
    }

    fn run_on(mut self, net: &Net) -> Result<Report, String> {
        let checked = self.config.check();
        checked.map_err(|error| format!("the configuration is wrong: {error}"))?;
        let ledger = SharedLedger::default();
        let served = Served {
            websockets: &self.websockets,
            iproto: self.iproto.as_ref(),
            raw: self.raw.as_ref(),
        };
        let mut rng = self.rng.fork();
        let mut world = World::new(
            net.clone(),
            self.config.clone(),
            self.shards,
            SharedLedger::clone(&ledger),
            self.rng.fork(),
            &served,
        );
        for group in &mut self.groups {
            for number in 0..group.count {
                let after = rng.duration(ARRIVALS_MAX);
                let line = group.line(net, &ledger, self.shards, &mut rng, after);
                world.add((group.make)(line, number));
            }
        }
        let faults_end = Time::ZERO.after(rng.duration(FAULTS_MAX));
        // Every fourth drain comes in the middle of everything.
        let drains_early = rng.percent(25) && !self.drains_last;
        if drains_early {
            world.run_until(Time::ZERO.after(rng.duration(FAULTS_MAX)))?;
            world.drain();
        }
        world.run_until(faults_end)?;
        world.calm()?;
        if !drains_early {
            if !self.keeps_connections {
                world.check_rest()?;
            }
            for group in &mut self.groups {
                for number in group.count..group.count + PROBES {
                    let line = group.line(net, &ledger, self.shards, &mut rng, Duration::ZERO);
                    world.add((group.make)(line, number));
                }
            }
            world.calm()?;
            for group in &mut self.groups {
                for number in 0..STAYING {
                    let line = group.line(net, &ledger, self.shards, &mut rng, Duration::ZERO);
                    world.add((group.make)(line.staying(), group.count + PROBES + number));
                }
            }
            world.calm()?;
        }
        world.drain();
        world.end()?;
        let report = world.finish()?;
        if report.panics > 0 && !self.panics_allowed {
            return Err(format!("{} times a handler or a future panicked", report.panics));
        }
        Ok(report)
    }
}

impl Group {
    fn line(
        &self,
        net: &Net,
        ledger: &SharedLedger,
        shards: usize,
        rng: &mut Rng,
        after: Duration,
    ) -> Line {
        let port = self.port + rng.below(shards) as u16 * PORTS_APART;
        let start_at = net.now().after(after);
        Line::new(net, ledger, rng.fork(), port, start_at)
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.seed)
            .field("shards", &self.shards)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// The default configuration with little of everything, so that its limits are met.
fn small_config() -> Config {
    let mut config = Config::default();
    config.limits.connections_max = 64;
    config.limits.handshakes_max = 32;
    config.memory.pool_bytes = 8 << 20;
    config.memory.buffers = 16;
    config.memory.buffer_bytes = 4096;
    config.websocket.message_bytes_max = 64 << 10;
    config.websocket.outbox_high_bytes = 8 << 10;
    config.websocket.outbox_low_bytes = 2 << 10;
    config.websocket.outbox_max_bytes = 256 << 10;
    config.iproto.body_bytes_max = 64 << 10;
    config
}
