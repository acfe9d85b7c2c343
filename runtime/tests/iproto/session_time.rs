//! What a session offers its handler, on a clock turned by hand: calls and their ends, replies from
//! anywhere, timers, pauses, and what it knows of itself. The peers are the test.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hioload::config::{Config, SlowReader};
use hioload::iproto::{
    Body, CallError, ClientHandler, Closed, Connect, HEADER_BYTES, Hijacked, Opened, PING,
    Reconnect, Reply, Request, SHUTDOWN, Session,
};
use hioload::{MessageKind, Sent, Shard};
use rstest::rstest;

use crate::stage::{Notes, Stage};
use crate::support::{Packet, packet};

/// What a request is answered with whose reply was dropped.
const ERROR: &[u8] = &[0xff; 4];

const SECOND: Option<Duration> = Some(Duration::from_secs(1));

type OnRequest = Rc<RefCell<dyn FnMut(&mut Shard, &mut Session<'_, ()>, Request)>>;

/// Does with each request what the test says, and notes everything else.
struct Scripted {
    act: OnRequest,
    notes: Notes,
}

impl Scripted {
    fn note(&self, note: impl Into<String>) {
        self.notes.borrow_mut().push(note.into());
    }
}

impl ClientHandler for Scripted {
    fn request(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        (self.act.borrow_mut())(shard, session, request);
    }

    fn notify(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, msg: u32, body: Body) {
        self.note(format!("told {msg}: {} bytes", body.len()));
    }

    fn answered(
        &mut self,
        _: &mut Shard,
        _: &mut Session<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        let response = response.map(|body| String::from_utf8_lossy(&body).into_owned());
        self.note(format!("call {token}: {response:?}"));
    }

    /// Requests with odd codes are left to the timeouts of their peers.
    fn unanswered(&mut self, _: &mut Shard, msg: u32) -> Option<Bytes> {
        msg.is_multiple_of(2).then(|| Bytes::from_static(b"sorry"))
    }

    /// The one that is used to pause ends the pause.
    fn timer(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, token: u64) {
        self.note(format!("timer {token}"));
        if token == RESUME {
            session.resume();
        }
    }

    fn shutdown(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
        self.note(format!("shut down, open: {}", session.is_open()));
    }

    fn hijacked(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, hijacked: Hijacked) {
        let unread = hijacked.unread.len();
        let problem = hijacked.into_tcp().map(drop).unwrap_err();
        self.note(format!("hijacked, {unread} bytes unread, {problem}"));
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        self.note(format!("closed: {reason:?}"));
    }
}

/// The timer whose handler reads on.
const RESUME: u64 = 99;

/// A connection that does with each request what the test says.
fn scripted(act: impl FnMut(&mut Shard, &mut Session<'_, ()>, Request) + 'static) -> Stage {
    scripted_of(1, &Config::default(), act)
}

/// So many connections, which share what they do and their notes.
fn scripted_of(
    lines: usize,
    config: &Config,
    act: impl FnMut(&mut Shard, &mut Session<'_, ()>, Request) + 'static,
) -> Stage {
    let (act, notes): (OnRequest, Notes) = (Rc::new(RefCell::new(act)), Notes::default());
    let noting = Rc::clone(&notes);
    let make = move || Scripted { act: Rc::clone(&act), notes: Rc::clone(&noting) };
    Stage::with(lines, config, notes, make)
}

/// A handler that writes nothing of what it may.
struct Bare;

impl ClientHandler for Bare {}

#[test]
fn a_call_ends_at_its_time_and_a_cancelled_one_in_silence() {
    let mut stage = scripted(|_, session, request| {
        let call = session.call(7, "?", SECOND, 1).unwrap();
        if &*request.body == b"cancel" {
            assert!(session.cancel(call));
            assert!(!session.cancel(call), "it had ended");
        }
    });
    stage.say(0, 1, 1, b"");
    let call = stage.heard(0).remove(0);
    assert_eq!((call.msg, &call.body[..]), (7, &b"?"[..]));
    stage.pass(999);
    assert!(stage.notes().is_empty());
    stage.pass(1);
    assert_eq!(stage.notes(), ["call 1: Err(Timeout)"]);
    // What comes too late is nobody's, and no request either.
    stage.say(0, 7, call.sync, b"late");
    assert!(stage.heard(0).is_empty());
    stage.say(0, 1, 2, b"cancel");
    let call = stage.heard(0).remove(0);
    stage.say(0, 7, call.sync, b"nobody waits");
    stage.pass(2000);
    assert!(stage.notes().is_empty() && stage.heard(0).is_empty());
}

#[test]
fn a_future_has_the_response_or_why_there_is_none() {
    let mut stage = scripted(|shard, session, request| {
        if &*request.body == b"leave" {
            session.close();
        }
        let name = session.ask(7, "?", SECOND, shard);
        drop(session.ask(8, "nobody waits", SECOND, shard));
        let (remote, notes) = (request.reply.into_remote(shard), request.body.to_bytes());
        let answer = async move {
            match name.await {
                Ok(name) => remote.send(name),
                Err(error) => remote.send(format!("{notes:?} {error}")),
            }
        };
        shard.spawn(answer).detach();
    });
    stage.say(0, 1, 1, b"");
    let calls = stage.heard(0);
    assert_eq!(calls.iter().map(|call| call.msg).collect::<Vec<_>>(), [7, 8]);
    stage.say(0, 8, calls[1].sync, b"too late");
    stage.say(0, 7, calls[0].sync, b"a name");
    assert_eq!(stage.heard(0), [Packet { msg: 1, sync: 1, body: b"a name".to_vec() }]);
    stage.say(0, 1, 2, b"silence");
    assert_eq!(stage.heard(0).len(), 2);
    stage.pass(1000);
    let [answer] = &stage.heard(0)[..] else { panic!("not one answer") };
    assert_eq!(answer.body, format!("b\"silence\" {}", CallError::Timeout).as_bytes());
    // A connection that ends takes no calls, and says so at once.
    stage.say(0, 1, 3, b"leave");
    assert_eq!(stage.heard(0), []);
    assert_eq!(stage.notes(), ["closed: ByHandler"]);
    assert_eq!(stage.bench.shard_stats().counters.panics, 0);
}

#[test]
fn a_request_may_be_answered_from_anywhere_or_not_at_all() {
    let mut stage = scripted(|shard, session, request| {
        let Request { msg, body, reply, .. } = request;
        assert_eq!((reply.msg(), reply.session()), (msg, session.id()));
        match &*body {
            b"later" => reply.send(shard, "at the end of the turn"),
            b"discard" => reply.discard(),
            b"remote" => {
                let remote = reply.into_remote(shard);
                assert_eq!((remote.msg(), remote.session()), (msg, session.id()));
                remote.send("by an order");
            }
            b"remote discard" => reply.into_remote(shard).discard(),
            b"remote drop" => drop(reply.into_remote(shard)),
            b"drop" => drop(reply),
            _ => drop(session.reply(reply, format!("{}", session.requests()))),
        }
    });
    assert_eq!(stage.ask(0, 2, 1, b"later"), b"at the end of the turn");
    assert_eq!(stage.ask(0, 2, 2, b"remote"), b"by an order");
    assert_eq!(stage.ask(0, 2, 3, b"drop"), b"sorry");
    assert_eq!(stage.ask(0, 2, 4, b"remote drop"), b"sorry");
    for (sync, (msg, body)) in (5..).zip([
        (2, &b"discard"[..]),
        (2, b"remote discard"),
        // What the handler wants no answer for when its reply is dropped.
        (3, b"drop"),
        (3, b"remote drop"),
    ]) {
        stage.say(0, msg, sync, body);
        assert_eq!(stage.heard(0), [], "{msg} {body:?}");
    }
    assert_eq!(stage.ask(0, 2, 9, b"how many are open?"), b"1", "those were given up");
    assert_eq!(stage.bench.shard_stats().counters.unanswered, 4);
}

#[test]
fn a_reply_finds_its_own_connection() {
    let kept: Rc<RefCell<Option<Reply>>> = Rc::default();
    let mut stage = scripted_of(2, &Config::default(), move |_, session, request| {
        let first = kept.borrow_mut().take();
        match first {
            None => *kept.borrow_mut() = Some(request.reply),
            Some(first) => {
                session.reply(first, "for the first");
                session.reply(request.reply, "for the second");
            }
        }
    });
    stage.say(0, 1, 7, b"");
    assert_eq!(stage.heard(0), []);
    assert_eq!(stage.ask(1, 2, 8, b""), b"for the second");
    assert_eq!(stage.heard(0), [Packet { msg: 1, sync: 7, body: b"for the first".to_vec() }]);
}

#[test]
fn timers_are_called_once_unless_they_are_taken_back() {
    let mut stage = scripted(|_, session, _| {
        for token in 1..=3 {
            session.set_timer(Duration::from_millis(10 * token), token).unwrap();
        }
        session.set_timer(Duration::from_millis(50), 1).unwrap();
        assert!(session.cancel_timer(2) && !session.cancel_timer(2));
    });
    stage.say(0, 1, 1, b"");
    stage.pass(29);
    assert!(stage.notes().is_empty());
    stage.pass(1);
    assert_eq!(stage.notes(), ["timer 3"]);
    stage.pass(100);
    assert_eq!(stage.notes(), ["timer 1"]);
}

#[test]
fn who_is_paused_reads_nothing_while_its_calls_time_out() {
    let mut stage = scripted(|_, session, request| {
        if &*request.body == b"pause" {
            session.call(7, "?", SECOND, 1).unwrap();
            session.set_timer(Duration::from_secs(2), RESUME).unwrap();
            session.pause();
        }
        session.reply(request.reply, "read");
    });
    stage.say(0, 1, 1, b"pause");
    let call = stage.heard(0).remove(0);
    stage.say(0, 7, call.sync, b"the response is there and not read");
    stage.say(0, 1, 2, b"are you there?");
    stage.pass(1999);
    assert_eq!(stage.notes(), ["call 1: Err(Timeout)"]);
    assert_eq!(stage.heard(0), []);
    stage.pass(1);
    assert_eq!(stage.notes(), ["timer 99"]);
    assert_eq!(stage.heard(0), [Packet { msg: 1, sync: 2, body: b"read".to_vec() }]);
}

#[test]
fn a_close_fails_what_waits_and_a_shutdown_waits_for_it() {
    let mut stage = scripted(|_, session, request| {
        session.call(7, "?", None, 1).unwrap();
        session.reply(request.reply, "bye");
        if &*request.body == b"close" {
            session.close();
        } else {
            session.shutdown();
        }
        assert!(!session.is_open());
        assert_eq!(session.call(7, "?", None, 2), Err(CallError::Stopped));
        assert_eq!(session.notify(7, "?"), Err(CallError::Stopped));
        assert_eq!(session.hijack(), Err(CallError::Stopped));
    });
    stage.say(0, 1, 1, b"shutdown");
    let call = stage.heard(0).remove(0);
    stage.pass(100);
    assert!(stage.notes().is_empty(), "the call may finish");
    stage.say(0, 7, call.sync, b"!");
    assert_eq!(stage.heard(0), [Packet { msg: SHUTDOWN, sync: 0, body: Vec::new() }]);
    stage.say(0, SHUTDOWN, 0, b"");
    assert_eq!(stage.notes(), ["call 1: Ok(\"!\")", "closed: ByHandler"]);

    let mut stage = scripted(|_, session, request| {
        session.call(7, "?", None, 1).unwrap();
        session.reply(request.reply, "bye");
        session.close();
    });
    stage.say(0, 1, 1, b"close");
    let heard: Vec<u32> = stage.heard(0).iter().map(|packet| packet.msg).collect();
    assert_eq!(heard, [7, 1], "what was said before leaves");
    assert_eq!(stage.notes(), ["call 1: Err(Dropped)", "closed: ByHandler"]);
    assert!(stage.lines[0].has_ended);
}

#[test]
fn what_cannot_be_sent_is_refused_with_its_reason() {
    let mut config = Config::default();
    config.iproto.calls_max = 2;
    let mut stage = scripted_of(1, &config, |_, session, request| {
        let control = CallError::ControlCode { msg: PING };
        assert_eq!(session.call(PING, "", None, 0), Err(control));
        assert_eq!(session.notify(PING, ""), Err(control));
        session.call(7, "", None, 1).unwrap();
        session.call(7, "", None, 2).unwrap();
        let full = CallError::TooManyCalls { limit: 2 };
        assert_eq!(session.call(7, "", None, 3), Err(full));
        assert_eq!(session.pending(), 2);
        session.reply(request.reply, full.to_string());
    });
    stage.say(0, 1, 1, b"");
    let heard = stage.heard(0);
    assert_eq!(heard.len(), 3);
    let why = String::from_utf8_lossy(&heard[2].body);
    assert_eq!(why, "not sent: 2 calls wait for their responses; raise iproto.calls_max");
}

#[test]
fn a_session_knows_its_figures_and_addresses() {
    let mut stage = scripted(|_, session, request| {
        let (peer, local) = (session.peer_address(), session.local_address());
        assert!(peer.is_some() && local.is_some() && peer != local, "{peer:?} {local:?}");
        assert!(session.is_open());
        session.notify(5, "twelve bytes").unwrap();
        assert_eq!(session.queued_bytes(), HEADER_BYTES + 12);
        let stats = session.stats();
        assert_eq!((stats.requests_in, stats.notices_in, stats.notices), (1, 1, 1));
        assert_eq!(stats.bytes_in, 2 * HEADER_BYTES as u64 + 4);
        // Nor does what it prints of itself show what was said.
        let debug = format!("{request:?} {session:?}");
        assert!(!debug.contains("word") && debug.contains("len: 4"), "{debug}");
        session.reply(request.reply, "fine");
    });
    stage.say(0, 9, 0, b"");
    assert_eq!(stage.notes(), ["told 9: 0 bytes"]);
    stage.say(0, 1, 1, b"word");
    let heard = stage.heard(0);
    assert_eq!(heard[0], Packet { msg: 5, sync: 0, body: b"twelve bytes".to_vec() });
    assert_eq!(heard[1], Packet { msg: 1, sync: 1, body: b"fine".to_vec() });
    stage.say(0, SHUTDOWN, 0, b"");
    assert_eq!(stage.notes(), ["shut down, open: false", "closed: ByPeer"]);
}

#[test]
fn a_handler_takes_its_socket_away_with_what_was_read_of_it() {
    let mut stage = scripted(|_, session, request| {
        session.call(7, "?", None, 1).unwrap();
        session.reply(request.reply, "taken");
        session.hijack().unwrap();
        assert!(!session.is_open());
    });
    // The request, and what is for whoever has the socket next.
    let mut bytes = packet(1, 1, b"");
    bytes.extend(b"another protocol");
    stage.write(0, &bytes);
    let heard: Vec<u32> = stage.heard(0).iter().map(|packet| packet.msg).collect();
    assert_eq!(heard, [7, 1], "what was said before leaves");
    let problem = "not converted: a simulated connection has no socket; adopt it instead";
    let expected = [
        "call 1: Err(Hijacked)".to_owned(),
        format!("hijacked, 16 bytes unread, {problem}"),
        "closed: Hijacked".to_owned(),
    ];
    assert_eq!(stage.notes(), expected);
    assert_eq!(stage.bench.shard_stats().connections, 0);
}

/// Takes the socket away after a while, behind much that is queued.
struct Later(Rc<RefCell<Option<Hijacked>>>);

impl ClientHandler for Later {
    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: &Opened) {
        session.set_timer(Duration::from_millis(50), 1).expect("it is the only one");
    }

    fn timer(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: u64) {
        session.notify(5, vec![5; 200_000]).expect("an empty outbox takes any");
        session.hijack().expect("it is open");
    }

    fn hijacked(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, hijacked: Hijacked) {
        *self.0.borrow_mut() = Some(hijacked);
    }
}

/// A large body is received straight into its memory, of which a part is with the reactor then.
#[test]
fn a_socket_that_is_taken_in_the_middle_of_a_body_loses_no_byte_of_it() {
    let given: Rc<RefCell<Option<Hijacked>>> = Rc::default();
    let make = || Later(Rc::clone(&given));
    let mut stage = Stage::with(1, &Config::default(), Notes::default(), make);
    stage.reads(0, false);
    let large: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    let large = packet(1, 2, &large);
    let parts: Vec<&[u8]> = large.chunks(20_000).collect();
    stage.write(0, parts[0]);
    stage.write(0, parts[1]);
    stage.pass(50);
    stage.write(0, parts[2]);
    assert!(given.borrow().is_none(), "what is queued has not left");
    stage.reads(0, true);
    stage.pass(1);
    let Hijacked { connection, unread } = given.take().expect("it has left");
    stage.take(connection);
    parts[3..].iter().for_each(|part| stage.write(0, part));
    assert!([&unread[..], &stage.lines[1].incoming].concat() == large);
}

#[rstest]
#[case::paused(SlowReader::Pause, "closed: SlowReader")]
#[case::dropped(SlowReader::Drop, "told 6: 0 bytes")]
fn a_reply_that_no_outbox_takes_ends_the_connection_unless_it_may_be_lost(
    #[case] policy: SlowReader,
    #[case] last: &str,
) {
    let mut config = Config::default();
    config.websocket.slow_reader = policy;
    config.websocket.message_bytes_max = 100_000;
    config.websocket.outbox_max_bytes = 300_000;
    let mut stage = scripted_of(1, &config, |_, session, request| {
        session.notify(5, vec![5; 200_000]).unwrap();
        assert_eq!(session.reply(request.reply, vec![6; 200_000]), Sent::Dropped);
        if session.is_open() {
            assert_eq!(session.notify(5, vec![5; 200_000]), Err(CallError::Full));
            assert_eq!(session.call(5, vec![5; 200_000], None, 1), Err(CallError::Full));
        }
    });
    stage.say(0, 1, 1, b"");
    assert_eq!(stage.heard(0).len(), 1, "what was queued leaves");
    stage.say(0, 6, 0, b"");
    assert_eq!(stage.notes(), [last]);
}

#[rstest]
#[case::by_the_peer(true)]
#[case::by_the_shard(false)]
fn a_handler_that_writes_nothing_answers_with_errors_and_leaves_in_order(#[case] by_peer: bool) {
    let mut stage = Stage::with(1, &Config::default(), Notes::default(), || Bare);
    assert_eq!(stage.ask(0, 1, 1, b"?"), ERROR);
    stage.say(0, 5, 0, b"hear this");
    assert_eq!(stage.heard(0), []);
    let goodbye = Packet { msg: SHUTDOWN, sync: 0, body: Vec::new() };
    if by_peer {
        stage.say(0, SHUTDOWN, 0, b"");
        assert_eq!(stage.heard(0), [goodbye]);
    } else {
        stage.bench.shutdown();
        assert_eq!(stage.heard(0), [goodbye]);
        stage.say(0, SHUTDOWN, 0, b"");
    }
    stage.exchange();
    assert!(stage.lines[0].has_ended);
    let stats = stage.bench.shard_stats();
    assert_eq!((stats.connections, stats.counters.panics), (0, 0));
}

/// Takes the socket away with the first request, and does not care for it.
struct Taker;

impl ClientHandler for Taker {
    fn request(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: Request) {
        session.hijack().expect("it is open");
    }
}

#[test]
fn a_socket_that_nobody_takes_is_closed() {
    let mut stage = Stage::with(1, &Config::default(), Notes::default(), || Taker);
    stage.say(0, 1, 1, b"?");
    assert_eq!(stage.heard(0), []);
    assert!(stage.lines[0].has_ended);
    assert_eq!(stage.bench.shard_stats().connections, 0);
}

/// Begins all sorts of things, and looks at the end of none.
struct Careless;

impl ClientHandler for Careless {
    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: &Opened) {
        session.call(7, "?", SECOND, 1).expect("it is the first");
        session.set_timer(Duration::from_millis(10), 1).expect("it is the first");
        session.notify(7, vec![7; 100_000]).expect("an empty outbox takes any");
    }
}

#[test]
fn a_handler_that_looks_at_no_end_harms_nobody() {
    let mut stage = Stage::with(1, &Config::default(), Notes::default(), || Careless);
    stage.pass(2000);
    let heard: Vec<usize> = stage.heard(0).iter().map(|packet| packet.body.len()).collect();
    assert_eq!(heard, [1, 100_000]);
    assert_eq!(stage.ask(0, 2, 1, b"?"), ERROR);
    // Nobody is there.
    let again = Reconnect::default().attempts(3);
    let nobody = Connect::to("127.0.0.1:81").reconnect(again);
    stage.bench.run(|shard| shard.connect_iproto(nobody, Careless));
    stage.bench.advance(Duration::from_secs(50));
    let stats = stage.bench.shard_stats();
    assert_eq!((stats.connections, stats.counters.panics), (1, 0));
}

#[test]
fn whatever_can_be_a_body_arrives_as_it_is() {
    let mut stage = scripted(|shard, session, request| {
        let Request { mut body, reply, .. } = request;
        let kind = body.to_bytes();
        match &*kind {
            b"array" => drop(session.reply(reply, b"array")),
            b"vector" => {
                let vector = kind.to_vec();
                session.reply(reply, &vector);
            }
            b"string" => drop(session.reply(reply, "string".to_owned())),
            b"message" => {
                let message = shard.message(MessageKind::Binary, &kind).expect("there is memory");
                session.reply(reply, message);
            }
            b"converted" => drop(session.reply(reply, Body::from(body.into_message()))),
            b"changed" => {
                body.reverse();
                body.reverse();
                assert_eq!(body.as_ref(), &*kind);
                session.reply(reply, body);
            }
            b"owned later" => reply.send(shard, kind),
            b"body later" => reply.send(shard, body),
            b"body elsewhere" => reply.into_remote(shard).send(body),
            other => panic!("{other:?}"),
        }
    });
    for (sync, kind) in (1..).zip([
        "array",
        "vector",
        "string",
        "message",
        "converted",
        "changed",
        "owned later",
        "body later",
        "body elsewhere",
    ]) {
        assert_eq!(stage.ask(0, 2, sync, kind.as_bytes()), kind.as_bytes());
    }
}
