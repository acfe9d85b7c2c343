//! The attacks, a blow at a time: a row of RELIABILITY.md each.
//!
//! A blow does not wait for the server longer than [`PATIENCE`]; what it leaves open goes to `kept`,
//! and the oldest of that are given up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use hioload_protocol::deflate::Deflater;
use hioload_protocol::ws::Opcode;
use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::mask::mask;

/// Where the server listens.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) http: SocketAddr,
    pub(crate) iproto: SocketAddr,
}

pub(crate) type Attack = fn(&Target, &mut Vec<TcpStream>);

/// For one read or write of an attacker.
const PATIENCE: Duration = Duration::from_millis(5);
/// A connection that takes nothing for this long is full.
const FULL: Duration = Duration::from_millis(50);
pub(crate) const KEPT_MAX: usize = 48;
const KEY: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

/// A connection with little room for what comes: who does not read from it is soon seen not to.
fn connect_narrow(address: SocketAddr) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
    socket.set_recv_buffer_size(4096).ok()?;
    socket.connect_timeout(&address.into(), Duration::from_secs(1)).ok()?;
    socket.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(socket.into())
}

/// A session of one that will not read.
fn open_narrow(target: &Target) -> Option<TcpStream> {
    let mut stream = connect_narrow(target.http)?;
    stream.write_all(handshake("/", "").as_bytes()).ok()?;
    Some(stream)
}

fn handshake(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

/// A session that is open, or will be: the 101 is not waited for.
fn open(target: &Target, path: &str, headers: &str) -> Option<TcpStream> {
    let mut stream = connect(target.http)?;
    stream.write_all(handshake(path, headers).as_bytes()).ok()?;
    Some(stream)
}

fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = announced(fin, opcode, payload.len() as u64);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[start..], KEY, 0);
    bytes
}

/// The header of a frame alone.
fn announced(fin: bool, opcode: Opcode, len: u64) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let header_len = Header::new(fin, opcode, Some(KEY), len).encode(&mut header);
    header[..header_len].to_vec()
}

/// Says something, and takes what comes until the end or the end of patience.
fn say(stream: Option<TcpStream>, bytes: &[u8]) {
    let Some(mut stream) = stream else { return };
    let _ = stream.write_all(bytes);
    while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
}

/// Says something and keeps the connection.
fn keep(kept: &mut Vec<TcpStream>, stream: Option<TcpStream>, bytes: &[u8]) {
    let Some(mut stream) = stream else { return };
    let _ = stream.write_all(bytes);
    if kept.len() == KEPT_MAX {
        kept.remove(0);
    }
    kept.push(stream);
}

/// Says something to the newest that is kept, or to the next one once that takes no more: until then
/// the buffers of the kernel fill up, which are no part of the server.
fn fill(kept: &mut Vec<TcpStream>, open: impl Fn() -> Option<TcpStream>, bytes: &[u8]) {
    if kept.last_mut().is_some_and(|newest| newest.write_all(bytes).is_ok()) {
        return;
    }
    let Some(stream) = open() else { return };
    let _ = stream.set_write_timeout(Some(FULL));
    keep(kept, Some(stream), bytes);
}

/// Each of those that are kept says a little.
fn trickle(kept: &mut [TcpStream], bytes: &[u8]) {
    for stream in kept {
        let _ = stream.write(bytes);
    }
}

pub(crate) fn slow_handshakes(target: &Target, kept: &mut Vec<TcpStream>) {
    trickle(kept, b"a");
    keep(kept, connect(target.http), b"GET /");
}

pub(crate) fn silent_connections(target: &Target, kept: &mut Vec<TcpStream>) {
    keep(kept, connect(target.http), b"");
    keep(kept, connect(target.http), b"");
}

pub(crate) fn header_bombs(target: &Target, _: &mut Vec<TcpStream>) {
    say(connect(target.http), handshake("/", &"X: bomb\r\n".repeat(4096)).as_bytes());
}

pub(crate) fn junk_keys(target: &Target, _: &mut Vec<TcpStream>) {
    say(connect(target.http), handshake("/", "").replace("ZQ==", "!!!!").as_bytes());
}

pub(crate) fn smuggled_requests(target: &Target, _: &mut Vec<TcpStream>) {
    let first = handshake("/", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    say(connect(target.http), format!("{first}0\r\n\r\n{}", handshake("/", "")).as_bytes());
}

pub(crate) fn foreign_pages(target: &Target, _: &mut Vec<TcpStream>) {
    say(open(target, "/", "Origin: https://evil.example\r\n"), b"");
}

pub(crate) fn resets(target: &Target, _: &mut Vec<TcpStream>) {
    for handshakes in [false, true, false, true] {
        let stream = if handshakes { open(target, "/", "") } else { connect(target.http) };
        let Some(stream) = stream else { return };
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

pub(crate) fn more_connections_than_places(target: &Target, kept: &mut Vec<TcpStream>) {
    // Fewer at once than there may be handshakes.
    if kept.len() < 400 {
        kept.extend((0..8).filter_map(|_| open(target, "/", "")));
    }
}

pub(crate) fn broken_rules(target: &Target, _: &mut Vec<TcpStream>) {
    let bad_text = frame(true, Opcode::Text, b"\xed\xa0\x80");
    let bad_code = frame(true, Opcode::Close, &1005_u16.to_be_bytes());
    for bytes in
        [&b"\xf1\x80"[..], b"\x81\x05hello", b"\x83\x80", b"\x09\x80", &bad_text, &bad_code]
    {
        say(open(target, "/", ""), bytes);
    }
}

pub(crate) fn huge_lengths(target: &Target, _: &mut Vec<TcpStream>) {
    say(open(target, "/", ""), &announced(true, Opcode::Binary, 1 << 40));
    say(open(target, "/", ""), b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff");
}

pub(crate) fn announced_and_never_sent(target: &Target, kept: &mut Vec<TcpStream>) {
    let mut bytes = announced(true, Opcode::Binary, 256 << 10);
    bytes.push(0);
    keep(kept, open(target, "/", ""), &bytes);
}

pub(crate) fn empty_fragments(target: &Target, _: &mut Vec<TcpStream>) {
    let mut bytes = frame(false, Opcode::Text, b"");
    bytes.extend(frame(false, Opcode::Continuation, b"").repeat(5000));
    say(open(target, "/", ""), &bytes);
}

pub(crate) fn tiny_fragments(target: &Target, kept: &mut Vec<TcpStream>) {
    let mut bytes = frame(false, Opcode::Binary, b"a little");
    bytes.extend(frame(false, Opcode::Continuation, b"a little").repeat(1000));
    keep(kept, open(target, "/", ""), &bytes);
}

pub(crate) fn pings_without_reading(target: &Target, kept: &mut Vec<TcpStream>) {
    keep(kept, open_narrow(target), &frame(true, Opcode::Ping, &[7; 125]).repeat(300));
}

/// 2 MiB of zeros, compressed: eight times the longest message.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let zeros = vec![0; 2 << 20];
    let mut bytes = vec![0; Deflater::bound(zeros.len())];
    let len = Deflater::new(9, 15).message(&zeros, false, &mut bytes).unwrap();
    let mut bomb = frame(true, Opcode::Binary, &bytes[..len]);
    bomb[0] |= 0x40; // RSV1: it is compressed
    bomb
});

pub(crate) fn bombs(target: &Target, _: &mut Vec<TcpStream>) {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    say(open(target, "/", offer), &BOMB);
}

pub(crate) fn deaf_peers(target: &Target, kept: &mut Vec<TcpStream>) {
    let bytes = frame(true, Opcode::Binary, &[5; 60_000]).repeat(4);
    fill(kept, || open_narrow(target), &bytes);
}

pub(crate) fn half_open_peers(target: &Target, kept: &mut Vec<TcpStream>) {
    // They stay until the server gives them up.
    if kept.len() < KEPT_MAX {
        keep(kept, open(target, "/", ""), b"");
    }
}

pub(crate) fn endless_messages(target: &Target, kept: &mut Vec<TcpStream>) {
    trickle(kept, &frame(false, Opcode::Continuation, b"more"));
    keep(kept, open(target, "/", ""), &frame(false, Opcode::Text, b"begun"));
}

pub(crate) fn dripping_closes(target: &Target, kept: &mut Vec<TcpStream>) {
    let mut bytes = frame(true, Opcode::Binary, &[5; 60_000]).repeat(3);
    bytes.extend(frame(true, Opcode::Close, &1000_u16.to_be_bytes()));
    for stream in &mut *kept {
        let _ = stream.set_nonblocking(true);
        let _ = stream.read(&mut [0]);
    }
    keep(kept, open_narrow(target), &bytes);
}

pub(crate) fn panics(target: &Target, _: &mut Vec<TcpStream>) {
    say(open(target, "/panic", ""), &frame(true, Opcode::Text, b"now"));
}

/// msg, the length of the body, and sync.
fn iproto_header(len: u32) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = 1;
    header[4..8].copy_from_slice(&len.to_le_bytes());
    header[8] = 9;
    header
}

pub(crate) fn iproto_claims(target: &Target, kept: &mut Vec<TcpStream>) {
    say(connect(target.iproto), &iproto_header(u32::MAX));
    keep(kept, connect(target.iproto), &iproto_header(256 << 10));
}

pub(crate) fn iproto_garbage(target: &Target, _: &mut Vec<TcpStream>) {
    say(connect(target.iproto), handshake("/", "").as_bytes());
    say(connect(target.iproto), &[0xff; 4096]);
}

pub(crate) fn iproto_without_reading(target: &Target, kept: &mut Vec<TcpStream>) {
    let mut packet = iproto_header(30_000).to_vec();
    packet.resize(30_012, 5);
    fill(kept, || connect_narrow(target.iproto), &packet.repeat(4));
}
