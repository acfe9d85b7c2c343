//! A WebSocket client without mercy: it sends exactly the bytes it is told, and waits for what
//! must come.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hioload::config::{Config, ListenAddress, ReactorChoice, ShardCount};
use hioload::{Running, Server, ServerBuilder};
use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::{Opcode, mask::mask};

/// Longer than anything here takes, also on a busy machine: a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port, with one shard unless `change` says otherwise.
pub(crate) fn start(
    reactor: ReactorChoice,
    change: impl FnOnce(&mut Config),
    routes: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> Running {
    let builder = Server::builder().listen("127.0.0.1:0").configure(|config| {
        config.server.reactor = reactor;
        config.server.shards = ShardCount::Exactly(1);
        config.memory.buffers = 16;
        // Most tests stop the server under the eyes of clients that answer no close frame.
        config.websocket.close_timeout_ms = 100;
        change(config);
    });
    routes(builder).start().expect("the server starts")
}

/// The TCP address on which a server listens.
pub(crate) fn address(server: &Running) -> SocketAddr {
    match server.addresses() {
        [ListenAddress::Tcp(address), ..] => *address,
        other => panic!("{other:?} is no TCP address"),
    }
}

/// One side of a connection to the server under test.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) opcode: Opcode,
    pub(crate) payload: Vec<u8>,
    /// RSV1.
    pub(crate) compressed: bool,
}

impl Client {
    /// A connection that has said nothing yet.
    pub(crate) fn raw(server: &Running) -> Self {
        let stream = TcpStream::connect(address(server)).expect("the server accepts");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// An open session at a path.
    pub(crate) fn open(server: &Running, path: &str) -> Self {
        let mut client = Self::raw(server);
        client.write(handshake(path, "").as_bytes());
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// As [`write`](Self::write), to a server that may have closed already.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        self.write(&frame(true, opcode, payload));
    }

    pub(crate) fn send_close(&mut self, code: u16) {
        self.send(Opcode::Close, &code.to_be_bytes());
    }

    /// The bytes of an HTTP head, with the empty line at its end.
    pub(crate) fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.stream.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("an HTTP head is ASCII")
    }

    pub(crate) fn read_frame(&mut self) -> Frame {
        self.try_read_frame().expect("a frame")
    }

    /// The next frame; `None` if the connection ends before it does.
    pub(crate) fn try_read_frame(&mut self) -> Option<Frame> {
        let mut bytes = vec![0; 2];
        self.fill(&mut bytes)?;
        let (header, _) = loop {
            if let Some(decoded) = Header::decode(&bytes).expect("the server's frames are good") {
                break decoded;
            }
            let mut more = [0];
            self.fill(&mut more)?;
            bytes.push(more[0]);
        };
        assert_eq!(header.mask, None, "a server does not mask");
        let mut payload = vec![0; header.len as usize];
        self.fill(&mut payload)?;
        let Header { fin, opcode, rsv1: compressed, .. } = header;
        Some(Frame { fin, opcode, payload, compressed })
    }

    /// The code of the close frame that must come next; other frames are passed over.
    pub(crate) fn read_close(&mut self) -> u16 {
        loop {
            let frame = self.read_frame();
            if frame.opcode == Opcode::Close {
                return u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
            }
        }
    }

    /// Everything up to the end of the connection, however it ends.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut chunk = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
                Err(error) => panic!("the server neither closes nor resets: {error}"),
            }
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => None,
                _ => panic!("nothing comes: {error}"),
            },
        }
    }
}

/// A handshake for a path, with more header lines.
pub(crate) fn handshake(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

/// A masked frame.
pub(crate) fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = [0x11, 0x22, 0x33, 0x44];
    let mut bytes = announced(fin, opcode, payload.len() as u64);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[start..], key, 0);
    bytes
}

/// A masked frame with RSV1.
pub(crate) fn compressed_frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(fin, opcode, payload);
    bytes[0] |= 0x40;
    bytes
}

/// The header of a masked frame alone: what it announces may never come.
pub(crate) fn announced(fin: bool, opcode: Opcode, len: u64) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let header_len =
        Header::new(fin, opcode, Some([0x11, 0x22, 0x33, 0x44]), len).encode(&mut header);
    header[..header_len].to_vec()
}
