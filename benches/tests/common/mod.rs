//! What the measurements have in common: an echo server in a process of its own, and its clients.

#![allow(dead_code, reason = "each measurement uses a part of it")]

pub(crate) mod counting;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hioload::config::{ListenAddress, ReactorChoice, ShardCount};
use hioload::{Handler, Message, Request, Response, Running, Server, Session, Shard, Upgrade};
use hioload_protocol::ws::frame::Header;
use hioload_protocol::ws::{Opcode, mask::mask};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Tells a child process of this test binary to be a server: `uring 1` (reactor, shards).
const ROLE: &str = "HIOLOAD_BENCH_SERVER";

pub(crate) struct Echo;

impl Handler for Echo {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }
}

pub(crate) fn choice(reactor: &str) -> ReactorChoice {
    match reactor {
        "uring" => ReactorChoice::Uring,
        "epoll" => ReactorChoice::Epoll,
        other => panic!("{other} is no reactor"),
    }
}

/// An echo server in this process, with the default configuration but for what must differ.
pub(crate) fn serve(reactor: &str, shards: u16) -> Running {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .configure(|config| {
            config.server.reactor = choice(reactor);
            config.server.shards = ShardCount::Exactly(shards);
            // Nothing may happen by itself while something is measured.
            config.websocket.idle_timeout_ms = 0;
        })
        .websocket("/", |_| Echo)
        .http("/turns", |shard, _| {
            Response::text(200, format!("{}\n", shard.stats().counters.turns))
        })
        .http("/sessions", |shard, _| Response::text(200, format!("{}\n", shard.session_count())));
    server.start().expect("the server starts")
}

pub(crate) fn tcp(server: &Running) -> SocketAddr {
    match server.addresses() {
        [ListenAddress::Tcp(address), ..] => *address,
        other => panic!("{other:?} is no TCP address"),
    }
}

/// If this process was started to be a server: is one until its standard input ends, and exits.
pub(crate) fn be_server_if_asked() {
    be_if_asked(serve);
}

/// As [`be_server_if_asked`], with a server of another kind.
pub(crate) fn be_if_asked(serve: impl FnOnce(&str, u16) -> Running) {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (reactor, shards) = role.split_once(' ').expect("a reactor and a number of shards");
    let server = serve(reactor, shards.parse().expect("a number"));
    println!("ADDRESS {}", tcp(&server));
    let _ = std::io::stdin().read(&mut [0]);
    server.stop().expect("the shards end well");
    std::process::exit(0);
}

/// An echo server in a child process, which ends with this.
pub(crate) struct ServerProcess {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
}

impl ServerProcess {
    /// Starts this very test binary again, in `test` of it, which calls [`be_server_if_asked`].
    pub(crate) fn start(test: &str, reactor: &str, shards: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("its own path"))
            .args(["--exact", test, "--nocapture"])
            .env(ROLE, format!("{reactor} {shards}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let address = output.lines().find_map(|line| {
            let line = line.expect("the child writes text");
            line.split("ADDRESS ").nth(1)?.trim().parse().ok()
        });
        Self { child, address: address.expect("the child says where it listens") }
    }

    /// The threads of its shards.
    pub(crate) fn shard_threads(&self) -> Vec<i32> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(tasks).expect("the child lives");
        let ids = tasks.map(|task| task.expect("an entry").file_name());
        ids.filter_map(|id| {
            let id: i32 = id.to_str()?.parse().ok()?;
            let name = format!("/proc/{}/task/{id}/comm", self.child.id());
            std::fs::read_to_string(name).ok()?.starts_with("hioload-").then_some(id)
        })
        .collect()
    }

    /// Memory that it has touched and that no file backs, in bytes.
    pub(crate) fn anonymous_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the child lives");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib: Option<usize> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let kib = kib.expect("the kernel tells it");
        kib * 1024
    }

    /// The number that a plain HTTP path answers with.
    pub(crate) fn number_at(&self, path: &str) -> u64 {
        let mut stream = TcpStream::connect(self.address).expect("the server accepts");
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the server answers");
        answer.lines().last().and_then(|line| line.parse().ok()).expect("a number")
    }

    /// Ends it and waits for that.
    pub(crate) fn stop(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "the server ended with {status}");
    }
}

/// An open session.
pub(crate) fn open(address: SocketAddr) -> TcpStream {
    open_with(address, "")
}

/// An open session whose handshake has more header lines.
pub(crate) fn open_with(address: SocketAddr, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_nodelay(true).expect("it is TCP");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    let hello = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    );
    stream.write_all(hello.as_bytes()).expect("the server reads");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the server answers");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// Appends a masked frame with a payload of `len` bytes.
pub(crate) fn push_frame(out: &mut Vec<u8>, fin: bool, opcode: Opcode, len: usize) {
    let start = push_header(out, fin, opcode, len);
    out.extend((0..len).map(|index| b'a' + (index % 26) as u8));
    mask(&mut out[start..], MASK, 0);
}

/// Appends a whole masked message.
pub(crate) fn push_frame_of(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let start = push_header(out, true, opcode, payload.len());
    out.extend_from_slice(payload);
    mask(&mut out[start..], MASK, 0);
}

const MASK: [u8; 4] = [9, 8, 7, 6];

fn push_header(out: &mut Vec<u8>, fin: bool, opcode: Opcode, len: usize) -> usize {
    let mut header = [0; 14];
    let header_len = Header::new(fin, opcode, Some(MASK), len as u64).encode(&mut header);
    out.extend_from_slice(&header[..header_len]);
    out.len()
}

/// How long the server's frame for a payload of `len` bytes is.
pub(crate) fn echo_len(len: usize) -> usize {
    Header::new(true, Opcode::Binary, None, len as u64).encoded_len() + len
}
