//! Pings, and the end of a connection from either side.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use hioload::Shard;
use hioload::config::ReactorChoice;
use hioload::iproto::{CloseReason, Closed, PING, Request, SHUTDOWN, Session};
use rstest::rstest;

use crate::support::{PATIENCE, Packet, Peer, Told, echo, next, record, start};

fn empty(msg: u32, sync: u32) -> Packet {
    Packet { msg, sync, body: Vec::new() }
}

#[rstest]
fn pings_are_answered(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, echo);
    let mut peer = Peer::connect(&server);
    for (sync, body) in [(0, &b""[..]), (7, b""), (9, b"with a body")] {
        peer.send(PING, sync, body);
        assert_eq!(peer.read(), empty(PING, sync));
    }
    server.stop().unwrap();
}

#[rstest]
fn a_peer_is_pinged_and_given_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let answer = |_: &mut Shard, _: &mut Session<'_, ()>, _: Request| {};
    let (server, told) = record(reactor, |config| config.iproto.ping_interval_ms = 50, answer);
    let began = Instant::now();
    let mut peer = Peer::connect(&server);
    assert_eq!(peer.read(), empty(PING, 0));
    peer.send(PING, 0, b"");
    assert_eq!(peer.read(), empty(PING, 0));
    // This one stays without an answer.
    assert_eq!(peer.try_read(), None);
    // Four intervals in all, but for the milliseconds that ticks are cut to.
    assert!(began.elapsed() >= Duration::from_millis(190), "it had two intervals for that");
    assert_eq!(next(&told), Told::Closed(Closed::Protocol(CloseReason::PingTimeout)));
    server.stop().unwrap();
}

#[rstest]
fn an_idle_connection_ends(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let answer = |_: &mut Shard, _: &mut Session<'_, ()>, _: Request| {};
    let (server, told) = record(reactor, |config| config.iproto.idle_timeout_ms = 50, answer);
    assert_eq!(Peer::connect(&server).try_read(), None);
    assert_eq!(next(&told), Told::Closed(Closed::Protocol(CloseReason::IdleTimeout)));
    server.stop().unwrap();
}

#[rstest]
fn a_peer_shuts_down_and_gets_its_answers_first(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (kept, replies) = mpsc::channel();
    let (server, told) = record(
        reactor,
        |config| config.iproto.shutdown_timeout_ms = PATIENCE.as_millis() as u64,
        move |shard: &mut Shard, _: &mut Session<'_, ()>, request: Request| {
            kept.send(request.reply.into_remote(shard)).unwrap();
        },
    );
    let mut peer = Peer::connect(&server);
    peer.send(3, 1, b"");
    peer.send(SHUTDOWN, 0, b"");
    assert_eq!(next(&told), Told::Shutdown);
    replies.recv_timeout(PATIENCE).unwrap().send("the last answer");
    assert_eq!(peer.read(), Packet { msg: 3, sync: 1, body: b"the last answer".to_vec() });
    assert_eq!(peer.read(), empty(SHUTDOWN, 0));
    assert_eq!(peer.try_read(), None);
    assert_eq!(next(&told), Told::Closed(Closed::ByPeer));
    server.stop().unwrap();
}

#[rstest]
fn a_handler_shuts_down_behind_its_calls(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(
        reactor,
        |config| config.iproto.shutdown_timeout_ms = PATIENCE.as_millis() as u64,
        |_: &mut Shard, session: &mut Session<'_, ()>, request: Request| {
            session.call(5, "?", None, 1).unwrap();
            session.shutdown();
            assert!(!session.is_open());
            assert!(session.call(5, "?", None, 2).is_err(), "no new calls");
            session.reply(request.reply, "going");
        },
    );
    let mut peer = Peer::connect(&server);
    peer.send(3, 1, b"");
    let (question, answer) = (peer.read(), peer.read());
    assert_eq!((question.msg, &*answer.body), (5, &b"going"[..]));
    peer.send(5, question.sync, b"!");
    assert_eq!(next(&told), Told::Answered(1, Ok(b"!".to_vec())));
    assert_eq!(peer.read(), empty(SHUTDOWN, 0));
    peer.send(SHUTDOWN, 0, b"");
    assert_eq!(peer.try_read(), None);
    assert_eq!(next(&told), Told::Closed(Closed::ByHandler));
    server.stop().unwrap();
}

#[rstest]
fn the_end_of_the_server_is_a_shutdown_of_each_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let answer = |_: &mut Shard, _: &mut Session<'_, ()>, _: Request| {};
    let (server, told) = record(reactor, |config| config.iproto.shutdown_timeout_ms = 200, answer);
    let (mut good, mut deaf) = (Peer::connect(&server), Peer::connect(&server));
    good.send(PING, 1, b"");
    deaf.send(PING, 1, b"");
    assert_eq!((good.read(), deaf.read()), (empty(PING, 1), empty(PING, 1)));
    let stopping = std::thread::spawn(move || server.stop());
    assert_eq!(good.read(), empty(SHUTDOWN, 0));
    good.send(SHUTDOWN, 0, b"");
    assert_eq!(good.try_read(), None);
    assert_eq!(next(&told), Told::Closed(Closed::Shutdown));
    // Who says nothing to it is left when the time is over.
    assert_eq!(deaf.read(), empty(SHUTDOWN, 0));
    assert_eq!(deaf.try_read(), None);
    assert_eq!(next(&told), Told::Closed(Closed::Shutdown));
    stopping.join().unwrap().unwrap();
}
