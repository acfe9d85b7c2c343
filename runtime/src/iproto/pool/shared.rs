//! What the handles of a pool, its futures and its connections share: which connections are open,
//! and who waits for one.
//!
//! One lock for each pool, held for a few stores; that of a line may be taken under it, never the
//! other way round. Wakers and orders are for when it is free.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hioload_pools::{Key, ObjectPool, Slab};

use super::super::bridge::Bridge;
use super::super::line::Wish;
use super::super::{CallError, Channel, Connect, ConnectError};
use super::PoolStats;
use super::bucket::Bucket;
use crate::config::IprotoConfig;
use crate::shard::{Order, ShardHandle, Sleep};
use crate::ws::{Poller, Waiters, Wakes};

/// What does not change.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) size: usize,
    pub(super) connect_timeout: Duration,
    pub(super) notice_timeout: Duration,
    pub(super) fail_on_cutoff: bool,
    pub(super) rate_wait: bool,
    pub(super) waiting_max: usize,
}

/// Somebody who waits until so many connections are open, or for some time only.
struct Waiting {
    online: usize,
    waker: Option<Waker>,
    /// Of what lets the time pass.
    alarm: Option<Waker>,
    expired: bool,
    /// Nothing is dialled any more.
    failed: bool,
}

pub(super) struct State {
    /// How each connection is opened, until the pool has ended: its functions may know the pool.
    connect: Option<Connect>,
    /// The connections that are open, in the order of their turns.
    pub(super) online: Vec<Channel>,
    next: usize,
    /// The connections that are open or dialled.
    places: Vec<Option<Channel>>,
    vacant: usize,
    stopped: bool,
    waiting: Slab<Waiting>,
    watchers: Waiters,
    bucket: Option<Bucket>,
    /// Of a call without one of its own, as the shard is configured, once it was heard of.
    request_timeout: Duration,
    pub(super) counted: PoolStats,
    pub(super) error: Option<ConnectError>,
}

impl State {
    pub(super) fn stats(&self) -> PoolStats {
        let open = self.places.iter().flatten().map(Channel::stats);
        let channels = open.fold(self.counted.channels, |sum, each| sum.plus(each));
        PoolStats { online: self.online.len(), channels, ..self.counted }
    }

    fn wake(&mut self, wakes: &mut Wakes, whom: impl Fn(&Waiting) -> bool) {
        for waiting in self.waiting.iter_mut().filter(|waiting| whom(waiting)) {
            wakes.add(&mut waiting.waker);
        }
    }
}

/// A pool.
pub(super) struct Shared {
    pub(super) settings: Settings,
    shard: ShardHandle,
    /// The rate limit, and what is left of a timeout, go by the clock of the machine: the futures of
    /// a pool run on any thread, and a shard that sleeps tells nobody the time.
    began: Instant,
    state: Mutex<State>,
}

/// Why there is no channel.
pub(super) enum Missing {
    /// It may come.
    Offline,
    Refused(CallError),
}

/// The connections that had no room for something.
#[derive(Default)]
pub(super) struct Refusals {
    by: Vec<Channel>,
    last: Option<CallError>,
}

impl Refusals {
    pub(super) fn add(&mut self, channel: Channel, error: CallError) {
        self.by.push(channel);
        self.last = Some(error);
    }

    fn by(&self, channel: &Channel) -> bool {
        self.by.iter().any(|known| known.is_same(channel))
    }
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        connect: Connect,
        rate: (f64, u32),
        shard: ShardHandle,
    ) -> Arc<Self> {
        let (per_second, burst) = rate;
        let state = State {
            connect: Some(connect),
            online: Vec::with_capacity(settings.size),
            next: 0,
            places: (0..settings.size).map(|_| None).collect(),
            vacant: settings.size,
            stopped: false,
            waiting: Slab::new(settings.waiting_max),
            watchers: Waiters::default(),
            request_timeout: Duration::from_millis(IprotoConfig::default().request_timeout_ms),
            bucket: (burst > 0).then(|| Bucket::new(per_second, burst)),
            counted: PoolStats::default(),
            error: None,
        };
        Arc::new(Self { settings, shard, began: Instant::now(), state: Mutex::new(state) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token of the rate limit: answers how long to wait for it, if at all. What has no
    /// timeout of its own does not wait longer than a call for its response.
    pub(super) fn pace(&self, most: Option<Duration>) -> Result<Option<Duration>, CallError> {
        let mut state = self.lock();
        let most = most.unwrap_or(state.request_timeout);
        let Some(bucket) = &mut state.bucket else { return Ok(None) };
        let now = self.began.elapsed();
        if bucket.take(now) {
            return Ok(None);
        }
        let promised = if self.settings.rate_wait { bucket.promise(now, most) } else { None };
        if promised.is_none() {
            state.counted.policed += 1;
        }
        promised.map(Some).ok_or(CallError::Policed)
    }

    /// A token that was promised is not needed.
    pub(super) fn give_back(&self) {
        if let Some(bucket) = &mut self.lock().bucket {
            bucket.give_back();
        }
    }

    /// The next connection, in turn, but for those that have refused. Dials those that nobody
    /// dials.
    pub(super) fn next(self: &Arc<Self>, refusals: &Refusals) -> Result<Channel, Missing> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Missing::Refused(CallError::Stopped));
        }
        let bridges = self.fill(&mut state);
        let next = state.next;
        state.next = next.wrapping_add(1);
        let at = next.checked_rem(state.online.len()).unwrap_or(0);
        let (later, first) = state.online.split_at(at);
        let mut turns = first.iter().chain(later);
        let channel = turns.find(|channel| !refusals.by(channel)).cloned();
        let refused = refusals.last.filter(|_| !state.online.is_empty());
        let is_cut_off = channel.is_none() && refused.is_none() && self.settings.fail_on_cutoff;
        if is_cut_off {
            state.counted.cutoffs += 1;
        }
        drop(state);
        self.begin(bridges);
        match (channel, refused) {
            (Some(channel), _) => Ok(channel),
            (None, Some(error)) => Err(Missing::Refused(error)),
            (None, None) if is_cut_off => Err(Missing::Refused(CallError::Cutoff)),
            (None, None) => Err(Missing::Offline),
        }
    }

    /// A connection refused what it was given: it has no turn until it is open again.
    pub(super) fn forget(&self, channel: &Channel) {
        let mut state = self.lock();
        // It may be open again by now.
        if !channel.is_open() {
            state.online.retain(|known| !known.is_same(channel));
        }
    }

    /// Dials the connections that nobody dials.
    pub(super) fn dial(self: &Arc<Self>) {
        let bridges = self.fill(&mut self.lock());
        self.begin(bridges);
    }

    /// Makes a connection for each place that has none.
    fn fill(self: &Arc<Self>, state: &mut State) -> Vec<(Bridge, Connect)> {
        let mut bridges = Vec::new();
        let Some(connect) = &state.connect else { return bridges };
        if state.vacant == 0 || state.stopped {
            return bridges;
        }
        state.vacant = 0;
        for (place, channel) in state.places.iter_mut().enumerate() {
            if channel.is_none() {
                let (made, line) = Channel::new();
                *channel = Some(made);
                let member = Member { pool: Arc::clone(self), place };
                bridges.push((Bridge::new(line, true, Some(member)), connect.clone()));
            }
        }
        bridges
    }

    fn begin(self: &Arc<Self>, bridges: Vec<(Bridge, Connect)>) {
        for (bridge, connect) in bridges {
            let pool = Arc::clone(self);
            self.shard.order(Order::Run(Box::new(move |shard| {
                pool.lock().request_timeout = shard.iproto_timeout();
                bridge.begin(shard, connect);
            })));
        }
    }

    /// Takes nothing more, and ends every connection.
    pub(super) fn stop(&self, wish: Wish) {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        state.stopped = true;
        let gone = mem::take(&mut state.online);
        state.wake(&mut wakes, |_| true);
        let mut connect = None;
        if state.vacant == self.settings.size {
            connect = state.connect.take();
            wakes.add_all(&mut state.watchers);
        }
        let channels: Vec<Channel> = state.places.iter().flatten().cloned().collect();
        drop(state);
        drop((gone, connect));
        channels.iter().for_each(|channel| channel.wish(wish));
        wakes.call();
    }

    pub(super) fn poll_done(&self, poller: &mut Poller<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.stopped && state.vacant == self.settings.size {
            return Poll::Ready(());
        }
        state.watchers.wait(poller);
        Poll::Pending
    }

    pub(super) fn forget_watcher(&self, id: u64) {
        let waker = self.lock().watchers.forget(id);
        // After the lock: it is of a user.
        drop(waker);
    }

    /// Wakes one who waits, after changing what it waits for.
    fn tell(&self, key: Key, change: impl FnOnce(&mut Waiting)) {
        let mut state = self.lock();
        let Some(waiting) = state.waiting.get_mut(key) else { return };
        change(waiting);
        let waker = waiting.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("size", &self.settings.size)
            .field("online", &state.online.len())
            .finish_non_exhaustive()
    }
}

/// The place of a connection in its pool: what is told by its end on the shard.
pub(in super::super) struct Member {
    pool: Arc<Shared>,
    place: usize,
}

impl Member {
    pub(in super::super) fn opened(&self) {
        let mut wakes = Wakes::default();
        let mut state = self.pool.lock();
        state.counted.dials += 1;
        state.error = None;
        let Some(channel) = state.places[self.place].clone() else { return };
        if !state.stopped && !state.online.iter().any(|known| known.is_same(&channel)) {
            state.online.push(channel);
        }
        let online = state.online.len();
        state.wake(&mut wakes, |waiting| waiting.online <= online);
        drop(state);
        wakes.call();
    }

    /// The connection is being set up: who gives up waiting is told so.
    pub(in super::super) fn setting_up(&self) {
        let reason = "it has not ended yet".into();
        self.pool.lock().error.get_or_insert(ConnectError::SetUp { reason });
    }

    pub(in super::super) fn failed(&self, error: &ConnectError) {
        let mut state = self.pool.lock();
        state.counted.dials += 1;
        state.counted.dials_failed += 1;
        state.error = Some(error.clone());
    }

    /// The connection takes nothing more; it may be opened again.
    pub(in super::super) fn down(&self) {
        let mut state = self.pool.lock();
        let Some(channel) = state.places[self.place].clone() else { return };
        state.online.retain(|known| !known.is_same(&channel));
    }

    /// The connection will not be opened again: because somebody wished its end, or because that
    /// was tried for long enough, or makes no sense.
    pub(in super::super) fn ended(&self, was_wished: bool) {
        let mut wakes = Wakes::default();
        let mut state = self.pool.lock();
        let channel = state.places[self.place].take();
        if let Some(channel) = &channel {
            state.online.retain(|known| !known.is_same(channel));
            state.counted.channels = state.counted.channels.plus(channel.stats());
            state.vacant += 1;
        }
        let redials = was_wished && !state.stopped;
        let is_over = state.stopped && state.vacant == self.pool.settings.size;
        let connect = if is_over { state.connect.take() } else { None };
        if state.vacant == self.pool.settings.size && !redials {
            // Who only lets time pass goes on with that.
            let size = self.pool.settings.size;
            for waiting in state.waiting.iter_mut().filter(|waiting| waiting.online <= size) {
                waiting.failed = true;
                wakes.add(&mut waiting.waker);
            }
            wakes.add_all(&mut state.watchers);
        }
        drop(state);
        drop((channel, connect));
        wakes.call();
        if redials {
            self.pool.dial();
        }
    }
}

/// What a [`Waiter`] is woken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// So many connections are open.
    Online,
    /// It has waited long enough.
    Expired,
    /// Nothing is dialled any more.
    Failed,
    Stopped,
}

/// Waits until so many connections are open, for some time at the most.
pub(super) struct Waiter {
    pool: Arc<Shared>,
    key: Key,
}

impl Waiter {
    /// The time begins now.
    ///
    /// # Errors
    /// As many wait as may.
    pub(super) fn new(
        pool: &Arc<Shared>,
        online: usize,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        let waiting = Waiting { online, waker: None, alarm: None, expired: false, failed: false };
        let key = pool.lock().waiting.insert(waiting);
        let key = key.map_err(|_| CallError::PoolFull { limit: pool.settings.waiting_max })?;
        let alarm = Alarm { pool: Arc::clone(pool), key };
        pool.shard.order(Order::Run(Box::new(move |shard| {
            shard.spawn(alarm.ring_after(shard.sleep(timeout))).detach();
        })));
        Ok(Self { pool: Arc::clone(pool), key })
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Woken> {
        // A waker is cloned and dropped while the lock is free: that may do anything.
        let mut waker = Some(cx.waker().clone());
        let mut state = self.pool.lock();
        let polled = self.look(&mut state, &mut waker);
        drop(state);
        drop(waker);
        polled
    }

    /// Leaves the waker if it has to wait on, and brings the one back that it had left before.
    fn look(&self, state: &mut State, waker: &mut Option<Waker>) -> Poll<Woken> {
        let State { online, waiting, stopped, .. } = state;
        if *stopped {
            return Poll::Ready(Woken::Stopped);
        }
        let Some(waiting) = waiting.get_mut(self.key) else {
            return Poll::Ready(Woken::Failed);
        };
        if online.len() >= waiting.online {
            Poll::Ready(Woken::Online)
        } else if waiting.expired {
            Poll::Ready(Woken::Expired)
        } else if waiting.failed {
            Poll::Ready(Woken::Failed)
        } else {
            mem::swap(&mut waiting.waker, waker);
            Poll::Pending
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let waiting = state.waiting.remove(self.key);
        drop(state);
        if let Some(alarm) = waiting.and_then(|waiting| waiting.alarm) {
            alarm.wake();
        }
    }
}

/// Tells a waiter that its time is over, or that there is nobody to tell it.
struct Alarm {
    pool: Arc<Shared>,
    key: Key,
}

impl Alarm {
    /// Ends early when nobody waits any more.
    async fn ring_after(self, sleep: Sleep) {
        let mut sleep = pin!(sleep);
        poll_fn(|cx| if self.is_wanted(cx) { sleep.as_mut().poll(cx) } else { Poll::Ready(()) })
            .await;
        self.pool.tell(self.key, |waiting| waiting.expired = true);
    }

    fn is_wanted(&self, cx: &Context<'_>) -> bool {
        let mut alarm = Some(cx.waker().clone());
        let mut state = self.pool.lock();
        let waiting = state.waiting.get_mut(self.key);
        let is_wanted = waiting.map(|waiting| mem::swap(&mut waiting.alarm, &mut alarm)).is_some();
        // The one before is dropped after the lock.
        drop(state);
        drop(alarm);
        is_wanted
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // After the time it is known to be over.
        self.pool.tell(self.key, |waiting| waiting.failed = true);
    }
}
