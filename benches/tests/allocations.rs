//! A shard that is warm allocates nothing: 10^6 messages of every kind, and not one call of the
//! allocator, not one page more of the pool, not one mapping more.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;

use hioload::pools::PoolStats;
use hioload::{Running, Shard};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use common::counting::{Counting, count_here, take_count};
use common::{PATIENCE, echo_len, open, push_frame, serve, tcp};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: usize = 64;
const MESSAGES: usize = 1_000_000;

/// A script of frames, and what must come back.
struct Script {
    bytes: Vec<u8>,
    /// Where the script is written in two parts, at random places.
    cuts: Vec<usize>,
    messages: usize,
    answer_bytes: usize,
}

impl Script {
    /// Messages of every kind: mostly small, some of each size up to 1 MiB, some fragmented, with
    /// pongs between the fragments. (Pings come between the plays: of those that meet a full outbox
    /// only the newest is answered, so that nobody could say how much comes back.)
    fn new(random: &mut Random) -> Self {
        let (mut bytes, mut answer_bytes, mut messages) = (Vec::new(), 0, 0);
        for number in 0..500usize {
            let len = match number {
                499 => 1 << 20,
                250 => 70_000 + random.below(200_000),
                _ if number % 100 == 7 => 2_000 + random.below(60_000),
                _ => 20 + random.below(480),
            };
            if number % 25 == 3 {
                push_frame(&mut bytes, false, Opcode::Binary, len / 2);
                push_frame(&mut bytes, true, Opcode::Pong, 5);
                push_frame(&mut bytes, true, Opcode::Continuation, len - len / 2);
            } else {
                push_frame(&mut bytes, true, Opcode::Text, len);
            }
            answer_bytes += echo_len(len);
            messages += 1;
        }
        let mut cuts: Vec<_> = (0..40).map(|_| random.below(bytes.len())).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        Self { bytes, cuts, messages, answer_bytes }
    }

    /// Plays the script once: writes on one thread, counts what comes back on this one.
    fn play(&self, stream: &TcpStream) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut start = 0;
                for &cut in &self.cuts {
                    (&*stream).write_all(&self.bytes[start..cut]).expect("the server reads");
                    start = cut;
                }
            });
            let mut left = self.answer_bytes;
            let mut chunk = vec![0; 256 << 10];
            while left > 0 {
                let room = chunk.len().min(left);
                let count = (&*stream).read(&mut chunk[..room]).expect("the echo comes");
                assert_ne!(count, 0, "the server closed");
                left -= count;
            }
        });
        let (mut ping, mut pong) = (Vec::new(), [0; 7]);
        push_frame(&mut ping, true, Opcode::Ping, 5);
        (&*stream).write_all(&ping).expect("the server reads");
        (&*stream).read_exact(&mut pong).expect("the pong comes");
        assert_eq!(pong[0], 0x8a);
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Runs a function on the server's only shard, without counting what that costs.
fn ask<T: Send + 'static>(
    server: &Running,
    look: impl FnOnce(&mut Shard) -> T + Send + 'static,
) -> T {
    let (sender, answer) = mpsc::channel();
    let task = move |shard: &mut Shard| {
        let counted = count_here(false);
        sender.send(look(shard)).expect("the test listens");
        drop(sender);
        count_here(counted);
    };
    server.handles()[0].run(task).expect("the mailbox has room");
    answer.recv_timeout(PATIENCE).expect("the shard answers")
}

#[rstest]
fn a_million_messages_cost_no_allocation(#[values("uring", "epoll")] reactor: &str) {
    let server = serve(reactor, 1);
    let mut random = Random(7);
    let script = Script::new(&mut random);
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| open(tcp(&server))).collect();
    let rounds = MESSAGES.div_ceil(script.messages * CONNECTIONS);
    let play_all = |rounds: usize, at_once: usize| {
        for group in streams.chunks(at_once) {
            std::thread::scope(|scope| {
                for stream in group {
                    let script = &script;
                    scope.spawn(move || (0..rounds).for_each(|_| script.play(stream)));
                }
            });
        }
    };
    // Lists grow to the most that was ever under way at once: the warm-up is four times as crowded
    // as what is measured.
    play_all(3, 32);
    let look = |shard: &mut Shard| (shard.stats().counters.messages, shard.stats().pool);
    let (messages_before, pool_before): (u64, PoolStats) = ask(&server, look);
    count_on(&server, true);
    play_all(rounds, 8);
    let counted = ask(&server, |_| take_count());
    count_on(&server, false);
    let (messages, pool) = ask(&server, look);
    let messages = messages - messages_before;
    println!("{reactor}: {messages} messages, {counted} allocations");
    println!("{reactor}: {} bytes of the pool in use at the most", pool.in_use_bytes_max);
    assert!(messages >= MESSAGES as u64);
    assert_eq!(counted, 0, "a warm shard allocated");
    assert_eq!(pool.in_use_bytes, pool_before.in_use_bytes, "the pool leaks");
    assert_eq!(pool.refused, 0);
    server.stop().expect("the shards end well");
}

/// Counts from here on, or no more.
fn count_on(server: &Running, on: bool) {
    server.handles()[0]
        .run(move |_| {
            count_here(on);
        })
        .expect("the mailbox has room");
    assert_eq!(ask(server, |_| ()), ());
}
