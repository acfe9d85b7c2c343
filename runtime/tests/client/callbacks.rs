//! Connections served by callbacks on a shard, over real sockets.

use std::sync::mpsc;
use std::time::Duration;

use hioload::config::{ReactorChoice, ShardCount};
use hioload::ws::{ClientHandler, ClientId, Connect, ConnectError, Connector, Opened, Reconnect};
use hioload::{CloseCode, Closed, Message, Session, Shard};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::peer::Peer;
use crate::support::{PATIENCE, connector, echo, stats, until, wait};

/// What a handler was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Opened(u32, Option<String>),
    Message(String),
    Closed(Closed),
    Failed(String),
    Reconnecting(u32),
    Dropped,
}

struct Teller(mpsc::Sender<Told>);

impl Drop for Teller {
    fn drop(&mut self) {
        let _ = self.0.send(Told::Dropped);
    }
}

impl Teller {
    fn tell(&self, told: Told) {
        let _ = self.0.send(told);
    }
}

impl ClientHandler for Teller {
    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, opened: &Opened) {
        assert_eq!(session.subprotocol(), opened.subprotocol.as_deref());
        self.tell(Told::Opened(opened.generation, opened.subprotocol.clone()));
        session.send_text("hello");
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        let text = message.text().unwrap_or_default().to_owned();
        match &*text {
            "panic" => panic!("it was asked to"),
            "leave" => session.close(CloseCode::NORMAL, "asked to"),
            _ => self.tell(Told::Message(text)),
        }
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        self.tell(Told::Closed(reason));
    }

    fn failed(&mut self, _: &mut Shard, error: &ConnectError) {
        self.tell(Told::Failed(error.to_string()));
    }

    fn reconnecting(&mut self, _: &mut Shard, attempt: u32, _: Duration) {
        self.tell(Told::Reconnecting(attempt));
    }
}

struct Told1 {
    told: mpsc::Receiver<Told>,
    id: ClientId,
}

impl Told1 {
    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("the handler is told something")
    }
}

fn connect(connector: &Connector, connect: Connect) -> Told1 {
    let (sender, told) = mpsc::channel();
    let (ids, id) = mpsc::channel();
    let begin = move |shard: &mut Shard| {
        ids.send(shard.connect(connect, Teller(sender))).unwrap();
    };
    connector.handle().run(begin).unwrap();
    Told1 { told, id: id.recv_timeout(PATIENCE).unwrap() }
}

#[rstest]
fn a_handler_is_told_what_happens(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    let client = connect(&connector, Connect::to(&url).subprotocol("chat"));
    assert_eq!(client.next(), Told::Opened(1, Some("chat".to_owned())));
    assert_eq!(client.next(), Told::Message("hello".to_owned()));
    let id = client.id;
    connector.handle().run(move |shard| shard.close_client(id, CloseCode::NORMAL)).unwrap();
    assert_eq!(client.next(), Told::Closed(Closed::ByHandler(CloseCode::NORMAL)));
    assert_eq!(client.next(), Told::Dropped);
    until("the socket is gone", || stats(&connector).connections == 0);
    server.stop().unwrap();
}

#[rstest]
fn a_handler_is_told_of_a_failure_and_dropped(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let wrong = connect(&connector, Connect::to("http://a.example/"));
    assert!(matches!(wrong.next(), Told::Failed(why) if why.contains("scheme")));
    assert_eq!(wrong.next(), Told::Dropped);
    let nobody = connect(&connector, Connect::to("ws://127.0.0.1:1/"));
    assert!(matches!(nobody.next(), Told::Failed(why) if why.contains("127.0.0.1:1")));
    assert_eq!(nobody.next(), Told::Dropped);
}

#[rstest]
fn a_panic_costs_one_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    // Not even this is tried again.
    let rule = Reconnect::default().first(Duration::from_millis(1));
    let clients = [(); 2].map(|()| connect(&connector, Connect::to(peer.url()).reconnect(rule)));
    let mut lines = [(); 2].map(|()| peer.open());
    for client in &clients {
        assert!(matches!(client.next(), Told::Opened(1, None)));
    }
    for line in &mut lines {
        assert_eq!(line.read_frame().payload, b"hello");
    }
    lines[0].send(Opcode::Text, b"panic");
    assert_eq!(lines[0].read_close(), 1011);
    lines[0].finish(1011);
    lines[1].send(Opcode::Text, b"you live");
    let told: Vec<Told> = clients.iter().map(Told1::next).collect();
    assert!(told.contains(&Told::Closed(Closed::Panicked)), "{told:?}");
    assert!(told.contains(&Told::Message("you live".to_owned())), "{told:?}");
    assert_eq!(stats(&connector).counters.panics, 1);
}

#[rstest]
fn a_handler_that_leaves_is_not_connected_again(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let rule = Reconnect::default().first(Duration::from_millis(1));
    let client = connect(&connector, Connect::to(peer.url()).reconnect(rule));
    drop(peer.open());
    assert_eq!(client.next(), Told::Opened(1, None));
    assert_eq!(client.next(), Told::Closed(Closed::Lost));
    assert_eq!(client.next(), Told::Reconnecting(1));
    let mut line = peer.open();
    assert_eq!(client.next(), Told::Opened(2, None));
    line.send(Opcode::Text, b"leave");
    assert_eq!(line.read_frame().payload, b"hello");
    assert_eq!(line.read_close(), 1000);
    line.finish(1000);
    assert_eq!(client.next(), Told::Closed(Closed::ByHandler(CloseCode::NORMAL)));
    assert_eq!(client.next(), Told::Dropped);
}

#[rstest]
fn an_attempt_can_be_cancelled(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let client = connect(&connector, Connect::to(peer.url()));
    let mut line = peer.accept();
    let id = client.id;
    connector.handle().run(move |shard| shard.close_client(id, CloseCode::NORMAL)).unwrap();
    line.expect_end();
    assert_eq!(client.next(), Told::Dropped);

    let patient = Reconnect::default().first(Duration::from_secs(3600)).max(Duration::MAX);
    let client = connect(&connector, Connect::to("ws://127.0.0.1:1/").reconnect(patient));
    assert!(matches!(client.next(), Told::Failed(_)));
    assert_eq!(client.next(), Told::Reconnecting(1));
    let id = client.id;
    connector.handle().run(move |shard| shard.close_client(id, CloseCode::NORMAL)).unwrap();
    assert_eq!(client.next(), Told::Dropped);
}

#[rstest]
fn another_shard_may_close_it(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |config| config.server.shards = ShardCount::Exactly(2));
    let (sender, told) = mpsc::channel();
    let (ids, id) = mpsc::channel();
    let begin = move |shard: &mut Shard| {
        ids.send(shard.connect(Connect::to(&url), Teller(sender))).unwrap();
    };
    server.handles()[0].run(begin).unwrap();
    let client = Told1 { told, id: id.recv_timeout(PATIENCE).unwrap() };
    assert_eq!(client.next(), Told::Opened(1, None));
    assert_eq!(client.next(), Told::Message("hello".to_owned()));
    let id = client.id;
    server.handles()[1].run(move |shard| shard.close_client(id, CloseCode::NORMAL)).unwrap();
    assert_eq!(client.next(), Told::Closed(Closed::ByHandler(CloseCode::NORMAL)));
    assert_eq!(client.next(), Told::Dropped);
    server.stop().unwrap();
}

#[rstest]
fn places_of_clients_are_used_again(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    let mut seen = Vec::new();
    for _ in 0..20 {
        let client = connect(&connector, Connect::to(&url));
        assert_eq!(client.next(), Told::Opened(1, None));
        assert_eq!(client.next(), Told::Message("hello".to_owned()));
        let id = client.id;
        connector.handle().run(move |shard| shard.close_client(id, CloseCode::NORMAL)).unwrap();
        assert_eq!(client.next(), Told::Closed(Closed::ByHandler(CloseCode::NORMAL)));
        assert_eq!(client.next(), Told::Dropped);
        assert!(!seen.contains(&id), "an id is never used again");
        seen.push(id);
    }
    server.stop().unwrap();
}

#[rstest]
fn a_future_on_the_shard_opens_a_connection_there(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    let (sender, answer) = mpsc::channel();
    let begin = move |shard: &mut Shard| {
        let opening = shard.open(Connect::to(&url));
        let talk = async move {
            let mut client = opening.await.unwrap();
            client.send("from the shard").await.unwrap();
            let message = client.next().await.unwrap().unwrap();
            client.close(CloseCode::NORMAL, "").await;
            sender.send(message).unwrap();
        };
        shard.spawn(talk).detach();
    };
    connector.handle().run(begin).unwrap();
    let message = answer.recv_timeout(PATIENCE).expect("it comes back");
    assert_eq!(message.text(), Some("from the shard"));
    wait(async {});
    server.stop().unwrap();
}

/// On which CPUs the calling thread may run.
fn cpus() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list"));
    line.expect("the kernel says so").to_owned()
}

#[test]
fn what_a_pinned_shard_starts_is_not_pinned() {
    let reactor = ReactorChoice::Epoll;
    let all = cpus();
    let (server, _) = echo(reactor, |config| config.server.pin = true);
    let (sender, answers) = mpsc::channel();
    let start = move |_: &mut Shard| {
        let connector = connector(reactor);
        sender.send(cpus()).unwrap();
        connector.handle().run(move |_| sender.send(cpus()).unwrap()).unwrap();
    };
    server.handles()[0].run(start).unwrap();
    let [pinned, started] = [(); 2].map(|()| answers.recv_timeout(PATIENCE).unwrap());
    // A machine with one CPU has no more to tell.
    assert!(!pinned.contains(['-', ',']), "{pinned}");
    assert_eq!(started, all);
    server.stop().unwrap();
}
