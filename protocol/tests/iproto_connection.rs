//! The life of a connection: calls and their timeouts, pings, and the end.

mod common;

use std::collections::BTreeSet;

use common::iproto::{Seen, Side, packet};
use hioload_protocol::iproto::{
    Action, CloseReason, Connection, Header, Limits, PING, Refusal, SHUTDOWN, Violation,
};
use rstest::rstest;

const PING_PACKET: Header = Header::empty(PING, 0);
const SHUTDOWN_PACKET: Header = Header::empty(SHUTDOWN, 0);

/// As large as the lease of a pool: a pointer and two words, one of which is never null.
#[allow(dead_code)]
struct LikeALease(&'static u8, usize, u32, u32);

impl AsRef<[u8]> for LikeALease {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

#[test]
fn an_idle_connection_is_small() {
    assert_eq!(size_of::<Option<LikeALease>>(), 24);
    assert!(size_of::<Connection<LikeALease, u64>>() <= 216);
}

fn call(side: &mut Side, msg: u32, timeout_ms: u64) -> Header {
    side.call_header(msg, 0, timeout_ms).expect("nothing is in the way")
}

fn response(to: Header, body: &[u8]) -> Vec<u8> {
    packet(to.msg, to.sync, body)
}

mod calls {
    use super::*;

    #[test]
    fn responses_come_in_any_order() {
        let mut side = Side::default();
        let calls: Vec<Header> = (0..100).map(|msg| call(&mut side, msg % 7, 5_000)).collect();
        let syncs: BTreeSet<u32> = calls.iter().map(|call| call.sync).collect();
        assert_eq!(syncs, (1..=100).collect());
        for (token, header) in calls.iter().enumerate().rev() {
            let seen = side.read(&response(*header, &[token as u8]));
            assert_eq!(seen, [Seen::Response(token as u32, vec![token as u8])]);
        }
        assert_eq!(side.connection.pending(), 0);
    }

    /// The same sync with another msg is the peer's own request.
    #[test]
    fn a_response_has_the_msg_and_the_sync_of_its_call() {
        let mut side = Side::default();
        let header = call(&mut side, 42, 5_000);
        assert_eq!(side.read(&packet(41, header.sync, b"")), [Seen::Request(41, 1, vec![])]);
        assert_eq!(side.read(&packet(42, 2, b"")), [Seen::Request(42, 2, vec![])]);
        assert_eq!(side.connection.pending(), 1);
        assert_eq!(side.read(&response(header, b"")), [Seen::Response(0, vec![])]);
        assert_eq!(side.read(&response(header, b"")), [Seen::Request(42, 1, vec![])], "was taken");
    }

    #[test]
    fn each_call_has_its_own_deadline() {
        let mut side = Side::default();
        for timeout_ms in [300, 100, u64::MAX, 200, 100] {
            call(&mut side, 1, timeout_ms);
        }
        assert_eq!(side.deadline_ms(), Some(100));
        assert_eq!(side.poll(99), []);
        assert_eq!(side.poll(100), [Action::TimedOut(1), Action::TimedOut(4)], "in order");
        assert_eq!(side.deadline_ms(), Some(200));
        assert_eq!(side.poll(1_000), [Action::TimedOut(3), Action::TimedOut(0)], "earliest first");
        assert_eq!(side.connection.pending(), 1, "one has no deadline");
        assert_eq!(side.connection.stats().calls_dropped, 4);
    }

    #[test]
    fn a_late_response_is_counted_and_no_request() {
        let mut side = Side::default();
        let (timed_out, cancelled) = (call(&mut side, 1, 10), call(&mut side, 1, 5_000));
        assert_eq!(side.poll(10), [Action::TimedOut(0)]);
        assert_eq!(side.connection.cancel(&cancelled, 10, &side.limits), Some(1));
        assert_eq!(side.connection.cancel(&cancelled, 10, &side.limits), None, "only once");
        for header in [timed_out, cancelled] {
            assert_eq!(side.read(&response(header, b"late")), []);
        }
        assert_eq!(side.connection.stats().late, 2);
        // The peer answers once, so what comes now is a request.
        assert_eq!(side.read(&response(timed_out, b"")), [Seen::Request(1, 1, vec![])]);
    }

    #[test]
    fn a_call_that_times_out_while_its_response_arrives_is_late() {
        let mut side = Side::default();
        let header = call(&mut side, 1, 10);
        let stream = response(header, b"in two pieces");
        assert_eq!(side.read(&stream[..20]), []);
        assert_eq!(side.poll(10), [Action::TimedOut(0)]);
        assert_eq!(side.read(&stream[20..]), []);
        assert_eq!((side.connection.stats().late, side.memory.asked), (1, 1));
    }

    #[test]
    fn late_calls_are_remembered_up_to_a_number_and_an_age() {
        let limits = Limits { late_max: 2, late_ms: 1_000, ..Limits::default() };
        let mut side = Side::with_limits(limits);
        let calls = [10, 20, 30].map(|timeout_ms| call(&mut side, 1, timeout_ms));
        assert_eq!(side.poll(30).len(), 3);
        let seen = side.read(&response(calls[0], b""));
        assert_eq!(seen, [Seen::Request(1, 1, vec![])], "the oldest is forgotten");
        assert_eq!(side.read(&response(calls[1], b"")), []);
        side.poll(1_029);
        side.poll(1_030);
        let seen = side.read(&response(calls[2], b""));
        assert_eq!(seen, [Seen::Request(1, 3, vec![])], "it was long ago");
    }

    /// Also those that ended at the same moment, and those that no age ends.
    #[rstest]
    fn the_oldest_late_call_is_forgotten_first(#[values(0, 1_000)] late_ms: u64) {
        let mut side = Side::with_limits(Limits { late_max: 4, late_ms, ..Limits::default() });
        let calls: Vec<Header> = (0..9).map(|_| call(&mut side, 1, 10)).collect();
        assert_eq!(side.poll(10).len(), 9);
        for (at, header) in calls.iter().enumerate() {
            let delivered = !side.read(&response(*header, b"")).is_empty();
            assert_eq!(delivered, at < 5, "call {at}");
        }
    }

    #[test]
    fn where_nothing_is_served_no_request_is_delivered() {
        let mut side = Side::with_limits(Limits { requests_max: 0, ..Limits::default() });
        assert_eq!(side.read(&packet(1, 1, b"unasked")), []);
        assert_eq!(side.connection.stats().unsolicited, 1);
        assert_eq!(side.read(&packet(1, 0, b"news")), [Seen::Notify(1, b"news".to_vec())]);
    }

    #[test]
    fn the_number_of_calls_is_bounded() {
        let mut side = Side::with_limits(Limits { calls_max: 2, ..Limits::default() });
        let first = call(&mut side, 1, 10);
        call(&mut side, 1, 10);
        assert_eq!(side.call(1, b"", 10), Err(Refusal::TooManyCalls { limit: 2 }));
        side.read(&response(first, b""));
        call(&mut side, 1, 10);
    }

    #[test]
    fn the_number_of_open_requests_is_bounded() {
        let mut side = Side::with_limits(Limits { requests_max: 2, ..Limits::default() });
        side.read(&[packet(1, 1, b""), packet(1, 2, b"")].concat());
        let to = side.open.remove(0);
        side.connection.discard(to);
        side.read(&packet(1, 3, b""));
        let seen = side.read(&packet(1, 4, b""));
        assert_eq!(seen, [Seen::Failed(Violation::TooManyRequests { limit: 2 })]);
    }

    #[rstest]
    fn pings_and_shutdowns_cannot_be_called(#[values(PING, SHUTDOWN)] msg: u32) {
        let mut side = Side::default();
        assert_eq!(side.call(msg, b"", 10), Err(Refusal::ControlCode { msg }));
        assert_eq!(side.connection.notify(msg, 0), Err(Refusal::ControlCode { msg }));
    }

    #[test]
    fn what_is_sent_is_counted() {
        let mut side = Side::default();
        side.call(1, b"12345", 10).expect("nothing is in the way");
        side.connection.notify(1, 7).expect("nothing is in the way");
        side.read(&packet(1, 9, b""));
        side.reply(b"123");
        side.connection.ping(0).expect("none is unanswered");
        let stats = *side.connection.stats();
        assert_eq!((stats.packets_out, stats.bytes_out), (4, 4 * 12 + 15));
        assert_eq!((stats.calls, stats.notices, stats.requests_in), (1, 1, 1));
        assert_eq!(stats.plus(stats).bytes_out, 2 * stats.bytes_out);
    }

    /// Another implementation counts bytes in 32 bits, and ends when they are full.
    #[test]
    fn a_connection_survives_its_fifth_gibibyte() {
        let mut side = Side::default();
        for _ in 0..5 {
            side.connection.notify(1, 1 << 30).expect("nothing is in the way");
        }
        assert_eq!(side.connection.stats().bytes_out, 5 * ((1 << 30) + 12));
        call(&mut side, 1, 10);
    }
}

mod pings {
    use super::*;

    #[rstest]
    #[case(0, b"")]
    #[case(7, b"")]
    #[case(7, b"a body is not answered")]
    fn a_ping_is_answered_with_its_sync(#[case] sync: u32, #[case] body: &[u8]) {
        let mut side = Side::default();
        let seen = side.read(&packet(PING, sync, body));
        assert_eq!(seen, [Seen::Send(Header::empty(PING, sync))]);
        assert_eq!(side.connection.requests(), 0);
    }

    #[rstest]
    #[case::empty(b"")]
    #[case::from_a_handler(b"as Perl servers do")]
    fn a_ping_of_ours_is_answered_by_one_with_sync_0(#[case] body: &[u8]) {
        let mut side = Side::default();
        assert_eq!(side.deadline_ms(), Some(60_000));
        assert_eq!(side.poll(60_000), [Action::Send(PING_PACKET)]);
        assert!(side.connection.awaits_ping());
        assert_eq!(side.read(&packet(PING, 0, body)), []);
        assert!(!side.connection.awaits_ping());
        assert_eq!(side.deadline_ms(), Some(120_000));
        // The next one is the peer's own.
        assert_eq!(side.read(&packet(PING, 0, b"")), [Seen::Send(PING_PACKET)]);
    }

    /// The peer's ping with a sync is answered also while we wait, and is not taken for the answer:
    /// else that one would be answered, and its answer, and so on without end.
    #[test]
    fn a_ping_with_a_sync_is_no_answer_to_ours() {
        let mut side = Side::default();
        side.connection.ping(0);
        assert_eq!(side.read(&packet(PING, 5, b"")), [Seen::Send(Header::empty(PING, 5))]);
        assert!(side.connection.awaits_ping());
        assert_eq!(side.read(&packet(PING, 0, b"")), []);
    }

    /// Each side takes the ping of the other for the answer to its own.
    #[test]
    fn pings_that_cross_are_not_answered_without_end() {
        let (mut one, mut other) = (Side::default(), Side::default());
        let ping = one.connection.ping(0).expect("none is unanswered").encode();
        assert_eq!(other.connection.ping(0).expect("none is unanswered").encode(), ping);
        assert_eq!((one.read(&ping), other.read(&ping)), (vec![], vec![]));
        assert!(!one.connection.awaits_ping() && !other.connection.awaits_ping());
    }

    #[test]
    fn only_one_ping_waits_at_a_time() {
        let mut side = Side::default();
        assert_eq!(side.connection.ping(1_000), Some(PING_PACKET));
        assert_eq!(side.connection.ping(2_000), None);
        assert_eq!(side.poll(61_000), []);
    }

    #[test]
    fn a_peer_that_is_silent_after_a_ping_is_given_up() {
        let mut side = Side::default();
        side.poll(60_000);
        assert_eq!(side.deadline_ms(), Some(180_000));
        assert_eq!(side.poll(179_999), []);
        assert_eq!(side.poll(180_000), [Action::Close(CloseReason::PingTimeout)]);
    }

    /// Who answers no ping but sends something else is there.
    #[test]
    fn whatever_a_peer_sends_shows_that_it_is_there() {
        let mut side = Side::default();
        side.poll(60_000);
        side.now_ms = 100_000;
        side.read(&packet(1, 0, b"news"));
        assert_eq!(side.deadline_ms(), Some(220_000));
        side.connection.restart_clocks(150_000);
        assert_eq!(side.deadline_ms(), Some(270_000), "we did not read");
        assert_eq!(side.poll(270_000), [Action::Close(CloseReason::PingTimeout)]);
    }

    #[test]
    fn a_peer_that_is_idle_for_too_long_is_given_up() {
        let limits = Limits { ping_interval_ms: 0, idle_timeout_ms: 1_000, ..Limits::default() };
        let mut side = Side::with_limits(limits);
        side.now_ms = 700;
        side.read(&packet(1, 0, b"")[..5]);
        assert_eq!(side.deadline_ms(), Some(1_700));
        assert_eq!(side.poll(1_700), [Action::Close(CloseReason::IdleTimeout)]);
    }

    #[test]
    fn a_packet_may_not_trickle_for_ever() {
        let mut side = Side::with_limits(Limits { ping_interval_ms: 0, ..Limits::default() });
        let stream = packet(1, 0, &[0; 100]);
        for (second, byte) in stream.iter().enumerate().take(31) {
            assert_eq!(
                side.poll(second as u64 * 1_000),
                if second < 30 { vec![] } else { vec![Action::Close(CloseReason::PacketTooOld)] }
            );
            side.read(&[*byte]);
        }
        assert_eq!(side.deadline_ms(), None);
    }

    #[test]
    fn without_times_there_is_no_deadline() {
        let limits = Limits {
            ping_interval_ms: 0,
            packet_age_ms_max: 0,
            shutdown_timeout_ms: 0,
            ..Limits::default()
        };
        let mut side = Side::with_limits(limits);
        side.read(&packet(1, 1, b"")[..5]);
        side.connection.shutdown(0);
        side.poll(0);
        assert_eq!(side.deadline_ms(), None);
        assert_eq!(side.poll(u64::MAX), []);
    }
}

mod shutdown {
    use super::*;

    /// All that both sides send and do until neither has anything to do.
    fn settle(sides: [&mut Side; 2]) -> [Vec<Action<u32>>; 2] {
        let [one, other] = sides;
        let mut done = [vec![], vec![]];
        loop {
            let [first, second] = [one.poll(one.now_ms), other.poll(other.now_ms)];
            if first.is_empty() && second.is_empty() {
                return done;
            }
            for (actions, to) in [(&first, &mut *other), (&second, &mut *one)] {
                for action in actions {
                    if let Action::Send(header) = action {
                        to.read(&header.encode());
                    }
                }
            }
            done[0].extend(first);
            done[1].extend(second);
        }
    }

    const IN_ORDER: [Action<u32>; 2] =
        [Action::Send(SHUTDOWN_PACKET), Action::Close(CloseReason::Finished)];

    #[test]
    fn it_is_a_packet_from_each_side() {
        let (mut asks, mut asked) = (Side::default(), Side::default());
        asks.connection.shutdown(0);
        assert_eq!(asks.poll(0), [Action::Send(SHUTDOWN_PACKET)]);
        assert_eq!(asked.read(&SHUTDOWN_PACKET.encode()), [Seen::Shutdown]);
        assert_eq!(asked.poll(0), IN_ORDER);
        assert_eq!(asks.read(&SHUTDOWN_PACKET.encode()), [], "it was asked for");
        assert_eq!(asks.poll(0), [Action::Close(CloseReason::Finished)]);
        for side in [&mut asks, &mut asked] {
            assert_eq!(side.connection.close_reason(), Some(CloseReason::Finished));
            assert_eq!((side.poll(1_000_000), side.deadline_ms()), (vec![], None));
        }
    }

    #[test]
    fn both_sides_may_ask_at_once() {
        let (mut one, mut other) = (Side::default(), Side::default());
        one.connection.shutdown(0);
        other.connection.shutdown(0);
        assert_eq!(settle([&mut one, &mut other]), [IN_ORDER, IN_ORDER]);
    }

    #[test]
    fn our_calls_finish_first() {
        let mut side = Side::default();
        let calls = [call(&mut side, 1, 5_000), call(&mut side, 2, 300)];
        side.connection.shutdown(0);
        assert!(side.connection.is_stopped());
        assert_eq!(side.call(1, b"", 10), Err(Refusal::Stopped));
        assert_eq!(side.connection.notify(1, 0), Err(Refusal::Stopped));
        assert_eq!(side.connection.ping(0), None);
        assert_eq!(side.poll(0), []);
        assert_eq!(side.read(&response(calls[0], b"")), [Seen::Response(0, vec![])]);
        assert_eq!(side.poll(0), []);
        assert_eq!(side.poll(300), [Action::TimedOut(1), Action::Send(SHUTDOWN_PACKET)]);
    }

    /// What the peer has asked is answered before our packet, behind which it reads nothing.
    #[test]
    fn the_peers_requests_are_answered_before_ours_is_the_answer() {
        let mut side = Side::default();
        let own = call(&mut side, 9, 5_000);
        side.read(&[packet(1, 1, b""), packet(2, 2, b"")].concat());
        assert_eq!(side.read(&SHUTDOWN_PACKET.encode()), [Seen::Shutdown]);
        assert_eq!(side.poll(0), []);
        assert_eq!(side.read(&response(own, b"")), [Seen::Response(0, vec![])]);
        side.reply(b"one");
        assert_eq!(side.poll(0), []);
        let to = side.open.remove(0);
        side.connection.discard(to);
        assert_eq!(side.poll(0), IN_ORDER);
    }

    /// Who asks says so as soon as its own calls are done; the peer's calls are the peer's to end.
    #[test]
    fn who_asks_still_answers_until_the_peer_is_done() {
        let (mut asks, mut asked) = (Side::default(), Side::default());
        asks.read(&asked.call(1, b"", 5_000).expect("nothing is in the way"));
        asks.connection.shutdown(0);
        assert_eq!(asks.poll(0), [Action::Send(SHUTDOWN_PACKET)]);
        asked.read(&SHUTDOWN_PACKET.encode());
        assert_eq!(asked.poll(0), [], "a call waits");
        assert_eq!(asked.read(&asks.reply(b"done")), [Seen::Response(0, b"done".to_vec())]);
        assert_eq!(asked.poll(0), IN_ORDER);
        asks.read(&SHUTDOWN_PACKET.encode());
        assert_eq!(asks.poll(0), [Action::Close(CloseReason::Finished)]);
    }

    #[rstest]
    fn it_is_bounded(#[values(true, false)] by_us: bool) {
        let mut side = Side::default();
        side.now_ms = 1_000;
        call(&mut side, 1, 60_000);
        match by_us {
            true => side.connection.shutdown(1_000),
            false => assert_eq!(side.read(&SHUTDOWN_PACKET.encode()), [Seen::Shutdown]),
        }
        side.connection.shutdown(3_000);
        assert_eq!(side.deadline_ms(), Some(6_000), "asking again changes nothing");
        assert_eq!(side.poll(5_999), []);
        assert_eq!(side.poll(6_000), [Action::Close(CloseReason::ShutdownTimeout)]);
        assert_eq!(side.connection.take_call(), Some(0));
    }

    #[test]
    fn behind_its_shutdown_a_peer_is_not_served() {
        let mut side = Side::default();
        let own = call(&mut side, 9, 5_000);
        let stream = [packet(SHUTDOWN, 0, b""), packet(SHUTDOWN, 0, b""), packet(1, 1, b"")];
        assert_eq!(side.read(&stream.concat()), [Seen::Shutdown]);
        assert_eq!(side.read(&packet(1, 0, b"")), []);
        assert_eq!(side.connection.stats().unsolicited, 3);
        assert_eq!(side.read(&response(own, b"")), [Seen::Response(0, vec![])]);
        assert_eq!(side.poll(0), IN_ORDER);
        assert_eq!(side.read(&packet(1, 1, b"")), [], "it has ended");
    }

    #[test]
    fn a_connection_that_is_gone_gives_its_calls_back() {
        let mut side = Side::default();
        call(&mut side, 1, 10);
        side.read(&packet(1, 9, b""));
        side.connection.closed();
        assert_eq!(side.connection.close_reason(), Some(CloseReason::Gone));
        assert_eq!((side.poll(1_000), side.call(1, b"", 10)), (vec![], Err(Refusal::Stopped)));
        assert_eq!(side.connection.take_call(), Some(0));
        let to = side.open.remove(0);
        let refused = side.connection.reply(to, 0).expect_err("there is nobody to reply to");
        assert_eq!((refused.why, refused.token.sync()), (Refusal::Stopped, 9));
    }
}

/// Somebody else goes on with the bytes.
mod hijack {
    use super::*;

    #[test]
    fn half_a_packet_is_given_back_wherever_it_is_cut() {
        let stream = [packet(1, 0, b"whole"), packet(2, 0, b"not whole")].concat();
        let whole = packet(1, 0, b"whole").len();
        for cut in whole..stream.len() {
            let mut side = Side::default();
            assert_eq!(side.read(&stream[..cut]).len(), 1);
            let unread = side.connection.hijack();
            assert_eq!((&unread.bytes[..], unread.skip), (&stream[whole..cut], 0), "cut at {cut}");
            assert_eq!(side.connection.close_reason(), Some(CloseReason::Gone));
            assert_eq!(side.read(&stream[cut..]), [], "it is not for us any more");
        }
    }

    #[test]
    fn of_a_packet_that_is_thrown_away_the_rest_is_counted() {
        for cut in 12..16 {
            let mut side = Side::default();
            let header = call(&mut side, 1, 10);
            side.poll(10);
            assert_eq!(side.read(&response(header, b"late")[..cut]), []);
            let unread = side.connection.hijack();
            assert_eq!((unread.bytes.len(), unread.skip), (0, 16 - cut));
        }
    }

    #[test]
    fn calls_are_left_and_nothing_more_is_sent() {
        let mut side = Side::default();
        call(&mut side, 1, 10);
        assert_eq!(side.connection.hijack().bytes, []);
        assert_eq!((side.connection.take_call(), side.connection.take_call()), (Some(0), None));
        assert_eq!(side.deadline_ms(), None);
        assert_eq!(side.connection.notify(1, 0), Err(Refusal::Stopped));
    }
}
