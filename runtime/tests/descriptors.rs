//! A process that has no descriptor left: accepting pauses without burning the CPU, whoever is
//! connected is served on, and who waits is served when somebody leaves.
//!
//! The server runs in a child whose limit is lowered; the clients are here, and have descriptors.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic wherever it is")]

mod child;
#[path = "child/remote.rs"]
mod remote;

use std::collections::VecDeque;
use std::io::stdin;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hioload::config::{ReactorChoice, ShardCount};
use hioload::{Running, Server, Shard};
use rstest::rstest;

use child::{Echo, Log, PATIENCE, address, ask, command, echo, expect_open, scenario};
use remote::Remote;

/// Descriptors that the server's process may have.
const DESCRIPTORS: u64 = 40;

/// Clients: more than the server has descriptors for, so that some wait in the backlog.
const CLIENTS: usize = 60;

/// How long the paused server is watched while nobody sends anything.
const WATCH: Duration = Duration::from_millis(300);

/// Waits that a paused shard may begin in that time: timers, not a loop over a failing accept.
const WAITS_MAX: u64 = 50;

#[rstest]
fn a_server_without_descriptors_pauses_and_goes_on(#[values("uring", "epoll")] reactor: &str) {
    let mut server = Remote::start(command(reactor));
    let address = server.greeting.parse().unwrap();
    let mut waiting: VecDeque<_> = (0..CLIENTS).map(|_| ask(address)).collect();
    let full = Look::until(&mut server, |look| look.pauses > 0);
    let served = full.connections;
    assert!(served > 0 && (served as u64) < DESCRIPTORS, "{full:?}");

    // Connections are taken in the order in which they came.
    let mut open: Vec<_> = waiting.drain(..served).collect();
    for client in &mut open {
        expect_open(client).unwrap();
        echo(client).unwrap();
    }
    let before = Look::at(&mut server);
    // A measurement, not a synchronisation: a loop over a failing accept would turn in this time.
    std::thread::sleep(WATCH);
    let after = Look::at(&mut server);
    let waits = after.waits - before.waits;
    println!("{reactor}: {served} served, {waits} waits in {WATCH:?} while paused; {after:?}");
    assert!(waits < WAITS_MAX, "{waits} waits in {WATCH:?}: {before:?} {after:?}");
    assert_eq!(after.connections, served);
    for client in &mut open {
        echo(client).unwrap();
    }

    // Half of them leave; as many of those who wait are served, the oldest first.
    let leaving = served / 2;
    open.truncate(served - leaving);
    let began = Instant::now();
    let mut late: Vec<_> = waiting.drain(..leaving).collect();
    for client in &mut late {
        expect_open(client).unwrap();
        echo(client).unwrap();
    }
    println!("{reactor}: {leaving} left, and as many were served after {:?}", began.elapsed());
    open.iter_mut().for_each(|client| echo(client).unwrap());

    // All leave: a new client is served as if nothing had been.
    drop((open, late, waiting));
    let mut new = ask(address);
    expect_open(&mut new).unwrap();
    echo(&mut new).unwrap();
    let end = Look::until(&mut server, |look| look.connections == 1);
    println!("{reactor}: {end:?}");
    assert_eq!(end.warnings, 1, "a line a minute: {end:?}");
    drop(new);
    server.stop();
}

/// What the child says about itself.
#[derive(Clone, Copy, Debug)]
struct Look {
    connections: usize,
    pauses: u64,
    waits: u64,
    warnings: usize,
}

impl Look {
    fn at(server: &mut Remote) -> Self {
        let [connections, pauses, waits, warnings] = server.look();
        let (connections, warnings) = (connections as usize, warnings as usize);
        Self { connections, pauses, waits, warnings }
    }

    fn until(server: &mut Remote, is: impl Fn(&Self) -> bool) -> Self {
        let began = Instant::now();
        loop {
            let look = Self::at(server);
            if is(&look) {
                return look;
            }
            assert!(began.elapsed() < PATIENCE, "{look:?}");
            std::thread::yield_now();
        }
    }
}

#[test]
#[ignore = "the other test runs it as a child"]
fn child() {
    let Some(words) = scenario() else { return };
    let reactor = match words[0].as_str() {
        "uring" => ReactorChoice::Uring,
        _ => ReactorChoice::Epoll,
    };
    limit_descriptors();
    let log = Log::install();
    let builder = Server::builder().listen("127.0.0.1:0").configure(|config| {
        config.server.reactor = reactor;
        config.server.shards = ShardCount::Exactly(1);
        config.memory.buffers = 16;
        config.websocket.close_timeout_ms = 100;
    });
    let server = builder.websocket("/", |_| Echo).start().unwrap();
    let notes = server.report().notes.join("\n");
    assert!(notes.contains(&format!("may have {DESCRIPTORS} descriptors")), "{notes}");
    println!("@ {}", address(&server));
    for line in stdin().lines() {
        match line.unwrap().as_str() {
            "look" => println!("@ {} {}", look(&server), log.lines().len()),
            _ => break,
        }
    }
    server.stop().unwrap();
}

fn look(server: &Running) -> String {
    let (sender, answer) = mpsc::channel();
    let ask = move |shard: &mut Shard| sender.send(shard.stats()).expect("the test listens");
    server.handles()[0].run(ask).unwrap();
    let stats = answer.recv_timeout(PATIENCE).unwrap();
    format!("{} {} {}", stats.connections, stats.counters.accept_pauses, stats.reactor.waits)
}

/// Lowers the limit of this process for good.
#[allow(unsafe_code)]
fn limit_descriptors() {
    let limit = libc::rlimit { rlim_cur: DESCRIPTORS, rlim_max: DESCRIPTORS };
    // SAFETY: `limit` is initialised and outlives the call, which only reads it.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
