//! One side of an iproto connection with everything it needs, fed piece by piece.

use hioload_protocol::iproto::{
    Action, Connection, Env, Event, Header, Limits, Refusal, ReplyTo, Violation, append_packet,
};

use super::TestMemory;

/// An event, with its body copied out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// msg, sync, body.
    Request(u32, u32, Vec<u8>),
    Notify(u32, Vec<u8>),
    /// The token of the call, and the body.
    Response(u32, Vec<u8>),
    Send(Header),
    Shutdown,
    Failed(Violation),
}

/// A packet as it is on the wire.
pub fn packet(msg: u32, sync: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_packet(&mut out, msg, sync, body).expect("it is short");
    out
}

/// What is on the wire for hexadecimal digits.
pub fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}

pub struct Side {
    pub connection: Connection<Vec<u8>, u32>,
    pub limits: Limits,
    pub memory: TestMemory,
    pub now_ms: u64,
    /// Requests that were read and not replied to.
    pub open: Vec<ReplyTo>,
    next_token: u32,
}

impl Default for Side {
    fn default() -> Self {
        Self::with_limits(Limits::default())
    }
}

impl Side {
    pub fn with_limits(limits: Limits) -> Self {
        let (connection, memory) = (Connection::new(0), TestMemory::default());
        Self { connection, limits, memory, now_ms: 0, open: Vec::new(), next_token: 0 }
    }

    /// Reads all of `input`, and checks what holds for every read.
    pub fn read(&mut self, input: &[u8]) -> Vec<Seen> {
        let (mut at, mut seen) = (0, Vec::new());
        self.memory.arrived(input.len());
        loop {
            let before = at;
            let mut env =
                Env { limits: &self.limits, memory: &mut self.memory, now_ms: self.now_ms };
            match self.connection.read(input, &mut at, &mut env) {
                Ok(Some(event)) => seen.push(self.seen_of(event, input)),
                Ok(None) => break,
                Err(violation) => {
                    seen.push(Seen::Failed(violation));
                    break;
                }
            }
            assert!(at > before || input.is_empty(), "an event consumes something");
        }
        assert_eq!(at, input.len(), "all is consumed");
        seen
    }

    /// Lends the memory of the current body, and receives into it from the front of `rest`. `None`
    /// if it is not lent.
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
            Err(violation) => return Some(vec![Seen::Failed(violation)]),
        };
        self.memory.arrived(count);
        *rest = &rest[count..];
        let event = self.connection.filled(count, self.now_ms);
        Some(event.into_iter().map(|event| self.seen_of(event, &[])).collect())
    }

    /// Makes a call, whose token is the number of the calls before it, and gives its bytes.
    pub fn call(&mut self, msg: u32, body: &[u8], timeout_ms: u64) -> Result<Vec<u8>, Refusal> {
        self.call_header(msg, body.len(), timeout_ms)
            .map(|header| [&header.encode(), body].concat())
    }

    pub fn call_header(
        &mut self,
        msg: u32,
        len: usize,
        timeout_ms: u64,
    ) -> Result<Header, Refusal> {
        let (token, deadline_ms) = (self.next_token, self.now_ms.saturating_add(timeout_ms));
        let made = self.connection.call(msg, len, deadline_ms, token, &self.limits);
        made.inspect(|_| self.next_token += 1).map_err(|refused| {
            assert_eq!(refused.token, token, "it is given back");
            refused.why
        })
    }

    /// Replies to the request that has been open longest, and gives the bytes.
    pub fn reply(&mut self, body: &[u8]) -> Vec<u8> {
        let to = self.open.remove(0);
        let header = self.connection.reply(to, body.len()).expect("it has not ended");
        [&header.encode(), body].concat()
    }

    /// All that is to be done at `now_ms`.
    pub fn poll(&mut self, now_ms: u64) -> Vec<Action<u32>> {
        self.now_ms = now_ms;
        std::iter::from_fn(|| self.connection.poll(now_ms, &self.limits)).collect()
    }

    pub fn deadline_ms(&self) -> Option<u64> {
        self.connection.next_deadline_ms(&self.limits)
    }

    fn seen_of(&mut self, event: Event<Vec<u8>, u32>, input: &[u8]) -> Seen {
        match event {
            Event::Request { to, body } => {
                let seen = Seen::Request(to.msg(), to.sync(), body.bytes(input).to_vec());
                self.open.push(to);
                seen
            }
            Event::Notify { msg, body } => Seen::Notify(msg, body.bytes(input).to_vec()),
            Event::Response { token, header, body } => {
                assert_eq!(header.len as usize, body.bytes(input).len());
                Seen::Response(token, body.bytes(input).to_vec())
            }
            Event::Send(header) => Seen::Send(header),
            Event::Shutdown => Seen::Shutdown,
        }
    }
}
