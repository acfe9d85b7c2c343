//! iproto: requests, responses and notifies in both directions of one connection.
//!
//! This is the protocol of Mail.Ru's servers ("silverbox", Tarantool up to 1.5), of Perl's
//! `MR::IProto` and of the Go package `iproto`; it is not the MessagePack protocol of later
//! Tarantools. What is on the wire is described in [`hioload_protocol::iproto`].
//!
//! A server is a [`Handler`] for each shard, or a [`Mux`] of functions, at an address of its own
//! ([`ServerBuilder::iproto`](crate::ServerBuilder::iproto)), beside WebSocket and others in the same
//! process. Requests may be answered in any order: at once, later, from other threads ([`Reply`]),
//! and the peer may be [called](Session::call) in turn. Bodies are bytes; [`pack()`] and
//! [`unpack()`] give them a form.
//!
//! A client is
//! * **a [`Pool`]**, a number of connections to one server: calls go to those that are open, in turn;
//!   lost ones are dialled again; the rate of calls may be limited;
//! * **a [`Channel`]**, one connection, from a [`Connect`];
//! * **a [`ClientHandler`]**, callbacks on a shard
//!   ([`Shard::connect_iproto`](crate::Shard::connect_iproto)), with everything that a server's
//!   [`Handler`] has.
//!
//! The first two are used from any thread and any executor: a call is a future that is dropped to
//! cancel it. They may serve what the server asks too ([`Connect::on_request`]), and make the first
//! calls of each connection before anybody else does ([`Connect::init`]). A call ends in one of these ways, and is sent at most once:
//!
//! | [`CallError`] | what happened | may the server have acted? |
//! |---|---|---|
//! | none | its response came | yes |
//! | `Timeout` | no response came in time | yes |
//! | `Dropped` | the connection ended before the response | yes |
//! | `Stopped` | the channel or the pool was shut down, or closed | no |
//! | `NoChannel` | no connection was open, nor within the connect timeout of a pool | no |
//! | `Hijacked` | its socket was taken away | if the call was made before |
//! | `Cutoff` | no connection was open, and the pool is not to wait for one | no |
//! | `Policed` | the pool's rate limit | no |
//! | `TooManyCalls`, `Full` | a bound of the connection | no |
//! | `BodyTooLong`, `ControlCode` | it cannot be sent | no |
//!
//! # Examples
//! ```no_run
//! use std::process::ExitCode;
//! use hioload::Server;
//! use hioload::iproto::{Mux, Pack, Unpack, pack, unpack};
//!
//! #[derive(Unpack)]
//! struct Add {
//!     a: u32,
//!     b: u32,
//! }
//!
//! #[derive(Pack)]
//! struct Sum {
//!     code: u32, // 0: good
//!     #[iproto(ber)]
//!     sum: u64,
//! }
//!
//! fn main() -> ExitCode {
//!     let mux = |_: &mut hioload::Shard| {
//!         Mux::new().handle(1, |_, session, request| {
//!             // What is malformed drops the reply, which answers with an error.
//!             if let Ok(Add { a, b }) = unpack(&request.body) {
//!                 let sum = Sum { code: 0, sum: u64::from(a) + u64::from(b) };
//!                 if let Ok(body) = pack(&sum) {
//!                     session.reply(request.reply, body);
//!                 }
//!             }
//!         })
//!     };
//!     Server::builder().iproto("127.0.0.1:3301", mux).run()
//! }
//! ```

mod batch;
mod bridge;
mod callbacks;
mod channel;
mod connect;
mod fresh;
mod line;
mod pool;

pub use hioload_protocol::iproto::pack::{
    Fault, Mode, NESTING_MAX, PackError, UnpackError, Unpacker,
};
#[doc(inline)]
pub use hioload_protocol::iproto::{
    CloseReason, HEADER_BYTES, Header, Limits, PING, SHUTDOWN, Stats, Violation, append_packet,
    pack,
};
pub use hioload_protocol::iproto::{append, append_ber, pack_ber, unpack, unpack_ber};
// The macros of these names are those whose code names this module.
pub use hioload_derive::{RuntimePack as Pack, RuntimeUnpack as Unpack};
pub use hioload_protocol::iproto::pack::{Pack, Unpack};

pub use crate::shard::{
    Body, Call, CallError, Hijacked, IprotoClientHandler as ClientHandler, IprotoClosed as Closed,
    IprotoHandler as Handler, IprotoPeer as Peer, IprotoRequest as Request,
    IprotoSession as Session, Mux, Payload, RemoteReply, Reply, Response,
};
pub use crate::ws::{ClientId, ConnectError, Opened, Reconnect};
pub use channel::{Channel, ChannelCall, ChannelNotify};
pub use connect::Connect;
pub use fresh::FreshChannel;
pub use pool::{Pool, PoolBuilder, PoolCall, PoolNotify, PoolStats};

pub(crate) use channel::open_on;
