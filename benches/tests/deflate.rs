//! A shard that is warm allocates nothing for compressed messages either: every window was made
//! for the first message that needed it, and the rest happens in the pool.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;

use hioload::config::{CompressionMode, ShardCount};
use hioload::pools::PoolStats;
use hioload::{Running, Server, Shard};
use hioload_protocol::deflate::{Deflater, Whole};
use hioload_protocol::ws::frame::Header;
use hioload_protocol::ws::mask::mask;
use rstest::rstest;

use common::counting::{Counting, count_here, take_count};
use common::{Echo, PATIENCE, choice, open_with, tcp};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: usize = 16;
const BATCH: usize = 100;
const ROUNDS: usize = 16;

fn serve(reactor: &str, mode: CompressionMode) -> Running {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .configure(|config| {
            config.server.reactor = choice(reactor);
            config.server.shards = ShardCount::Exactly(1);
            config.websocket.idle_timeout_ms = 0;
            config.websocket.compression = mode;
        })
        .websocket("/", |_| Echo);
    server.start().expect("the server starts")
}

/// Compressed frames of many sizes, each standing alone, so that they can be sent again and again.
fn batch() -> Vec<u8> {
    let mut whole = Whole::new(6);
    let mut frames = Vec::new();
    for number in 0..BATCH {
        let len = if number % 20 == 7 { 20_000 } else { 130 + 13 * number };
        let mut text = String::new();
        while text.len() < len {
            text.push_str(&format!("{{\"id\":{},\"of\":{number}}},", text.len() * 7919 % 9973));
        }
        let mut payload = vec![0; Deflater::bound(text.len())];
        let compressed = whole.flushed(text.as_bytes(), 15, &mut payload);
        payload.truncate(compressed.expect("it fits its bound"));
        let key = [1, 2, 3, 4];
        let len = payload.len() as u64;
        let header = Header::new(true, hioload_protocol::ws::Opcode::Text, Some(key), len);
        let mut bytes = [0; 14];
        let header_len = Header { rsv1: true, ..header }.encode(&mut bytes);
        frames.extend_from_slice(&bytes[..header_len]);
        mask(&mut payload, key, 0);
        frames.extend_from_slice(&payload);
    }
    frames
}

/// Sends the batch, and reads as many frames as come back for it.
fn play(stream: &TcpStream, batch: &[u8]) {
    std::thread::scope(|scope| {
        scope.spawn(|| (&*stream).write_all(batch).expect("the server reads"));
        let (mut bytes, mut at, mut frames) = (Vec::new(), 0, 0);
        let mut chunk = [0; 64 * 1024];
        while frames < BATCH {
            let header = Header::decode(&bytes[at..]).expect("the server's frames are good");
            if let Some((header, len)) = header
                && bytes.len() - at >= len + header.len as usize
            {
                assert!(header.rsv1, "it came back without compression");
                at += len + header.len as usize;
                frames += 1;
                continue;
            }
            let count = (&*stream).read(&mut chunk).expect("the echo comes");
            assert_ne!(count, 0, "the server closed");
            bytes.extend_from_slice(&chunk[..count]);
        }
        assert_eq!(at, bytes.len(), "nothing else comes");
    });
}

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
fn compressed_messages_cost_no_allocation(
    #[values("uring", "epoll")] reactor: &str,
    #[values(
        CompressionMode::NoContext,
        CompressionMode::SharedWindow,
        CompressionMode::DedicatedWindow
    )]
    mode: CompressionMode,
) {
    let server = serve(reactor, mode);
    let batch = batch();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| open_with(tcp(&server), offer)).collect();
    let play_all = |rounds: usize| {
        for _ in 0..rounds {
            streams.iter().for_each(|stream| play(stream, &batch));
        }
    };
    play_all(4);
    let look = |shard: &mut Shard| (shard.stats().counters.messages, shard.stats().pool);
    let (messages_before, pool_before): (u64, PoolStats) = ask(&server, look);
    server.handles()[0].run(|_| _ = count_here(true)).expect("the mailbox has room");
    play_all(ROUNDS);
    let counted = ask(&server, |_| take_count());
    server.handles()[0].run(|_| _ = count_here(false)).expect("the mailbox has room");
    let (messages, pool) = ask(&server, look);
    let messages = messages - messages_before;
    println!("{reactor}, {mode}: {messages} compressed messages, {counted} allocations");
    assert_eq!(messages, (CONNECTIONS * BATCH * ROUNDS) as u64);
    assert_eq!(counted, 0, "a warm shard allocated");
    assert_eq!(pool.in_use_bytes, pool_before.in_use_bytes, "the pool leaks");
    server.stop().expect("the shards end well");
}
