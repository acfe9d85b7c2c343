//! How other shards and threads reach a shard: a bounded mailbox, and a waker behind it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hioload_pools::{Budget, mailbox};
use hioload_protocol::ws::{CloseCode, MessageKind};

use super::Shard;
use super::orders::{Order, Orders};
use super::session::SessionId;
use crate::reactor::Waker;

/// Letters that a mailbox holds before senders are told that it is full.
pub(crate) const MAILBOX_LETTERS: usize = 4096;

/// Bytes of messages that a mailbox holds before senders are told that it is full. One without any
/// takes any message: as much as the largest that is usual, and a bound for many of those. It is
/// less than all letters of a usual size take: 256 of 64 KiB fit.
pub(crate) const MAILBOX_BYTES_MAX: usize = 16 << 20;

/// What a shard can be asked from outside.
pub(crate) enum Letter {
    /// Send a message to a session.
    Send { to: SessionId, kind: MessageKind, payload: Bytes },
    /// Close a session.
    Close { session: SessionId, code: CloseCode },
    /// Run a function on the shard, between two turns.
    Run(Box<dyn FnOnce(&mut Shard) + Send>),
    /// Stop accepting, close every session, and end when all are gone or the time is over.
    Drain { timeout_ms: u64 },
}

impl Letter {
    /// What it holds beside itself.
    fn bytes(&self) -> usize {
        match self {
            Self::Send { payload, .. } => payload.len(),
            Self::Close { .. } | Self::Run(_) | Self::Drain { .. } => 0,
        }
    }
}

/// Reaches one shard from any thread. Cheap to clone; nothing here blocks or locks.
///
/// # Examples
/// ```no_run
/// # fn example(handle: hioload::ShardHandle, id: hioload::SessionId) -> Result<(), hioload::MailboxFull> {
/// use hioload::MessageKind;
///
/// handle.send(id, MessageKind::Text, "from another thread".into())?;
/// handle.run(|shard| println!("{} sessions", shard.session_count()))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ShardHandle {
    inner: Arc<Inner>,
}

struct Inner {
    shard: u16,
    letters: mailbox::Sender<Letter>,
    waker: Waker,
    orders: Orders,
    /// Of the messages in the mailbox.
    bytes: Budget,
}

/// The mailbox of the shard is full, with 4096 letters or 16 MiB of messages: the shard is
/// overloaded, or it has ended. Try again later, or let the caller know; nothing was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox of shard {shard} is full: the shard is overloaded or has ended")]
pub struct MailboxFull {
    /// Which shard.
    pub shard: u16,
}

impl ShardHandle {
    pub(crate) fn new(shard: u16, letters: mailbox::Sender<Letter>, waker: Waker) -> Self {
        let (orders, bytes) = (Orders::default(), Budget::new(MAILBOX_BYTES_MAX));
        Self { inner: Arc::new(Inner { shard, letters, waker, orders, bytes }) }
    }

    /// Which shard this reaches.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.inner.shard
    }

    /// Sends a message to a session of this shard. If the session is gone by then, the message is
    /// dropped.
    ///
    /// Each message counts in full against the 16 MiB of the mailbox, also if it is a clone of
    /// `Bytes` that others share: 256 of 64 KiB fill it, whatever memory they take. One payload for
    /// many sessions is better sent as one letter: with [`run`](Self::run) and [`Shard::send_to`],
    /// or [`Shard::publish`].
    ///
    /// # Errors
    /// The mailbox is full.
    pub fn send(
        &self,
        to: SessionId,
        kind: MessageKind,
        payload: Bytes,
    ) -> Result<(), MailboxFull> {
        self.post(Letter::Send { to, kind, payload })
    }

    /// Closes a session of this shard with a code.
    ///
    /// # Errors
    /// The mailbox is full.
    pub fn close(&self, session: SessionId, code: CloseCode) -> Result<(), MailboxFull> {
        self.post(Letter::Close { session, code })
    }

    /// Runs a function on the shard's thread, outside of any callback.
    ///
    /// # Errors
    /// The mailbox is full.
    pub fn run(&self, task: impl FnOnce(&mut Shard) + Send + 'static) -> Result<(), MailboxFull> {
        self.post(Letter::Run(Box::new(task)))
    }

    /// Leaves an order, which is never refused.
    pub(crate) fn order(&self, order: Order) {
        self.inner.orders.push(order);
        self.inner.waker.wake();
    }

    pub(super) fn orders(&self) -> &Orders {
        &self.inner.orders
    }

    /// Whether the shard has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.inner.orders.has_ended()
    }

    pub(crate) fn post(&self, letter: Letter) -> Result<(), MailboxFull> {
        let full = MailboxFull { shard: self.inner.shard };
        let bytes = letter.bytes();
        if !self.inner.bytes.take(bytes) {
            return Err(full);
        }
        if self.inner.letters.try_send(letter).is_err() {
            self.inner.bytes.give_back(bytes);
            return Err(full);
        }
        self.inner.waker.wake();
        Ok(())
    }

    /// The shard has taken a letter out.
    pub(super) fn letter_taken(&self, letter: &Letter) {
        self.inner.bytes.give_back(letter.bytes());
    }
}

impl fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardHandle").field("shard", &self.inner.shard).finish_non_exhaustive()
    }
}
