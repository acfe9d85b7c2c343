//! Peers that read slowly, or say nothing for long.

use std::io::Write;
use std::time::{Duration, Instant};

use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload::config::SlowReader;
use hioload::{
    Closed, Handler, Message, MessageKind, Request, Sent, Session, SessionId, Shard, Upgrade,
};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, PATIENCE, frame, start};
use crate::handler::{Call, Echo, reporter};

/// What the first message asks for: this many copies of it.
const COPIES: usize = 2000;

/// Sends 2000 copies of a message of 16 KiB and reports what became of each.
struct Firehose(std::sync::mpsc::Sender<Vec<Sent>>);

impl Handler for Firehose {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        let answers = (0..COPIES).map(|_| session.send_binary(&message)).collect();
        self.0.send(answers).expect("the test listens");
    }
}

fn firehose(reactor: ReactorChoice, policy: SlowReader) -> (hioload::Running, Client, Vec<Sent>) {
    let (sender, answers) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let factory = move |_: &mut Shard| Firehose(sender.lock().unwrap().clone());
    let server = start(
        reactor,
        |config| config.websocket.slow_reader = policy,
        |server| server.websocket("/", factory),
    );
    let mut client = Client::open(&server, "/");
    client.send(Opcode::Binary, &[1; 16 * 1024]);
    let answers = answers.recv_timeout(PATIENCE).unwrap();
    (server, client, answers)
}

#[rstest]
#[case::drop(SlowReader::Drop)]
#[case::pause(SlowReader::Pause)]
fn what_is_queued_arrives_and_what_is_dropped_does_not(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[case] policy: SlowReader,
) {
    let (server, mut client, answers) = firehose(reactor, policy);
    assert_eq!(answers[0], Sent::Queued);
    assert!(answers.contains(&Sent::Full));
    assert_eq!(*answers.last().unwrap(), Sent::Dropped);
    let taken = answers.iter().filter(|answer| **answer != Sent::Dropped).count();
    for _ in 0..taken {
        assert_eq!(client.read_frame().payload.len(), 16 * 1024);
    }
    client.send(Opcode::Ping, b"all?");
    assert_eq!(client.read_frame().opcode, Opcode::Pong);
    server.stop().unwrap();
}

#[rstest]
fn the_policy_close_ends_the_session(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (server, mut client, answers) = firehose(reactor, SlowReader::Close);
    assert_eq!(*answers.last().unwrap(), Sent::Dropped);
    assert_eq!(client.read_close(), 1008);
    server.stop().unwrap();
}

#[rstest]
fn drained_is_called_when_the_peer_has_read(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (factory, calls) = reporter();
    let server = start(reactor, |_| {}, |server| server.websocket("/", factory));
    let mut client = Client::open(&server, "/");
    client.send(Opcode::Binary, &vec![1; 200_000]);
    assert_eq!(client.read_frame().payload.len(), 200_000);
    let drained =
        std::iter::from_fn(|| calls.recv_timeout(PATIENCE).ok()).any(|call| call == Call::Drained);
    assert!(drained);
    server.stop().unwrap();
}

#[rstest]
fn a_peer_that_reads_nothing_is_not_read_from(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let message = frame(true, Opcode::Binary, &[5; 60_000]);
    // The kernel's buffers take some; if the server read on, this would never block.
    let blocked = (0..2000).any(|_| client.stream.write_all(&message).is_err());
    assert!(blocked, "120 MB were taken from a peer that reads nothing");
    server.stop().unwrap();
}

#[rstest]
fn a_peer_that_makes_no_progress_is_dropped(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (factory, calls) = reporter();
    let server = start(
        reactor,
        |config| config.websocket.progress_timeout_ms = 300,
        |server| server.websocket("/", factory),
    );
    let client = Client::open(&server, "/");
    let mut stream = client.stream.try_clone().unwrap();
    let message = frame(true, Opcode::Binary, &[5; 1 << 20]);
    std::thread::scope(|scope| {
        scope.spawn(move || while stream.write_all(&message).is_ok() {});
        let closed = std::iter::from_fn(|| calls.recv_timeout(PATIENCE).ok())
            .find(|call| matches!(call, Call::Closed(_)));
        assert_eq!(closed, Some(Call::Closed(Closed::Stalled)));
    });
    server.stop().unwrap();
}

#[rstest]
fn a_silent_peer_is_pinged_and_then_closed(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (factory, calls) = reporter();
    let server = start(
        reactor,
        |config| {
            config.websocket.idle_timeout_ms = 300;
            config.websocket.close_timeout_ms = 500;
        },
        |server| server.websocket("/", factory),
    );
    let mut client = Client::open(&server, "/");
    let began = Instant::now();
    assert_eq!(client.read_frame().opcode, Opcode::Ping);
    assert!(began.elapsed() >= Duration::from_millis(100));
    // It answers nothing, like a peer whose cable was cut.
    assert_eq!(client.read_close(), 1001);
    assert!(began.elapsed() >= Duration::from_millis(250));
    client.read_to_end();
    let closed = calls.iter().find(|call| matches!(call, Call::Closed(_)));
    assert_eq!(closed, Some(Call::Closed(Closed::Idle)));
    server.stop().unwrap();
}

#[rstest]
fn a_peer_that_answers_pings_stays(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(
        reactor,
        |config| config.websocket.idle_timeout_ms = 1000,
        |server| server.websocket("/", |_| Echo),
    );
    let mut client = Client::open(&server, "/");
    for _ in 0..3 {
        let ping = client.read_frame();
        assert_eq!(ping.opcode, Opcode::Ping);
        client.send(Opcode::Pong, &ping.payload);
    }
    client.send(Opcode::Text, b"here");
    assert_eq!(client.read_frame().payload, b"here");
    server.stop().unwrap();
}

/// Keeps every message for ever.
#[derive(Default)]
struct Hoarder(Vec<Message>);

impl Handler for Hoarder {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        self.0.push(message);
        session.send_text(&self.0.len().to_string());
    }
}

#[rstest]
fn a_handler_that_keeps_every_message_starves_nobody(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Hoarder::default()));
    let mut client = Client::open(&server, "/");
    for number in 1..=500 {
        client.send(Opcode::Binary, &[9; 40_000]);
        assert_eq!(client.read_frame().payload, number.to_string().as_bytes());
    }
    server.stop().unwrap();
}

/// A session that another thread writes to.
struct Target(std::sync::mpsc::Sender<SessionId>);

impl Handler for Target {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
        self.0.send(session.id()).expect("the test listens");
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}
}

#[rstest]
fn another_thread_reaches_a_session(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (sender, ids) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let factory = move |_: &mut Shard| Target(sender.lock().unwrap().clone());
    let server = start(reactor, |_| {}, |server| server.websocket("/", factory));
    let mut client = Client::open(&server, "/");
    let id = ids.recv_timeout(PATIENCE).unwrap();
    let handle = server.handles()[usize::from(id.shard())].clone();
    for number in 0..1000 {
        let text = format!("{number}");
        // A full mailbox is an answer: the shard is awake and empties it.
        while handle.send(id, MessageKind::Text, text.clone().into()).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(client.read_frame().payload, text.as_bytes());
    }
    server.stop().unwrap();
}
