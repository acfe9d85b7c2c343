//! A handler on a bench: the loop of a shard over a simulated network and a clock turned by hand.
//!
//! Comes in: a handler, what clients do, how much time passes. Goes out: what the clients get.
//! Nothing here opens a socket, starts a thread, reads a clock or sleeps, so that a test gives the
//! same answer every time.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hioload_pools::{Arena, ArenaConfig, BytePool, RegionError, mailbox};

use super::client::{Refused, TestClient};
use crate::Time;
use crate::config::Config;
use crate::place::ShardPlace;
use crate::reactor::sim::{Net, Peer, SimConfig, SimReactor};
use crate::reactor::{Reactor, Waker};
use crate::shard::{Handler, Letter, MAILBOX_LETTERS, Parts, Paths, Settings, Shard};
use crate::shard::{ShardHandle, ShardStats, Turn, websocket_route};

/// The port on which the handler is served, in its network.
const PORT: u16 = 80;
/// Sockets beside those of connections: the listener.
const SOCKETS_EXTRA: usize = 1;
/// Turns at one moment of the virtual clock, after which the shard is thought to never rest.
const TURNS_MAX: usize = 100_000;
/// Turns in a row in which nothing happens, after which nothing will: what a flush caused is seen
/// in the turn after it.
const QUIET_TURNS: usize = 2;
/// The seed of [`Shard::random`], the same in every test.
const SEED: [u8; 32] = [1; 32];

/// Serves one handler, on every path, to clients in the same thread.
///
/// What runs is the loop of a real shard with its limits, timers and memory; only the network and
/// the clock are simulated. The clock stands still until [`advance`](Self::advance): hours pass in
/// no time. Each call returns when the shard has done all that there is to do at that moment.
///
/// # Examples
/// ```
/// use hioload::testkit::{Bench, Received};
/// use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
///
/// struct Shout;
///
/// impl Handler for Shout {
///     type Session = ();
///     fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<()> {
///         if request.path() == "/ws" { Upgrade::accept(()) } else { Upgrade::refuse(404) }
///     }
///     fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
///         let answer = message.text().unwrap_or_default().to_uppercase();
///         session.send_text(&answer);
///     }
/// }
///
/// let bench = Bench::new(Shout);
/// let mut client = bench.connect("/ws")?;
/// client.send_text("hello");
/// assert_eq!(client.receive(), Some(Received::Text("HELLO".into())));
/// assert_eq!(client.receive(), None);
/// # Ok::<(), hioload::testkit::Refused>(())
/// ```
pub struct Bench {
    machine: Rc<RefCell<Machine>>,
    net: Net,
    handle: ShardHandle,
    drain_ms: u64,
}

impl Bench {
    /// A bench with the default configuration.
    ///
    /// # Panics
    /// The machine has no address space for the pools of [`Config::default`].
    #[must_use]
    pub fn new<H: Handler>(handler: H) -> Self {
        Self::with_config(&Config::default(), |_| handler)
    }

    /// A bench with other limits and timeouts, and a handler that is made on the shard. Of the
    /// section `[server]` nothing matters here.
    ///
    /// # Panics
    /// The configuration is wrong, or the machine has no address space for its pools.
    #[must_use]
    pub fn with_config<H: Handler>(config: &Config, factory: impl FnOnce(&mut Shard) -> H) -> Self {
        let pool = arena(config).expect("the machine has address space for a pool");
        Self::with_pool(config, Rc::new(pool), factory)
    }

    /// A bench whose shard takes its memory from `pool`, for instance one that
    /// [refuses on demand](super::FailingPool). The receive buffers of the simulated reactor are
    /// taken elsewhere.
    ///
    /// # Panics
    /// The configuration is wrong, or the machine has no address space for the receive buffers.
    #[must_use]
    pub fn with_pool<H: Handler>(
        config: &Config,
        pool: Rc<dyn BytePool>,
        factory: impl FnOnce(&mut Shard) -> H,
    ) -> Self {
        config.check().expect("the configuration of a bench is a valid one");
        let sessions_max = config.limits.connections_max;
        let net = Net::new();
        let reactor = reactor(&net, config);
        let waker = reactor.waker();
        let (sender, letters) = mailbox::channel(MAILBOX_LETTERS);
        let handle = ShardHandle::new(0, sender, waker.clone());
        let mut turn = Turn::new(Parts {
            reactor,
            place: ShardPlace { shard: 0, cpu: 0, node: None },
            settings: Settings::simulated(config),
            pool,
            letters,
            handles: Arc::new([handle.clone()]),
            seed: SEED,
        });
        turn.install(|shard| {
            (vec![websocket_route(factory(shard), sessions_max, None)], Paths::default())
        });
        let listener = net.listen(PORT).expect("the network is new, so the port is free");
        turn.listen(listener, None).expect("the listener is of this network");
        let machine = Machine { turn, net: net.clone(), waker };
        let drain_ms = config.shutdown.drain_ms;
        Self { machine: Rc::new(RefCell::new(machine)), net, handle, drain_ms }
    }

    /// Serves the handler at a route with parameters too, as
    /// [`ServerBuilder::websocket`](crate::ServerBuilder::websocket) does: without this a bench
    /// serves each path that is connected to, and none of them has parameters.
    ///
    /// # Panics
    /// The route is none, or is served already.
    #[must_use]
    pub fn route(self, route: &str) -> Self {
        let added = self.machine.borrow_mut().turn.driver.paths.add_websocket(route, 0);
        added.expect("a route that is not served yet");
        self
    }

    /// Connects to a path, with a query perhaps: a whole RFC 6455 opening handshake. If the
    /// handler answers [`later`](crate::Upgrade::later), virtual time passes until it does.
    ///
    /// # Errors
    /// The handshake was refused, and with which HTTP status.
    ///
    /// # Panics
    /// The path does not begin with `/`, or the server broke the protocol.
    pub fn connect(&self, path: &str) -> Result<TestClient, Refused> {
        self.connect_with(path, &[], &[])
    }

    /// As [`connect`](Self::connect), with further headers (`Cookie`, `Authorization`) and the
    /// subprotocols that the client offers.
    ///
    /// # Errors
    /// The handshake was refused, and with which HTTP status.
    ///
    /// # Panics
    /// The path or a header is none, or the server broke the protocol.
    pub fn connect_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        subprotocols: &[&str],
    ) -> Result<TestClient, Refused> {
        self.machine.borrow_mut().serve_at(path);
        TestClient::connect(Rc::clone(&self.machine), path, headers, subprotocols)
    }

    /// Lets virtual time pass, with all that is due in it, each at its time.
    pub fn advance(&self, duration: Duration) {
        self.machine.borrow_mut().advance(duration);
    }

    /// The virtual time: zero when the bench was made.
    #[must_use]
    pub fn now(&self) -> Time {
        self.net.now()
    }

    /// Runs a function on the shard, between two turns: spawns a future, sends to a session,
    /// answers a handshake.
    pub fn run<T>(&self, function: impl FnOnce(&mut Shard) -> T) -> T {
        let mut machine = self.machine.borrow_mut();
        let answer = function(&mut machine.turn.driver.shard);
        machine.settle();
        answer
    }

    /// Does what SIGTERM does: refuses new connections and closes every session with 1001. Who
    /// does not answer until `shutdown.drain_ms` have passed is left.
    pub fn shutdown(&self) {
        let drain = Letter::Drain { timeout_ms: self.drain_ms };
        self.handle.post(drain).expect("a bench at rest has an empty mailbox");
        self.machine.borrow_mut().settle();
    }

    /// What the shard has counted by now.
    #[must_use]
    pub fn shard_stats(&self) -> ShardStats {
        let mut machine = self.machine.borrow_mut();
        machine.settle();
        let driver = &machine.turn.driver;
        ShardStats { reactor: driver.reactor.stats(), ..driver.shard.stats() }
    }

    /// The handle by which other threads reach the shard. What they post is done in the next call
    /// of the bench or of one of its clients.
    #[must_use]
    pub fn handle(&self) -> ShardHandle {
        self.handle.clone()
    }

    /// The network, to let accepts fail or to make its windows small.
    #[must_use]
    pub const fn net(&self) -> &Net {
        &self.net
    }
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("net", &self.net).finish_non_exhaustive()
    }
}

/// The shard with its network; the bench and its clients share it.
pub(super) struct Machine {
    turn: Turn<SimReactor>,
    net: Net,
    waker: Waker,
}

impl Machine {
    /// Opens a connection. `None`: nobody listens any more.
    pub(super) fn open(&mut self) -> Option<Peer> {
        self.net.connect(PORT).ok()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.net.now().as_millis()
    }

    /// Turns until there is nothing left to do at this moment.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            let before = self.turn.driver.reactor.stats().completions;
            // A wait that was woken ends without time passing.
            self.waker.wake();
            self.turn.turn().expect("the simulated network does not break");
            let after = self.turn.driver.reactor.stats().completions;
            let busy = after != before || self.turn.timeout() == Some(Duration::ZERO);
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet == QUIET_TURNS {
                return;
            }
        }
        panic!(
            "after {TURNS_MAX} turns there still is something to do: a future or two sessions \
                that keep each other busy for ever"
        );
    }

    /// Lets time pass until the next thing that is due. `false`: nothing is.
    pub(super) fn advance_to_next(&mut self) -> bool {
        let Some(next) = self.next_due() else { return false };
        self.net.advance(next);
        self.settle();
        true
    }

    fn advance(&mut self, duration: Duration) {
        let end = self.net.now().after(duration);
        self.settle();
        while self.net.now() < end {
            let left = end.since(self.net.now());
            self.net.advance(self.next_due().map_or(left, |next| next.min(left)));
            self.settle();
        }
    }

    /// How long it is until something is due.
    fn next_due(&self) -> Option<Duration> {
        let scheduled = self.net.next_scheduled().map(|at| at.since(self.net.now()));
        scheduled.into_iter().chain(self.turn.timeout()).min()
    }

    /// Serves the handler at the path of this target too.
    fn serve_at(&mut self, target: &str) {
        let path = target.split('?').next().unwrap_or(target);
        let paths = &mut self.turn.driver.paths;
        if paths.websocket(path).is_none() {
            let exact = path.replace('{', "{{").replace('}', "}}");
            // What is no path is refused by the server, as the test may want to see.
            let _ = paths.add_websocket(&exact, 0);
        }
    }
}

pub(super) fn arena(config: &Config) -> Result<Arena, RegionError> {
    let capacity_bytes = config.memory.pool_bytes;
    Arena::new(ArenaConfig { capacity_bytes, ..ArenaConfig::default() })
}

pub(super) fn reactor(net: &Net, config: &Config) -> SimReactor {
    let memory = &config.memory;
    let pool = arena(config).expect("the machine has address space for a pool");
    let config = SimConfig {
        buffers: memory.buffers,
        buffer_bytes: memory.buffer_bytes,
        sockets_max: config.limits.connections_max + SOCKETS_EXTRA,
        pool,
    };
    SimReactor::new(net, config).expect("a valid configuration has room for its receive buffers")
}
