//! Every MUST of RFC 6455 sections 4 to 7 (and 8.1) that concerns what is received, named by its
//! section; both roles where it concerns both. The handshake of section 4 is in `handshake.rs`.

mod common;

use common::{KEY, Peer, Seen, client, close_body, encode, fragment, frame_to, key_for, seen_by};
use common::{model, violation_at_last_byte};
use hioload_protocol::ws::frame::{
    CONTROL_BYTES_MAX, FakeFrame, HEADER_BYTES_MAX, Header, WebSocketFrame, encode_close,
};
use hioload_protocol::ws::{CloseCode, Control, Limits, Opcode, Role, State, Violation};
use rstest::rstest;

/// What is read after an error or a close frame: nothing, whatever comes.
fn assert_deaf(peer: &mut Peer) {
    assert_eq!(peer.read(&client(Opcode::Text, b"ignored")), []);
    assert_eq!(peer.read(&[0xFF; 40]), []);
}

mod s5_1_overview {
    use super::*;

    #[rstest]
    #[case(Opcode::Text)]
    #[case(Opcode::Binary)]
    #[case(Opcode::Ping)]
    #[case(Opcode::Pong)]
    #[case(Opcode::Close)]
    fn s5_1_client_frames_must_be_masked(#[case] opcode: Opcode) {
        let frame = encode(Header::new(true, opcode, None, 0), b"");
        let violation = violation_at_last_byte(Role::Server, &frame[..2]);
        assert_eq!(violation, Some(Violation::ClientFrameUnmasked));
    }

    #[rstest]
    #[case(Opcode::Text)]
    #[case(Opcode::Binary)]
    #[case(Opcode::Ping)]
    #[case(Opcode::Pong)]
    #[case(Opcode::Close)]
    fn s5_1_server_frames_must_not_be_masked(#[case] opcode: Opcode) {
        let frame = encode(Header::new(true, opcode, Some(KEY), 0), b"");
        let violation = violation_at_last_byte(Role::Client, &frame[..2]);
        assert_eq!(violation, Some(Violation::ServerFrameMasked));
    }

    #[test]
    fn s5_1_data_may_come_in_the_same_input_as_what_went_before() {
        let stream = [client(Opcode::Text, b"a"), client(Opcode::Text, b"b")].concat();
        let seen = seen_by(Role::Server, &stream);
        assert_eq!(seen, [Seen::Text("a".into()), Seen::Text("b".into())]);
    }
}

mod s5_2_base_framing {
    use super::*;

    #[rstest]
    fn s5_2_reserved_bits_must_be_zero(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(0x40, 0x20, 0x10, 0x70)] bits: u8,
        #[values(0x81, 0x82, 0x01, 0x80, 0x88, 0x89, 0x8A)] first: u8,
    ) {
        let violation = violation_at_last_byte(role, &[first | bits]);
        assert_eq!(violation, Some(Violation::ReservedBits), "at the first byte");
    }

    #[rstest]
    fn s5_2_reserved_opcodes_must_fail(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(3, 4, 5, 6, 7, 11, 12, 13, 14, 15)] opcode: u8,
        #[values(0x80, 0)] fin: u8,
    ) {
        assert_eq!(Opcode::from_bits(opcode), None);
        let violation = violation_at_last_byte(role, &[fin | opcode]);
        assert_eq!(violation, Some(Violation::ReservedOpcode), "at the first byte");
    }

    #[rstest]
    #[case::sixteen_for_none(&[126, 0, 0])]
    #[case::sixteen_for_seven(&[126, 0, 125])]
    #[case::sixty_four_for_seven(&[127, 0, 0, 0, 0, 0, 0, 0, 125])]
    #[case::sixty_four_for_sixteen(&[127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF])]
    fn s5_2_the_length_must_be_minimal(
        #[values(Role::Server, Role::Client)] role: Role,
        #[case] length: &[u8],
    ) {
        let masked = if role == Role::Server { 0x80 } else { 0 };
        let header = [&[0x82, length[0] | masked], &length[1..]].concat();
        assert_eq!(violation_at_last_byte(role, &header), Some(Violation::LengthNotMinimal));
    }

    #[rstest]
    #[case(0, 2)]
    #[case(125, 2)]
    #[case(126, 4)]
    #[case(65_535, 4)]
    #[case(65_536, 10)]
    fn s5_2_the_minimal_length_is_read_and_written(
        #[values(Role::Server, Role::Client)] role: Role,
        #[case] len: usize,
        #[case] header_len: usize,
    ) {
        let payload = vec![0x5A; len];
        let key_len = if role == Role::Server { 4 } else { 0 };
        let frame = frame_to(role, true, Opcode::Binary, &payload);
        assert_eq!(frame.len(), header_len + key_len + len);
        assert_eq!(seen_by(role, &frame), [Seen::Binary(payload)]);
    }

    #[rstest]
    fn s5_2_the_top_bit_of_the_length_must_be_zero(
        #[values(Role::Server, Role::Client)] role: Role,
    ) {
        let masked = if role == Role::Server { 0x80 } else { 0 };
        let violation = violation_at_last_byte(role, &[0x82, 127 | masked, 0x80]);
        assert_eq!(violation, Some(Violation::LengthTopBit));
    }

    /// Section 10.4: limits are imposed before the payload comes; the header alone is enough.
    #[rstest]
    #[case(1024 * 1024 + 1)]
    #[case(u64::MAX >> 1)]
    fn s10_4_a_message_over_the_limit_fails_at_its_header(
        #[values(Role::Server, Role::Client)] role: Role,
        #[case] len: u64,
    ) {
        let header = encode(Header::new(true, Opcode::Binary, key_for(role), len), b"");
        assert_eq!(violation_at_last_byte(role, &header), Some(Violation::MessageTooBig));
    }

    #[test]
    fn s10_4_the_limit_is_for_the_message_not_for_its_frames() {
        let limits = Limits { message_bytes_max: 10, ..Limits::default() };
        let mut peer = Peer::with_limits(Role::Server, limits);
        assert_eq!(peer.read(&client(Opcode::Binary, &[1; 10])), [Seen::Binary(vec![1; 10])]);
        assert_eq!(peer.read(&fragment(Opcode::Binary, &[1; 6])), []);
        assert_eq!(peer.read(&fragment(Opcode::Continuation, &[1; 4])), []);
        let one_more = client(Opcode::Continuation, &[1]);
        assert_eq!(peer.read(&one_more[..6]), [Seen::Failed(Violation::MessageTooBig)]);
        assert_deaf(&mut peer);
    }

    #[test]
    fn s5_2_every_header_that_is_written_is_read_back() {
        for len in [0, 1, 125, 126, 65_535, 65_536, u64::MAX >> 1] {
            for (fin, rsv1, rsv2, rsv3) in [(true, false, true, false), (false, true, false, true)]
            {
                for mask in [None, Some(KEY)] {
                    let opcode = Opcode::Binary;
                    let header = Header { fin, rsv1, rsv2, rsv3, opcode, mask, len };
                    let mut out = [0; HEADER_BYTES_MAX];
                    let written = header.encode(&mut out);
                    assert_eq!(written, header.encoded_len());
                    assert_eq!(Header::decode(&out[..written]), Ok(Some((header, written))));
                    for cut in 0..written {
                        assert_eq!(Header::decode(&out[..cut]), Ok(None));
                    }
                }
            }
        }
    }
}

mod s6_1_sending {
    use super::*;

    /// What is sent through the seam is what the other side reads.
    #[rstest]
    fn s6_1_a_frame_is_sent_with_the_header_it_needs(
        #[values(Role::Server, Role::Client)] receiver: Role,
        #[values(0, 125, 126, 70_000)] len: usize,
    ) {
        let frame = FakeFrame { fin: true, opcode: Opcode::Binary, payload: vec![6; len] };
        let header = Header::of(&frame, key_for(receiver));
        assert_eq!(header.mask.is_some(), receiver == Role::Server, "section 5.1");
        let bytes = encode(header, frame.payload());
        assert_eq!(seen_by(receiver, &bytes), [Seen::Binary(frame.payload)]);
    }
}

mod s5_3_masking {
    use super::*;

    /// Each frame has its own key, and it starts anew with each.
    #[test]
    fn s5_3_each_frame_is_unmasked_with_its_own_key() {
        let frame = |key, opcode, fin, payload: &[u8]| {
            encode(Header::new(fin, opcode, Some(key), payload.len() as u64), payload)
        };
        let stream = [
            frame([1, 2, 3, 4], Opcode::Text, false, b"ab"),
            frame([9, 9, 9, 9], Opcode::Ping, true, b"p"),
            frame([5, 6, 7, 8], Opcode::Continuation, true, b"cde"),
            frame([0, 0, 0, 0], Opcode::Text, true, b"plain"),
        ]
        .concat();
        let expected =
            [Seen::Ping(b"p".to_vec()), Seen::Text("abcde".into()), Seen::Text("plain".into())];
        assert_eq!(seen_by(Role::Server, &stream), expected);
    }
}

mod s5_4_fragmentation {
    use super::*;

    #[rstest]
    fn s5_4_fragments_are_one_message_of_the_kind_of_the_first(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(Opcode::Text, Opcode::Binary)] opcode: Opcode,
    ) {
        let stream = [
            frame_to(role, false, opcode, b"fr"),
            frame_to(role, false, Opcode::Continuation, b"ag"),
            frame_to(role, true, Opcode::Continuation, b"ment"),
        ]
        .concat();
        let expected = match opcode {
            Opcode::Text => Seen::Text("fragment".into()),
            _ => Seen::Binary(b"fragment".to_vec()),
        };
        assert_eq!(seen_by(role, &stream), [expected]);
    }

    #[rstest]
    fn s5_4_control_frames_may_come_between_fragments(
        #[values(Role::Server, Role::Client)] role: Role,
    ) {
        let stream = [
            frame_to(role, false, Opcode::Text, b"a"),
            frame_to(role, true, Opcode::Ping, b"1"),
            frame_to(role, false, Opcode::Continuation, b"b"),
            frame_to(role, true, Opcode::Pong, b"2"),
            frame_to(role, true, Opcode::Continuation, b"c"),
        ]
        .concat();
        let expected =
            [Seen::Ping(b"1".to_vec()), Seen::Pong(b"2".to_vec()), Seen::Text("abc".into())];
        assert_eq!(seen_by(role, &stream), expected);
    }

    #[rstest]
    fn s5_4_control_frames_must_not_be_fragmented(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(0x08, 0x09, 0x0A)] first: u8,
    ) {
        assert_eq!(violation_at_last_byte(role, &[first]), Some(Violation::ControlFragmented));
    }

    #[rstest]
    fn s5_4_messages_must_not_be_interleaved(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(Opcode::Text, Opcode::Binary)] second: Opcode,
        #[values(true, false)] fin: bool,
    ) {
        let mut stream = frame_to(role, false, Opcode::Text, b"one");
        stream.extend(frame_to(role, fin, second, b""));
        let violation = violation_at_last_byte(role, &stream);
        assert_eq!(violation, Some(Violation::MessageInsideMessage));
    }

    #[rstest]
    fn s5_4_a_continuation_needs_a_beginning(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(true, false)] fin: bool,
        #[values(true, false)] after_a_message: bool,
    ) {
        let mut peer = Peer::new(role);
        if after_a_message {
            peer.read(&frame_to(role, false, Opcode::Text, b"a"));
            peer.read(&frame_to(role, true, Opcode::Continuation, b"b"));
        }
        let seen = peer.read(&frame_to(role, fin, Opcode::Continuation, b""));
        assert_eq!(seen, [Seen::Failed(Violation::ContinuationWithoutStart)]);
    }
}

mod s5_5_control_frames {
    use super::*;

    #[rstest]
    fn s5_5_control_frames_must_have_125_bytes_at_most(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(Opcode::Close, Opcode::Ping, Opcode::Pong)] opcode: Opcode,
        #[values(126, 127)] short: u8,
    ) {
        let masked = if role == Role::Server { 0x80 } else { 0 };
        let violation = violation_at_last_byte(role, &[0x80 | opcode.bits(), short | masked]);
        assert_eq!(violation, Some(Violation::ControlTooLong), "before its length is read");
    }

    #[rstest]
    fn s5_5_2_a_ping_gives_the_payload_that_its_pong_must_have(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(0, 1, 125)] len: usize,
    ) {
        let payload: Vec<u8> = (0..len as u8).collect();
        let ping = frame_to(role, true, Opcode::Ping, &payload);
        assert_eq!(seen_by(role, &ping), [Seen::Ping(payload.clone())]);
        let control = Control::new(&payload).expect("at most 125 bytes");
        assert_eq!(&*control, &payload[..]);
    }

    #[rstest]
    fn s5_5_3_an_unasked_pong_is_no_error(#[values(Role::Server, Role::Client)] role: Role) {
        let pong = frame_to(role, true, Opcode::Pong, b"heartbeat");
        assert_eq!(seen_by(role, &pong), [Seen::Pong(b"heartbeat".to_vec())]);
    }

    #[test]
    fn a_control_payload_of_126_bytes_cannot_be_made() {
        assert_eq!(Control::new(&[0; 126]), None);
    }
}

mod s5_5_1_close {
    use super::*;

    #[rstest]
    fn s5_5_1_a_close_may_be_empty(#[values(Role::Server, Role::Client)] role: Role) {
        let seen = seen_by(role, &frame_to(role, true, Opcode::Close, b""));
        assert_eq!(seen, [Seen::Close(None, String::new())]);
    }

    #[rstest]
    fn s5_5_1_a_body_begins_with_two_bytes_of_code(
        #[values(Role::Server, Role::Client)] role: Role,
    ) {
        let seen = seen_by(role, &frame_to(role, true, Opcode::Close, b"\x03"));
        assert_eq!(seen, [Seen::Failed(Violation::CloseBodyOneByte)]);
    }

    #[rstest]
    #[case(b"\xff")]
    #[case(b"cut \xe2\x82")]
    #[case(b"\xed\xa0\x80")]
    fn s5_5_1_the_reason_is_utf_8(
        #[values(Role::Server, Role::Client)] role: Role,
        #[case] reason: &[u8],
    ) {
        let seen = seen_by(role, &frame_to(role, true, Opcode::Close, &close_body(1000, reason)));
        assert_eq!(seen, [Seen::Failed(Violation::CloseReasonNotUtf8)]);
    }

    #[test]
    fn s5_5_1_the_longest_reason_is_read() {
        let reason = "ü".repeat(61) + "x";
        let close = client(Opcode::Close, &close_body(1001, reason.as_bytes()));
        assert_eq!(seen_by(Role::Server, &close), [Seen::Close(Some(1001), reason)]);
    }

    #[test]
    fn s5_5_1_a_longer_reason_is_cut_at_a_character_when_sent() {
        let mut out = [0; CONTROL_BYTES_MAX];
        let len = encode_close(CloseCode::NORMAL, &"ü".repeat(99), &mut out);
        assert_eq!(out[..len], close_body(1000, "ü".repeat(61).as_bytes()));
        assert_eq!(encode_close(CloseCode::NORMAL, "", &mut out), 2);
    }

    /// Section 1.4: what comes after a close frame is discarded, also in the same input.
    #[rstest]
    fn s5_5_1_nothing_is_read_after_a_close(#[values(Role::Server, Role::Client)] role: Role) {
        let mut peer = Peer::new(role);
        let mut stream = frame_to(role, true, Opcode::Close, &close_body(1000, b""));
        stream.extend(frame_to(role, true, Opcode::Text, b"late"));
        assert_eq!(peer.read(&stream), [Seen::Close(Some(1000), String::new())]);
        assert_deaf(&mut peer);
    }

    /// The peer may close in the middle of a message.
    #[test]
    fn s5_5_1_a_close_ends_an_unfinished_message() {
        let stream = [fragment(Opcode::Text, b"unfinished"), client(Opcode::Close, b"")].concat();
        let mut peer = Peer::new(Role::Server);
        assert_eq!(peer.read(&stream), [Seen::Close(None, String::new())]);
        assert!(!peer.connection.is_mid_message());
        assert!(peer.connection.buffer_mut().is_none(), "its memory is given back");
    }
}

mod s5_6_and_8_1_text {
    use super::*;

    #[rstest]
    fn s5_6_a_frame_of_text_may_end_within_a_code_point(
        #[values(Role::Server, Role::Client)] role: Role,
    ) {
        let text = "κόσμε";
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            let mut stream = frame_to(role, false, Opcode::Text, head);
            stream.extend(frame_to(role, true, Opcode::Continuation, tail));
            assert_eq!(seen_by(role, &stream), [Seen::Text(text.into())]);
        }
    }

    #[rstest]
    #[case::not_utf8(b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")]
    #[case::cut_at_the_end(b"\xce\xba\xe1\xbd")]
    #[case::above_the_last(b"\xf4\x90\x80\x80")]
    #[case::overlong(b"\xc0\xaf")]
    fn s8_1_text_that_is_not_utf_8_must_fail(
        #[values(Role::Server, Role::Client)] role: Role,
        #[case] text: &[u8],
    ) {
        let frame = frame_to(role, true, Opcode::Text, text);
        let mut peer = Peer::new(role);
        assert_eq!(peer.read(&frame), [Seen::Failed(Violation::TextNotUtf8)]);
        assert_eq!(peer.connection.state(), State::Failed);
        let binary = frame_to(role, true, Opcode::Binary, text);
        assert_eq!(seen_by(role, &binary), [Seen::Binary(text.to_vec())], "binary is not text");
    }

    /// Autobahn 6.4: not at the end of the message or frame, but at the byte.
    #[rstest]
    #[case::surrogate(b"\xce\xba\xed\xa0", b"\x80 and more")]
    #[case::above_the_last(b"\xce\xba\xf4\x90", b"\x80\x80 and more")]
    #[case::not_a_continuation(b"\xce\x41", b" and more")]
    fn s8_1_bad_text_fails_at_its_first_bad_byte(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(true, false)] in_a_fragment: bool,
        #[case] bad: &[u8],
        #[case] later: &[u8],
    ) {
        let mut stream = Vec::new();
        let mut opcode = Opcode::Text;
        if in_a_fragment {
            stream.extend(frame_to(role, false, Opcode::Text, b"good "));
            opcode = Opcode::Continuation;
        }
        stream.extend(frame_to(role, true, opcode, &[bad, later].concat()));
        stream.truncate(stream.len() - later.len());
        assert_eq!(violation_at_last_byte(role, &stream), Some(Violation::TextNotUtf8));
    }

    #[test]
    fn s5_6_a_message_after_a_text_begins_anew() {
        let stream = [
            fragment(Opcode::Text, b"\xe2\x82"),
            client(Opcode::Continuation, b"\xac"),
            client(Opcode::Text, b"ascii"),
        ]
        .concat();
        let seen = seen_by(Role::Server, &stream);
        assert_eq!(seen, [Seen::Text("€".into()), Seen::Text("ascii".into())]);
    }
}

mod s5_7_examples {
    use super::*;

    #[rstest]
    #[case::unmasked_text(b"\x81\x05\x48\x65\x6c\x6c\x6f", Seen::Text("Hello".into()))]
    #[case::fragmented(
        b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f",
        Seen::Text("Hello".into())
    )]
    #[case::ping(b"\x89\x05\x48\x65\x6c\x6c\x6f", Seen::Ping(b"Hello".to_vec()))]
    fn s5_7_to_a_client(#[case] stream: &[u8], #[case] expected: Seen) {
        assert_eq!(seen_by(Role::Client, stream), [expected]);
    }

    #[rstest]
    #[case::masked_text(
        b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        Seen::Text("Hello".into())
    )]
    #[case::masked_pong(
        b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
        Seen::Pong(b"Hello".to_vec())
    )]
    fn s5_7_to_a_server(#[case] stream: &[u8], #[case] expected: Seen) {
        assert_eq!(seen_by(Role::Server, stream), [expected]);
    }

    #[rstest]
    #[case(256, b"\x82\x7e\x01\x00")]
    #[case(65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00")]
    fn s5_7_long_frames(#[case] len: usize, #[case] header: &[u8]) {
        let frame = [header, &vec![3; len]].concat();
        assert_eq!(seen_by(Role::Client, &frame), [Seen::Binary(vec![3; len])]);
    }
}

mod s7_closing {
    use super::*;

    #[rstest]
    fn s7_1_2_the_handshake_begun_by_the_peer(#[values(Role::Server, Role::Client)] role: Role) {
        let mut peer = Peer::new(role);
        assert_eq!(peer.connection.state(), State::Open);
        peer.read(&frame_to(role, true, Opcode::Close, &close_body(1000, b"")));
        assert_eq!(peer.connection.state(), State::CloseReceived);
        peer.connection.close_sent();
        assert_eq!(peer.connection.state(), State::Closed);
    }

    /// What the peer sent before it saw our close frame still arrives (section 7.1.2).
    #[rstest]
    fn s7_1_2_the_handshake_begun_by_us(#[values(Role::Server, Role::Client)] role: Role) {
        let mut peer = Peer::new(role);
        peer.connection.close_sent();
        assert_eq!(peer.connection.state(), State::CloseSent);
        let on_its_way = peer.read(&frame_to(role, true, Opcode::Text, b"on its way"));
        assert_eq!(on_its_way, [Seen::Text("on its way".into())]);
        let answer = peer.read(&frame_to(role, true, Opcode::Close, &close_body(1000, b"")));
        assert_eq!(answer, [Seen::Close(Some(1000), String::new())]);
        assert_eq!(peer.connection.state(), State::Closed);
        assert_deaf(&mut peer);
    }

    #[rstest]
    fn s7_1_7_nothing_is_read_after_a_failure(#[values(Role::Server, Role::Client)] role: Role) {
        let mut peer = Peer::new(role);
        assert_eq!(peer.read(&[0x83]), [Seen::Failed(Violation::ReservedOpcode)]);
        assert_eq!(peer.connection.state(), State::Failed);
        assert_deaf(&mut peer);
        peer.connection.close_sent();
        assert_eq!(peer.connection.state(), State::Failed, "a failure stays one");
    }

    /// Section 7.4.2 and IANA's registry.
    #[rstest]
    fn s7_4_codes_that_may_be_sent_are_accepted(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999
        )]
        code: u16,
    ) {
        let close = frame_to(role, true, Opcode::Close, &close_body(code, b"why"));
        assert_eq!(seen_by(role, &close), [Seen::Close(Some(code), "why".into())]);
        assert_eq!(CloseCode::new(code).map(CloseCode::get), Some(code));
    }

    #[rstest]
    fn s7_4_codes_that_must_not_be_sent_fail(
        #[values(Role::Server, Role::Client)] role: Role,
        #[values(0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)]
        code: u16,
    ) {
        let close = frame_to(role, true, Opcode::Close, &close_body(code, b""));
        assert_eq!(seen_by(role, &close), [Seen::Failed(Violation::CloseCodeInvalid)]);
        assert_eq!(CloseCode::new(code), None);
    }

    /// Every violation is answered with the code that section 7.4.1 gives it.
    #[rstest]
    #[case(Violation::ReservedBits, CloseCode::PROTOCOL_ERROR)]
    #[case(Violation::LengthTopBit, CloseCode::PROTOCOL_ERROR)]
    #[case(Violation::CloseCodeInvalid, CloseCode::PROTOCOL_ERROR)]
    #[case(Violation::TextNotUtf8, CloseCode::INVALID_PAYLOAD)]
    #[case(Violation::CloseReasonNotUtf8, CloseCode::INVALID_PAYLOAD)]
    #[case(Violation::OverheadExhausted, CloseCode::POLICY)]
    #[case(Violation::TooManyFragments, CloseCode::POLICY)]
    #[case(Violation::MessageTooOld, CloseCode::POLICY)]
    #[case(Violation::MessageTooBig, CloseCode::TOO_BIG)]
    #[case(Violation::OutOfMemory, CloseCode::TRY_AGAIN)]
    fn s7_4_1_violations_have_their_codes(#[case] violation: Violation, #[case] code: CloseCode) {
        assert_eq!(violation.code(), code);
        assert_eq!(CloseCode::new(code.get()), Some(code), "it may be sent");
    }
}

/// The model of the property tests is itself held to the examples of the RFC.
#[test]
fn the_model_reads_the_examples() {
    let stream = b"\x01\x03\x48\x65\x6c\x89\x05\x48\x65\x6c\x6c\x6f\x80\x02\x6c\x6f\x88\x00";
    let expected = [
        Seen::Ping(b"Hello".to_vec()),
        Seen::Text("Hello".into()),
        Seen::Close(None, String::new()),
    ];
    assert_eq!(model::events(Role::Client, &Limits::default(), false, stream), expected);
}
