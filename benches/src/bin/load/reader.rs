//! What comes back on one connection: frames, or bare bytes, compared with what was sent.
//!
//! Replies that come whole and with the usual header are compared in one go. Everything else that
//! a server may do (fragments, pings in between, frames cut anywhere) is read byte by byte.

use hioload_protocol::deflate::Inflater;
use hioload_protocol::iproto;
use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::mask::mask;
use hioload_protocol::ws::{Env, Limits, Memory, Opcode};

use crate::script::{Format, Identity, KEY, Script, sync};

/// How much of two payloads that differ is shown.
const EXCERPT_BYTES: usize = 16;

/// What is wrong with what came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server said goodbye.
    Closed(String),
    /// It broke the protocol, or echoed something else.
    Wrong(String),
}

/// What all connections of a thread read with.
pub(crate) struct Desk<'a> {
    pub(crate) script: &'a Script,
    pub(crate) verify: bool,
    inflater: Inflater,
    inflated: Reused,
    limits: Limits,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(script: &'a Script, verify: bool, bytes_max: usize) -> Self {
        let limits = Limits { message_bytes_max: bytes_max + 1, ..Limits::default() };
        Self { script, verify, inflater: Inflater::new(), inflated: Reused::default(), limits }
    }
}

/// How far the messages of a connection are.
#[derive(Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) identity: Identity,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

#[derive(Default)]
pub(crate) struct Reader {
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// How much of the message has come.
    offset: usize,
    /// Whether it has begun.
    in_message: bool,
    compressed: bool,
    /// A control frame, or a compressed message, that is arriving.
    gathered: Vec<u8>,
    control: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Frame {
    remaining: usize,
    opcode: Opcode,
    fin: bool,
}

impl Reader {
    /// Reads all of `input`; counts the messages in `progress`, and appends what has to be answered
    /// to `answers`.
    #[inline]
    pub(crate) fn read(
        &mut self,
        mut input: &[u8],
        desk: &mut Desk<'_>,
        progress: &mut Progress,
        answers: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let usual = desk.script.format != Format::Deflate;
        while !input.is_empty() {
            if usual && let Some(len) = self.whole(input, desk, progress) {
                progress.received += 1;
                input = &input[len..];
            } else {
                let read = self.step(input, desk, progress, answers)?;
                input = &input[read..];
            }
        }
        Ok(())
    }

    /// The length of the reply that `input` begins with, if it is exactly what is expected.
    #[inline]
    fn whole(&self, input: &[u8], desk: &Desk<'_>, progress: &Progress) -> Option<usize> {
        if self.frame.is_some() || self.header_len > 0 || self.in_message {
            return None;
        }
        if progress.received == progress.sent {
            return None;
        }
        let entry = desk.script.entry(progress.identity, progress.received);
        let mut rest = input.strip_prefix(entry.reply_header())?;
        if desk.script.format == Format::Iproto {
            rest = rest.strip_prefix(&sync(progress.received).to_le_bytes())?;
        }
        let payload = rest.get(..entry.size)?;
        if desk.verify {
            let stamp = progress.identity.stamp(progress.received);
            let (begin, rest) = desk.script.expected(entry, &stamp, 0);
            let (came, came_rest) = payload.split_at(begin.len());
            if came != begin || came_rest != rest {
                return None;
            }
        }
        Some(input.len() - rest.len() + entry.size)
    }

    /// Reads a header or (a part of) a payload, and answers how many bytes that took.
    #[cold]
    fn step(
        &mut self,
        input: &[u8],
        desk: &mut Desk<'_>,
        progress: &mut Progress,
        answers: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let mut read = 0;
        if desk.script.format == Format::Tcp {
            self.expect_one(progress)?;
            let entry = desk.script.entry(progress.identity, progress.received);
            let frame = Frame { remaining: entry.size, opcode: Opcode::Binary, fin: true };
            self.frame.get_or_insert(frame);
        } else if self.frame.is_none() && desk.script.format == Format::Iproto {
            read = self.read_packet_header(input, desk, progress, answers)?;
        } else if self.frame.is_none() {
            read = self.read_header(input, desk.script.format, progress)?;
        }
        let Some(frame) = &mut self.frame else { return Ok(read) };
        let len = frame.remaining.min(input.len() - read);
        frame.remaining -= len;
        let (frame, part) = (*frame, &input[read..read + len]);
        if frame.opcode.is_control() {
            self.control.extend_from_slice(part);
        } else if self.compressed {
            self.gathered.extend_from_slice(part);
        } else {
            self.compare(part, desk, progress)?;
        }
        if frame.remaining == 0 {
            self.frame = None;
            self.end(frame, desk, progress, answers)?;
        }
        Ok(read + len)
    }

    fn expect_one(&self, progress: &Progress) -> Result<(), Fault> {
        if progress.received < progress.sent {
            return Ok(());
        }
        Err(Fault::Wrong(format!("more came back than the {} messages it got", progress.sent)))
    }

    fn read_header(
        &mut self,
        input: &[u8],
        format: Format,
        progress: &Progress,
    ) -> Result<usize, Fault> {
        let had = usize::from(self.header_len);
        let taken = input.len().min(HEADER_BYTES_MAX - had);
        self.header[had..had + taken].copy_from_slice(&input[..taken]);
        let decoded = Header::decode(&self.header[..had + taken])
            .map_err(|error| Fault::Wrong(format!("what came is no frame: {error}")))?;
        let Some((header, len)) = decoded else {
            self.header_len += taken as u8;
            return Ok(taken);
        };
        self.header_len = 0;
        if header.mask.is_some() {
            return Err(Fault::Wrong("it masks its frames, which only clients may".to_owned()));
        }
        let begins = matches!(header.opcode, Opcode::Text | Opcode::Binary);
        let reserved = header.rsv2 || header.rsv3;
        if reserved || header.rsv1 && !(begins && format == Format::Deflate) {
            return Err(Fault::Wrong("a reserved bit is set that nobody agreed on".to_owned()));
        }
        if begins {
            self.expect_one(progress)?;
            let wanted = if format == Format::Binary { Opcode::Binary } else { Opcode::Text };
            if header.opcode != wanted {
                return Err(Fault::Wrong(format!(
                    "the reply to a {wanted:?} message is {:?}",
                    header.opcode
                )));
            }
            self.compressed = header.rsv1;
        }
        if !header.opcode.is_control() && begins == self.in_message {
            return Err(Fault::Wrong("its fragments are out of order".to_owned()));
        }
        self.in_message |= begins;
        let remaining = usize::try_from(header.len)
            .map_err(|_| Fault::Wrong("it announces more than memory can hold".to_owned()))?;
        self.frame = Some(Frame { remaining, opcode: header.opcode, fin: header.fin });
        Ok(len - had)
    }

    /// As [`read_header`](Self::read_header), of iproto.
    fn read_packet_header(
        &mut self,
        input: &[u8],
        desk: &Desk<'_>,
        progress: &Progress,
        answers: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let had = usize::from(self.header_len);
        let taken = input.len().min(iproto::HEADER_BYTES - had);
        self.header[had..had + taken].copy_from_slice(&input[..taken]);
        self.header_len += taken as u8;
        if usize::from(self.header_len) < iproto::HEADER_BYTES {
            return Ok(taken);
        }
        self.header_len = 0;
        let mut bytes = [0; iproto::HEADER_BYTES];
        bytes.copy_from_slice(&self.header[..iproto::HEADER_BYTES]);
        let header = iproto::Header::decode(&bytes);
        match (header.msg, header.len) {
            (iproto::PING, 0) => answers.extend(header.encode()),
            (iproto::SHUTDOWN, _) => return Err(Fault::Closed("it shuts down".to_owned())),
            _ => {
                self.expect_one(progress)?;
                let entry = desk.script.entry(progress.identity, progress.received);
                let wanted = entry.packet_header(progress.received);
                if header != wanted {
                    let number = progress.received + 1;
                    return Err(Fault::Wrong(format!(
                        "the reply to request {number} is {header:?}, expected {wanted:?}"
                    )));
                }
                self.frame =
                    Some(Frame { remaining: entry.size, opcode: Opcode::Binary, fin: true });
            }
        }
        Ok(taken)
    }

    /// Compares the next part of a message.
    fn compare(&mut self, part: &[u8], desk: &Desk<'_>, progress: &Progress) -> Result<(), Fault> {
        let offset = self.offset;
        self.offset += part.len();
        let entry = desk.script.entry(progress.identity, progress.received);
        let number = progress.received + 1;
        if self.offset > entry.size {
            return Err(Fault::Wrong(format!(
                "the reply to message {number} is longer than the {} bytes that were sent",
                entry.size
            )));
        }
        if !desk.verify {
            return Ok(());
        }
        let stamp = progress.identity.stamp(progress.received);
        let (begin, rest) = desk.script.expected(entry, &stamp, offset);
        let (came, came_rest) = part.split_at(begin.len().min(part.len()));
        if begin.starts_with(came) && rest.starts_with(came_rest) {
            return Ok(());
        }
        let mut expected = begin.iter().chain(rest);
        let differs = part.iter().position(|byte| Some(byte) != expected.next());
        let at = differs.expect("one of the two parts is not as expected");
        let expected: Vec<u8> =
            begin.iter().chain(rest).skip(at).take(EXCERPT_BYTES).copied().collect();
        let got = &part[at..part.len().min(at + EXCERPT_BYTES)];
        Err(Fault::Wrong(format!(
            "the reply to message {number} is wrong at byte {}: expected {}, got {}",
            offset + at,
            hex(&expected),
            hex(got)
        )))
    }

    /// A frame is complete.
    fn end(
        &mut self,
        frame: Frame,
        desk: &mut Desk<'_>,
        progress: &mut Progress,
        answers: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match frame.opcode {
            Opcode::Close => return Err(Fault::Closed(reason(&self.control))),
            Opcode::Ping => push_control(answers, Opcode::Pong, &self.control),
            Opcode::Pong => {}
            _ if frame.fin => return self.end_message(desk, progress),
            _ => return Ok(()),
        }
        self.control.clear();
        Ok(())
    }

    fn end_message(&mut self, desk: &mut Desk<'_>, progress: &mut Progress) -> Result<(), Fault> {
        if self.compressed && desk.verify {
            let mut env = Env { limits: &desk.limits, memory: &mut desk.inflated, now_ms: 0 };
            let (plain, len) =
                desk.inflater.message(&self.gathered, false, &mut env).map_err(|error| {
                    let number = progress.received + 1;
                    Fault::Wrong(format!("the reply to message {number} does not inflate: {error}"))
                })?;
            self.compare(&plain[..len], desk, progress)?;
            desk.inflated.0 = plain;
        }
        let entry = desk.script.entry(progress.identity, progress.received);
        let known = !self.compressed || desk.verify;
        if known && self.offset != entry.size {
            return Err(Fault::Wrong(format!(
                "the reply to message {} has {} bytes, not the {} that were sent",
                progress.received + 1,
                self.offset,
                entry.size
            )));
        }
        self.gathered.clear();
        self.offset = 0;
        self.in_message = false;
        self.compressed = false;
        progress.received += 1;
        Ok(())
    }
}

/// The memory of one inflated message, used for the next one.
#[derive(Default)]
struct Reused(Vec<u8>);

impl Memory for Reused {
    type Buffer = Vec<u8>;

    fn acquire(&mut self, len: usize, _expected: usize) -> Option<Vec<u8>> {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.resize(len, 0);
        Some(buffer)
    }

    fn grow(&mut self, buffer: &mut Vec<u8>, _used: usize, len: usize) -> bool {
        buffer.resize(len, 0);
        true
    }
}

/// Appends a control frame.
pub(crate) fn push_control(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let mut header = [0; HEADER_BYTES_MAX];
    let len = Header::new(true, opcode, Some(KEY), payload.len() as u64).encode(&mut header);
    out.extend_from_slice(&header[..len]);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], KEY, 0);
}

/// What a close frame says.
fn reason(payload: &[u8]) -> String {
    match payload {
        [high, low, text @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let text = String::from_utf8_lossy(text);
            if text.is_empty() {
                format!("closed with code {code}")
            } else {
                format!("closed with code {code}, {text:?}")
            }
        }
        _ => "closed without a code".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

#[cfg(test)]
mod tests {
    use hioload_protocol::iproto;
    use hioload_protocol::ws::Opcode;
    use hioload_protocol::ws::frame::Header;
    use rstest::rstest;

    use super::{Desk, Fault, Progress, Reader};
    use crate::script::{Format, Identity, Script};

    /// Two messages that are under way, and their frames as the pieces of an answer.
    struct Case {
        script: Script,
        progress: Progress,
        reader: Reader,
        answers: Vec<u8>,
    }

    impl Case {
        fn new(format: Format, sizes: &str) -> Self {
            let script = Script::new(format, &sizes.parse().unwrap());
            let progress = Progress { identity: Identity::new(3), sent: 2, received: 0 };
            Self { script, progress, reader: Reader::default(), answers: Vec::new() }
        }

        fn payload(&self, message: u64) -> Vec<u8> {
            let identity = self.progress.identity;
            let stamp = identity.stamp(message);
            let entry = self.script.entry(identity, message);
            let (begin, rest) = self.script.expected(entry, &stamp, 0);
            [begin, rest].concat()
        }

        fn read(&mut self, input: &[u8]) -> Result<u64, Fault> {
            let mut desk = Desk::new(&self.script, true, 100_000);
            self.reader.read(input, &mut desk, &mut self.progress, &mut self.answers)?;
            Ok(self.progress.received)
        }
    }

    fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut header = [0; 14];
        let len = Header::new(fin, opcode, None, payload.len() as u64).encode(&mut header);
        [&header[..len], payload].concat()
    }

    #[rstest]
    fn replies_may_be_cut_anywhere(
        #[values("0", "5", "20", "300", "70000")] sizes: &str,
        #[values(1, 2, 3, 7, 1000, 1_000_000)] step: usize,
    ) {
        let mut case = Case::new(Format::Text, sizes);
        let wire = [0, 1].map(|message| frame(true, Opcode::Text, &case.payload(message))).concat();
        for part in wire.chunks(step) {
            case.read(part).unwrap();
        }
        assert_eq!(case.progress.received, 2);
    }

    #[test]
    fn fragments_and_pings_in_between_are_fine() {
        let mut case = Case::new(Format::Text, "20");
        let payload = case.payload(0);
        let wire = [
            frame(false, Opcode::Text, &payload[..3]),
            frame(true, Opcode::Ping, b"hi"),
            frame(false, Opcode::Continuation, &[]),
            frame(true, Opcode::Continuation, &payload[3..]),
            frame(true, Opcode::Text, &case.payload(1)),
        ];
        assert_eq!(case.read(&wire.concat()), Ok(2));
        assert_eq!(case.answers, [0x8a, 0x82, 0x37, 0xfa, 0x21, 0x3d, b'h' ^ 0x37, b'i' ^ 0xfa]);
    }

    #[rstest]
    #[case::plain(false)]
    #[case::compressed(true)]
    fn compressed_sessions_read_both_kinds(#[case] compressed: bool) {
        let mut case = Case::new(Format::Deflate, "300");
        let mut wire = frame(true, Opcode::Text, &case.payload(0));
        if compressed {
            // What is sent, without its mask, is an answer too.
            wire.clear();
            case.script.push(&mut wire, case.progress.identity, 0);
            let key: Vec<u8> = wire.drain(4..8).collect();
            wire[1] &= 0x7f;
            let payload = wire[4..].iter_mut().enumerate();
            payload.for_each(|(at, byte)| *byte ^= key[at % 4]);
        }
        assert_eq!(case.read(&wire), Ok(1));
    }

    #[test]
    fn a_wrong_byte_is_shown() {
        let mut case = Case::new(Format::Text, "20");
        let mut payload = case.payload(0);
        payload[12] = 0;
        let Err(Fault::Wrong(text)) = case.read(&frame(true, Opcode::Text, &payload)) else {
            panic!("it is wrong");
        };
        assert!(text.contains("message 1 is wrong at byte 12: expected "), "{text}");
        assert!(text.contains("got 00 "), "{text}");
    }

    #[rstest]
    #[case::short(frame(true, Opcode::Text, b"D"), "has 1 bytes, not the 20")]
    #[case::other(frame(true, Opcode::Binary, b"D"), "is Binary")]
    #[case::continued(frame(true, Opcode::Continuation, b"D"), "out of order")]
    #[case::compressed(vec![0xc1, 0], "reserved bit")]
    #[case::masked(vec![0x81, 0x80, 1, 2, 3, 4], "masks")]
    #[case::no_frame(vec![0x83, 0], "no frame")]
    fn what_breaks_the_protocol_is_said(#[case] wire: Vec<u8>, #[case] reason: &str) {
        let Err(Fault::Wrong(text)) = Case::new(Format::Text, "20").read(&wire) else {
            panic!("it is wrong");
        };
        assert!(text.contains(reason), "{text}");
    }

    #[test]
    fn a_third_reply_to_two_messages_is_noticed() {
        let mut case = Case::new(Format::Tcp, "4");
        let wire = [case.payload(0), case.payload(1), b"more".to_vec()].concat();
        assert_eq!(
            case.read(&wire),
            Err(Fault::Wrong("more came back than the 2 messages it got".to_owned()))
        );
    }

    #[rstest]
    fn packets_may_be_cut_anywhere_and_pings_be_between_them(
        #[values("0", "5", "300", "70000")] sizes: &str,
        #[values(1, 2, 7, 1_000_000)] step: usize,
    ) {
        let mut case = Case::new(Format::Iproto, sizes);
        let ping = iproto::Header { msg: iproto::PING, len: 0, sync: 0 }.encode();
        let mut wire = Vec::new();
        case.script.push(&mut wire, case.progress.identity, 0);
        wire.extend(ping);
        case.script.push(&mut wire, case.progress.identity, 1);
        for part in wire.chunks(step) {
            case.read(part).unwrap();
        }
        assert_eq!(case.progress.received, 2);
        assert_eq!(case.answers, ping);
    }

    #[test]
    fn packets_of_others_are_told() {
        let mut case = Case::new(Format::Iproto, "4");
        let mut wire = Vec::new();
        case.script.push(&mut wire, case.progress.identity, 1);
        let Err(Fault::Wrong(text)) = case.read(&wire) else { panic!("the first is due") };
        assert!(text.contains("the reply to request 1 is Header"), "{text}");
        let mut case = Case::new(Format::Iproto, "4");
        let end = iproto::Header { msg: iproto::SHUTDOWN, len: 0, sync: 0 }.encode();
        assert_eq!(case.read(&end), Err(Fault::Closed("it shuts down".to_owned())));
    }

    #[test]
    fn a_close_frame_is_told_with_its_code() {
        let mut case = Case::new(Format::Text, "4");
        let wire = frame(true, Opcode::Close, b"\x03\xe9bye");
        let text = "closed with code 1001, \"bye\"".to_owned();
        assert_eq!(case.read(&wire), Err(Fault::Closed(text)));
    }
}
