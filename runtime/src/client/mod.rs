//! WebSocket connections to other servers: described by [`Connect`], used by callbacks on a shard
//! or through a handle from anywhere.
//!
//! Comes in: a `ws://` URL and what to ask for. Goes out: an open connection, or a
//! [`ConnectError`] of one sentence.
//!
//! * **A handle** ([`Client`]) is for any executor and any thread: [`Connect::open`] runs the
//!   input and output on one background shard of the process, [`Connector::open`] on a shard of
//!   its own with its own configuration, [`Shard::open`](crate::Shard::open) on that shard.
//! * **Callbacks** ([`ClientHandler`]) are for code that lives on a shard:
//!   [`Shard::connect`](crate::Shard::connect). Nothing is copied between threads there, and
//!   nothing is locked.
//!
//! # Examples
//! ```no_run
//! use hioload::ws::{self, Connect};
//!
//! ws::block_on(async {
//!     let mut client = Connect::to("ws://127.0.0.1:9001/ws").open().await?;
//!     client.send("hello").await?;
//!     while let Some(message) = client.next().await {
//!         println!("{:?}", message?.text());
//!     }
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod block_on;
mod bridge;
mod connect;
mod connector;
mod error;
mod handle;
mod handler;
mod payload;
mod pipe;
mod presence;
mod reconnect;
mod resolve;
mod url;

pub use block_on::block_on;
pub use connect::Connect;
pub use connector::Connector;
pub use error::{Broken, ConnectError, SendError};
pub use handle::{Client, Event, Receiver, Sender};
pub use handler::{ClientHandler, ClientId, Opened};
pub use hioload_protocol::http::client::ResponseError;
pub use payload::Payload;
pub use reconnect::Reconnect;

pub(crate) use connect::Plan;
pub(crate) use connector::{background, open_on};
pub(crate) use presence::{Poller, Presence, Stage, Waiters, Wakes, wait};
pub(crate) use reconnect::STABLE_MS;
pub(crate) use resolve::{Wanted, look_up};
pub(crate) use url::{Host, Target, Transport};
