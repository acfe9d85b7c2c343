//! What is asked for, and what is no good answer (RFC 6455 sections 4.1 and 4.2.2).

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use hioload::config::ReactorChoice;
use hioload::ws::{Connect, ConnectError, ResponseError};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::peer::{Peer, frame};
use crate::support::{connector, opening, refusal, stats, until, wait};

#[rstest]
fn the_request_says_what_was_described(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let url = peer.url().replace("/ws", "/chat?room=1");
    let connect = Connect::to(&url)
        .header("Authorization", "Bearer abc")
        .header("Cookie", "a=b")
        .subprotocol("v2")
        .subprotocol("v1")
        .origin("https://a.example");
    let opening = opening(&connector, connect);
    let mut line = peer.accept();
    assert!(line.request.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{}", line.request);
    let host = url.trim_start_matches("ws://").trim_end_matches("/chat?room=1");
    for (name, value) in [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Authorization", "Bearer abc"),
        ("Cookie", "a=b"),
        ("Sec-WebSocket-Protocol", "v2, v1"),
        ("Origin", "https://a.example"),
    ] {
        assert_eq!(line.header(name), value);
    }
    assert!(!line.request.contains("Sec-WebSocket-Extensions"), "{}", line.request);
    let response = line.response("Sec-WebSocket-Protocol: v1\r\n");
    line.write(&response);
    assert_eq!(wait(opening).unwrap().subprotocol().as_deref(), Some("v1"));
}

#[rstest]
fn every_connection_has_a_key_of_its_own(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let keys: HashSet<String> = (0..10)
        .map(|_| {
            let _opening = opening(&connector, Connect::to(peer.url()));
            peer.accept().header("Sec-WebSocket-Key").to_owned()
        })
        .collect();
    assert_eq!(keys.len(), 10, "{keys:?}");
}

/// A response without what makes it good: `ACCEPT` stands for the right key.
const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n";

#[rstest]
#[case::redirect("HTTP/1.1 302 Found\r\nLocation: ws://a.example/\r\n\r\n", "Status(302)")]
#[case::unauthorized("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", "Status(401)")]
#[case::forbidden("HTTP/1.1 403 Forbidden\r\n\r\n", "Status(403)")]
#[case::unavailable("HTTP/1.1 503 Service Unavailable\r\n\r\n", "Status(503)")]
#[case::ok("HTTP/1.1 200 OK\r\n\r\n", "Status(200)")]
#[case::no_upgrade(&GOOD.replace("Upgrade: websocket\r\n", ""), "Response(Upgrade)")]
#[case::other_upgrade(&GOOD.replace("Upgrade: websocket", "Upgrade: h2c"), "Response(Upgrade)")]
#[case::no_connection(&GOOD.replace("Connection: Upgrade\r\n", ""), "Response(Connection)")]
#[case::no_key(&GOOD.replace("Sec-WebSocket-Accept: ACCEPT\r\n", ""), "Response(Accept)")]
#[case::wrong_key(&GOOD.replace("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "Response(Accept)")]
#[case::extension(
    &GOOD.replace("\r\nUpgrade", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\nUpgrade"),
    "Response(Extension(Unoffered))"
)]
#[case::subprotocol(
    &GOOD.replace("\r\nUpgrade", "\r\nSec-WebSocket-Protocol: chat\r\nUpgrade"),
    "Response(Subprotocol)"
)]
#[case::version(&GOOD.replace("HTTP/1.1", "HTTP/1.0"), "Malformed")]
#[case::no_http("220 mail.example ESMTP\r\n\r\n", "Malformed")]
fn a_bad_answer_is_an_error(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[case] response: &str,
    #[case] expected: &str,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let opening = opening(&connector, Connect::to(peer.url()));
    let mut line = peer.accept();
    let response = response.replace("ACCEPT", &line.accept_key());
    let end = if response.contains("\r\n\r\n") { "" } else { "\r\n" };
    line.write(format!("{response}{end}").as_bytes());
    let error = wait(opening).expect_err("it must not open");
    assert!(format!("{error:?}").contains(expected), "{error:?}");
    line.expect_end();
    connector.stop().unwrap();
}

#[rstest]
fn a_huge_head_is_refused_as_soon_as_it_is(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let opening = opening(&connector, Connect::to(peer.url()));
    let mut line = peer.accept();
    line.write(format!("HTTP/1.1 101 Yes\r\nX: {}", "y".repeat(8192)).as_bytes());
    let error = wait(opening).expect_err("it must not open");
    assert!(matches!(error, ConnectError::Response(ResponseError::Malformed(_))), "{error:?}");
    assert!(error.to_string().contains("too large"), "{error}");
}

#[rstest]
fn a_head_may_be_cut_anywhere(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let mut cut = 1;
    loop {
        let opening = opening(&connector, Connect::to(peer.url()));
        let mut line = peer.accept();
        let mut response = line.response("");
        let head_bytes = response.len();
        response.extend(frame(Opcode::Text, b"behind it"));
        let before = stats(&connector).reactor.received_bytes;
        line.write(&response[..cut]);
        until("the first part arrives", || {
            stats(&connector).reactor.received_bytes == before + cut as u64
        });
        line.write(&response[cut..]);
        let mut client = wait(opening).expect("it opens");
        assert_eq!(wait(client.next()).unwrap().unwrap().text(), Some("behind it"));
        cut += 1;
        if cut > head_bytes {
            return;
        }
    }
}

#[rstest]
fn frames_right_behind_the_head_are_not_lost(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let opening = opening(&connector, Connect::to(peer.url()));
    let mut line = peer.accept();
    let mut bytes = line.response("");
    bytes.extend(frame(Opcode::Text, b"first"));
    bytes.extend(frame(Opcode::Ping, b"are you there"));
    bytes.extend(frame(Opcode::Binary, b"second"));
    line.write(&bytes);
    let mut client = wait(opening).unwrap();
    assert_eq!(wait(client.next()).unwrap().unwrap().text(), Some("first"));
    assert_eq!(wait(client.next()).unwrap().unwrap()[..], *b"second");
    let pong = line.read_frame();
    assert_eq!((pong.opcode, &*pong.payload), (Opcode::Pong, &b"are you there"[..]));
}

#[rstest]
fn no_answer_is_waited_for_no_longer_than_asked(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values("", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")] some: &str,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let connect = Connect::to(peer.url()).timeout(Duration::from_millis(100));
    let opening = opening(&connector, connect);
    let mut line = peer.accept();
    line.write(some.as_bytes());
    let error = wait(opening).expect_err("it must not open");
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
    line.expect_end();
}

#[rstest]
fn a_server_that_hangs_up_is_told_apart(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let opening = opening(&connector, Connect::to(peer.url()));
    drop(peer.accept());
    let error = wait(opening).expect_err("it must not open");
    assert!(matches!(error, ConnectError::Dropped { .. }), "{error:?}");
}

#[rstest]
fn nobody_listens(#[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice) {
    let connector = connector(reactor);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    match refusal(&connector, Connect::to(format!("ws://{free}/"))) {
        ConnectError::Io { address, source } => {
            assert_eq!((address, source.kind()), (free, ErrorKind::ConnectionRefused));
        }
        other => panic!("{other:?} instead of a refusal"),
    }
    until("the socket is gone", || stats(&connector).connections == 0);
}

#[rstest]
fn a_name_that_nobody_has(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    // RFC 6761: never there. A resolver that is not reached takes its time to say so.
    let connect = Connect::to("ws://nobody.invalid/").timeout(Duration::from_secs(15));
    match refusal(&connector, connect) {
        ConnectError::Resolve { host, .. } => assert_eq!(host, "nobody.invalid"),
        ConnectError::Timeout { .. } => {}
        other => panic!("{other:?} for a name that is none"),
    }
}

#[test]
fn a_wrong_description_is_known_before_it_is_used() {
    let connector = connector(ReactorChoice::Epoll);
    for connect in [
        Connect::to("http://127.0.0.1/"),
        Connect::to("wss://127.0.0.1/"),
        Connect::to("ws://127.0.0.1/").header("Upgrade", "h2c"),
        Connect::to("ws://127.0.0.1/").header("X", "a\r\nY: b"),
        Connect::to("ws://127.0.0.1/").subprotocol("not a token"),
        Connect::to("ws://127.0.0.1/").origin("a\nb"),
    ] {
        let checked = connect.check().expect_err("it is wrong");
        assert!(!checked.is_temporary());
        assert_eq!(refusal(&connector, connect).to_string(), checked.to_string());
    }
}
