//! Honest clients beside each attack of RELIABILITY.md, over real sockets and on every reactor: what
//! is left of their throughput, what the attack costs in memory, and how much it makes the server
//! say.
//!
//! The server runs in a child, so that its memory is its own. Honest clients and attackers are
//! here. Phases without and with the attack take turns, and each is compared with its neighbour, so
//! that what else runs on the machine counts in both.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic wherever it is")]

#[path = "../child/mod.rs"]
mod child;
#[path = "../child/remote.rs"]
mod remote;
mod rows;

use std::fs;
use std::io::stdin;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use hioload::config::{CompressionMode, Config, ListenAddress, ReactorChoice, ShardCount};
use hioload::iproto::Mux;
use hioload::{Handler, Message, Request, Running, Server, Session, Shard, Upgrade};
use rstest::rstest;

use child::{Echo, Log, PATIENCE, address, ask, command, echo, expect_open, scenario};
use remote::Remote;
use rows::{Attack, Target};

/// Honest sessions.
const HONEST: usize = 4;
/// How long the echoes of a phase are counted.
const PHASE: Duration = Duration::from_millis(120);
/// Pairs of phases, at least and at most: more are measured while the median is not good enough.
const PAIRS: std::ops::RangeInclusive<usize> = 3..=21;
/// What honest clients must keep of their throughput.
const KEPT_MIN: f64 = 0.5;
/// Between two blows of an attack.
const PACE: Duration = Duration::from_millis(4);
/// Lines that the server may log in all phases of an attack, with the level WARN or above.
const LINES_MAX: u64 = 5;

/// Attacks one after the other: they are compared with a quiet machine.
static ALONE: Mutex<()> = Mutex::new(());

#[rstest]
#[case::slow_handshakes(rows::slow_handshakes)]
#[case::silent_connections(rows::silent_connections)]
#[case::header_bombs(rows::header_bombs)]
#[case::junk_keys(rows::junk_keys)]
#[case::smuggled_requests(rows::smuggled_requests)]
#[case::foreign_pages(rows::foreign_pages)]
#[case::resets(rows::resets)]
#[case::more_connections_than_places(rows::more_connections_than_places)]
#[case::broken_rules(rows::broken_rules)]
#[case::huge_lengths(rows::huge_lengths)]
#[case::announced_and_never_sent(rows::announced_and_never_sent)]
#[case::empty_fragments(rows::empty_fragments)]
#[case::tiny_fragments(rows::tiny_fragments)]
#[case::pings_without_reading(rows::pings_without_reading)]
#[case::bombs(rows::bombs)]
#[case::deaf_peers(rows::deaf_peers)]
#[case::half_open_peers(rows::half_open_peers)]
#[case::endless_messages(rows::endless_messages)]
#[case::dripping_closes(rows::dripping_closes)]
#[case::panics(rows::panics)]
#[case::iproto_claims(rows::iproto_claims)]
#[case::iproto_garbage(rows::iproto_garbage)]
#[case::iproto_without_reading(rows::iproto_without_reading)]
fn honest_clients_keep_half_of_their_throughput(
    #[values("uring", "epoll")] reactor: &str,
    #[case] attack: Attack,
) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut server = Remote::start(command(reactor));
    let words: Vec<_> = server.greeting.split(' ').map(str::to_owned).collect();
    let target = Target { http: words[0].parse().unwrap(), iproto: words[1].parse().unwrap() };
    let bill: u64 = words[2].parse().unwrap();
    let mut honest: Vec<_> = (0..HONEST).map(|_| ask(target.http)).collect();
    honest.iter_mut().for_each(|client| expect_open(client).unwrap());
    echoes(&mut honest);
    let at_rest = anonymous_bytes(&server);

    let (mut kept, mut grown) = (Vec::new(), 0);
    while kept.len() < *PAIRS.start() || median(&mut kept) < KEPT_MIN && kept.len() < *PAIRS.end() {
        wait_for_peace(&mut server, &mut honest);
        let quiet = echoes(&mut honest);
        let attacked = under(attack, target, || {
            let attacked = echoes(&mut honest);
            grown = grown.max(anonymous_bytes(&server).saturating_sub(at_rest));
            attacked
        });
        kept.push(attacked as f64 / quiet as f64);
    }
    let kept_median = median(&mut kept);
    let [_, lines] = server.look();
    println!(
        "{reactor}: kept {kept_median:.2}, {grown} bytes of {bill}, {lines} lines; {kept:.2?}"
    );
    assert!(kept_median >= KEPT_MIN, "honest clients kept {kept:.2?} of their throughput");
    assert!(grown as f64 <= 1.05 * bill as f64, "{grown} bytes, of a bill of {bill}");
    assert!(lines <= LINES_MAX, "{lines} lines were logged");
    server.stop();
}

/// The echoes that honest clients get in a phase, each of them in its turn.
fn echoes(honest: &mut [TcpStream]) -> u64 {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < PHASE {
        for client in &mut *honest {
            echo(client).expect("honest clients are served on");
            count += 1;
        }
    }
    count
}

/// Does something while an attack goes on that has begun, and ends the attack.
fn under<T>(attack: Attack, target: Target, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let (sender, begun) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut kept = Vec::new();
            while !over.load(Ordering::Relaxed) {
                attack(&target, &mut kept);
                let _ = sender.send(());
                std::thread::sleep(PACE);
            }
        });
        let _ends = Ends(&over);
        begun.recv_timeout(PATIENCE).expect("the attack begins");
        work()
    })
}

/// Ends an attack, also after a failed assertion.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Until the server has forgotten the attackers. Honest clients are not silent meanwhile: they would
/// be pinged.
fn wait_for_peace(server: &mut Remote, honest: &mut [TcpStream]) {
    let began = Instant::now();
    loop {
        let [connections, _] = server.look();
        if connections <= HONEST as u64 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{connections} connections are left");
        honest.iter_mut().for_each(|client| echo(client).unwrap());
    }
}

/// Of two in the middle the lower one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Memory of the server that is no file's.
fn anonymous_bytes(server: &Remote) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Panics at each message, which only costs its sender.
struct Broken;

impl Handler for Broken {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {
        panic!("asked for");
    }
}

/// Little memory and short times, so that attacks reach what bounds them.
fn limits(config: &mut Config) {
    config.server.shards = ShardCount::Exactly(1);
    config.memory.buffers = 16;
    config.memory.pool_bytes = 16 << 20;
    config.limits.connections_max = 256;
    config.limits.handshakes_max = 64;
    config.limits.handshake_timeout_ms = 500;
    (config.limits.topics_max, config.limits.subscriptions_max) = (1, 1);
    config.websocket.message_age_ms_max = 300;
    // Honest clients that wait for a CPU must not be taken for gone.
    config.websocket.idle_timeout_ms = 10_000;
    config.websocket.progress_timeout_ms = 500;
    config.websocket.close_timeout_ms = 300;
    config.websocket.compression = CompressionMode::NoContext;
    config.iproto.shutdown_timeout_ms = 100;
    config.iproto.body_bytes_max = 1 << 20;
    config.iproto.packet_age_ms_max = 300;
    config.shutdown.drain_ms = 500;
}

#[test]
#[ignore = "the other tests run it as a child"]
fn child() {
    let Some(words) = scenario() else { return };
    // The log alone is bounded. Rust's default hook would print each panic to standard error, which
    // a server does not keep it from: a program whose peers may cause panics sets one like this.
    std::panic::set_hook(Box::new(|_| {}));
    let log = Log::install();
    let builder = Server::builder().listen("127.0.0.1:0").configure(|config| {
        limits(config);
        config.server.reactor = match words[0].as_str() {
            "uring" => ReactorChoice::Uring,
            _ => ReactorChoice::Epoll,
        };
    });
    let mux = |_: &mut Shard| {
        Mux::new().default(|_, session, request| {
            session.reply(request.reply, request.body);
        })
    };
    let server = builder
        .websocket("/", |_| Echo)
        .websocket("/panic", |_| Broken)
        .iproto("127.0.0.1:0", mux)
        .start()
        .unwrap();
    let bill = server.report().bill.total_bytes();
    println!("@ {} {} {bill}", address(&server), iproto_address(&server));
    for line in stdin().lines() {
        match line.unwrap().as_str() {
            "look" => println!("@ {} {}", connections(&server), log.lines().len()),
            _ => break,
        }
    }
    server.stop().unwrap();
}

fn iproto_address(server: &Running) -> SocketAddr {
    match server.raw_addresses() {
        [ListenAddress::Tcp(address), ..] => *address,
        other => panic!("{other:?} is no TCP address"),
    }
}

fn connections(server: &Running) -> usize {
    let (sender, answer) = mpsc::channel();
    let ask = move |shard: &mut Shard| sender.send(shard.session_count()).expect("it listens");
    server.handles()[0].run(ask).unwrap();
    answer.recv_timeout(PATIENCE).unwrap()
}
