//! A server that is killed and comes back, again and again, while a pool is in use.
//!
//! The server is a child process, and is killed with SIGKILL: nothing of it shuts down in order.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use hioload::config::{ReactorChoice, ShardCount};
use hioload::iproto::{CallError, Mux, Pool};
use hioload::ws::block_on;
use hioload::{Server, Shard};
use rstest::rstest;

use crate::channel::connector;
use crate::child::{command, scenario};
use crate::support::PATIENCE;

const RESTARTS: usize = 100;
const CONNECTIONS: usize = 4;
const THREADS: u64 = 3;
/// Calls that each thread has on their way at a time.
const CALLS: u64 = 16;
/// Answers that each life of the server must give before it is killed.
const ANSWERS: u64 = 100;
/// How long a call may wait for its response.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How long anything else may hold a call up: the processor, above all.
const SLACK: Duration = Duration::from_secs(2);
/// In front of the name of a call that the server executes.
const DID: &str = "did ";
/// How long the pool may take to have all its connections again.
const RECOVERY: Duration = Duration::from_secs(1);
/// Not among the ports that the system gives to connections: one of those that knock while nobody
/// listens could otherwise be given this very port, and be connected to itself.
const PORTS: std::ops::Range<u16> = 18_000..28_000;

/// The server, in the child.
pub(crate) fn serve() {
    let Some(words) = scenario() else { return };
    let [reactor, address] = &words[..] else { panic!("{words:?}") };
    let reactor = choice(reactor);
    let server = Server::builder().iproto(address, telling).configure(|config| {
        config.server.reactor = reactor;
        config.server.shards = ShardCount::Exactly(1);
        config.memory.buffers = 16;
    });
    let _server = server.start().expect("the port is free again");
    println!("ready");
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

/// Says what it executes, before it does, and sends the body back.
fn telling(_: &mut Shard) -> Mux {
    Mux::new().default(|_, session, request| {
        let name = <[u8; 8]>::try_from(&request.body[..]).expect("a name");
        println!("{DID}{}", u64::from_le_bytes(name));
        session.reply(request.reply, request.body);
    })
}

fn choice(reactor: &str) -> ReactorChoice {
    if reactor == "uring" { ReactorChoice::Uring } else { ReactorChoice::Epoll }
}

/// How often the server, in all its lives, has executed which call.
type Executed = Mutex<HashMap<u64, u32>>;

/// A child that serves. It is killed when it is dropped.
struct Life(Child);

impl Life {
    /// What it says goes on to be read until it is killed.
    fn begin<'scope>(
        reactor: &str,
        address: SocketAddr,
        scope: &'scope Scope<'scope, '_>,
        executed: &'scope Executed,
    ) -> Self {
        let mut command = command(&format!("{reactor} {address}"));
        let mut life = Self(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut stdout = BufReader::new(life.0.stdout.take().unwrap());
        let note = move |line: &str| {
            // The harness writes before the first line. The last one may have been cut off: that
            // call was not answered.
            let name = line.split_once(DID).map(|(_, name)| name);
            if let Some(name) = name.and_then(|name| name.parse().ok()) {
                *executed.lock().unwrap().entry(name).or_default() += 1;
            }
        };
        assert!(is_ready(&mut stdout, note), "the server does not start");
        scope.spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| note(&line));
        });
        life
    }
}

/// Waits until the server says so. It may have executed calls by then.
fn is_ready(stdout: &mut BufReader<ChildStdout>, note: impl Fn(&str)) -> bool {
    let mut line = String::new();
    while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        if line.ends_with("ready\n") {
            return true;
        }
        note(line.trim_end());
        line.clear();
    }
    false
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Default)]
struct Ledger {
    ended: AtomicBool,
    made: AtomicU64,
    answered: AtomicU64,
    dropped: AtomicU64,
    timed_out: AtomicU64,
    offline: AtomicU64,
}

impl Ledger {
    /// Calls until the end, and notes how each call ends.
    fn load(&self, pool: &Pool, thread: u64) {
        let mut number = 0;
        while !self.ended.load(Ordering::Relaxed) {
            let calls: Vec<_> = (0..CALLS)
                .map(|_| {
                    number += 1;
                    let name = thread << 48 | number;
                    (name, Instant::now(), pool.call_within(TIMEOUT, 1, &name.to_le_bytes()))
                })
                .collect();
            self.made.fetch_add(CALLS, Ordering::Relaxed);
            for (name, began, call) in calls {
                let counter = match block_on(call) {
                    Ok(body) => {
                        assert_eq!(body, name.to_le_bytes()[..], "the answer of another call");
                        &self.answered
                    }
                    Err(CallError::Dropped) => &self.dropped,
                    Err(CallError::Timeout) => &self.timed_out,
                    Err(CallError::NoChannel) => &self.offline,
                    Err(other) => panic!("{other}"),
                };
                counter.fetch_add(1, Ordering::Relaxed);
                // For the connection as well as for the response.
                let took = began.elapsed();
                assert!(took < TIMEOUT + SLACK, "a call took {took:?}");
            }
        }
    }

    fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

fn until(what: &str, within: Duration, happened: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed()
}

/// An address that stays free while nobody listens there. Each test has a residue of its own, below
/// 4, so that they do not meet.
pub(crate) fn free_address(residue: usize) -> SocketAddr {
    let free = PORTS.filter(|port| usize::from(*port) % 4 == residue);
    free.skip(std::process::id() as usize % 1000)
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()?.local_addr().ok())
        .expect("a port is free")
}

#[rstest]
fn a_pool_survives_a_server_that_is_killed_again_and_again(
    #[values("uring", "epoll")] reactor: &str,
) {
    let address = free_address(usize::from(reactor == "uring"));
    let connector = connector(choice(reactor), |_| {});
    let pool = Pool::to(address.to_string()).on(connector.handle()).size(CONNECTIONS);
    let pool = pool.build().unwrap();
    let (ledger, executed) = (Ledger::default(), Executed::default());
    let mut slowest = Duration::ZERO;
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pool, ledger) = (pool.clone(), &ledger);
            scope.spawn(move || ledger.load(&pool, thread));
        }
        let _end = End(&ledger.ended);
        for _ in 0..RESTARTS {
            let life = Life::begin(reactor, address, scope, &executed);
            let full = || pool.stats().online == CONNECTIONS;
            slowest = slowest.max(until("it has all its connections", RECOVERY, full));
            let before = Ledger::of(&ledger.answered);
            until("calls are answered", PATIENCE, || {
                Ledger::of(&ledger.answered) >= before + ANSWERS
            });
            drop(life);
            until("it notices", PATIENCE, || pool.stats().online == 0);
        }
    });
    let [made, answered, dropped, timed_out, offline] =
        [&ledger.made, &ledger.answered, &ledger.dropped, &ledger.timed_out, &ledger.offline]
            .map(Ledger::of);
    let stats = pool.stats();
    println!(
        "{reactor}: {RESTARTS} restarts in {:?}: {made} calls, {answered} answered, {dropped} \
         dropped, {timed_out} timed out, {offline} found no connection; all connections were back \
         after at most {slowest:?}; {} dials, {} failed",
        began.elapsed(),
        stats.dials,
        stats.dials_failed
    );
    assert_eq!(made, answered + dropped + timed_out + offline, "each call ended once");
    assert!(dropped > 0, "nothing was on its way when the server was killed");
    let executed = executed.into_inner().unwrap();
    let twice: Vec<_> = executed.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "executed twice: {twice:?}");
    assert!(executed.len() as u64 >= answered, "answered, and not executed");
    assert_eq!((stats.channels.requests_in, stats.channels.unsolicited), (0, 0), "answered twice");
    block_on(pool.shutdown());
    connector.stop().unwrap();
}

/// Ends the load, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
