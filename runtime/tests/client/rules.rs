//! The duties of a client once it is open (RFC 6455 sections 5.1, 5.3, 5.5 and 7).

use std::collections::HashSet;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;

use hioload::config::ReactorChoice;
use hioload::ws::{Broken, Connector};
use hioload::{CloseCode, Closed, Violation};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::peer::masked_frame;
use crate::support::{config, connector, pair, stats, until, wait};

#[rstest]
fn every_frame_has_a_mask_of_its_own(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (client, mut line) = pair(&connector);
    let mut masks = HashSet::new();
    for number in 0..50_usize {
        let payload = vec![7; number * 100];
        wait(client.send(payload.clone())).unwrap();
        let frame = line.read_frame();
        assert_eq!((frame.opcode, frame.payload), (Opcode::Binary, payload));
        assert_ne!(frame.mask, [0; 4]);
        masks.insert(frame.mask);
    }
    client.ping(b"there?");
    let ping = line.read_frame();
    assert_eq!((ping.opcode, &*ping.payload), (Opcode::Ping, &b"there?"[..]));
    masks.insert(ping.mask);
    assert_eq!(masks.len(), 51, "a mask was used twice");
}

#[rstest]
fn a_masked_frame_of_a_server_is_answered_with_1002(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (mut client, mut line) = pair(&connector);
    line.write(&masked_frame(Opcode::Text, Some([1, 2, 3, 4]), b"masked"));
    assert_eq!(line.read_close(), 1002);
    let end = wait(client.next()).unwrap();
    let by_us = Closed::Violation(Violation::ServerFrameMasked);
    assert!(matches!(end, Err(Broken::Ended(why)) if why == by_us), "{end:?}");
    assert!(wait(client.next()).is_none());
}

#[rstest]
fn a_ping_is_answered(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (_client, mut line) = pair(&connector);
    for payload in [&b""[..], b"x", &[9; 125]] {
        line.send(Opcode::Ping, payload);
        let pong = line.read_frame();
        assert_eq!((pong.opcode, &*pong.payload), (Opcode::Pong, payload));
    }
}

#[rstest]
fn a_silent_server_is_pinged_and_then_left(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let short = config(reactor, |config| config.websocket.idle_timeout_ms = 200);
    let connector = Connector::start(short).unwrap();
    let (mut client, mut line) = pair(&connector);
    assert_eq!(line.read_frame().opcode, Opcode::Ping);
    assert_eq!(line.read_close(), 1001);
    line.finish(1001);
    let end = wait(client.next()).unwrap();
    assert!(matches!(end, Err(Broken::Ended(Closed::Idle))), "{end:?}");
}

#[rstest]
fn the_server_closes_first(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (mut client, mut line) = pair(&connector);
    line.send(Opcode::Text, b"last words");
    line.send(Opcode::Close, &1000_u16.to_be_bytes());
    assert_eq!(line.read_close(), 1000);
    assert_eq!(wait(client.next()).unwrap().unwrap().text(), Some("last words"));
    assert!(wait(client.next()).is_none(), "a closing handshake is a clean end");
    assert_eq!(client.closed(), Some(Closed::ByPeer(Some(CloseCode::NORMAL))));
    // Section 7.1.1: the connection is the server's to end, so the client waits.
    assert_eq!(stats(&connector).connections, 1);
    line.stream.set_nonblocking(true).unwrap();
    let early = line.stream.read(&mut [0]).expect_err("the client has not ended it");
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    line.stream.set_nonblocking(false).unwrap();
    line.stream.shutdown(Shutdown::Write).unwrap();
    line.expect_end();
    until("the socket is gone", || stats(&connector).connections == 0);
}

#[rstest]
fn a_server_that_never_closes_is_left(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let short = config(reactor, |config| config.websocket.close_timeout_ms = 100);
    let connector = Connector::start(short).unwrap();
    let (mut client, mut line) = pair(&connector);
    line.send(Opcode::Close, &[]);
    let answer = line.read_frame();
    assert_eq!((answer.opcode, answer.payload.len()), (Opcode::Close, 0));
    assert!(wait(client.next()).is_none());
    assert_eq!(client.closed(), Some(Closed::ByPeer(None)));
    line.expect_end();
}

#[rstest]
fn a_broken_connection_is_an_error(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] resets: bool,
) {
    let connector = connector(reactor);
    let (mut client, mut line) = pair(&connector);
    line.send(Opcode::Text, b"so far");
    assert_eq!(wait(client.next()).unwrap().unwrap().text(), Some("so far"));
    if resets {
        socket2::SockRef::from(&line.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
    drop(line);
    let end = wait(client.next()).unwrap();
    assert!(matches!(end, Err(Broken::Ended(Closed::Lost))), "{end:?}");
    assert!(wait(client.next()).is_none());
    assert_eq!(client.closed(), Some(Closed::Lost));
    assert!(wait(client.send("too late")).is_err());
}
