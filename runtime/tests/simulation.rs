//! What simulations have found, each as the shortest test that shows it, and what the kit promises.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hioload::config::Config;
use hioload::iproto;
use hioload::testkit::sim::{
    Act, Caller, Client, Faults, IprotoWire, Knob, Sim, WebSocketWire, explore,
};
use hioload::testkit::{Bench, Peer, Received};
use hioload::ws::{ClientHandler, Connect, ConnectError};
use hioload::{CloseCode, Handler, Message, Request, Session, Shard, Time, Upgrade};
use rstest::rstest;

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }
}

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A connection that sends bytes as they are, and has done its handshake.
fn open(bench: &Bench) -> Peer {
    let mut peer = bench.net().connect(80).unwrap();
    peer.write_all(REQUEST).unwrap();
    bench.advance(Duration::ZERO);
    assert!(read(&mut peer).starts_with(b"HTTP/1.1 101"));
    peer
}

fn read(peer: &mut Peer) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    let count = peer.read(&mut bytes).unwrap_or(0);
    bytes.truncate(count);
    bytes
}

/// A frame that is masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len();
    let mut bytes = vec![first];
    if len < 126 {
        bytes.push(0x80 | len as u8);
    } else {
        bytes.push(0x80 | 126);
        bytes.extend((len as u16).to_be_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Found by the scenario `echo`: two pongs changed places (RFC 6455 section 5.5.3).
#[test]
fn a_late_pong_follows_no_newer_one() {
    let mut config = Config::default();
    config.memory.buffer_bytes = 4096;
    config.websocket.outbox_low_bytes = 16;
    let bench = Bench::with_config(&config, |_shard| Echo).route("/");
    let mut peer = open(&bench);
    // The first buffer ends behind the first ping, which comes while an echo is queued; the second
    // one comes with the next turn, when that echo has left.
    let mut bytes = frame(0x82, &[0; 4096 - 8 - 7]);
    bytes.extend(frame(0x89, b"1"));
    assert_eq!(bytes.len(), 4096);
    bytes.extend(frame(0x89, b"2"));
    peer.write_all(&bytes).unwrap();
    bench.advance(Duration::ZERO);
    let echo = 4096 - 7 - 4;
    assert_eq!(read(&mut peer)[echo..], *b"\x8a\x012");
}

/// Says so many things, each after so long, and leaves when it has heard all of them.
struct Talker {
    left: u32,
    heard: u32,
    pause: Duration,
}

impl Client for Talker {
    fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
        if self.left == 0 {
            return if self.heard == 0 { Act::Close } else { Act::Wait };
        }
        self.left -= 1;
        self.heard += 1;
        wire.send_text("hello");
        Act::Again(self.pause)
    }

    fn received(&mut self, _: &mut WebSocketWire<'_>, received: Received) {
        if matches!(received, Received::Text(_)) {
            self.heard -= 1;
        }
    }
}

fn talking(sim: Sim, clients: usize, left: u32, pause: Duration) -> Sim {
    sim.clients("/", clients, move |_number| Talker { left, heard: 0, pause })
}

/// Says something each minute, and nothing in between.
struct Sleeper {
    left: u32,
    next: Time,
}

impl Client for Sleeper {
    fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
        let now = wire.now();
        if now < self.next {
            return Act::Again(self.next.since(now));
        }
        if self.left == 0 {
            return Act::Close;
        }
        self.left -= 1;
        self.next = now.after(Duration::from_secs(60));
        wire.send_text("still here");
        Act::Again(Duration::from_secs(60))
    }

    fn received(&mut self, _: &mut WebSocketWire<'_>, _: Received) {}
}

#[test]
fn ten_idle_minutes_take_a_thousandth_of_them() {
    let quiet = Sim::seed(1).shards(1).faults(Faults::none()).drains_last();
    let sim = quiet.websocket("/", |_shard| Echo);
    let sim = sim.clients("/", 50, |_number| Sleeper { left: 5, next: Time::ZERO });
    let began = Instant::now();
    let report = sim.run().unwrap();
    let (real, simulated) = (began.elapsed(), report.virtual_time);
    let times = simulated.as_secs_f64() / real.as_secs_f64();
    println!("{simulated:?} of virtual time in {real:?}: {times:.0} times as fast");
    assert!(simulated > Duration::from_secs(600));
    assert!(times >= 1000.0, "it is {times:.0} times as fast as real time");
}

#[test]
fn a_seed_does_the_same_twice_and_another_one_something_else() {
    let run = |seed| {
        let sim = Sim::seed(seed).websocket("/", |_shard| Echo);
        talking(sim, 6, 20, Duration::from_millis(50)).run().unwrap()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).fingerprint, run(4).fingerprint);
}

/// Does one thing wrong, sometimes.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Forgets,
    AnswersTwice,
    Panics,
    ClosesInSilence,
}

struct Faulty {
    wrong: Wrong,
    count: u32,
}

impl Handler for Faulty {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        self.count += 1;
        if !self.count.is_multiple_of(50) {
            session.send(message);
            return;
        }
        match self.wrong {
            Wrong::Forgets => {}
            Wrong::AnswersTwice => {
                session.send_text("hello");
                session.send(message);
            }
            Wrong::Panics => panic!("it is to panic"),
            Wrong::ClosesInSilence => session.close(CloseCode::INTERNAL, ""),
        }
    }
}

#[rstest]
#[case(Wrong::Forgets, Some("in vain"))]
#[case(Wrong::AnswersTwice, Some("panicked"))]
#[case(Wrong::Panics, Some("panicked"))]
#[case(Wrong::ClosesInSilence, None)]
fn a_handler_that_is_wrong_is_found_out(#[case] wrong: Wrong, #[case] problem: Option<&str>) {
    let explored = explore(0..100, |sim| {
        let sim = sim.websocket("/", move |_shard| Faulty { wrong, count: 0 });
        talking(sim, 8, 20, Duration::from_millis(10))
    });
    match problem {
        Some(problem) => {
            let failure = explored.unwrap_err();
            assert!(failure.problem.contains(problem), "{failure}");
            assert!(!failure.trace.is_empty());
        }
        // What a handler may do is no failure.
        None => drop(explored.unwrap()),
    }
}

/// Notes how many sessions there are.
struct Counting(Rc<RefCell<i64>>);

impl Handler for Counting {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn opened(&mut self, _: &mut Shard, _: &mut Session<'_, ()>) {
        *self.0.borrow_mut() += 1;
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: hioload::Closed) {
        *self.0.borrow_mut() -= 1;
    }
}

#[test]
fn whatever_befalls_the_peers_every_session_is_closed() {
    let count = Rc::new(RefCell::new(0));
    for seed in 0..100 {
        let count = Rc::clone(&count);
        let sim = Sim::seed(seed).also(Knob::Reset, 2000).also(Knob::PeerVanishes, 5000);
        let sim = sim.websocket("/", move |_shard| Counting(Rc::clone(&count)));
        talking(sim, 8, 20, Duration::from_millis(10)).run().unwrap();
    }
    assert_eq!(*count.borrow(), 0);
}

/// Writes down what it is called for.
struct Noting(Rc<RefCell<Vec<&'static str>>>);

impl Handler for Noting {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        self.0.borrow_mut().push("upgrade");
        Upgrade::accept(())
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
        assert!(session.is_open(), "it is told of a session that is over");
        self.0.borrow_mut().push("opened");
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: hioload::Closed) {
        self.0.borrow_mut().push("closed");
    }
}

/// Of one shard, on which nothing else goes wrong.
fn without_lease(number: u64) -> Sim {
    Sim::seed(1).shards(1).faults(Faults::none()).drains_last().refuse_lease(number)
}

#[test]
fn a_session_without_memory_for_its_101_is_never_opened() {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&calls);
    let sim = without_lease(1).websocket("/", move |_shard| Noting(Rc::clone(&noted)));
    let report = talking(sim, 1, 3, Duration::from_millis(10)).run().unwrap();
    assert_eq!(report.turned.times(Knob::NoMemory), 1);
    let calls = calls.borrow();
    assert_eq!(calls[..3], ["upgrade", "upgrade", "opened"]);
    let count = |what| calls.iter().filter(|call| **call == what).count();
    assert_eq!((count("opened"), count("closed")), (count("upgrade") - 1, count("upgrade") - 1));
}

/// Writes down why it could not connect.
struct Failing(Rc<RefCell<Vec<ConnectError>>>);

impl ClientHandler for Failing {
    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}

    fn failed(&mut self, _: &mut Shard, error: &ConnectError) {
        self.0.borrow_mut().push(error.clone());
    }
}

#[test]
fn a_client_without_memory_for_its_request_blames_no_server() {
    let errors = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&errors);
    let sim = without_lease(1).keeps_connections().websocket("/", move |shard| {
        shard.connect(Connect::to("ws://127.0.0.1:80/"), Failing(Rc::clone(&noted)));
        Echo
    });
    talking(sim, 1, 3, Duration::from_millis(10)).run().unwrap();
    let errors = errors.borrow();
    assert!(matches!(errors[..], [ConnectError::Full { .. }]), "{errors:?}");
}

/// Writes down why its connections ended.
struct Api(Rc<RefCell<Vec<iproto::Closed>>>);

impl iproto::Handler for Api {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &iproto::Peer<'_>) -> Option<()> {
        Some(())
    }

    fn request(
        &mut self,
        _: &mut Shard,
        _: &mut iproto::Session<'_, ()>,
        request: iproto::Request,
    ) {
        drop(request);
    }

    fn closed(&mut self, _: &mut Shard, _: &mut iproto::Session<'_, ()>, reason: iproto::Closed) {
        self.0.borrow_mut().push(reason);
    }
}

/// Says one thing that is longer than a receive buffer.
struct Teller {
    has_told: bool,
}

impl Caller for Teller {
    fn act(&mut self, wire: &mut IprotoWire<'_>) -> Act {
        if self.has_told {
            return Act::Close;
        }
        self.has_told = wire.notify(7, &[7; 30_000]);
        Act::Again(Duration::from_secs(1))
    }

    fn answered(&mut self, _: &mut IprotoWire<'_>, _: u64, _: Option<&[u8]>) {}
}

#[test]
fn a_peer_whose_packet_finds_no_memory_has_broken_no_rule() {
    let reasons = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&reasons);
    let sim = without_lease(1).iproto(move |_shard| Api(Rc::clone(&noted)));
    let report = sim.callers(1, |_number| Teller { has_told: false }).run().unwrap();
    assert_eq!(report.turned.times(Knob::NoMemory), 1);
    assert_eq!(reasons.borrow()[0], iproto::Closed::OutOfMemory);
}
