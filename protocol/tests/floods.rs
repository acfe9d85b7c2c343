//! Peers that send much that is worth nothing, or never finish: RELIABILITY.md's attacks on the
//! state machine.

mod common;

use common::{Peer, Seen, client, fragment};
use hioload_protocol::ws::{Limits, Opcode, Role, Violation};
use rstest::rstest;

/// Sends `frame` until the connection fails, at most `max` times: how often it was taken.
fn flood(peer: &mut Peer, frame: &[u8], max: usize) -> (usize, Option<Violation>) {
    for count in 0..max {
        if let Some(Seen::Failed(violation)) = peer.read(frame).pop() {
            return (count, Some(violation));
        }
    }
    (max, None)
}

/// 65,536 bytes of budget at 16 a frame.
const FRAMES_OF_BUDGET: usize = 4_096;

#[rstest]
#[case(Opcode::Ping)]
#[case(Opcode::Pong)]
fn a_control_frame_flood_uses_up_the_budget(#[case] opcode: Opcode, #[values(0, 125)] len: usize) {
    let mut peer = Peer::new(Role::Server);
    let frame = client(opcode, &vec![1; len]);
    let (taken, violation) = flood(&mut peer, &frame, 10_000);
    assert_eq!(violation, Some(Violation::OverheadExhausted));
    assert_eq!(taken, FRAMES_OF_BUDGET - 1);
}

#[test]
fn an_empty_continuation_flood_uses_up_the_budget() {
    let mut peer = Peer::new(Role::Server);
    assert_eq!(peer.read(&fragment(Opcode::Binary, b"")), []);
    let (taken, violation) = flood(&mut peer, &fragment(Opcode::Continuation, b""), 10_000);
    assert_eq!(violation, Some(Violation::OverheadExhausted));
    assert_eq!(taken, FRAMES_OF_BUDGET - 2, "the first fragment was charged too");
    assert_eq!(peer.memory.asked, 0, "and nothing was held");
}

#[test]
fn a_fragment_flood_of_single_bytes_uses_up_the_budget() {
    let mut peer = Peer::new(Role::Server);
    assert_eq!(peer.read(&fragment(Opcode::Text, b"a")), []);
    let (taken, violation) = flood(&mut peer, &fragment(Opcode::Continuation, b"a"), 10_000);
    assert_eq!(violation, Some(Violation::OverheadExhausted));
    assert!(taken < 65_536 / 15, "{taken} bytes were kept");
}

#[test]
fn fragments_are_counted() {
    let limits = Limits { fragments_max: 3, ..Limits::default() };
    let mut peer = Peer::with_limits(Role::Server, limits);
    let part = [7; 100];
    for _ in 0..2 {
        assert_eq!(peer.read(&fragment(Opcode::Binary, &part)), []);
        assert_eq!(peer.read(&fragment(Opcode::Continuation, &part)), []);
        let whole = peer.read(&client(Opcode::Continuation, &part));
        assert_eq!(whole, [Seen::Binary(vec![7; 300])], "three are allowed, each time anew");
    }
    peer.read(&fragment(Opcode::Binary, &part));
    peer.read(&fragment(Opcode::Continuation, &part));
    peer.read(&fragment(Opcode::Continuation, &part));
    let seen = peer.read(&client(Opcode::Continuation, &part));
    assert_eq!(seen, [Seen::Failed(Violation::TooManyFragments)]);
}

/// Autobahn 9.3.1: 4 MiB in 65,536 fragments is honest, for its payload pays.
#[test]
fn fragments_that_carry_enough_are_never_overhead() {
    let limits = Limits { message_bytes_max: 4 << 20, ..Limits::default() };
    let mut peer = Peer::with_limits(Role::Server, limits);
    let part = [7; 64];
    peer.read(&fragment(Opcode::Binary, &part));
    let (_, violation) = flood(&mut peer, &fragment(Opcode::Continuation, &part), 65_534);
    assert_eq!(violation, None);
    let message = peer.read(&client(Opcode::Continuation, &part));
    assert_eq!(message, [Seen::Binary(vec![7; 4 << 20])]);
}

/// Whole messages cost nothing, not even empty ones.
#[test]
fn whole_messages_are_never_overhead() {
    let limits = Limits { overhead_budget_bytes: 0, ..Limits::default() };
    let mut peer = Peer::with_limits(Role::Server, limits);
    let (taken, _) = flood(&mut peer, &client(Opcode::Text, b""), 10_000);
    assert_eq!(taken, 10_000);
    let seen = peer.read(&client(Opcode::Ping, b""));
    assert_eq!(seen, [Seen::Failed(Violation::OverheadExhausted)], "a budget of 0 allows none");
}

/// A ping for every message is paid by the message.
#[test]
fn messages_pay_for_the_control_frames_between_them() {
    let mut peer = Peer::new(Role::Server);
    let pair = [client(Opcode::Ping, b"p"), client(Opcode::Text, b"")].concat();
    let (_, violation) = flood(&mut peer, &pair, 20_000);
    assert_eq!(violation, None);
}

/// 1,024 bytes a second are 64 control frames a second for ever, and no more.
#[rstest]
#[case::as_fast_as_time_pays(64, None)]
#[case::faster(65, Some(Violation::OverheadExhausted))]
fn time_pays_for_control_frames(#[case] per_second: usize, #[case] expected: Option<Violation>) {
    let limits = Limits { overhead_budget_bytes: 2_048, ..Limits::default() };
    let mut peer = Peer::with_limits(Role::Server, limits);
    let ping = client(Opcode::Ping, b"");
    let mut violation = None;
    for second in 0..1_000 {
        peer.now_ms = second * 1_000;
        violation = flood(&mut peer, &ping, per_second).1;
        if violation.is_some() {
            break;
        }
    }
    assert_eq!(violation, expected);
}

/// However long it was quiet, no more than the budget can be spent at once.
#[test]
fn an_idle_peer_saves_up_no_more_than_the_budget() {
    let mut peer = Peer::new(Role::Server);
    peer.now_ms = 1_000_000_000;
    let (taken, violation) = flood(&mut peer, &client(Opcode::Ping, b""), 10_000);
    assert_eq!((taken, violation), (FRAMES_OF_BUDGET - 1, Some(Violation::OverheadExhausted)));
}

mod message_age {
    use super::*;

    /// A text message, cut where the case says: after its header, in its payload, or between two
    /// fragments.
    #[rstest]
    #[case::after_the_header(client(Opcode::Text, b"slow"), 6)]
    #[case::in_the_payload(client(Opcode::Text, b"slow"), 8)]
    #[case::between_fragments(
        [fragment(Opcode::Text, b"slow"), client(Opcode::Continuation, b"")].concat(),
        10
    )]
    fn a_message_that_takes_too_long_fails(#[case] stream: Vec<u8>, #[case] cut: usize) {
        let (head, tail) = stream.split_at(cut);
        for (late_ms, expected) in
            [(29_999, Seen::Text("slow".into())), (30_000, Seen::Failed(Violation::MessageTooOld))]
        {
            let mut peer = Peer::new(Role::Server);
            peer.now_ms = 1_000;
            assert_eq!(peer.deadline_ms(), None, "no message is arriving");
            assert_eq!(peer.read(head), []);
            assert!(peer.connection.is_mid_message());
            assert_eq!(peer.deadline_ms(), Some(31_000));
            peer.now_ms += late_ms;
            assert_eq!(peer.read(tail), [expected]);
            assert_eq!(peer.deadline_ms(), None);
        }
    }

    /// Bytes and control frames in between do not make the message younger.
    #[test]
    fn trickling_does_not_extend_the_deadline() {
        let mut peer = Peer::new(Role::Server);
        peer.read(&fragment(Opcode::Binary, b"x"));
        for second in 1..30 {
            peer.now_ms = second * 1_000;
            assert_eq!(peer.read(&client(Opcode::Ping, b"")), [Seen::Ping(vec![])]);
            assert_eq!(peer.read(&fragment(Opcode::Continuation, b"x")), []);
            assert_eq!(peer.deadline_ms(), Some(30_000));
        }
        peer.now_ms = 30_000;
        let seen = peer.read(&client(Opcode::Ping, b""));
        assert_eq!(seen, [Seen::Failed(Violation::MessageTooOld)]);
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = Limits { message_age_ms_max: 0, ..Limits::default() };
        let mut peer = Peer::with_limits(Role::Server, limits);
        peer.read(&fragment(Opcode::Text, b"slow"));
        assert_eq!(peer.deadline_ms(), None);
        peer.now_ms = u64::MAX;
        let seen = peer.read(&client(Opcode::Continuation, b""));
        assert_eq!(seen, [Seen::Text("slow".into())]);
    }

    /// A cut ping is no message; its deadline is the idle timeout.
    #[test]
    fn a_cut_control_frame_is_not_a_message() {
        let mut peer = Peer::new(Role::Server);
        peer.read(&client(Opcode::Ping, b"cut")[..7]);
        assert!(!peer.connection.is_mid_message());
        assert_eq!(peer.deadline_ms(), None);
    }

    #[test]
    fn the_direct_path_keeps_the_deadline() {
        let mut peer = Peer::new(Role::Server);
        let frame = client(Opcode::Binary, &[1; 1_000]);
        peer.read(&frame[..100]);
        peer.now_ms = 30_000;
        let seen = peer.read_direct(&mut &frame[100..], 10);
        assert_eq!(seen, Some(vec![Seen::Failed(Violation::MessageTooOld)]));
    }
}
