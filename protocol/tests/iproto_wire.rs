//! Packets on the wire: vectors, cuts, and what is asked for memory.

mod common;

use common::iproto::{Seen, Side, hex, packet};
use hioload_protocol::iproto::{
    Body, CloseReason, Connection, Env, Event, Header, HeapMemory, Limits, PING, Refusal, SHUTDOWN,
    Violation, append_packet,
};
use rstest::rstest;

const UNEARNED_BYTES_MAX: usize = 64 * 1024;

#[rstest]
#[case(Header { msg: 1, len: 0, sync: 3 }, "010000000000000003000000")]
#[case(Header { msg: 42, len: 2, sync: 1 }, "2a0000000200000001000000")]
#[case(Header { msg: PING, len: 0, sync: 0 }, "00ff00000000000000000000")]
#[case(Header { msg: PING, len: 0, sync: 7 }, "00ff00000000000007000000")]
#[case(Header { msg: SHUTDOWN, len: 0, sync: 0 }, "01ff00000000000000000000")]
#[case(Header { msg: u32::MAX, len: 0x0102_0304, sync: 1 << 31 }, "ffffffff0403020100000080")]
fn a_header_is_three_little_endian_words(#[case] header: Header, #[case] digits: &str) {
    assert_eq!(header.encode()[..], hex(digits));
    assert_eq!(Header::decode(&header.encode()), header);
}

#[test]
fn a_call_and_its_reply_are_those_of_other_implementations() {
    let (mut client, mut server) = (Side::default(), Side::default());
    let call = client.call(42, b"OK", 5_000).expect("nothing is in the way");
    assert_eq!(call, hex("2a00000002000000010000004f4b"));
    assert_eq!(server.read(&call), [Seen::Request(42, 1, b"OK".to_vec())]);
    let reply = server.reply(b"R:OK");
    assert_eq!(reply, hex("2a0000000400000001000000523a4f4b"));
    assert_eq!(client.read(&reply), [Seen::Response(0, b"R:OK".to_vec())]);
}

#[cfg(target_pointer_width = "64")]
#[test]
fn a_body_that_no_length_can_say_is_refused() {
    let len = u32::MAX as usize + 1;
    assert_eq!(Header::new(1, 1, len), Err(Refusal::BodyTooLong { len }));
    let mut side = Side::default();
    assert_eq!(side.call_header(1, len, 10), Err(Refusal::BodyTooLong { len }));
    assert_eq!(side.connection.notify(1, len), Err(Refusal::BodyTooLong { len }));
    assert_eq!(side.connection.pending(), 0);

    side.read(&packet(1, 1, b""));
    let to = side.open.remove(0);
    let refused = side.connection.reply(to, len).expect_err("it is too long");
    assert_eq!((refused.why, side.connection.requests()), (Refusal::BodyTooLong { len }, 1));
    assert_eq!(side.connection.reply(refused.token, 0), Ok(Header::empty(1, 1)));
}

/// One stream with everything in it.
fn stream() -> (Vec<u8>, Vec<Seen>) {
    let stream = [
        packet(7, 1, b"response"),
        packet(1, 9, b"request"),
        packet(2, 0, b"notify"),
        packet(PING, 3, b"with a body"),
        packet(8, 4, b"late"),
        packet(1, 10, b""),
        packet(0xff02, 5, b"reserved"),
        packet(SHUTDOWN, 0, b""),
        packet(3, 3, b"behind it"),
    ];
    let seen = [
        Seen::Response(0, b"response".to_vec()),
        Seen::Request(1, 9, b"request".to_vec()),
        Seen::Notify(2, b"notify".to_vec()),
        Seen::Send(Header::empty(PING, 3)),
        Seen::Request(1, 10, b"".to_vec()),
        Seen::Request(0xff02, 5, b"reserved".to_vec()),
        Seen::Shutdown,
    ];
    (stream.concat(), seen.to_vec())
}

/// One that has called 7 with the sync 1, and does not wait any more for 8 with the sync 4.
fn caller() -> Side {
    let mut side = Side::default();
    for msg in [7, 1, 2] {
        side.call(msg, b"", 5_000).expect("nothing is in the way");
    }
    let call = side.call_header(8, 0, 5_000).expect("nothing is in the way");
    assert_eq!(side.connection.cancel(&call, 0, &side.limits), Some(3));
    side
}

/// Cut in two at every byte, and in three at every pair.
#[test]
fn a_stream_cut_at_every_byte_gives_the_same_events() {
    let (stream, expected) = stream();
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let mut side = caller();
            let mut seen = side.read(&stream[..first]);
            seen.extend(side.read(&stream[first..second]));
            seen.extend(side.read(&stream[second..]));
            assert_eq!(seen, expected, "{first}, {second}");
            let stats = side.connection.stats();
            assert_eq!((stats.late, stats.unsolicited), (1, 1));
            assert_eq!((stats.bytes_in, stats.packets_in), (stream.len() as u64, 9));
        }
    }
}

#[test]
fn a_stream_byte_by_byte_gives_the_same_events() {
    let (stream, expected) = stream();
    let mut side = caller();
    let seen: Vec<Seen> = stream.iter().flat_map(|byte| side.read(&[*byte])).collect();
    assert_eq!(seen, expected);
}

/// The window of a body and of its header lie where they arrived, and nothing is asked for.
#[test]
fn a_whole_packet_stays_a_window_of_the_input() {
    let input = [packet(1, 1, b"one"), packet(2, 2, &[9; 200])].concat();
    let mut connection: Connection<Vec<u8>, ()> = Connection::new(0);
    let mut memory = common::TestMemory::default();
    memory.refuse_from = Some(0);
    let mut env = Env { limits: &Limits::default(), memory: &mut memory, now_ms: 0 };
    let mut at = 0;
    for (header_at, len) in [(0, 3), (15, 200)] {
        let event = connection.read(&input, &mut at, &mut env).expect("a good packet");
        let Some(Event::Request { body, to }) = event else { panic!("a request") };
        let payload = header_at + 12..header_at + 12 + len;
        assert_eq!(body, Body::Window { payload, header_at: Some(header_at) });
        connection.discard(to);
    }
    assert_eq!(memory.asked, 0);
}

/// If the header came before, the body still needs no copy, but there is no header to reuse.
#[test]
fn a_body_that_came_whole_after_its_header_is_a_window_without_header() {
    let stream = packet(1, 0, b"body");
    for cut in 1..=12 {
        let mut connection: Connection<Vec<u8>, ()> = Connection::new(0);
        let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms: 0 };
        assert_eq!(connection.read(&stream[..cut], &mut 0, &mut env), Ok(None));
        let event = connection.read(&stream[cut..], &mut 0, &mut env).expect("a good packet");
        let Some(Event::Notify { body, .. }) = event else { panic!("a notify") };
        assert_eq!(body, Body::Window { payload: 12 - cut..16 - cut, header_at: None });
    }
}

#[test]
fn a_header_alone_pins_nothing_whatever_it_announces() {
    let header = Header { msg: 1, len: 100_000_000, sync: 1 }.encode();
    let mut side = Side::default();
    assert_eq!(side.read(&header), []);
    assert_eq!(side.memory.asked, 0);
    assert_eq!(side.read(b"x"), []);
    assert_eq!(side.memory.len_max, UNEARNED_BYTES_MAX);
    assert_eq!(side.memory.expected, [100_000_000], "the allocator knows what is announced");
}

/// Doubling: the number of requests grows with the logarithm of the packet.
#[rstest]
fn memory_grows_with_what_arrives(#[values(true, false)] direct: bool) {
    let body: Vec<u8> = (0..1_u32 << 20).map(|i| (i % 251) as u8).collect();
    let stream = packet(1, 0, &body);
    let mut side = Side::default();
    let (head, mut rest) = stream.split_at(1_000);
    let mut seen = side.read(head);
    while seen.is_empty() {
        // Each receive brings at most 10,000 bytes; the memory judges every request.
        let (mut arrived, later) = rest.split_at(rest.len().min(10_000));
        seen = if direct && let Some(seen) = side.read_direct(&mut arrived, 4_096) {
            rest = &rest[rest.len() - later.len() - arrived.len()..];
            seen
        } else {
            rest = later;
            side.read(arrived)
        };
    }
    assert_eq!(seen, [Seen::Notify(1, body)]);
    assert_eq!(side.connection.stats().bytes_in, stream.len() as u64);
    assert_eq!(side.memory.expected.len(), 1, "it is one buffer");
    assert!(side.memory.asked <= 8, "{} requests", side.memory.asked);
}

#[test]
fn of_what_nobody_waits_for_nothing_is_kept() {
    let mut side = caller();
    side.limits.requests_max = 0;
    for (msg, sync) in [(PING, 1), (8, 4), (1, 77)] {
        let stream = packet(msg, sync, &[1; 50_000]);
        for piece in stream.chunks(1_000) {
            side.read(piece);
            assert_eq!(side.read_direct(&mut &b""[..], 1), None, "there is no body to lend");
        }
    }
    assert_eq!(side.memory.asked, 0);
    assert_eq!(side.connection.stats().packets_in, 3);
}

#[rstest]
#[case(64, None)]
#[case(65, Some(Violation::BodyTooBig { len: 65, limit: 64 }))]
#[case(u32::MAX, Some(Violation::BodyTooBig { len: u32::MAX, limit: 64 }))]
fn a_body_above_the_limit_ends_the_connection(
    #[case] len: u32,
    #[case] violation: Option<Violation>,
    #[values(1, PING)] msg: u32,
) {
    let mut side = Side::with_limits(Limits { body_bytes_max: 64, ..Limits::default() });
    side.call(1, b"", 10).expect("nothing is in the way");
    let seen = side.read(&Header { msg, len, sync: 1 }.encode());
    let expected: Vec<Seen> = violation.into_iter().map(Seen::Failed).collect();
    assert_eq!(seen, expected);
    assert_eq!(side.connection.close_reason(), violation.map(CloseReason::Failed));
    if violation.is_some() {
        assert_eq!(side.read(&packet(1, 2, b"later")), [], "what follows is ignored");
        assert_eq!(side.call(1, b"", 10), Err(Refusal::Stopped));
        assert_eq!((side.poll(1_000_000), side.deadline_ms()), (vec![], None));
        assert_eq!(side.connection.take_call(), Some(0), "who waits has to be told");
        assert_eq!(side.connection.take_call(), None);
    }
}

/// Fail the 1st, 2nd, ... request for memory: the connection says so and ends.
#[rstest]
fn refused_memory_is_an_answer(#[values(true, false)] direct: bool) {
    let stream = packet(1, 1, &vec![5; 300_000]);
    let run = |refuse_from: Option<usize>| {
        let mut side = Side::default();
        side.memory.refuse_from = refuse_from;
        let mut seen = Vec::new();
        for mut piece in stream.chunks(40_000) {
            if direct && let Some(events) = side.read_direct(&mut piece, 1_000) {
                seen.extend(events);
            }
            seen.extend(side.read(piece));
        }
        (side, seen)
    };
    let (side, good) = run(None);
    assert_eq!(good, [Seen::Request(1, 1, vec![5; 300_000])]);
    assert!(side.memory.asked >= 3);
    for refuse_from in 1..=side.memory.asked {
        let (mut side, seen) = run(Some(refuse_from));
        assert_eq!(seen, [Seen::Failed(Violation::OutOfMemory)], "at {refuse_from}");
        assert!(side.connection.buffer_mut().is_none(), "it holds nothing any more");
    }
}

/// Not even a byte of the body has come, and the connection is asked where to receive the first.
#[test]
fn what_is_received_directly_needs_memory_too() {
    let stream = packet(1, 1, &[5; 100_000]);
    let mut side = Side::default();
    side.memory.refuse_from = Some(1);
    assert_eq!(side.read(&stream[..12]), [], "a header pins nothing");
    let refused = side.read_direct(&mut &stream[12..], 1_000);
    assert_eq!(refused, Some(vec![Seen::Failed(Violation::OutOfMemory)]));
    assert_eq!(side.read_direct(&mut &stream[12..], 1_000), None, "nothing more is lent");
    assert_eq!(side.read(&stream[12..]), [], "nor is anything read");
}

#[test]
fn small_packets_can_be_appended_whole() {
    let mut out = Vec::new();
    append_packet(&mut out, 42, 1, b"OK").expect("it is short");
    append_packet(&mut out, PING, 7, b"").expect("it is short");
    assert_eq!(out, hex("2a00000002000000010000004f4b00ff00000000000007000000"));
}
