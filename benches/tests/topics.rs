//! What it costs to tell 10,000 sessions the same: no allocation, one frame, and how much time each
//! of them takes, beside a loop of single sends.

#![allow(unsafe_code)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use hioload::config::ShardCount;
use hioload::{Handler, Message, MessageKind, Request, Running, Server};
use hioload::{Session, SessionId, Shard, Upgrade};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use common::counting::{Counting, count_here, take_count};
use common::{ServerProcess, be_if_asked, choice, echo_len, open, push_frame_of};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SUBSCRIBERS: usize = 10_000;
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// Rounds that are measured, of each kind in turn, after as many that are not.
const ROUNDS: usize = 11;

/// Tells all sessions the same when one of them asks for it.
struct Broadcaster {
    everybody: Vec<SessionId>,
}

impl Handler for Broadcaster {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        match message.text() {
            Some("join") => {
                session.subscribe("all").expect("the limits have room");
                self.everybody.push(session.id());
                session.send_text("joined");
            }
            Some("publish") => {
                let news = shard.message(MessageKind::Binary, &PAYLOAD).expect("the pool has room");
                shard.publish("all", news);
            }
            Some("send") => {
                for id in &self.everybody {
                    let news = shard.message(MessageKind::Binary, &PAYLOAD);
                    shard.send_to(*id, news.expect("the pool has room"));
                }
            }
            _ => {
                count_here(false);
                let counters = shard.stats().counters;
                let (frames, missed) = (counters.encodings, counters.missed);
                let figures = format!("{} {} {frames} {missed}", cpu_ns(), take_count());
                session.send_text(&figures);
                count_here(true);
            }
        }
    }
}

/// The time that this thread has run, in the kernel too.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// As many descriptors as this process may have; each side of a connection is in its own.
fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert!(limit.rlim_cur > SUBSCRIBERS as u64 + 100, "raise the hard limit of open files");
}

fn serve(reactor: &str, shards: u16) -> Running {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .configure(|config| {
            config.server.reactor = choice(reactor);
            config.server.shards = ShardCount::Exactly(shards);
            config.websocket.idle_timeout_ms = 0;
        })
        .websocket("/", |_| Broadcaster { everybody: Vec::new() });
    server.start().expect("the server starts")
}

fn say(mut stream: &TcpStream, text: &str) {
    let mut frame = Vec::new();
    push_frame_of(&mut frame, Opcode::Text, text.as_bytes());
    stream.write_all(&frame).expect("the server reads");
}

/// CPU time, allocations, encodings and missed messages since the start.
fn figures(mut control: &TcpStream) -> [u64; 4] {
    say(control, "figures");
    let mut header = [0; 2];
    control.read_exact(&mut header).expect("the server answers");
    let mut text = vec![0; usize::from(header[1])];
    control.read_exact(&mut text).expect("the server answers");
    let text = String::from_utf8(text).expect("it is text");
    let mut numbers = text.split(' ').map(|number| number.parse().expect("a number"));
    std::array::from_fn(|_| numbers.next().expect("four of them"))
}

/// Lets the server tell everybody; answers with the CPU time for each of them.
fn round(control: &TcpStream, streams: &[TcpStream], how: &str) -> (u64, u64) {
    let [cpu_before, _, frames_before, _] = figures(control);
    say(control, how);
    let mut frame = [0; 66];
    for mut stream in streams {
        stream.read_exact(&mut frame).expect("the message comes");
        assert_eq!((&frame[..2], &frame[2..]), (&[0x82, 64][..], &PAYLOAD[..]));
    }
    let [cpu, allocations, frames, missed] = figures(control);
    assert_eq!(missed, 0);
    assert_eq!(frames - frames_before, u64::from(how == "publish"), "one frame for all");
    ((cpu - cpu_before) / streams.len() as u64, allocations)
}

/// One at a time: they would measure each other.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[rstest]
#[case::uring("uring", "ten_thousand_are_told_without_an_allocation::case_1_uring")]
#[case::epoll("epoll", "ten_thousand_are_told_without_an_allocation::case_2_epoll")]
fn ten_thousand_are_told_without_an_allocation(#[case] reactor: &str, #[case] name: &str) {
    raise_descriptors();
    be_if_asked(serve);
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let server = ServerProcess::start(name, reactor, 1);
    let streams: Vec<_> = (0..SUBSCRIBERS).map(|_| open(server.address)).collect();
    for mut stream in &streams {
        say(stream, "join");
        let mut joined = vec![0; echo_len(6)];
        stream.read_exact(&mut joined).expect("the server answers");
    }
    let control = open(server.address);
    for how in ["publish", "send"].into_iter().cycle().take(2 * ROUNDS) {
        round(&control, &streams, how);
    }
    let (mut publishes, mut sends, mut allocations) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let (cpu, counted) = round(&control, &streams, "publish");
        publishes.push(cpu);
        allocations += counted;
        sends.push(round(&control, &streams, "send").0);
    }
    publishes.sort_unstable();
    sends.sort_unstable();
    let [publish, send] = [publishes, sends].map(|times| times[ROUNDS / 2]);
    println!(
        "{reactor}: one 64-byte message to {SUBSCRIBERS} subscribers: publish {publish} ns and \
         send_to {send} ns of CPU time each, {allocations} allocations in {ROUNDS} publishes"
    );
    assert_eq!(allocations, 0, "a warm shard allocated");
    drop((streams, control));
    server.stop();
}
