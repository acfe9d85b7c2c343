//! Peers that want too much.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::sync::mpsc;

use hioload::Shard;
use hioload::config::ReactorChoice;
use hioload::iproto::{CloseReason, Closed, Header, PING, Request, Session, Violation};
use hioload::ws::block_on;
use rstest::rstest;

use crate::support::{
    PATIENCE, Peer, Recorder, Told, ask, channel_to_the_test, echo, next, packet, record, start,
};

fn silent(_: &mut Shard, _: &mut Session<'_, ()>, request: Request) {
    request.reply.discard();
}

#[rstest]
fn a_giant_claim_ends_the_connection_at_its_header(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(reactor, |_| {}, silent);
    let limit = 16 << 20;
    for len in [limit + 1, 100_000_000, u32::MAX] {
        let mut peer = Peer::connect(&server);
        peer.write(&Header { msg: 1, len, sync: 1 }.encode());
        assert_eq!(peer.try_read(), None);
        let violation = Violation::BodyTooBig { len, limit: limit as usize };
        let reason = Closed::Protocol(CloseReason::Failed(violation));
        assert_eq!(next(&told), Told::Closed(reason));
    }
    assert_eq!(ask(&server, |shard| shard.stats().counters.violations), 3);
    server.stop().unwrap();
}

#[rstest]
fn a_claim_pins_no_memory(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(0, 1, 100)] sent: usize,
) {
    const PEERS: usize = 50;
    let server = start(reactor, |_| {}, echo);
    let before = ask(&server, |shard| shard.stats().pool.in_use_bytes);
    let mut peers: Vec<_> = (0..PEERS).map(|_| Peer::connect(&server)).collect();
    for peer in &mut peers {
        // Behind a ping, so that what was read is known.
        peer.send(PING, 1, b"");
        assert_eq!(peer.read().msg, PING);
        peer.write(&Header { msg: 1, len: 16 << 20, sync: 1 }.encode());
        peer.write(&vec![7; sent]);
    }
    let read = |shard: &mut Shard| shard.stats().pool.in_use_bytes;
    let after = ask(&server, read);
    let pinned = after.saturating_sub(before);
    let bound = PEERS * 64 * 1024 + (1 << 20);
    assert!(pinned <= bound, "{PEERS} claims of 16 MiB pin {pinned} bytes");
    server.stop().unwrap();
}

#[rstest]
fn garbage_harms_nobody_else(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, echo);
    let mut good = Peer::connect(&server);
    let mut state = 7_u64;
    let mut random = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) as u8
    };
    for round in 0..50 {
        let mut bad = Peer::connect(&server);
        let garbage: Vec<u8> = (0..4096).map(|_| random()).collect();
        // It may be closed before all of that is written.
        let _ = bad.stream.write_all(&garbage);
        drop(bad);
        assert_eq!(good.call(1, round + 1, b"still served"), b"still served");
    }
    let mut http = Peer::connect(&server);
    http.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(http.try_read(), None, "a length of 0x50545448 is too much");
    assert_eq!(ask(&server, |shard| shard.stats().counters.panics), 0);
    server.stop().unwrap();
}

#[rstest]
fn too_many_open_requests_end_the_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (tell, told) = mpsc::channel();
    let server = start(
        reactor,
        |config| config.iproto.requests_max = 100,
        move |_| {
            let mut kept = Vec::new();
            let keep = move |_: &mut Shard, _: &mut Session<'_, ()>, request: Request| {
                kept.push(request.reply);
            };
            Recorder(keep, tell.clone())
        },
    );
    let mut peer = Peer::connect(&server);
    for sync in 1..=100 {
        peer.send(1, sync, b"");
    }
    peer.send(PING, 1, b"");
    assert_eq!(peer.read().msg, PING);
    peer.send(1, 101, b"");
    assert_eq!(peer.try_read(), None);
    let violation = Violation::TooManyRequests { limit: 100 };
    assert_eq!(next(&told), Told::Closed(Closed::Protocol(CloseReason::Failed(violation))));
    server.stop().unwrap();
}

#[rstest]
fn a_packet_that_takes_too_long_ends_the_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(reactor, |config| config.iproto.packet_age_ms_max = 100, silent);
    let mut peer = Peer::connect(&server);
    peer.write(&packet(1, 1, b"begun")[..14]);
    assert_eq!(peer.try_read(), None);
    assert_eq!(next(&told), Told::Closed(Closed::Protocol(CloseReason::PacketTooOld)));
    server.stop().unwrap();
}

#[rstest]
fn a_wrong_length_is_followed_to_the_letter(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(
        reactor,
        |_| {},
        |_: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            session.reply(request.reply, request.body);
        },
    );
    // Too short: what is left of the body is a header, which claims too much.
    let mut short = Peer::connect(&server);
    short.write(&[&Header { msg: 1, len: 4, sync: 1 }.encode()[..], &[b'a'; 16]].concat());
    assert_eq!(short.read().body, b"aaaa");
    assert_eq!(short.try_read(), None);
    let violation = Violation::BodyTooBig { len: u32::from_le_bytes(*b"aaaa"), limit: 16 << 20 };
    assert_eq!(next(&told), Told::Closed(Closed::Protocol(CloseReason::Failed(violation))));
    // Too long: the next packet is a part of the body.
    let mut long = Peer::connect(&server);
    long.write(&Header { msg: 1, len: 14, sync: 1 }.encode());
    long.write(&[b"hi", &Header { msg: 1, len: 0, sync: 2 }.encode()[..]].concat());
    let answer = long.read();
    assert_eq!((answer.sync, answer.body.len()), (1, 14));
    assert_eq!(long.call(1, 3, b"in step again"), b"in step again");
    server.stop().unwrap();
}

#[rstest]
fn half_a_packet_and_a_fin_end_the_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(0, 1, 11, 12, 16)] sent: usize,
) {
    let (server, told) = record(reactor, |_| {}, silent);
    let mut peer = Peer::connect(&server);
    peer.write(&packet(1, 1, b"never whole")[..sent]);
    peer.stream.shutdown(Shutdown::Write).unwrap();
    peer.read_to_end();
    assert_eq!(next(&told), Told::Closed(Closed::ByPeer));
    assert_eq!(ask(&server, |shard| shard.stats().counters.panics), 0);
    server.stop().unwrap();
}

#[rstest]
fn a_response_nobody_asked_for_is_a_request_where_requests_are_served(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    // On the wire they look the same, and a request is answered.
    let server = start(reactor, |_| {}, echo);
    let mut peer = Peer::connect(&server);
    assert_eq!(peer.call(42, 4_000_000_000, b"you asked for this"), b"you asked for this");
    // The connection of a channel serves nobody: it counts them, and goes on.
    let (connector, channel, mut peer) = channel_to_the_test(reactor, |_| {});
    let call = channel.call(7, "?");
    let asked = peer.read();
    peer.send(7, asked.sync + 1, b"of nobody");
    peer.send(8, asked.sync, b"of another code");
    peer.send(7, asked.sync, b"mine");
    assert_eq!(block_on(call).unwrap(), "mine");
    peer.send(7, asked.sync, b"twice");
    let call = channel.call(9, "go on?");
    let asked = peer.read();
    assert_eq!((asked.msg, &*asked.body), (9, &b"go on?"[..]), "and nothing was answered");
    peer.send(9, asked.sync, b"on");
    assert_eq!(block_on(call).unwrap(), "on");
    let stats = channel.stats();
    assert_eq!((stats.unsolicited, stats.requests_in), (3, 0));
    connector.stop().unwrap();
    server.stop().unwrap();
}

/// Writes as much as the server takes; answers how much.
fn flood(peer: &mut Peer, request: &[u8]) -> usize {
    peer.stream.set_nonblocking(true).unwrap();
    let (mut taken, mut stuck) = (0, 0);
    let mut rest = request;
    while stuck < 20 && taken < 400 << 20 {
        match peer.stream.write(rest) {
            Ok(count) => {
                (taken, stuck) = (taken + count, 0);
                rest = if count == rest.len() { request } else { &rest[count..] };
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stuck += 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(_) => break,
        }
    }
    peer.stream.set_nonblocking(false).unwrap();
    taken
}

#[rstest]
fn a_peer_that_never_reads_is_not_read_from(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(0, 10_000)] len: usize,
) {
    let (server, told) = record(
        reactor,
        |config| config.websocket.progress_timeout_ms = 2000,
        |_: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            session.reply(request.reply, request.body);
        },
    );
    let before = ask(&server, |shard| shard.stats().pool.in_use_bytes);
    let mut peer = Peer::connect(&server);
    // The sync of each is the same: nothing in the protocol forbids that.
    let msg = if len == 0 { PING } else { 1 };
    let script: Vec<u8> =
        (0..1 + 65_536 / (len + 12)).flat_map(|_| packet(msg, 1, &vec![7; len])).collect();
    let taken = flood(&mut peer, &script);
    let pinned = ask(&server, |shard| shard.stats().pool.in_use_bytes).saturating_sub(before);
    assert!(taken < 64 << 20, "{taken} bytes of a peer that never reads were taken");
    assert!(pinned < 20 << 20, "it pins {pinned} bytes");
    let reason = told.recv_timeout(PATIENCE).expect("it is given up");
    assert_eq!(reason, Told::Closed(Closed::Stalled));
    server.stop().unwrap();
}
