//! A connection to the server under attack: says any bytes, and tells what came of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::frames::CLOSE;
use crate::report::{Did, Outcome};

/// For one read or write: what takes longer is tried again until the patience is over.
const STEP: Duration = Duration::from_millis(50);

/// The most bytes that a flood sends.
const FLOOD_BYTES: usize = 64 << 20;
/// A server has stopped reading if it takes none of a flood for this long, or for a quarter of the
/// patience if that is less.
const STALL_MAX: Duration = Duration::from_millis(1500);

/// A server that took something wrong may find out about it for this long.
const SECOND_THOUGHTS: Duration = Duration::from_millis(500);

/// The server, and how hard it is attacked.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// As the user wrote it: for the Host header.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) patience: Duration,
    pub(crate) connections: usize,
}

impl Target {
    /// A good opening handshake, with more header lines.
    pub(crate) fn handshake(&self, headers: &str) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             {headers}\r\n",
            self.path, self.host
        )
    }
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Bytes,
    End,
    Nothing,
}

/// A connection, and when it began.
pub(crate) struct Peer {
    stream: TcpStream,
    began: Instant,
    patience: Duration,
    /// What came and was not looked at.
    pub(crate) heard: Vec<u8>,
    /// How much of that was given out as frames.
    seen: usize,
}

impl Peer {
    /// `None`: the server accepts nobody.
    pub(crate) fn connect(target: &Target) -> Option<Self> {
        let patience = target.patience;
        let stream = TcpStream::connect_timeout(&target.address, patience).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(STEP)).ok()?;
        stream.set_write_timeout(Some(STEP)).ok()?;
        Some(Self { stream, began: Instant::now(), patience, heard: Vec::new(), seen: 0 })
    }

    /// Says all of `bytes`; how many were taken before the end or the end of patience.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> usize {
        let mut said = 0;
        while said < bytes.len() && !self.is_over() {
            match self.stream.write(&bytes[said..]) {
                Ok(count) => said += count,
                Err(error) if is_wait(&error) => {}
                Err(_) => break,
            }
        }
        said
    }

    /// Says bytes without patience: whether something of them was taken.
    pub(crate) fn try_say(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.stream.write(bytes) {
            Ok(count) => Some(count),
            Err(error) if is_wait(&error) => Some(0),
            Err(_) => None,
        }
    }

    /// Reads what there is, for a moment.
    pub(crate) fn hear(&mut self) -> Heard {
        self.heard.drain(..std::mem::take(&mut self.seen));
        let mut bytes = [0; 64 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Heard::End,
            Ok(count) => {
                self.heard.extend_from_slice(&bytes[..count]);
                Heard::Bytes
            }
            Err(error) if is_wait(&error) => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// The head of the response, once it has come: it is taken out of what was heard.
    pub(crate) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.heard.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.heard.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if self.hear() == Heard::End || self.is_over() {
                return None;
            }
        }
    }

    /// A frame of the server: its opcode and payload, once it has come.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let heard = &self.heard[self.seen..];
        let (first, second) = (*heard.first()?, usize::from(*heard.get(1)?) & 127);
        let extended = [0, 2, 8][second.max(125) - 125];
        let length = heard.get(2..2 + extended)?;
        let long = length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        let (start, len) = (2 + extended, if extended == 0 { second } else { long });
        let payload = heard.get(start..start.checked_add(len)?)?.to_vec();
        self.seen += start + len;
        Some((first & 15, payload))
    }

    /// What the server does within the patience: frames other than a close frame are passed over,
    /// and one of the opcode `taken` shows that it took what it was sent.
    pub(crate) fn reaction(&mut self, taken: Option<u8>) -> Did {
        loop {
            while let Some((opcode, payload)) = self.frame() {
                if opcode == CLOSE {
                    let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                    return Did::Closed(code);
                }
                if Some(opcode) == taken {
                    return Did::Took;
                }
            }
            match self.hear() {
                Heard::End => return Did::Ended,
                _ if self.is_over() => return Did::Waits,
                _ => {}
            }
        }
    }

    /// What a server does that seemed to take something: some look at a message only after they have
    /// answered the ping behind it.
    pub(crate) fn second_thoughts(&mut self) -> Did {
        self.patience = self.began.elapsed() + SECOND_THOUGHTS;
        match self.reaction(None) {
            Did::Waits => Did::Took,
            did => did,
        }
    }

    /// Repeats bytes and reads nothing, until the server does something about it or took enough;
    /// and how many it took.
    pub(crate) fn flood(&mut self, bytes: &[u8]) -> (Did, usize) {
        let burst = bytes.repeat((64 * 1024 / bytes.len()).max(1));
        let stall = STALL_MAX.min(self.patience / 4);
        let (mut at, mut sent, mut moved) = (0, 0, Instant::now());
        while sent < FLOOD_BYTES && !self.is_over() {
            match self.try_say(&burst[at..]) {
                Some(0) if moved.elapsed() > stall => return (Did::StoppedReading, sent),
                Some(0) => {}
                Some(count) => {
                    (sent, at, moved) = (sent + count, (at + count) % burst.len(), Instant::now());
                }
                None => return (Did::Ended, sent),
            }
        }
        (Did::Took, sent)
    }

    /// Whether it has waited long enough.
    pub(crate) fn is_over(&self) -> bool {
        self.began.elapsed() >= self.patience
    }

    pub(crate) fn outcome(&self, did: Did, note: String) -> Outcome {
        Outcome { did, after: self.began.elapsed(), note }
    }
}

/// The connection to attack could not be had.
pub(crate) fn not_tried() -> Outcome {
    Outcome { did: Did::NotTried, after: Duration::ZERO, note: String::new() }
}

fn is_wait(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
