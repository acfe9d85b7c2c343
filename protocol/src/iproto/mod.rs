//! iproto: packets, requests and replies on one connection, and the packing of their bodies.
//!
//! This is the protocol of Mail.Ru's servers ("silverbox", Tarantool up to 1.5), of Perl's
//! `MR::IProto` and of the Go package `iproto`; it is not the MessagePack protocol of later
//! Tarantools.
//!
//! # The wire
//! A packet is 12 bytes of [`Header`], three little-endian `u32` in the order *msg*, *len*,
//! *sync*, and `len` bytes of body. There is no magic, no version and no return code.
//!
//! - A **request** has a `sync` other than 0, and its **response** repeats `msg` and `sync`. Many
//!   may be open at once, and responses come in any order.
//! - A **notify** has the sync 0 and gets no answer.
//! - [`PING`] is answered with the same sync and an empty body. Who waits for the answer to a ping
//!   of its own takes a ping with sync 0 for it.
//! - [`SHUTDOWN`] is sent when one's own calls are done, and answered when the other side's are;
//!   then the connection is closed.
//!
//! Both sides may ask, so a response and a request look alike: what has the msg and the sync of a
//! call that waits is its response. A peer whose *request* happens to have both is misunderstood;
//! the wire has no way to tell. Keep the codes that the two sides ask for apart.
//!
//! # The parts
//! [`Connection`] is the state machine: bytes in, [`Event`]s and headers out, calls with their
//! deadlines, pings and the shutdown handshake. [`PacketReader`] is only the packets.
//! [`mod@pack`] is what is in their bodies.
//!
//! What this room must never do: touch a socket, a clock or a thread, or hold more memory than
//! the bytes that have arrived justify.

mod calls;
mod connection;
mod error;
mod event;
mod header;
mod limits;
pub mod pack;
mod packet;
mod stats;

pub use connection::Connection;
pub use error::{Refusal, Refused, Violation};
pub use event::{Action, CloseReason, Event, ReplyTo};
pub use header::{HEADER_BYTES, Header, PING, SHUTDOWN};
#[cfg(feature = "derive")]
pub use hioload_derive::{Pack, Unpack};
pub use limits::{Env, Limits};
#[doc(inline)]
pub use pack::{Mode, Pack, Unpack, append, append_ber, pack, pack_ber, unpack, unpack_ber};
pub use packet::{Packet, PacketReader, Unread, append_packet};
pub use stats::Stats;

pub use crate::receive::{Body, Direct, HeapMemory, Memory};
