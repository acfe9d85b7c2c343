//! Messages of every size and shape come back as they were.

use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, announced, frame, start};
use crate::handler::Echo;

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 % 253) as u8).collect()
}

#[rstest]
fn messages_of_every_size_come_back(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[values(0, 1, 125, 126, 2048, 2049, 65_535, 65_536, 131_072, 1_048_575, 1_048_576)] len: usize,
) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    for _ in 0..3 {
        let sent = payload(len);
        let stream = client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            let bytes = frame(true, Opcode::Binary, &sent);
            scope.spawn(move || std::io::Write::write_all(&mut &stream, &bytes).unwrap());
            let echo = client.read_frame();
            assert_eq!(echo.opcode, Opcode::Binary);
            assert!(echo.payload == sent, "{len} bytes came back changed");
        });
    }
    server.stop().unwrap();
}

#[rstest]
fn a_message_is_the_same_wherever_it_is_cut(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    let whole = frame(true, Opcode::Text, "cut anywhere: äöü€😀".as_bytes());
    for cut in 1..whole.len() {
        client.write(&whole[..cut]);
        // A ping cannot go into the middle of a frame: only the arrival of what came before can
        // be told, by another connection that is answered after it.
        Client::open(&server, "/");
        client.write(&whole[cut..]);
        assert_eq!(client.read_frame().payload, "cut anywhere: äöü€😀".as_bytes());
    }
    server.stop().unwrap();
}

#[rstest]
fn fragments_are_joined_and_pings_go_between(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    client.write(&frame(false, Opcode::Text, b"one "));
    client.send(Opcode::Ping, b"alive?");
    client.write(&frame(false, Opcode::Continuation, b""));
    client.write(&frame(true, Opcode::Continuation, b"message"));
    let pong = client.read_frame();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (Opcode::Pong, &b"alive?"[..]));
    let echo = client.read_frame();
    assert_eq!((echo.opcode, echo.payload.as_slice()), (Opcode::Text, &b"one message"[..]));
    server.stop().unwrap();
}

#[rstest]
fn a_thousand_pipelined_messages_come_back_in_order(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    let mut bytes = Vec::new();
    for number in 0..1000u32 {
        bytes.extend(frame(true, Opcode::Binary, &number.to_be_bytes()));
    }
    client.write(&bytes);
    for number in 0..1000u32 {
        assert_eq!(client.read_frame().payload, number.to_be_bytes());
    }
    server.stop().unwrap();
}

#[rstest]
fn large_and_small_messages_keep_their_order(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    let sizes = [20, 200_000, 5, 70_000, 0, 500_000, 3000, 1_000_000, 1];
    let stream = client.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for len in sizes {
                let bytes = frame(true, Opcode::Binary, &payload(len));
                std::io::Write::write_all(&mut &stream, &bytes).unwrap();
            }
        });
        for len in sizes {
            let echo = client.read_frame();
            assert!(echo.payload == payload(len), "{len} bytes came back changed");
        }
    });
    server.stop().unwrap();
}

#[rstest]
#[case::unmasked(b"\x81\x01a".to_vec(), 1002)]
#[case::reserved_bit(b"\xc1\x80\0\0\0\0".to_vec(), 1002)]
#[case::reserved_opcode(b"\x83\x80\0\0\0\0".to_vec(), 1002)]
#[case::continuation_of_nothing(frame(true, Opcode::Continuation, b"x"), 1002)]
#[case::fragmented_ping(frame(false, Opcode::Ping, b"x"), 1002)]
#[case::bad_utf8(frame(true, Opcode::Text, b"\xff"), 1007)]
#[case::bad_close_code(frame(true, Opcode::Close, &1005u16.to_be_bytes()), 1002)]
#[case::too_large(announced(true, Opcode::Binary, (1 << 20) + 1), 1009)]
#[case::absurdly_large(announced(true, Opcode::Binary, u64::MAX >> 1), 1009)]
fn a_broken_rule_ends_the_session_with_its_code(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[case] bytes: Vec<u8>,
    #[case] code: u16,
) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    let mut other = Client::open(&server, "/");
    client.write(&bytes);
    assert_eq!(client.read_close(), code);
    assert_eq!(client.read_to_end(), b"");
    other.send(Opcode::Text, b"still here");
    assert_eq!(other.read_frame().payload, b"still here");
    server.stop().unwrap();
}

/// A shard that polls sees everything that one that sleeps is woken for.
#[rstest]
fn a_spinning_shard_answers_sockets_threads_and_the_clock(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
) {
    let spinning = |config: &mut hioload::config::Config| {
        config.server.spin_us = 1000;
        config.websocket.idle_timeout_ms = 200;
    };
    let server = start(reactor, spinning, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    for number in 0..500 {
        let sent = format!("message {number}");
        client.send(Opcode::Text, sent.as_bytes());
        assert_eq!(client.read_frame().payload, sent.as_bytes());
        let (sender, answer) = std::sync::mpsc::channel();
        let look =
            move |shard: &mut hioload::Shard| sender.send(shard.stats().connections).unwrap();
        server.handles()[0].run(look).unwrap();
        assert_eq!(answer.recv_timeout(crate::client::PATIENCE), Ok(1));
    }
    assert_eq!(client.read_frame().opcode, Opcode::Ping, "half of the idle timeout is over");
    server.stop().unwrap();
}
