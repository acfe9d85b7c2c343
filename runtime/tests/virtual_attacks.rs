//! Honest clients beside attacks in virtual time: nobody's answer waits for a clock because of what
//! others do. Here computing takes no time, so what is seen is waiting alone: for a timeout, for
//! accepting that was paused, for reading that was held back.

use std::io::{Read, Write};
use std::time::Duration;

use hioload::config::Config;
use hioload::testkit::{Bench, FakeHandler, Peer, Received, TestClient};
use rstest::rstest;

const HONEST: usize = 8;
const STEP: Duration = Duration::from_millis(1);
/// Of each run.
const STEPS: u64 = 400;
const KEPT_MAX: usize = 24;
const HANDSHAKE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

type Attack = fn(&Bench, &mut Vec<Peer>);

fn connect(bench: &Bench, kept: &mut Vec<Peer>, says: &[&[u8]]) {
    let Ok(mut peer) = bench.net().connect(80) else { return };
    for bytes in says {
        let _ = peer.write(bytes);
        bench.advance(Duration::ZERO);
    }
    if kept.len() == KEPT_MAX {
        kept.remove(0);
    }
    kept.push(peer);
}

fn trickle(kept: &mut [Peer], bytes: &[u8]) {
    kept.iter_mut().for_each(|peer| drop(peer.write(bytes)));
}

fn nothing(_: &Bench, _: &mut Vec<Peer>) {}

fn silent_connections(bench: &Bench, kept: &mut Vec<Peer>) {
    connect(bench, kept, &[]);
}

fn slow_handshakes(bench: &Bench, kept: &mut Vec<Peer>) {
    trickle(kept, b"a");
    connect(bench, kept, &[b"GET /"]);
}

fn header_bombs(bench: &Bench, kept: &mut Vec<Peer>) {
    connect(bench, kept, &[b"GET / HTTP/1.1\r\n", &b"X: bomb\r\n".repeat(2000)]);
}

fn half_open_peers(bench: &Bench, kept: &mut Vec<Peer>) {
    connect(bench, kept, &[HANDSHAKE]);
}

fn empty_fragments(bench: &Bench, kept: &mut Vec<Peer>) {
    connect(bench, kept, &[HANDSHAKE, b"\x01\x80\0\0\0\0", &b"\x00\x80\0\0\0\0".repeat(5000)]);
}

fn pings(bench: &Bench, kept: &mut Vec<Peer>) {
    connect(bench, kept, &[HANDSHAKE, &b"\x89\x80\0\0\0\0".repeat(2000)]);
}

fn deaf_peers(bench: &Bench, kept: &mut Vec<Peer>) {
    bench.net().set_window(1024);
    let message = [&b"\x82\xfe\x3f\xff\0\0\0\0"[..], &[0; 0x3fff]].concat();
    connect(bench, kept, &[HANDSHAKE]);
    trickle(kept, &message);
}

fn dripping_closes(bench: &Bench, kept: &mut Vec<Peer>) {
    kept.iter_mut().for_each(|peer| drop(peer.read(&mut [0])));
    bench.net().set_window(64);
    connect(bench, kept, &[HANDSHAKE, b"\x88\x80\0\0\0\0"]);
}

fn resets(bench: &Bench, kept: &mut Vec<Peer>) {
    connect(bench, kept, &[HANDSHAKE]);
    connect(bench, kept, &[]);
    kept.drain(..).for_each(Peer::reset);
}

fn failing_accepts(bench: &Bench, kept: &mut Vec<Peer>) {
    const EMFILE: i32 = 24;
    bench.net().fail_accept(EMFILE);
    connect(bench, kept, &[HANDSHAKE]);
}

/// How long the answers of honest clients took, from the shortest.
fn latencies(attack: Attack) -> Vec<Duration> {
    let mut config = Config::default();
    config.limits.connections_max = 64;
    config.limits.handshakes_max = 8;
    config.limits.handshake_timeout_ms = 50;
    config.websocket.message_bytes_max = 64 * 1024;
    config.websocket.close_timeout_ms = 50;
    config.websocket.progress_timeout_ms = 100;
    let bench = Bench::with_config(&config, |_| FakeHandler::new());
    let open = || bench.connect("/").expect("the bench accepts");
    let mut honest: Vec<(TestClient, _)> = (0..HONEST).map(|_| (open(), None)).collect();
    let (mut kept, mut latencies) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        attack(&bench, &mut kept);
        for (client, asked_at) in &mut honest {
            if asked_at.is_none() {
                *asked_at = Some(bench.now());
                client.send_text("honest");
            }
            while let Some(received) = client.receive() {
                assert_eq!(received, Received::Text("honest".to_owned()));
                let asked_at = asked_at.take().expect("it asked");
                latencies.push(bench.now().since(asked_at));
            }
        }
        bench.advance(STEP);
    }
    latencies.sort_unstable();
    latencies
}

fn p99(latencies: &[Duration]) -> Duration {
    latencies[latencies.len() * 99 / 100]
}

#[rstest]
#[case::silent_connections(silent_connections)]
#[case::slow_handshakes(slow_handshakes)]
#[case::header_bombs(header_bombs)]
#[case::half_open_peers(half_open_peers)]
#[case::empty_fragments(empty_fragments)]
#[case::pings(pings)]
#[case::deaf_peers(deaf_peers)]
#[case::dripping_closes(dripping_closes)]
#[case::resets(resets)]
#[case::failing_accepts(failing_accepts)]
fn honest_answers_take_at_most_twice_as_long(#[case] attack: Attack) {
    let (quiet, attacked) = (latencies(nothing), latencies(attack));
    assert!(attacked.len() >= quiet.len() / 2, "{} answers of {}", attacked.len(), quiet.len());
    let (quiet, attacked) = (p99(&quiet), p99(&attacked));
    println!("p99: {quiet:?} quiet, {attacked:?} under attack");
    assert!(attacked <= 2 * quiet, "{quiet:?} quiet, {attacked:?} under attack");
}
