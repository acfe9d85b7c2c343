//! A reference model: reads a stream that is there as a whole, in the plainest way, with the
//! standard library. What the state machine makes of the same bytes, however cut, must be equal.

use hioload_protocol::ws::{Limits, Opcode, Role, Violation};

use super::Seen;

/// What `role` must see of `stream` if no time passes; `deflate`: if that was agreed on.
pub fn events(role: Role, limits: &Limits, deflate: bool, stream: &[u8]) -> Vec<Seen> {
    let mut model = Model { role, limits, deflate, debt: 0, message: None, seen: Vec::new() };
    if let Err(violation) = model.run(stream) {
        model.seen.push(Seen::Failed(violation));
    }
    model.seen
}

struct Model<'a> {
    role: Role,
    limits: &'a Limits,
    deflate: bool,
    debt: usize,
    message: Option<Open>,
    seen: Vec<Seen>,
}

/// A message that is not complete.
struct Open {
    text: bool,
    compressed: bool,
    payload: Vec<u8>,
    fragments: u32,
}

struct Frame {
    fin: bool,
    rsv1: bool,
    opcode: Opcode,
    key: [u8; 4],
    len: u64,
    header_len: usize,
}

impl Model<'_> {
    fn run(&mut self, mut stream: &[u8]) -> Result<(), Violation> {
        while let Some(frame) = self.header(stream)? {
            self.check(&frame)?;
            stream = &stream[frame.header_len..];
            let len = usize::try_from(frame.len).expect("checked").min(stream.len());
            let whole = len as u64 == frame.len;
            let mut payload = stream[..len].to_vec();
            payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= frame.key[i % 4]);
            stream = &stream[len..];
            if frame.opcode.is_control() {
                if whole && self.control(frame.opcode, payload)? {
                    return Ok(());
                }
            } else {
                self.data(&frame, &payload, whole)?;
            }
            if !whole {
                return Ok(());
            }
        }
        Ok(())
    }

    fn header(&self, bytes: &[u8]) -> Result<Option<Frame>, Violation> {
        let Some(first) = bytes.first() else { return Ok(None) };
        let rsv1 = self.deflate && first & 0x70 == 0x40 && [1, 2].contains(&(first & 0x0F));
        if first & 0x70 != 0 && !rsv1 {
            return Err(Violation::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let opcode = match first & 0x0F {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Violation::ReservedOpcode),
        };
        if opcode.is_control() && !fin {
            return Err(Violation::ControlFragmented);
        }
        let Some(second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        match self.role {
            Role::Server if !masked => return Err(Violation::ClientFrameUnmasked),
            Role::Client if masked => return Err(Violation::ServerFrameMasked),
            _ => {}
        }
        let short = u64::from(second & 0x7F);
        if opcode.is_control() && short > 125 {
            return Err(Violation::ControlTooLong);
        }
        let extended = [0, 2, 8][(short.max(125) - 125) as usize];
        if extended == 8 && bytes.get(2).is_some_and(|byte| *byte > 127) {
            return Err(Violation::LengthTopBit);
        }
        let Some(length) = bytes.get(2..2 + extended) else { return Ok(None) };
        let long = length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        if (extended == 2 && long < 126) || (extended == 8 && long < 65_536) {
            return Err(Violation::LengthNotMinimal);
        }
        let len = if extended == 0 { short } else { long };
        let (mut header_len, mut key) = (2 + extended, [0; 4]);
        if masked {
            let Some(bytes) = bytes.get(header_len..header_len + 4) else { return Ok(None) };
            key.copy_from_slice(bytes);
            header_len += 4;
        }
        Ok(Some(Frame { fin, rsv1, opcode, key, len, header_len }))
    }

    fn check(&mut self, frame: &Frame) -> Result<(), Violation> {
        if frame.opcode.is_control() {
            return self.charge();
        }
        let fragmented = self.message.is_some();
        match frame.opcode {
            Opcode::Continuation if !fragmented => return Err(Violation::ContinuationWithoutStart),
            Opcode::Text | Opcode::Binary if fragmented => {
                return Err(Violation::MessageInsideMessage);
            }
            _ => {}
        }
        let text = frame.opcode == Opcode::Text;
        let new = || Open { text, compressed: frame.rsv1, payload: Vec::new(), fragments: 0 };
        let message = self.message.get_or_insert_with(new);
        let limit = self.limits.message_bytes_max;
        // A payload may be a little longer than the message that comes out of it.
        let limit = if message.compressed { limit + limit / 8 + 64 } else { limit };
        if frame.len > (limit - message.payload.len()) as u64 {
            return Err(Violation::MessageTooBig);
        }
        if fragmented || !frame.fin {
            message.fragments += 1;
            if message.fragments > self.limits.fragments_max {
                return Err(Violation::TooManyFragments);
            }
            self.charge()?;
        }
        Ok(())
    }

    fn charge(&mut self) -> Result<(), Violation> {
        self.debt += 16;
        if self.debt >= self.limits.overhead_budget_bytes as usize {
            return Err(Violation::OverheadExhausted);
        }
        Ok(())
    }

    fn data(&mut self, frame: &Frame, payload: &[u8], whole: bool) -> Result<(), Violation> {
        let mut message = self.message.take().expect("checked");
        message.payload.extend_from_slice(payload);
        let complete = frame.fin && whole;
        if message.text && !message.compressed {
            match std::str::from_utf8(&message.payload) {
                Err(error) if error.error_len().is_some() || complete => {
                    return Err(Violation::TextNotUtf8);
                }
                _ => {}
            }
        }
        self.debt = self.debt.saturating_sub(payload.len());
        if !complete {
            self.message = Some(message);
            return Ok(());
        }
        self.debt = self.debt.saturating_sub(16);
        self.seen.push(if message.compressed {
            Seen::Compressed(message.text, message.payload)
        } else if message.text {
            Seen::Text(String::from_utf8(message.payload).expect("checked"))
        } else {
            Seen::Binary(message.payload)
        });
        Ok(())
    }

    /// `true` if it was the last frame.
    fn control(&mut self, opcode: Opcode, payload: Vec<u8>) -> Result<bool, Violation> {
        match opcode {
            Opcode::Ping => self.seen.push(Seen::Ping(payload)),
            Opcode::Pong => self.seen.push(Seen::Pong(payload)),
            _ => {
                self.seen.push(close(&payload)?);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn close(body: &[u8]) -> Result<Seen, Violation> {
    if body.is_empty() {
        return Ok(Seen::Close(None, String::new()));
    }
    if body.len() == 1 {
        return Err(Violation::CloseBodyOneByte);
    }
    let code = u16::from(body[0]) << 8 | u16::from(body[1]);
    let defined = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    if !defined.contains(&code) && !(3000..5000).contains(&code) {
        return Err(Violation::CloseCodeInvalid);
    }
    let reason = String::from_utf8(body[2..].to_vec());
    reason.map(|reason| Seen::Close(Some(code), reason)).or(Err(Violation::CloseReasonNotUtf8))
}
