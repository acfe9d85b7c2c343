//! What a session offers beside messages, on a bench: timers, a deadline, what is kept of its
//! request, figures, and why it ended.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hioload::config::{Config, SlowReader};
use hioload::shard::TIMERS_MAX;
use hioload::testkit::{Bench, FakeHandler, HandlerCall, Opcode, Received, Reply, TestClient};
use hioload::{
    CloseCode, Closed, Handler, Message, MessageKind, Request, Sent, Session, SessionStats, Shard,
    SubscribeError, TimerRefused, Upgrade, Violation,
};
use rstest::rstest;

type Act = Box<dyn FnMut(&mut Session<'_, ()>, &str)>;

/// Does with each message what the test says, and notes its timers and its end.
struct Scripted {
    act: Act,
    upgrade: fn() -> Upgrade<()>,
    notes: Rc<RefCell<Vec<String>>>,
}

impl Handler for Scripted {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        (self.upgrade)()
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        (self.act)(session, message.text().expect("the test sends text"));
    }

    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, token: u64) {
        let note = format!("{token} at {}", shard.now().as_millis());
        self.notes.borrow_mut().push(note);
        (self.act)(session, "timer");
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, reason: Closed) {
        let note = format!("{reason:?} {:?} {:?}", session.close_reason(), session.path());
        self.notes.borrow_mut().push(note);
    }
}

type Notes = Rc<RefCell<Vec<String>>>;

fn scripted(
    upgrade: fn() -> Upgrade<()>,
    act: impl FnMut(&mut Session<'_, ()>, &str) + 'static,
) -> (Bench, Notes) {
    let notes = Notes::default();
    let handler = Scripted { act: Box::new(act), upgrade, notes: Rc::clone(&notes) };
    (Bench::new(handler).route("/chat/{room}"), notes)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn timers_come_in_the_order_of_their_times_and_never_early() {
    let (bench, notes) = scripted(
        || Upgrade::accept(()),
        |session, text| match text {
            "set" => {
                for (token, after) in [(1, 50), (2, 20), (3, 20), (4, 70), (5, 30)] {
                    session.set_timer(ms(after), token).unwrap();
                }
                session.set_timer(ms(90), 1).unwrap();
                assert!(session.cancel_timer(5));
                assert!(!session.cancel_timer(5));
            }
            "timer" => {}
            other => panic!("{other}"),
        },
    );
    let mut client = bench.connect("/").unwrap();
    let began = bench.now().as_millis();
    client.send_text("set");
    bench.advance(ms(19));
    assert!(notes.borrow().is_empty());
    bench.advance(ms(1));
    let at = |token: u64, after: u64| format!("{token} at {}", began + after);
    assert_eq!(*notes.borrow(), [at(2, 20), at(3, 20)]);
    bench.advance(ms(200));
    assert_eq!(*notes.borrow(), [at(2, 20), at(3, 20), at(4, 70), at(1, 90)]);
}

#[test]
fn a_timer_may_set_itself_again_and_ends_with_its_session() {
    let (bench, notes) =
        scripted(|| Upgrade::accept(()), |session, _| session.set_timer(ms(0), 9).unwrap());
    let mut client = bench.connect("/").unwrap();
    client.send_text("go");
    bench.advance(ms(10));
    assert_eq!(notes.borrow().len(), 10, "once in each millisecond");
    drop(client);
    bench.advance(ms(10));
    assert_eq!(notes.borrow().last().unwrap(), "Lost None None");
    assert_eq!(notes.borrow().len(), 11);
}

#[test]
fn timers_are_bounded() {
    let (bench, notes) = scripted(
        || Upgrade::accept(()),
        |session, text| {
            if text == "go" {
                for token in 0..TIMERS_MAX as u64 {
                    session.set_timer(ms(1), token).unwrap();
                }
                assert_eq!(session.set_timer(ms(1), u64::MAX), Err(TimerRefused));
                session.set_timer(ms(2), 0).unwrap();
                session.send_text("done");
            }
        },
    );
    let mut client = bench.connect("/").unwrap();
    client.send_text("go");
    assert_eq!(client.receive(), Some(Received::Text("done".into())));
    bench.advance(ms(5));
    assert_eq!(notes.borrow().len(), TIMERS_MAX);
}

#[test]
fn a_panic_in_a_timer_costs_one_session() {
    let (bench, notes) = scripted(
        || Upgrade::accept(()),
        |session, text| match text {
            "timer" => panic!("as the test asked"),
            _ => session.set_timer(ms(5), 1).unwrap(),
        },
    );
    let (mut victim, mut other) = (bench.connect("/").unwrap(), bench.connect("/").unwrap());
    victim.send_text("go");
    bench.advance(ms(5));
    assert_eq!(notes.borrow().last().unwrap(), "Panicked None None");
    other.send_text("still here");
    assert!(!other.has_ended());
}

#[test]
fn a_deadline_closes_whatever_the_session_does() {
    let code = CloseCode::new(4001).unwrap();
    let (bench, notes) = scripted(
        || Upgrade::accept(()),
        move |session, text| match text {
            "deadline" => session.set_deadline(ms(100), code),
            "clear" => session.clear_deadline(),
            _ => {}
        },
    );
    let mut client = bench.connect("/").unwrap();
    client.send_text("deadline");
    bench.advance(ms(99));
    client.send_text("clear");
    bench.advance(ms(1000));
    assert_eq!(client.receive(), None);
    client.send_text("deadline");
    for _ in 0..9 {
        bench.advance(ms(10));
        client.send_text("busy");
    }
    assert_eq!(client.receive(), None);
    bench.advance(ms(10));
    let close = Received::Close { code: Some(code), reason: "deadline".into() };
    assert_eq!(client.receive(), Some(close));
    client.close(code, "");
    assert_eq!(notes.borrow().last().unwrap(), "Deadline(CloseCode(4001)) None None");
}

#[rstest]
#[case::kept(|| Upgrade::accept(()).keep_request(), "/chat/rust rust ä")]
#[case::not_kept(|| Upgrade::accept(()), "- - -")]
fn a_request_is_kept_for_who_asks(#[case] upgrade: fn() -> Upgrade<()>, #[case] expected: &str) {
    let (bench, notes) = scripted(upgrade, |session, _| {
        let (path, room) = (session.path(), session.param("room"));
        assert_eq!((session.header("x-none"), session.param("none")), (None, None));
        let answer = [path, room, session.header("X-NAME")].map(|part| part.unwrap_or("-"));
        let answer = answer.join(" ");
        session.send_text(&answer);
    });
    let mut client = bench.connect_with("/chat/rust", &[("X-Name", "ä")], &[]).unwrap();
    client.send_text("?");
    assert_eq!(client.receive(), Some(Received::Text(expected.to_owned())));
    client.close(CloseCode::NORMAL, "enough");
    let kept = if expected == "- - -" { "None" } else { "Some(\"/chat/rust\")" };
    let note = format!("ByPeer(Some(CloseCode(1000))) Some(\"enough\") {kept}");
    assert_eq!(notes.borrow().last().unwrap(), &note);
    // The next one in this slot has nothing of it.
    let mut next = bench.connect("/").unwrap();
    next.close(CloseCode::NORMAL, "");
    assert!(notes.borrow().last().unwrap().starts_with("ByPeer(Some(CloseCode(1000))) None"));
}

#[test]
fn a_subprotocol_is_known_for_the_life_of_the_session() {
    let (bench, _) = scripted(
        || Upgrade::accept(()).subprotocol("v2"),
        |session, _| {
            let answer = session.subprotocol().unwrap_or("none").to_owned();
            session.send_text(&answer);
        },
    );
    let mut client = bench.connect_with("/", &[], &["v1", "v2"]).unwrap();
    client.send_text("?");
    assert_eq!(client.receive(), Some(Received::Text("v2".into())));
}

#[test]
fn figures_are_kept_for_who_asks() {
    let seen: Rc<RefCell<Vec<Option<SessionStats>>>> = Rc::default();
    let noted = Rc::clone(&seen);
    let (bench, _) = scripted(
        || Upgrade::accept(()).with_stats(),
        move |session, text| {
            session.send_text(text);
            session.send_binary(&[0; 100]);
            noted.borrow_mut().push(session.stats());
        },
    );
    bench.advance(ms(1000));
    let mut client = bench.connect("/").unwrap();
    bench.advance(ms(500));
    client.send_text("hello");
    client.send_text("you");
    let stats = seen.borrow().last().unwrap().unwrap();
    assert_eq!((stats.messages_in, stats.bytes_in), (2, 8));
    assert_eq!((stats.messages_out, stats.bytes_out), (4, 208));
    assert_eq!((stats.opened_at.as_millis(), stats.heard_at.as_millis()), (1000, 1500));
    let (bench, _) =
        scripted(|| Upgrade::accept(()), |session, _| assert_eq!(session.stats(), None));
    bench.connect("/").unwrap().send_text("?");
    assert_eq!(bench.shard_stats().counters.panics, 0);
}

#[test]
fn who_was_paused_is_read_from_where_it_was_left() {
    let idle = ms(Config::default().websocket.idle_timeout_ms);
    let (bench, notes) = scripted(
        || Upgrade::accept(()),
        move |session, text| match text {
            "pause" => {
                session.pause();
                session.set_timer(idle * 3, 1).unwrap();
            }
            "timer" => session.resume(),
            text => drop(session.send_text(text)),
        },
    );
    let mut client = bench.connect("/").unwrap();
    client.send_text("pause");
    client.send_frame(false, Opcode::Text, b"half of it ");
    client.ping(b"?");
    client.send_frame(true, Opcode::Continuation, b"and the rest");
    bench.advance(idle * 3 - ms(1));
    assert_eq!(client.receive(), None, "neither its silence nor the age of its message counts");
    assert!(!client.has_ended());
    bench.advance(ms(1));
    assert_eq!(client.receive(), Some(Received::Pong(b"?".to_vec())));
    assert_eq!(client.receive(), Some(Received::Text("half of it and the rest".into())));
    // From here on it counts again.
    bench.advance(idle / 2);
    assert_eq!(client.receive(), Some(Received::Ping(Vec::new())));
    bench.advance(idle / 2);
    client.receive();
    client.close(CloseCode::GOING_AWAY, "");
    assert!(notes.borrow().last().unwrap().starts_with("Idle"), "{notes:?}");
}

#[test]
fn what_is_queued_is_known_until_it_has_left() {
    let (bench, _) = scripted(
        || Upgrade::accept(()),
        |session, _| {
            assert_eq!(session.queued_bytes(), 0);
            session.send_text("four");
            session.send_binary(&[0; 200]);
            session.ping(b"!");
            assert_eq!(session.queued_bytes(), 2 + 4 + 4 + 200 + 2 + 1);
        },
    );
    let mut client = bench.connect("/").unwrap();
    client.send_text("one");
    client.send_text("two");
    assert_eq!(std::iter::from_fn(|| client.receive()).count(), 6);
    assert_eq!(bench.shard_stats().counters.panics, 0);
}

#[test]
fn who_closes_begins_nothing_more() {
    let (bench, _) = scripted(
        || Upgrade::accept(()),
        |session, _| {
            session.close(CloseCode::NORMAL, "enough");
            assert_eq!(session.subscribe("news"), Err(SubscribeError::NotOpen));
            assert_eq!(session.set_timer(ms(1), 1), Err(TimerRefused));
            assert_eq!(session.send_text("one more thing"), Sent::Dropped);
            session.set_deadline(ms(1), CloseCode::POLICY);
            session.pause();
            session.ping(b"?");
        },
    );
    let mut client = bench.connect("/").unwrap();
    client.send_text("bye");
    let close = Received::Close { code: Some(CloseCode::NORMAL), reason: "enough".into() };
    assert_eq!((client.receive(), client.receive()), (Some(close), None));
    assert_eq!(bench.shard_stats().counters.panics, 0);
}

/// Writes nothing but what it must.
struct Bare;

impl Handler for Bare {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.set_timer(ms(5), 1).expect("it is the only one");
        assert_eq!(format!("{message:?}"), "Message { kind: Text, len: 4 }");
        let frame = hioload_protocol::ws::frame::Header::of(&message, None);
        assert_eq!((frame.opcode, frame.len), (Opcode::Text, 4));
        session.send_binary(&[7; 50_000]);
    }
}

#[test]
fn a_handler_need_not_look_at_anything_but_messages() {
    let bench = Bench::new(Bare);
    let mut client = bench.connect("/").unwrap();
    (0..4).for_each(|_| client.send_text("more"));
    bench.advance(ms(10));
    let received = std::iter::from_fn(|| client.receive());
    assert!(received.eq(vec![Received::Binary(vec![7; 50_000]); 4]));
    client.close(CloseCode::NORMAL, "");
    assert!(matches!(client.receive(), Some(Received::Close { .. })));
    let stats = bench.shard_stats();
    assert_eq!((stats.counters.panics, stats.connections), (0, 0));
}

#[test]
fn a_drain_that_takes_too_long_ends_what_is_left_and_rests() {
    let mut config = Config::default();
    config.shutdown.drain_ms = 300;
    let handler = FakeHandler::new();
    let bench = Bench::with_config(&config, |_| handler.clone());
    let _client = bench.connect("/ws").unwrap();
    bench.shutdown();
    bench.advance(ms(299));
    assert!(!matches!(handler.calls().last(), Some(HandlerCall::Closed(_))));
    bench.advance(ms(1));
    assert_eq!(handler.calls().last(), Some(&HandlerCall::Closed(Closed::Shutdown)));
    // A loop that turns without sleeping would be found out here.
    let turns = bench.shard_stats().counters.turns;
    bench.advance(ms(5000));
    assert!(bench.shard_stats().counters.turns < turns + 100);
}

/// Lets a session of a [`FakeHandler`] end, and answers with the cause it was told.
fn end(config: &Config, how: impl FnOnce(&Bench, &FakeHandler, &mut TestClient)) -> Closed {
    let handler = FakeHandler::new();
    let bench = Bench::with_config(config, |_| handler.clone());
    let mut client = bench.connect("/ws").expect("a fake handler accepts");
    how(&bench, &handler, &mut client);
    if !matches!(handler.calls().last(), Some(HandlerCall::Closed(_))) {
        bench.advance(Duration::from_secs(60));
    }
    match handler.calls().last() {
        Some(HandlerCall::Closed(cause)) => *cause,
        other => panic!("it did not end: {other:?}"),
    }
}

#[test]
fn each_end_has_its_cause() {
    let plain = Config::default();
    let cause = end(&plain, |bench, _, client| {
        bench.shutdown();
        client.close(CloseCode::GOING_AWAY, "");
    });
    assert_eq!((cause, cause.code()), (Closed::Shutdown, Some(CloseCode::GOING_AWAY)));
    let cause = end(&plain, |_, handler, client| {
        handler.reply(Reply::Panic);
        client.send_text("now");
    });
    assert_eq!((cause, cause.code()), (Closed::Panicked, Some(CloseCode::INTERNAL)));
    let cause = end(&plain, |_, _, client| {
        client.send_frame(false, Opcode::Text, b"the beginning");
    });
    assert_eq!((cause, cause.code()), (Closed::MessageTooOld, Some(CloseCode::POLICY)));
    let cause = end(&plain, |_, _, client| client.send_bytes(&[0xf1, 0x80, 0, 0, 0, 0]));
    assert_eq!(cause, Closed::Violation(Violation::ReservedBits));
    assert_eq!(cause.code(), Some(CloseCode::PROTOCOL_ERROR));
    let cause = end(&plain, |_, handler, client| {
        handler.reply(Reply::Text("x".repeat(1 << 20)));
        client.send_text("more than the window");
    });
    assert_eq!((cause, cause.code()), (Closed::Stalled, None));

    let mut close = Config::default();
    close.websocket.slow_reader = SlowReader::Close;
    let cause = end(&close, |_, handler, client| {
        handler.reply(Reply::Text("x".repeat(100_000)));
        (0..4).for_each(|_| client.send_text("more"));
    });
    assert_eq!((cause, cause.code()), (Closed::SlowReader, Some(CloseCode::POLICY)));
    let mut idle = Config::default();
    idle.websocket.idle_timeout_ms = 10_000;
    assert_eq!(end(&idle, |_, _, _| ()), Closed::Idle);
}

#[test]
fn somebody_else_may_close_a_session() {
    let (bench, notes) = scripted(|| Upgrade::accept(()), |_, _| ());
    let mut client = bench.connect("/").unwrap();
    let ids: Rc<RefCell<Vec<hioload::SessionId>>> = Rc::default();
    let noted = Rc::clone(&ids);
    let (other, _) =
        scripted(|| Upgrade::accept(()), move |session, _| noted.borrow_mut().push(session.id()));
    other.connect("/").unwrap().send_text("the first of its bench has the same id");
    let id = ids.borrow()[0];
    bench.run(move |shard| {
        let bye = shard.message(MessageKind::Text, b"bye").unwrap();
        shard.send_to(id, bye);
        shard.close(id, CloseCode::TRY_AGAIN);
    });
    assert_eq!(client.receive(), Some(Received::Text("bye".into())));
    client.close(CloseCode::TRY_AGAIN, "");
    assert_eq!(notes.borrow().last().unwrap(), "ByHandler(CloseCode(1013)) None None");
}

#[test]
fn the_cause_of_an_end_is_small() {
    assert!(size_of::<Option<Closed>>() <= 6);
}
