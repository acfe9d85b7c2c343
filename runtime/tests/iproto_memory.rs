//! What the peers of an iproto server can make it cost: never more than its bill, and 5 %.
//!
//! In a process of its own, as it is the memory of the process that is looked at.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic wherever it is")]

use std::cell::Cell;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hioload::config::{ListenAddress, ReactorChoice, ShardCount};
use hioload::iproto::{HEADER_BYTES, Header, Mux, PING, append_packet};
use hioload::{Running, Server, Shard};

const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 64;
const NOTIFIES: u64 = 10_000_000;
/// A code that is answered with how many notifies there were.
const COUNT: u32 = 9;

/// The memory of this process that no file backs.
fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn counting_echo(_: &mut Shard) -> Mux {
    let count = Rc::new(Cell::new(0_u64));
    let counted = Rc::clone(&count);
    Mux::new()
        .handle(COUNT, move |_, session, request| {
            session.reply(request.reply, &counted.get().to_le_bytes());
        })
        .default(|_, session, request| {
            session.reply(request.reply, request.body);
        })
        .default_notify(move |_, _, _, _| count.set(count.get() + 1))
}

/// A server that may cost little, so that what is too much is seen.
fn server(reactor: ReactorChoice) -> Running {
    let server = Server::builder().configure(|config| {
        config.server.reactor = reactor;
        config.server.shards = ShardCount::Exactly(1);
        config.limits.connections_max = CONNECTIONS;
        config.limits.topics_max = 1;
        config.memory.buffers = 16;
        config.memory.pool_bytes = 16 << 20;
        config.iproto.shutdown_timeout_ms = 100;
        config.shutdown.drain_ms = 500;
        config.iproto.body_bytes_max = 1 << 20;
        config.websocket.outbox_max_bytes = 2 << 20;
    });
    server.iproto("127.0.0.1:0", counting_echo).start().expect("the server starts")
}

fn address(server: &Running) -> SocketAddr {
    match server.raw_addresses() {
        [ListenAddress::Tcp(address), ..] => *address,
        other => panic!("{other:?} is no TCP address"),
    }
}

fn connect(server: &Running) -> TcpStream {
    let stream = TcpStream::connect(address(server)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn packet(msg: u32, sync: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_packet(&mut bytes, msg, sync, body).unwrap();
    bytes
}

/// Waits until the shard has done what it found when this began.
fn settle(server: &Running) {
    let (sender, answer) = mpsc::channel();
    server.handles()[0].run(move |_| sender.send(()).unwrap()).unwrap();
    answer.recv_timeout(PATIENCE).expect("the shard answers");
}

/// Ten million notifies on one connection: all of them are heard.
fn notifies(server: &Running) {
    let mut peer = connect(server);
    let burst = packet(3, 0, b"").repeat(10_000);
    for _ in 0..NOTIFIES / 10_000 {
        peer.write_all(&burst).expect("the server reads");
    }
    peer.write_all(&packet(COUNT, 1, b"")).unwrap();
    let mut answer = [0; HEADER_BYTES + 8];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(answer[HEADER_BYTES..], NOTIFIES.to_le_bytes());
}

/// Peers that claim a lot and send a part of it.
fn halves(server: &Running) -> Vec<TcpStream> {
    let begin = |number: usize| {
        let mut peer = connect(server);
        peer.write_all(&Header { msg: 1, len: 1 << 20, sync: 1 }.encode()).unwrap();
        peer.write_all(&vec![7; 3000 * number]).unwrap();
        peer
    };
    (0..CONNECTIONS / 2).map(begin).collect()
}

/// Peers that ask for more than they read.
fn deaf(server: &Running) -> Vec<TcpStream> {
    let begin = |number: usize| {
        let mut peer = connect(server);
        let asked =
            if number.is_multiple_of(2) { packet(PING, 1, b"") } else { packet(1, 1, &[7; 500]) };
        let burst = asked.repeat(500);
        peer.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        loop {
            match peer.write(&burst) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return peer,
                // It may be closed for it.
                Err(_) => return peer,
            }
        }
    };
    // The kernel's buffers take long to fill.
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || begin(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn whatever_peers_do_the_memory_stays_within_the_bill() {
    for reactor in [ReactorChoice::Uring, ReactorChoice::Epoll] {
        let before = anonymous_bytes();
        let server = server(reactor);
        let bill = server.report().bill.total_bytes();
        let look = |what: &str| {
            settle(&server);
            let grown = anonymous_bytes().saturating_sub(before);
            println!("{reactor:?}: {grown} of {bill} bytes after {what}");
            assert!(grown <= bill + bill / 20, "{what}: {grown} bytes, the bill is {bill}");
            grown
        };
        let idle = look("the start");
        notifies(&server);
        // The receive buffers, 1 MiB, are touched for the first time; nothing is kept.
        let heard = look("ten million notifies");
        assert!(heard <= idle + (2 << 20), "ten million notifies leave {} bytes", heard - idle);
        let _halves = halves(&server);
        look("claims that are not kept");
        let _deaf = deaf(&server);
        look("peers that do not read");
        for len in [(1 << 20) + 1, u32::MAX] {
            let mut peer = connect(&server);
            peer.write_all(&Header { msg: 1, len, sync: 1 }.encode()).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap_or(0), 0, "it is closed");
        }
        look("giant claims");
        server.stop().unwrap();
    }
}
