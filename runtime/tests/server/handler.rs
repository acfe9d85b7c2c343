//! The handlers of the tests, and what a handler may count on.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload::{
    CloseCode, Closed, Handler, Message, MessageKind, RawHandler, Request, Response, Session,
    Shard, Upgrade,
};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, PATIENCE, start};

/// Sends every message back.
pub(crate) struct Echo;

impl Handler for Echo {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }
}

/// What a [`Reporter`] was called with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Opened,
    Message(Vec<u8>),
    Drained,
    Closed(Closed),
}

/// Echoes, and reports every call.
pub(crate) struct Reporter(pub(crate) mpsc::Sender<Call>);

impl Reporter {
    fn report(&self, call: Call) {
        self.0.send(call).expect("the test listens");
    }
}

impl Handler for Reporter {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn opened(&mut self, _: &mut Shard, _: &mut Session<'_, ()>) {
        self.report(Call::Opened);
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        self.report(Call::Message(message.to_vec()));
        session.send(message);
    }

    fn drained(&mut self, _: &mut Shard, _: &mut Session<'_, ()>) {
        self.report(Call::Drained);
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        self.report(Call::Closed(reason));
    }
}

/// A factory of reporters, and where they report to.
pub(crate) fn reporter() -> (impl Fn(&mut Shard) -> Reporter + Send + Sync, mpsc::Receiver<Call>) {
    let (sender, calls) = mpsc::channel();
    let sender = Mutex::new(sender);
    (move |_: &mut Shard| Reporter(sender.lock().unwrap().clone()), calls)
}

#[rstest]
fn it_is_called_once_for_each_thing_that_happens(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (factory, calls) = reporter();
    let server = start(reactor, |_| {}, |server| server.websocket("/", factory));
    let mut client = Client::open(&server, "/");
    client.send(Opcode::Text, b"one");
    client.send(Opcode::Binary, b"two");
    client.send_close(1000);
    assert_eq!(client.read_frame().payload, b"one");
    assert_eq!(client.read_frame().payload, b"two");
    assert_eq!(client.read_close(), 1000);
    assert_eq!(client.read_to_end(), b"");
    server.stop().unwrap();
    let calls: Vec<_> = calls.iter().collect();
    let expected = [
        Call::Opened,
        Call::Message(b"one".to_vec()),
        Call::Message(b"two".to_vec()),
        Call::Closed(Closed::ByPeer(Some(CloseCode::NORMAL))),
    ];
    assert_eq!(calls, expected);
}

#[rstest]
fn a_connection_that_breaks_is_told_as_lost(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (factory, calls) = reporter();
    let server = start(reactor, |_| {}, |server| server.websocket("/", factory));
    drop(Client::open(&server, "/"));
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(Call::Opened));
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(Call::Closed(Closed::Lost)));
    server.stop().unwrap();
    assert_eq!(calls.iter().count(), 0);
}

/// Does what the message says.
struct Commanded;

impl Handler for Commanded {
    type Session = u32;

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<u32> {
        assert_ne!(request.query(), Some("panic"), "as the test asked");
        match request.query_param("refuse") {
            Some(status) => Upgrade::refuse(status.parse().unwrap_or(500)),
            None => Upgrade::accept(0).subprotocol("commands").header("X-Test", "yes"),
        }
    }

    fn message(&mut self, shard: &mut Shard, session: &mut Session<'_, u32>, message: Message) {
        *session.data += 1;
        let id = session.id();
        match message.text().unwrap_or_default() {
            "panic" => panic!("as the test asked"),
            "count" => drop(session.send_text(&session.data.to_string())),
            "close" => session.close(CloseCode::new(4321).expect("it is valid"), "as asked"),
            "later" => {
                let handle = shard.handle();
                let sleep = shard.sleep(Duration::from_millis(20));
                let future = async move {
                    sleep.await;
                    let _ = handle.send(id, MessageKind::Text, "slept".into());
                };
                shard.spawn(future).detach();
            }
            "self" => {
                let note = shard.message(MessageKind::Text, b"after").expect("memory");
                shard.send_to(id, note);
                session.send_text("before");
            }
            "panic later" => shard.spawn(async { panic!("as the test asked") }).detach(),
            other => panic!("{other} is no command"),
        }
    }
}

const OFFER: &str = "Sec-WebSocket-Protocol: other, commands\r\n";

fn commanded(reactor: ReactorChoice) -> (hioload::Running, Client) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Commanded));
    let mut client = Client::raw(&server);
    client.write(crate::client::handshake("/", OFFER).as_bytes());
    let head = client.read_head();
    assert!(head.contains("Sec-WebSocket-Protocol: commands\r\n"), "{head}");
    assert!(head.contains("X-Test: yes\r\n"), "{head}");
    (server, client)
}

#[rstest]
fn it_chooses_a_subprotocol_and_keeps_data(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (server, mut client) = commanded(reactor);
    client.send(Opcode::Text, b"count");
    client.send(Opcode::Text, b"count");
    assert_eq!(client.read_frame().payload, b"1");
    assert_eq!(client.read_frame().payload, b"2");
    server.stop().unwrap();
}

#[rstest]
fn it_may_refuse(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Commanded));
    let mut client = Client::raw(&server);
    client.write(crate::client::handshake("/?refuse=401", "").as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 401 "));
    client.read_to_end();
    server.stop().unwrap();
}

#[rstest]
fn it_closes_with_its_own_code(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (server, mut client) = commanded(reactor);
    client.send(Opcode::Text, b"close");
    let close = client.read_frame();
    assert_eq!(close.opcode, Opcode::Close);
    assert_eq!(&close.payload, b"\x10\xe1as asked");
    client.send_close(4321);
    assert_eq!(client.read_to_end(), b"");
    server.stop().unwrap();
}

#[rstest]
fn a_panic_costs_one_session(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (server, mut victim) = commanded(reactor);
    let mut other = Client::raw(&server);
    other.write(crate::client::handshake("/", OFFER).as_bytes());
    other.read_head();
    victim.send(Opcode::Text, b"panic");
    assert_eq!(victim.read_close(), 1011);
    victim.read_to_end();
    other.send(Opcode::Text, b"panic later");
    other.send(Opcode::Text, b"count");
    assert_eq!(other.read_frame().payload, b"2");
    server.stop().unwrap();
}

#[rstest]
fn a_panic_in_the_upgrade_is_a_500(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Commanded));
    let mut client = Client::raw(&server);
    client.write(crate::client::handshake("/?panic", OFFER).as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 500 "));
    client.read_to_end();
    server.stop().unwrap();
}

#[rstest]
fn a_future_sleeps_and_reaches_its_session(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (server, mut client) = commanded(reactor);
    client.send(Opcode::Text, b"later");
    assert_eq!(client.read_frame().payload, b"slept");
    server.stop().unwrap();
}

#[rstest]
fn what_is_sent_by_name_comes_after_the_callback(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (server, mut client) = commanded(reactor);
    client.send(Opcode::Text, b"self");
    assert_eq!(client.read_frame().payload, b"before");
    assert_eq!(client.read_frame().payload, b"after");
    server.stop().unwrap();
}

/// Answers upgrades from another thread.
struct Patient {
    questions: mpsc::Sender<(hioload::UpgradeToken, hioload::ShardHandle)>,
}

impl Handler for Patient {
    type Session = &'static str;

    fn upgrade(&mut self, shard: &mut Shard, request: &Request<'_>) -> Upgrade<&'static str> {
        self.questions.send((request.token(), shard.handle())).expect("the test listens");
        Upgrade::later(request.token())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, &'static str>, _: Message) {
        let name = *session.data;
        session.send_text(name);
    }
}

#[rstest]
fn an_upgrade_can_be_answered_later(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (questions, asked) = mpsc::channel();
    let questions = Mutex::new(questions);
    let factory = move |_: &mut Shard| Patient { questions: questions.lock().unwrap().clone() };
    let server = start(reactor, |_| {}, |server| server.websocket("/", factory));

    let mut accepted = Client::raw(&server);
    accepted.write(crate::client::handshake("/", "").as_bytes());
    // A client that does not wait for the answer: what it sends comes after it.
    accepted.send(Opcode::Text, b"who am I?");
    let (token, handle) = asked.recv_timeout(PATIENCE).unwrap();
    handle.run(move |shard| shard.answer(token, Upgrade::accept("somebody"))).unwrap();
    assert!(accepted.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(accepted.read_frame().payload, b"somebody");

    let mut refused = Client::raw(&server);
    refused.write(crate::client::handshake("/", "").as_bytes());
    let (token, handle) = asked.recv_timeout(PATIENCE).unwrap();
    let refuse = move |shard: &mut Shard| {
        shard.answer::<&'static str>(token, Upgrade::refuse(403));
        shard.answer::<&'static str>(token, Upgrade::accept("too late"));
    };
    handle.run(refuse).unwrap();
    assert!(refused.read_head().starts_with("HTTP/1.1 403 "));
    refused.read_to_end();
    server.stop().unwrap();
}

#[rstest]
fn an_upgrade_that_nobody_answers_is_a_503(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (questions, _asked) = mpsc::channel();
    let questions = Mutex::new(questions);
    let factory = move |_: &mut Shard| Patient { questions: questions.lock().unwrap().clone() };
    let server = start(
        reactor,
        |config| config.limits.handshake_timeout_ms = 100,
        |server| server.websocket("/", factory),
    );
    let mut client = Client::raw(&server);
    client.write(crate::client::handshake("/", "").as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 503 "));
    client.read_to_end();
    server.stop().unwrap();
}

#[rstest]
fn plain_http_is_answered_on_the_same_port(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(
        reactor,
        |_| {},
        |server| {
            server.websocket("/ws", |_| Echo).http("/health", |shard, _| {
                Response::text(200, format!("{}", shard.session_count()))
            })
        },
    );
    for (request, status) in [
        ("GET /health HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 "),
        ("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 "),
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 "),
        ("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 426 "),
    ] {
        let mut client = Client::raw(&server);
        client.write(request.as_bytes());
        let head = client.read_head();
        assert!(head.starts_with(status), "{request}: {head}");
        assert!(head.contains("close\r\n"), "{head}");
        let body = client.read_to_end();
        assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{request}");
    }
    server.stop().unwrap();
}

/// Echoes a raw stream.
struct RawEcho(Arc<Mutex<Vec<Closed>>>);

impl RawHandler for RawEcho {
    type Session = usize;

    fn accepted(&mut self, _: &mut Shard) -> usize {
        0
    }

    fn received(&mut self, _: &mut Shard, session: &mut Session<'_, usize>, bytes: Message) {
        *session.data += bytes.len();
        session.send(bytes);
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, usize>, reason: Closed) {
        assert_ne!(*session.data, 0);
        self.0.lock().unwrap().push(reason);
    }
}

#[rstest]
fn a_raw_stream_is_echoed_to_its_last_byte(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("raw");
    let ended = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ended);
    let address = format!("unix:{}", path.display());
    let server = start(
        reactor,
        |_| {},
        |server| server.websocket("/", |_| Echo).raw(&address, move |_| RawEcho(Arc::clone(&seen))),
    );
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::io::Write::write_all(&mut &stream, &sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        std::io::Read::read_to_end(&mut &stream, &mut received).unwrap();
        received
    });
    assert_eq!(received.len(), sent.len());
    assert!(received == sent, "the bytes came back changed");
    server.stop().unwrap();
    assert_eq!(*ended.lock().unwrap(), [Closed::ByPeer(None)]);
    assert!(!path.exists(), "the socket file is removed at the end");
}
