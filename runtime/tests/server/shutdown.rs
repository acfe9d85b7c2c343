//! The end of a server.

use std::time::{Duration, Instant};

use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, address, start};
use crate::handler::Echo;

#[rstest]
fn every_session_gets_a_1001(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let address = address(&server);
    let mut clients: Vec<_> = (0..50).map(|_| Client::open(&server, "/")).collect();
    let unfinished = Client::raw(&server);
    let stopping = std::thread::spawn(move || server.stop());
    for client in &mut clients {
        assert_eq!(client.read_close(), 1001);
        client.send_close(1001);
        assert_eq!(client.read_to_end(), b"");
    }
    stopping.join().unwrap().unwrap();
    drop(unfinished);
    std::net::TcpStream::connect(address).expect_err("nobody listens any more");
}

#[rstest]
fn what_was_sent_before_the_end_arrives(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    client.send(Opcode::Binary, &vec![3; 1 << 20]);
    let first = client.read_frame();
    client.send(Opcode::Text, b"last");
    assert_eq!(client.read_frame().payload, b"last");
    let stopping = std::thread::spawn(move || server.stop());
    assert_eq!(client.read_close(), 1001);
    client.send_close(1001);
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(first.payload.len(), 1 << 20);
    stopping.join().unwrap().unwrap();
}

#[rstest]
fn peers_that_do_not_answer_are_left_at_the_deadline(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
) {
    let server = start(
        reactor,
        |config| {
            config.shutdown.drain_ms = 300;
            config.websocket.close_timeout_ms = 60_000;
        },
        |server| server.websocket("/", |_| Echo),
    );
    let _deaf: Vec<_> = (0..10).map(|_| Client::open(&server, "/")).collect();
    let began = Instant::now();
    server.stop().unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(250), "it left after {took:?}");
    assert!(took < Duration::from_secs(10), "it waited for {took:?}");
}
