//! What takes minutes, on a clock turned by hand.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hioload::testkit::Bench;
use hioload::ws::{ClientHandler, Connect, ConnectError, Opened, Reconnect};
use hioload::{
    CloseCode, Closed, Handler, Message, MessageKind, Request, Session, SessionId, Shard, Upgrade,
};
use rstest::rstest;

/// Echoes; closes with the code that it is sent.
struct Server;

impl Handler for Server {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<()> {
        if request.path() == "/busy" { Upgrade::refuse(503) } else { Upgrade::accept(()) }
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
        session.send_text("welcome");
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        let code = message.text().and_then(|text| text.parse().ok()).and_then(CloseCode::new);
        match code {
            Some(code) => session.close(code, ""),
            None => drop(session.send(message)),
        }
    }
}

#[derive(Default)]
struct Log {
    opened: Vec<(u32, u64)>,
    closed: Vec<Closed>,
    failed: Vec<(String, u64)>,
    waits: Vec<(u32, Duration)>,
    session: Option<SessionId>,
    dropped: bool,
}

/// Notes everything; says `first` on each connection.
struct Notes {
    log: Rc<RefCell<Log>>,
    first: &'static str,
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.log.borrow_mut().dropped = true;
    }
}

impl ClientHandler for Notes {
    fn opened(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, opened: &Opened) {
        let now = shard.now().as_millis();
        let mut log = self.log.borrow_mut();
        log.opened.push((opened.generation, now));
        log.session = Some(session.id());
        session.send_text(self.first);
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        self.log.borrow_mut().closed.push(reason);
    }

    fn failed(&mut self, shard: &mut Shard, error: &ConnectError) {
        let now = shard.now().as_millis();
        self.log.borrow_mut().failed.push((error.to_string(), now));
    }

    fn reconnecting(&mut self, _: &mut Shard, attempt: u32, wait: Duration) {
        self.log.borrow_mut().waits.push((attempt, wait));
    }
}

fn bench(path: &str) -> Bench {
    let bench = Bench::new(Server);
    // From now on this path is served.
    drop(bench.connect(path));
    bench.advance(Duration::from_secs(10));
    bench
}

fn begin(bench: &Bench, connect: Connect, first: &'static str) -> Rc<RefCell<Log>> {
    let log = Rc::new(RefCell::new(Log::default()));
    let notes = Notes { log: Rc::clone(&log), first };
    bench.run(|shard| shard.connect(connect, notes));
    log
}

#[test]
fn waits_grow_are_jittered_and_counted() {
    let bench = bench("/ws");
    let rule = Reconnect::default().attempts(12);
    // Nobody listens on this port.
    let log = begin(&bench, Connect::to("ws://127.0.0.1:81/").reconnect(rule), "");
    bench.advance(Duration::from_secs(3600));
    let log = log.borrow();
    assert_eq!(log.failed.len(), 13, "the first attempt, and those that were waited for");
    assert!(log.dropped, "it is given up");
    let attempts: Vec<u32> = log.waits.iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(attempts, (1..=12).collect::<Vec<_>>());
    for (index, (_, wait)) in log.waits.iter().enumerate() {
        let bound = Duration::from_millis((250 << index).min(30_000));
        assert!(*wait <= bound, "wait {index} is {wait:?}");
        // It is waited for that long, to the millisecond.
        let took = log.failed[index + 1].1 - log.failed[index].1;
        assert_eq!(u128::from(took), wait.as_millis().max(1));
    }
    let sum = |waits: &[(u32, Duration)]| waits.iter().map(|(_, wait)| *wait).sum::<Duration>();
    assert!(sum(&log.waits[6..]) > 4 * sum(&log.waits[..6]), "{:?}", log.waits);
    // Drawn at random: the same bound of 30 s gives different waits.
    let last: std::collections::HashSet<_> = log.waits[7..].iter().map(|(_, wait)| wait).collect();
    assert_eq!(last.len(), 5, "{:?}", log.waits);
}

#[test]
fn clients_do_not_come_back_as_one() {
    let bench = bench("/ws");
    let connect = || Connect::to("ws://127.0.0.1:81/").reconnect(Reconnect::default());
    let logs: Vec<_> = (0..20).map(|_| begin(&bench, connect(), "")).collect();
    bench.advance(Duration::from_secs(60));
    let times: std::collections::HashSet<u64> =
        logs.iter().map(|log| log.borrow().failed.last().expect("some failed").1).collect();
    assert!(times.len() > 15, "{times:?}");
}

#[test]
fn a_server_that_closes_at_once_is_not_hammered() {
    let bench = bench("/ws");
    let rule = Reconnect::default().attempts(6);
    let log = begin(&bench, Connect::to("ws://127.0.0.1:80/ws").reconnect(rule), "1012");
    bench.advance(Duration::from_secs(3600));
    let log = log.borrow();
    assert_eq!(log.opened.len(), 7, "each connection opened, and none of them for long");
    assert_eq!(log.closed, vec![Closed::ByPeer(Some(CloseCode::RESTART)); 7]);
    assert_eq!(log.waits.last().map(|(attempt, _)| *attempt), Some(6));
    assert!(log.dropped);
}

#[test]
fn a_connection_that_lasted_begins_a_new_row() {
    let bench = bench("/ws");
    let rule = Reconnect::default().attempts(2);
    let log = begin(&bench, Connect::to("ws://127.0.0.1:80/ws").reconnect(rule), "stay");
    for round in 1..=5 {
        bench.advance(Duration::from_secs(30));
        assert_eq!(log.borrow().opened.len(), round);
        let id = log.borrow().session.expect("it is open");
        // The server is asked to restart.
        bench.run(|shard| {
            let message = shard.message(MessageKind::Text, b"1012").expect("there is memory");
            shard.send_to(id, message);
        });
        bench.advance(Duration::from_secs(1));
    }
    assert!(log.borrow().waits.iter().all(|(attempt, _)| *attempt == 1));
}

#[test]
fn a_busy_server_is_asked_again() {
    let bench = bench("/busy");
    let rule = Reconnect::default().attempts(3);
    let log = begin(&bench, Connect::to("ws://127.0.0.1:80/busy").reconnect(rule), "");
    bench.advance(Duration::from_secs(60));
    let log = log.borrow();
    assert_eq!(log.failed.len(), 4);
    assert!(log.failed.iter().all(|(why, _)| why.contains("503")), "{:?}", log.failed);
    assert!(log.dropped);
}

#[test]
fn a_drain_ends_clients_that_wait() {
    let bench = bench("/ws");
    let waiting =
        begin(&bench, Connect::to("ws://127.0.0.1:81/").reconnect(Reconnect::default()), "");
    let open =
        begin(&bench, Connect::to("ws://127.0.0.1:80/ws").reconnect(Reconnect::default()), "stay");
    bench.advance(Duration::from_millis(1));
    bench.shutdown();
    bench.advance(Duration::from_secs(5));
    assert!(waiting.borrow().dropped);
    let last = waiting.borrow().failed.last().cloned().expect("it failed before");
    assert!(last.0.contains("shuts down"), "{last:?}");
    assert!(open.borrow().dropped);
    assert_eq!(open.borrow().closed.len(), 1);
    assert_eq!(open.borrow().opened.len(), 1, "it is not opened again");
}

/// Panics at the first failure, or at the first wait.
struct Panics {
    log: Rc<RefCell<Log>>,
    at_failure: bool,
}

impl Drop for Panics {
    fn drop(&mut self) {
        self.log.borrow_mut().dropped = true;
    }
}

impl ClientHandler for Panics {
    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}

    fn failed(&mut self, _: &mut Shard, _: &ConnectError) {
        assert!(!self.at_failure, "it is to panic");
    }

    fn reconnecting(&mut self, _: &mut Shard, attempt: u32, wait: Duration) {
        self.log.borrow_mut().waits.push((attempt, wait));
        panic!("it is to panic");
    }
}

#[rstest]
fn a_panic_in_between_ends_the_client_at_once(#[values(true, false)] at_failure: bool) {
    let bench = bench("/ws");
    let log = Rc::new(RefCell::new(Log::default()));
    let panics = Panics { log: Rc::clone(&log), at_failure };
    let hours = Duration::from_secs(36_000);
    let rule = Reconnect::default().first(hours).max(hours);
    bench.run(|shard| shard.connect(Connect::to("ws://127.0.0.1:81/").reconnect(rule), panics));
    bench.advance(Duration::from_millis(10));
    assert!(log.borrow().dropped);
    assert_eq!(log.borrow().waits.len(), usize::from(!at_failure));
    assert_eq!(bench.shard_stats().counters.panics, 1);
}

/// Wants nothing more from the beginning on.
struct Deaf;

impl Handler for Deaf {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
        session.pause();
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }
}

#[test]
fn who_is_not_read_from_is_not_blamed_for_silence() {
    let bench = Bench::new(Deaf);
    let mut client = bench.connect("/ws").expect("it opens");
    client.send_text("you will not read this");
    bench.advance(Duration::from_secs(3600));
    assert_eq!(client.receive(), None);
    assert!(!client.has_ended());
    assert_eq!(bench.shard_stats().counters.messages, 0);
    // It reads again when the session closes, so that the closing handshake can be.
    bench.shutdown();
    bench.advance(Duration::from_millis(1));
    assert!(client.receive().is_some());
    client.close(CloseCode::GOING_AWAY, "");
    assert!(client.has_ended());
}
