//! However a stream is cut, and whichever way its payload is received, the events are those of
//! the model.

mod common;

use common::{KEY, Peer, Seen, client, fragment, frame_to, model};
use hioload_protocol::ws::{Body, frame};
use hioload_protocol::ws::{Connection, Env, Event, HeapMemory, Limits, Message, Opcode, Role};
use proptest::prelude::*;

/// Small, so that streams of a few hundred bytes reach them.
const LIMITS: Limits = Limits {
    message_bytes_max: 700,
    fragments_max: 6,
    message_age_ms_max: 0,
    overhead_budget_bytes: 300,
};

/// What the frames of a stream are made of.
#[derive(Clone, Debug)]
enum Piece {
    /// A message in one frame or several, with control frames in between.
    Message {
        text: bool,
        parts: Vec<Vec<u8>>,
        ping: Option<Vec<u8>>,
    },
    Control {
        opcode: Opcode,
        payload: Vec<u8>,
    },
    Close {
        code: u16,
        reason: Vec<u8>,
    },
    /// One frame that may break any rule.
    Wild {
        first: u8,
        masked: bool,
        payload: Vec<u8>,
    },
    Garbage(Vec<u8>),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "\\PC{0,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => prop::sample::select(vec![&b"ok \xed\xa0"[..], b"\xf4\x90", b"\xce\xba\xe1", b"\xff"])
            .prop_map(<[u8]>::to_vec),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..60),
        1 => prop::collection::vec(any::<u8>(), 120..130),
        1 => prop::collection::vec(any::<u8>(), 600..800),
    ]
}

/// A message whose text may be cut within a code point.
fn message() -> impl Strategy<Value = Piece> {
    let payload = prop_oneof![(Just(true), text()), (Just(false), bytes())];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let ping = prop::option::weighted(0.3, prop::collection::vec(any::<u8>(), 0..126));
    (payload, cuts, ping).prop_map(|((text, payload), cuts, ping)| {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.extend([0, payload.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|cut| payload[cut[0]..cut[1]].to_vec()).collect();
        Piece::Message { text, parts, ping }
    })
}

fn piece() -> impl Strategy<Value = Piece> {
    let small = || prop::collection::vec(any::<u8>(), 0..126);
    let control = prop::sample::select(vec![Opcode::Ping, Opcode::Pong]);
    prop_oneof![
        12 => message(),
        3 => (control, small()).prop_map(|(opcode, payload)| Piece::Control { opcode, payload }),
        1 => (any::<u16>(), text()).prop_map(|(code, reason)| Piece::Close { code, reason }),
        1 => (prop::sample::select(vec![1000, 1001, 1005, 3000]), "[a-zé]{0,9}")
            .prop_map(|(code, reason)| Piece::Close { code, reason: reason.into_bytes() }),
        1 => (any::<u8>(), any::<bool>(), bytes())
            .prop_map(|(first, masked, payload)| Piece::Wild { first, masked, payload }),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Piece::Garbage),
    ]
}

fn encode(role: Role, piece: &Piece) -> Vec<u8> {
    match piece {
        Piece::Message { text, parts, ping } => {
            let mut stream = Vec::new();
            let mut opcode = if *text { Opcode::Text } else { Opcode::Binary };
            for (at, part) in parts.iter().enumerate() {
                stream.extend(frame_to(role, at + 1 == parts.len(), opcode, part));
                opcode = Opcode::Continuation;
                if let (0, Some(ping)) = (at, ping) {
                    stream.extend(frame_to(role, true, Opcode::Ping, ping));
                }
            }
            stream
        }
        Piece::Control { opcode, payload } => frame_to(role, true, *opcode, payload),
        Piece::Close { code, reason } => {
            let mut body = common::close_body(*code, reason);
            body.truncate(125);
            frame_to(role, true, Opcode::Close, &body)
        }
        Piece::Wild { first, masked, payload } => {
            let mask = masked.then_some(KEY);
            let header = frame::Header::new(true, Opcode::Text, mask, payload.len() as u64);
            let mut stream = common::encode(header, payload);
            stream[0] = *first;
            stream
        }
        Piece::Garbage(bytes) => bytes.clone(),
    }
}

fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(vec![Role::Server, Role::Client])
}

fn stream() -> impl Strategy<Value = (Role, Vec<u8>)> {
    (role(), prop::collection::vec(piece(), 1..8)).prop_map(|(role, pieces)| {
        (role, pieces.iter().flat_map(|piece| encode(role, piece)).collect())
    })
}

fn read_cut(role: Role, stream: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let mut peer = Peer::with_limits(role, LIMITS);
    let mut start = 0;
    let mut seen = Vec::new();
    for end in cuts.iter().copied().chain([stream.len()]) {
        seen.extend(peer.read(&stream[start..end]));
        start = end;
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_cuts_give_the_events_of_the_model(
        (role, stream) in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(
            read_cut(role, &stream, &cuts),
            model::events(role, &LIMITS, false, &stream)
        );
    }

    /// A bad byte is answered when it comes: after each byte the events are those of the model for
    /// just that prefix.
    #[test]
    fn every_prefix_gives_the_events_of_the_model((role, stream) in stream()) {
        let mut peer = Peer::with_limits(role, LIMITS);
        let mut seen = Vec::new();
        for end in 1..=stream.len().min(400) {
            seen.extend(peer.read(&stream[end - 1..end]));
            prop_assert_eq!(&seen, &model::events(role, &LIMITS, false, &stream[..end]));
        }
    }

    #[test]
    fn the_direct_path_gives_the_events_of_the_model(
        (role, stream) in stream(),
        chunks in prop::collection::vec(1_usize..200, 1..20),
        min_bytes in 0_usize..150,
    ) {
        let mut peer = Peer::with_limits(role, LIMITS);
        let (mut rest, mut seen) = (&stream[..], Vec::new());
        for chunk in chunks.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            // What one receive brings: at most `chunk` bytes, into the message if it is lent.
            let (mut arrived, later) = rest.split_at(rest.len().min(*chunk));
            match peer.read_direct(&mut arrived, min_bytes) {
                Some(events) => {
                    seen.extend(events);
                    rest = &rest[rest.len() - later.len() - arrived.len()..];
                }
                None => {
                    seen.extend(peer.read(arrived));
                    rest = later;
                }
            }
        }
        prop_assert_eq!(seen, model::events(role, &LIMITS, false, &stream));
    }

    /// What never was a WebSocket stream neither panics nor is mistaken.
    #[test]
    fn garbage_gives_the_events_of_the_model(
        role in role(),
        stream in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert_eq!(read_cut(role, &stream, &[]), model::events(role, &LIMITS, false, &stream));
    }
}

/// One stream with everything in it, cut in two at every byte, and in three at every pair.
#[test]
fn a_stream_cut_at_every_byte_gives_the_same_events() {
    for role in [Role::Server, Role::Client] {
        let frame = |fin, opcode, payload: &[u8]| frame_to(role, fin, opcode, payload);
        let stream = [
            frame(true, Opcode::Text, "Grüße".as_bytes()),
            frame(false, Opcode::Text, b"\xe2\x82"),
            frame(true, Opcode::Ping, b"are you there?"),
            frame(false, Opcode::Continuation, b""),
            frame(true, Opcode::Continuation, b"\xac!"),
            frame(true, Opcode::Binary, &[7; 130]),
            frame(true, Opcode::Pong, b""),
            frame(true, Opcode::Binary, b""),
            frame(true, Opcode::Close, b"\x03\xe8bye"),
        ]
        .concat();
        let expected = [
            Seen::Text("Grüße".into()),
            Seen::Ping(b"are you there?".to_vec()),
            Seen::Text("€!".into()),
            Seen::Binary(vec![7; 130]),
            Seen::Pong(vec![]),
            Seen::Binary(vec![]),
            Seen::Close(Some(1000), "bye".into()),
        ];
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                assert_eq!(read_cut(role, &stream, &[first, second]), expected);
            }
        }
    }
}

/// The window of a message and of its header lie where they arrived, and nothing is asked for.
#[test]
fn a_whole_message_stays_a_window_of_the_input() {
    let head = client(Opcode::Text, b"one");
    let mut input = [&head[..], &client(Opcode::Binary, &[9; 200])].concat();
    let mut peer = Peer::new(Role::Server);
    peer.memory.refuse_from = Some(0);
    let mut env = Env { limits: &peer.limits, memory: &mut peer.memory, now_ms: 0 };
    let mut at = 0;
    for (header_at, start, len) in [(0, 6, 3), (9, 9 + 8, 200)] {
        let event = peer.connection.read(&mut input, &mut at, &mut env).expect("a good frame");
        let Some(Event::Message(Message { body, .. })) = event else { panic!("a message") };
        let payload = start..start + len;
        assert_eq!(body, Body::Window { payload, header_at: Some(header_at) });
    }
    assert_eq!(peer.memory.asked, 0);
}

/// If the header came before, the payload still needs no copy, but there is no header to reuse.
#[test]
fn a_payload_that_came_whole_after_its_header_is_a_window_without_header() {
    let stream = client(Opcode::Binary, b"payload");
    for cut in 1..=6 {
        let mut connection = Connection::new(Role::Server);
        let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms: 0 };
        let mut at = 0;
        let mut head = stream[..cut].to_vec();
        assert_eq!(connection.read(&mut head, &mut at, &mut env), Ok(None));

        let (mut rest, mut at) = (stream[cut..].to_vec(), 0);
        let event = connection.read(&mut rest, &mut at, &mut env).expect("a good frame");
        let Some(Event::Message(Message { body, .. })) = event else { panic!("a message") };
        assert_eq!(body, Body::Window { payload: 6 - cut..13 - cut, header_at: None });
        assert_eq!(body.bytes(&rest), b"payload");
    }
}

/// A message of nothing but empty fragments is delivered, and needs no memory.
#[test]
fn an_empty_fragmented_message_needs_no_memory() {
    let stream = [fragment(Opcode::Text, b""), client(Opcode::Continuation, b"")].concat();
    let mut peer = Peer::new(Role::Server);
    assert_eq!(peer.read(&stream), [Seen::Text(String::new())]);
    assert_eq!(peer.memory.asked, 0);
}
