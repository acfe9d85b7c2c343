//! A server, a connector, and waits that have a bound.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hioload::config::{Config, ListenAddress, ReactorChoice, ShardCount};
use hioload::ws::{Client, Connect, ConnectError, Connector};
use hioload::{Handler, Message, Request, Running, Server, Session, Shard, ShardStats, Upgrade};

use crate::peer::{Line, Peer};

/// Longer than anything here takes, also on a busy machine: a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to its end, which must come before patience does.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "the future does not end");
        thread::park_timeout(left);
    }
}

/// Polls a future once.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits until something has become so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came that {what}");
        thread::yield_now();
    }
}

pub(crate) fn config(reactor: ReactorChoice, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.server.reactor = reactor;
    config.server.shards = ShardCount::Exactly(1);
    config.memory.buffers = 16;
    config.limits.connections_max = 1000;
    config.websocket.close_timeout_ms = 1000;
    change(&mut config);
    config
}

pub(crate) fn connector(reactor: ReactorChoice) -> Connector {
    Connector::start(config(reactor, |_| {})).expect("the connector starts")
}

/// An open connection; the connector may go, as long as the handle is there.
pub(crate) fn open(connector: &Connector, connect: Connect) -> Client {
    wait(connector.open(connect)).expect("it opens")
}

/// How an attempt failed that must fail.
pub(crate) fn refusal(connector: &Connector, connect: Connect) -> ConnectError {
    wait(connector.open(connect)).expect_err("it must not open")
}

/// Sends everything back; chooses the subprotocol `chat`.
pub(crate) struct Echo;

impl Handler for Echo {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<()> {
        let offers = request.header("Sec-WebSocket-Protocol").unwrap_or_default().to_owned();
        let chats = offers.split(',').any(|name| name.trim() == "chat");
        let upgrade = Upgrade::accept(());
        if chats { upgrade.subprotocol("chat") } else { upgrade }
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }
}

/// An echo server on a free port, and its URL.
pub(crate) fn echo(reactor: ReactorChoice, change: impl FnOnce(&mut Config)) -> (Running, String) {
    let server = Server::builder()
        .config(config(reactor, change))
        .listen("127.0.0.1:0")
        .websocket("/ws", |_| Echo)
        .start()
        .expect("the server starts");
    let url = format!("ws://{}/ws", address(&server));
    (server, url)
}

pub(crate) fn address(server: &Running) -> SocketAddr {
    match server.addresses() {
        [ListenAddress::Tcp(address), ..] => *address,
        other => panic!("{other:?} is no TCP address"),
    }
}

/// What the shard of a connector has counted by now.
pub(crate) fn stats(connector: &Connector) -> ShardStats {
    let (sender, answer) = mpsc::channel();
    let look = move |shard: &mut Shard| sender.send(shard.stats()).unwrap();
    connector.handle().run(look).unwrap();
    answer.recv_timeout(PATIENCE).expect("the shard lives")
}

/// Lets the shard of a connector do nothing until the sender is used or dropped.
pub(crate) fn hold(connector: &Connector) -> mpsc::Sender<()> {
    let (held, holds) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let hold = move |_: &mut Shard| {
        held.send(()).unwrap();
        let _ = released.recv_timeout(PATIENCE);
    };
    connector.handle().run(hold).unwrap();
    holds.recv_timeout(PATIENCE).expect("the shard lives");
    release
}

/// Begins to open, and answers with the future that goes on.
pub(crate) fn opening(
    connector: &Connector,
    connect: Connect,
) -> Pin<Box<dyn Future<Output = Result<Client, ConnectError>> + Send>> {
    let mut opening = Box::pin(connector.open(connect));
    assert!(poll_once(opening.as_mut()).is_pending(), "nobody has answered yet");
    opening
}

/// A handle and the other end of its connection.
pub(crate) fn pair(connector: &Connector) -> (Client, Line) {
    pair_with(connector, |connect| connect)
}

pub(crate) fn pair_with(
    connector: &Connector,
    describe: impl FnOnce(Connect) -> Connect,
) -> (Client, Line) {
    let peer = Peer::listen();
    let opening = opening(connector, describe(Connect::to(peer.url())));
    let line = peer.open();
    (wait(opening).expect("it opens"), line)
}
