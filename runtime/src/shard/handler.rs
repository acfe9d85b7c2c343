//! What users write: a handler per route and shard, called with one event at a time.
//!
//! Comes in: upgrade requests, messages, the end of a session. Goes out: what the handler sends.
//! A handler is never called from two threads nor from within itself.

use hioload_protocol::http;
use hioload_protocol::ws::CloseCode;

use super::Shard;
use super::message::Message;
use super::request::{Request, UpgradeToken};
use super::session::Session;

/// Serves the WebSocket sessions of one route on one shard.
///
/// There is one handler per route and shard, made on the shard's thread by the factory given to
/// the builder: it need not be `Send`, and nothing in it needs a lock. A panic in a method costs
/// the session it was called for, which is closed with 1011; the handler lives on.
///
/// # Examples
/// ```
/// use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
///
/// /// Counts the messages of each session and answers with the count.
/// struct Counter;
///
/// impl Handler for Counter {
///     type Session = u64;
///
///     fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<u64> {
///         Upgrade::accept(0)
///     }
///     fn message(&mut self, _: &mut Shard, session: &mut Session<'_, u64>, _: Message) {
///         *session.data += 1;
///         let count = session.data.to_string();
///         session.send_text(&count);
///     }
/// }
/// # hioload::testkit::Bench::new(Counter);
/// ```
pub trait Handler: 'static {
    /// What is kept for each session, beside what the runtime keeps.
    type Session: 'static;

    /// Decides on a handshake that keeps RFC 6455 section 4.2.1 and passed the origin check.
    fn upgrade(&mut self, shard: &mut Shard, request: &Request<'_>) -> Upgrade<Self::Session>;

    /// The session is open: the 101 response is queued, and messages may be sent.
    fn opened(&mut self, shard: &mut Shard, session: &mut Session<'_, Self::Session>) {
        let _ = (shard, session);
    }

    /// A complete message arrived; text is valid UTF-8. Send it, drop it, or keep it.
    fn message(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, Self::Session>,
        message: Message,
    );

    /// After an answer of [`Sent::Full`](super::Sent::Full): the outbox is below its low mark.
    fn drained(&mut self, shard: &mut Shard, session: &mut Session<'_, Self::Session>) {
        let _ = (shard, session);
    }

    /// The session is over; called once for each [`opened`](Self::opened). Nothing can be sent.
    fn closed(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, Self::Session>,
        reason: Closed,
    ) {
        let _ = (shard, session, reason);
    }
}

/// Serves the connections of a raw TCP or Unix listener on one shard.
pub trait RawHandler: 'static {
    /// What is kept for each connection.
    type Session: 'static;

    /// A connection was accepted: makes what is kept for it.
    fn accepted(&mut self, shard: &mut Shard) -> Self::Session;

    /// Bytes arrived, cut as the network cut them, never none.
    fn received(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, Self::Session>,
        bytes: Message,
    );

    /// As [`Handler::drained`].
    fn drained(&mut self, shard: &mut Shard, session: &mut Session<'_, Self::Session>) {
        let _ = (shard, session);
    }

    /// The connection is over; called once for each [`accepted`](Self::accepted).
    fn closed(
        &mut self,
        shard: &mut Shard,
        session: &mut Session<'_, Self::Session>,
        reason: Closed,
    ) {
        let _ = (shard, session, reason);
    }
}

/// The answer to a handshake.
#[derive(Debug)]
pub struct Upgrade<S>(pub(crate) Decision<S>);

#[derive(Debug)]
pub(crate) enum Decision<S> {
    Accept { data: S, subprotocol: Option<String>, headers: Vec<(String, String)> },
    Refuse(http::Response),
    Later(UpgradeToken),
}

impl<S> Upgrade<S> {
    /// Opens the session, and keeps `data` for it.
    #[must_use]
    pub const fn accept(data: S) -> Self {
        Self(Decision::Accept { data, subprotocol: None, headers: Vec::new() })
    }

    /// Names the subprotocol, one of those that the client offered (RFC 6455 section 4.2.2).
    /// A refusal stays as it is.
    #[must_use]
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        if let Decision::Accept { subprotocol, .. } = &mut self.0 {
            *subprotocol = Some(name.into());
        }
        self
    }

    /// Adds a header to the 101 response. A refusal stays as it is.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Decision::Accept { headers, .. } = &mut self.0 {
            headers.push((name.into(), value.into()));
        }
        self
    }

    /// Answers with this HTTP status (400 to 599) and closes.
    #[must_use]
    pub fn refuse(status: u16) -> Self {
        Self(Decision::Refuse(http::Response::text(status, "")))
    }

    /// Answers with this HTTP response and closes.
    #[must_use]
    pub const fn refuse_with(response: http::Response) -> Self {
        Self(Decision::Refuse(response))
    }

    /// Leaves the handshake open until [`Shard::answer`] is called with the token of the
    /// [`Request`], or the handshake deadline closes it.
    #[must_use]
    pub const fn later(token: UpgradeToken) -> Self {
        Self(Decision::Later(token))
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer sent a close frame, with this code if it named one; or it ended its side of a raw
    /// connection.
    ByPeer(Option<CloseCode>),
    /// We closed, with this code: the handler asked for it, the peer broke a rule, or the server
    /// shuts down.
    ByUs(CloseCode),
    /// The connection broke without a close frame (RFC 6455 section 7.1.5 calls it 1006).
    Lost,
}
