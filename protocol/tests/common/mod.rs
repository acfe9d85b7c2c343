//! What the tests of the state machine share: frames to send, a driver, memory that records or
//! refuses, and a model that says what must come out.

#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

pub mod iproto;
pub mod iproto_bodies;
pub mod iproto_script;
pub mod model;
pub mod puff;

use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::mask::mask;
use hioload_protocol::ws::{
    CloseCode, Connection, Env, Error, Event, Limits, Memory, MessageKind, Opcode, Role, Violation,
};

pub const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// An event, with its payload copied out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Text(String),
    Binary(Vec<u8>),
    /// A message as it came; text if `true`.
    Compressed(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failed(Violation),
}

/// The key that frames to `receiver` must have.
pub fn key_for(receiver: Role) -> Option<[u8; 4]> {
    (receiver == Role::Server).then_some(KEY)
}

/// A frame as the peer of `receiver` must send it.
pub fn frame_to(receiver: Role, fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    encode(Header::new(fin, opcode, key_for(receiver), payload.len() as u64), payload)
}

/// A last frame from a client.
pub fn client(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    frame_to(Role::Server, true, opcode, payload)
}

/// A frame from a client that is not the last of its message.
pub fn fragment(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    frame_to(Role::Server, false, opcode, payload)
}

pub fn encode(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut out = [0; HEADER_BYTES_MAX];
    let len = header.encode(&mut out);
    let mut bytes = out[..len].to_vec();
    bytes.extend_from_slice(payload);
    if let Some(key) = header.mask {
        mask(&mut bytes[len..], key, 0);
    }
    bytes
}

pub fn close_body(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// A connection with everything it needs, fed piece by piece.
pub struct Peer {
    pub connection: Connection<Vec<u8>>,
    pub limits: Limits,
    pub memory: TestMemory,
    pub now_ms: u64,
}

impl Peer {
    pub fn new(role: Role) -> Self {
        Self::with_limits(role, Limits::default())
    }

    pub fn with_limits(role: Role, limits: Limits) -> Self {
        let connection = Connection::new(role);
        Self { connection, limits, memory: TestMemory::default(), now_ms: 0 }
    }

    /// One whose handshake agreed on permessage-deflate.
    pub fn with_deflate(role: Role) -> Self {
        let mut peer = Self::new(role);
        peer.connection = peer.connection.with_deflate();
        peer
    }

    /// Reads all of `input`, and checks what holds for every read.
    pub fn read(&mut self, input: &[u8]) -> Vec<Seen> {
        let mut input = input.to_vec();
        let (mut at, mut seen) = (0, Vec::new());
        self.memory.arrived(input.len());
        loop {
            let before = at;
            let mut env =
                Env { limits: &self.limits, memory: &mut self.memory, now_ms: self.now_ms };
            let event = self.connection.read(&mut input, &mut at, &mut env);
            assert!(at >= before && at <= input.len());
            let done = !matches!(event, Ok(Some(_)));
            seen.extend(seen_of(event, &input));
            if done {
                assert_eq!(at, input.len(), "all is consumed");
                return seen;
            }
            assert!(at > before, "an event consumes something");
        }
    }

    /// Lends the memory of the current message, and receives into it from the front of `rest`.
    /// `None` if it is not lent.
    pub fn read_direct(&mut self, rest: &mut &[u8], min_bytes: usize) -> Option<Vec<Seen>> {
        let mut env = Env { limits: &self.limits, memory: &mut self.memory, now_ms: self.now_ms };
        let count = match self.connection.direct(min_bytes, &mut env) {
            Ok(None) => return None,
            Ok(Some(direct)) => {
                let tail = &mut direct.buffer[direct.filled..];
                assert!(!tail.is_empty() && tail.len() <= direct.wanted);
                let count = tail.len().min(rest.len());
                tail[..count].copy_from_slice(&rest[..count]);
                count
            }
            Err(error) => return Some(vec![Seen::Failed(error.violation)]),
        };
        self.memory.arrived(count);
        *rest = &rest[count..];
        let mut env = Env { limits: &self.limits, memory: &mut self.memory, now_ms: self.now_ms };
        let event = self.connection.filled(count, &mut env);
        Some(seen_of(event, &[]).into_iter().collect())
    }

    pub fn deadline_ms(&self) -> Option<u64> {
        self.connection.message_deadline_ms(&self.limits)
    }
}

/// What a new connection sees of `input`.
pub fn seen_by(role: Role, input: &[u8]) -> Vec<Seen> {
    Peer::new(role).read(input)
}

/// The violation that `input`, and nothing shorter, ends in.
pub fn violation_at_last_byte(role: Role, input: &[u8]) -> Option<Violation> {
    let mut peer = Peer::new(role);
    for (at, byte) in input.iter().enumerate() {
        for seen in peer.read(&[*byte]) {
            if let Seen::Failed(violation) = seen {
                assert_eq!(at, input.len() - 1, "{violation} came too early");
                return Some(violation);
            }
        }
    }
    None
}

fn seen_of<B: AsRef<[u8]>>(event: Result<Option<Event<B>>, Error>, input: &[u8]) -> Option<Seen> {
    Some(match event {
        Err(error) => {
            assert_eq!(error.code, error.violation.code());
            Seen::Failed(error.violation)
        }
        Ok(None) => return None,
        Ok(Some(Event::Message(message))) => {
            let payload = message.body.bytes(input).to_vec();
            match message.kind {
                kind if message.compressed => Seen::Compressed(kind == MessageKind::Text, payload),
                MessageKind::Text => {
                    Seen::Text(String::from_utf8(payload).expect("text was checked"))
                }
                MessageKind::Binary => Seen::Binary(payload),
            }
        }
        Ok(Some(Event::Ping(payload))) => Seen::Ping(payload.to_vec()),
        Ok(Some(Event::Pong(payload))) => Seen::Pong(payload.to_vec()),
        Ok(Some(Event::Close { code, reason })) => {
            let reason = String::from_utf8(reason.to_vec()).expect("the reason was checked");
            Seen::Close(code.map(CloseCode::get), reason)
        }
    })
}

/// Memory that records what it is asked for, may refuse, and keeps no byte that it need not.
#[derive(Debug, Default)]
pub struct TestMemory {
    /// Times it was asked, also in vain.
    pub asked: usize,
    /// Refuses from this request on.
    pub refuse_from: Option<usize>,
    /// The longest buffer it was asked for.
    pub len_max: usize,
    /// The `expected` of each `acquire`.
    pub expected: Vec<usize>,
    /// Bytes received so far: what a buffer may be justified with.
    received: usize,
}

impl TestMemory {
    fn arrived(&mut self, bytes: usize) {
        self.received += bytes;
    }

    fn ask(&mut self, len: usize) -> bool {
        assert!(len <= (64 * 1024).max(2 * self.received), "{len} bytes were not earned");
        self.asked += 1;
        self.len_max = self.len_max.max(len);
        self.refuse_from.is_none_or(|from| self.asked < from)
    }
}

impl Memory for TestMemory {
    type Buffer = Vec<u8>;

    fn acquire(&mut self, len: usize, expected: usize) -> Option<Vec<u8>> {
        assert!(expected >= len && len > 0);
        self.expected.push(expected);
        self.ask(len).then(|| vec![0xEE; len])
    }

    fn grow(&mut self, buffer: &mut Vec<u8>, used: usize, len: usize) -> bool {
        assert!(used <= buffer.len() && buffer.len() <= len);
        if !self.ask(len) {
            return false;
        }
        buffer.truncate(used); // what lies behind is lost, as it may be
        buffer.resize(len, 0xEE);
        true
    }
}
