//! Tests without sockets: a bench for handlers, and a stand-in for each seam.
//!
//! [`sim`] runs whole servers with hostile networks out of one seed, and [`Bench`] serves a [`Handler`](crate::Handler) with the loop of a real shard over a simulated
//! network and a clock that is turned by hand. Smaller things are tested against the stand-in of
//! the seam that they use:
//!
//! | Seam | What it separates | Stand-in |
//! | --- | --- | --- |
//! | [`Reactor`](crate::reactor::Reactor) | a shard from the machine | [`SimReactor`] on a [`Net`] |
//! | [`NetConn`](crate::shard::NetConn) | a session from its reactor | [`FakeConn`] |
//! | [`BytePool`](crate::pools::BytePool) | everybody from memory | [`FailingPool`] |
//! | [`ObjectPool`](crate::pools::ObjectPool) | a shard from where objects are kept | [`FakeObjectPool`] |
//! | [`WebSocketConn`](crate::shard::WebSocketConn) | a handler's helpers from a session | [`FakeWebSocketConn`] |
//! | [`WebSocketFrame`] | the writer of headers from what is sent | [`FakeFrame`] |
//! | [`Handler`](crate::Handler) | a shard from its user | [`FakeHandler`] |

mod bench;
mod client;
mod fakes;
mod handler;
pub mod sim;
mod treadmill;

pub use hioload_pools::fake::{FailingPool, FakeObjectPool};
pub use hioload_protocol::ws::Opcode;
pub use hioload_protocol::ws::frame::{FakeFrame, WebSocketFrame};

pub use crate::reactor::sim::{Net, Peer, SimConfig, SimReactor};
pub use bench::Bench;
pub use client::{Received, Refused, TestClient};
pub use fakes::{ConnCall, FakeConn, FakeWebSocketConn};
pub use handler::{FakeHandler, HandlerCall, Reply};
pub use treadmill::Treadmill;
