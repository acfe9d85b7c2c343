//! What a handler may answer to a handshake, right or wrong, now or later; and handshakes for which
//! there is no memory. On a bench.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use hioload::config::Config;
use hioload::pools::{Arena, ArenaConfig};
use hioload::testkit::{Bench, FailingPool, Peer};
use hioload::{Handler, Message, Request, Response, Session, Shard, Upgrade, UpgradeToken};
use rstest::rstest;

/// Answers as the path says, and echoes.
struct Answers {
    /// Of the last handshake that was put off.
    token: Rc<Cell<Option<UpgradeToken>>>,
}

impl Handler for Answers {
    type Session = u32;

    fn upgrade(&mut self, shard: &mut Shard, request: &Request<'_>) -> Upgrade<u32> {
        let token = request.token();
        match request.path() {
            "/subprotocol" => Upgrade::accept(0).subprotocol("not offered"),
            "/header" => Upgrade::accept(0).header("X-Two", "lines\r\nX-More: yes"),
            "/token" => Upgrade::later(self.token.get().expect("there was a handshake before")),
            "/type" => {
                shard.answer(token, Upgrade::accept("sessions are numbers here"));
                Upgrade::later(token)
            }
            "/busy" => {
                let busy = Response::text(429, "come back").header("Retry-After", "7");
                Upgrade::refuse_with(busy.expect("a header as any other"))
            }
            "/panic" => panic!("as the test asked"),
            "/later" => {
                self.token.set(Some(token));
                Upgrade::later(token)
            }
            other => panic!("{other} is in no test"),
        }
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, u32>, message: Message) {
        session.send(message);
    }
}

type Token = Rc<Cell<Option<UpgradeToken>>>;

fn bench() -> (Bench, Token) {
    let mut config = Config::default();
    config.memory.buffer_bytes = 4096;
    let token = Token::default();
    let handler = Answers { token: Rc::clone(&token) };
    (Bench::with_config(&config, |_| handler).route("/{what}"), token)
}

fn request(path: &str) -> Vec<u8> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    request.into_bytes()
}

/// A connection that has sent these bytes.
fn sent(bench: &Bench, bytes: &[u8]) -> Peer {
    let mut peer = bench.net().connect(80).expect("the bench listens");
    peer.write_all(bytes).expect("the window has room");
    bench.advance(Duration::ZERO);
    peer
}

/// What has arrived by now.
fn read(peer: &mut Peer) -> String {
    let mut bytes = vec![0; 1 << 16];
    let count = peer.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

/// A text frame that is masked with zeros, and the echo of it.
fn frame(text: &str) -> (Vec<u8>, Vec<u8>) {
    let len = u16::try_from(text.len()).expect("the tests send little").to_be_bytes();
    let frame = [&[0x81, 0x80 | 126], &len[..], &[0; 4], text.as_bytes()].concat();
    (frame, [&[0x81, 126], &len[..], text.as_bytes()].concat())
}

#[rstest]
#[case("/subprotocol", "500 Internal Server Error", "bad subprotocol choice")]
#[case("/header", "500 Internal Server Error", "bad response header")]
#[case("/type", "500 Internal Server Error", "bad upgrade answer")]
#[case("/token", "500 Internal Server Error", "bad upgrade token")]
#[case("/panic", "500 Internal Server Error", "the handler of this path failed")]
#[case("/busy", "429 Too Many Requests", "come back")]
#[case("/two/parts", "404 Not Found", "nothing is served at this path")]
fn a_handshake_is_refused_whole(#[case] path: &str, #[case] status: &str, #[case] body: &str) {
    let (bench, _) = bench();
    let first = sent(&bench, &request("/later"));
    let mut peer = sent(&bench, &request(path));
    let answer = read(&mut peer);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    assert_eq!(answer.contains("Retry-After: 7\r\n"), path == "/busy", "{answer}");
    assert!(!answer.contains("X-"), "{answer}");
    assert_eq!(peer.read(&mut [0]).ok(), Some(0), "and the connection ends");
    drop(peer);
    let stats = bench.shard_stats();
    assert_eq!((stats.counters.refused, stats.counters.opened), (1, 0));
    assert_eq!(stats.connections, 1, "the one that waits");
    drop(first);
}

#[test]
fn who_is_answered_too_late_has_had_a_503() {
    let (bench, token) = bench();
    let mut peer = sent(&bench, &request("/later"));
    let timeout = Duration::from_millis(Config::default().limits.handshake_timeout_ms);
    bench.advance(timeout - Duration::from_millis(1));
    assert_eq!(read(&mut peer), "");
    bench.advance(Duration::from_millis(1));
    let answer = read(&mut peer);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("the handshake was not answered in time"), "{answer}");
    let token = token.get().expect("it was put off");
    bench.run(|shard| shard.answer(token, Upgrade::accept(1_u32)));
    assert_eq!(peer.read(&mut [0]).ok(), Some(0), "nothing more comes");
    let counters = bench.shard_stats().counters;
    assert_eq!((counters.opened, counters.refused, counters.handshakes_expired), (0, 1, 1));
}

#[test]
fn what_is_sent_before_the_answer_waits_for_it() {
    let (bench, token) = bench();
    let (text, echo) = frame(&"x".repeat(5000));
    // More than a buffer: some of it is on its way when the handler puts the handshake off.
    let early = [&request("/later")[..], &text, &text].concat();
    let mut peer = sent(&bench, &early);
    peer.write_all(&text).unwrap();
    bench.advance(Duration::from_secs(1));
    assert_eq!(read(&mut peer), "");
    let token = token.get().expect("it was put off");
    bench.run(|shard| shard.answer(token, Upgrade::accept(1_u32)));
    let mut bytes = vec![0; 1 << 16];
    let count = peer.read(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(bytes.starts_with(b"HTTP/1.1 101 "));
    assert!(bytes[end..count] == [&echo[..], &echo, &echo].concat(), "all of it comes back");
}

/// The leases that a handshake takes are refused one after the other: it ends, and nobody else.
#[rstest]
#[case::in_one_piece(&[])]
#[case::in_two(&[20])]
#[case::longer_than_at_first(&[20, 1500])]
#[case::with_much_behind_it(&[20, 4000, 5000])]
fn a_handshake_without_memory_costs_nobody_else(#[case] cuts: &[usize]) {
    let padding = format!("X-Padding: {}\r\n\r\n", "x".repeat(3000));
    let mut bytes = request("/later");
    bytes.truncate(bytes.len() - 2);
    bytes.extend(padding.as_bytes());
    bytes.extend(frame(&"x".repeat(5000)).0);
    let mut refused = 0;
    for successes in 0.. {
        let arena = Arena::new(ArenaConfig { capacity_bytes: 16 << 20, ..ArenaConfig::default() });
        let pool = Rc::new(FailingPool::new(arena.expect("there is address space")));
        let token = Token::default();
        let handler = Answers { token: Rc::clone(&token) };
        let bench = Bench::with_pool(&Config::default(), pool.clone(), |_| handler).route("/{x}");
        pool.fail_after(successes);
        let mut peer = sent(&bench, &bytes[..cuts.first().copied().unwrap_or(bytes.len())]);
        for (at, cut) in cuts.iter().enumerate() {
            let end = cuts.get(at + 1).copied().unwrap_or(bytes.len());
            // Whoever is cut off may notice it here.
            let _ = peer.write(&bytes[*cut..end]);
            bench.advance(Duration::ZERO);
        }
        if let Some(token) = token.get() {
            bench.run(|shard| shard.answer(token, Upgrade::accept(1_u32)));
        }
        let answer = read(&mut peer);
        let was_refused = pool.calls() > successes;
        let has_echo = answer.starts_with("HTTP/1.1 101 ") && answer.len() > 5000;
        assert_eq!(has_echo, !was_refused, "{successes}: {answer:.60}");
        drop(peer);
        assert_eq!(bench.shard_stats().connections, 0, "{successes}");
        if !was_refused {
            break;
        }
        refused += 1;
        let mut next = sent(&bench, &request("/busy"));
        assert!(read(&mut next).starts_with("HTTP/1.1 429 "), "there is memory again");
    }
    assert!(refused >= 2, "it takes {refused} leases");
}
