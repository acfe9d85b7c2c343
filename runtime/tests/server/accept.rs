//! Accepting, and what happens where there is no room.

use std::time::Instant;

use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, PATIENCE, address, handshake, start};
use crate::handler::Echo;

#[rstest]
fn a_full_shard_accepts_again_when_a_connection_closes(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
) {
    let server = start(
        reactor,
        |config| config.limits.connections_max = 3,
        |server| server.websocket("/", |_| Echo),
    );
    let mut clients: Vec<_> = (0..3).map(|_| Client::open(&server, "/")).collect();
    // Each of these finds the shard full; it is dropped, or waits in the backlog.
    let mut waiting: Vec<_> = (0..5).map(|_| Client::raw(&server)).collect();
    for client in &mut waiting {
        client.try_write(handshake("/", "").as_bytes());
    }
    for client in &mut clients {
        client.send(Opcode::Text, b"undisturbed");
        assert_eq!(client.read_frame().payload, b"undisturbed");
    }
    drop(clients);
    drop(waiting);
    let began = Instant::now();
    let mut late = loop {
        assert!(began.elapsed() < PATIENCE, "nobody is let in any more");
        let mut client = Client::raw(&server);
        client.try_write(handshake("/", "").as_bytes());
        let mut first = [0];
        if matches!(std::io::Read::read(&mut client.stream, &mut first), Ok(1)) {
            break client;
        }
    };
    assert!(late.read_head().starts_with("TTP/1.1 101 "));
    server.stop().unwrap();
}

#[rstest]
fn resets_before_and_after_accept_harm_nobody(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut honest = Client::open(&server, "/");
    for round in 0..300 {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.connect(&address(&server).into()).unwrap();
        if round % 3 == 0 {
            socket.send(b"GET / HT").unwrap();
        }
        // With a linger time of zero, closing sends a reset.
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
    honest.send(Opcode::Text, b"unharmed");
    assert_eq!(honest.read_frame().payload, b"unharmed");
    let mut late = Client::open(&server, "/");
    late.send(Opcode::Text, b"welcome");
    assert_eq!(late.read_frame().payload, b"welcome");
    server.stop().unwrap();
}
