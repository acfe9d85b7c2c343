//! A reactor that is driven from one thread together with its peers: turn by turn, until what a
//! case waits for has happened or its time is over.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hioload::reactor::{
    BATCH_MAX, Completion, Connection, Event, Reactor, ReactorStats, Receive, Socket, Token,
};
use hioload_pools::{Arena, BLOCK_BYTES_MIN, BytePool, Lease};

use crate::bed::{Bed, POOL_BYTES, token};
use crate::peer::Peer;
use crate::rigs::AnyReactor;

/// The token of a host's own listener.
pub(crate) const LISTENER: Token = Token(1);

/// After this time a case has failed: far more than any takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The timeout of one turn.
const TURN: Duration = Duration::from_millis(1);
/// Turns in which nothing may come before it counts as silence.
const SILENT_TURNS: usize = 10;

pub(crate) struct Host<'a> {
    pub(crate) bed: &'a Bed,
    pub(crate) reactor: AnyReactor,
    pub(crate) listener: Socket,
    pub(crate) address: SocketAddr,
    /// Where the reactor's memory comes from.
    pool: Arena,
    /// What was taken of it so that nothing is left.
    hoard: Vec<Lease>,
    /// What was completed and nobody asked for yet.
    pub(crate) queue: VecDeque<Completion>,
    batch: Vec<Completion>,
    opened: u64,
}

/// A connection between a host and a peer.
pub(crate) struct Line {
    pub(crate) peer: Peer,
    pub(crate) socket: Socket,
    pub(crate) token: Token,
}

impl<'a> Host<'a> {
    pub(crate) fn new(
        bed: &'a Bed,
        pool: Arena,
        reactor: AnyReactor,
        listener: Socket,
        address: SocketAddr,
    ) -> Self {
        let (hoard, queue, batch) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { bed, reactor, listener, address, pool, hoard, queue, batch, opened: 0 }
    }

    /// Takes all that is left of the reactor's memory, so that it has its buffers and no more.
    pub(crate) fn exhaust_pool(&mut self) {
        let mut bytes = POOL_BYTES;
        while bytes >= BLOCK_BYTES_MIN {
            match self.pool.acquire(bytes, bytes) {
                Some(lease) => self.hoard.push(lease),
                None => bytes /= 2,
            }
        }
    }

    /// A connection that receives nothing yet.
    pub(crate) fn open_paused(&mut self) -> Line {
        let peer = self.bed.connect(self.address).unwrap();
        self.take_in(peer)
    }

    /// A connection that receives into the reactor's buffers.
    pub(crate) fn open(&mut self) -> Line {
        let line = self.open_paused();
        self.reactor.receive(line.socket, Receive::Pool);
        line
    }

    /// A connection whose peer takes next to nothing before it reads.
    pub(crate) fn open_narrow(&mut self) -> Line {
        let peer = self.bed.connect_narrow(self.address);
        let line = self.take_in(peer);
        self.reactor.receive(line.socket, Receive::Pool);
        line
    }

    fn take_in(&mut self, peer: Peer) -> Line {
        let connection = self.accepted();
        let token = token(self.opened);
        self.opened += 1;
        let socket = self.reactor.adopt(connection, token).unwrap();
        Line { peer, socket, token }
    }

    /// One wait; answers how many completions it brought.
    pub(crate) fn turn(&mut self) -> usize {
        self.wait(Some(TURN))
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> usize {
        self.reactor.wait(timeout, &mut self.batch).unwrap();
        let count = self.batch.len();
        let is_blocked =
            |completion: &&Completion| matches!(completion.event, Event::SendBlocked(_));
        let bounded = count - self.batch.iter().filter(is_blocked).count();
        assert!(bounded <= BATCH_MAX, "a batch of {bounded}");
        for completion in &self.batch {
            match &completion.event {
                Event::Received(lease) => assert!(!lease.is_empty(), "zero bytes were delivered"),
                Event::ReceivedInto { filled, .. } => assert_ne!(*filled, 0, "nothing was filled"),
                _ => {}
            }
        }
        self.queue.extend(self.batch.drain(..));
        count
    }

    /// Turns until there is an answer.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "in vain: {what}; there is {:?}", self.queue);
            self.turn();
        }
    }

    /// The next event of a socket.
    pub(crate) fn next(&mut self, token: Token) -> Event {
        self.until("an event", |host| host.queued(token))
    }

    /// The next event of a socket, if it is there already.
    pub(crate) fn queued(&mut self, token: Token) -> Option<Event> {
        let at = self.queue.iter().position(|completion| completion.token == token)?;
        self.queue.remove(at).map(|completion| completion.event)
    }

    pub(crate) fn accepted(&mut self) -> Connection {
        match self.next(LISTENER) {
            Event::Accepted(connection) => connection,
            other => panic!("{other:?} instead of an accept"),
        }
    }

    /// Turns for a while, in which nothing may happen.
    pub(crate) fn stays_silent(&mut self) {
        for _ in 0..SILENT_TURNS {
            self.turn();
        }
        assert!(self.queue.is_empty(), "{:?}", self.queue);
    }

    /// Turns until `count` bytes were received, which are then returned; gives leases back at once.
    pub(crate) fn receives(&mut self, token: Token, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.next(token) {
                Event::Received(lease) => bytes.extend_from_slice(&lease),
                other => panic!("{other:?} instead of bytes"),
            }
        }
        bytes
    }

    /// What the peer writes and the reactor receives, both at once.
    pub(crate) fn carries(&mut self, line: &mut Line, bytes: &[u8]) -> Vec<u8> {
        let (mut written, mut received) = (0, Vec::new());
        self.until("all of it", |host| {
            written += write_some(&mut line.peer, &bytes[written..]);
            while let Some(event) = host.queued(line.token) {
                match event {
                    Event::Received(lease) => received.extend_from_slice(&lease),
                    other => panic!("{other:?} instead of bytes"),
                }
            }
            (received.len() >= bytes.len()).then_some(())
        });
        received
    }

    /// Turns until the peer has read `count` bytes.
    pub(crate) fn peer_reads(&mut self, peer: &mut Peer, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.until("bytes at the peer", |_| {
            let has_ended = read_some(peer, &mut bytes);
            assert!(!has_ended || bytes.len() >= count, "it ended after {} bytes", bytes.len());
            (bytes.len() >= count).then_some(())
        });
        bytes
    }

    /// Turns until the peer has read to the end, be that FIN or RST.
    pub(crate) fn peer_reads_to_end(&mut self, peer: &mut Peer) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.until("the end at the peer", |_| read_some(peer, &mut bytes).then_some(()));
        bytes
    }

    /// Turns until the peer has read `count` bytes that were sent, and checks what is told of it: at
    /// most once that it blocked, then progress up to `done`.
    pub(crate) fn delivers(&mut self, line: &mut Line, count: usize) -> Vec<u8> {
        let (mut bytes, mut waiting) = (Vec::new(), None);
        self.until("all at the peer, and all told", |host| {
            read_some(&mut line.peer, &mut bytes);
            while let Some(event) = host.queued(line.token) {
                match (event, waiting) {
                    (Event::SendBlocked(blocked), None) => {
                        assert!((1..=count).contains(&blocked), "{blocked} of {count} wait");
                        waiting = Some(blocked);
                    }
                    (Event::Sent { bytes, done }, Some(left)) => {
                        assert!(bytes <= left, "{bytes} left, of {left}");
                        assert_eq!(done, bytes == left, "{bytes} left, of {left}");
                        waiting = Some(left - bytes);
                    }
                    (other, _) => panic!("{other:?} while {waiting:?}"),
                }
            }
            (bytes.len() >= count && waiting.unwrap_or(0) == 0).then_some(())
        });
        bytes
    }

    /// Closes and turns until it is closed; other events of the socket are dropped.
    pub(crate) fn closes(&mut self, line: &Line) {
        self.reactor.close(line.socket);
        while !matches!(self.next(line.token), Event::Closed) {}
    }

    pub(crate) fn stats(&self) -> ReactorStats {
        self.reactor.stats()
    }
}

/// Writes what is taken at once.
pub(crate) fn write_some(peer: &mut Peer, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match peer.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("a peer cannot write: {error}"),
        }
    }
    written
}

/// Reads what is there; answers whether that was the end.
pub(crate) fn read_some(peer: &mut Peer, bytes: &mut Vec<u8>) -> bool {
    let mut room = [0; 16 << 10];
    loop {
        match peer.read(&mut room) {
            Ok(0) => return true,
            Ok(count) => bytes.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
            Err(error) => panic!("a peer cannot read: {error}"),
        }
    }
}
