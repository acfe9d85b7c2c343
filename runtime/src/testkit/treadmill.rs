//! A shard over a network that costs nothing, to measure what a message costs of ours.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hioload_pools::{Arena, BytePool, Lease, Shared, mailbox};
use hioload_protocol::http::accept_key;
use hioload_protocol::http::client::{Handshake, encode_key};
use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::{Opcode, mask::mask};

use super::bench::{arena, reactor};
use crate::Time;
use crate::config::Config;
use crate::place::ShardPlace;
use crate::reactor::sim::{Net, Peer, SimReactor};
use crate::reactor::{
    BATCH_MAX, Completion, Connection, Event, Listener, Reactor, ReactorStats, Receive, Socket,
    Token, Waker,
};
use crate::shard::{
    Handler, MAILBOX_LETTERS, Parts, Paths, Settings, ShardHandle, Turn, websocket_route,
};

const PORT: u16 = 80;
const KEY: [u8; 4] = [0x12, 0x9a, 0x5c, 0xe7];
/// As large as the receive buffers of the real reactors.
const BUFFER_BYTES: usize = 64 * 1024;

/// A shard whose sessions receive the same text message in every turn, and whose network takes what
/// they send at once and forgets it.
///
/// Between two calls of a kernel a real shard does what this one does: it reads the clock once,
/// finds the sessions, parses, unmasks, checks UTF-8, calls the handler, queues what that sends, and
/// flushes. So the time of a [`turn`](Self::turn) is the time of our own code and the handler's.
///
/// # Examples
/// ```
/// use hioload::testkit::Treadmill;
/// # use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
/// # struct Echo;
/// # impl Handler for Echo {
/// #     type Session = ();
/// #     fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
/// #         Upgrade::accept(())
/// #     }
/// #     fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
/// #         session.send(message);
/// #     }
/// # }
///
/// let mut treadmill = Treadmill::new(16, "hello, hello, hello!", |_shard| Echo);
/// treadmill.turn();
/// treadmill.turn();
/// assert_eq!(treadmill.sent_bytes(), 2 * 16 * 22);
/// ```
pub struct Treadmill {
    turn: Turn<Belt>,
}

impl Treadmill {
    /// The most sessions, as many as one turn serves.
    pub const SESSIONS_MAX: usize = BATCH_MAX;

    /// Opens `sessions` sessions, each of which receives `message` in every turn.
    ///
    /// # Panics
    /// There are more than [`SESSIONS_MAX`](Self::SESSIONS_MAX), the message does not fit into a
    /// buffer of 64 KiB, the handler refuses them, or the machine has no address space.
    #[must_use]
    pub fn new<H: Handler>(
        sessions: usize,
        message: &str,
        factory: impl FnOnce(&mut crate::Shard) -> H,
    ) -> Self {
        assert!(sessions <= Self::SESSIONS_MAX, "a turn serves fewer");
        let config = Config::default();
        let net = Net::new();
        let pool = Rc::new(arena(&config).expect("the machine has address space for a pool"));
        let belt = Belt::new(reactor(&net, &config), Rc::clone(&pool), frame(message.as_bytes()));
        let (sender, letters) = mailbox::channel(MAILBOX_LETTERS);
        let handle = ShardHandle::new(0, sender, belt.waker());
        let mut turn = Turn::new(Parts {
            reactor: belt,
            place: ShardPlace { shard: 0, cpu: 0, node: None },
            settings: Settings::from(&config),
            pool,
            letters,
            handles: Arc::new([handle]),
            seed: [0; 32],
        });
        turn.install(|shard| {
            let mut paths = Paths::default();
            paths.add_websocket("/", 0).expect("the only path");
            (vec![websocket_route(factory(shard), sessions, None)], paths)
        });
        let listener = net.listen(PORT).expect("the network is new, so the port is free");
        turn.listen(listener, None).expect("the listener is of this network");
        let mut treadmill = Self { turn };
        for _ in 0..sessions {
            treadmill.open(&net);
        }
        treadmill.turn.driver.reactor.runs = true;
        treadmill
    }

    fn open(&mut self, net: &Net) {
        let key = encode_key([0; 16]);
        let mut request = Vec::new();
        Handshake::new("treadmill.test", "/", &key)
            .write_request(&mut request)
            .expect("the handshake is valid");
        let mut peer = net.connect(PORT).expect("the shard listens");
        peer.write_all(&request).expect("there is room for a request");
        let mut response = Vec::new();
        for _ in 0..16 {
            self.turn.driver.reactor.waker().wake();
            self.turn();
            let mut bytes = [0; 512];
            if let Ok(count) = peer.read(&mut bytes) {
                response.extend_from_slice(&bytes[..count]);
            }
        }
        let accepted = accept_key(&key);
        let is_open = response.windows(accepted.len()).any(|part| part == accepted);
        assert!(is_open, "the handler refused: {}", String::from_utf8_lossy(&response));
        self.turn.driver.reactor.peers.push(peer);
    }

    /// One turn of the loop: every session receives the message, once.
    pub fn turn(&mut self) {
        self.turn.turn().expect("a belt does not break");
    }

    /// How many bytes the sessions have sent since they were all open.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.turn.driver.reactor.sent_bytes
    }
}

impl fmt::Debug for Treadmill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Treadmill").field("sent_bytes", &self.sent_bytes()).finish_non_exhaustive()
    }
}

/// What a client sends to say `message`.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let header = Header::new(true, Opcode::Text, Some(KEY), message.len() as u64);
    let len = header.encode(&mut bytes);
    let mut frame = bytes[..len].to_vec();
    frame.extend_from_slice(message);
    mask(&mut frame[len..], KEY, 0);
    assert!(frame.len() <= BUFFER_BYTES, "the message does not fit into a buffer");
    frame
}

/// The simulated reactor until every session is open, and then one that only repeats.
struct Belt {
    inner: SimReactor,
    pool: Rc<Arena>,
    frame: Vec<u8>,
    /// What is left of the buffer that is received into, as in an incremental buffer ring.
    buffer: Option<Lease>,
    /// Of the connections that were adopted.
    tokens: Vec<Token>,
    /// The other ends; they would break their connections.
    peers: Vec<Peer>,
    runs: bool,
    sent_bytes: u64,
    /// Where the clock began, which is a real one: to read it is a part of every turn.
    origin: Instant,
}

impl Belt {
    fn new(inner: SimReactor, pool: Rc<Arena>, frame: Vec<u8>) -> Self {
        Self {
            inner,
            pool,
            frame,
            buffer: None,
            tokens: Vec::new(),
            peers: Vec::new(),
            runs: false,
            sent_bytes: 0,
            origin: Instant::now(),
        }
    }

    /// A window with the frame in it.
    fn received(&mut self) -> Lease {
        let len = self.frame.len();
        let mut buffer = match self.buffer.take() {
            Some(buffer) if buffer.len() >= len => buffer,
            _ => self.pool.acquire(BUFFER_BYTES, BUFFER_BYTES).expect("what is sent is dropped"),
        };
        let mut window = buffer.split_to(len);
        self.buffer = (!buffer.is_empty()).then_some(buffer);
        window.copy_from_slice(&self.frame);
        window
    }
}

impl Reactor for Belt {
    fn name(&self) -> &'static str {
        "treadmill"
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.origin.elapsed())
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn listen(&mut self, listener: Listener, token: Token) -> io::Result<Socket> {
        self.inner.listen(listener, token)
    }

    fn accept(&mut self, listener: Socket, armed: bool) {
        self.inner.accept(listener, armed);
    }

    fn adopt(&mut self, connection: Connection, token: Token) -> io::Result<Socket> {
        self.tokens.push(token);
        self.inner.adopt(connection, token)
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> io::Result<Socket> {
        self.inner.connect(address, token)
    }

    fn receive(&mut self, socket: Socket, mode: Receive) {
        self.inner.receive(socket, mode);
    }

    fn send<I: IntoIterator<Item = Shared>>(&mut self, socket: Socket, segments: I) {
        if !self.runs {
            return self.inner.send(socket, segments);
        }
        for segment in segments {
            self.sent_bytes += segment.len() as u64;
        }
    }

    fn shutdown(&mut self, socket: Socket) {
        self.inner.shutdown(socket);
    }

    fn close(&mut self, socket: Socket) {
        self.inner.close(socket);
    }

    fn release(&mut self, socket: Socket) {
        self.inner.release(socket);
    }

    fn peer_address(&self, socket: Socket) -> Option<SocketAddr> {
        self.inner.peer_address(socket)
    }

    fn local_address(&self, socket: Socket) -> Option<SocketAddr> {
        self.inner.local_address(socket)
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        if !self.runs {
            return self.inner.wait(timeout, batch);
        }
        for index in 0..self.tokens.len() {
            let event = Event::Received(self.received());
            batch.push(Completion { token: self.tokens[index], event });
        }
        Ok(())
    }

    fn stats(&self) -> ReactorStats {
        self.inner.stats()
    }
}
