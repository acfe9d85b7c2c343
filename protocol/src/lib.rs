//! The protocols of hioload as state machines: HTTP/1.1 as far as the WebSocket upgrade,
//! WebSocket (RFC 6455) and iproto, for servers and clients.
//!
//! Sans-IO: bytes come in, events and bytes go out. There is no socket, clock, thread or pool
//! here; time and memory are passed in. The crate is `no_std` and has no `unsafe`, so the whole
//! of it can be fuzzed, simulated and built for a target without an operating system.
//!
//! - [`http`]: request heads, the upgrade, refusals and plain answers.
//! - [`deflate`]: permessage-deflate (RFC 7692), negotiated and, with a feature, done.
//! - [`iproto`]: packets, calls and their deadlines, and the packing of bodies.
//! - [`ws`]: frames, masking, UTF-8, and the connection that turns bytes into messages.
//!
//! ```
//! use hioload_protocol::http::{Acceptance, Head, HeadLimits, HeadScanner, OriginPolicy};
//! use hioload_protocol::ws::{Connection, Env, Event, HeapMemory, Limits, Role};
//!
//! let mut input = b"GET /chat HTTP/1.1\r\n\
//!     Host: server.example.com\r\n\
//!     Upgrade: websocket\r\n\
//!     Connection: Upgrade\r\n\
//!     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
//!     Sec-WebSocket-Version: 13\r\n\
//!     \r\n\
//!     \x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
//!     .to_vec();
//!
//! // The handshake.
//! let limits = HeadLimits::default();
//! let end = HeadScanner::default().find_end(&input, &limits)?.ok_or("more bytes are needed")?;
//! let head = Head::parse(&input[..end], &limits)?;
//! OriginPolicy::default().check(&head)?;
//! let mut answer = Vec::new();
//! head.websocket()?.accept(&mut answer, &Acceptance::default())?;
//! assert!(answer.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
//!
//! // The first message came with it.
//! let mut connection = Connection::new(Role::Server);
//! let mut env = Env { limits: &Limits::default(), memory: &mut HeapMemory, now_ms: 0 };
//! let mut at = end;
//! while let Some(event) = connection.read(&mut input, &mut at, &mut env)? {
//!     let Event::Message(message) = event else { continue };
//!     assert_eq!(message.body.bytes(&input), b"Hello");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod deflate;
pub mod http;
pub mod iproto;
mod receive;
pub mod ws;
