//! From a plan to running shards, and from running shards to their end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use hioload_pools::{ArenaConfig, BytePool, NumaPoolManager, mailbox};

use super::backend::{self, Backend};
use super::builder::RouteFactory;
use super::error::StartError;
use super::report::{Report, ShardReport};
use crate::config::{Compression, Config, ConfigError, ListenAddress};
use crate::place::{self, MemoryBill, Placement, ShardPlace, Topology};
use crate::reactor::{Listener, Reactor, Waker};
use crate::shard::{Iproto, SESSION_BYTES, ShardHandle};
use crate::shard::{Letter, MAILBOX_LETTERS, Parts, Paths, PlainHandler, Settings, Turn};
use crate::sys::listen::{self, Bound};
use crate::sys::signals::{Signals, Stopper};
use crate::sys::{affinity, entropy, limits};

/// Connections that the kernel holds for a listener before it is asked for them.
const BACKLOG: u32 = 4096;

/// Everything that was decided before the first thread starts.
pub(super) struct Plan {
    config: Config,
    placement: Placement,
    websockets: Vec<(String, RouteFactory)>,
    /// Of each WebSocket route.
    compressions: Vec<Compression>,
    plain: Vec<(String, PlainHandler)>,
    raw: RawListeners,
}

/// The listeners that speak no HTTP: raw streams and iproto.
pub(super) struct RawListeners {
    pub(super) all: Vec<(ListenAddress, RouteFactory)>,
    /// Whether one of them speaks iproto.
    pub(super) has_iproto: bool,
}

impl Plan {
    pub(super) fn new(
        config: Config,
        websockets: Vec<(String, RouteFactory)>,
        compressions: Vec<Compression>,
        plain: Vec<(String, PlainHandler)>,
        raw: RawListeners,
    ) -> Result<Self, StartError> {
        config.check()?;
        check_routes(&websockets, &plain)?;
        let placement = Placement::plan(&config, &Topology::detect())?;
        Ok(Self { config, placement, websockets, compressions, plain, raw })
    }

    /// Where WebSocket and HTTP are served: nowhere, if there is nothing to serve. Raw streams and
    /// iproto have addresses of their own.
    fn http(&self) -> &[ListenAddress] {
        let none = self.websockets.is_empty() && self.plain.is_empty();
        if none && !self.raw.all.is_empty() { &[] } else { &self.config.server.listen }
    }

    fn notes(&self) -> Vec<String> {
        let shards = self.placement.shards().len();
        let placed = self.placement.notes().iter().cloned();
        placed.chain(limits::descriptors(&self.config, shards)).collect()
    }

    pub(super) fn report(&self) -> Report {
        let shards = self.placement.shards();
        let bill = MemoryBill::of(&self.config, &self.compressions, shards.len(), SESSION_BYTES);
        let iproto = self.raw.has_iproto.then_some(Iproto::BYTES);
        Report {
            config: self.config.clone(),
            shards: shards.iter().map(ShardReport::planned).collect(),
            addresses: self.http().to_vec(),
            bill: bill.with_iproto(&self.config, iproto),
            raw_addresses: self.raw.all.iter().map(|(address, _)| address.clone()).collect(),
            notes: self.notes(),
        }
    }
}

/// Finds routes that cannot be told apart before anything is started.
fn check_routes(
    websockets: &[(String, RouteFactory)],
    plain: &[(String, PlainHandler)],
) -> Result<(), ConfigError> {
    let mut paths = Paths::default();
    for (path, _) in websockets {
        paths.add_websocket(path, 0).map_err(ConfigError::Route)?;
    }
    for (path, handler) in plain {
        paths.add_plain(path, Arc::clone(handler)).map_err(ConfigError::Route)?;
    }
    Ok(())
}

/// How long a shard whose mailbox is full has until it is told again that it is to drain.
const FULL_MAILBOX_RETRY: Duration = Duration::from_millis(10);

/// A server that runs. Dropping it leaves the shards running; [`stop`](Self::stop) ends them.
#[derive(Debug)]
pub struct Running {
    report: Report,
    handles: Arc<[ShardHandle]>,
    threads: Vec<JoinHandle<Result<(), String>>>,
    drain: Duration,
    /// Removes the files of Unix sockets at the end.
    bound: Vec<Bound>,
    /// Who has ended, also by itself.
    ends: Arc<Ends>,
}

impl Running {
    /// The addresses on which WebSocket and HTTP are served; a port 0 of the configuration is the
    /// one that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.report.addresses
    }

    /// The addresses on which raw streams and iproto are served, in the order in which the builder
    /// was told of them.
    #[must_use]
    pub fn raw_addresses(&self) -> &[ListenAddress] {
        &self.report.raw_addresses
    }

    /// What was started, and why so.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The way to each shard, by its index.
    #[must_use]
    pub fn handles(&self) -> &[ShardHandle] {
        &self.handles
    }

    /// Stops accepting, closes every session with 1001, and returns when all are gone or
    /// `shutdown.drain_ms` is over.
    ///
    /// # Errors
    /// A shard had ended by itself, and why.
    pub fn stop(self) -> Result<(), StartError> {
        let mut untold = self.handles.to_vec();
        while !self.ask_to_drain(&mut untold) {
            std::thread::sleep(FULL_MAILBOX_RETRY);
        }
        self.join()
    }

    /// Serves until SIGINT or SIGTERM, then drains; a second signal ends the process at once.
    pub(super) fn serve_until_signal(self, signals: &Signals) -> Result<(), StartError> {
        let system = |source| StartError::System { what: "cannot wait for signals", source };
        self.ends.tell(signals.stopper());
        let ended = self.ends.count() > 0;
        let first = if ended { None } else { signals.wait(None).map_err(system)? };
        if let Some(signal) = first {
            let seconds = self.drain.as_secs_f64();
            eprintln!("{signal}: closing every connection (at most {seconds} s; again: at once)");
        }
        let mut untold = self.handles.to_vec();
        while self.ends.count() < self.threads.len() {
            // A handler that hangs lets its mailbox fill up, and must not keep us from a signal.
            let retry = (!self.ask_to_drain(&mut untold)).then_some(FULL_MAILBOX_RETRY);
            if let Some(signal) = signals.wait(retry).map_err(system)?
                && first.is_some()
            {
                eprintln!("{signal}: ended at once");
                drop(self.bound);
                std::process::exit(128 + signal.number());
            }
        }
        self.join()
    }

    /// Tells shards that they are to drain, and answers whether all know. Those whose mailbox is
    /// full remain in `untold`.
    fn ask_to_drain(&self, untold: &mut Vec<ShardHandle>) -> bool {
        let timeout_ms = u64::try_from(self.drain.as_millis()).unwrap_or(u64::MAX);
        untold.retain(|handle| {
            // A shard that ended takes nothing and needs nothing.
            let ended = self.threads[usize::from(handle.shard())].is_finished();
            !ended && handle.post(Letter::Drain { timeout_ms }).is_err()
        });
        untold.is_empty()
    }

    fn join(self) -> Result<(), StartError> {
        let mut result = Ok(());
        for (shard, thread) in (0..).zip(self.threads) {
            let reason = match thread.join() {
                Ok(Ok(())) => continue,
                Ok(Err(reason)) => reason,
                Err(_) => "its thread panicked, which is a bug of hioload".to_owned(),
            };
            result = Err(StartError::Ended { shard, reason });
        }
        result
    }
}

/// What a shard's thread says once its reactor stands.
struct Ready {
    shard: u16,
    waker: Waker,
    report: ShardReport,
}

/// What a shard's thread is given.
struct Order {
    place: ShardPlace,
    config: Config,
    listeners: Vec<(Listener, Option<usize>)>,
    websockets: Vec<(String, RouteFactory)>,
    plain: Vec<(String, PlainHandler)>,
    raw: Vec<RouteFactory>,
    letters: mailbox::Receiver<Letter>,
    seed: [u8; 32],
}

/// Starts every shard, and returns when all of them accept.
pub(super) fn start(plan: Plan) -> Result<Running, StartError> {
    let mut report = plan.report();
    let shards = plan.placement.shards().to_vec();
    let (mut listeners, bound) = bind(&plan, shards.len())?;
    let addresses = |bound: &[Bound]| bound.iter().map(|it| it.address().clone()).collect();
    let (http, raw) = bound.split_at(plan.http().len());
    (report.addresses, report.raw_addresses) = (addresses(http), addresses(raw));

    let ends = Arc::new(Ends::default());
    let (ready, readies) = mpsc::channel();
    let (started, starteds) = mpsc::channel();
    let mut mailboxes = Vec::new();
    let mut starters = Vec::new();
    let mut threads = Vec::new();
    for place in &shards {
        let (sender, letters) = mailbox::channel(MAILBOX_LETTERS);
        let (starter, go) = mpsc::channel();
        mailboxes.push(sender);
        starters.push(starter);
        let order = Order {
            place: place.clone(),
            config: plan.config.clone(),
            listeners: listeners.remove(0),
            websockets: plan.websockets.clone(),
            plain: plan.plain.clone(),
            raw: plan.raw.all.iter().map(|(_, factory)| Arc::clone(factory)).collect(),
            letters,
            seed: entropy().map_err(|source| StartError::System {
                what: "the system has no randomness",
                source,
            })?,
        };
        let (ready, started, ends) = (ready.clone(), started.clone(), Arc::clone(&ends));
        let thread = std::thread::Builder::new()
            .name(format!("hioload-{}", place.shard))
            .spawn(move || {
                let _end = End(ends);
                shard_thread(order, ready, &go, started)
            })
            .map_err(|source| StartError::System { what: "cannot start a thread", source })?;
        threads.push(thread);
    }
    drop((ready, started));

    let readies = match collect(&readies, threads.len()) {
        Ok(readies) => readies,
        Err(failed) => {
            // Whoever waits for the others ends when nobody can start it any more.
            drop(starters);
            return Err(end_all(threads, failed));
        }
    };
    let handles = connect(mailboxes, readies, &mut report);
    for starter in starters {
        // A thread that is gone says why when it is joined.
        let _ = starter.send(Arc::clone(&handles));
    }
    if let Err(failed) = collect(&starteds, threads.len()) {
        for handle in &*handles {
            // Its mailbox is full only if it has ended.
            let _ = handle.post(Letter::Drain { timeout_ms: 0 });
        }
        return Err(end_all(threads, failed));
    }
    let drain = Duration::from_millis(plan.config.shutdown.drain_ms);
    Ok(Running { report, handles, threads, drain, bound, ends })
}

/// Starts one shard that listens to nobody, for connections to other servers.
pub(crate) fn start_lone(
    mut config: Config,
) -> Result<(ShardHandle, JoinHandle<Result<(), String>>), StartError> {
    config.check()?;
    // One of several such shards on whatever CPU is free.
    config.server.pin = false;
    let (sender, letters) = mailbox::channel(MAILBOX_LETTERS);
    let system = |what| move |source| StartError::System { what, source };
    let order = Order {
        place: ShardPlace { shard: 0, cpu: 0, node: None },
        config,
        listeners: Vec::new(),
        websockets: Vec::new(),
        plain: Vec::new(),
        raw: Vec::new(),
        letters,
        seed: entropy().map_err(system("the system has no randomness"))?,
    };
    let (ready, readies) = mpsc::channel();
    let (started, starteds) = mpsc::channel();
    let (starter, go) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("hioload-client".to_owned())
        .spawn(move || shard_thread(order, ready, &go, started))
        .map_err(system("cannot start a thread"))?;
    let word = match collect(&readies, 1).map(|mut words| words.pop()) {
        Ok(Some(word)) => word,
        Ok(None) => return Err(end_all(vec![thread], None)),
        Err(failed) => return Err(end_all(vec![thread], failed)),
    };
    let handle = ShardHandle::new(0, sender, word.waker);
    // A thread that is gone says why when it is joined.
    let _ = starter.send(Arc::new([handle.clone()]));
    match collect(&starteds, 1) {
        Ok(_) => Ok((handle, thread)),
        Err(failed) => Err(end_all(vec![thread], failed)),
    }
}

type Listeners = Vec<(Listener, Option<usize>)>;

/// Opens every address once per shard: the HTTP listeners first, then the raw ones with the
/// number of their factory.
fn bind(plan: &Plan, shards: usize) -> Result<(Vec<Listeners>, Vec<Bound>), StartError> {
    let http = plan.http().iter().map(|address| (address, None));
    let raw = plan.raw.all.iter().enumerate().map(|(index, (address, _))| (address, Some(index)));
    let mut per_shard: Vec<Listeners> = (0..shards).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    for (address, raw_index) in http.chain(raw) {
        let (listeners, one) = listen::bind(address, BACKLOG, shards)?;
        for (shard, listener) in per_shard.iter_mut().zip(listeners) {
            shard.push((listener, raw_index));
        }
        bound.push(one);
    }
    Ok((per_shard, bound))
}

/// Collects one word of each shard. `Err(None)`: a thread ended without a word.
fn collect<T>(
    words: &mpsc::Receiver<Result<T, StartError>>,
    shards: usize,
) -> Result<Vec<T>, Option<StartError>> {
    (0..shards).map(|_| words.recv().map_err(|_| None)?.map_err(Some)).collect()
}

/// Waits for all threads of a server that could not start, and answers with the cause: what one
/// said, or the panic of one that said nothing.
fn end_all(threads: Vec<JoinHandle<Result<(), String>>>, said: Option<StartError>) -> StartError {
    let mut cause = said;
    for (shard, thread) in (0..).zip(threads) {
        if let Err(panic) = thread.join() {
            let reason = panic_text(&*panic);
            cause.get_or_insert(StartError::Shard { shard, reason });
        }
    }
    let silent = "its thread ended, which is a bug of hioload";
    cause.unwrap_or_else(|| StartError::Shard { shard: 0, reason: silent.to_owned() })
}

/// Joins the mailboxes with the wakers, and notes what each shard said of itself.
fn connect(
    mailboxes: Vec<mailbox::Sender<Letter>>,
    mut readies: Vec<Ready>,
    report: &mut Report,
) -> Arc<[ShardHandle]> {
    readies.sort_by_key(|ready| ready.shard);
    let mut handles = Vec::new();
    report.shards.clear();
    for (letters, ready) in mailboxes.into_iter().zip(readies) {
        handles.push(ShardHandle::new(ready.shard, letters, ready.waker));
        report.shards.push(ready.report);
    }
    report.warn_of_fallback();
    handles.into()
}

/// Counts the shards that have ended, and wakes the control thread for each.
#[derive(Debug, Default)]
struct Ends {
    count: AtomicUsize,
    stopper: Mutex<Option<Stopper>>,
}

impl Ends {
    /// From now on this is told of each end; of those that were already, only by the count.
    fn tell(&self, stopper: Stopper) {
        if let Ok(mut told) = self.stopper.lock() {
            *told = Some(stopper);
        }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

/// The end of a shard's thread, however it comes.
struct End(Arc<Ends>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::Release);
        if let Ok(stopper) = self.0.stopper.lock()
            && let Some(stopper) = &*stopper
        {
            stopper.stop();
        }
    }
}

/// The life of a shard's thread.
fn shard_thread(
    order: Order,
    ready: mpsc::Sender<Result<Ready, StartError>>,
    go: &mpsc::Receiver<Arc<[ShardHandle]>>,
    started: mpsc::Sender<Result<(), StartError>>,
) -> Result<(), String> {
    let shard = order.place.shard;
    let failed = |reason: String| StartError::Shard { shard, reason };
    let pinned = order.config.server.pin && place::pin(order.place.cpu);
    if !order.config.server.pin {
        // A shard that is pinned may have started this one.
        affinity::unpin();
    }
    let config = ArenaConfig {
        capacity_bytes: order.config.memory.pool_bytes,
        huge_pages: order.config.memory.huge_pages.into(),
        node: order.place.node,
    };
    let pool = match NumaPoolManager::new(config).pool(order.place.node) {
        Ok(pool) => pool,
        Err(error) => {
            let _ = ready.send(Err(failed(error.to_string())));
            return Ok(());
        }
    };
    let choice = match backend::choose(&order.config, &pool) {
        Ok(choice) => choice,
        Err(reason) => {
            let _ = ready.send(Err(failed(reason)));
            return Ok(());
        }
    };
    let report = ShardReport {
        place: order.place.clone(),
        pinned,
        reactor: Some(choice.name),
        fallback: choice.fallback,
        memory: pool.report().to_string(),
    };
    let pool: Rc<dyn BytePool> = Rc::new(pool);
    match choice.backend {
        Backend::Uring(reactor) => serve(*reactor, order, pool, report, ready, go, started),
        Backend::Epoll(reactor) => serve(*reactor, order, pool, report, ready, go, started),
    }
}

/// Serves with a reactor until the shard has drained.
fn serve<R: Reactor>(
    reactor: R,
    order: Order,
    pool: Rc<dyn BytePool>,
    report: ShardReport,
    ready: mpsc::Sender<Result<Ready, StartError>>,
    go: &mpsc::Receiver<Arc<[ShardHandle]>>,
    started: mpsc::Sender<Result<(), StartError>>,
) -> Result<(), String> {
    let shard = order.place.shard;
    let word = Ready { shard, waker: reactor.waker(), report };
    // Nobody listens, or nothing is sent back, only if another shard could not start.
    let _ = ready.send(Ok(word));
    drop(ready);
    let Ok(handles) = go.recv() else { return Ok(()) };
    let mut turn = Turn::new(Parts {
        reactor,
        place: order.place,
        settings: Settings::from(&order.config),
        pool,
        letters: order.letters,
        handles,
        seed: order.seed,
    });
    let sessions_max = order.config.limits.connections_max;
    // Raw routes come behind those of the WebSocket paths.
    let raw_base = order.websockets.len();
    let prepared = catch_unwind(AssertUnwindSafe(|| {
        turn.install(|shard| {
            let mut routes = Vec::new();
            let mut paths = Paths::default();
            for (path, handler) in order.plain {
                paths.add_plain(&path, handler).expect("the plan has checked the routes");
            }
            for (index, (path, factory)) in (0..).zip(order.websockets) {
                routes.push(factory(shard, sessions_max));
                paths.add_websocket(&path, index).expect("the plan has checked the routes");
            }
            routes.extend(order.raw.iter().map(|factory| factory(shard, sessions_max)));
            (routes, paths)
        });
    }));
    let listened = prepared
        .map_err(|panic| format!("a handler factory panicked: {}", panic_text(&*panic)))
        .and_then(|()| {
            for (listener, raw) in order.listeners {
                let route = raw.map(|index| (raw_base + index) as u16);
                let listening = turn.listen(listener, route);
                listening.map_err(|error| format!("cannot listen: {error}"))?;
            }
            Ok(())
        });
    let failed = listened.is_err();
    let _ = started.send(listened.map_err(|reason| StartError::Shard { shard, reason }));
    drop(started);
    if failed {
        return Ok(());
    }
    turn.run().map_err(|error| format!("its reactor failed: {error}"))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}
