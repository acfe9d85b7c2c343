//! A shard with connections of its own to a server that is the test, on a clock turned by hand.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hioload::config::Config;
use hioload::iproto::{ClientHandler, Connect, HEADER_BYTES, Header};
use hioload::reactor::sim::{SimConfig, SimReactor};
use hioload::reactor::{Connection, Event, Reactor, Receive, Socket, Token};
use hioload::testkit::Bench;
use hioload_pools::{Arena, ArenaConfig, BytePool};

use crate::hijack_time::Nothing;
use crate::support::{Packet, packet};

const PORT: u16 = 3301;
/// Tokens below are those of the peers, by their number.
const LISTENER: Token = Token(1000);

/// What the handlers of a stage noted.
pub(crate) type Notes = Rc<RefCell<Vec<String>>>;

/// One connection of the shard, from its other side.
pub(crate) struct Line {
    socket: Socket,
    pub(crate) incoming: Vec<u8>,
    pub(crate) has_ended: bool,
}

/// A shard with connections of its own to a server that is the test.
pub(crate) struct Stage {
    pub(crate) bench: Bench,
    others: SimReactor,
    pool: Arena,
    pub(crate) lines: Vec<Line>,
    notes: Notes,
}

impl Stage {
    pub(crate) fn with<H: ClientHandler>(
        lines: usize,
        config: &Config,
        notes: Notes,
        make: impl Fn() -> H,
    ) -> Self {
        let bench = Bench::with_config(config, |_| Nothing);
        let pool =
            Arena::new(ArenaConfig { capacity_bytes: 8 << 20, ..ArenaConfig::default() }).unwrap();
        let sim = SimConfig { buffers: 8, buffer_bytes: 4096, sockets_max: 16, pool: pool.clone() };
        let mut others = SimReactor::new(bench.net(), sim).unwrap();
        others.listen(bench.net().listen(PORT).unwrap(), LISTENER).unwrap();
        let mut stage = Self { bench, others, pool, lines: Vec::new(), notes };
        for count in 1..=lines {
            let connect = Connect::to(format!("127.0.0.1:{PORT}"));
            stage.bench.run(|shard| shard.connect_iproto(connect, make()));
            stage.exchange();
            assert_eq!(stage.lines.len(), count, "the shard has connected");
        }
        stage
    }

    /// Lets both sides do what there is to do at this moment.
    pub(crate) fn exchange(&mut self) {
        let mut quiet = 0;
        while quiet < 2 {
            self.bench.advance(Duration::ZERO);
            let mut batch = Vec::new();
            self.others.waker().wake();
            self.others.wait(Some(Duration::ZERO), &mut batch).unwrap();
            quiet = if batch.is_empty() { quiet + 1 } else { 0 };
            for completion in batch {
                self.happened(completion.token, completion.event);
            }
        }
    }

    fn happened(&mut self, token: Token, event: Event) {
        match event {
            Event::Accepted(connection) => self.take(connection),
            Event::Received(lease) => {
                self.lines[token.0 as usize].incoming.extend_from_slice(&lease);
            }
            Event::Ended | Event::Failed(_) => {
                let line = &mut self.lines[token.0 as usize];
                line.has_ended = true;
                self.others.shutdown(line.socket);
            }
            _ => {}
        }
    }

    /// Reads from a connection as a line of its own.
    pub(crate) fn take(&mut self, connection: Connection) {
        let token = Token(self.lines.len() as u64);
        let socket = self.others.adopt(connection, token).unwrap();
        self.others.receive(socket, Receive::Pool);
        self.lines.push(Line { socket, incoming: Vec::new(), has_ended: false });
    }

    /// Lets milliseconds pass, each with all that happens in it.
    pub(crate) fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.bench.advance(Duration::from_millis(1));
            self.exchange();
        }
    }

    /// A packet of the peer at the other end of this line.
    pub(crate) fn say(&mut self, line: usize, msg: u32, sync: u32, body: &[u8]) {
        self.write(line, &packet(msg, sync, body));
    }

    pub(crate) fn write(&mut self, line: usize, bytes: &[u8]) {
        let mut lease = self.pool.acquire(bytes.len(), bytes.len()).unwrap();
        lease.copy_from_slice(bytes);
        self.others.send(self.lines[line].socket, [lease.freeze()]);
        self.exchange();
    }

    /// Whether the peer at the other end of this line reads.
    pub(crate) fn reads(&mut self, line: usize, reads: bool) {
        let mode = if reads { Receive::Pool } else { Receive::Paused };
        self.others.receive(self.lines[line].socket, mode);
        self.exchange();
    }

    /// What came out of this line since the last look.
    pub(crate) fn heard(&mut self, line: usize) -> Vec<Packet> {
        self.exchange();
        let incoming = std::mem::take(&mut self.lines[line].incoming);
        let mut rest = &incoming[..];
        let mut packets = Vec::new();
        while let Some((header, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
            let Header { msg, len, sync } = Header::decode(header);
            let (body, behind) = behind.split_at(len as usize);
            packets.push(Packet { msg, sync, body: body.to_vec() });
            rest = behind;
        }
        assert!(rest.is_empty(), "half a header");
        packets
    }

    /// What the peer is answered, at once.
    pub(crate) fn ask(&mut self, line: usize, msg: u32, sync: u32, body: &[u8]) -> Vec<u8> {
        self.say(line, msg, sync, body);
        let [answer] = &self.heard(line)[..] else { panic!("not one answer") };
        assert_eq!((answer.msg, answer.sync), (msg, sync));
        answer.body.clone()
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.borrow_mut())
    }
}
