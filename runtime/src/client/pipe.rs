//! What a handle and its connection share: two bounded queues, and who waits for them.
//!
//! Comes in: from the handle what is to be sent, from the shard what arrived and what became of
//! the connection. One lock for each connection, held for a few stores at a time and by two
//! threads at the most; wakers are called outside of it. Whoever adds something for the shard
//! leaves an order with it unless one is on its way, so that the orders of a shard are bounded by
//! the number of its clients.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use hioload_protocol::ws::CloseCode;

use super::error::{Broken, SendError};
use super::handle::Event;
use super::payload::Payload;
use super::presence::{Poller, Presence, Stage, Waiters, Wakes};
use crate::shard::{Closed, Order};

/// What a message costs in the inbox beside its bytes.
const MESSAGE_COST: usize = size_of::<Payload>();

pub(super) enum Item {
    Opened(u32),
    Message(Payload),
}

pub(super) struct State {
    pub(super) presence: Presence<Closed>,
    pub(super) subprotocol: Option<String>,
    /// The reader was told of a bad end.
    told: bool,

    /// What the shard has not taken yet, in its order.
    pub(super) outgoing: VecDeque<Payload>,
    /// Bytes that were accepted and not yet put into the outbox.
    pub(super) outgoing_bytes: usize,
    /// The outbox is above its high mark.
    pub(super) full: bool,
    /// `outgoing_bytes` from which on a sender waits.
    pub(super) high: usize,
    /// The longest message that an outbox below its high mark takes.
    pub(super) message_max: usize,
    pub(super) ping: Option<Vec<u8>>,
    pub(super) close: Option<(CloseCode, String)>,
    /// Messages that were accepted and not put into an outbox before their connection was over.
    pub(super) lost: u64,

    pub(super) incoming: VecDeque<Item>,
    pub(super) incoming_messages: usize,
    pub(super) incoming_bytes: usize,
    inbox: (usize, usize),
    /// The shard does not read from the socket.
    pub(super) paused: bool,
    /// It shall read again.
    pub(super) resume: bool,
    /// Nobody will take what arrives.
    pub(super) deaf: bool,

    pub(super) reader: Option<Waker>,
    pub(super) writers: Waiters,
}

impl State {
    fn cost(payload: &Payload) -> usize {
        payload.len() + MESSAGE_COST
    }

    /// Whether so much has arrived that no more shall be read.
    pub(super) fn is_stuffed(&self) -> bool {
        let (messages, bytes) = self.inbox;
        self.incoming_messages >= messages || self.incoming_bytes >= bytes
    }

    /// Whether so much of it was taken that it is worth while to read again.
    fn has_room(&self) -> bool {
        let (messages, bytes) = self.inbox;
        self.incoming_messages <= messages / 2 && self.incoming_bytes <= bytes / 2
    }

    pub(super) fn arrived(&mut self, payload: Payload) {
        self.incoming_messages += 1;
        self.incoming_bytes += Self::cost(&payload);
        self.incoming.push_back(Item::Message(payload));
    }

    fn taken(&mut self) -> Option<Event> {
        match self.incoming.pop_front()? {
            Item::Opened(generation) => Some(Event::Reconnected { generation }),
            Item::Message(payload) => {
                self.incoming_messages -= 1;
                self.incoming_bytes -= Self::cost(&payload);
                Some(Event::Message(payload))
            }
        }
    }

    /// It is over for good: everybody is told.
    pub(super) fn end(&mut self, wakes: &mut Wakes) {
        if self.presence.stage == Stage::Ended {
            return;
        }
        self.presence.stage = Stage::Ended;
        self.forget_outgoing();
        wakes.add(&mut self.reader);
        wakes.add_all(&mut self.writers);
        wakes.add_all(&mut self.presence.watchers);
    }

    pub(super) fn forget_outgoing(&mut self) {
        self.lost += self.outgoing.len() as u64;
        self.outgoing.clear();
        self.outgoing_bytes = 0;
        self.full = false;
        self.ping = None;
    }

    /// The end of the messages.
    fn last_word(&mut self) -> Option<Broken> {
        let asked = self.close.is_some();
        if mem::replace(&mut self.told, true) || asked {
            return None;
        }
        match (self.presence.error.clone(), self.presence.reason) {
            (Some(error), _) => Some(Broken::GaveUp(error)),
            (None, Some(Closed::ByPeer(_))) => None,
            (None, reason) => Some(Broken::Ended(reason.unwrap_or(Closed::Lost))),
        }
    }
}

/// What a handle and its connection share.
pub(super) struct Pipe(Mutex<State>);

impl Pipe {
    pub(super) fn new(inbox: (usize, usize)) -> Self {
        Self(Mutex::new(State {
            presence: Presence::default(),
            subprotocol: None,
            told: false,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            full: false,
            high: 0,
            message_max: 0,
            ping: None,
            close: None,
            lost: 0,
            incoming: VecDeque::new(),
            incoming_messages: 0,
            incoming_bytes: 0,
            inbox,
            paused: false,
            resume: false,
            deaf: false,
            reader: None,
            writers: Waiters::default(),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget_watcher(&self, id: u64) {
        let waker = self.lock().presence.watchers.forget(id);
        // After the lock: it is of a user.
        drop(waker);
    }

    pub(super) fn forget_writer(&self, id: u64) {
        let waker = self.lock().writers.forget(id);
        drop(waker);
    }

    /// Takes the payload out and queues it, or waits for room and leaves it where it is.
    pub(super) fn poll_send(
        &self,
        payload: &mut Option<Payload>,
        poller: &mut Poller<'_>,
    ) -> Poll<Result<(), SendError>> {
        let mut state = self.lock();
        if state.presence.stage == Stage::Ended || state.close.is_some() {
            return Poll::Ready(Err(SendError::Closed));
        }
        let len = payload.as_deref().map_or(0, <[u8]>::len);
        let is_open = state.presence.stage == Stage::Open;
        if is_open && len > state.message_max {
            return Poll::Ready(Err(SendError::TooLarge { len, max: state.message_max }));
        }
        let fits = state.outgoing_bytes == 0 || state.outgoing_bytes + len <= state.high;
        if !is_open || state.full || !fits {
            state.writers.wait(poller);
            return Poll::Pending;
        }
        if let Some(payload) = payload.take() {
            // An empty one counts too, or there could be any number of them.
            state.outgoing_bytes += payload.len().max(1);
            state.outgoing.push_back(payload);
        }
        self.post(state);
        Poll::Ready(Ok(()))
    }

    /// Waits for what arrived.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Event, Broken>>> {
        // Cloned and dropped while the lock is free: that may use this pipe.
        let mut waker = None;
        loop {
            let mut state = self.lock();
            if let Some(event) = state.taken() {
                if state.paused && !state.resume && state.has_room() {
                    state.resume = true;
                    self.post(state);
                }
                return Poll::Ready(Some(Ok(event)));
            }
            if state.presence.stage == Stage::Ended {
                return Poll::Ready(state.last_word().map(Err));
            }
            if state.reader.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            if waker.is_some() {
                mem::swap(&mut state.reader, &mut waker);
                drop(state);
                return Poll::Pending;
            }
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }

    /// Asks for a ping; one that the shard has not sent yet is replaced.
    pub(super) fn ping(&self, payload: &[u8]) {
        let mut state = self.lock();
        if state.presence.stage == Stage::Open {
            state.ping = Some(payload[..payload.len().min(125)].to_vec());
            self.post(state);
        }
    }

    /// Asks for the closing handshake; the first one who asks is heard.
    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        let mut state = self.lock();
        if state.close.is_some() || state.presence.stage == Stage::Ended {
            return;
        }
        state.close = Some((code, reason.to_owned()));
        let mut wakes = Wakes::default();
        wakes.add_all(&mut state.writers);
        self.post(state);
        wakes.call();
    }

    /// Nobody will take what arrives: it is thrown away from now on, so that pings are answered.
    pub(super) fn stop_reading(&self) {
        let mut state = self.lock();
        state.deaf = true;
        let incoming = mem::take(&mut state.incoming);
        state.incoming_messages = 0;
        state.incoming_bytes = 0;
        if state.paused {
            state.resume = true;
            self.post(state);
        } else {
            drop(state);
        }
        drop(incoming);
    }

    fn post(&self, mut state: MutexGuard<'_, State>) {
        let order = state.presence.order();
        drop(state);
        if let Some((shard, client)) = order {
            shard.order(Order::Wake(client));
        }
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Pipe")
            .field("stage", &state.presence.stage)
            .field("generation", &state.presence.generation)
            .finish_non_exhaustive()
    }
}
