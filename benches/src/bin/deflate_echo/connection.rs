//! One client connection: its handshake, its output, and the frames that come back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::script::{Mode, Reader, Script};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// With takeover, one connection in so many is read back from its first message to its last.
const READ_BACK_EVERY: usize = 32;

/// What went over the wire, and how much of it was looked at.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) replies: u64,
    /// Payload bytes of the replies as they came.
    pub(crate) payload_bytes: u64,
    /// Replies that were shown to say what was sent.
    pub(crate) verified: u64,
}

/// For every document the bytes that a server is known to make of it.
pub(crate) type Known = Vec<Vec<u8>>;

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) in_flight: usize,
    /// Whether output waits for room in the socket.
    pub(crate) stuck: bool,
    sent: usize,
    received: usize,
    output: Vec<u8>,
    input: Vec<u8>,
    reader: Option<Reader>,
}

impl Connection {
    /// Opens connection number `number`, which starts at a document of its own.
    pub(crate) fn open(
        address: SocketAddr,
        script: &Script,
        number: usize,
    ) -> Result<Self, String> {
        let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        let answer = handshake(&mut stream, script.mode).map_err(|error| error.to_string())?;
        script.mode.check(extensions(&answer))?;
        stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        let first = match script.mode {
            Mode::Takeover => 0, // an empty window
            Mode::NoContext | Mode::Plain => number % script.documents.len(),
        };
        let reads_back = match script.mode {
            Mode::Takeover => number.is_multiple_of(READ_BACK_EVERY),
            Mode::NoContext => true,
            Mode::Plain => false,
        };
        Ok(Self {
            stream,
            in_flight: 0,
            stuck: false,
            sent: first,
            received: first,
            output: Vec::new(),
            input: Vec::new(),
            reader: reads_back.then(Reader::new),
        })
    }

    /// Sends until `limit` messages are under way.
    pub(crate) fn fill(&mut self, script: &Script, limit: usize) -> Result<(), String> {
        while self.in_flight < limit {
            self.output.extend_from_slice(script.frame(self.sent));
            self.sent += 1;
            self.in_flight += 1;
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), String> {
        self.stuck = false;
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stuck = true;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("sending failed: {error}")),
            }
        }
        Ok(())
    }

    /// Reads once, into `room`, and looks at every whole frame.
    pub(crate) fn receive(
        &mut self,
        script: &Script,
        room: &mut [u8],
        known: &mut Known,
        counts: &mut Counts,
    ) -> Result<(), String> {
        // What is left of a frame is short, and there is room for much more than is under way.
        let start = self.input.len();
        room[..start].copy_from_slice(&self.input);
        let end = match self.stream.read(&mut room[start..]) {
            Ok(0) => return Err("it closed a connection".to_owned()),
            Ok(read) => start + read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                start
            }
            Err(error) => return Err(format!("receiving failed: {error}")),
        };
        let input = &room[..end];
        let mut done = 0;
        while let Some((header_len, payload_len)) =
            parse(&input[done..], script.mode != Mode::Plain)?
        {
            let payload = &input[done + header_len..][..payload_len];
            done += header_len + payload_len;
            let document = script.document(self.received);
            let verified = verify(&mut self.reader, payload, script, document, known)?;
            self.received += 1;
            self.in_flight =
                self.in_flight.checked_sub(1).ok_or("it sent more messages than it got")?;
            counts.replies += 1;
            counts.payload_bytes += payload_len as u64;
            counts.verified += u64::from(verified);
        }
        self.input.clear();
        self.input.extend_from_slice(&input[done..]);
        Ok(())
    }
}

fn handshake(stream: &mut TcpStream, mode: Mode) -> io::Result<String> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let offer = mode.offer().map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n"));
    let request = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{}\r\n",
        offer.unwrap_or_default()
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("HTTP/1.1 101 ") {
        return Ok(head);
    }
    let status = head.lines().next().unwrap_or_default();
    Err(io::Error::other(format!("it answered the handshake with {status:?}")))
}

/// What the server said in `Sec-WebSocket-Extensions`.
fn extensions(head: &str) -> Option<&str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-extensions").then_some(value.trim())
    })
}

/// The lengths of the header and the payload of the frame at the start, once all of it is there.
fn parse(input: &[u8], compressed: bool) -> Result<Option<(usize, usize)>, String> {
    let [first, second, rest @ ..] = input else { return Ok(None) };
    let wanted = if compressed { 0xc1 } else { 0x81 }; // the end of a text message, and RSV1
    if *first != wanted {
        return Err(match first {
            0x81 => "it did not compress a reply".to_owned(),
            0x88 => "it closed a session".to_owned(),
            _ => format!("it sent a frame that starts with {first:#04x}, not {wanted:#04x}"),
        });
    }
    let (header_len, payload_len) = match (*second, rest) {
        (short @ 0..=125, _) => (2, usize::from(short)),
        (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        (126, _) => return Ok(None),
        _ => return Err("it sent a masked or a huge frame".to_owned()),
    };
    Ok((input.len() >= header_len + payload_len).then_some((header_len, payload_len)))
}

/// Compares a reply with what was sent, where that is possible; a difference is an error.
fn verify(
    reader: &mut Option<Reader>,
    payload: &[u8],
    script: &Script,
    document: usize,
    known: &mut Known,
) -> Result<bool, String> {
    let expected = &script.documents[document];
    let equal = match script.mode {
        Mode::Plain => payload == expected,
        Mode::NoContext if known[document] == payload => true,
        Mode::NoContext | Mode::Takeover => {
            let Some(reader) = reader else { return Ok(false) };
            let equal = reader.says(payload, expected, script.mode == Mode::Takeover);
            if equal && script.mode == Mode::NoContext {
                known[document] = payload.to_vec();
            }
            equal
        }
    };
    if equal { Ok(true) } else { Err("a reply does not say what was sent".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::{extensions, parse};

    #[test]
    fn frames_are_parsed_when_they_are_whole() {
        assert_eq!(parse(&[], true), Ok(None));
        assert_eq!(parse(&[0xc1, 2, 7], true), Ok(None));
        assert_eq!(parse(&[0xc1, 2, 7, 8], true), Ok(Some((2, 2))));
        assert_eq!(parse(&[0xc1, 126, 0], true), Ok(None));
        let mut long = vec![0x81, 126, 1, 0];
        assert_eq!(parse(&long, false), Ok(None));
        long.resize(4 + 256, 0);
        assert_eq!(parse(&long, false), Ok(Some((4, 256))));
    }

    #[test]
    fn what_is_not_measured_is_an_error() {
        assert!(parse(&[0x81, 0], true).expect_err("plain").contains("did not compress"));
        assert!(parse(&[0xc1, 0], false).is_err(), "compressed without being asked");
        assert!(parse(&[0x88, 0], true).expect_err("a close").contains("closed"));
        assert!(parse(&[0xc1, 0x82], true).is_err(), "masked");
    }

    #[test]
    fn the_extensions_are_found_in_any_case() {
        assert_eq!(
            extensions("HTTP/1.1 101 x\r\nSEC-WebSocket-extensions:  a; b\r\n"),
            Some("a; b")
        );
        assert_eq!(extensions("HTTP/1.1 101 x\r\nA: b\r\n\r\n"), None);
    }
}
