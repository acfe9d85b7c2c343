//! Peers that send too much of what costs more than it says.

use hioload::Running;
use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, PATIENCE, announced, frame, start};
use crate::handler::Echo;

/// Bytes of pool memory that the shard has leased now.
fn pool_bytes(server: &Running) -> usize {
    let (sender, answer) = std::sync::mpsc::channel();
    let look = move |shard: &mut hioload::Shard| {
        sender.send(shard.stats().pool.in_use_bytes).expect("the test listens");
    };
    server.handles()[0].run(look).unwrap();
    answer.recv_timeout(PATIENCE).unwrap()
}

#[rstest]
fn a_header_pins_no_memory(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut clients: Vec<_> = (0..100).map(|_| Client::open(&server, "/")).collect();
    let before = pool_bytes(&server);
    for client in &mut clients {
        client.write(&announced(true, Opcode::Binary, 1 << 20));
    }
    // A later answer on each connection's shard shows that the headers have been read.
    let mut honest = Client::open(&server, "/");
    honest.send(Opcode::Text, b"read");
    assert_eq!(honest.read_frame().payload, b"read");
    let pinned = pool_bytes(&server).saturating_sub(before);
    assert!(pinned <= 100 * 64 * 1024, "100 headers of 14 bytes pin {pinned} bytes");
    server.stop().unwrap();
}

#[rstest]
#[case::fragments(frame(false, Opcode::Continuation, b""))]
#[case::pings(frame(true, Opcode::Ping, b""))]
#[case::pongs(frame(true, Opcode::Pong, b""))]
fn a_flood_of_overhead_is_a_1008(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[case] overhead: Vec<u8>,
) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    client.write(&frame(false, Opcode::Text, b"never ends"));
    let stream = client.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let burst = overhead.repeat(1000);
            for _ in 0..200 {
                if std::io::Write::write_all(&mut &stream, &burst).is_err() {
                    return;
                }
            }
        });
        assert_eq!(client.read_close(), 1008);
        client.read_to_end();
    });
    server.stop().unwrap();
}

#[rstest]
fn a_message_of_too_many_fragments_is_a_1008(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(
        reactor,
        |config| config.websocket.fragments_max = 10,
        |server| server.websocket("/", |_| Echo),
    );
    let mut client = Client::open(&server, "/");
    client.write(&frame(false, Opcode::Text, b"0"));
    for _ in 0..10 {
        client.try_write(&frame(false, Opcode::Continuation, b"more"));
    }
    assert_eq!(client.read_close(), 1008);
    server.stop().unwrap();
}

#[rstest]
fn a_message_that_takes_too_long_is_a_1008(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(
        reactor,
        |config| config.websocket.message_age_ms_max = 100,
        |server| server.websocket("/", |_| Echo),
    );
    let mut client = Client::open(&server, "/");
    client.write(&frame(false, Opcode::Text, b"begun"));
    assert_eq!(client.read_close(), 1008);
    server.stop().unwrap();
}

#[rstest]
fn pings_of_a_peer_that_does_not_read_cost_bounded_memory(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
) {
    let server = start(
        reactor,
        |config| config.websocket.overhead_budget_bytes = u32::MAX,
        |server| server.websocket("/", |_| Echo),
    );
    let mut client = Client::open(&server, "/");
    let before = pool_bytes(&server);
    client.stream.set_nonblocking(true).unwrap();
    let burst = frame(true, Opcode::Ping, &[7; 125]).repeat(500);
    // Until the kernel's buffers are full, or 64 MB of pings were taken.
    for _ in 0..1000 {
        match std::io::Write::write(&mut client.stream, &burst) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::yield_now();
            }
            Err(_) => break,
        }
    }
    let pinned = pool_bytes(&server).saturating_sub(before);
    assert!(pinned <= 512 * 1024, "unread pongs pin {pinned} bytes");
    server.stop().unwrap();
}
