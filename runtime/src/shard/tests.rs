//! What the loop promises about memory, seen from inside: payloads are not copied, and shards
//! share nothing.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hioload_pools::{Arena, ArenaConfig, BytePool, Shared, mailbox};
use hioload_protocol::ws::frame::Header;
use hioload_protocol::ws::{Opcode, mask::mask};
use rstest::rstest;

use super::settings::Settings;
use super::turn::{Parts, Turn};
use super::{
    Closed, Handler, Message, Paths, Request, Session, Shard, ShardHandle, Upgrade, websocket_route,
};
use crate::Time;
use crate::config::Config;
use crate::place::ShardPlace;
use crate::reactor::epoll::{Epoll, EpollConfig};
use crate::reactor::uring::{Uring, UringConfig};
use crate::reactor::{
    Completion, Connection, Event, Listener, Reactor, ReactorStats, Receive, Socket, Token, Waker,
};

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }
}

/// A reactor that writes down where bytes arrived and from where they were sent.
struct Recording<R> {
    inner: R,
    received: Vec<Range<usize>>,
    sent: Vec<Range<usize>>,
    /// Whether every wait is to fail.
    broken: bool,
}

impl<R> Recording<R> {
    fn of(inner: R) -> Self {
        Self { inner, received: Vec::new(), sent: Vec::new(), broken: false }
    }
}

fn range(bytes: &[u8]) -> Range<usize> {
    let start = bytes.as_ptr() as usize;
    start..start + bytes.len()
}

impl<R: Reactor> Reactor for Recording<R> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn now(&self) -> Time {
        self.inner.now()
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn listen(&mut self, listener: Listener, token: Token) -> std::io::Result<Socket> {
        self.inner.listen(listener, token)
    }

    fn accept(&mut self, listener: Socket, armed: bool) {
        self.inner.accept(listener, armed);
    }

    fn adopt(&mut self, connection: Connection, token: Token) -> std::io::Result<Socket> {
        self.inner.adopt(connection, token)
    }

    fn connect(&mut self, address: SocketAddr, token: Token) -> std::io::Result<Socket> {
        self.inner.connect(address, token)
    }

    fn receive(&mut self, socket: Socket, mode: Receive) {
        self.inner.receive(socket, mode);
    }

    fn send<I: IntoIterator<Item = Shared>>(&mut self, socket: Socket, segments: I) {
        let sent = &mut self.sent;
        let noted = segments.into_iter().inspect(|segment| sent.push(range(segment)));
        self.inner.send(socket, noted);
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

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        batch: &mut Vec<Completion>,
    ) -> std::io::Result<()> {
        if self.broken {
            return Err(std::io::Error::other("it was told to break"));
        }
        self.inner.wait(timeout, batch)?;
        self.received.extend(batch.iter().filter_map(|completion| match &completion.event {
            Event::Received(lease) => Some(range(lease)),
            Event::ReceivedInto { lease, filled } => Some(range(&lease[..*filled])),
            _ => None,
        }));
        Ok(())
    }

    fn stats(&self) -> ReactorStats {
        self.inner.stats()
    }
}

fn turn_over<R: Reactor>(reactor: R, pool: Arena) -> (Turn<R>, SocketAddr) {
    let (sender, letters) = mailbox::channel(16);
    let handle = ShardHandle::new(0, sender, reactor.waker());
    let mut turn = Turn::new(Parts {
        reactor,
        place: ShardPlace { shard: 0, cpu: 0, node: None },
        settings: Settings::from(&Config::default()),
        pool: Rc::new(pool),
        letters,
        handles: Arc::new([handle]),
        seed: [1; 32],
    });
    turn.install(|_| {
        let mut paths = Paths::default();
        paths.add_websocket("/", 0).unwrap();
        (vec![websocket_route(Echo, 100, None)], paths)
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    turn.listen(listener.into(), None).unwrap();
    (turn, address)
}

/// One turn that does not sleep: what is to be sent leaves with the next one.
fn turn_awake<R: Reactor>(turn: &mut Turn<R>) {
    turn.driver.reactor.waker().wake();
    turn.turn().unwrap();
}

fn pool() -> Arena {
    Arena::new(ArenaConfig { capacity_bytes: 64 << 20, ..ArenaConfig::default() }).unwrap()
}

/// A client that has read its 101.
fn open<R: Reactor>(turn: &mut Turn<R>, address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_nonblocking(true).unwrap();
    let hello = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client.write_all(hello.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        turn_awake(turn);
        let mut bytes = [0; 1024];
        if let Ok(count) = client.read(&mut bytes) {
            answer.extend_from_slice(&bytes[..count]);
        }
    }
    client
}

/// Echoes one message of `len` bytes that is written before the loop looks at it, and answers
/// with where it arrived and from where it was sent.
fn echo_once<R: Reactor>(
    reactor: R,
    pool: Arena,
    len: usize,
) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let (mut turn, address) = turn_over(Recording::of(reactor), pool);
    let mut client = open(&mut turn, address);
    turn.driver.reactor.received.clear();
    turn.driver.reactor.sent.clear();

    let mut frame = vec![0; 14];
    let key = [1, 2, 3, 4];
    let header = Header::new(true, Opcode::Binary, Some(key), len as u64);
    let header_len = header.encode((&mut frame[..14]).try_into().unwrap());
    frame.truncate(header_len);
    frame.extend((0..len).map(|index| index as u8));
    mask(&mut frame[header_len..], key, 0);

    let echo_len = Header::new(true, Opcode::Binary, None, len as u64).encoded_len() + len;
    let (mut written, mut echo) = (0, Vec::new());
    let mut chunk = vec![0; 1 << 20];
    while echo.len() < echo_len {
        // At first as much as a buffer holds, so that the loop has seen the header before the rest
        // is there; a receive that finds everything takes everything.
        let end = if echo.is_empty() && written < FIRST_BYTES { FIRST_BYTES } else { frame.len() };
        while let Ok(count @ 1..) = client.write(&frame[written..end.min(frame.len())]) {
            written += count;
        }
        turn_awake(&mut turn);
        while let Ok(count @ 1..) = client.read(&mut chunk) {
            echo.extend_from_slice(&chunk[..count]);
        }
    }
    let payload = &echo[echo_len - len..];
    assert!(payload.iter().enumerate().all(|(index, byte)| *byte == index as u8));
    let Recording { received, sent, .. } = &turn.driver.reactor;
    (received.clone(), sent.clone())
}

/// What is written before the loop looks for the first time.
const FIRST_BYTES: usize = 60_000;

#[derive(Clone, Copy)]
enum Which {
    Uring,
    Epoll,
}

fn echo_on(which: Which, len: usize) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let pool = pool();
    match which {
        Which::Uring => {
            let reactor = Uring::new(UringConfig::new(pool.clone())).unwrap();
            echo_once(reactor, pool, len)
        }
        Which::Epoll => {
            let reactor = Epoll::new(EpollConfig::new(pool.clone())).unwrap();
            echo_once(reactor, pool, len)
        }
    }
}

#[rstest]
#[case::uring(Which::Uring)]
#[case::epoll(Which::Epoll)]
fn a_message_that_fills_half_a_buffer_is_sent_from_where_it_arrived(#[case] which: Which) {
    let (received, sent) = echo_on(which, 40_000);
    assert_eq!(received.len(), 1, "it arrived whole");
    assert_eq!(sent.len(), 1, "it left as one segment");
    // The client's header has 8 bytes, the server's 4: both stand right in front of the payload.
    assert_eq!(received[0].start + 8, sent[0].start + 4);
    assert_eq!(received[0].end, sent[0].end);
}

#[rstest]
#[case::uring(Which::Uring)]
#[case::epoll(Which::Epoll)]
fn the_rest_of_a_large_message_is_received_where_it_is_sent_from(#[case] which: Which) {
    let len = 1 << 20;
    let (received, sent) = echo_on(which, len);
    let payload = sent.iter().find(|segment| segment.len() == len).expect("one segment");
    let inside =
        received.iter().filter(|part| part.start >= payload.start && part.end <= payload.end);
    let direct: usize = inside.map(|part| part.len()).sum();
    // What came before the header was read went through receive buffers.
    assert!(len - direct <= 2 * FIRST_BYTES, "only {direct} of {len} bytes arrived in place");
}

/// How many bytes leave in each turn, from the first to the last in which some do, if as many
/// clients have each written 128 messages of 50 bytes before the loop looks.
fn answers_by_turn<R: Reactor>(reactor: R, pool: Arena, clients: usize) -> Vec<usize> {
    let (mut turn, address) = turn_over(Recording::of(reactor), pool);
    let header = Header::new(true, Opcode::Binary, Some([0; 4]), 50);
    let mut frame = [0; 14];
    let len = header.encode(&mut frame);
    let messages = [&frame[..len], &[7; 50]].concat().repeat(128);
    let mut streams: Vec<_> = (0..clients).map(|_| open(&mut turn, address)).collect();
    for stream in &mut streams {
        stream.write_all(&messages).unwrap();
    }
    let mut by_turn = Vec::new();
    while by_turn.iter().sum::<usize>() < clients * 128 * 52 {
        turn.driver.reactor.sent.clear();
        turn_awake(&mut turn);
        by_turn.push(turn.driver.reactor.sent.iter().map(ExactSizeIterator::len).sum());
    }
    by_turn.into_iter().skip_while(|sent| *sent == 0).collect()
}

#[rstest]
#[case::alone(1, &[64 * 52, 64 * 52])]
#[case::beside_another(2, &[2 * 128 * 52])]
fn half_of_a_long_window_is_answered_before_the_rest_is_read(
    #[values(Which::Uring, Which::Epoll)] which: Which,
    #[case] clients: usize,
    #[case] expected: &[usize],
) {
    let pool = pool();
    let by_turn = match which {
        Which::Uring => {
            let reactor = Uring::new(UringConfig::new(pool.clone())).unwrap();
            answers_by_turn(reactor, pool, clients)
        }
        Which::Epoll => {
            let reactor = Epoll::new(EpollConfig::new(pool.clone())).unwrap();
            answers_by_turn(reactor, pool, clients)
        }
    };
    assert_eq!(by_turn, expected);
}

/// Notes how its sessions end.
struct Mourner(Rc<RefCell<Vec<Closed>>>);

impl Handler for Mourner {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, reason: Closed) {
        self.0.borrow_mut().push(reason);
    }
}

#[test]
fn handlers_are_told_when_the_reactor_breaks() {
    let pool = pool();
    let inner = Epoll::new(EpollConfig::new(pool.clone())).unwrap();
    let (mut turn, address) = turn_over(Recording::of(inner), pool);
    let ends = Rc::new(RefCell::new(Vec::new()));
    turn.install(|_| {
        let mut paths = Paths::default();
        paths.add_websocket("/", 0).unwrap();
        (vec![websocket_route(Mourner(Rc::clone(&ends)), 100, None)], paths)
    });
    let _clients = [open(&mut turn, address), open(&mut turn, address)];
    turn.driver.reactor.broken = true;
    assert_eq!(turn.run().unwrap_err().to_string(), "it was told to break");
    assert_eq!(*ends.borrow(), [Closed::Lost, Closed::Lost]);
}

#[test]
fn the_types_of_a_shard_cannot_leave_their_thread() {
    trait NotSend<Marker> {
        fn is_not_send() {}
    }
    struct Invalid;
    impl<T: ?Sized> NotSend<()> for T {}
    impl<T: ?Sized + Send> NotSend<Invalid> for T {}
    // Each line compiles only if the type is not `Send`: otherwise both impls apply.
    <Shard as NotSend<_>>::is_not_send();
    <Session<'static, ()> as NotSend<_>>::is_not_send();
    <Message as NotSend<_>>::is_not_send();
    <Turn<Epoll> as NotSend<_>>::is_not_send();
    <Turn<Uring> as NotSend<_>>::is_not_send();
    <Arena as NotSend<_>>::is_not_send();
}

/// The memory that a shard writes to while it serves.
fn regions<R: Reactor>(turn: &Turn<R>, pool: &Arena) -> Vec<Range<usize>> {
    fn of<T>(value: &T) -> Range<usize> {
        let start = std::ptr::from_ref(value) as usize;
        start..start + size_of::<T>()
    }
    let mut regions = vec![of(turn), of(&turn.driver.shard), of(&turn.driver.egress)];
    regions.extend(turn.entries.iter().map(of));
    let lease = pool.acquire(1 << 20, 1 << 20).unwrap();
    regions.push(range(&lease));
    regions
}

#[test]
fn two_shards_write_to_no_common_cache_line() {
    // Both live until both have looked: memory that one gave back the other may be given.
    let both = std::sync::Barrier::new(2);
    let shard = || {
        let pool = pool();
        let reactor = Epoll::new(EpollConfig::new(pool.clone())).unwrap();
        let (mut turn, address) = turn_over(reactor, pool.clone());
        let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
        while turn.entries.iter().count() < clients.len() {
            turn_awake(&mut turn);
        }
        let regions = regions(&turn, &pool);
        both.wait();
        regions
    };
    let (one, other) = std::thread::scope(|scope| {
        let threads = [scope.spawn(shard), scope.spawn(shard)];
        let [one, other] = threads.map(|thread| thread.join().unwrap());
        (one, other)
    });
    // Pairs of lines: the hardware fetches 128 bytes at once.
    let lines = |regions: &[Range<usize>]| -> std::collections::HashSet<usize> {
        regions.iter().flat_map(|region| region.start / 128..=(region.end - 1) / 128).collect()
    };
    assert_eq!(lines(&one).intersection(&lines(&other)).count(), 0);
}
