//! What a session knows of itself, over real sockets: addresses, parameters, timers, its end.

use std::os::unix::net::UnixStream;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload::config::SlowReader;
use hioload::{CloseCode, Closed, Handler, Message, RawHandler, Request, Response, Server};
use hioload::{Session, Shard, StartError, Upgrade};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, PATIENCE, address, start};
use crate::handler::{Call, Echo, reporter};

/// Says how each session came, at the upgrade and later.
struct Whence;

impl Handler for Whence {
    type Session = String;

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<String> {
        let addresses = (request.peer_address(), request.local_address());
        let room = request.param("room");
        assert_eq!(request.param("other"), None);
        let later = request.path().ends_with("later");
        assert_eq!(later, room.is_none());
        Upgrade::accept(format!("{addresses:?} {room:?}")).keep_request()
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, String>, _: Message) {
        let addresses = (session.peer_address(), session.local_address());
        assert_eq!(*session.data, format!("{addresses:?} {:?}", session.param("room")));
        let path = session.path().expect("it is kept").to_owned();
        let text = format!("{} {path}", session.data);
        session.send_text(&text);
    }
}

#[rstest]
fn it_knows_its_addresses_and_parameters(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(
        reactor,
        |_| {},
        |server| server.websocket("/chat/{room}", |_| Whence).websocket("/later", |_| Whence),
    );
    for (path, room) in [("/chat/a%20room", Some("a%20room")), ("/later", None)] {
        let mut client = Client::open(&server, path);
        client.send(Opcode::Text, b"?");
        let peer = client.stream.local_addr().unwrap();
        let addresses = (Some(peer), Some(address(&server)));
        let expected = format!("{addresses:?} {room:?} {path}");
        assert_eq!(String::from_utf8(client.read_frame().payload).unwrap(), expected);
    }
    let mut nowhere = Client::raw(&server);
    nowhere.write(crate::client::handshake("/chat/a/b", "").as_bytes());
    assert!(nowhere.read_head().starts_with("HTTP/1.1 404 "));
    server.stop().unwrap();
}

#[rstest]
fn plain_answers_have_parameters_too(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(
        reactor,
        |_| {},
        |server| {
            server.http("/files/{*rest}", |_, request| {
                Response::text(200, request.param("rest").unwrap_or("none"))
            })
        },
    );
    let mut client = Client::raw(&server);
    client.write(b"GET /files/a/b.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.read_head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.read_to_end(), b"a/b.txt");
    server.stop().unwrap();
}

#[test]
fn routes_that_cannot_be_told_apart_are_an_error_of_the_configuration() {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .websocket("/chat/{room}", |_| Echo)
        .websocket("/chat/{name}", |_| Echo);
    let error = server.start().unwrap_err();
    assert!(matches!(error, StartError::Config(_)), "{error:?}");
    assert_eq!(error.exit_code(), std::process::ExitCode::from(78));
    assert_eq!(
        error.to_string(),
        "the routes `/chat/{name}` and `/chat/{room}` answer the same paths: remove or rename one \
         of them"
    );
}

/// Answers nothing but its timer and its deadline.
struct Ticking(mpsc::Sender<Closed>);

const TICK: Duration = Duration::from_millis(30);
const OVER: Duration = Duration::from_millis(90);

impl RawHandler for Ticking {
    type Session = ();

    fn accepted(&mut self, _: &mut Shard) {}

    fn received(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: Message) {
        assert_eq!((session.peer_address(), session.local_address()), (None, None));
        session.set_timer(TICK, 7).expect("it is the first");
        session.set_deadline(OVER, CloseCode::NORMAL);
    }

    fn timer(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, token: u64) {
        session.send_binary(&[b'0' + token as u8]);
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        self.0.send(reason).expect("the test listens");
    }
}

#[rstest]
fn a_raw_stream_has_timers_and_a_deadline(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("raw");
    let listen = format!("unix:{}", path.display());
    let (sender, closed) = mpsc::channel();
    let sender = Mutex::new(sender);
    let factory = move |_: &mut Shard| Ticking(sender.lock().unwrap().clone());
    let server =
        start(reactor, |_| {}, |server| server.websocket("/", |_| Echo).raw(&listen, factory));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let began = Instant::now();
    std::io::Write::write_all(&mut stream, b"go").unwrap();
    let mut received = [0];
    std::io::Read::read_exact(&mut stream, &mut received).unwrap();
    assert_eq!(&received, b"7");
    assert!(began.elapsed() >= TICK, "the timer was early");
    assert_eq!(std::io::Read::read(&mut stream, &mut received).unwrap(), 0);
    assert!(began.elapsed() >= OVER, "the deadline was early");
    assert_eq!(closed.recv_timeout(PATIENCE), Ok(Closed::Deadline(CloseCode::NORMAL)));
    server.stop().unwrap();
}

/// A raw stream that hears what is published.
struct Listener;

impl RawHandler for Listener {
    type Session = ();

    fn accepted(&mut self, _: &mut Shard) {}

    fn received(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: Message) {
        session.subscribe("news").expect("it is the first");
        session.send_binary(b"!");
    }
}

/// Publishes what it is told, after it has subscribed.
struct Speaker;

impl Handler for Speaker {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
        session.subscribe("news").expect("it is the first");
    }

    fn message(&mut self, shard: &mut Shard, _: &mut Session<'_, ()>, message: Message) {
        assert_eq!(shard.publish("news", message), 2);
    }
}

#[rstest]
fn a_topic_has_sessions_and_raw_streams(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[values(10, 2048, 40_000, 500_000)] len: usize,
) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("raw");
    let listen = format!("unix:{}", path.display());
    let server = start(
        reactor,
        |_| {},
        |server| server.websocket("/", |_| Speaker).raw(&listen, |_| Listener),
    );
    let mut raw = UnixStream::connect(&path).unwrap();
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Write::write_all(&mut raw, b"?").unwrap();
    let mut heard = vec![0; 1];
    std::io::Read::read_exact(&mut raw, &mut heard).unwrap();
    let mut client = Client::open(&server, "/");
    let news: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
    client.send(Opcode::Binary, &news);
    assert!(client.read_frame().payload == news, "the session heard something else");
    heard.resize(len, 0);
    std::io::Read::read_exact(&mut raw, &mut heard).unwrap();
    assert!(heard == news, "the raw stream heard something else");
    server.stop().unwrap();
}

#[rstest]
fn a_server_that_ends_says_so(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let (factory, calls) = reporter();
    let server = start(
        reactor,
        |config| config.websocket.slow_reader = SlowReader::Close,
        |server| server.websocket("/", factory),
    );
    let _client = Client::open(&server, "/");
    server.stop().unwrap();
    let calls: Vec<_> = calls.iter().collect();
    assert_eq!(calls, [Call::Opened, Call::Closed(Closed::Shutdown)]);
}
