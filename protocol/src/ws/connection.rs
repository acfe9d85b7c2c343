//! The state machine of one connection, after the handshake, for both roles.
//!
//! What comes in: received bytes, cut anywhere. What goes out: [`Event`]s and at last an
//! [`Error`]. It answers nothing by itself and never holds more memory than it has to.

use super::event::{Control, Event, Message};
use super::frame::{self, HEADER_BYTES_MAX, Header, Receiver, Short};
use super::mask::{mask, rotated};
use super::overhead::Overhead;
use super::utf8::{self, Incremental};
use super::{
    Body, Direct, Env, Error, Limits, Memory, MessageKind, Opcode, Role, Violation, close,
};
use crate::receive::Assembly;

/// How far a connection is on its way to its end (RFC 6455 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Messages go both ways.
    Open,
    /// We sent a close frame; what the peer sent before it saw that still comes.
    CloseSent,
    /// The peer sent a close frame and waits for ours.
    CloseReceived,
    /// Both sent one: the server closes the TCP connection, the client waits for that.
    Closed,
    /// The peer broke the protocol or a limit.
    Failed,
}

/// A WebSocket connection, seen from what is received.
///
/// `B` is the memory that [`Memory`] gives for messages that do not arrive whole. An idle
/// connection holds none, and is at most 112 bytes itself if `B` is 24.
#[derive(Debug)]
pub struct Connection<B> {
    phase: Phase,
    /// The message that did not arrive whole.
    message: Assembly<B>,
    /// The control frame that did not arrive whole. It may come within such a message.
    control: Option<B>,
    /// When the message began.
    started_ms: u64,
    overhead: Overhead,
    /// How many frames the message has had.
    fragments: u32,
    text: Incremental,
    role: Role,
    state: State,
    kind: MessageKind,
    /// Whether a first fragment came, but not yet the last one.
    fragmented: bool,
    /// Whether permessage-deflate was negotiated.
    deflate: bool,
    /// Whether the message is compressed.
    compressed: bool,
    /// How long the cut control frame will be.
    control_len: u8,
}

/// Where in a frame the input ended.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// In its header, after the first `len` bytes; 0 between two frames.
    Header { bytes: [u8; HEADER_BYTES_MAX], len: u8 },
    /// In its payload, or in front of it.
    Payload(Frame),
}

impl Phase {
    const BETWEEN_FRAMES: Self = Self::Header { bytes: [0; HEADER_BYTES_MAX], len: 0 };
}

/// A frame whose header was read and found good.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Payload bytes still to come.
    remaining: usize,
    /// Rotated to what the next byte is masked with.
    key: [u8; 4],
    opcode: Opcode,
    fin: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Connection<B> {
    /// A connection whose handshake is done.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self {
            phase: Phase::BETWEEN_FRAMES,
            message: Assembly::new(),
            control: None,
            started_ms: 0,
            overhead: Overhead::new(),
            fragments: 0,
            text: Incremental::new(),
            role,
            state: State::Open,
            kind: MessageKind::Binary,
            fragmented: false,
            deflate: false,
            compressed: false,
            control_len: 0,
        }
    }

    /// The same with permessage-deflate negotiated: messages may then be
    /// [compressed](Message::compressed), and nothing else is different.
    #[must_use]
    pub const fn with_deflate(mut self) -> Self {
        self.deflate = true;
        self
    }

    /// Reads the next event from `input[*at..]` and moves `*at` behind it. `Ok(None)`: all of
    /// `input` is consumed, nothing of it is needed any more.
    ///
    /// Payloads are unmasked in place. A message that arrived whole stays where it is, as a
    /// [`Body::Window`]; what is cut is copied to memory from `env`.
    ///
    /// After a close frame or an error everything that follows is consumed in silence (RFC 6455
    /// sections 1.4 and 7.1.7).
    ///
    /// ```
    /// use hioload_protocol::ws::{Connection, Env, Event, HeapMemory, Limits, MessageKind, Role};
    ///
    /// let mut connection = Connection::new(Role::Server);
    /// let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms: 0 };
    ///
    /// // RFC 6455 section 5.7: a single-frame masked text message, "Hello"; then half a frame.
    /// let mut input = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x89\x80\x00";
    /// let mut at = 0;
    /// let Some(Event::Message(message)) = connection.read(&mut input, &mut at, &mut env)? else {
    ///     panic!("a whole message");
    /// };
    /// assert_eq!(message.kind, MessageKind::Text);
    /// assert_eq!(message.body.bytes(&input), b"Hello");
    ///
    /// assert_eq!(connection.read(&mut input, &mut at, &mut env)?, None);
    /// assert_eq!(at, input.len());
    /// # Ok::<(), hioload_protocol::ws::Error>(())
    /// ```
    ///
    /// # Errors
    /// The peer broke the protocol or a limit, or `env` has no memory. The connection has failed:
    /// send a close frame with the code of the error, then close.
    ///
    /// # Panics
    /// If `*at` is behind the end of `input`, or if [`Memory`] gives less than it was asked for.
    #[inline]
    pub fn read<M: Memory<Buffer = B>>(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Event<B>>, Error> {
        if let Some(short) = self.read_short(input, at, env.limits) {
            return short.map(Some).map_err(|violation| self.fail(violation));
        }
        if self.is_deaf() {
            *at = input.len();
            return Ok(None);
        }
        match self.next_event(input, at, env) {
            Ok(event) => Ok(event),
            Err(violation) => {
                *at = input.len();
                Err(self.fail(violation))
            }
        }
    }

    /// Lends the memory of the message that is arriving, if at least `min_bytes` of the current
    /// data frame are still to come: the rest need not go through a buffer in between.
    ///
    /// Call it when [`read`](Self::read) has consumed its input. Makes room first if there is less
    /// than `min_bytes`, so that the memory is at most twice what has arrived, or 64 KiB. The tail
    /// of the buffer may be split off to be received into; before [`filled`](Self::filled) it
    /// must be put back ([`buffer_mut`](Self::buffer_mut)), and no read may come in between.
    ///
    /// `Ok(None)`: nothing that large is arriving.
    ///
    /// # Errors
    /// There is no room, and `env` has no memory. The connection has failed.
    pub fn direct<M: Memory<Buffer = B>>(
        &mut self,
        min_bytes: usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Direct<'_, B>>, Error> {
        let Phase::Payload(frame) = self.phase else { return Ok(None) };
        if frame.opcode.is_control() || frame.remaining < min_bytes {
            return Ok(None);
        }
        let room = self.message.room();
        if room < min_bytes.max(1)
            && self.message.reserve(0, frame.remaining, env.memory).is_err()
            && room == 0
        {
            return Err(self.fail(Violation::OutOfMemory));
        }
        let filled = self.message.filled();
        let lent = self.message.buffer();
        Ok(lent.map(|buffer| Direct { buffer, filled, wanted: frame.remaining }))
    }

    /// The memory of the message that is arriving, if it has any: to put back what was split off
    /// after [`direct`](Self::direct).
    pub const fn buffer_mut(&mut self) -> Option<&mut B> {
        self.message.buffer()
    }

    /// Takes the `bytes` that were received to `buffer[filled..]` of [`direct`](Self::direct): they
    /// are unmasked, checked and counted. A message that is complete with them comes out.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    ///
    /// # Panics
    /// If `bytes` is more than was lent.
    pub fn filled<M: Memory<Buffer = B>>(
        &mut self,
        bytes: usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Event<B>>, Error> {
        let Phase::Payload(frame) = self.phase else {
            assert!(bytes == 0 || self.is_deaf(), "no frame is arriving");
            return Ok(None);
        };
        assert!(bytes <= frame.remaining && bytes <= self.message.room(), "more than was lent");
        let event = self.check_age(env).and_then(|()| self.take_in(frame, bytes, 0));
        event.map_err(|violation| self.fail(violation))
    }

    /// Notes that we sent a close frame.
    pub const fn close_sent(&mut self) {
        self.state = match self.state {
            State::Open => State::CloseSent,
            State::CloseReceived => State::Closed,
            state => state,
        };
    }

    /// Which side of the connection we are.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// How far the connection is on its way to its end.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether a message has begun to arrive and is not complete.
    #[must_use]
    pub const fn is_mid_message(&self) -> bool {
        match self.phase {
            Phase::Payload(frame) => self.fragmented || !frame.opcode.is_control(),
            Phase::Header { .. } => self.fragmented,
        }
    }

    /// When the message that is arriving becomes too old, in the milliseconds of
    /// [`Env::now_ms`]: a read at that time or later fails. `None`: none is arriving, or its age
    /// has no limit.
    #[must_use]
    pub const fn message_deadline_ms(&self, limits: &Limits) -> Option<u64> {
        if limits.message_age_ms_max == 0 || !self.is_mid_message() {
            return None;
        }
        Some(self.started_ms.saturating_add(limits.message_age_ms_max))
    }

    /// Starts the age of the message that is arriving anew: for a caller that did not read for a
    /// while, which is no fault of the peer.
    pub const fn restart_age(&mut self, now_ms: u64) {
        self.started_ms = now_ms;
    }

    const fn receiver(&self) -> Receiver {
        Receiver { role: self.role, deflate: self.deflate }
    }

    /// Whether whatever comes is ignored.
    const fn is_deaf(&self) -> bool {
        matches!(self.state, State::CloseReceived | State::Closed | State::Failed)
    }

    /// The usual input in a fraction of the steps: between two messages, one of a single
    /// uncompressed frame of at most 125 bytes that is there as a whole. `None`: it is something
    /// else, and nothing was done.
    #[inline]
    fn read_short(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        limits: &Limits,
    ) -> Option<Result<Event<B>, Violation>> {
        let is_between = matches!(self.phase, Phase::Header { len: 0, .. }) && !self.fragmented;
        if !is_between || self.is_deaf() {
            return None;
        }
        let header_at = *at;
        let Short { kind, key, header_len, len } =
            frame::decode_short(input.get(header_at..)?, self.role)?;
        let start = header_at + header_len;
        let payload = start..start + len;
        let bytes = input.get_mut(payload.clone())?;
        if len > limits.message_bytes_max {
            return None;
        }
        *at = payload.end;
        self.unmask(bytes, key);
        if kind == MessageKind::Text && utf8::check(bytes).is_err() {
            *at = input.len();
            return Some(Err(Violation::TextNotUtf8));
        }
        self.overhead.credit_payload(len);
        self.overhead.credit_message();
        let body = Body::Window { payload, header_at: Some(header_at) };
        Some(Ok(Event::Message(Message { kind, compressed: false, body })))
    }

    fn next_event<M: Memory<Buffer = B>>(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Event<B>>, Violation> {
        self.check_age(env)?;
        // Each round consumes at least one byte: a frame without payload has at least a header.
        while *at < input.len() {
            let (frame, header_at) = match self.phase {
                Phase::Payload(frame) => (frame, None),
                Phase::Header { .. } => {
                    let start = *at;
                    let Some(header) = self.read_header(input, at)? else { return Ok(None) };
                    // A header that began in an earlier input ends here, but does not lie here.
                    let whole = *at - start == header.encoded_len();
                    (self.begin(&header, env)?, whole.then_some(start))
                }
            };
            let event = if frame.opcode.is_control() {
                self.read_control(frame, input, at, env)?
            } else {
                self.read_data(frame, header_at, input, at, env)?
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Reads a header, or as much of it as has come.
    #[inline]
    fn read_header(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Header>, Violation> {
        let rest = &input[*at..];
        let (mut bytes, kept) = match self.phase {
            Phase::Header { bytes, len } if len > 0 => (bytes, usize::from(len)),
            _ => {
                if let Some((header, len)) = frame::decode(rest, Some(self.receiver()))? {
                    *at += len;
                    return Ok(Some(header));
                }
                ([0; HEADER_BYTES_MAX], 0)
            }
        };
        let taken = rest.len().min(HEADER_BYTES_MAX - kept);
        bytes[kept..kept + taken].copy_from_slice(&rest[..taken]);
        if let Some((header, len)) = frame::decode(&bytes[..kept + taken], Some(self.receiver()))? {
            *at += len - kept;
            return Ok(Some(header));
        }
        *at = input.len();
        self.phase = Phase::Header { bytes, len: (kept + taken) as u8 }; // at most 14
        Ok(None)
    }

    /// Checks a frame by its header: before this nothing is done for its payload.
    #[inline]
    fn begin<M>(&mut self, header: &Header, env: &Env<'_, M>) -> Result<Frame, Violation> {
        let Header { fin, opcode, len, .. } = *header;
        if opcode.is_control() {
            self.overhead.charge(env.limits, env.now_ms)?;
        } else {
            match (opcode == Opcode::Continuation, self.fragmented) {
                (true, false) => return Err(Violation::ContinuationWithoutStart),
                (false, true) => return Err(Violation::MessageInsideMessage),
                (true, true) => {}
                (false, false) => {
                    self.started_ms = env.now_ms;
                    self.compressed = header.rsv1;
                    self.kind = match opcode {
                        Opcode::Text => MessageKind::Text,
                        _ => MessageKind::Binary,
                    };
                }
            }
            let limit = match self.compressed {
                false => env.limits.message_bytes_max,
                true => env.limits.compressed_bytes_max(),
            };
            let left = limit.saturating_sub(self.message.filled());
            if len > left as u64 {
                return Err(Violation::MessageTooBig);
            }
            if !fin || self.fragmented {
                self.begin_fragment(env)?;
            }
        }
        // A control frame has at most 125 bytes, a data frame at most a `usize` of the limits.
        Ok(Frame { remaining: len as usize, key: header.mask.unwrap_or_default(), opcode, fin })
    }

    fn begin_fragment<M>(&mut self, env: &Env<'_, M>) -> Result<(), Violation> {
        self.fragmented = true;
        self.fragments = self.fragments.saturating_add(1);
        if self.fragments > env.limits.fragments_max {
            return Err(Violation::TooManyFragments);
        }
        self.overhead.charge(env.limits, env.now_ms)
    }

    #[inline]
    fn read_data<M: Memory<Buffer = B>>(
        &mut self,
        frame: Frame,
        header_at: Option<usize>,
        input: &mut [u8],
        at: &mut usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Event<B>>, Violation> {
        let available = input.len() - *at;
        if frame.fin && frame.remaining <= available && self.message.is_empty() {
            let payload = *at..*at + frame.remaining;
            *at = payload.end;
            let bytes = &mut input[payload.clone()];
            self.unmask(bytes, frame.key);
            if self.is_text() {
                utf8::check(bytes).map_err(|_| Violation::TextNotUtf8)?;
            }
            self.overhead.credit_payload(bytes.len());
            let header_at = if self.fragmented { None } else { header_at };
            return Ok(Some(self.complete(Body::Window { payload, header_at })));
        }

        let count = available.min(frame.remaining);
        if self.message.room() < count {
            let given = self.message.reserve(count, frame.remaining, env.memory);
            given.map_err(|_| Violation::OutOfMemory)?;
        }
        self.message.tail()[..count].copy_from_slice(&input[*at..*at + count]);
        *at += count;
        self.take_in(frame, count, *at)
    }

    /// Takes in the next `count` bytes of a data frame, which lie behind the filled ones. `at` is
    /// where the empty window of a message without any payload lies.
    fn take_in(
        &mut self,
        mut frame: Frame,
        count: usize,
        at: usize,
    ) -> Result<Option<Event<B>>, Violation> {
        let (masked, is_text) = (self.role == Role::Server, self.is_text());
        let bytes = self.message.advance(count);
        if masked {
            mask(bytes, frame.key, 0);
        }
        if is_text {
            self.text.push(bytes).map_err(|_| Violation::TextNotUtf8)?;
        }
        self.overhead.credit_payload(count);
        frame.remaining -= count;
        frame.key = rotated(frame.key, count);
        if frame.remaining > 0 {
            self.phase = Phase::Payload(frame);
            return Ok(None);
        }
        self.phase = Phase::BETWEEN_FRAMES;
        if !frame.fin {
            return Ok(None);
        }
        self.text.finish().map_err(|_| Violation::TextNotUtf8)?;
        let body = match self.message.take() {
            (Some(buffer), len) => Body::Assembled { buffer, len },
            (None, _) => Body::Window { payload: at..at, header_at: None },
        };
        Ok(Some(self.complete(body)))
    }

    #[inline]
    fn complete(&mut self, body: Body<B>) -> Event<B> {
        self.phase = Phase::BETWEEN_FRAMES;
        self.fragmented = false;
        self.fragments = 0;
        self.overhead.credit_message();
        Event::Message(Message { kind: self.kind, compressed: self.compressed, body })
    }

    /// Whether what arrives must be UTF-8: compressed text is checked when it has been inflated.
    #[inline]
    const fn is_text(&self) -> bool {
        matches!(self.kind, MessageKind::Text) && !self.compressed
    }

    fn read_control<M: Memory<Buffer = B>>(
        &mut self,
        mut frame: Frame,
        input: &mut [u8],
        at: &mut usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Event<B>>, Violation> {
        let available = input.len() - *at;
        let count = available.min(frame.remaining);
        let arrived = &mut input[*at..*at + count];
        *at += count;
        self.unmask(arrived, frame.key);
        if count == frame.remaining && self.control.is_none() {
            self.phase = Phase::BETWEEN_FRAMES;
            return self.control_event(frame.opcode, Control::copied(arrived)).map(Some);
        }

        if count > 0 {
            if self.control.is_none() {
                self.control_len = frame.remaining as u8; // at most 125, see `begin`
                self.control = env.memory.acquire(frame.remaining, frame.remaining);
            }
            let buffer = self.control.as_mut().ok_or(Violation::OutOfMemory)?.as_mut();
            let start = usize::from(self.control_len) - frame.remaining;
            buffer[start..start + count].copy_from_slice(arrived);
            frame.remaining -= count;
            frame.key = rotated(frame.key, count);
        }
        self.phase = Phase::Payload(frame);
        if frame.remaining > 0 {
            return Ok(None);
        }
        self.phase = Phase::BETWEEN_FRAMES;
        let buffer = self.control.take().ok_or(Violation::OutOfMemory)?;
        let payload = Control::copied(&buffer.as_ref()[..usize::from(self.control_len)]);
        self.control_event(frame.opcode, payload).map(Some)
    }

    fn control_event(&mut self, opcode: Opcode, payload: Control) -> Result<Event<B>, Violation> {
        match opcode {
            Opcode::Ping => Ok(Event::Ping(payload)),
            Opcode::Pong => Ok(Event::Pong(payload)),
            _ => {
                let (code, reason) = close::parse(&payload)?;
                self.end(match self.state {
                    State::CloseSent => State::Closed,
                    _ => State::CloseReceived,
                });
                Ok(Event::Close { code, reason })
            }
        }
    }

    #[inline]
    fn unmask(&self, bytes: &mut [u8], key: [u8; 4]) {
        if self.role == Role::Server {
            mask(bytes, key, 0);
        }
    }

    #[inline]
    fn check_age<M>(&self, env: &Env<'_, M>) -> Result<(), Violation> {
        match self.message_deadline_ms(env.limits) {
            Some(deadline_ms) if env.now_ms >= deadline_ms => Err(Violation::MessageTooOld),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, violation: Violation) -> Error {
        self.end(State::Failed);
        violation.into()
    }

    /// Nothing will be read any more: gives the memory back.
    fn end(&mut self, state: State) {
        self.state = state;
        self.phase = Phase::BETWEEN_FRAMES;
        self.fragmented = false;
        self.message.take();
        self.control = None;
    }
}
