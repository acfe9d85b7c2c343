//! What RFC 7692 asks of frames (section 6) and of payloads (section 7.2). The handshake is in
//! `rfc7692_negotiation`, section 8 in `deflate_bombs`.
#![cfg(feature = "deflate")]

mod common;

use common::puff::Puff;
use common::{KEY, Peer, Seen, client, encode, fragment, key_for, seen_by};
use hioload_protocol::deflate::{Deflater, Inflater, Whole};
use hioload_protocol::ws::frame::Header;
use hioload_protocol::ws::{Env, HeapMemory, Limits, Opcode, Role, Violation};
use rstest::rstest;

/// Section 7.2.3.1.
const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";

/// A frame with RSV1 set, as the peer of `receiver` sends it.
fn rsv1(receiver: Role, fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(fin, opcode, key_for(receiver), payload.len() as u64);
    encode(Header { rsv1: true, ..header }, payload)
}

fn inflate(inflater: &mut Inflater, payload: &[u8], keeps: bool) -> Result<Vec<u8>, Violation> {
    let limits = Limits::default();
    let mut env = Env { limits: &limits, memory: &mut HeapMemory, now_ms: 0 };
    inflater.message(payload, keeps, &mut env).map(|(buffer, len)| buffer[..len].to_vec())
}

fn inflated(payload: &[u8]) -> Result<Vec<u8>, Violation> {
    inflate(&mut Inflater::new(), payload, false)
}

fn deflate(deflater: &mut Deflater, message: &[u8], keeps: bool) -> Vec<u8> {
    let mut out = vec![0; Deflater::bound(message.len())];
    let len = deflater.message(message, keeps, &mut out).expect("room for everything");
    out.truncate(len);
    out
}

/// Text that compresses like text: words in no order, with repetitions far apart.
fn text(len: usize) -> Vec<u8> {
    let mut seed = 7_u32;
    let mut text = Vec::new();
    while text.len() < len {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend(format!("{{\"key\":{},\"on\":true}}", seed >> 20).bytes());
    }
    text.truncate(len);
    text
}

mod s6_frames {
    use super::*;

    #[rstest]
    fn s6_rsv1_marks_a_compressed_message(#[values(Role::Server, Role::Client)] role: Role) {
        for (opcode, is_text) in [(Opcode::Text, true), (Opcode::Binary, false)] {
            let seen = Peer::with_deflate(role).read(&rsv1(role, true, opcode, HELLO));
            assert_eq!(seen, [Seen::Compressed(is_text, HELLO.to_vec())]);
        }
    }

    /// RFC 6455 section 5.2: without an extension that gives it a meaning, RSV1 is 0.
    #[rstest]
    fn s6_rsv1_without_negotiation_fails(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(Opcode::Text, Opcode::Binary, Opcode::Continuation, Opcode::Ping)] opcode: Opcode,
    ) {
        let frame = rsv1(role, true, opcode, HELLO);
        assert_eq!(seen_by(role, &frame[..1]), [Seen::Failed(Violation::ReservedBits)]);
    }

    /// Section 6: "MUST NOT set it on control frames and non-first fragments", and who receives
    /// that "MUST Fail the WebSocket Connection".
    #[rstest]
    fn s6_rsv1_on_control_frames_fails(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(Opcode::Close, Opcode::Ping, Opcode::Pong)] opcode: Opcode,
        #[values(true, false)] within_a_message: bool,
    ) {
        let mut peer = Peer::with_deflate(role);
        if within_a_message {
            assert_eq!(peer.read(&rsv1(role, false, Opcode::Text, &HELLO[..3])), []);
        }
        let frame = rsv1(role, true, opcode, b"");
        assert_eq!(peer.read(&frame[..1]), [Seen::Failed(Violation::ReservedBits)]);
    }

    #[rstest]
    fn s6_rsv1_on_later_fragments_fails(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(true, false)] fin: bool,
        #[values(true, false)] compressed: bool,
    ) {
        let mut peer = Peer::with_deflate(role);
        let first = match compressed {
            true => rsv1(role, false, Opcode::Binary, HELLO),
            false => common::frame_to(role, false, Opcode::Binary, HELLO),
        };
        assert_eq!(peer.read(&first), []);
        let frame = rsv1(role, fin, Opcode::Continuation, b"x");
        assert_eq!(peer.read(&frame), [Seen::Failed(Violation::ReservedBits)]);
    }

    #[rstest]
    fn s6_the_other_reserved_bits_stay_reserved(
        #[values((true, false), (false, true), (true, true))] (rsv2, rsv3): (bool, bool),
        #[values(true, false)] rsv1: bool,
    ) {
        let header = Header::new(true, Opcode::Text, Some(KEY), HELLO.len() as u64);
        let frame = encode(Header { rsv1, rsv2, rsv3, ..header }, HELLO);
        let seen = Peer::with_deflate(Role::Server).read(&frame);
        assert_eq!(seen, [Seen::Failed(Violation::ReservedBits)]);
    }

    /// Sections 6.1 and 7.2.1: an endpoint that agreed may still send what is not compressed.
    #[test]
    fn s6_1_messages_may_be_sent_as_they_are() {
        let mut peer = Peer::with_deflate(Role::Server);
        let stream = [
            rsv1(Role::Server, true, Opcode::Text, HELLO),
            client(Opcode::Text, b"Hello"),
            rsv1(Role::Server, true, Opcode::Binary, HELLO),
            client(Opcode::Text, b"\xff"),
        ];
        let expected = [
            Seen::Compressed(true, HELLO.to_vec()),
            Seen::Text("Hello".into()),
            Seen::Compressed(false, HELLO.to_vec()),
            Seen::Failed(Violation::TextNotUtf8),
        ];
        assert_eq!(peer.read(&stream.concat()), expected);
    }

    /// Section 6.2: the payloads of all frames are one compressed message, wherever they were cut
    /// (each cut twice: into frames, and into reads), with control frames in between.
    #[rstest]
    fn s6_2_fragments_are_put_together(#[values(Role::Server, Role::Client)] role: Role) {
        let message = text(300);
        let payload = deflate(&mut Deflater::new(6, 15), &message, false);
        for cut in 0..=payload.len() {
            let stream = [
                rsv1(role, false, Opcode::Text, &payload[..cut]),
                common::frame_to(role, true, Opcode::Ping, b"in between"),
                common::frame_to(role, false, Opcode::Continuation, &payload[cut..]),
                common::frame_to(role, true, Opcode::Pong, b""),
                common::frame_to(role, true, Opcode::Continuation, b""),
            ]
            .concat();
            let expected = [
                Seen::Ping(b"in between".to_vec()),
                Seen::Pong(Vec::new()),
                Seen::Compressed(true, payload.clone()),
            ];
            for read in [1, 7, stream.len()] {
                let mut peer = Peer::with_deflate(role);
                let seen: Vec<_> = stream.chunks(read).flat_map(|part| peer.read(part)).collect();
                assert_eq!(seen, expected, "cut at {cut}, read by {read}");
            }
        }
        assert_eq!(inflated(&payload), Ok(message));
    }

    /// A message that is not compressed has nothing to do with the window.
    #[test]
    fn s6_2_a_compressed_message_does_not_mark_the_next_one() {
        let mut peer = Peer::with_deflate(Role::Server);
        assert_eq!(peer.read(&rsv1(Role::Server, false, Opcode::Text, &HELLO[..2])), []);
        let end = client(Opcode::Continuation, &HELLO[2..]);
        assert_eq!(peer.read(&end), [Seen::Compressed(true, HELLO.to_vec())]);
        assert_eq!(peer.read(&fragment(Opcode::Text, b"Hel")), []);
        assert_eq!(peer.read(&client(Opcode::Continuation, b"lo")), [Seen::Text("Hello".into())]);
    }
}

mod s7_2_payloads {
    use super::*;

    /// Every example of section 7.2.3: decoded by the library and by the model.
    #[rstest]
    #[case::s7_2_3_1_one_block(HELLO, b"Hello")]
    #[case::s7_2_3_3_no_compression(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", b"Hello")]
    #[case::s7_2_3_4_bfinal(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"Hello")]
    #[case::s7_2_3_5_two_blocks(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"Hello")]
    #[case::s7_2_3_6_empty_message(b"\x00", b"")]
    #[case::empty_message_with_fixed_codes(b"\x02\x00", b"")]
    #[case::empty_message_with_bfinal(b"\x03\x00\x00", b"")]
    #[case::empty_message_twice_flushed(b"\x00\x00\x00\xff\xff\x00", b"")]
    #[case::the_last_empty_block_has_bfinal(b"\xf2\x48\xcd\xc9\xc9\x07\x04", b"Hello")]
    #[case::bfinal_in_the_middle(
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"HelloHello"
    )]
    #[case::a_reference_over_bfinal(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x02\x13\x00\x00", b"HelloHello")]
    #[case::no_payload_at_all(b"", b"")]
    #[case::bfinal_without_the_byte_of_zero(b"\xf3\x48\xcd\xc9\xc9\x07\x00", b"Hello")]
    fn s7_2_3_examples(
        #[case] payload: &[u8],
        #[case] message: &[u8],
        #[values(true, false)] keeps: bool,
    ) {
        let mut inflater = Inflater::new();
        for _ in 0..3 {
            assert_eq!(inflate(&mut inflater, payload, keeps), Ok(message.to_vec()));
            // Whatever comes after it is understood too.
            assert_eq!(inflate(&mut inflater, HELLO, keeps), Ok(b"Hello".to_vec()));
        }
        assert_eq!(Puff::new(15).message(payload, keeps, 100), Ok(message.to_vec()));
    }

    /// Section 7.2.3.2: "Hello" twice, the second time as a reference to the first.
    #[test]
    fn s7_2_3_2_sharing_the_window() {
        let second = b"\xf2\x00\x11\x00\x00";
        let mut inflater = Inflater::new();
        assert_eq!(inflate(&mut inflater, HELLO, true), Ok(b"Hello".to_vec()));
        assert_eq!(inflate(&mut inflater, second, true), Ok(b"Hello".to_vec()));
        inflater.reset();
        assert_eq!(inflate(&mut inflater, second, true), Err(Violation::NotDeflate));

        // Section 7.1.1: without context takeover there is nothing to refer to.
        let mut inflater = Inflater::new();
        assert_eq!(inflate(&mut inflater, HELLO, false), Ok(b"Hello".to_vec()));
        assert_eq!(inflate(&mut inflater, second, false), Err(Violation::NotDeflate));
        assert_eq!(inflate(&mut inflater, HELLO, false), Ok(b"Hello".to_vec()));
    }

    /// A final block ends what may be referred to at the beginning of its message, as in zlib:
    /// its own message may be referred to afterwards, what came before it may not.
    #[test]
    fn s7_2_3_4_what_is_behind_a_final_block_is_forgotten() {
        let (hello_with_bfinal, reference) =
            (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"\xf2\x00\x11\x00\x00");
        let mut inflater = Inflater::new();
        assert_eq!(inflate(&mut inflater, hello_with_bfinal, true), Ok(b"Hello".to_vec()));
        assert_eq!(inflate(&mut inflater, reference, true), Ok(b"Hello".to_vec()));
        assert_eq!(inflate(&mut inflater, b"\x03\x00\x00", true), Ok(Vec::new()));
        assert_eq!(inflate(&mut inflater, reference, true), Err(Violation::NotDeflate));
    }

    /// Section 7.2.1: what we send does not end with the four bytes, but with them it is DEFLATE
    /// that ends at a byte; and section 7.2.3.6: one byte for a message of none.
    #[rstest]
    fn s7_2_1_what_we_send_is_what_the_model_expects(
        #[values(1, 2, 3, 6, 9)] level: u8,
        #[values(9, 12, 15)] bits: u8,
    ) {
        let mut deflater = Deflater::new(level, bits);
        let (mut whole, mut puff) = (Whole::new(level), Puff::new(bits));
        for len in [0, 1, 2, 5, 100, 511, 512, 513, 5_000, 40_000, 70_000, 0, 0, 3] {
            let message = text(len);
            let payload = deflate(&mut deflater, &message, true);
            assert!(!payload.ends_with(b"\x00\x00\xff\xff"));
            assert!(len > 0 || payload == [0]);
            assert_eq!(puff.message(&payload, true, len), Ok(message.clone()), "{len} bytes");
            let mut out = vec![0; Deflater::bound(len)];
            let count = whole.message(&message, bits, &mut out).expect("room for everything");
            assert!(len > 0 || out[..count] == [0]);
            assert_eq!(Puff::new(bits).message(&out[..count], false, len), Ok(message));
        }
    }

    /// Section 7.2.1: "the LZ77 sliding window" is never larger than agreed. The reference model
    /// refuses what reaches farther; and that it is reached shows that this was tried.
    #[rstest]
    fn s7_1_2_no_reference_reaches_beyond_the_window(
        #[values(9, 10, 11, 12, 13, 14, 15)] bits: u8,
        #[values(1, 2, 3, 4, 5, 6, 7, 8, 9)] level: u8,
    ) {
        let unit = |len: usize, seed: usize| -> Vec<u8> {
            (0..len).map(|i| ((i * i / 7 + i * seed) % 251) as u8).collect()
        };
        // Repetitions at every distance around the size of the window.
        let window = 1_usize << bits;
        let mut message = Vec::new();
        for (round, distance) in [
            100,
            200,
            window / 2,
            window - 300,
            window - 262,
            window - 261,
            window - 1,
            window,
            window + 1,
            2 * window,
        ]
        .into_iter()
        .enumerate()
        {
            let word = unit(40, round * 17 + 3);
            message.extend_from_slice(&word);
            message.extend(unit(distance - 40, round * 31 + 11));
            message.extend_from_slice(&word);
        }
        message.extend(text(3 * window));
        let mut deflater = Deflater::new(level, bits);
        let mut puff = Puff::new(bits);
        for _ in 0..2 {
            let payload = deflate(&mut deflater, &message, true);
            assert_eq!(puff.message(&payload, true, usize::MAX), Ok(message.clone()));
        }
        assert!(puff.farthest > window / 4, "{} of {window}", puff.farthest);
        let mut whole = Whole::new(level);
        let mut out = vec![0; Deflater::bound(message.len())];
        for message in [&message[..], &message[..window], &message[..window + 1]] {
            let len = whole.message(message, bits, &mut out).expect("room for everything");
            let got = Puff::new(bits).message(&out[..len], false, usize::MAX);
            assert_eq!(got, Ok(message.to_vec()));
        }
    }

    /// Section 7.1.1: with context the messages refer to each other, both ways; without it each
    /// can be read by a receiver that saw no other.
    #[rstest]
    fn s7_1_1_context_takeover(#[values(true, false)] keeps: bool) {
        let mut ends = [(); 2].map(|()| (Deflater::new(6, 15), Inflater::new()));
        let (mut first, mut last) = (0, 0);
        for round in 0..200 {
            let message = format!("{{\"round\":{round},\"state\":\"nothing happened yet\"}}");
            for (deflater, inflater) in &mut ends {
                let payload = deflate(deflater, message.as_bytes(), keeps);
                last = payload.len();
                if round == 0 {
                    first = last;
                }
                let got = match keeps {
                    true => inflate(inflater, &payload, true),
                    false => inflated(&payload),
                };
                assert_eq!(got, Ok(message.clone().into_bytes()), "round {round}");
            }
        }
        assert_eq!(last < first / 2, keeps, "{first} bytes became {last}");
    }

    /// Section 7.2.2: a message that is not compressed changes no window.
    #[test]
    fn s7_2_2_messages_in_between_do_not_count() {
        let (mut deflater, mut inflater) = (Deflater::new(6, 15), Inflater::new());
        let mut peer = Peer::with_deflate(Role::Server);
        for round in 0..20 {
            let message = text(100 + round);
            let payload = deflate(&mut deflater, &message, true);
            let frame = rsv1(Role::Server, true, Opcode::Binary, &payload);
            assert_eq!(peer.read(&frame), [Seen::Compressed(false, payload.clone())]);
            let plain = client(Opcode::Binary, b"as it is");
            assert_eq!(peer.read(&plain), [Seen::Binary(b"as it is".to_vec())]);
            assert_eq!(inflate(&mut inflater, &payload, true), Ok(message));
        }
    }

    /// What does not fit is sent as it is, and the receiver understands what follows.
    #[rstest]
    fn s7_2_1_after_no_room_the_next_message_is_understood(
        #[values(1, 6)] level: u8,
        #[values(0, 1, 5, 20, 60)] room: usize,
    ) {
        let (mut deflater, mut inflater) = (Deflater::new(level, 15), Inflater::new());
        for round in 0..10 {
            let message = text(500 + round);
            let payload = deflate(&mut deflater, &message, true);
            assert_eq!(inflate(&mut inflater, &payload, true), Ok(message));
            let other: Vec<u8> = (0..700_u32).map(|i| ((i * i * i) >> 3) as u8).collect();
            deflater.message(&other, true, &mut vec![0; room]).expect_err("too little room");
        }
    }
}
