//! For tests that change what their whole process may do: each runs in a child, which is this same
//! test binary asked to run its ignored test `child` alone.
//!
//! Comes in: a scenario, in the environment of the child. Goes out: the child's process, or what
//! it printed. Nothing here changes a limit; the child does that to itself.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hioload::config::ListenAddress;
use hioload::{Handler, Message, Request, Running, Session, Shard, Upgrade};

/// Longer than anything here takes, also on a busy machine: a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The variable in which a child finds its scenario.
const SCENARIO: &str = "HIOLOAD_TEST_SCENARIO";

/// The words of the scenario, in a child; `None` if nobody started this process as one.
pub(crate) fn scenario() -> Option<Vec<String>> {
    let words = std::env::var(SCENARIO).ok()?;
    Some(words.split(' ').map(str::to_owned).collect())
}

/// This test binary as a child with a scenario.
pub(crate) fn command(scenario: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(SCENARIO, scenario);
    command
}

/// Sends every message back.
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

/// The TCP address on which a server listens.
pub(crate) fn address(server: &Running) -> SocketAddr {
    match server.addresses() {
        [ListenAddress::Tcp(address), ..] => *address,
        other => panic!("{other:?} is no TCP address"),
    }
}

/// A connection that asks for a session; the answer has not been read.
pub(crate) fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the backlog has room");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request).unwrap();
    stream
}

/// Reads the answer to the handshake: the session is open, or this fails.
pub(crate) fn expect_open(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    Ok(())
}

/// One message there and back. Who was silent for a while finds a ping in front of it.
pub(crate) fn echo(stream: &mut TcpStream) -> io::Result<()> {
    // A masked text frame of two bytes, and the same unmasked; the key is zero.
    stream.write_all(b"\x81\x82\0\0\0\0hi")?;
    let mut header = [0; 2];
    stream.read_exact(&mut header)?;
    while &header == b"\x89\x00" {
        stream.read_exact(&mut header)?;
    }
    let mut payload = [0; 2];
    stream.read_exact(&mut payload)?;
    assert_eq!((&header, &payload), (b"\x81\x02", b"hi"));
    Ok(())
}

/// Every line that the process logs with the level WARN or ERROR from now on.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn install() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
