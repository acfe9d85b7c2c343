//! Bounds that a peer or another thread runs into in virtual time: how long an end may take, how
//! much may wait in a mailbox, and how much is logged.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use hioload::config::Config;
use hioload::iproto::Mux;
use hioload::testkit::sim::{Act, Caller, Faults, IprotoWire, Sim};
use hioload::testkit::{Bench, Peer};
use hioload::{
    CloseCode, Closed, Handler, Message, MessageKind, Request, Session, SessionId, Shard, Time,
    Upgrade, Violation,
};
use rstest::rstest;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const EMPTY_MESSAGE: &[u8] = b"\x82\x80\0\0\0\0";

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + 'static {
        let writer = self.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish()
    }

    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().expect("nobody panics with it").clone();
        String::from_utf8(bytes).expect("a log is text").lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics with it").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the handler of a bench was told.
#[derive(Default)]
struct Told {
    opened: Cell<Option<SessionId>>,
    closed: Cell<Option<Closed>>,
}

/// Sends so many bytes to whoever comes, and does what the query says; a message is answered with
/// the rest of a large farewell.
struct Farewell(usize, Rc<Told>);

impl Handler for Farewell {
    type Session = bool;

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<bool> {
        Upgrade::accept(request.query() == Some("close"))
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, bool>) {
        self.1.opened.set(Some(session.id()));
        session.send_binary(&vec![7; self.0]);
        if *session.data {
            session.close(CloseCode::NORMAL, "that is all");
        }
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, bool>, _: Message) {
        session.send_binary(&[8; 24 * KIB]);
        session.close(CloseCode::NORMAL, "that is all");
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, bool>, reason: Closed) {
        self.1.closed.set(Some(reason));
    }
}

/// A bench whose sessions have a second for each part, and a peer of it that has asked for one.
fn asked(target: &str) -> (Bench, Peer, Rc<Told>) {
    let mut config = Config::default();
    config.websocket.progress_timeout_ms = 1000;
    config.websocket.close_timeout_ms = 200;
    asked_for(target, 32 * KIB, KIB, &config)
}

/// The same for a farewell of so many bytes, through so small a window.
fn asked_for(
    target: &str,
    bytes: usize,
    window: usize,
    config: &Config,
) -> (Bench, Peer, Rc<Told>) {
    let told = Rc::new(Told::default());
    let handler = Farewell(bytes, Rc::clone(&told));
    let bench = Bench::with_config(config, |_| handler).route("/");
    bench.net().set_window(window);
    let mut peer = bench.net().connect(80).expect("the bench listens");
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    peer.write_all(request.as_bytes()).expect("there is room for a request");
    bench.advance(Duration::ZERO);
    assert_eq!(bench.shard_stats().connections, 1);
    (bench, peer, told)
}

/// Takes a byte every 100 ms, until the connection is over or for so long; answers how long.
fn drip(bench: &Bench, peer: &mut Peer, longest: Duration) -> Duration {
    let began = bench.now();
    while bench.shard_stats().connections > 0 && bench.now().since(began) < longest {
        assert_eq!(peer.read(&mut [0]).unwrap_or_default(), 1, "there is more to come");
        bench.advance(Duration::from_millis(100));
    }
    bench.now().since(began)
}

/// Each byte is progress, so no deadline that progress renews ever ends it: 32 KiB have a second,
/// and two at 16 KiB a second.
#[rstest]
#[case::our_close("/?close", b"", Closed::Stalled)]
#[case::a_violation("/", b"\x83\x80\0\0\0\0", Closed::Violation(Violation::ReservedOpcode))]
#[case::its_close("/", b"\x88\x80\0\0\0\0", Closed::ByPeer(None))]
fn an_end_that_drips_is_over_in_time(
    #[case] target: &str,
    #[case] says: &[u8],
    #[case] reason: Closed,
) {
    let (bench, mut peer, told) = asked(target);
    peer.write_all(says).unwrap();
    bench.advance(Duration::ZERO);
    let took = drip(&bench, &mut peer, Duration::from_secs(10));
    let documented = Duration::from_millis(2900)..=Duration::from_millis(3100);
    assert!(documented.contains(&took), "it was over after {took:?}");
    assert_eq!(bench.shard_stats().counters.timeouts, 1, "who is cut is counted");
    assert_eq!(told.closed.get(), Some(reason));
}

/// The send that is open when the end begins is not all of the backlog: that it has left, and that
/// the peer answers meanwhile, are no new beginning.
#[rstest]
#[case::unanswered(false)]
#[case::answered(true)]
fn a_backlog_of_two_sends_has_one_end(#[case] answers: bool) {
    let mut config = Config::default();
    config.websocket.progress_timeout_ms = 1000;
    config.websocket.close_timeout_ms = 200;
    let (bench, mut peer, told) = asked_for("/", 8 * KIB, KIB, &config);
    peer.write_all(EMPTY_MESSAGE).unwrap();
    bench.advance(Duration::ZERO);
    // About 31 KiB, so it ends after 2.9 s. The first send is taken late, but all of it.
    for (waits_ms, reads) in [(900, 1), (900, 1), (200, 7)] {
        bench.advance(Duration::from_millis(waits_ms));
        for _ in 0..reads {
            assert_eq!(peer.read(&mut [0; KIB]).unwrap_or_default(), KIB);
            bench.advance(Duration::ZERO);
        }
    }
    if answers {
        peer.write_all(b"\x88\x80\0\0\0\0").unwrap();
        bench.advance(Duration::ZERO);
    }
    let took = drip(&bench, &mut peer, Duration::from_secs(10));
    let rest = Duration::from_millis(800)..=Duration::from_millis(1100);
    assert!(rest.contains(&took), "it was over 2 s and {took:?} after it began to end");
    assert_eq!(bench.shard_stats().counters.timeouts, 1);
    let reason = if answers { Closed::ByHandler(CloseCode::NORMAL) } else { Closed::Stalled };
    assert_eq!(told.closed.get(), Some(reason));
}

/// A backlog of 16 MiB has minutes, but only for who takes some of it.
#[test]
fn an_end_that_nobody_reads_is_over_after_the_progress_timeout() {
    let (bench, _peer, told) = asked_for("/?close", 16 * MIB, 64 * KIB, &Config::default());
    bench.advance(Duration::from_secs(29));
    assert_eq!(bench.shard_stats().connections, 1);
    bench.advance(Duration::from_secs(2));
    assert_eq!(bench.shard_stats().connections, 0);
    assert_eq!(told.closed.get(), Some(Closed::Stalled));
    assert_eq!(bench.shard_stats().counters.timeouts, 1);
}

/// Whoever reads all of it in time gets all of it, and its close frame.
#[rstest]
#[case::in_a_second(32 * KIB, KIB, 4 * KIB)]
#[case::at_400_kib_a_second(16 * MIB, 64 * KIB, 40 * KIB)]
#[case::at_20_kib_a_second(4 * MIB, 2 * KIB, 2 * KIB)]
fn an_end_that_is_read_is_not_cut_short(
    #[case] bytes: usize,
    #[case] window: usize,
    #[case] each: usize,
) {
    let (bench, mut peer, told) = asked_for("/?close", bytes, window, &Config::default());
    let (mut got, mut last, mut piece) = (0, Vec::new(), vec![0; each]);
    while bench.shard_stats().connections > 0 && !last.ends_with(b"that is all") {
        bench.advance(Duration::from_millis(100));
        let mut room = each;
        while room > 0 {
            let count = peer.read(&mut piece[..room]).unwrap_or_default();
            if count == 0 {
                break;
            }
            (got, room) = (got + count, room - count);
            last.extend_from_slice(&piece[..count]);
            last.drain(..last.len().saturating_sub(32));
            bench.advance(Duration::ZERO);
        }
    }
    assert!(last.ends_with(b"that is all"), "{got} bytes of {bytes}, without the close frame");
    assert!(got > bytes);
    // Its answer is waited for from when the last byte left, which was little earlier than it was
    // read: and not for as long as the backlog might have taken.
    bench.advance(Duration::from_millis(1500));
    assert_eq!(bench.shard_stats().connections, 1);
    bench.advance(Duration::from_millis(600));
    assert_eq!(bench.shard_stats().connections, 0);
    assert_eq!(told.closed.get(), Some(Closed::ByHandler(CloseCode::NORMAL)));
    assert_eq!(bench.shard_stats().counters.timeouts, 0);
}

/// Letters were counted and their bytes were not: 4096 messages of any size could wait.
#[test]
fn a_mailbox_is_bounded_in_bytes() {
    let (bench, _peer, told) = asked("/");
    let (handle, id) = (bench.handle(), told.opened.get().expect("the session is open"));
    let send = |bytes: usize| handle.send(id, MessageKind::Binary, vec![0; bytes].into());
    let taken = (0..100).take_while(|_| send(MIB).is_ok()).count();
    assert_eq!(taken, 16);
    assert!(send(1).is_err());
    assert!(handle.run(|_| {}).is_ok(), "what has no bytes still has room");
    bench.advance(Duration::ZERO);
    assert!(send(40 * MIB).is_ok(), "an empty one takes any message");
    assert!(send(1).is_err());
}

/// A refused message was counted for a moment: a small one was refused meanwhile, for which there
/// was room.
#[test]
fn a_refused_message_costs_others_nothing() {
    let (bench, _peer, told) = asked("/");
    let (handle, id) = (bench.handle(), told.opened.get().expect("the session is open"));
    let send = |payload: Bytes| handle.send(id, MessageKind::Binary, payload);
    assert!(send(Bytes::from_static(b"1")).is_ok());
    let (large, is_over) = (Bytes::from(vec![0; 16 * MIB]), AtomicBool::new(false));
    let tries = AtomicUsize::new(0);
    let refused = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert!(send(large.clone()).is_err(), "it is one byte too many");
                tries.fetch_add(1, Ordering::Relaxed);
            }
        });
        while tries.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        let refused = (0..4000).filter(|_| send(Bytes::from_static(b"2")).is_err()).count();
        is_over.store(true, Ordering::Relaxed);
        refused
    });
    assert_eq!(refused, 0, "of 4000 messages of a byte");
}

/// Panics with every message.
struct Broken;

impl Handler for Broken {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {
        panic!("asked for");
    }
}

/// Only the next panic told how many were not: of the last flood nobody heard. It is the log that
/// is bounded; the panic hook, here of the test harness, runs for each.
#[test]
fn a_flood_of_panics_is_counted_when_it_is_over() {
    let log = Log::default();
    let _subscribed = tracing::subscriber::set_default(log.subscriber());
    let bench = Bench::new(Broken);
    for _ in 0..12 {
        let mut client = bench.connect("/").expect("the bench accepts");
        client.send_text("panic");
        bench.advance(Duration::ZERO);
    }
    assert_eq!(bench.shard_stats().counters.panics, 12);
    assert_eq!(log.lines().len(), 5);
    bench.advance(Duration::from_secs(61));
    let lines = log.lines();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert!(lines[5].contains("unsaid=7"), "{lines:#?}");
    bench.advance(Duration::from_secs(600));
    assert_eq!(log.lines().len(), 6);
}

/// Asks for what nobody serves: so often at once, and once more after a minute.
struct Curious {
    at_once: u32,
    more_at: Option<Time>,
}

impl Caller for Curious {
    fn act(&mut self, wire: &mut IprotoWire<'_>) -> Act {
        if wire.pending() > 0 {
            return Act::Wait;
        }
        if self.at_once > 0 {
            self.at_once -= 1;
            let after = Duration::from_secs(61);
            self.more_at.get_or_insert(wire.now().after(after));
        } else {
            let Some(at) = self.more_at else { return Act::Close };
            if wire.now() < at {
                return Act::Again(at.since(wire.now()));
            }
            self.more_at = None;
        }
        wire.call(77, b"?", Duration::from_secs(10), 0);
        Act::Wait
    }

    fn answered(&mut self, wire: &mut IprotoWire<'_>, _: u64, body: Option<&[u8]>) {
        if body != Some(&[0xff; 4]) {
            wire.fail("a code that nobody serves is answered with an error, at once");
        }
    }
}

#[test]
fn codes_that_nobody_serves_are_a_line_a_minute() {
    let log = Log::default();
    let sim = Sim::seed(1).shards(1).faults(Faults::none()).drains_last();
    let sim = sim.iproto(|_shard| Mux::new()).callers(1, |number| {
        let at_once = if number == 0 { 10 } else { 0 };
        Curious { at_once, more_at: None }
    });
    tracing::subscriber::with_default(log.subscriber(), || sim.run().unwrap());
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("no handler for this code") && lines[0].contains("count=1"));
    assert!(lines[1].contains("count=10"), "{lines:?}");
}
