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
const PHASE: Duration = Duration::from_millis(80);
/// What honest clients must keep of their throughput.
const KEPT_MIN: f64 = 0.5;
/// A row has passed as soon as this many more pairs of phases are above [`KEPT_MIN`] than below it. Who
/// is above in a quarter of the pairs passes once in 240 times.
const LEAD_PASSED: usize = 5;
/// It has failed as soon as this many more are below. Who is above in seven of ten, as on a machine
/// that is busy otherwise, fails once in 2,000 times.
const LEAD_FAILED: usize = 9;
/// Who has no such lead after this many pairs has failed.
const PAIRS_MAX: usize = 81;
/// Between two blows of an attack.
const PACE: Duration = Duration::from_millis(4);
/// Lines that the server may log in all phases of an attack, with the level WARN or above.
const LINES_MAX: u64 = 5;

const BUFFERS: usize = 16;
const BUFFER_BYTES: usize = 16 << 10;
const PLACES_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 256 << 10;
const OUTBOX_BYTES: usize = 16 << 10;

/// What the server may grow by in any case: its receive buffers are touched, its heap and the stack
/// of its thread settle.
const BASE: u64 = (BUFFERS * BUFFER_BYTES + (512 << 10)) as u64;
/// Attackers, one of them just coming.
const KEPT: u64 = rows::KEPT_MAX as u64 + 1;
/// Each has a head that is not whole.
const HEADS: u64 = BASE + KEPT * (8 << 10);
/// Each place is taken.
const PLACES: u64 = BASE + PLACES_MAX as u64 * (8 << 10);
/// Each has begun a message, of which little came: of the block that it is lent only those pages
/// count that were written to.
const LENT: u64 = HEADS + KEPT * (16 << 10);
/// One is inflated up to the limit, and moved to the block of twice the size meanwhile; the library
/// has its tables.
const BOMB: u64 = HEADS + 3 * MESSAGE_BYTES_MAX as u64;
/// Each has a full outbox, and a message that filled it.
const OUTBOXES: u64 = HEADS + KEPT * (OUTBOX_BYTES as u64 + (64 << 10));

/// What a server counts when an attack has reached its bound: places among the figures that it
/// tells when it is looked at.
#[derive(Clone, Copy, Debug)]
enum Count {
    Expired = 2,
    TimedOut,
    Violated,
    Refused,
    Paused,
    Panicked,
}

const CONNECTIONS: usize = 0;
const LINES: usize = 1;
const FIGURES: usize = 8;

/// Attacks one after the other: they are compared with a quiet machine.
static ALONE: Mutex<()> = Mutex::new(());

#[rstest]
#[case::slow_handshakes(rows::slow_handshakes, Some(Count::Expired), HEADS)]
#[case::silent_connections(rows::silent_connections, Some(Count::Expired), HEADS)]
#[case::header_bombs(rows::header_bombs, Some(Count::Refused), HEADS)]
#[case::junk_keys(rows::junk_keys, Some(Count::Refused), HEADS)]
#[case::smuggled_requests(rows::smuggled_requests, Some(Count::Refused), HEADS)]
#[case::foreign_pages(rows::foreign_pages, Some(Count::Refused), HEADS)]
#[case::resets(rows::resets, None, HEADS)]
#[case::more_connections_than_places(
    rows::more_connections_than_places,
    Some(Count::Paused),
    PLACES
)]
#[case::broken_rules(rows::broken_rules, Some(Count::Violated), HEADS)]
#[case::huge_lengths(rows::huge_lengths, Some(Count::Violated), HEADS)]
#[case::announced_and_never_sent(rows::announced_and_never_sent, None, LENT)]
#[case::empty_fragments(rows::empty_fragments, Some(Count::Violated), LENT)]
#[case::tiny_fragments(rows::tiny_fragments, Some(Count::Violated), LENT)]
#[case::pings_without_reading(rows::pings_without_reading, None, LENT)]
#[case::bombs(rows::bombs, Some(Count::Violated), BOMB)]
#[case::deaf_peers(rows::deaf_peers, Some(Count::TimedOut), OUTBOXES)]
#[case::half_open_peers(rows::half_open_peers, Some(Count::TimedOut), HEADS)]
#[case::endless_messages(rows::endless_messages, None, LENT)]
#[case::dripping_closes(rows::dripping_closes, None, OUTBOXES)]
#[case::panics(rows::panics, Some(Count::Panicked), HEADS)]
#[case::iproto_claims(rows::iproto_claims, Some(Count::Violated), LENT)]
#[case::iproto_garbage(rows::iproto_garbage, Some(Count::Violated), HEADS)]
#[case::iproto_without_reading(rows::iproto_without_reading, Some(Count::TimedOut), OUTBOXES)]
fn honest_clients_keep_half_of_their_throughput(
    #[values("uring", "epoll")] reactor: &str,
    #[case] attack: Attack,
    #[case] counted: Option<Count>,
    #[case] grown_max: u64,
) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut server = Remote::start(command(reactor));
    let words: Vec<_> = server.greeting.split(' ').map(str::to_owned).collect();
    let target = Target { http: words[0].parse().unwrap(), iproto: words[1].parse().unwrap() };
    let mut honest: Vec<_> = (0..HONEST).map(|_| ask(target.http)).collect();
    honest.iter_mut().for_each(|client| expect_open(client).unwrap());
    echoes(&mut honest);
    let at_rest = anonymous_bytes(&server);

    // Until the attack has reached what bounds it.
    if let Some(counted) = counted {
        under(attack, target, || wait_for(counted, &mut server, &mut honest));
    }
    let mut grown = anonymous_bytes(&server).saturating_sub(at_rest);
    let (mut kept, mut above) = (Vec::new(), 0_usize);
    while !has_passed(above, kept.len())
        && kept.len() - above < above + LEAD_FAILED
        && kept.len() < PAIRS_MAX
    {
        wait_for_peace(&mut server, &mut honest);
        let quiet = echoes(&mut honest);
        let attacked = under(attack, target, || {
            let attacked = echoes(&mut honest);
            grown = grown.max(anonymous_bytes(&server).saturating_sub(at_rest));
            attacked
        });
        kept.push(attacked as f64 / quiet as f64);
        above = kept.iter().filter(|kept| **kept >= KEPT_MIN).count();
    }
    let figures = server.look::<FIGURES>();
    let (lines, moved) = (figures[LINES], counted.map(|counted| figures[counted as usize]));
    let pairs = kept.len();
    println!(
        "{reactor}: kept {:.2}, {above} of {pairs} pairs above {KEPT_MIN}, {} KiB of {}, \
         {lines} lines, {counted:?} {moved:?}",
        median(&mut kept),
        grown >> 10,
        grown_max >> 10,
    );
    assert!(has_passed(above, pairs), "honest clients kept {kept:.2?} of their throughput");
    assert!(grown <= grown_max, "it grew by {grown} bytes, of {grown_max}");
    assert!(lines <= LINES_MAX, "{lines} lines were logged");
    server.stop();
}

const fn has_passed(above: usize, pairs: usize) -> bool {
    above >= pairs - above + LEAD_PASSED
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

/// Until the server has counted one of these, while honest clients are served.
fn wait_for(counted: Count, server: &mut Remote, honest: &mut [TcpStream]) {
    let began = Instant::now();
    while server.look::<FIGURES>()[counted as usize] == 0 {
        assert!(began.elapsed() < PATIENCE, "the attack does not reach its bound: no {counted:?}");
        honest.iter_mut().for_each(|client| echo(client).unwrap());
    }
}

/// Until the server has forgotten the attackers. Honest clients are not silent meanwhile: they would
/// be pinged.
fn wait_for_peace(server: &mut Remote, honest: &mut [TcpStream]) {
    let began = Instant::now();
    loop {
        let connections = server.look::<FIGURES>()[CONNECTIONS];
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

/// Small limits, so that attacks reach what bounds them within a phase or a few.
fn limits(config: &mut Config) {
    config.server.shards = ShardCount::Exactly(1);
    config.memory.buffers = BUFFERS;
    config.memory.buffer_bytes = BUFFER_BYTES;
    config.memory.pool_bytes = 16 << 20;
    config.limits.connections_max = PLACES_MAX;
    config.limits.handshakes_max = 16;
    config.limits.handshake_timeout_ms = 500;
    (config.limits.topics_max, config.limits.subscriptions_max) = (1, 1);
    config.websocket.message_bytes_max = MESSAGE_BYTES_MAX;
    config.websocket.fragments_max = 500;
    // 375 frames of nothing, which is fewer.
    config.websocket.overhead_budget_bytes = 6000;
    config.websocket.message_age_ms_max = 100;
    // Honest clients that wait for a CPU must not be taken for gone.
    config.websocket.idle_timeout_ms = 1500;
    config.websocket.progress_timeout_ms = 100;
    config.websocket.close_timeout_ms = 100;
    config.websocket.outbox_high_bytes = OUTBOX_BYTES;
    config.websocket.outbox_low_bytes = OUTBOX_BYTES / 4;
    config.websocket.outbox_max_bytes = OUTBOX_BYTES + MESSAGE_BYTES_MAX;
    config.websocket.compression = CompressionMode::NoContext;
    config.iproto.shutdown_timeout_ms = 100;
    config.iproto.body_bytes_max = MESSAGE_BYTES_MAX;
    config.iproto.packet_age_ms_max = 100;
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
    println!("@ {} {}", address(&server), iproto_address(&server));
    for line in stdin().lines() {
        match line.unwrap().as_str() {
            "look" => println!("@ {}", figures(&server, &log).join(" ")),
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

/// In the order of [`Count`].
fn figures(server: &Running, log: &Log) -> Vec<String> {
    let (sender, answer) = mpsc::channel();
    let ask = move |shard: &mut Shard| sender.send(shard.stats()).expect("it listens");
    server.handles()[0].run(ask).unwrap();
    let stats = answer.recv_timeout(PATIENCE).unwrap();
    let counters = stats.counters;
    let figures: [u64; FIGURES] = [
        stats.connections as u64,
        log.lines().len() as u64,
        counters.handshakes_expired,
        counters.timeouts,
        counters.violations,
        counters.refused,
        counters.accept_pauses,
        counters.panics,
    ];
    figures.iter().map(u64::to_string).collect()
}
