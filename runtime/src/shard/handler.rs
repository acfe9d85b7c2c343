//! What users write: a handler per route and shard, called with one event at a time.
//!
//! Comes in: upgrade requests, messages, the end of a session. Goes out: what the handler sends.
//! A handler is never called from two threads nor from within itself.

use hioload_protocol::http;
use hioload_protocol::ws::{CloseCode, Violation};

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
/// A shard logs five panics a minute, and the number of the rest. The panic hook is not part of
/// that: it is the program's, runs before a panic is caught, and Rust's default one prints each of
/// them to standard error. Where peers may be able to cause panics, set one that is bounded, with
/// [`std::panic::set_hook`] before the start: one that prints nothing, as the log has it, or the
/// first few.
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

    /// The session is open: the 101 response is queued, and messages may be sent. Not called if
    /// there was no memory for that response: then the connection is dropped, and so is what
    /// [`upgrade`](Self::upgrade) gave for the session.
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

    /// A timer that was [set](Session::set_timer) with this token is due.
    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, Self::Session>, token: u64) {
        let _ = (shard, session, token);
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

    /// As [`Handler::timer`].
    fn timer(&mut self, shard: &mut Shard, session: &mut Session<'_, Self::Session>, token: u64) {
        let _ = (shard, session, token);
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
    Accept {
        data: S,
        subprotocol: Option<String>,
        headers: Vec<(String, String)>,
        options: Options,
    },
    Refuse(http::Response),
    Later(UpgradeToken),
}

/// What a session is to have beside its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) keep_request: bool,
    pub(crate) with_stats: bool,
}

impl<S> Upgrade<S> {
    /// Opens the session, and keeps `data` for it.
    #[must_use]
    pub const fn accept(data: S) -> Self {
        let options = Options { keep_request: false, with_stats: false };
        Self(Decision::Accept { data, subprotocol: None, headers: Vec::new(), options })
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

    /// Keeps the head of the request for as long as the session lives, so that
    /// [`Session::header`], [`Session::path`] and [`Session::param`] answer. It costs each such
    /// session the bytes of its head (at most `limits.header_bytes_max`) and about 400 more. A
    /// refusal stays as it is.
    ///
    /// # Examples
    /// ```
    /// # use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
    /// # struct Who;
    /// # impl Handler for Who {
    /// #   type Session = ();
    /// fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
    ///     Upgrade::accept(()).keep_request()
    /// }
    /// fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: Message) {
    ///     let agent = session.header("User-Agent").unwrap_or("nobody").to_owned();
    ///     session.send_text(&agent);
    /// }
    /// # }
    /// # let bench = hioload::testkit::Bench::new(Who);
    /// # let mut client = bench.connect_with("/", &[("User-Agent", "test")], &[])?;
    /// # client.send_text("who am I?");
    /// # assert_eq!(client.receive(), Some(hioload::testkit::Received::Text("test".into())));
    /// # Ok::<(), hioload::testkit::Refused>(())
    /// ```
    #[must_use]
    pub fn keep_request(mut self) -> Self {
        if let Decision::Accept { options, .. } = &mut self.0 {
            options.keep_request = true;
        }
        self
    }

    /// Counts the messages and bytes of the session: see [`Session::stats`]. It costs each such
    /// session about 250 bytes, and each of its messages a look-up. A refusal stays as it is.
    #[must_use]
    pub fn with_stats(mut self) -> Self {
        if let Decision::Accept { options, .. } = &mut self.0 {
            options.with_stats = true;
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

/// Why a session ended: the first cause counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The peer sent a close frame, with this code if it named one, and with the text of
    /// [`Session::close_reason`]; or it ended its side of a raw connection.
    ByPeer(Option<CloseCode>),
    /// The handler closed, or somebody else through the shard or its handle, with this code.
    ByHandler(CloseCode),
    /// The peer broke the protocol or one of our limits.
    Violation(Violation),
    /// The peer was silent for `websocket.idle_timeout_ms`, and did not answer the ping.
    Idle,
    /// Too much waited for the peer, and `websocket.slow_reader` is "close".
    SlowReader,
    /// The peer read nothing for `websocket.progress_timeout_ms`, or, after a close of ours, took
    /// what was queued too slowly: it was dropped without a word. This counts more than the cause
    /// of that close.
    Stalled,
    /// A message took longer than `websocket.message_age_ms_max`.
    MessageTooOld,
    /// The [deadline](Session::set_deadline) of the session passed, which has this code.
    Deadline(CloseCode),
    /// The server shuts down.
    Shutdown,
    /// The handler panicked.
    Panicked,
    /// The pool had no memory for what the session needs.
    OutOfMemory,
    /// The connection broke without a close frame (RFC 6455 section 7.1.5 calls it 1006).
    Lost,
}

impl Closed {
    /// The close code that says it: of the peer's close frame, or of ours. `None` if there was
    /// none: the peer named none, or the connection was lost or dropped.
    ///
    /// # Examples
    /// ```
    /// use hioload::{CloseCode, Closed};
    ///
    /// assert_eq!(Closed::Idle.code(), Some(CloseCode::GOING_AWAY));
    /// assert_eq!(Closed::Lost.code(), None);
    /// ```
    #[must_use]
    pub const fn code(self) -> Option<CloseCode> {
        match self {
            Self::ByPeer(code) => code,
            Self::ByHandler(code) | Self::Deadline(code) => Some(code),
            Self::Violation(violation) => Some(violation.code()),
            Self::Idle | Self::Shutdown => Some(CloseCode::GOING_AWAY),
            Self::SlowReader | Self::MessageTooOld => Some(CloseCode::POLICY),
            Self::Panicked => Some(CloseCode::INTERNAL),
            Self::OutOfMemory => Some(CloseCode::TRY_AGAIN),
            Self::Stalled | Self::Lost => None,
        }
    }
}

impl From<Violation> for Closed {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::MessageTooOld => Self::MessageTooOld,
            Violation::OutOfMemory => Self::OutOfMemory,
            violation => Self::Violation(violation),
        }
    }
}
