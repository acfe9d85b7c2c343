//! A simulated peer that speaks WebSocket, with the client role of the protocol crate.

use hioload_protocol::deflate::{Agreement, Deflater, Direction, Inflater, Offer};
use hioload_protocol::http::HeadLimits;
use hioload_protocol::http::client::{Handshake, ResponseError, encode_key};
use hioload_protocol::ws::frame::{self, Header};
use hioload_protocol::ws::mask::mask;
use hioload_protocol::ws::{
    CloseCode, Connection, Env, Event, HeapMemory, Limits, Message, MessageKind, Opcode, Role,
};

use super::super::ledger::digest;
use super::super::watch::PEER_HEADER;
use super::{Act, Fate, Line, Speaker};
use crate::Time;
use crate::reactor::sim::Rng;
use crate::testkit::Received;

/// What a peer takes: anything, as the server is the one under test.
const LIMITS: Limits = Limits {
    message_bytes_max: 1 << 30,
    fragments_max: u32::MAX,
    message_age_ms_max: 0,
    overhead_budget_bytes: 1 << 30,
};
/// Each peer closes with a code of its own, so that its echo is known as such.
const CODES: u16 = 900;
/// Messages are cut into at most this many fragments.
const FRAGMENTS_MAX: usize = 5;

/// What a simulated WebSocket client does.
pub trait Client: 'static {
    /// It may say something. Called when the session is open, after the time of [`Act::Again`],
    /// and when something arrived.
    fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act;

    /// Something arrived. Pings and close frames are answered already.
    fn received(&mut self, wire: &mut WebSocketWire<'_>, received: Received);

    /// The connection is over; `clean` if it ended as [`Act::Close`] wants it, with the server's
    /// answer to our close frame.
    fn ended(&mut self, wire: &mut WebSocketWire<'_>, clean: bool) {
        let _ = (wire, clean);
    }
}

/// The connection of a [`Client`].
pub struct WebSocketWire<'a> {
    line: &'a mut Line,
    session: &'a mut Speech,
}

impl WebSocketWire<'_> {
    /// Which peer of the simulation it is.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.line.index
    }

    /// Sends a text, perhaps in fragments and with a ping between them, as the seed wants it.
    pub fn send_text(&mut self, text: &str) {
        self.session.send(self.line, MessageKind::Text, text.as_bytes());
    }

    /// Sends bytes, as [`send_text`](Self::send_text) does.
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.session.send(self.line, MessageKind::Binary, bytes);
    }

    /// Sends bytes in exactly so many fragments. `refused`: it is more than the server takes, so
    /// that its handler must not see it.
    pub fn send_fragments(&mut self, bytes: &[u8], fragments: usize, refused: bool) {
        if !refused {
            self.session.announce(self.line, MessageKind::Binary, bytes);
        }
        self.session.send_in(self.line, MessageKind::Binary, bytes, fragments.max(1) - 1, false);
    }

    /// Sends a ping.
    pub fn ping(&mut self, payload: &[u8]) {
        self.session.ping(self.line, payload);
    }

    /// The randomness of this peer.
    pub const fn rng(&mut self) -> &mut Rng {
        &mut self.line.rng
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.line.now()
    }

    /// The run has failed, for this reason.
    pub fn fail(&mut self, why: &str) {
        self.line.problem(why);
    }
}

impl std::fmt::Debug for WebSocketWire<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocketWire").field("line", &self.line).finish_non_exhaustive()
    }
}

/// What is known of an open session.
struct Speech {
    connection: Connection<Vec<u8>>,
    compression: Option<Compression>,
    /// Pings that were sent, the oldest first, and not answered.
    pings: Vec<Vec<u8>>,
    pings_sent: u64,
    pings_received: u64,
    code: CloseCode,
    close_sent: bool,
    /// The code of the server's close frame.
    closed_with: Option<CloseCode>,
    /// The server has answered our close frame.
    is_confirmed: bool,
}

struct Compression {
    agreed: Agreement,
    deflater: Deflater,
    inflater: Inflater,
}

impl Speech {
    fn send(&mut self, line: &mut Line, kind: MessageKind, payload: &[u8]) {
        self.announce(line, kind, payload);
        let mut room = Vec::new();
        let compressed = self.compress(&mut line.rng, payload, &mut room);
        let is_compressed = compressed.is_some();
        let cuts = if line.rng.percent(25) { line.rng.below(FRAGMENTS_MAX) } else { 0 };
        self.send_in(line, kind, compressed.unwrap_or(payload), cuts, is_compressed);
    }

    /// The handler is to see this message next.
    fn announce(&self, line: &Line, kind: MessageKind, payload: &[u8]) {
        let number = digest(u64::from(kind == MessageKind::Text), payload);
        line.ledger.borrow_mut().sent(line.index, number);
    }

    /// Sends a message that is cut so many times.
    fn send_in(
        &mut self,
        line: &mut Line,
        kind: MessageKind,
        payload: &[u8],
        cuts: usize,
        compressed: bool,
    ) {
        let mut rest = payload;
        for left in (0..=cuts).rev() {
            let len = if left == 0 { rest.len() } else { line.rng.below(rest.len() + 1) };
            let (part, next) = rest.split_at(len);
            let first = left == cuts;
            let opcode = if first { kind.opcode() } else { Opcode::Continuation };
            push_frame(line, left == 0, opcode, part, first && compressed);
            if left > 0 && line.rng.percent(10) {
                let number = self.pings_sent.to_le_bytes();
                self.ping(line, &number);
            }
            rest = next;
        }
    }

    /// The compressed payload, if it was agreed and the seed wants it.
    fn compress<'a>(
        &mut self,
        rng: &mut Rng,
        payload: &[u8],
        room: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let compression = self.compression.as_mut().filter(|_| rng.percent(70))?;
        room.resize(Deflater::bound(payload.len()), 0);
        let keeps = compression.agreed.sent_by(Role::Client).keeps_context;
        let len = compression.deflater.message(payload, keeps, room).ok()?;
        Some(&room[..len])
    }

    fn ping(&mut self, line: &mut Line, payload: &[u8]) {
        self.pings.push(payload.to_vec());
        self.pings_sent += 1;
        push_frame(line, true, Opcode::Ping, payload, false);
    }

    /// A pong must answer one of our pings, and not one older than the last that was answered.
    fn answered(&mut self, line: &Line, payload: &[u8]) {
        match self.pings.iter().position(|ping| ping == payload) {
            Some(at) => drop(self.pings.drain(..=at)),
            None => line.problem("it got a pong for which it sent no ping"),
        }
    }

    fn close(&mut self, line: &mut Line, code: Option<CloseCode>) {
        if std::mem::replace(&mut self.close_sent, true) {
            return;
        }
        let mut payload = [0; frame::CONTROL_BYTES_MAX];
        let len = code.map_or(0, |code| frame::encode_close(code, "", &mut payload));
        self.connection.close_sent();
        push_frame(line, true, Opcode::Close, &payload[..len], false);
    }

    fn inflate(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let compression = self.compression.as_mut()?;
        let mut env = Env { limits: &LIMITS, memory: &mut HeapMemory, now_ms: 0 };
        let keeps = compression.agreed.received_by(Role::Client).keeps_context;
        let (mut out, len) = compression.inflater.message(payload, keeps, &mut env).ok()?;
        out.truncate(len);
        Some(out)
    }
}

fn push_frame(line: &mut Line, fin: bool, opcode: Opcode, payload: &[u8], compressed: bool) {
    let key = (line.rng.bits() as u32).to_le_bytes();
    let mut bytes = [0; frame::HEADER_BYTES_MAX];
    let len = Header::new(fin, opcode, Some(key), payload.len() as u64).encode(&mut bytes);
    // RSV1, RFC 7692 section 7.2.1.
    bytes[0] |= u8::from(compressed) << 6;
    line.outgoing.extend(&bytes[..len]);
    let mut payload = payload.to_vec();
    mask(&mut payload, key, 0);
    line.outgoing.extend(payload);
}

pub(in super::super) struct WebSocketSpeaker {
    client: Box<dyn Client>,
    target: String,
    offer: Option<Offer>,
    key: String,
    speech: Option<Speech>,
}

impl WebSocketSpeaker {
    pub(in super::super) fn new(client: Box<dyn Client>, target: &str, rng: &mut Rng) -> Self {
        let offer = rng.percent(30).then(|| Offer {
            server: Direction { keeps_context: rng.percent(50), window_bits: 15 },
            client: Direction { keeps_context: rng.percent(50), window_bits: 15 },
        });
        let mut nonce = [0; 16];
        rng.fill(&mut nonce);
        let key = encode_key(nonce);
        Self { client, target: target.to_owned(), offer, key, speech: None }
    }

    fn with_handshake<T>(&self, line: &Line, run: impl FnOnce(&Handshake<'_>) -> T) -> T {
        let number = line.index.to_string();
        let headers = [(PEER_HEADER, &*number)];
        let plain = Handshake::new("sim.test", &self.target, &self.key);
        run(&Handshake { headers: &headers, deflate: self.offer, ..plain })
    }

    /// The response to the handshake, once it is there as a whole.
    fn open(&mut self, line: &mut Line, bytes: &mut Vec<u8>) {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return };
        let limits = HeadLimits::default();
        let answer = self.with_handshake(line, |it| it.check_response(bytes, &limits));
        bytes.drain(..end + 4);
        match answer {
            Ok(accepted) => {
                line.note("is open", 0);
                let connection = Connection::new(Role::Client);
                let connection =
                    if accepted.deflate.is_some() { connection.with_deflate() } else { connection };
                let code = 4000 + (line.index % usize::from(CODES)) as u16;
                self.speech = Some(Speech {
                    connection,
                    compression: accepted.deflate.map(Compression::new),
                    pings: Vec::new(),
                    pings_sent: 0,
                    pings_received: 0,
                    code: CloseCode::new(code).expect("4000 to 4999 are for everybody"),
                    close_sent: false,
                    closed_with: None,
                    is_confirmed: false,
                });
                line.act_soon();
            }
            Err(ResponseError::Status(status)) => line.note("is refused", u64::from(status)),
            Err(broken) => line.problem(&format!("the server broke RFC 6455: {broken}")),
        }
    }

    /// One event of the session. `false`: there is none.
    fn event(&mut self, line: &mut Line, bytes: &mut [u8], at: &mut usize) -> bool {
        let Some(speech) = &mut self.speech else { return false };
        let mut env = Env { limits: &LIMITS, memory: &mut HeapMemory, now_ms: line.now_ms() };
        let received = match speech.connection.read(bytes, at, &mut env) {
            Ok(Some(event)) => received(line, speech, event, bytes),
            Ok(None) => return false,
            Err(broken) => {
                line.problem(&format!("the server broke RFC 6455: {}", broken.violation));
                return false;
            }
        };
        // What follows broken rules is between the server and the kit.
        if let Some(received) = received
            && line.fate != Fate::Garbage
        {
            self.client.received(&mut WebSocketWire { line, session: speech }, received);
        }
        true
    }
}

impl Compression {
    fn new(agreed: Agreement) -> Self {
        let bits = agreed.sent_by(Role::Client).window_bits;
        Self { agreed, deflater: Deflater::new(1, bits.max(9)), inflater: Inflater::new() }
    }
}

/// What an event is for a client, after it was answered.
fn received(
    line: &mut Line,
    speech: &mut Speech,
    event: Event<Vec<u8>>,
    bytes: &[u8],
) -> Option<Received> {
    Some(match event {
        Event::Message(Message { kind, compressed, body }) => {
            let payload = body.bytes(bytes).to_vec();
            let payload = if compressed { speech.inflate(&payload) } else { Some(payload) };
            let Some(payload) = payload else {
                line.problem("it got a message that cannot be decompressed");
                return None;
            };
            match kind {
                MessageKind::Binary => Received::Binary(payload),
                MessageKind::Text => match String::from_utf8(payload) {
                    Ok(text) => Received::Text(text),
                    Err(_) => {
                        line.problem("it got a text that is not UTF-8");
                        return None;
                    }
                },
            }
        }
        Event::Ping(payload) => {
            speech.pings_received += 1;
            if !speech.close_sent {
                push_frame(line, true, Opcode::Pong, &payload, false);
            }
            Received::Ping(payload.to_vec())
        }
        Event::Pong(payload) => {
            speech.answered(line, &payload);
            Received::Pong(payload.to_vec())
        }
        Event::Close { code, reason } => {
            line.note("gets a close", code.map_or(0, |code| u64::from(code.get())));
            speech.closed_with = code;
            let echoed = speech.close_sent && code == Some(speech.code);
            if echoed && line.fate == Fate::Honest {
                line.ledger.borrow_mut().confirmed(line.index);
                speech.is_confirmed = true;
            }
            speech.close(line, code);
            line.stop_acting();
            Received::Close { code, reason: String::from_utf8_lossy(&reason).into_owned() }
        }
    })
}

impl Speaker for WebSocketSpeaker {
    fn connected(&mut self, line: &mut Line) {
        let mut request = Vec::new();
        let written = self.with_handshake(line, |it| it.write_request(&mut request));
        written.expect("the path of the peers is one");
        line.outgoing.extend(request);
    }

    fn received(&mut self, line: &mut Line, bytes: &mut Vec<u8>) -> bool {
        let was_opening = self.speech.is_none();
        if was_opening {
            self.open(line, bytes);
        }
        let Some(speech) = &mut self.speech else { return true };
        let pings = speech.pings_received;
        let was_amid = speech.connection.is_mid_message();
        let (mut at, mut events) = (0, 0);
        while self.event(line, bytes, &mut at) {
            events += 1;
        }
        bytes.clear();
        let Some(speech) = &self.speech else { return true };
        let only_pings = events > 0 && speech.pings_received - pings == events;
        was_opening || was_amid || speech.connection.is_mid_message() || !only_pings
    }

    fn act(&mut self, line: &mut Line) -> Act {
        match &mut self.speech {
            Some(session) => self.client.act(&mut WebSocketWire { line, session }),
            None => Act::Wait,
        }
    }

    /// One of what RFC 6455 forbids.
    fn break_rules(&mut self, line: &mut Line) {
        let broken: &[&[u8]] = &[
            b"\x83\x80\0\0\0\0",                                 // a reserved opcode
            b"\x81\x02hi",                                       // not masked
            b"\x81\x81\0\0\0\0\xff",                             // not UTF-8
            b"\xf2\x80\0\0\0\0",                                 // reserved bits
            b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", // longer than anything
            b"\x09\x80\0\0\0\0",                                 // a ping in fragments
            b"\x88\x81\0\0\0\0\x03",                             // half a close code
        ];
        let bytes = *line.rng.pick(broken);
        line.outgoing.extend(bytes);
    }

    fn close(&mut self, line: &mut Line) {
        match &mut self.speech {
            Some(speech) => speech.close(line, Some(speech.code)),
            None => line.finish(),
        }
    }

    fn poll(&mut self, _: &mut Line) -> Option<Time> {
        None
    }

    fn was_told(&self) -> bool {
        self.speech.as_ref().is_some_and(|speech| speech.closed_with == Some(CloseCode::GOING_AWAY))
    }

    fn ended(&mut self, line: &mut Line, clean: bool) {
        if let Some(session) = &mut self.speech {
            let clean = clean && session.is_confirmed;
            self.client.ended(&mut WebSocketWire { line, session }, clean);
        }
    }
}
