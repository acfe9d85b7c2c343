//! The target of sessions: what a handler and its clients do in any order, against a model of the
//! outbox and of the ends of a session.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use hioload::config::{Config, SlowReader};
use hioload::testkit::{Bench, Opcode, Received, TestClient};
use hioload::{
    CloseCode, Closed, Handler, Message, MessageKind, Request, Sent, Session, Shard, Upgrade,
};

const CLIENTS_MAX: usize = 3;
/// Longer than every timeout of [`limits`](super::limits) together.
const FOR_EVER: Duration = Duration::from_secs(30);

/// What is known of one session.
#[derive(Default)]
struct Known {
    /// What its client must receive, in this order. Pongs and pings of the runtime are apart.
    owed: VecDeque<Received>,
    /// What its handler must be given, in this order.
    sent: VecDeque<(MessageKind, Vec<u8>)>,
    /// A send was answered [`Sent::Full`], and `drained` was not called since.
    full: bool,
    /// It was told to close.
    closing: bool,
    closed: Option<Closed>,
}

/// What the handler and the clients know together: by the number of a session.
type Notes = Rc<RefCell<Vec<Known>>>;

/// Does what its messages say: operations of two bytes.
struct Script {
    notes: Notes,
    high_bytes: usize,
    low_bytes: usize,
    max_bytes: usize,
    policy: SlowReader,
}

impl Script {
    /// Sends `len` bytes, and checks the answer against what the bounds say.
    fn send(&self, session: &mut Session<'_, usize>, message: Payload) {
        let (before, was_open) = (session.queued_bytes(), session.is_open());
        let (kind, bytes) = message.parts();
        let above = before > self.high_bytes && self.policy != SlowReader::Pause;
        let fits = before == 0 || !above && before + bytes.len() <= self.max_bytes;
        let sent = match message {
            Payload::Own(bytes) => session.send_binary(&bytes),
            Payload::Echo(message) => session.send(message),
        };
        let after = session.queued_bytes();
        let mut notes = self.notes.borrow_mut();
        let known = &mut notes[*session.data];
        match sent {
            Sent::Dropped => {
                assert!(!was_open || !fits, "{} bytes dropped behind {before}", bytes.len());
                let closes = was_open && above && self.policy == SlowReader::Close;
                assert_eq!(session.is_open(), was_open && !closes);
                if closes {
                    known.close(CloseCode::POLICY, "reads too slowly");
                }
            }
            _ => {
                assert!(was_open && fits, "{} bytes taken behind {before}", bytes.len());
                assert!(before < after && after <= before + bytes.len() + 10);
                assert_eq!(sent == Sent::Full, after > self.high_bytes);
                known.full |= sent == Sent::Full;
                known.owed.push_back(match kind {
                    MessageKind::Text => Received::Text(String::from_utf8(bytes).expect("text")),
                    MessageKind::Binary => Received::Binary(bytes),
                });
            }
        }
    }
}

/// A message to be sent: made here, or as it came.
enum Payload {
    Own(Vec<u8>),
    Echo(Message),
}

impl Payload {
    fn parts(&self) -> (MessageKind, Vec<u8>) {
        match self {
            Self::Own(bytes) => (MessageKind::Binary, bytes.clone()),
            Self::Echo(message) => (message.kind(), message.to_vec()),
        }
    }
}

impl Known {
    fn close(&mut self, code: CloseCode, reason: &str) {
        if !self.closing {
            self.closing = true;
            self.owed.push_back(Received::Close { code: Some(code), reason: reason.to_owned() });
        }
    }
}

impl Handler for Script {
    type Session = usize;

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<usize> {
        Upgrade::accept(self.notes.borrow().len()).with_stats()
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, usize>) {
        let mut notes = self.notes.borrow_mut();
        assert_eq!(notes.len(), *session.data, "each is opened once");
        notes.push(Known::default());
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, usize>, message: Message) {
        let expected = self.notes.borrow_mut()[*session.data].sent.pop_front();
        assert_eq!(expected, Some((message.kind(), message.to_vec())), "in order, and whole");
        let operations = message.to_vec();
        let mut message = Some(message);
        for operation in operations.chunks_exact(2).take(16) {
            let amount = usize::from(operation[1]);
            match operation[0] % 8 {
                0..=2 => {
                    let len = amount << (operation[0] >> 5);
                    self.send(session, Payload::Own(vec![operation[1]; len]));
                }
                3 | 4 => {
                    if let Some(message) = message.take() {
                        self.send(session, Payload::Echo(message));
                    }
                }
                5 => {
                    let was_open = session.is_open();
                    session.ping(&[b'!'; 20]);
                    if was_open {
                        let ping = Received::Ping(vec![b'!'; 20]);
                        self.notes.borrow_mut()[*session.data].owed.push_back(ping);
                    }
                }
                6 => {
                    let set = session.set_timer(Duration::from_millis(amount as u64), 7);
                    assert!(set.is_ok() || !session.is_open());
                }
                _ if amount < 40 => {
                    session.close(CloseCode::NORMAL, "told to");
                    self.notes.borrow_mut()[*session.data].close(CloseCode::NORMAL, "told to");
                    assert!(!session.is_open());
                }
                _ => {}
            }
        }
    }

    fn drained(&mut self, _: &mut Shard, session: &mut Session<'_, usize>) {
        assert!(session.queued_bytes() <= self.low_bytes, "it is not low yet");
        let known = &mut self.notes.borrow_mut()[*session.data];
        assert!(known.full, "it was not full");
        known.full = false;
    }

    fn timer(&mut self, _: &mut Shard, session: &mut Session<'_, usize>, token: u64) {
        assert_eq!(token, 7);
        self.send(session, Payload::Own(vec![b't'; 30]));
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, usize>, reason: Closed) {
        let known = &mut self.notes.borrow_mut()[*session.data];
        assert_eq!(known.closed.replace(reason), None, "it is closed once");
    }
}

/// A client, the number of its session, and what it did.
struct Side {
    client: TestClient,
    number: usize,
    notes: Notes,
    pings: u8,
    pong_at: u8,
    /// The kind of the message whose last fragment was not sent yet, and what came of it.
    open: Option<(MessageKind, Vec<u8>)>,
    closed: bool,
    /// It reads whatever comes, at once.
    reads: bool,
}

/// Sessions: a byte of settings, then operations of three bytes of which some are followed by more.
pub(crate) fn session(data: &[u8]) {
    let Some((settings, mut rest)) = data.split_first() else { return };
    let mut config = super::limits(*settings & 3);
    // The model counts bytes as they are sent, and floods are tried elsewhere.
    config.websocket.overhead_budget_bytes = u32::MAX;
    let notes = Notes::default();
    let bench = Bench::with_config(&config, |_| script(&config, &notes));
    bench.net().set_window(if settings & 4 == 4 { 2048 } else { 32 * 1024 });
    let mut sides: Vec<Side> = Vec::new();
    for _ in 0..64 {
        let Some(([what, which, amount], behind)) = rest.split_first_chunk::<3>() else { break };
        rest = behind;
        if what % 12 == 0 && sides.len() < CLIENTS_MAX {
            sides.extend(Side::open(&bench, &notes, amount & 1 == 1));
        } else if what % 12 == 1 {
            bench.advance(Duration::from_millis(u64::from(*amount)));
        } else if let Some(at) = usize::from(*which).checked_rem(sides.len()) {
            if what % 12 == 11 {
                drop(sides.swap_remove(at));
            } else {
                sides[at].act(*what, *amount, &mut rest);
            }
        }
        sides.iter_mut().filter(|side| side.reads).for_each(Side::read);
    }
    for side in &mut sides {
        side.read();
        side.finish();
    }
    drop(sides);
    bench.advance(FOR_EVER);
    let stats = bench.shard_stats();
    assert_eq!(stats.counters.panics, 0, "the handler found something");
    assert_eq!(stats.connections, 0, "somebody is left");
    assert_eq!(stats.counters.opened, notes.borrow().len() as u64);
    assert!(notes.borrow().iter().all(|known| known.closed.is_some()), "each is closed");
    assert!(stats.pool.blocks <= 1, "more is leased than the block for small sends: {stats:?}");
}

fn script(config: &Config, notes: &Notes) -> Script {
    let websocket = &config.websocket;
    Script {
        notes: Rc::clone(notes),
        high_bytes: websocket.outbox_high_bytes,
        low_bytes: websocket.outbox_low_bytes,
        max_bytes: websocket.outbox_max_bytes,
        policy: websocket.slow_reader,
    }
}

impl Side {
    fn open(bench: &Bench, notes: &Notes, reads: bool) -> Option<Self> {
        let number = notes.borrow().len();
        let client = bench.connect("/").ok()?;
        let notes = Rc::clone(notes);
        let (pings, pong_at) = (0, 0);
        Some(Self { client, number, notes, pings, pong_at, open: None, closed: false, reads })
    }

    fn act(&mut self, what: u8, amount: u8, rest: &mut &[u8]) {
        match what % 12 {
            2..=5 => {
                let (payload, behind) = rest.split_at(rest.len().min(usize::from(amount % 33)));
                *rest = behind;
                let fin = what % 12 < 4;
                let payload = payload.repeat(1 + usize::from(what >> 5));
                self.data(fin, payload);
            }
            6 => {
                self.pings = self.pings.wrapping_add(1);
                self.client.ping(&[self.pings]);
            }
            7 => self.client.pong(b"unasked"),
            8 => {
                self.closed = true;
                self.client.close(CloseCode::GOING_AWAY, "client");
            }
            9 => self.client.shutdown(),
            _ => self.read(),
        }
    }

    /// Sends a message, or a part of one.
    fn data(&mut self, fin: bool, payload: Vec<u8>) {
        let continues = self.open.is_some();
        let opcode = if continues { Opcode::Continuation } else { Opcode::Binary };
        let (kind, mut whole) = self.open.take().unwrap_or((MessageKind::Binary, Vec::new()));
        whole.extend_from_slice(&payload);
        if !fin {
            self.open = Some((kind, whole));
        } else {
            // What comes behind a close frame is never seen, nor what nobody reads any more.
            self.notes.borrow_mut()[self.number].sent.push_back((kind, whole));
        }
        self.client.send_frame(fin, opcode, &payload);
    }

    /// Receives all there is; it must be what the handler has sent.
    fn read(&mut self) {
        while let Some(received) = self.client.receive() {
            let mut notes = self.notes.borrow_mut();
            let known = &mut notes[self.number];
            match received {
                Received::Pong(payload) => {
                    assert!(self.pong_at < payload[0] && payload[0] <= self.pings, "in order");
                    self.pong_at = payload[0];
                }
                Received::Ping(payload) if payload.is_empty() => {
                    drop(notes);
                    self.client.pong(&[]);
                }
                Received::Close { code, .. } if known.owed.is_empty() => {
                    // Ours came first, or a limit was broken.
                    assert!(self.closed || !known.closing, "{code:?}");
                    drop(notes);
                    self.answer_close(code);
                }
                Received::Close { code, reason } if self.closed => {
                    // Both closed at once, or the answer overtook what was never sent.
                    assert!(code.is_some(), "{reason}");
                    known.owed.clear();
                }
                received => {
                    let is_close = matches!(received, Received::Close { .. });
                    assert_eq!(Some(&received), known.owed.front(), "in order, and whole");
                    known.owed.pop_front();
                    drop(notes);
                    if is_close {
                        self.answer_close(None);
                    }
                }
            }
        }
    }

    fn answer_close(&mut self, code: Option<CloseCode>) {
        if !self.closed {
            self.closed = true;
            self.client.close(code.unwrap_or(CloseCode::NORMAL), "");
        }
    }

    /// An open session whose client has read everything owes nothing.
    fn finish(&mut self) {
        let notes = self.notes.borrow();
        let known = &notes[self.number];
        if known.closed.is_none() && !known.closing && !self.closed {
            assert!(known.owed.is_empty() && !known.full, "something was kept back");
            assert_eq!(self.pong_at, self.pings, "the newest ping is answered");
            assert!(known.sent.is_empty(), "a message was not delivered");
        }
    }
}
