//! Replies, wherever they are given: a request can be answered once, and is never forgotten.
//!
//! On the shard they go through a list that the turn empties, from other threads through its
//! orders. A token that is dropped does the same, so that no request stays open.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use hioload_pools::{BytePool, Key};
use hioload_protocol::iproto::{Header, ReplyTo};
use hioload_protocol::ws::MessageKind;

use super::body::{Kind, Payload};
use crate::shard::{Message, Order, SessionId, Shard, ShardHandle};

impl Late {
    /// A reply that another thread gave.
    pub(crate) fn remote(session: Key, to: ReplyTo, answer: Answer<Bytes>) -> Self {
        let answer = match answer {
            Answer::Body(bytes) => Answer::Body(bytes.into()),
            Answer::Missing => Answer::Missing,
            Answer::Nothing => Answer::Nothing,
        };
        Self { session, what: What::Reply(to, answer) }
    }
}

/// Something for a connection that comes from outside of its callbacks.
pub(crate) struct Late {
    pub(crate) session: Key,
    pub(super) what: What,
}

pub(super) enum What {
    Reply(ReplyTo, Answer<Payload<'static>>),
    /// Nobody waits for this call any more.
    Cancel(Header),
}

/// What becomes of a request.
pub(crate) enum Answer<B> {
    Body(B),
    /// Its token was dropped.
    Missing,
    /// The peer shall run into its timeout.
    Nothing,
}

/// Keeps a payload beyond this callback: in the pool, where that has memory for it.
fn keep(payload: Payload<'_>, pool: &dyn BytePool) -> Payload<'static> {
    Payload(match payload.0 {
        Kind::Pooled(message) => Kind::Pooled(message),
        Kind::Owned(bytes) => Kind::Owned(bytes),
        Kind::Borrowed([]) => Kind::Borrowed(&[]),
        Kind::Borrowed(bytes) => match pool.acquire(bytes.len(), bytes.len()) {
            Some(mut lease) => {
                lease.copy_from_slice(bytes);
                Kind::Pooled(Message::new(MessageKind::Binary, lease))
            }
            None => Kind::Owned(Bytes::copy_from_slice(bytes)),
        },
    })
}

/// What waits for the end of the turn.
#[derive(Default)]
pub(crate) struct LateQueue(RefCell<Vec<Late>>);

impl LateQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Exchanges the list for an empty one.
    pub(crate) fn swap(&self, other: &mut Vec<Late>) {
        std::mem::swap(&mut *self.0.borrow_mut(), other);
    }

    pub(super) fn cancel(&self, session: Key, call: Header) {
        self.push(session, What::Cancel(call));
    }

    fn push(&self, session: Key, what: What) {
        self.0.borrow_mut().push(Late { session, what });
    }
}

/// The right to answer one request, once: in its callback with
/// [`Session::reply`](super::IprotoSession::reply), or whenever it suits with
/// [`send`](Self::send). It stays on its shard; [`into_remote`](Self::into_remote) makes one that
/// any thread may have.
///
/// A token that is dropped answers what
/// [`Handler::unanswered`](super::IprotoHandler::unanswered) says: an error, unless it is
/// told otherwise. If the connection is gone by then, nothing happens.
#[must_use = "a request whose reply is dropped is answered with an error"]
pub struct Reply {
    session: SessionId,
    /// `None` once it is answered.
    open: Option<ReplyTo>,
    queue: Rc<LateQueue>,
}

impl Reply {
    pub(super) const fn new(session: SessionId, to: ReplyTo, queue: Rc<LateQueue>) -> Self {
        Self { session, open: Some(to), queue }
    }

    /// What was asked for.
    #[must_use]
    pub fn msg(&self) -> u32 {
        self.open.as_ref().map_or(0, ReplyTo::msg)
    }

    /// Which request of the peer it is; not 0.
    #[must_use]
    pub fn sync(&self) -> u32 {
        self.open.as_ref().map_or(0, ReplyTo::sync)
    }

    /// The connection that the request came from.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Answers, at the end of this turn.
    pub fn send<'a>(mut self, shard: &Shard, body: impl Into<Payload<'a>>) {
        self.answer(Answer::Body(keep(body.into(), shard.pool())));
    }

    /// Leaves the request without an answer: the peer runs into its timeout.
    pub fn discard(mut self) {
        self.answer(Answer::Nothing);
    }

    /// The same for any thread.
    ///
    /// # Examples
    /// ```
    /// # use hioload::Shard;
    /// # use hioload::iproto::{Handler, Peer, Request, Session};
    /// # struct Slow;
    /// # impl Handler for Slow {
    /// #   type Session = ();
    /// #   fn accept(&mut self, _: &mut Shard, _: &Peer<'_>) -> Option<()> { Some(()) }
    /// fn request(&mut self, shard: &mut Shard, _: &mut Session<'_, ()>, request: Request) {
    ///     let (reply, body) = (request.reply.into_remote(shard), request.body.to_bytes());
    ///     std::thread::spawn(move || {
    ///         let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    ///         reply.send(sum.to_le_bytes().to_vec());
    ///     });
    /// }
    /// # }
    /// ```
    pub fn into_remote(mut self, shard: &Shard) -> RemoteReply {
        let shard = shard.handle();
        RemoteReply { session: self.session, open: self.open.take(), shard }
    }

    /// Gives up the token, if it is one of this session.
    pub(super) fn take(mut self, session: Key) -> Result<ReplyTo, Self> {
        if self.session.key == session
            && let Some(to) = self.open.take()
        {
            return Ok(to);
        }
        Err(self)
    }

    /// Answers a session other than the one of this callback.
    pub(super) fn send_elsewhere(mut self, payload: Payload<'_>, pool: &dyn BytePool) {
        self.answer(Answer::Body(keep(payload, pool)));
    }

    fn answer(&mut self, answer: Answer<Payload<'static>>) {
        if let Some(to) = self.open.take() {
            self.queue.push(self.session.key, What::Reply(to, answer));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Answer::Missing);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, open, .. } = self;
        f.debug_struct("Reply").field("session", session).field("open", open).finish()
    }
}

/// A [`Reply`] for any thread. What it sends is never refused and never waits; it is dropped if the
/// connection or the shard is gone by then.
#[must_use = "a request whose reply is dropped is answered with an error"]
pub struct RemoteReply {
    session: SessionId,
    open: Option<ReplyTo>,
    shard: ShardHandle,
}

impl RemoteReply {
    /// What was asked for.
    #[must_use]
    pub fn msg(&self) -> u32 {
        self.open.as_ref().map_or(0, ReplyTo::msg)
    }

    /// The connection that the request came from.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Answers.
    pub fn send<'a>(mut self, body: impl Into<Payload<'a>>) {
        self.answer(Answer::Body(body.into().into_bytes()));
    }

    /// Leaves the request without an answer: the peer runs into its timeout.
    pub fn discard(mut self) {
        self.answer(Answer::Nothing);
    }

    fn answer(&mut self, answer: Answer<Bytes>) {
        if let Some(to) = self.open.take() {
            let session = self.session.key;
            self.shard.order(Order::Reply { session, to, answer });
        }
    }
}

impl Drop for RemoteReply {
    fn drop(&mut self) {
        self.answer(Answer::Missing);
    }
}

impl fmt::Debug for RemoteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, open, .. } = self;
        f.debug_struct("RemoteReply").field("session", session).field("open", open).finish()
    }
}
