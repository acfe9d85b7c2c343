//! Handlers tested without a socket: what a user's own tests may look like.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use hioload::config::Config;
use hioload::pools::{Arena, ArenaConfig};
use hioload::shard::WebSocketConn;
use hioload::testkit::{
    Bench, FailingPool, FakeHandler, FakeWebSocketConn, HandlerCall, Opcode, Received, Refused,
    Reply, TestClient,
};
use hioload::{
    CloseCode, Closed, Handler, Message, MessageKind, Request, Sent, Session, Shard, Upgrade,
    Violation,
};

fn text(text: &str) -> Option<Received> {
    Some(Received::Text(text.to_owned()))
}

fn close(code: CloseCode, reason: &str) -> Option<Received> {
    Some(Received::Close { code: Some(code), reason: reason.to_owned() })
}

/// A handler, a bench for it, and a client.
fn fake() -> (FakeHandler, Bench, TestClient) {
    let handler = FakeHandler::new();
    let bench = Bench::new(handler.clone());
    let client = bench.connect("/ws").expect("the handler accepts");
    (handler, bench, client)
}

#[test]
fn a_handler_is_called_for_each_thing_that_happens() {
    let (handler, bench, mut client) = fake();
    client.send_text("one");
    client.send_binary(b"two");
    assert_eq!(client.receive(), text("one"));
    assert_eq!(client.receive(), Some(Received::Binary(b"two".to_vec())));
    assert_eq!(client.receive(), None);
    client.close(CloseCode::NORMAL, "done");
    assert_eq!(client.receive(), close(CloseCode::NORMAL, ""));
    assert!(client.has_ended());
    let expected = [
        HandlerCall::Upgrade("/ws".to_owned()),
        HandlerCall::Opened,
        HandlerCall::Message(MessageKind::Text, b"one".to_vec()),
        HandlerCall::Message(MessageKind::Binary, b"two".to_vec()),
        HandlerCall::Closed(Closed::ByPeer(Some(CloseCode::NORMAL))),
    ];
    assert_eq!(handler.calls(), expected);
    let stats = bench.shard_stats();
    assert_eq!((stats.connections, stats.counters.messages), (0, 2));
}

#[test]
fn a_message_in_fragments_and_pieces_comes_whole() {
    let (_, _bench, mut client) = fake();
    client.send_frame(false, Opcode::Text, b"a ");
    client.ping(b"meanwhile");
    client.send_frame(false, Opcode::Continuation, b"whole ");
    assert_eq!(client.receive(), Some(Received::Pong(b"meanwhile".to_vec())));
    assert_eq!(client.receive(), None);
    client.send_frame(true, Opcode::Continuation, b"message");
    assert_eq!(client.receive(), text("a whole message"));
}

#[test]
fn a_message_larger_than_every_window_is_echoed() {
    let (_, _bench, mut client) = fake();
    let large: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    client.send_binary(&large);
    assert!(client.receive() == Some(Received::Binary(large)), "it came back changed");
}

/// A clock that stands still would let it spin for ever.
#[test]
fn a_shard_that_may_spin_rests_on_a_bench() {
    let mut config = Config::default();
    config.server.spin_us = 1000;
    let bench = Bench::with_config(&config, |_| FakeHandler::new());
    let mut client = bench.connect("/ws").unwrap();
    for _ in 0..10 {
        client.send_text("quickly");
        assert_eq!(client.receive(), text("quickly"));
    }
    bench.advance(Duration::from_secs(1));
}

#[test]
fn a_handler_may_refuse() {
    let handler = FakeHandler::new();
    let bench = Bench::new(handler.clone());
    handler.refuse(Some(403));
    assert_eq!(bench.connect("/ws?name=eve").unwrap_err(), Refused::Status(403));
    assert_eq!(handler.calls(), [HandlerCall::Upgrade("/ws".to_owned())]);
    assert_eq!(bench.shard_stats().counters.refused, 1);
    assert_eq!(bench.shard_stats().connections, 0);
}

#[test]
fn a_handler_closes_with_its_own_code() {
    let (handler, bench, mut client) = fake();
    let code = CloseCode::new(4321).expect("it is valid");
    handler.reply(Reply::Close(code, "as told".to_owned()));
    client.send_text("anything");
    assert_eq!(client.receive(), close(code, "as told"));
    assert!(!client.has_ended(), "it waits for our close frame");
    client.close(code, "");
    assert!(client.has_ended());
    assert_eq!(handler.calls().last(), Some(&HandlerCall::Closed(Closed::ByHandler(code))));
    assert_eq!(bench.shard_stats().connections, 0);
}

#[test]
fn a_panic_costs_one_session() {
    let (handler, bench, mut victim) = fake();
    let mut other = bench.connect("/ws").unwrap();
    handler.reply(Reply::Panic);
    victim.send_text("anything");
    assert_eq!(victim.receive(), close(CloseCode::INTERNAL, ""));
    handler.reply(Reply::Echo);
    other.send_text("still here");
    assert_eq!(other.receive(), text("still here"));
    assert_eq!(bench.shard_stats().counters.panics, 1);
}

#[test]
fn a_client_that_is_dropped_is_lost() {
    let (handler, bench, client) = fake();
    drop(client);
    assert_eq!(bench.shard_stats().connections, 0);
    assert_eq!(handler.calls().last(), Some(&HandlerCall::Closed(Closed::Lost)));
}

#[test]
fn a_slow_reader_is_full_until_it_has_drained() {
    let (handler, _bench, mut client) = fake();
    handler.reply(Reply::Text("x".repeat(60_000)));
    for _ in 0..3 {
        client.send_text("more");
    }
    // The first fits into the window of the connection, the second in part.
    assert_eq!(handler.sent(), [Sent::Queued, Sent::Queued, Sent::Full]);
    assert!(!handler.calls().contains(&HandlerCall::Drained));
    for _ in 0..3 {
        let Some(Received::Text(text)) = client.receive() else { panic!("three texts") };
        assert_eq!(text.len(), 60_000);
    }
    assert_eq!(handler.calls().last(), Some(&HandlerCall::Drained));
}

#[test]
fn hours_pass_in_no_time() {
    let (handler, bench, mut client) = fake();
    let idle = Duration::from_millis(Config::default().websocket.idle_timeout_ms);
    for _ in 0..100 {
        bench.advance(idle / 2 + Duration::from_secs(1));
        assert_eq!(client.receive(), Some(Received::Ping(Vec::new())));
        client.pong(b"");
        assert_eq!(client.receive(), None);
    }
    assert!(bench.now().as_millis() > 3_600_000);
    // From now on it is silent.
    bench.advance(idle + Duration::from_secs(1));
    assert_eq!(client.receive(), Some(Received::Ping(Vec::new())));
    assert_eq!(client.receive(), close(CloseCode::GOING_AWAY, "idle timeout"));
    bench.advance(Duration::from_millis(Config::default().websocket.close_timeout_ms + 1));
    assert!(client.has_ended());
    let end = HandlerCall::Closed(Closed::Idle);
    assert_eq!(handler.calls().last(), Some(&end));
    assert_eq!(bench.shard_stats().counters.timeouts, 1);
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_so() {
    let (handler, bench, mut client) = fake();
    client.send_frame(true, Opcode::Text, b"\xff");
    assert!(matches!(
        client.receive(),
        Some(Received::Close { code: Some(CloseCode::INVALID_PAYLOAD), .. })
    ));
    assert_eq!(bench.shard_stats().counters.violations, 1);
    let end = HandlerCall::Closed(Closed::Violation(Violation::TextNotUtf8));
    assert_eq!(handler.calls().last(), Some(&end));
}

#[test]
fn a_shutdown_closes_every_session_and_refuses_new_ones() {
    let (_, bench, mut client) = fake();
    bench.shutdown();
    assert_eq!(client.receive(), close(CloseCode::GOING_AWAY, ""));
    client.close(CloseCode::GOING_AWAY, "");
    assert!(client.has_ended());
    assert_eq!(bench.connect("/ws").unwrap_err(), Refused::Dropped);
}

/// Answers each handshake and each message after a second.
struct Patient;

impl Handler for Patient {
    type Session = u32;

    fn upgrade(&mut self, shard: &mut Shard, request: &Request<'_>) -> Upgrade<u32> {
        let (token, handle) = (request.token(), shard.handle());
        let answer = match request.query_param("user") {
            Some(_) => Upgrade::accept(7_u32).subprotocol("chat").header("X-Test", "yes"),
            None => Upgrade::refuse(401),
        };
        let sleep = shard.sleep(Duration::from_secs(1));
        let future = async move {
            sleep.await;
            let _ = handle.run(move |shard| shard.answer(token, answer));
        };
        shard.spawn(future).detach();
        Upgrade::later(token)
    }

    fn message(&mut self, shard: &mut Shard, session: &mut Session<'_, u32>, message: Message) {
        let (id, handle) = (session.id(), shard.handle());
        let sleep = shard.sleep(Duration::from_secs(1));
        let future = async move {
            sleep.await;
            let _ = handle.send(id, message.kind(), message.to_bytes());
        };
        shard.spawn(future).detach();
    }
}

#[test]
fn a_handler_may_take_its_time() {
    let bench = Bench::new(Patient);
    assert_eq!(bench.connect("/").unwrap_err(), Refused::Status(401));
    let mut client = bench.connect_with("/?user=7", &[("Cookie", "a=b")], &["chat"]).unwrap();
    assert_eq!(bench.now().as_millis(), 2000);
    assert_eq!(client.subprotocol(), Some("chat"));
    assert!(client.response().contains("X-Test: yes\r\n"), "{}", client.response());
    client.send_text("patience");
    bench.advance(Duration::from_millis(999));
    assert_eq!(client.receive(), None);
    bench.advance(Duration::from_millis(1));
    assert_eq!(client.receive(), text("patience"));
}

/// A helper of somebody's handler, which knows neither the session's type nor the shard.
fn say_goodbye(conn: &mut impl WebSocketConn) {
    if conn.send_copy(MessageKind::Text, b"goodbye") != Sent::Dropped {
        conn.close(CloseCode::NORMAL, "goodbye");
    }
}

#[test]
fn a_helper_is_tested_with_a_fake_connection() {
    let mut conn = FakeWebSocketConn::new();
    say_goodbye(&mut conn);
    assert_eq!(conn.sent, [(MessageKind::Text, b"goodbye".to_vec())]);
    assert_eq!(conn.closed, Some((CloseCode::NORMAL, "goodbye".to_owned())));

    let mut conn = FakeWebSocketConn { answer: Sent::Dropped, ..FakeWebSocketConn::new() };
    say_goodbye(&mut conn);
    assert!(conn.is_open());
}

#[test]
fn a_task_is_awaited_or_cancelled() {
    let bench = Bench::new(FakeHandler::new());
    let slept: Rc<Cell<u32>> = Rc::default();
    bench.run(|shard| {
        let count = |by: u32, slept: &Rc<Cell<u32>>| {
            let (sleep, slept) = (shard.sleep(Duration::from_secs(by.into())), Rc::clone(slept));
            shard.spawn(async move {
                sleep.await;
                slept.set(slept.get() + by);
                by
            })
        };
        drop(count(1, &slept));
        let (awaited, sum) = (count(10, &slept), Rc::clone(&slept));
        let sum_up = async move {
            let by = awaited.await;
            sum.set(sum.get() + 100 * by);
        };
        shard.spawn(sum_up).detach();
    });
    bench.advance(Duration::from_secs(60));
    assert_eq!(slept.get(), 1010, "the first one is cancelled");
}

/// Says goodbye to whoever says anything, and goodbye again.
struct Polite;

impl Handler for Polite {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        fn echo(conn: &mut impl WebSocketConn, message: Message) {
            conn.ping(b"still there?");
            assert_eq!(conn.send(message), Sent::Queued);
            assert!(conn.is_open() && conn.queued_bytes() > 0);
        }
        echo(session, message);
        say_goodbye(session);
        assert!(!WebSocketConn::is_open(session));
        say_goodbye(session);
    }
}

#[test]
fn a_helper_does_the_same_with_a_session() {
    let bench = Bench::new(Polite);
    let mut client = bench.connect("/").unwrap();
    client.send_text("hello");
    assert_eq!(client.receive(), Some(Received::Ping(b"still there?".to_vec())));
    assert_eq!(client.receive(), text("hello"));
    assert_eq!(client.receive(), text("goodbye"));
    assert_eq!(client.receive(), close(CloseCode::NORMAL, "goodbye"));
    assert_eq!(client.receive(), None);
    assert_eq!(bench.shard_stats().counters.panics, 0);
}

#[test]
fn what_there_is_no_memory_for_is_dropped_and_the_session_lives() {
    let (pool, handler, bench) = failing_bench();
    let mut client = bench.connect("/ws").unwrap();
    handler.reply(Reply::Text("x".repeat(100_000)));
    // More than the block that small frames are copied into.
    pool.fail_after(0);
    client.send_text("no");
    client.send_text("yes");
    assert_eq!(handler.sent(), [Sent::Dropped, Sent::Full]);
    assert_eq!(client.receive(), text(&"x".repeat(100_000)));
    assert_eq!(client.receive(), None);
    assert!(!client.has_ended());
}

#[test]
fn a_message_for_whose_rest_there_is_no_memory_is_refused() {
    let (pool, handler, bench) = failing_bench();
    let mut client = bench.connect("/ws").unwrap();
    pool.fail_after(0);
    // The header of a mebibyte, and not a byte of it.
    client.send_bytes(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4]);
    let received = client.receive();
    let refused =
        matches!(received, Some(Received::Close { code: Some(CloseCode::TRY_AGAIN), .. }));
    assert!(refused, "{received:?}");
    let end = HandlerCall::Closed(Closed::OutOfMemory);
    assert_eq!(handler.calls().last(), Some(&end));
}

#[test]
fn a_large_text_is_checked_to_its_last_byte() {
    let (handler, _bench, mut client) = fake();
    let mut payload = vec![b'x'; 100_000];
    payload[99_999] = 0xff;
    // The first part is read, the rest goes straight into the memory of the message.
    client.send_bytes(&[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa0, 0, 0, 0, 0]);
    client.send_bytes(&payload[..1000]);
    client.send_bytes(&payload[1000..]);
    let Some(Received::Close { code, .. }) = client.receive() else { panic!("a close frame") };
    assert_eq!(code, Some(CloseCode::INVALID_PAYLOAD));
    let end = HandlerCall::Closed(Closed::Violation(Violation::TextNotUtf8));
    assert_eq!(handler.calls().last(), Some(&end));
}

/// Bytes of the messages of the scenario: one that is copied, one that stays in its buffer, one
/// that does not fit into a buffer, and so is put together.
const SIZES: [usize; 3] = [10, 5000, 200_000];

/// What a shard without sessions keeps: the block that small frames are copied into.
const STAGING_BYTES: usize = 64 << 10;

/// Connects and lets messages of every size be echoed. Tells whether all came back.
fn echo_scenario(bench: &Bench) -> bool {
    let mut client = match bench.connect("/ws") {
        Ok(client) => client,
        Err(Refused::Status(status)) => {
            assert!((500..600).contains(&status), "the server is to blame, not {status}");
            return false;
        }
        Err(Refused::Dropped) => return false,
    };
    for size in SIZES {
        let sent = vec![7; size];
        client.send_frame(false, Opcode::Binary, &sent[..size / 2]);
        client.ping(b"?");
        client.send_frame(true, Opcode::Continuation, &sent[size / 2..]);
        let pong = client.receive();
        if pong == Some(Received::Pong(b"?".to_vec())) {
            match client.receive() {
                Some(Received::Binary(received)) => assert!(received == sent, "not the same"),
                // The echo was dropped, as the handler could have seen.
                None if !client.has_ended() => return false,
                ended => return was_closed(&mut client, ended),
            }
        } else {
            return was_closed(&mut client, pong);
        }
    }
    true
}

/// A connection for which there was no memory has ended, or says why it will.
fn was_closed(client: &mut TestClient, last: Option<Received>) -> bool {
    match last {
        Some(Received::Close { code, .. }) => assert_eq!(code, Some(CloseCode::TRY_AGAIN)),
        None => assert!(client.has_ended(), "the server neither answers nor closes"),
        other => panic!("not expected: {other:?}"),
    }
    false
}

fn failing_bench() -> (Rc<FailingPool<Arena>>, FakeHandler, Bench) {
    let arena = Arena::new(ArenaConfig { capacity_bytes: 16 << 20, ..ArenaConfig::default() });
    let pool = Rc::new(FailingPool::new(arena.expect("there is address space")));
    let handler = FakeHandler::new();
    let served = handler.clone();
    let bench = Bench::with_pool(&Config::default(), pool.clone(), |_| served);
    (pool, handler, bench)
}

#[test]
fn each_refused_lease_costs_at_most_its_session() {
    let mut refused = 0;
    for successes in 0.. {
        let (pool, handler, bench) = failing_bench();
        pool.fail_after(successes);
        let all_came_back = echo_scenario(&bench);
        if pool.calls() <= successes {
            assert!(all_came_back, "it failed without a cause, after {successes} leases");
            break;
        }
        refused += 1;
        // Afterwards there is memory again, for everybody else.
        assert!(echo_scenario(&bench), "it did not recover from refused lease {successes}");
        bench.advance(Duration::from_secs(600));
        let opened = count(&handler, |call| *call == HandlerCall::Opened);
        let closed = count(&handler, |call| matches!(call, HandlerCall::Closed(_)));
        assert_eq!(opened, closed, "after refused lease {successes}");
        let stats = bench.shard_stats();
        assert_eq!((stats.connections, stats.counters.panics), (0, 0));
        let in_use = stats.pool.in_use_bytes;
        assert!(in_use <= STAGING_BYTES, "{in_use} bytes leak after refused lease {successes}");
    }
    assert!(refused >= SIZES.len() as u64, "the scenario takes {refused} leases");
}

#[test]
fn a_pool_that_stays_dry_costs_sessions_and_nothing_else() {
    for successes in 0.. {
        let (pool, _, bench) = failing_bench();
        pool.fail_for_ever_after(successes);
        let all_came_back = echo_scenario(&bench);
        bench.advance(Duration::from_secs(600));
        let stats = bench.shard_stats();
        assert_eq!(stats.connections, 0);
        assert!(stats.pool.in_use_bytes <= STAGING_BYTES, "after refused lease {successes}");
        if pool.calls() <= successes {
            assert!(all_came_back);
            break;
        }
    }
}

fn count(handler: &FakeHandler, wanted: impl Fn(&HandlerCall) -> bool) -> usize {
    handler.calls().iter().filter(|call| wanted(call)).count()
}

/// Panics when a session has ended.
struct BadLoser;

impl Handler for BadLoser {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Closed) {
        panic!("as the test wants");
    }
}

#[test]
fn a_panic_in_the_last_call_keeps_no_place() {
    let mut config = Config::default();
    config.limits.connections_max = 2;
    let bench = Bench::with_config(&config, |_| BadLoser);
    for _ in 0..5 {
        let mut client = bench.connect("/").expect("there is a place");
        client.close(CloseCode::NORMAL, "");
        assert_eq!(client.receive(), close(CloseCode::NORMAL, ""));
        assert!(client.has_ended());
    }
    assert_eq!(bench.shard_stats().counters.panics, 5);
}
