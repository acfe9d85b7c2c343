//! A peer without mercy: it sends exactly the bytes it is told, and waits for what must come.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use hioload::config::{Config, ListenAddress, ReactorChoice, ShardCount};
use hioload::iproto::{
    Body, CallError, Channel, Closed, Connect, HEADER_BYTES, Handler, Header, Mux, Peer as Who,
    Request, Session,
};
use hioload::ws::{Connector, block_on};
use hioload::{Running, Server, Shard, ShardHandle};

/// Longer than anything here takes, also on a busy machine: a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port, with one shard.
pub(crate) fn start<H: Handler>(
    reactor: ReactorChoice,
    change: impl FnOnce(&mut Config),
    factory: impl Fn(&mut Shard) -> H + Send + Sync + 'static,
) -> Running {
    let builder = Server::builder().configure(|config| {
        config.server.reactor = reactor;
        config.server.shards = ShardCount::Exactly(1);
        config.memory.buffers = 16;
        // Most tests stop the server under the eyes of peers that say nothing to that.
        config.iproto.shutdown_timeout_ms = 100;
        config.websocket.close_timeout_ms = 100;
        change(config);
    });
    builder.iproto("127.0.0.1:0", factory).start().expect("the server starts")
}

/// Sends every body back.
pub(crate) fn echo(_: &mut Shard) -> Mux {
    Mux::new().default(|_, session, request| {
        session.reply(request.reply, request.body);
    })
}

pub(crate) fn address(server: &Running) -> SocketAddr {
    match server.raw_addresses() {
        [ListenAddress::Tcp(address), ..] => *address,
        other => panic!("{other:?} is no TCP address"),
    }
}

/// Runs a function on the server's only shard.
pub(crate) fn ask<T: Send + 'static>(
    server: &Running,
    look: impl FnOnce(&mut Shard) -> T + Send + 'static,
) -> T {
    ask_shard(&server.handles()[0], look)
}

/// Runs a function on a shard.
pub(crate) fn ask_shard<T: Send + 'static>(
    handle: &ShardHandle,
    look: impl FnOnce(&mut Shard) -> T + Send + 'static,
) -> T {
    let (sender, answer) = mpsc::channel();
    let task = move |shard: &mut Shard| sender.send(look(shard)).expect("the test listens");
    handle.run(task).expect("the mailbox has room");
    answer.recv_timeout(PATIENCE).expect("the shard answers")
}

/// A channel whose server is the test itself.
pub(crate) fn channel_to_the_test(
    reactor: ReactorChoice,
    change: impl FnOnce(&mut Config),
) -> (Connector, Channel, Peer) {
    let mut config = Config::default();
    config.server.reactor = reactor;
    config.memory.buffers = 16;
    config.iproto.shutdown_timeout_ms = 100;
    config.shutdown.drain_ms = 500;
    change(&mut config);
    let connector = Connector::start(config).expect("the shard starts");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = Connect::to(listener.local_addr().unwrap().to_string()).timeout(PATIENCE);
    let channel = block_on(connect.open_on(&connector)).expect("the listener accepts");
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (connector, channel, Peer { stream })
}

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) msg: u32,
    pub(crate) sync: u32,
    pub(crate) body: Vec<u8>,
}

/// The bytes of a packet.
pub(crate) fn packet(msg: u32, sync: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    hioload::iproto::append_packet(&mut bytes, msg, sync, body).unwrap();
    bytes
}

/// One side of a connection to the server under test.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
}

impl Peer {
    pub(crate) fn connect(server: &Running) -> Self {
        let stream = TcpStream::connect(address(server)).expect("the server accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    pub(crate) fn send(&mut self, msg: u32, sync: u32, body: &[u8]) {
        self.write(&packet(msg, sync, body));
    }

    /// The next packet.
    pub(crate) fn read(&mut self) -> Packet {
        self.try_read().expect("a packet")
    }

    /// The next packet; `None` if the connection ends before it does.
    pub(crate) fn try_read(&mut self) -> Option<Packet> {
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header)?;
        let Header { msg, len, sync } = Header::decode(&header);
        let mut body = vec![0; len as usize];
        self.fill(&mut body)?;
        Some(Packet { msg, sync, body })
    }

    /// Asks and waits for the answer.
    pub(crate) fn call(&mut self, msg: u32, sync: u32, body: &[u8]) -> Vec<u8> {
        self.send(msg, sync, body);
        let answer = self.read();
        assert_eq!((answer.msg, answer.sync), (msg, sync));
        answer.body
    }

    /// Waits for the end of the connection, and passes over what comes before it.
    pub(crate) fn read_to_end(&mut self) {
        while self.try_read().is_some() {}
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => None,
                _ => panic!("nothing comes: {error}"),
            },
        }
    }
}

/// What a [`Recorder`] was told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Notify(u32, Vec<u8>),
    Answered(u64, Result<Vec<u8>, CallError>),
    Shutdown,
    Closed(Closed),
}

/// A handler that answers as its function says, and tells the test of everything else.
pub(crate) struct Recorder<F>(pub(crate) F, pub(crate) mpsc::Sender<Told>);

impl<F> Recorder<F> {
    fn tell(&self, told: Told) {
        // A test that has ended does not listen.
        let _ = self.1.send(told);
    }
}

impl<F> Handler for Recorder<F>
where
    F: FnMut(&mut Shard, &mut Session<'_, ()>, Request) + 'static,
{
    type Session = ();

    fn accept(&mut self, _: &mut Shard, peer: &Who<'_>) -> Option<()> {
        peer.address().map(|_| ())
    }

    fn request(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        (self.0)(shard, session, request);
    }

    fn notify(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, msg: u32, body: Body) {
        self.tell(Told::Notify(msg, body.to_vec()));
    }

    fn answered(
        &mut self,
        _: &mut Shard,
        _: &mut Session<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        self.tell(Told::Answered(token, response.map(|body| body.to_vec())));
    }

    fn shutdown(&mut self, _: &mut Shard, _: &mut Session<'_, ()>) {
        self.tell(Told::Shutdown);
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        self.tell(Told::Closed(reason));
    }
}

/// A server with a [`Recorder`] that answers like `answer`.
pub(crate) fn record<F>(
    reactor: ReactorChoice,
    change: impl FnOnce(&mut Config),
    answer: F,
) -> (Running, mpsc::Receiver<Told>)
where
    F: FnMut(&mut Shard, &mut Session<'_, ()>, Request) + Clone + Send + Sync + 'static,
{
    let (tell, told) = mpsc::channel();
    (start(reactor, change, move |_| Recorder(answer.clone(), tell.clone())), told)
}

pub(crate) fn next(told: &mpsc::Receiver<Told>) -> Told {
    told.recv_timeout(PATIENCE).expect("the handler is told")
}
