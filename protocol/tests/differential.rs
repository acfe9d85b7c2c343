//! The same streams through another implementation: tungstenite, in the role of the server.
//!
//! Random frames, good and bad, and then bytes of them changed: both must see the same messages, and
//! refuse with the same close code. Where they differ on purpose stands in [`DIFFERENCES`], each with
//! the section that decides; nothing else may.
//!
//! `HIOLOAD_DIFFERENTIAL_CASES=1000000 cargo test -p hioload-protocol --test differential` runs more
//! than the few thousand cases of every test run.

use std::io::{self, Read, Write};

use hioload_protocol::ws::{Limits, Opcode, Role, Violation};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rstest::rstest;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

mod common;

use common::{Peer, Seen, client, close_body, fragment};

/// The most bytes of a message and of a frame, on both sides.
const MESSAGE_BYTES_MAX: usize = 2000;
/// Longer than every frame that is taken: with this behind a stream, its last frame is whole.
const PADDING: [u8; MESSAGE_BYTES_MAX + 200] = [0; MESSAGE_BYTES_MAX + 200];
const CASES: u32 = 6000;
const CASES_KEY: &str = "HIOLOAD_DIFFERENTIAL_CASES";

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More may come.
    Waits,
    /// A close frame came.
    Closed,
    /// It is refused, with this close code.
    Refused(u16),
}

/// Where the two differ on purpose: what we refuse, and how theirs may end instead.
const DIFFERENCES: &[(Violation, End)] = &[
    // RFC 6455 section 5.2: "the minimal number of bytes MUST be used". Theirs reads any, also in
    // a control frame, where we say that it is too long.
    (Violation::LengthNotMinimal, End::Waits),
    // Section 5.2: the top bit "MUST be 0". To theirs that is a frame that is too big.
    (Violation::LengthTopBit, End::Refused(1009)),
    // Sections 5.1, 5.2, 5.4 and 5.5: headers with several faults. We name the rule that is broken,
    // theirs looks at the length first.
    (Violation::ClientFrameUnmasked, End::Refused(1009)),
    (Violation::ReservedBits, End::Refused(1009)),
    (Violation::ControlFragmented, End::Refused(1009)),
    (Violation::ControlTooLong, End::Refused(1009)),
    (Violation::ContinuationWithoutStart, End::Refused(1009)),
    (Violation::MessageInsideMessage, End::Refused(1009)),
    // Sections 5.5.1 and 7.4: a close frame with a wrong code and a reason that is no UTF-8.
    (Violation::CloseCodeInvalid, End::Refused(1007)),
];

fn ours(stream: &[u8]) -> (Vec<Seen>, End, Option<Violation>) {
    let limits = Limits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        fragments_max: u32::MAX,
        message_age_ms_max: 0,
        overhead_budget_bytes: u32::MAX,
    };
    let mut seen = Peer::with_limits(Role::Server, limits).read(stream);
    match seen.pop() {
        Some(Seen::Failed(violation)) => {
            (seen, End::Refused(violation.code().get()), Some(violation))
        }
        Some(last @ Seen::Close(..)) => {
            seen.push(last);
            (seen, End::Closed, None)
        }
        last => {
            seen.extend(last);
            (seen, End::Waits, None)
        }
    }
}

/// Gives the bytes of a stream, then nothing for now; what is sent is forgotten.
struct Pipe<'a>(&'a [u8]);

impl Read for Pipe<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(into)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(stream: &[u8]) -> (Vec<Seen>, End) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let role = tungstenite::protocol::Role::Server;
    let mut socket = WebSocket::from_raw_socket(Pipe(stream), role, Some(config));
    let mut seen = Vec::new();
    loop {
        seen.push(match socket.read() {
            Ok(Message::Text(text)) => Seen::Text(text.as_str().to_owned()),
            Ok(Message::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
            Ok(Message::Ping(payload)) => Seen::Ping(payload.to_vec()),
            Ok(Message::Pong(payload)) => Seen::Pong(payload.to_vec()),
            Ok(Message::Close(Some(frame)))
                if frame.code == CloseCode::Protocol && &*frame.reason == "Protocol violation" =>
            {
                // Its answer to a code that may not be sent; it gives that as if it had come.
                return (seen, End::Refused(1002));
            }
            Ok(Message::Close(frame)) => {
                let code = frame.as_ref().map(|frame| frame.code.into());
                let reason = frame.map(|frame| frame.reason.as_str().to_owned());
                Seen::Close(code, reason.unwrap_or_default())
            }
            Ok(Message::Frame(frame)) => unreachable!("it is not asked for frames: {frame:?}"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (seen, End::Waits);
            }
            Err(Error::ConnectionClosed) => return (seen, End::Closed),
            Err(Error::Protocol(_)) => return (seen, End::Refused(1002)),
            Err(Error::Utf8(_)) => return (seen, End::Refused(1007)),
            Err(Error::Capacity(_)) => return (seen, End::Refused(1009)),
            Err(other) => panic!("it fails with {other}"),
        });
    }
}

/// Whether both make the same of a stream, or differ as they may.
fn compare(stream: &[u8]) -> Result<(), String> {
    let (seen, end, violation) = ours(stream);
    let (their_seen, their_end) = theirs(stream);
    if (&seen, end) == (&their_seen, their_end) {
        return Ok(());
    }
    let said = || format!("ours: {seen:?} {violation:?}, theirs: {their_seen:?} {their_end:?}");
    let Some(violation) = violation else {
        // A code that was registered since (IANA, "Bad gateway"): theirs does not know it.
        let is_1014 = matches!(seen.last(), Some(Seen::Close(Some(1014), _)));
        let only =
            is_1014 && their_end == End::Refused(1002) && seen[..seen.len() - 1] == their_seen;
        return if only { Ok(()) } else { Err(said()) };
    };
    if !their_seen.starts_with(&seen) {
        return Err(said());
    }
    let padded = [stream, &PADDING].concat();
    let about_length = [Violation::LengthNotMinimal, Violation::ControlTooLong];
    if about_length.contains(&violation) && has_long_length(&padded) {
        return Ok(()); // it reads on where we stop
    }
    let differs = |end| DIFFERENCES.contains(&(violation, end));
    if their_seen.len() > seen.len() {
        return Err(said());
    }
    // We refuse at the first wrong byte, theirs when the frame is whole.
    let their_end = match their_end {
        End::Waits => theirs(&padded).1,
        end => end,
    };
    if their_end == end || differs(their_end) { Ok(()) } else { Err(said()) }
}

/// Whether the first length that is written in more than one byte could be in fewer.
fn has_long_length(mut stream: &[u8]) -> bool {
    while let [_, second, rest @ ..] = stream {
        let extended = [0, 2, 8][usize::from(second & 127).max(125) - 125];
        let Some(length) = rest.get(..extended) else { return false };
        let long = length.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        if (extended == 2 && long < 126) || (extended == 8 && long < 65_536) {
            return true;
        }
        let len = if extended == 0 { u64::from(second & 127) } else { long };
        let skip = extended as u64 + len + if second & 128 == 128 { 4 } else { 0 };
        let Some(behind) = usize::try_from(skip).ok().and_then(|skip| rest.get(skip..)) else {
            return false;
        };
        stream = behind;
    }
    false
}

/// A frame: mostly as it must be.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => Just(0x81_u8), 4 => Just(0x82), 3 => Just(0x01), 2 => Just(0x02), 4 => Just(0x80),
        4 => Just(0x00), 2 => Just(0x89), 2 => Just(0x8a), 1 => Just(0x88), 1 => any::<u8>(),
    ];
    let text = proptest::string::string_regex("[a-zß€😀]{0,40}").expect("a regular expression");
    let payload = prop_oneof![
        4 => text.prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..130),
        1 => vec(Just(b'x'), 0..2300),
        1 => (0..20_u16, vec(any::<u8>(), 0..4))
            .prop_map(|(code, rest)| [&(998 + code).to_be_bytes()[..], &rest].concat()),
    ];
    let key = prop_oneof![19 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    let width = prop_oneof![19 => Just(0_usize), 1 => 0..3_usize];
    (first, payload, key, width).prop_map(|(first, payload, key, width)| {
        let len = payload.len();
        let shortest = usize::from(len > 125) + usize::from(len > 65_535);
        let mask = if key.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match width.max(shortest) {
            0 => bytes.push(mask | len as u8),
            1 => bytes.extend([&[mask | 126], &(len as u16).to_be_bytes()[..]].concat()),
            _ => bytes.extend([&[mask | 127], &(len as u64).to_be_bytes()[..]].concat()),
        }
        bytes.extend(key.iter().flatten());
        let key = key.unwrap_or_default();
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    })
}

/// What keeps every rule: a message, whole or in fragments with a ping between them, or a control
/// frame.
fn good() -> impl Strategy<Value = Vec<u8>> {
    let text = proptest::string::string_regex("[a-zß€😀]{0,40}").expect("a regular expression");
    let payload = prop_oneof![
        2 => text.prop_map(|text| (Opcode::Text, text.into_bytes())),
        1 => vec(any::<u8>(), 0..400).prop_map(|bytes| (Opcode::Binary, bytes)),
    ];
    let close = (0..3_u16, "[a-zß]{0,9}").prop_map(|(code, reason)| {
        client(Opcode::Close, &close_body(1000 + code, reason.as_bytes()))
    });
    let control = prop_oneof![Just(Opcode::Ping), Just(Opcode::Pong)];
    prop_oneof![
        5 => payload.clone().prop_map(|(opcode, payload)| client(opcode, &payload)),
        3 => (payload, any::<u8>()).prop_map(|((opcode, payload), at)| {
            let (front, rest) = payload.split_at(usize::from(at) % (payload.len() + 1));
            let ping = client(Opcode::Ping, &[at]);
            [fragment(opcode, front), ping, client(Opcode::Continuation, rest)].concat()
        }),
        2 => (control, vec(any::<u8>(), 0..126)).prop_map(|(opcode, body)| client(opcode, &body)),
        1 => close,
    ]
}

/// What is at the edge of a rule, on either side of it.
fn edge() -> impl Strategy<Value = Vec<u8>> {
    let codes = [0, 999, 1000, 1003, 1004, 1005, 1006, 1007, 1013, 1014, 1015, 1016, 2999, 3000];
    let code = prop_oneof![proptest::sample::select(codes.to_vec()), 4998..5002_u16];
    let lens = [124, 125, 126, 127, 1999, 2000, 2001, 2002];
    let len = proptest::sample::select(lens.to_vec());
    let opcode = prop_oneof![Just(Opcode::Text), Just(Opcode::Binary), Just(Opcode::Ping)];
    let utf8 =
        [&b"\xf4\x8f\xbf\xbf"[..], b"\xf4\x90", b"\xed\x9f\xbf", b"\xed\xa0", b"\xc1", b"\xc2"];
    prop_oneof![
        code.prop_map(|code| client(Opcode::Close, &close_body(code, b""))),
        (opcode.clone(), len.clone()).prop_map(|(opcode, len)| client(opcode, &vec![b'a'; len])),
        (opcode, len, 0..2000_usize).prop_map(|(opcode, len, at)| {
            let (front, rest) = (at.min(len), len - at.min(len));
            let rest = client(Opcode::Continuation, &vec![b'b'; rest]);
            [fragment(opcode, &vec![b'a'; front]), rest].concat()
        }),
        proptest::sample::select(utf8.to_vec()).prop_map(|text| client(Opcode::Text, text)),
    ]
}

/// Frames one after the other, and sometimes bytes of them changed, or the end cut off.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop_oneof![3 => Just(Vec::new()), 1 => vec((any::<u16>(), any::<u8>()), 1..4)];
    let cut = prop_oneof![2 => Just(None), 1 => any::<u16>().prop_map(Some)];
    (vec(prop_oneof![9 => good(), 1 => frame(), 1 => edge()], 1..7), changes, cut).prop_map(
        |(frames, changes, cut)| {
            let mut bytes = frames.concat();
            for (at, byte) in changes {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(usize::from(cut) % bytes.len());
            }
            bytes
        },
    )
}

#[test]
fn both_see_the_same_in_random_streams() {
    let asked = std::env::var(CASES_KEY).ok();
    let cases = asked.map_or(CASES, |cases| cases.parse().expect("a number of cases"));
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    let [waits, closed, refused] = [const { std::cell::Cell::new(0_u32) }; 3];
    let ran = runner.run(&stream(), |stream| {
        let count = match ours(&stream).1 {
            End::Waits => &waits,
            End::Closed => &closed,
            End::Refused(_) => &refused,
        };
        count.set(count.get() + 1);
        compare(&stream).map_err(TestCaseError::fail)
    });
    ran.unwrap_or_else(|failure| panic!("{failure}"));
    let ends = [waits, closed, refused].map(std::cell::Cell::into_inner);
    println!("of {cases} streams wait, are closed and are refused: {ends:?}");
    // Random bytes alone would all be refused at once, and show nothing.
    assert!(ends.iter().all(|count| count * 8 > cases), "{ends:?}");
}

/// Each difference is still one: when theirs changes, its entry goes.
#[rstest]
#[case::long_length(b"\x82\xfe\0\x01\0\0\0\0a", Violation::LengthNotMinimal, End::Waits)]
#[case::top_bit(b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", Violation::LengthTopBit, End::Refused(1009))]
#[case::unmasked(b"\x82\x7e\x7f\xff", Violation::ClientFrameUnmasked, End::Refused(1009))]
#[case::reserved(b"\xc2\xfe\x7f\xff\0\0\0\0", Violation::ReservedBits, End::Refused(1009))]
#[case::fragmented(b"\x09\xfe\x7f\xff\0\0\0\0", Violation::ControlFragmented, End::Refused(1009))]
#[case::long_ping(b"\x89\xfe\x7f\xff\0\0\0\0", Violation::ControlTooLong, End::Refused(1009))]
#[case::lone(b"\x80\xfe\x7f\xff\0\0\0\0", Violation::ContinuationWithoutStart, End::Refused(1009))]
#[case::within(
    b"\x01\x80\0\0\0\0\x81\xfe\x7f\xff\0\0\0\0",
    Violation::MessageInsideMessage,
    End::Refused(1009)
)]
#[case::code_and_reason(
    b"\x88\x84\0\0\0\0\xf0\x9f\x98\x80",
    Violation::CloseCodeInvalid,
    End::Refused(1007)
)]
fn where_they_differ_they_still_do(
    #[case] stream: &[u8],
    #[case] violation: Violation,
    #[case] their_end: End,
) {
    assert_eq!(ours(stream).2, Some(violation));
    assert_eq!(theirs(stream).1, their_end);
    assert!(DIFFERENCES.contains(&(violation, their_end)));
}

#[test]
fn the_close_code_1014_is_known_to_us_alone() {
    let stream = b"\x88\x82\0\0\0\0\x03\xf6";
    assert_eq!(ours(stream).0, [Seen::Close(Some(1014), String::new())]);
    assert_eq!(theirs(stream), (Vec::new(), End::Refused(1002)));
}
