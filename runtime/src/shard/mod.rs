//! A shard: one thread, one CPU, one reactor, and everything that its sessions need.
//!
//! Nothing here is shared with another shard and nothing is `Send`; others reach a shard through
//! its [`ShardHandle`] only. The loop is `turn.rs`; what a handler sees of it is [`Shard`].

mod accept;
mod client;
mod conn;
mod deflate;
mod dial;
mod dialing;
mod driver;
mod entry;
mod executor;
mod extra;
mod handler;
mod handshake;
mod iproto;
mod link;
mod mailbox;
mod message;
mod orders;
mod outbox;
mod paths;
mod pause;
mod raw;
mod request;
mod residue;
mod route;
mod said;
mod secrets;
mod session;
mod settings;
mod share;
mod spin;
#[cfg(test)]
mod tests;
mod timers;
mod topics;
mod turn;
mod websocket;

use std::any::Any;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hioload_pools::{BytePool, Key, PoolStats};
use hioload_protocol::ws::{CloseCode, MessageKind};

pub use conn::NetConn;
pub use executor::{Sleep, Task};
pub use extra::{SessionStats, TIMERS_MAX, TimerRefused};
pub use handler::{Closed, Handler, RawHandler, Upgrade};
pub use iproto::{
    Body, Call, CallError, Hijacked, IprotoClientHandler, IprotoClosed, IprotoHandler, IprotoPeer,
    IprotoRequest, IprotoSession, Mux, Payload, RemoteReply, Reply, Response,
};
pub(crate) use iproto::{Iproto, IprotoDialled, IprotoRoute};
pub use mailbox::{MailboxFull, ShardHandle};
pub use message::Message;
pub use request::{Request, UpgradeToken};
pub use session::{Sent, Session, SessionId, WebSocketConn};
pub use topics::{SubscribeError, TOPIC_NAME_BYTES_MAX};

pub(crate) use client::Dialled;
pub(crate) use mailbox::{Letter, MAILBOX_BYTES_MAX, MAILBOX_LETTERS};
pub(crate) use orders::Order;
pub(crate) use paths::{Paths, PlainHandler};
pub(crate) use route::Route;
pub(crate) use settings::Settings;
pub(crate) use turn::{Parts, Turn};

use crate::Time;
use crate::config::Compression;
use crate::place::ShardPlace;
use crate::random::split_mix_64;
use crate::reactor::ReactorStats;
use crate::ws::ConnectError;
use dial::Dials;
use executor::Executor;
use iproto::LateQueue;
use raw::RawRoute;
use topics::{Publish, SharedTopics};
use websocket::WebSocketRoute;

/// What the shard and its pools keep for an idle WebSocket session, in bytes, beside what the
/// reactor and the user keep: for the memory bill.
pub(crate) const SESSION_BYTES: usize = size_of::<entry::Entry>() + 8 + 16;

/// The route of a WebSocket path; without a setting of its own it compresses as configured.
pub(crate) fn websocket_route<H: Handler>(
    handler: H,
    sessions_max: usize,
    compression: Option<Compression>,
) -> Box<dyn Route> {
    Box::new(WebSocketRoute::new(handler, sessions_max, compression))
}

/// The route of a raw listener.
pub(crate) fn raw_route<H: RawHandler>(handler: H, sessions_max: usize) -> Box<dyn Route> {
    Box::new(RawRoute::new(handler, sessions_max))
}

/// The route of an iproto listener.
pub(crate) fn iproto_route<H: IprotoHandler>(handler: H, sessions_max: usize) -> Box<dyn Route> {
    Box::new(IprotoRoute::new(handler, sessions_max))
}

/// What a handler can do beside its current session: time, memory, futures, other sessions.
///
/// Operations on other sessions are queued and take effect after the callback, so that a handler
/// is never called from within itself.
pub struct Shard {
    place: ShardPlace,
    now: Time,
    /// State of the generator, seeded once per shard.
    rng: u64,
    pool: Rc<dyn BytePool>,
    executor: Executor,
    handles: Arc<[ShardHandle]>,
    actions: Vec<Action>,
    /// Replies that wait for the end of the turn.
    late: Rc<LateQueue>,
    pub(crate) counters: Counters,
    reactor: ReactorStats,
    sessions: usize,
    topics: SharedTopics,
    dials: Dials,
    /// `websocket.outbox_high_bytes` and `websocket.outbox_max_bytes`.
    outbox: (usize, usize),
    /// `iproto.calls_max`.
    iproto_calls_max: usize,
    /// `iproto.request_timeout_ms`.
    iproto_timeout: Duration,
}

/// Something that waits for the end of the callback.
pub(crate) enum Action {
    Send {
        to: SessionId,
        message: Message,
    },
    Close {
        session: SessionId,
        code: CloseCode,
    },
    Answer {
        token: UpgradeToken,
        answer: Box<dyn Any>,
    },
    Publish(Publish),
    /// The next step of a client.
    Dial(Key),
    /// A client that cannot even begin.
    Refuse(Box<dyn Route>, ConnectError),
    CloseClient {
        key: Key,
        code: CloseCode,
    },
}

/// What a shard counts, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Turns of the loop.
    pub turns: u64,
    /// Connections taken from the listeners.
    pub accepted: u64,
    /// Sessions opened: upgrades accepted, raw connections, and connections of our own.
    pub opened: u64,
    /// Handshakes answered with an error.
    pub refused: u64,
    /// Messages (pieces of raw streams, requests and notifies of iproto) given to handlers.
    pub messages: u64,
    /// Sessions ended because the peer broke the protocol.
    pub violations: u64,
    /// Panics caught in handlers, futures and functions run on the shard.
    pub panics: u64,
    /// Times accepting was paused because the process or the shard had no room.
    pub accept_pauses: u64,
    /// Handshakes ended because too many were unfinished, or one took too long.
    pub handshakes_expired: u64,
    /// Sessions ended because the peer was silent, or did not read, or their end was cut because it
    /// read too slowly.
    pub timeouts: u64,
    /// Messages published to topics that had subscribers.
    pub published: u64,
    /// Frames made of them: one each, however many the subscribers.
    pub encodings: u64,
    /// Times one of them was queued for a subscriber.
    pub delivered: u64,
    /// Times one of them was not, as the subscriber reads too slowly or memory was short.
    pub missed: u64,
    /// Requests of iproto whose reply was dropped.
    pub unanswered: u64,
    /// Requests and notifies of iproto for whose code a [`Mux`] has no handler.
    pub unknown: u64,
}

/// A look at a shard: as of the start of the turn, or, in a function that a
/// [`ShardHandle`] runs, as of now.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ShardStats {
    /// Connections at this moment, unfinished handshakes included.
    pub connections: usize,
    /// What the shard has counted.
    pub counters: Counters,
    /// What its reactor has counted.
    pub reactor: ReactorStats,
    /// Its memory.
    pub pool: PoolStats,
}

impl Shard {
    /// Polls the futures that are ready, ahead of their turn.
    pub(crate) fn run_ready(&mut self) {
        for _ in 0..Executor::POLLS_MAX {
            let Some(ran) = self.executor.run_next() else { return };
            self.counters.panics += u64::from(ran.is_err());
        }
    }

    /// The number of this shard, from 0.
    #[must_use]
    pub const fn index(&self) -> u16 {
        self.place.shard
    }

    /// The CPU and the NUMA node it runs on.
    #[must_use]
    pub const fn place(&self) -> &ShardPlace {
        &self.place
    }

    /// The time at which this turn began: the only clock of a shard.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// A random number: fast, seeded once per shard, not for secrets (SplitMix64).
    pub const fn random(&mut self) -> u64 {
        split_mix_64(&mut self.rng)
    }

    /// The memory of this shard, local to its NUMA node.
    #[must_use]
    pub fn pool(&self) -> &dyn BytePool {
        &*self.pool
    }

    /// A message with a copy of `payload` in pool memory; `None` if the pool is exhausted.
    #[must_use]
    pub fn message(&self, kind: MessageKind, payload: &[u8]) -> Option<Message> {
        topics::message_with_room(kind, payload, &*self.pool)
    }

    /// Sends a message to another session, of this shard or another one, after this callback.
    ///
    /// For a session of another shard the payload is copied; if that shard's mailbox is full, or
    /// the session is gone, the message is dropped.
    pub fn send_to(&mut self, to: SessionId, message: Message) {
        if to.shard == self.index() {
            self.actions.push(Action::Send { to, message });
        } else if let Some(handle) = self.handles.get(usize::from(to.shard)) {
            let payload: Bytes = message.to_bytes();
            if handle.send(to, message.kind(), payload).is_err() {
                tracing::debug!(%to, "a message was dropped: the mailbox of its shard is full");
            }
        }
    }

    /// Closes a session, of this shard or another one, after this callback.
    pub fn close(&mut self, session: SessionId, code: CloseCode) {
        if session.shard == self.index() {
            self.actions.push(Action::Close { session, code });
        } else if let Some(handle) = self.handles.get(usize::from(session.shard))
            && handle.close(session, code).is_err()
        {
            tracing::debug!(%session, "not closed: the mailbox of its shard is full");
        }
    }

    /// Answers a handshake that was left open with [`Upgrade::later`]. If it is gone by then (the
    /// peer left, or the deadline passed), the answer is dropped. `S` must be the session type of
    /// the route's handler; the handshake is refused with 500 otherwise.
    pub fn answer<S: 'static>(&mut self, token: UpgradeToken, answer: Upgrade<S>) {
        self.actions.push(Action::Answer { token, answer: Box::new(answer) });
    }

    /// Starts a future on this shard.
    ///
    /// # Examples
    /// An upgrade that is answered when a look-up has finished:
    /// ```
    /// # use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
    /// # async fn find_user(_: String) -> Option<u64> { Some(7) }
    /// # struct Chat;
    /// # impl Handler for Chat {
    /// #   type Session = u64;
    /// #   fn message(&mut self, _: &mut Shard, _: &mut Session<'_, u64>, _: Message) {}
    /// fn upgrade(&mut self, shard: &mut Shard, request: &Request<'_>) -> Upgrade<u64> {
    ///     let (token, handle) = (request.token(), shard.handle());
    ///     let name = request.path().to_owned();
    ///     shard
    ///         .spawn(async move {
    ///             let answer = match find_user(name).await {
    ///                 Some(user) => Upgrade::accept(user),
    ///                 None => Upgrade::refuse(403),
    ///             };
    ///             // If the mailbox is full, the handshake deadline answers for us.
    ///             let _ = handle.run(move |shard| shard.answer(token, answer));
    ///         })
    ///         .detach();
    ///     Upgrade::later(token)
    /// }
    /// # }
    /// ```
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        self.executor.spawn(future)
    }

    /// A future that is ready after `duration`, to the millisecond of a turn.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(self.executor.timers(), duration)
    }

    /// A handle with which any thread or future reaches this shard.
    #[must_use]
    pub fn handle(&self) -> ShardHandle {
        self.handles[usize::from(self.index())].clone()
    }

    /// The handles of all shards of the server, by their index.
    #[must_use]
    pub fn handles(&self) -> &[ShardHandle] {
        &self.handles
    }

    /// From how many bytes on an outbox is full, and how many it takes at the most.
    pub(crate) const fn outbox_marks(&self) -> (usize, usize) {
        self.outbox
    }

    /// How many bytes an outbox takes at the most, and how many calls may wait on a connection.
    pub(crate) const fn iproto_marks(&self) -> (usize, usize) {
        (self.outbox.1, self.iproto_calls_max)
    }

    /// How long a call without a timeout of its own waits for its response.
    pub(crate) const fn iproto_timeout(&self) -> Duration {
        self.iproto_timeout
    }

    /// Connections of this shard, unfinished handshakes included.
    #[must_use]
    pub const fn session_count(&self) -> usize {
        self.sessions
    }

    /// A look at what this shard has counted. See [`ShardStats`] for as of when.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            connections: self.sessions,
            counters: self.counters,
            reactor: self.reactor,
            pool: self.pool.stats(),
        }
    }
}
