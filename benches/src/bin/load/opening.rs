//! A connection until it is open: its TCP connection, the request, the answer.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use hioload_protocol::deflate::{Direction, Offer};
use hioload_protocol::http::client::{Handshake, ResponseError, encode_key};
use hioload_protocol::http::{HeadLimits, HeadScanner};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, recv,
    send, socket_with, sockopt,
};

use crate::target::{Scheme, Target};

/// No window is kept in either direction.
const OFFER: Offer = Offer { server: Direction::NO_CONTEXT, client: Direction::NO_CONTEXT };

/// How all connections are opened.
pub(crate) struct Door {
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    /// Where connections come from, in turn; if there is none the system chooses.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) deflate: bool,
    /// The longest stretch that compressed messages refer back over, in bytes.
    pub(crate) reach: usize,
}

pub(crate) struct Opening {
    pub(crate) fd: OwnedFd,
    pub(crate) number: u32,
    /// When it began, in nanoseconds of the run.
    pub(crate) since: u64,
    key: String,
    connected: bool,
    answer: Vec<u8>,
    scanner: HeadScanner,
}

/// How far an opening is.
pub(crate) enum Step {
    Waiting,
    /// It waits for an answer from now on, no longer for room to send.
    Asked,
    /// Done; these bytes came behind the answer.
    Open(Vec<u8>),
}

impl Opening {
    pub(crate) fn start(door: &Door, number: u32, now: u64) -> Result<Self, String> {
        let family =
            if door.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))
            .map_err(|error| format!("no socket for connection {}: {error}", number + 1))?;
        let nodelay = sockopt::set_tcp_nodelay(&fd, true);
        nodelay.map_err(|error| format!("a socket does not take TCP_NODELAY: {error}"))?;
        if !door.sources.is_empty() {
            let source = door.sources[number as usize % door.sources.len()];
            bind(&fd, &SocketAddr::new(source, 0))
                .map_err(|error| format!("cannot connect from {source}: {error}"))?;
        }
        match connect(&fd, &door.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(door.refused(error, number)),
        }
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| format!("no random numbers: {error}"))?;
        Ok(Self {
            fd,
            number,
            since: now,
            key: encode_key(nonce),
            connected: false,
            answer: Vec::new(),
            scanner: HeadScanner::default(),
        })
    }

    /// Goes on, as its socket is ready for something.
    pub(crate) fn step(&mut self, door: &Door, room: &mut [u8]) -> Result<Step, String> {
        if !self.connected {
            return self.ask(door);
        }
        let read = match recv(&self.fd, &mut *room, RecvFlags::empty()) {
            Ok((_, 0)) => {
                let address = door.address;
                return Err(format!("{address} closed a connection during the handshake"));
            }
            Ok((_, read)) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Step::Waiting),
            Err(error) => {
                return Err(format!("{} broke off the handshake: {error}", door.address));
            }
        };
        self.answer.extend_from_slice(&room[..read]);
        self.check(door)
    }

    /// It is connected, or was refused.
    fn ask(&mut self, door: &Door) -> Result<Step, String> {
        if let Ok(Err(error)) | Err(error) = sockopt::socket_error(&self.fd) {
            return Err(door.refused(error, self.number));
        }
        self.connected = true;
        if door.target.scheme != Scheme::WebSocket {
            return Ok(Step::Open(Vec::new()));
        }
        let mut request = Vec::new();
        self.handshake(door)
            .write_request(&mut request)
            .map_err(|error| format!("{} cannot be asked for: {error}", door.target.url))?;
        // It is shorter than any empty socket buffer.
        match send(&self.fd, &request, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == request.len() => Ok(Step::Asked),
            Ok(_) => Err("the request does not fit a socket's buffer".to_owned()),
            Err(error) => Err(door.refused(error, self.number)),
        }
    }

    fn handshake<'a>(&'a self, door: &'a Door) -> Handshake<'a> {
        let deflate = door.deflate.then_some(OFFER);
        Handshake {
            deflate,
            ..Handshake::new(&door.target.authority, &door.target.path, &self.key)
        }
    }

    fn check(&mut self, door: &Door) -> Result<Step, String> {
        let limits = HeadLimits::default();
        let url = &door.target.url;
        let end = self
            .scanner
            .find_end(&self.answer, &limits)
            .map_err(|error| format!("{url} does not answer in HTTP/1.1: {}", error.cause()))?;
        if end.is_none() {
            return Ok(Step::Waiting);
        }
        let accepted =
            self.handshake(door).check_response(&self.answer, &limits).map_err(|error| {
                let status = self.answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
                let status = String::from_utf8_lossy(status);
                match error {
                    ResponseError::Status(_) => {
                        format!("{url} refuses the upgrade to WebSocket: {status}")
                    }
                    error => format!("{url} answers the handshake wrongly: {error}"),
                }
            })?;
        if door.deflate {
            let agreed = accepted.deflate.ok_or_else(|| {
                format!("{url} turns permessage-deflate down: switch it on there, or leave out --deflate")
            })?;
            if door.reach > 1 << agreed.client.window_bits {
                return Err(format!(
                    "{url} wants a window of at most 2^{} bytes from its clients, too small for \
                     messages of this size: make them smaller with --size",
                    agreed.client.window_bits
                ));
            }
        }
        Ok(Step::Open(self.answer.split_off(accepted.len_bytes)))
    }
}

impl Door {
    fn refused(&self, error: Errno, number: u32) -> String {
        let address = self.address;
        match error {
            Errno::CONNREFUSED => {
                format!("{address} refuses connection {}: does the server run?", number + 1)
            }
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => format!(
                "no local port is left after {number} connections to {address}: give more \
                 --source-addresses, or widen net.ipv4.ip_local_port_range"
            ),
            error => format!("connection {} to {address} failed: {error}", number + 1),
        }
    }
}
