//! Targets that put messages together: frames cut at every byte, and fragments against a model.

use hioload_protocol::ws::{Limits, Opcode, Role, Violation};

use super::common::{Peer, Seen, frame_to, model};

/// The longest stream that is cut at every byte: that is quadratic.
const CUT_BYTES_MAX: usize = 96;

/// Frames cut at every byte: four bytes of settings, then a stream. What is seen of each front of
/// it is what the model sees of that front, so nothing comes late; with the rest it is what is seen
/// of the whole.
pub(crate) fn frame_cuts(data: &[u8]) {
    let Some((settings, stream)) = data.split_first_chunk::<4>() else { return };
    let [flags, message_bytes, fragments, overhead] = settings;
    let stream = &stream[..stream.len().min(CUT_BYTES_MAX)];
    let role = if flags & 1 == 1 { Role::Server } else { Role::Client };
    let (deflate, lends) = (flags & 2 == 2, flags & 4 == 4);
    let limits = Limits {
        message_bytes_max: usize::from(*message_bytes),
        fragments_max: u32::from(*fragments),
        message_age_ms_max: 0,
        overhead_budget_bytes: u32::from(*overhead) << 3,
    };
    let whole = model::events(role, &limits, deflate, stream);
    for cut in 0..=stream.len() {
        let (front, mut rest) = stream.split_at(cut);
        let mut peer = Peer::with_limits(role, limits);
        if deflate {
            peer.connection = peer.connection.with_deflate();
        }
        let mut seen = peer.read(front);
        assert_eq!(seen, model::events(role, &limits, deflate, front), "of {cut} bytes");
        if lends
            && !rest.is_empty()
            && let Some(events) = peer.read_direct(&mut rest, 1)
        {
            seen.extend(events);
        }
        seen.extend(peer.read(rest));
        assert_eq!(seen, whole, "cut at {cut}");
    }
}

/// A message in fragments, as far as it has come.
struct Open {
    text: bool,
    payload: Vec<u8>,
    frames: u32,
    started_ms: u64,
}

/// A data frame that is being delivered.
struct Frame {
    /// All of it.
    bytes: usize,
    header_bytes: usize,
    payload: Vec<u8>,
    fin: bool,
    /// How much of it was delivered.
    at: usize,
}

/// The peer under test, and what is known of it.
struct Assembling {
    peer: Peer,
    open: Option<Open>,
    has_failed: bool,
    /// Tells payloads apart.
    letter: u8,
}

/// Fragments with memory that runs out, time that passes and pings in between: six bytes of
/// settings, then operations of three bytes. The model knows what is sent, and parses nothing.
pub(crate) fn assembly(data: &[u8]) {
    let Some((settings, operations)) = data.split_first_chunk::<6>() else { return };
    let [shift, message_bytes, fragments, age_ms, refuse_from, role] = *settings;
    let limits = Limits {
        message_bytes_max: usize::from(message_bytes) << (shift % 12),
        fragments_max: u32::from(fragments),
        message_age_ms_max: u64::from(age_ms),
        overhead_budget_bytes: u32::MAX,
    };
    let role = if role & 1 == 1 { Role::Server } else { Role::Client };
    let mut peer = Peer::with_limits(role, limits);
    peer.memory.refuse_from = (refuse_from > 0).then_some(usize::from(refuse_from));
    let mut state = Assembling { peer, open: None, has_failed: false, letter: 0 };
    for operation in operations.chunks_exact(3).take(32) {
        let [what, amount, detail] = [operation[0], operation[1], operation[2]];
        match what & 7 {
            0 => state.peer.now_ms += u64::from(amount),
            1 => state.ping(amount % 126),
            2 => state.whole(what & 8 == 8, usize::from(amount) << (detail & 7), detail),
            _ => {
                let (fin, text) = (what & 8 == 8, what & 16 == 16);
                state.fragment(fin, text, usize::from(amount) << ((what >> 5) & 7), detail);
            }
        }
    }
    let bound = limits.message_bytes_max.max(1);
    assert!(state.peer.memory.len_max <= bound, "more memory than a message may have");
}

impl Assembling {
    fn ping(&mut self, len: u8) {
        let payload = vec![b'p'; usize::from(len)];
        let ping = frame_to(self.peer.connection.role(), true, Opcode::Ping, &payload);
        let expected = self.before_read().unwrap_or_else(|| vec![Seen::Ping(payload)]);
        let seen = self.peer.read(&ping);
        self.check(&seen, expected);
    }

    /// A message in one frame; within a message in fragments that is a violation.
    fn whole(&mut self, text: bool, len: usize, cut: u8) {
        let broken = self.open.is_some().then_some(Violation::MessageInsideMessage);
        self.frame(if text { Opcode::Text } else { Opcode::Binary }, true, len, cut, broken);
    }

    fn fragment(&mut self, fin: bool, text: bool, len: usize, cut: u8) {
        let opcode = match (self.open.is_some(), text) {
            (true, _) => Opcode::Continuation,
            (false, true) => Opcode::Text,
            (false, false) => Opcode::Binary,
        };
        self.frame(opcode, fin, len, cut, None);
    }

    /// Delivers a frame in pieces that `cut` says, some of them straight into the message; its
    /// header is a `violation` perhaps.
    fn frame(
        &mut self,
        opcode: Opcode,
        fin: bool,
        len: usize,
        cut: u8,
        violation: Option<Violation>,
    ) {
        self.letter = self.letter.wrapping_add(1);
        let payload: Vec<u8> = (0..len).map(|at| (at % 97) as u8 ^ (self.letter & 7)).collect();
        let bytes = frame_to(self.peer.connection.role(), fin, opcode, &payload);
        let header_bytes = bytes.len() - payload.len();
        let mut frame = Frame { bytes: bytes.len(), header_bytes, payload, fin, at: 0 };
        let piece_bytes = 1 + (bytes.len() >> (cut & 7));
        while frame.at < bytes.len() {
            let rest = &bytes[frame.at..];
            let mut piece = &rest[..piece_bytes.min(rest.len())];
            if cut & 8 == 8 && frame.at >= header_bytes && !self.has_failed {
                let before = piece.len();
                if let Some(seen) = self.peer.read_direct(&mut piece, 1) {
                    self.delivered(&mut frame, before - piece.len(), opcode, violation, &seen);
                }
                if piece.is_empty() {
                    continue;
                }
            }
            let seen = self.peer.read(piece);
            self.delivered(&mut frame, piece.len(), opcode, violation, &seen);
            if cut & 16 == 16 {
                self.peer.now_ms += u64::from(cut >> 5);
            }
        }
    }

    /// What a read gives before it looks at a byte: nothing any more, or that it is too late.
    fn before_read(&self) -> Option<Vec<Seen>> {
        if self.has_failed {
            return Some(Vec::new());
        }
        let age_ms = self.peer.limits.message_age_ms_max;
        let started_ms = self.open.as_ref()?.started_ms;
        let too_old = age_ms > 0 && self.peer.now_ms >= started_ms + age_ms;
        too_old.then(|| vec![Seen::Failed(Violation::MessageTooOld)])
    }

    /// `count` more bytes of a frame were read: notes it, and checks what came out.
    fn delivered(
        &mut self,
        frame: &mut Frame,
        count: usize,
        opcode: Opcode,
        violation: Option<Violation>,
        seen: &[Seen],
    ) {
        let before = frame.at;
        frame.at += count;
        let early = self.before_read();
        let header = before < frame.header_bytes && frame.at >= frame.header_bytes;
        let expected = match early {
            Some(expected) => expected,
            None if header
                && let Some(broken) = violation.or_else(|| self.begin(frame, opcode)) =>
            {
                vec![Seen::Failed(broken)]
            }
            None if frame.at == frame.bytes => self.end(frame),
            None => Vec::new(),
        };
        self.check(seen, expected);
    }

    /// The header of a data frame is there.
    fn begin(&mut self, frame: &Frame, opcode: Opcode) -> Option<Violation> {
        let limits = self.peer.limits;
        let (started_ms, text) = (self.peer.now_ms, opcode == Opcode::Text);
        let fragmented = self.open.is_some() || !frame.fin;
        let open =
            self.open.get_or_insert(Open { text, payload: Vec::new(), frames: 0, started_ms });
        if open.payload.len() + frame.payload.len() > limits.message_bytes_max {
            return Some(Violation::MessageTooBig);
        }
        open.frames += u32::from(fragmented);
        (open.frames > limits.fragments_max).then_some(Violation::TooManyFragments)
    }

    /// The last byte of a data frame is there.
    fn end(&mut self, frame: &Frame) -> Vec<Seen> {
        let Some(open) = &mut self.open else { return Vec::new() };
        open.payload.extend_from_slice(&frame.payload);
        if !frame.fin {
            return Vec::new();
        }
        let Some(Open { text, payload, .. }) = self.open.take() else { return Vec::new() };
        vec![match text {
            true => Seen::Text(String::from_utf8(payload).expect("it is ASCII")),
            false => Seen::Binary(payload),
        }]
    }

    fn check(&mut self, seen: &[Seen], expected: Vec<Seen>) {
        if seen == [Seen::Failed(Violation::OutOfMemory)] {
            let memory = &self.peer.memory;
            assert!(memory.refuse_from.is_some_and(|from| memory.asked >= from), "it has memory");
        } else {
            assert_eq!(seen, expected);
        }
        self.has_failed |= matches!(seen, [Seen::Failed(_)]);
    }
}
