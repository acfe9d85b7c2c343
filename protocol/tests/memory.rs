//! What a connection asks of `Memory`: late, little, and without trust that it is given.
//!
//! `TestMemory` itself checks every request against what has been received: at most twice that,
//! or 64 KiB.

mod common;

use common::{Peer, Seen, client, fragment};
use hioload_protocol::ws::{Connection, Opcode, Role, State, Violation};
use rstest::rstest;

const UNEARNED_BYTES_MAX: usize = 64 * 1024;

/// As large as the lease of a pool: a pointer and two words, one of which is never null.
#[allow(dead_code)]
struct LikeALease(&'static u8, usize, u32, u32);

#[test]
fn an_idle_connection_is_small() {
    assert_eq!(size_of::<LikeALease>(), 24);
    assert_eq!(size_of::<Option<LikeALease>>(), 24);
    assert!(size_of::<Connection<LikeALease>>() <= 112);
    assert!(size_of::<Connection<Vec<u8>>>() <= 112);
}

#[test]
fn a_header_alone_pins_nothing() {
    let frame = client(Opcode::Binary, &vec![1; 1 << 20]);
    let mut peer = Peer::new(Role::Server);
    assert_eq!(peer.read(&frame[..14]), []);
    assert_eq!(peer.memory.asked, 0);
    assert!(peer.connection.is_mid_message());
}

#[test]
fn a_header_and_a_byte_pin_64_kib() {
    let frame = client(Opcode::Binary, &vec![1; 1 << 20]);
    let mut peer = Peer::new(Role::Server);
    assert_eq!(peer.read(&frame[..15]), []);
    assert_eq!(peer.memory.len_max, UNEARNED_BYTES_MAX);
    assert_eq!(peer.memory.expected, [1 << 20], "the allocator knows what is announced");
}

/// A message that is smaller than what may be lent is asked for exactly, once.
#[test]
fn a_small_cut_message_asks_for_its_own_size() {
    let frame = client(Opcode::Text, b"twenty bytes of text");
    let mut peer = Peer::new(Role::Server);
    assert_eq!(peer.read(&frame[..10]), []);
    assert_eq!(peer.read(&frame[10..]), [Seen::Text("twenty bytes of text".into())]);
    assert_eq!((peer.memory.asked, peer.memory.len_max), (1, 20));
}

/// Doubling: the number of requests grows with the logarithm of the message.
#[rstest]
fn memory_grows_with_what_arrives(#[values(true, false)] direct: bool) {
    let payload: Vec<u8> = (0..1_u32 << 20).map(|i| (i % 251) as u8).collect();
    let frame = client(Opcode::Binary, &payload);
    let mut peer = Peer::new(Role::Server);
    let (head, mut rest) = frame.split_at(1_000);
    let mut seen = peer.read(head);
    while seen.is_empty() {
        // Each receive brings at most 10,000 bytes; `TestMemory` judges every request.
        let (mut arrived, later) = rest.split_at(rest.len().min(10_000));
        seen = if direct && let Some(seen) = peer.read_direct(&mut arrived, 4_096) {
            rest = &rest[rest.len() - later.len() - arrived.len()..];
            seen
        } else {
            rest = later;
            peer.read(arrived)
        };
    }
    assert_eq!(seen, [Seen::Binary(payload)]);
    assert_eq!(peer.memory.expected.len(), 1, "it is one buffer");
    assert!(peer.memory.asked <= 8, "{} requests", peer.memory.asked);
}

/// The lent tail never reaches behind the current frame, whose neighbour must stay outside.
#[test]
fn what_is_lent_ends_with_the_frame() {
    let mut peer = Peer::new(Role::Server);
    peer.read(&fragment(Opcode::Binary, &[1; 500]));
    let stream = [fragment(Opcode::Continuation, &[2; 300]), client(Opcode::Continuation, b"end")];
    let stream = stream.concat();
    peer.read(&stream[..50]);
    let mut rest = &stream[50..];
    assert_eq!(peer.read_direct(&mut rest, 1), Some(vec![]));
    assert_eq!(rest, &client(Opcode::Continuation, b"end")[..], "not a byte of the next frame");
    let message = [&[1; 500][..], &[2; 300], b"end"].concat();
    assert_eq!(peer.read(rest), [Seen::Binary(message)]);
}

#[rstest]
#[case::between_frames(vec![])]
#[case::in_a_header(client(Opcode::Binary, &[1; 100])[..3].to_vec())]
#[case::in_a_control_frame(client(Opcode::Ping, &[1; 100])[..50].to_vec())]
#[case::nearly_done(client(Opcode::Binary, &[1; 100])[..100].to_vec())]
#[case::after_a_close(client(Opcode::Close, b""))]
fn nothing_is_lent(#[case] stream: Vec<u8>) {
    let mut peer = Peer::new(Role::Server);
    peer.read(&stream);
    let asked = peer.memory.asked;
    assert_eq!(peer.read_direct(&mut &[][..], 50), None);
    assert_eq!(peer.memory.asked, asked);
}

/// The buffer may be taken apart while it is lent, as a pool's leases are.
#[test]
fn the_tail_may_be_split_off_and_put_back() {
    use hioload_protocol::ws::{Body, Env, Event, HeapMemory, Limits, Message};

    let frame = client(Opcode::Text, &[b'x'; 5_000]);
    let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms: 0 };
    let mut connection = Connection::new(Role::Server);
    let mut head = frame[..108].to_vec();
    assert_eq!(connection.read(&mut head, &mut 0, &mut env), Ok(None));

    let direct = connection.direct(1_000, &mut env).expect("memory").expect("it is large");
    assert_eq!((direct.filled, direct.wanted), (100, 4_900));
    let mut tail = direct.buffer.split_off(100);
    tail.copy_from_slice(&frame[108..]);
    connection.buffer_mut().expect("the head is still there").append(&mut tail);

    let event = connection.filled(4_900, &mut env).expect("good text");
    let Some(Event::Message(Message { body: Body::Assembled { buffer, len }, .. })) = event else {
        panic!("the message is complete");
    };
    assert_eq!((len, buffer), (5_000, vec![b'x'; 5_000]));
    assert!(connection.buffer_mut().is_none());
}

/// Not even a byte of the payload has come, and the connection is asked where to receive the first.
#[test]
fn what_is_received_directly_needs_memory_too() {
    let frame = client(Opcode::Binary, &[1; 100_000]);
    let mut peer = Peer::new(Role::Server);
    peer.memory.refuse_from = Some(1);
    assert_eq!(peer.read(&frame[..14]), [], "a header pins nothing");
    let refused = peer.read_direct(&mut &frame[14..], 1_000);
    assert_eq!(refused, Some(vec![Seen::Failed(Violation::OutOfMemory)]));
    assert_eq!(peer.connection.state(), State::Failed);
    assert_eq!(peer.read_direct(&mut &frame[14..], 1_000), None, "nothing more is lent");
}

/// A stream that asks for memory in every way: cut, fragmented, growing, control frames.
fn hungry_stream() -> Vec<Vec<u8>> {
    let large = client(Opcode::Binary, &vec![5; 300_000]);
    let mut pieces: Vec<Vec<u8>> = large.chunks(40_000).map(<[u8]>::to_vec).collect();
    pieces.push(fragment(Opcode::Text, b"one "));
    let ping = client(Opcode::Ping, b"within a message");
    pieces.extend([ping[..9].to_vec(), ping[9..].to_vec()]);
    pieces.push(client(Opcode::Continuation, b"message"));
    pieces
}

/// Fail the 1st, 2nd, ... request: the connection says so and closes, it never panics.
#[rstest]
fn refused_memory_is_an_answer(#[values(true, false)] direct: bool) {
    let run = |refuse_from: Option<usize>| {
        let mut peer = Peer::new(Role::Server);
        peer.memory.refuse_from = refuse_from;
        let mut seen = Vec::new();
        for piece in hungry_stream() {
            let mut rest = &piece[..];
            if direct && let Some(events) = peer.read_direct(&mut rest, 1_000) {
                seen.extend(events);
            }
            seen.extend(peer.read(rest));
        }
        (peer, seen)
    };
    let (peer, good) = run(None);
    let expected = [
        Seen::Binary(vec![5; 300_000]),
        Seen::Ping(b"within a message".to_vec()),
        Seen::Text("one message".into()),
    ];
    assert_eq!(good, expected);
    assert!(peer.memory.asked >= 6);

    for refuse_from in 1..=peer.memory.asked {
        let (mut peer, seen) = run(Some(refuse_from));
        assert_eq!(seen.last(), Some(&Seen::Failed(Violation::OutOfMemory)), "at {refuse_from}");
        assert!(good.starts_with(&seen[..seen.len() - 1]));
        assert_eq!(peer.connection.state(), State::Failed);
        assert!(peer.connection.buffer_mut().is_none(), "it holds nothing any more");
    }
}
