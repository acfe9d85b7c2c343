//! A server that does exactly what a test wants, byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use hioload_protocol::http::accept_key;
use hioload_protocol::ws::Opcode;
use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::mask::mask;

use crate::support::PATIENCE;

/// Somebody who listens.
pub(crate) struct Peer {
    listener: TcpListener,
}

/// One connection to it, whose request was read.
pub(crate) struct Line {
    pub(crate) stream: TcpStream,
    pub(crate) request: String,
}

/// A frame as it came, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    pub(crate) mask: [u8; 4],
    pub(crate) payload: Vec<u8>,
}

impl Peer {
    pub(crate) fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.listener.local_addr().unwrap())
    }

    /// The next connection, before it has said anything.
    pub(crate) fn accept_silent(&self) -> TcpStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_write_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < deadline, "nobody connects");
                    std::thread::yield_now();
                }
                Err(error) => panic!("it cannot accept: {error}"),
            }
        }
    }

    /// The next connection, with its request.
    pub(crate) fn accept(&self) -> Line {
        let mut stream = self.accept_silent();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a whole request");
            head.push(byte[0]);
        }
        Line { stream, request: String::from_utf8(head).unwrap() }
    }

    /// The next connection, as an open WebSocket.
    pub(crate) fn open(&self) -> Line {
        let mut line = self.accept();
        let response = line.response("");
        line.write(&response);
        line
    }
}

impl Line {
    /// The value of a header of the request; it must be there once.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut all = self.request.lines().filter_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = all.next().unwrap_or_else(|| panic!("no {name} in {}", self.request));
        assert_eq!(all.next(), None, "{name} is repeated in {}", self.request);
        value
    }

    /// What `Sec-WebSocket-Accept` must be.
    pub(crate) fn accept_key(&self) -> String {
        String::from_utf8(accept_key(self.header("Sec-WebSocket-Key")).to_vec()).unwrap()
    }

    /// A good response, with more header lines.
    pub(crate) fn response(&self, headers: &str) -> Vec<u8> {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{headers}\r\n",
            self.accept_key()
        )
        .into_bytes()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the client reads");
    }

    pub(crate) fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.write(&frame(opcode, payload));
    }

    pub(crate) fn read_frame(&mut self) -> Frame {
        let mut bytes = vec![0; 2];
        self.stream.read_exact(&mut bytes).expect("a frame");
        let (header, _) = loop {
            if let Some(decoded) = Header::decode(&bytes).expect("the client's frames are good") {
                break decoded;
            }
            let mut more = [0];
            self.stream.read_exact(&mut more).expect("a whole header");
            bytes.push(more[0]);
        };
        let key = header.mask.expect("a client masks");
        let mut payload = vec![0; header.len as usize];
        self.stream.read_exact(&mut payload).expect("a whole frame");
        mask(&mut payload, key, 0);
        Frame { opcode: header.opcode, mask: key, payload }
    }

    /// The code of the close frame that must come next.
    pub(crate) fn read_close(&mut self) -> u16 {
        let frame = self.read_frame();
        assert_eq!(frame.opcode, Opcode::Close, "{frame:?}");
        u16::from_be_bytes([frame.payload[0], frame.payload[1]])
    }

    /// Answers a close frame and ends the connection, as a server does.
    pub(crate) fn finish(&mut self, code: u16) {
        self.send(Opcode::Close, &code.to_be_bytes());
        match self.stream.shutdown(Shutdown::Write) {
            // The client was faster, which it may be once it has our close frame.
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            other => other.expect("the connection is open"),
        }
        self.expect_end();
    }

    /// The client ends or breaks the connection, and sends nothing more before that.
    pub(crate) fn expect_end(&mut self) {
        match self.stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?} instead of the end"),
        }
    }
}

/// A frame as a server sends it.
pub(crate) fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    masked_frame(opcode, None, payload)
}

pub(crate) fn masked_frame(opcode: Opcode, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let len = Header::new(true, opcode, key, payload.len() as u64).encode(&mut header);
    let mut bytes = header[..len].to_vec();
    bytes.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut bytes[len..], key, 0);
    }
    bytes
}
