//! What takes minutes, on a clock turned by hand.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hioload::Compression;
use hioload::config::{CompressionMode, Config};
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

#[test]
fn who_is_let_in_and_hears_nothing_gives_up_in_time() {
    let bench = bench("/ws");
    let _deaf = bench.net().listen(81).expect("the port is free");
    let connect = Connect::to("ws://127.0.0.1:81/").timeout(Duration::from_secs(7));
    let log = begin(&bench, connect, "");
    bench.advance(Duration::from_millis(6999));
    assert!(log.borrow().failed.is_empty());
    bench.advance(Duration::from_millis(1));
    assert_eq!(log.borrow().failed[0].0, "no connection within 7000 ms");
    assert!(log.borrow().dropped);
    assert_eq!(bench.shard_stats().connections, 0);
}

#[test]
fn a_wrong_description_is_told_to_the_handler() {
    let bench = bench("/ws");
    let log = begin(&bench, Connect::to("http://a.example/").reconnect(Reconnect::default()), "");
    assert!(log.borrow().failed[0].0.contains("scheme"), "{:?}", log.borrow().failed);
    assert!(log.borrow().dropped, "nothing will become of it");
}

#[test]
fn a_full_shard_dials_when_there_is_room_again() {
    let mut config = Config::default();
    config.limits.connections_max = 2;
    let bench = Bench::with_config(&config, |_| Server);
    let clients = [bench.connect("/ws").unwrap(), bench.connect("/ws").unwrap()];
    let again = Reconnect::default().attempts(20);
    let log = begin(&bench, Connect::to("ws://127.0.0.1:80/ws").reconnect(again), "");
    assert!(log.borrow().failed[0].0.contains("limits.connections_max"));
    drop(clients);
    bench.advance(Duration::from_secs(60));
    assert_eq!(log.borrow().opened.len(), 1);
}

#[test]
fn a_shard_has_32768_clients_at_the_most() {
    let bench = bench("/ws");
    let hours = Duration::from_secs(36_000);
    let waits = Reconnect::default().first(hours).max(hours);
    let connect = || Connect::to("ws://127.0.0.1:81/").reconnect(waits);
    let notes = Rc::new(RefCell::new(Log::default()));
    bench.run(|shard| {
        for _ in 0..32_768 {
            shard.connect(connect(), Notes { log: Rc::clone(&notes), first: "" });
        }
    });
    assert_eq!(notes.borrow().waits.len(), 32_768);
    let log = begin(&bench, connect(), "");
    assert!(log.borrow().failed[0].0.contains("too many clients"), "{:?}", log.borrow().failed);
    assert!(log.borrow().dropped);
}

/// A handle is served by a future of the same shard.
#[rstest]
#[case::as_it_is(Compression::off())]
#[case::compressed(Compression::dedicated_window())]
fn a_future_talks_through_a_connection_of_its_shard(#[case] compression: Compression) {
    let mut config = Config::default();
    config.websocket.compression = CompressionMode::DedicatedWindow;
    let bench = Bench::with_config(&config, |_| Server).route("/ws");
    let connect = Connect::to("ws://127.0.0.1:80/ws").compression(compression);
    let heard = Rc::new(RefCell::new(Vec::new()));
    let hearing = Rc::clone(&heard);
    let long = "again and ".repeat(100);
    let said = long.clone();
    bench.run(|shard| {
        let opening = shard.open(connect);
        let talk = async move {
            let mut client = opening.await.unwrap();
            for text in ["hello", &said] {
                client.send(text).await.unwrap();
            }
            while hearing.borrow().len() < 3 {
                let message = client.next().await.unwrap().unwrap();
                hearing.borrow_mut().push(message.text().unwrap_or_default().to_owned());
            }
            client.close(CloseCode::NORMAL, "").await;
            hearing.borrow_mut().push("closed".to_owned());
        };
        shard.spawn(talk).detach();
    });
    bench.advance(Duration::from_secs(1));
    assert_eq!(*heard.borrow(), ["welcome", "hello", &long, "closed"]);
    let stats = bench.shard_stats();
    assert_eq!((stats.connections, stats.counters.panics), (0, 0));
}

/// Does with its own connection what a session can do.
struct Versatile(Rc<RefCell<Vec<String>>>);

impl ClientHandler for Versatile {
    fn opened(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, _: &Opened) {
        session.subscribe("news").expect("it is open");
        session.set_timer(Duration::from_secs(1), 7).expect("it is the only one");
        // More than is copied, from where it lies; and more than an outbox takes at ease.
        for len in [5000, 100_000] {
            let message = shard.message(MessageKind::Binary, &vec![7; len]);
            session.send(message.expect("there is memory"));
        }
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, message: Message) {
        let same = message.iter().all(|byte| *byte == 7);
        self.0.borrow_mut().push(format!("{} of the same {same}", message.len()));
    }

    fn drained(&mut self, _: &mut Shard, _: &mut Session<'_, ()>) {
        self.0.borrow_mut().push("drained".to_owned());
    }

    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, token: u64) {
        self.0.borrow_mut().push(format!("timer {token}"));
        let news = shard.message(MessageKind::Binary, &[7; 9]).expect("there is memory");
        assert_eq!(shard.publish("news", news), 1);
        assert!(session.is_open());
    }
}

#[test]
fn a_session_of_ours_can_do_what_others_can() {
    let bench = Bench::new(Server).route("/ws");
    let notes = Rc::new(RefCell::new(Vec::new()));
    let handler = Versatile(Rc::clone(&notes));
    bench.run(|shard| shard.connect(Connect::to("ws://127.0.0.1:80/ws"), handler));
    bench.advance(Duration::from_secs(2));
    let mut notes = notes.take();
    notes.sort();
    let echoes = ["100000 of the same true", "5000 of the same true", "9 of the same true"];
    let others = ["7 of the same false", "drained", "timer 7"];
    let mut expected = [&echoes[..], &others].concat();
    expected.sort();
    assert_eq!(notes, expected, "the welcome has 7 bytes");
}
