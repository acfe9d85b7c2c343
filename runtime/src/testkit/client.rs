//! The client of a bench: RFC 6455 from the other side, over a simulated connection.
//!
//! Comes in: what the test wants sent. Goes out: what arrived, one by one. It answers nothing by
//! itself, neither pings nor close frames: that is for the test to do, or to leave undone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;

use hioload_protocol::http::HeadLimits;
use hioload_protocol::http::client::{Handshake, ResponseError, encode_key};
use hioload_protocol::ws::frame::{self, Header};
use hioload_protocol::ws::mask::mask;
use hioload_protocol::ws::{
    CloseCode, Connection, Env, Event, HeapMemory, Limits, Message, MessageKind, Opcode, Role,
};

use super::bench::Machine;
use crate::reactor::sim::Peer;

/// A nonce and a masking key are to be unpredictable in the world, and the same in every test.
const NONCE: [u8; 16] = *b"hioload test kit";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a client takes: anything, as the server is the one under test.
const LIMITS: Limits = Limits {
    message_bytes_max: 1 << 30,
    fragments_max: u32::MAX,
    message_age_ms_max: 0,
    overhead_budget_bytes: 1 << 30,
};

/// Why a handshake did not open a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The server answered with this HTTP status.
    #[error("the handshake was answered with the HTTP status {0}")]
    Status(u16),
    /// The server ended the connection without an answer, or does not listen any more.
    #[error("the handshake was not answered")]
    Dropped,
}

/// Something that a [`TestClient`] received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping, with its payload. It is answered with [`TestClient::pong`].
    Ping(Vec<u8>),
    /// A pong, with its payload.
    Pong(Vec<u8>),
    /// A close frame. It is answered with [`TestClient::close`].
    Close {
        /// The code, if the frame had one.
        code: Option<CloseCode>,
        /// The reason, perhaps empty.
        reason: String,
    },
}

/// An open WebSocket connection to a [`Bench`](super::Bench), from the client's side.
///
/// What is sent is acted on before the call returns. Only [`receive`](Self::receive) and
/// [`has_ended`](Self::has_ended) read from the connection: a client that calls neither is a slow
/// reader. Dropping the client breaks the connection without a close frame.
pub struct TestClient {
    machine: Rc<RefCell<Machine>>,
    peer: Peer,
    connection: Connection<Vec<u8>>,
    response: String,
    subprotocol: Option<String>,
    /// What the window of the connection did not take yet.
    outgoing: VecDeque<u8>,
    /// What was read and is not decoded.
    incoming: Vec<u8>,
    received: VecDeque<Received>,
    has_ended: bool,
}

impl TestClient {
    pub(super) fn connect(
        machine: Rc<RefCell<Machine>>,
        target: &str,
        headers: &[(&str, &str)],
        subprotocols: &[&str],
    ) -> Result<Self, Refused> {
        let key = encode_key(NONCE);
        let handshake =
            Handshake { headers, subprotocols, ..Handshake::new("bench.test", target, &key) };
        let mut request = Vec::new();
        handshake.write_request(&mut request).expect("the path and the headers are valid");

        let peer = machine.borrow_mut().open().ok_or(Refused::Dropped)?;
        let mut client = Self {
            machine,
            peer,
            connection: Connection::new(Role::Client),
            response: String::new(),
            subprotocol: None,
            outgoing: request.into(),
            incoming: Vec::new(),
            received: VecDeque::new(),
            has_ended: false,
        };
        let head_bytes = client.read_response_head()?;
        match handshake.check_response(&client.incoming, &HeadLimits::default()) {
            Ok(accepted) => client.subprotocol = accepted.subprotocol,
            Err(ResponseError::Status(status)) => return Err(Refused::Status(status)),
            Err(broken) => panic!("the server broke RFC 6455 section 4.2.2: {broken}"),
        }
        let head: Vec<u8> = client.incoming.drain(..head_bytes).collect();
        client.response = String::from_utf8_lossy(&head).into_owned();
        Ok(client)
    }

    /// Sends a text message.
    pub fn send_text(&mut self, text: &str) {
        self.send_frame(true, Opcode::Text, text.as_bytes());
    }

    /// Sends a binary message.
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send_frame(true, Opcode::Binary, bytes);
    }

    /// Sends a ping.
    pub fn ping(&mut self, payload: &[u8]) {
        self.send_frame(true, Opcode::Ping, payload);
    }

    /// Sends a pong.
    pub fn pong(&mut self, payload: &[u8]) {
        self.send_frame(true, Opcode::Pong, payload);
    }

    /// Sends a close frame: the first of the two, or the answer to the server's.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        let mut payload = [0; frame::CONTROL_BYTES_MAX];
        let len = frame::encode_close(code, reason, &mut payload);
        self.connection.close_sent();
        self.send_frame(true, Opcode::Close, &payload[..len]);
    }

    /// Sends one frame: with `fin` unset, a message in fragments.
    pub fn send_frame(&mut self, fin: bool, opcode: Opcode, payload: &[u8]) {
        let mut header = [0; frame::HEADER_BYTES_MAX];
        let len = Header::new(fin, opcode, Some(MASK), payload.len() as u64).encode(&mut header);
        let mut masked = payload.to_vec();
        mask(&mut masked, MASK, 0);
        self.outgoing.extend(&header[..len]);
        self.send_bytes(&masked);
    }

    /// Sends bytes as they are: half of a frame, or what is none.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
        self.write();
    }

    /// What arrived next; `None` if nothing more will without something else happening first.
    ///
    /// # Panics
    /// The server broke RFC 6455.
    pub fn receive(&mut self) -> Option<Received> {
        if self.received.is_empty() {
            self.exchange();
            self.decode();
        }
        self.received.pop_front()
    }

    /// Whether the server has ended the connection. What came before can still be received.
    pub fn has_ended(&mut self) -> bool {
        self.exchange();
        self.has_ended
    }

    /// Ends our side of the connection without a close frame, and goes on reading.
    pub fn shutdown(&mut self) {
        self.peer.shutdown();
        self.machine.borrow_mut().settle();
    }

    /// The head of the response that opened the connection.
    #[must_use]
    pub fn response(&self) -> &str {
        &self.response
    }

    /// The subprotocol that the server chose.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Reads until the head of the response is whole, and tells its length in bytes.
    fn read_response_head(&mut self) -> Result<usize, Refused> {
        loop {
            self.exchange();
            let end = self.incoming.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                return Ok(end + 4);
            }
            if self.has_ended || !self.machine.borrow_mut().advance_to_next() {
                return Err(Refused::Dropped);
            }
        }
    }

    /// Writes what waits, as far as the server reads.
    fn write(&mut self) {
        loop {
            let wrote = self.write_some();
            self.machine.borrow_mut().settle();
            if !wrote {
                return;
            }
        }
    }

    /// Reads and writes until neither moves.
    fn exchange(&mut self) {
        loop {
            self.write();
            if !self.read_some() {
                return;
            }
        }
    }

    fn write_some(&mut self) -> bool {
        let (front, _) = self.outgoing.as_slices();
        if front.is_empty() {
            return false;
        }
        match self.peer.write(front) {
            Ok(count) => {
                self.outgoing.drain(..count);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                self.outgoing.clear();
                false
            }
        }
    }

    fn read_some(&mut self) -> bool {
        let mut bytes = [0; 4096];
        if self.has_ended {
            return false;
        }
        match self.peer.read(&mut bytes) {
            Ok(0) => {
                // As a client does: the server waits for our FIN before it forgets us.
                self.has_ended = true;
                self.peer.shutdown();
                true
            }
            Ok(count) => {
                self.incoming.extend(&bytes[..count]);
                true
            }
            Err(error) => {
                self.has_ended = error.kind() != ErrorKind::WouldBlock;
                false
            }
        }
    }

    fn decode(&mut self) {
        let now_ms = self.machine.borrow().now_ms();
        let mut env = Env { limits: &LIMITS, memory: &mut HeapMemory, now_ms };
        let mut at = 0;
        loop {
            match self.connection.read(&mut self.incoming, &mut at, &mut env) {
                Ok(Some(event)) => self.received.push_back(received(event, &self.incoming)),
                Ok(None) => break,
                Err(broken) => panic!("the server broke RFC 6455: {}", broken.violation),
            }
        }
        self.incoming.clear();
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient")
            .field("peer", &self.peer)
            .field("received", &self.received)
            .field("has_ended", &self.has_ended)
            .finish_non_exhaustive()
    }
}

fn received(event: Event<Vec<u8>>, input: &[u8]) -> Received {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match event {
        Event::Message(Message { kind: MessageKind::Text, body, .. }) => {
            Received::Text(text(body.bytes(input)))
        }
        Event::Message(Message { kind: MessageKind::Binary, body, .. }) => {
            Received::Binary(body.bytes(input).to_vec())
        }
        Event::Ping(payload) => Received::Ping(payload.to_vec()),
        Event::Pong(payload) => Received::Pong(payload.to_vec()),
        Event::Close { code, reason } => Received::Close { code, reason: text(&reason) },
    }
}
