//! A thread-per-core, shared-nothing network runtime for WebSocket, iproto, plain HTTP answers and
//! raw TCP: one pinned shard per CPU, each with its own io_uring ring (or epoll where io_uring is
//! refused), buffers, timers and sessions. Nothing is shared, so nothing is locked.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use hioload::{Handler, Message, Request, Server, Session, Shard, Upgrade};
//!
//! /// One of these per core.
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Session = (); // what we keep for each connection
//!
//!     fn upgrade(&mut self, _: &mut Shard, _: &Request) -> Upgrade<()> {
//!         Upgrade::accept(())
//!     }
//!     fn message(&mut self, _: &mut Shard, session: &mut Session<()>, message: Message) {
//!         session.send(message); // the very buffer it arrived in goes back out
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     Server::builder()
//!         .listen("127.0.0.1:9001")
//!         .websocket("/ws", |_shard| Echo) // called once per shard, on its thread
//!         .run()
//! }
//! ```
//!
//! Where to look: [`Server`] and [`Handler`] to write a server, [`ws`] to connect to other
//! servers, [`iproto`] to serve requests of that protocol, [`config`] for what can be set, [`reactor`] for the seam to the machine, [`testkit`] to
//! test a handler without a socket.

pub mod config;
pub mod iproto;
pub mod place;
mod random;
pub mod reactor;
pub mod server;
pub mod shard;
#[allow(unsafe_code)]
pub mod sys;
pub mod testkit;
mod time;
#[path = "client/mod.rs"]
pub mod ws;

pub use config::Compression;
pub use hioload_pools as pools;
pub use hioload_protocol::http::Response;
pub use hioload_protocol::ws::{CloseCode, MessageKind, Violation};
pub use server::{Running, Server, ServerBuilder, StartError};
pub use shard::{
    Closed, Counters, Handler, MailboxFull, Message, RawHandler, Request, Sent, Session, SessionId,
    SessionStats, Shard, ShardHandle, ShardStats, SubscribeError, TimerRefused, Upgrade,
    UpgradeToken,
};
pub use time::Time;
