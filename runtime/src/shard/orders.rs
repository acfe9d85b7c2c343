//! What handles of connections ask of a shard, from any thread.
//!
//! Beside the mailbox, because an order must not be lost: a handle would wait for ever. There are
//! no more of them than there are clients, look-ups, futures that wait to open one or for a pool,
//! and open requests of iproto: each has one on its way at the most. After the end of the shard they
//! are dropped, which tells whoever waits.

use std::sync::Arc;

use bytes::Bytes;
use hioload_pools::{Ended, Key, Queue};
use hioload_protocol::iproto::ReplyTo;

use super::iproto::Answer;
use super::{Shard, ShardHandle};

/// Orders taken in one turn at the most: what came beyond that waits for the next one.
pub(super) const ORDERS_MAX: usize = 1024;

pub(crate) enum Order {
    /// Run a function on the shard.
    Run(Box<dyn FnOnce(&mut Shard) + Send>),
    /// Let a client look at what its handle wants.
    Wake(Key),
    /// Answer a request of iproto, or leave it.
    Reply { session: Key, to: ReplyTo, answer: Answer<Bytes> },
}

/// Orders for which there is memory from the beginning on.
const ROOM: usize = 256;

pub(super) struct Orders {
    queue: Queue<Order>,
    ended: Ended,
}

impl Default for Orders {
    fn default() -> Self {
        Self { queue: Queue::new(ROOM), ended: Ended::new() }
    }
}

impl Orders {
    pub(super) fn push(&self, order: Order) {
        self.queue.push(order);
        if self.ended.seen_after_push() {
            self.clear();
        }
    }

    pub(super) fn pop(&self) -> Option<Order> {
        self.queue.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_set()
    }

    /// Nobody will take any more.
    pub(super) fn end(&self) {
        self.ended.set();
        self.clear();
    }

    fn clear(&self) {
        while let Some(order) = self.queue.pop() {
            drop(order);
        }
    }
}

/// The orders of a shard, taken by its turn until that ends.
pub(super) struct OrdersOf(pub(super) Arc<[ShardHandle]>, pub(super) u16);

impl OrdersOf {
    pub(super) fn orders(&self) -> &Orders {
        self.handle().orders()
    }

    pub(super) fn handle(&self) -> &ShardHandle {
        &self.0[usize::from(self.1)]
    }
}

impl Drop for OrdersOf {
    fn drop(&mut self) {
        self.orders().end();
    }
}
