//! From accept to 101: who is let in, and what becomes of those who are not.

use std::io::Read;
use std::time::{Duration, Instant};

use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, frame, handshake, start};
use crate::handler::Echo;

#[rstest]
#[case::junk_key("", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: x", 400)]
#[case::version("", "Version: 13", "Version: 8", 426)]
#[case::body("", "Host: test", "Host: test\r\nContent-Length: 5", 413)]
#[case::chunked("", "Host: test", "Host: test\r\nTransfer-Encoding: chunked", 400)]
#[case::two_hosts("", "Host: test", "Host: test\r\nHost: other", 400)]
#[case::bare_line_feed("", "Host: test\r\n", "Host: test\n", 400)]
#[case::old_http("", "HTTP/1.1", "HTTP/1.0", 505)]
#[case::post("", "GET ", "POST ", 405)]
#[case::foreign_page("Origin: http://evil.example\r\n", "", "", 403)]
#[case::no_page_at_all("Origin: null\r\n", "", "", 403)]
fn what_is_refused_is_refused_whole(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[case] headers: &str,
    #[case] good: &str,
    #[case] bad: &str,
    #[case] status: u16,
) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::raw(&server);
    let mut request = handshake("/", headers);
    if !good.is_empty() {
        request = request.replacen(good, bad, 1);
    }
    client.write(request.as_bytes());
    // A smuggled second request must never be answered.
    client.try_write(handshake("/", "").as_bytes());
    let head = client.read_head();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    let body = client.read_to_end();
    let length = head.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    assert_eq!(body.len().to_string(), length, "nothing comes behind a refusal");
    server.stop().unwrap();
}

#[rstest]
fn a_head_may_come_byte_by_byte(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::raw(&server);
    for byte in handshake("/", "").bytes() {
        client.write(&[byte]);
    }
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    server.stop().unwrap();
}

#[rstest]
fn a_client_need_not_wait_for_the_101(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::raw(&server);
    let mut bytes = handshake("/", "").into_bytes();
    bytes.extend(frame(true, Opcode::Text, b"early"));
    client.write(&bytes);
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.read_frame().payload, b"early");
    server.stop().unwrap();
}

#[rstest]
#[case::too_long(format!("X: {}\r\n", "a".repeat(9000)))]
#[case::too_many("X: a\r\n".repeat(65))]
fn a_head_beyond_the_limits_is_a_431(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[case] headers: String,
) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::raw(&server);
    client.try_write(handshake("/", &headers).as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 431 "));
    client.read_to_end();
    server.stop().unwrap();
}

#[rstest]
fn the_deadline_is_absolute(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(
        reactor,
        |config| config.limits.handshake_timeout_ms = 200,
        |server| server.websocket("/", |_| Echo),
    );
    let began = Instant::now();
    let mut client = Client::raw(&server);
    // A byte every few milliseconds, for ever: a timeout that each of them renewed never fires.
    client.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let ended = handshake("/", &"X: a\r\n".repeat(60)).bytes().any(|byte| {
        let written = client.try_write(&[byte]);
        !written || matches!(client.stream.read(&mut [0]), Ok(0))
    });
    assert!(ended, "the server waited for ever");
    // The shard counts whole milliseconds.
    assert!(began.elapsed() >= Duration::from_millis(199));
    server.stop().unwrap();
}

#[rstest]
fn the_oldest_unfinished_handshake_makes_room(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(
        reactor,
        |config| {
            config.limits.handshakes_max = 4;
            config.limits.handshake_timeout_ms = 60_000;
        },
        |server| server.websocket("/", |_| Echo),
    );
    let mut idle: Vec<_> = (0..10).map(|_| Client::raw(&server)).collect();
    // An honest client gets in although all places are taken.
    let mut honest = Client::open(&server, "/");
    honest.send(Opcode::Text, b"in");
    assert_eq!(honest.read_frame().payload, b"in");
    for client in &mut idle[..7] {
        assert_eq!(client.read_to_end(), b"");
    }
    // The youngest ones were not harmed.
    let last = idle.last_mut().unwrap();
    last.write(handshake("/", "").as_bytes());
    assert!(last.read_head().starts_with("HTTP/1.1 101 "));
    server.stop().unwrap();
}
