//! Everybody who subscribes to one server, driven by one thread.

use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hioload_benches::process::cpu_time;
use hioload_protocol::ws::Opcode;
use hioload_protocol::ws::frame::Header;
use hioload_protocol::ws::mask::mask;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than any server may take for one publication.
const PUBLICATION_TIMEOUT: Duration = Duration::from_secs(20);
/// While a publication is under way nobody sleeps: each message would wake this process, and the
/// server would pay for that.
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// How long nothing may happen before the time that was used is read: the kernel has booked it
/// once the server sleeps.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// Publications at the start of a turn that are not measured.
const WARM_UP: u16 = 2;
/// More than any message that is measured, so that one read finds whatever there is.
const ROOM_BYTES: usize = 64 * 1024;
/// Events of one wait.
const EVENTS: usize = 1024;
const MASK: [u8; 4] = [9, 8, 7, 6];

/// What one turn showed of one server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Processor time of the server for each subscriber, in nanoseconds.
    pub(crate) cpu_ns: f64,
    /// From the message that is to be published until every subscriber has it, in milliseconds.
    pub(crate) wall_ms: f64,
    /// How much of its core the server used.
    pub(crate) busy: f64,
    /// How much of the wall time the subscribers read: when this is near 1, it is theirs.
    pub(crate) client_busy: f64,
}

impl Sample {
    /// As one process tells it another.
    pub(crate) fn line(&self) -> String {
        format!("{} {} {} {}", self.cpu_ns, self.wall_ms, self.busy, self.client_busy)
    }

    /// What [`line`](Self::line) has made of one.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let figures: Option<Vec<f64>> =
            line.split_whitespace().map(|figure| figure.parse().ok()).collect();
        let [cpu_ns, wall_ms, busy, client_busy] = figures?[..] else { return None };
        Some(Self { cpu_ns, wall_ms, busy, client_busy })
    }
}

pub(crate) struct Load {
    epoll: OwnedFd,
    subscribers: Vec<TcpStream>,
    /// How many bytes of the publication each of them has.
    received: Vec<usize>,
    events: Vec<Event>,
    room: Vec<u8>,
    bytes: usize,
    /// The number of the publication, which makes it different from all others.
    number: u64,
}

impl Load {
    /// Connects everybody.
    pub(crate) fn open(
        address: SocketAddr,
        subscribers: usize,
        bytes: usize,
    ) -> Result<Self, String> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let opened = (0..subscribers).map(|index| {
            let stream =
                connect(address).map_err(|error| format!("connection {index}: {error}"))?;
            let data = EventData::new_u64(index as u64);
            // Edges: whoever has been read is not looked at again.
            epoll::add(&epoll, &stream, data, EventFlags::IN | EventFlags::ET)
                .map_err(|error| error.to_string())?;
            Ok(stream)
        });
        Ok(Self {
            subscribers: opened.collect::<Result<_, String>>()?,
            epoll,
            received: vec![0; subscribers],
            events: Vec::with_capacity(EVENTS),
            room: vec![0; ROOM_BYTES],
            bytes,
            number: 0,
        })
    }

    /// Lets the server publish several times, each when everybody has the one before.
    pub(crate) fn turn(&mut self, server: u32, publications: u16) -> Result<Sample, String> {
        for _ in 0..WARM_UP {
            self.publish()?;
        }
        self.rest()?;
        let before = cpu_time(server)?;
        let (mut wall, mut idle) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..publications {
            let (took, waited) = self.publish()?;
            wall += took;
            idle += waited;
        }
        self.rest()?;
        let cpu = (cpu_time(server)? - before).as_secs_f64();
        let publications = f64::from(publications);
        let wall = wall.as_secs_f64();
        Ok(Sample {
            cpu_ns: cpu * 1e9 / publications / self.subscribers.len() as f64,
            wall_ms: wall * 1e3 / publications,
            busy: cpu / wall,
            client_busy: 1.0 - idle.as_secs_f64() / wall,
        })
    }

    /// One publication: how long it took until the last subscriber had it, and how much of that
    /// there was nothing to read.
    fn publish(&mut self) -> Result<(Duration, Duration), String> {
        self.number += 1;
        let payload = payload(self.number, self.bytes);
        let expected = frame(&payload, None);
        let message = frame(&payload, Some(MASK));
        self.received.fill(0);
        let mut missing = self.subscribers.len();
        let mut idle = Duration::ZERO;
        let start = Instant::now();
        self.subscribers[0].write_all(&message).map_err(|error| format!("sending: {error}"))?;
        let mut now = start;
        while missing > 0 {
            if now - start > PUBLICATION_TIMEOUT {
                return Err(format!(
                    "{missing} subscribers have not been told after {PUBLICATION_TIMEOUT:?}"
                ));
            }
            missing -= self.receive(&expected, &NO_WAIT)?;
            let before = mem::replace(&mut now, Instant::now());
            if self.events.is_empty() {
                idle += now - before;
            }
        }
        Ok((now - start, idle))
    }

    /// Waits until the server has gone to sleep; nobody may be told anything meanwhile.
    fn rest(&mut self) -> Result<(), String> {
        self.received.fill(0);
        self.receive(&[], &REST).map(drop)
    }

    /// Reads from whoever was told something; how many have all of what is expected by that.
    fn receive(&mut self, expected: &[u8], wait: &Timespec) -> Result<usize, String> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        let mut complete = 0;
        for event in &self.events {
            let index = event.data.u64() as usize;
            match self.subscribers[index].read(&mut self.room) {
                Ok(0) => return Err("it closed a connection".to_owned()),
                Ok(read) => {
                    let received = &mut self.received[index];
                    complete += usize::from(proceed(expected, received, &self.room[..read])?);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(format!("receiving: {error}")),
            }
        }
        Ok(complete)
    }
}

/// Compares what came with the rest of what is expected; whether that was all of it.
fn proceed(expected: &[u8], received: &mut usize, bytes: &[u8]) -> Result<bool, String> {
    if !expected[*received..].starts_with(bytes) {
        return Err("a subscriber was told something else, or more, than was published".to_owned());
    }
    *received += bytes.len();
    Ok(*received == expected.len())
}

fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let connect = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        stream.write_all(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
              Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
              Sec-WebSocket-Version: 13\r\n\r\n",
        )?;
        let mut head = Vec::new();
        let mut room = [0; 1024];
        // Nothing follows the head before something is published.
        while !head.ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut room)?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            head.extend_from_slice(&room[..read]);
        }
        stream.set_nonblocking(true)?;
        Ok((stream, head))
    };
    let (stream, head) = connect().map_err(|error: std::io::Error| error.to_string())?;
    if head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(stream);
    }
    let head = String::from_utf8_lossy(&head);
    Err(format!("the handshake was answered with {:?}", head.lines().next().unwrap_or_default()))
}

/// What is said in a publication: its number, and bytes that follow from it.
fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((payload.len()..len).map(|index| (number as usize * 31 + index) as u8));
    payload
}

/// A binary message in one frame.
fn frame(payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mut header = [0; 14];
    let len = Header::new(true, Opcode::Binary, key, payload.len() as u64).encode(&mut header);
    let mut frame = header[..len].to_vec();
    frame.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut frame[len..], key, 0);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::{Sample, frame, payload, proceed};

    #[test]
    fn publications_have_their_length_and_differ() {
        let (one, two) = (payload(1, 64), payload(2, 64));
        assert_eq!((one.len(), two.len()), (64, 64));
        assert!(one.iter().zip(&two).skip(8).all(|(one, two)| one != two));
        assert_eq!(payload(7, 8), [0, 0, 0, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn frames_are_those_of_the_rfc() {
        assert_eq!(frame(b"Hello", None), *b"\x82\x05Hello");
        // Section 5.7, with another opcode.
        let masked = frame(b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
        assert_eq!(masked, *b"\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    }

    #[test]
    fn a_subscriber_has_a_message_when_the_last_piece_of_it_came() {
        let mut received = 0;
        assert_eq!(proceed(b"news", &mut received, b"ne"), Ok(false));
        assert_eq!(proceed(b"news", &mut received, b"ws"), Ok(true));
        assert!(proceed(b"news", &mut received, b"n").is_err(), "it came twice");
    }

    #[test]
    fn a_sample_survives_being_told() {
        let sample = Sample { cpu_ns: 4321.25, wall_ms: 41.5, busy: 0.875, client_busy: 0.1 };
        assert_eq!(Sample::from_line(&sample.line()), Some(sample));
        assert_eq!(Sample::from_line("1 2 3"), None);
        assert_eq!(Sample::from_line("1 2 3 four"), None);
    }

    #[test]
    fn what_was_not_published_is_an_error() {
        assert!(proceed(b"news", &mut 0, b"olds").is_err());
        assert!(proceed(b"news", &mut 0, b"newsn").is_err(), "more than was published");
        assert!(proceed(b"", &mut 0, b"n").is_err(), "nothing was published");
    }
}
