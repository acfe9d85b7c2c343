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

use hioload_pools::Key;
use hioload_protocol::ws::CloseCode;

use super::error::{Broken, ConnectError, SendError};
use super::handle::Event;
use super::payload::Payload;
use crate::shard::{Closed, Order, ShardHandle};

/// What a message costs in the inbox beside its bytes.
const MESSAGE_COST: usize = size_of::<Payload>();

/// Where the connection is, as the handle sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not open, but it may be again.
    #[default]
    Down,
    Open,
    Ended,
}

/// Futures that wait for the same thing, by a number that each one keeps.
#[derive(Default)]
pub(crate) struct Waiters {
    wakers: Vec<(u64, Waker)>,
    last: u64,
}

impl Waiters {
    pub(crate) fn wait(&mut self, id: &mut Option<u64>, cx: &Context<'_>) {
        if let Some((_, waker)) = self.wakers.iter_mut().find(|(known, _)| Some(*known) == *id) {
            waker.clone_from(cx.waker());
            return;
        }
        self.last += 1;
        *id = Some(self.last);
        self.wakers.push((self.last, cx.waker().clone()));
    }

    fn forget(&mut self, id: u64) {
        self.wakers.retain(|(known, _)| *known != id);
    }
}

/// Wakers that were taken out, to be called once the lock is free.
#[derive(Default)]
pub(crate) struct Wakes(Vec<Waker>);

impl Wakes {
    pub(crate) fn add_all(&mut self, waiters: &mut Waiters) {
        self.0.extend(waiters.wakers.drain(..).map(|(_, waker)| waker));
    }

    pub(crate) fn add(&mut self, waiter: &mut Option<Waker>) {
        self.0.extend(waiter.take());
    }

    pub(crate) fn call(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

pub(super) enum Item {
    Opened(u32),
    Message(Payload),
}

pub(super) struct State {
    /// The shard, and the client's key there, once it knows of it.
    pub(super) link: Option<(ShardHandle, Key)>,
    /// An order for the shard is on its way, and it will look at everything.
    pub(super) woken: bool,
    pub(super) stage: Stage,
    pub(super) generation: u32,
    pub(super) subprotocol: Option<String>,
    pub(super) reason: Option<Closed>,
    pub(super) error: Option<ConnectError>,
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
    pub(super) watchers: Waiters,
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
        if self.stage == Stage::Ended {
            return;
        }
        self.stage = Stage::Ended;
        self.forget_outgoing();
        wakes.add(&mut self.reader);
        wakes.add_all(&mut self.writers);
        wakes.add_all(&mut self.watchers);
    }

    pub(super) fn forget_outgoing(&mut self) {
        self.lost += self.outgoing.len() as u64;
        self.outgoing.clear();
        self.outgoing_bytes = 0;
        self.full = false;
        self.ping = None;
    }

    /// The order that must be left with the shard, if there is none on its way.
    #[must_use]
    fn order(&mut self) -> Option<(ShardHandle, Key)> {
        if self.woken || self.stage == Stage::Ended {
            return None;
        }
        let link = self.link.clone()?;
        self.woken = true;
        Some(link)
    }

    /// The end of the messages.
    fn last_word(&mut self) -> Option<Broken> {
        let asked = self.close.is_some();
        if mem::replace(&mut self.told, true) || asked {
            return None;
        }
        match (self.error.clone(), self.reason) {
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
            link: None,
            woken: false,
            stage: Stage::Down,
            generation: 0,
            subprotocol: None,
            reason: None,
            error: None,
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
            watchers: Waiters::default(),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first connection, or the end.
    pub(super) fn poll_opened(
        &self,
        id: &mut Option<u64>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), ConnectError>> {
        let mut state = self.lock();
        if state.generation > 0 {
            return Poll::Ready(Ok(()));
        }
        if state.stage == Stage::Ended {
            return Poll::Ready(Err(state.error.clone().unwrap_or(ConnectError::Stopped)));
        }
        state.watchers.wait(id, cx);
        Poll::Pending
    }

    /// Waits for the end.
    pub(super) fn poll_ended(&self, id: &mut Option<u64>, cx: &Context<'_>) -> Poll<Closed> {
        let mut state = self.lock();
        if state.stage == Stage::Ended {
            return Poll::Ready(state.reason.unwrap_or(Closed::Lost));
        }
        state.watchers.wait(id, cx);
        Poll::Pending
    }

    pub(super) fn forget_watcher(&self, id: u64) {
        self.lock().watchers.forget(id);
    }

    pub(super) fn forget_writer(&self, id: u64) {
        self.lock().writers.forget(id);
    }

    /// Takes the payload out and queues it, or waits for room and leaves it where it is.
    pub(super) fn poll_send(
        &self,
        payload: &mut Option<Payload>,
        id: &mut Option<u64>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        let mut state = self.lock();
        if state.stage == Stage::Ended || state.close.is_some() {
            return Poll::Ready(Err(SendError::Closed));
        }
        let len = payload.as_deref().map_or(0, <[u8]>::len);
        let is_open = state.stage == Stage::Open;
        if is_open && len > state.message_max {
            return Poll::Ready(Err(SendError::TooLarge { len, max: state.message_max }));
        }
        let fits = state.outgoing_bytes == 0 || state.outgoing_bytes + len <= state.high;
        if !is_open || state.full || !fits {
            state.writers.wait(id, cx);
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
        let mut state = self.lock();
        if let Some(event) = state.taken() {
            if state.paused && !state.resume && state.has_room() {
                state.resume = true;
                self.post(state);
            }
            return Poll::Ready(Some(Ok(event)));
        }
        if state.stage == Stage::Ended {
            return Poll::Ready(state.last_word().map(Err));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Asks for a ping; one that the shard has not sent yet is replaced.
    pub(super) fn ping(&self, payload: &[u8]) {
        let mut state = self.lock();
        if state.stage == Stage::Open {
            state.ping = Some(payload[..payload.len().min(125)].to_vec());
            self.post(state);
        }
    }

    /// Asks for the closing handshake; the first one who asks is heard.
    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        let mut state = self.lock();
        if state.close.is_some() || state.stage == Stage::Ended {
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
        let order = state.order();
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
            .field("stage", &state.stage)
            .field("generation", &state.generation)
            .finish_non_exhaustive()
    }
}
