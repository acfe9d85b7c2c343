//! What simulations have found, each as the shortest test that shows it, and what the kit promises.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::io::{Read, Write};
use std::time::Duration;

use hioload::config::Config;
use hioload::testkit::{Bench, Peer};
use hioload::{Handler, Message, Request, Session, Shard, Upgrade};

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }
}

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A connection that sends bytes as they are, and has done its handshake.
fn open(bench: &Bench) -> Peer {
    let mut peer = bench.net().connect(80).unwrap();
    peer.write_all(REQUEST).unwrap();
    bench.advance(Duration::ZERO);
    assert!(read(&mut peer).starts_with(b"HTTP/1.1 101"));
    peer
}

fn read(peer: &mut Peer) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    let count = peer.read(&mut bytes).unwrap_or(0);
    bytes.truncate(count);
    bytes
}

/// A frame that is masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    let mut bytes = vec![first];
    if len < 126 {
        bytes.push(0x80 | len as u8);
    } else {
        bytes.push(0x80 | 126);
        bytes.extend((len as u16).to_be_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Found by the scenario `echo`: two pongs changed places (RFC 6455 section 5.5.3).
#[test]
fn a_late_pong_follows_no_newer_one() {
    let mut config = Config::default();
    config.memory.buffer_bytes = 4096;
    config.websocket.outbox_low_bytes = 16;
    let bench = Bench::with_config(&config, |_shard| Echo).route("/");
    let mut peer = open(&bench);
    // The first buffer ends behind the first ping, which comes while an echo is queued; the second
    // one comes with the next turn, when that echo has left.
    let mut bytes = frame(0x82, &[0; 4096 - 8 - 7]);
    bytes.extend(frame(0x89, b"1"));
    assert_eq!(bytes.len(), 4096);
    bytes.extend(frame(0x89, b"2"));
    peer.write_all(&bytes).unwrap();
    bench.advance(Duration::ZERO);
    let echo = 4096 - 7 - 4;
    assert_eq!(read(&mut peer)[echo..], *b"\x8a\x012");
}
