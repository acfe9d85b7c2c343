//! One open connection, as its handler sees it during a callback.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hioload_pools::Key;
use hioload_protocol::ws::{CloseCode, MessageKind};

use super::extra::{SessionStats, TimerRefused};
use super::handler::Closed;
use super::link::Link;
use super::message::Message;
use super::topics::SubscribeError;

/// Names a session in the whole server, for as long as the server runs: it is never used again.
///
/// It may leave the shard: other sessions, shards and threads reach the session through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    pub(crate) shard: u16,
    pub(crate) key: Key,
}

impl SessionId {
    /// The shard that the session lives on.
    #[must_use]
    pub const fn shard(self) -> u16 {
        self.shard
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}", self.shard, self.key.to_u64())
    }
}

/// What became of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is queued, and leaves at the end of the turn or as fast as the peer reads.
    Queued,
    /// It is queued, and the outbox is above its high mark: better send no more until `drained`
    /// is called.
    Full,
    /// It was not taken: the session is closing, the outbox is at its bound, the policy for slow
    /// readers says so, or the pool is exhausted.
    Dropped,
}

/// What can be done with an open WebSocket (or raw) connection.
///
/// The interface of [`Session`] without its user data, for helpers that only send. Guarantees:
/// messages leave whole and in the order of the calls; nothing is sent after `close`; `close`
/// and pings are never dropped for lack of room in the outbox.
/// [`FakeWebSocketConn`](crate::testkit::FakeWebSocketConn) records the calls.
pub trait WebSocketConn {
    /// Sends a message. An empty outbox takes any message; otherwise its bounds decide.
    fn send(&mut self, message: Message) -> Sent;

    /// Sends a copy of `payload` as one message.
    fn send_copy(&mut self, kind: MessageKind, payload: &[u8]) -> Sent;

    /// Sends a ping with at most 125 bytes of payload, the rest is cut off
    /// (RFC 6455 section 5.5.2). Does nothing on a raw connection.
    fn ping(&mut self, payload: &[u8]);

    /// Starts the closing handshake (RFC 6455 section 7.1.2); a raw connection gets a FIN. The
    /// reason is cut to 123 bytes.
    fn close(&mut self, code: CloseCode, reason: &str);

    /// Bytes that were sent and not yet taken by the kernel.
    fn queued_bytes(&self) -> usize;

    /// Whether messages can still be sent.
    fn is_open(&self) -> bool;
}

/// An open connection and what the handler keeps for it, for the time of one callback.
#[derive(Debug)]
pub struct Session<'a, S> {
    /// What the handler keeps for this session.
    pub data: &'a mut S,
    pub(super) link: Link<'a>,
}

impl<'a, S> Session<'a, S> {
    pub(crate) const fn new(data: &'a mut S, link: Link<'a>) -> Self {
        Self { data, link }
    }

    /// The name of this session.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.link.id()
    }

    /// Sends a message, from where it lies if it is large. See [`WebSocketConn::send`].
    pub fn send(&mut self, message: Message) -> Sent {
        self.link.send(message)
    }

    /// Sends a copy of a text as one message.
    pub fn send_text(&mut self, text: &str) -> Sent {
        self.link.send_copy(MessageKind::Text, text.as_bytes())
    }

    /// Sends a copy of some bytes as one binary message; on a raw connection just the bytes.
    pub fn send_binary(&mut self, bytes: &[u8]) -> Sent {
        self.link.send_copy(MessageKind::Binary, bytes)
    }

    /// Sends a ping. See [`WebSocketConn::ping`].
    pub fn ping(&mut self, payload: &[u8]) {
        self.link.ping(payload);
    }

    /// Starts the closing handshake. See [`WebSocketConn::close`].
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.link.close(code, reason);
    }

    /// As [`close`](Self::close), for a cause that is not the handler's.
    pub(crate) fn close_for(&mut self, cause: Closed) {
        self.link.close_for(cause, "");
    }

    /// Whether the outbox is above its high mark, where control frames may have brought it: then
    /// `drained` is called, as after [`Sent::Full`].
    pub(crate) fn is_full(&mut self) -> bool {
        self.link.is_full()
    }

    /// Subscribes to a topic of this shard: from now on, what is [published](super::Shard::publish)
    /// to it reaches this session. `false`: it was subscribed already. Ends with the session, or
    /// with [`unsubscribe`](Self::unsubscribe). A topic comes with its first subscriber and goes
    /// with its last.
    ///
    /// # Errors
    /// The name is too long, a limit is reached, or the session is closing.
    pub fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        self.link.subscribe(topic)
    }

    /// Ends a subscription. `false`: there was none.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        self.link.unsubscribe(topic)
    }

    /// Whether this session is subscribed to a topic.
    #[must_use]
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.link.is_subscribed(topic)
    }

    /// Bytes that were sent and not yet taken by the kernel.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.link.queued_bytes()
    }

    /// Whether messages can still be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.link.is_open()
    }
}

/// What is known of the peer and of how it came.
impl<S> Session<'_, S> {
    /// The address of the peer: one system call, nothing is kept for it. `None` for a Unix socket,
    /// and once the connection is lost.
    ///
    /// # Examples
    /// ```
    /// # use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
    /// # struct Who;
    /// # impl Handler for Who {
    /// #   type Session = ();
    /// #   fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
    /// #     Upgrade::accept(())
    /// #   }
    /// fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: Message) {
    ///     if let Some(peer) = session.peer_address() {
    ///         session.send_text(&format!("you are {}", peer.ip()));
    ///     }
    /// }
    /// # }
    /// # let bench = hioload::testkit::Bench::new(Who);
    /// # let mut client = bench.connect("/")?;
    /// # client.send_text("who am I?");
    /// # let answer = hioload::testkit::Received::Text("you are 192.0.2.1".into());
    /// # assert_eq!(client.receive(), Some(answer));
    /// # Ok::<(), hioload::testkit::Refused>(())
    /// ```
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.link.peer_address()
    }

    /// The address that the peer connected to: see [`peer_address`](Self::peer_address).
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.link.local_address()
    }

    /// The path of the request, if it was [kept](super::Upgrade::keep_request). This and
    /// [`header`](Self::header) parse the kept head each time.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.link.head(|head| Some(head.path()))
    }

    /// The first header of this name, in any case, if the request was
    /// [kept](super::Upgrade::keep_request).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.link.head(|head| head.header(name))
    }

    /// What a parameter of the route stands for, if the request was
    /// [kept](super::Upgrade::keep_request): see [`Request::param`](super::Request::param).
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.link.extra()?.kept.as_ref()?.param(name)
    }

    /// The subprotocol that was [chosen](super::Upgrade::subprotocol) (RFC 6455 section 1.9).
    ///
    /// # Examples
    /// ```
    /// # use hioload::{CloseCode, Closed, Handler, Message, Request, Session, Shard, Upgrade};
    /// # struct Example;
    /// # impl Handler for Example {
    /// #   type Session = ();
    /// fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<()> {
    ///     let offered = request.websocket().ok();
    ///     let chosen = offered.and_then(|offered| offered.choose_subprotocol(&["v2", "v1"]));
    ///     match chosen {
    ///         Some(name) => Upgrade::accept(()).subprotocol(name),
    ///         None => Upgrade::refuse(400),
    ///     }
    /// }
    /// fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
    ///     assert!(matches!(session.subprotocol(), Some("v1" | "v2")));
    /// }
    /// #   fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}
    /// # }
    /// # let bench = hioload::testkit::Bench::new(Example);
    /// # let client = bench.connect_with("/", &[], &["v1"])?;
    /// # assert_eq!(client.subprotocol(), Some("v1"));
    /// # assert_eq!(bench.shard_stats().counters.panics, 0);
    /// # Ok::<(), hioload::testkit::Refused>(())
    /// ```
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.link.extra()?.subprotocol.as_deref()
    }

    /// What the peer wrote into its close frame beside the code, if it did: for
    /// [`closed`](super::Handler::closed).
    ///
    /// # Examples
    /// ```
    /// # use hioload::{CloseCode, Closed, Handler, Message, Request, Session, Shard, Upgrade};
    /// # struct Example;
    /// # impl Handler for Example {
    /// #   type Session = ();
    /// #   fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
    /// #     Upgrade::accept(())
    /// #   }
    /// #   fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}
    /// fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, reason: Closed) {
    ///     match reason {
    ///         Closed::ByPeer(code) => println!("left: {code:?} {:?}", session.close_reason()),
    ///         other => println!("ended: {other:?}, close code {:?}", other.code()),
    ///     }
    /// }
    /// # }
    /// # let bench = hioload::testkit::Bench::new(Example);
    /// # bench.connect("/")?.close(CloseCode::NORMAL, "enough");
    /// # assert_eq!(bench.shard_stats().counters.panics, 0);
    /// # Ok::<(), hioload::testkit::Refused>(())
    /// ```
    #[must_use]
    pub fn close_reason(&self) -> Option<&str> {
        self.link.extra()?.close_reason.as_deref()
    }

    /// What the session has counted, if it was opened
    /// [to do so](super::Upgrade::with_stats).
    ///
    /// # Examples
    /// ```
    /// # use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
    /// # struct Meter;
    /// # impl Handler for Meter {
    /// #   type Session = ();
    /// fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
    ///     Upgrade::accept(()).with_stats()
    /// }
    /// fn message(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, _: Message) {
    ///     let stats = session.stats().expect("it was opened with them");
    ///     let age = shard.now().since(stats.opened_at);
    ///     session.send_text(&format!("{} in {age:?}", stats.messages_in));
    /// }
    /// # }
    /// # let bench = hioload::testkit::Bench::new(Meter);
    /// # let mut client = bench.connect("/")?;
    /// # bench.advance(std::time::Duration::from_secs(3));
    /// # client.send_text("how many?");
    /// # let answer = hioload::testkit::Received::Text("1 in 3s".into());
    /// # assert_eq!(client.receive(), Some(answer));
    /// # Ok::<(), hioload::testkit::Refused>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Option<SessionStats> {
        self.link.stats()
    }
}

/// Timers: they end with the session, and none is early. They are exact to the millisecond, but
/// come after all else of their turn.
impl<S> Session<'_, S> {
    /// Lets [`Handler::timer`](super::Handler::timer) be called with `token` when `after` has
    /// passed, at the earliest in the next millisecond. A timer with this token that is set already
    /// is set anew. Timers that are due in one turn come in the order of their times.
    ///
    /// # Errors
    /// The session has [`TIMERS_MAX`](super::TIMERS_MAX) of them, or is closing.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// # use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
    ///
    /// /// Says when a session has said nothing for a minute.
    /// struct Reminder;
    ///
    /// impl Handler for Reminder {
    ///     type Session = ();
    ///     fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
    ///         Upgrade::accept(())
    ///     }
    ///     fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: Message) {
    ///         session.set_timer(Duration::from_secs(60), 1).expect("it is the only one");
    ///     }
    ///     fn timer(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _token: u64) {
    ///         session.send_text("are you still there?");
    ///     }
    /// }
    /// # let bench = hioload::testkit::Bench::new(Reminder);
    /// # let mut client = bench.connect("/")?;
    /// # client.send_text("hello");
    /// # bench.advance(Duration::from_secs(60));
    /// # let answer = hioload::testkit::Received::Text("are you still there?".into());
    /// # assert_eq!(client.receive(), Some(answer));
    /// # Ok::<(), hioload::testkit::Refused>(())
    /// ```
    pub fn set_timer(&mut self, after: Duration, token: u64) -> Result<(), TimerRefused> {
        self.link.set_timer(after, token)
    }

    /// Takes a timer back. `false`: there was none with this token, or it was called already.
    pub fn cancel_timer(&mut self, token: u64) -> bool {
        self.link.cancel_timer(token)
    }

    /// Closes the session with this code when `after` has passed, whatever it does until then: for
    /// sessions whose permission ends. Another deadline takes the place of this one.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// # use hioload::{CloseCode, Closed, Handler, Message, Request, Session, Shard, Upgrade};
    /// # struct Example;
    /// # impl Handler for Example {
    /// #   type Session = ();
    /// #   fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
    /// #     Upgrade::accept(())
    /// #   }
    /// fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
    ///     // The token that it came with is valid for an hour.
    ///     session.set_deadline(Duration::from_secs(3600), CloseCode::POLICY);
    /// }
    /// fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
    ///     if message.text() == Some("stay") {
    ///         session.clear_deadline();
    ///     }
    /// }
    /// # }
    /// # let bench = hioload::testkit::Bench::new(Example);
    /// # let (mut one, mut other) = (bench.connect("/")?, bench.connect("/")?);
    /// # other.send_text("stay");
    /// # bench.advance(Duration::from_secs(59));
    /// # assert_eq!(one.receive(), None);
    /// # Ok::<(), hioload::testkit::Refused>(())
    /// ```
    pub fn set_deadline(&mut self, after: Duration, code: CloseCode) {
        self.link.set_deadline(Some((after, code)));
    }

    /// Takes the deadline back.
    pub fn clear_deadline(&mut self) {
        self.link.set_deadline(None);
    }
}

impl<S> WebSocketConn for Session<'_, S> {
    fn send(&mut self, message: Message) -> Sent {
        self.link.send(message)
    }

    fn send_copy(&mut self, kind: MessageKind, payload: &[u8]) -> Sent {
        self.link.send_copy(kind, payload)
    }

    fn ping(&mut self, payload: &[u8]) {
        self.link.ping(payload);
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        self.link.close(code, reason);
    }

    fn queued_bytes(&self) -> usize {
        self.link.queued_bytes()
    }

    fn is_open(&self) -> bool {
        self.link.is_open()
    }
}
