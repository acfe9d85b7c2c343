//! What users write to use a connection on the shard that it lives on.

use std::fmt;
use std::time::Duration;

use hioload_pools::Key;

use super::error::ConnectError;
use crate::shard::{Closed, Message, Session, Shard};

/// Serves one connection to another server, on a shard, by callbacks.
///
/// There is one handler per [`Shard::connect`], which lives on the shard until the connection
/// has ended and will not be opened again, and is dropped then. Nothing in it needs to be `Send`. A
/// panic in a method costs this connection, which is closed with 1011.
///
/// # Examples
/// ```
/// use hioload::ws::{ClientHandler, Connect, Opened};
/// use hioload::{CloseCode, Message, Session, Shard};
///
/// /// Says hello, and leaves after the answer.
/// struct Greeter;
///
/// impl ClientHandler for Greeter {
///     fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: &Opened) {
///         session.send_text("hello");
///     }
///     fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
///         println!("{:?}", message.text());
///         session.close(CloseCode::NORMAL, "");
///     }
/// }
///
/// fn greet(shard: &mut Shard) {
///     shard.connect(Connect::to("ws://127.0.0.1:9001/ws"), Greeter);
/// }
/// ```
pub trait ClientHandler: 'static {
    /// The connection is open, and messages may be sent. After a loss and a reconnect it is called
    /// again, with a session of another id.
    fn opened(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, opened: &Opened) {
        let _ = (shard, session, opened);
    }

    /// A complete message arrived; text is valid UTF-8. Send it, drop it, or keep it.
    fn message(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, message: Message);

    /// After an answer of [`Sent::Full`](crate::Sent::Full): the outbox is below its low mark.
    fn drained(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>) {
        let _ = (shard, session);
    }

    /// A [timer](Session::set_timer) of this session is due.
    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, token: u64) {
        let _ = (shard, session, token);
    }

    /// The connection is over; called once for each [`opened`](Self::opened). Nothing can be sent.
    fn closed(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, reason: Closed) {
        let _ = (shard, session, reason);
    }

    /// An attempt to connect failed. Not called for one that was cancelled.
    fn failed(&mut self, shard: &mut Shard, error: &ConnectError) {
        let _ = (shard, error);
    }

    /// After [`closed`](Self::closed) or [`failed`](Self::failed), if there will be another
    /// attempt: its number in this row, from 1, and how long it waits.
    fn reconnecting(&mut self, shard: &mut Shard, attempt: u32, wait: Duration) {
        let _ = (shard, attempt, wait);
    }
}

/// What is known of a connection when it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The subprotocol that the server chose, one of those offered.
    pub subprotocol: Option<String>,
    /// 1 for the first connection, and one more for each that followed it.
    pub generation: u32,
}

/// Names what [`Shard::connect`] began, over all its connections; it is never used again.
///
/// It may leave the shard: [`ShardHandle::run`](crate::ShardHandle::run) carries it back to
/// [`Shard::close_client`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId {
    pub(crate) shard: u16,
    pub(crate) key: Key,
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:client:{:x}", self.shard, self.key.to_u64())
    }
}
