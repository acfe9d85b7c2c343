//! The loop of a shard.
//!
//! One turn: collect what completed, let each connection act on it, run letters, futures and
//! timers, then flush: one gathered send for each session that has something to say. Everything
//! of a turn is submitted, and the next one awaited, by the one wait of the reactor.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hioload_pools::{BytePool, Key, ObjectPool, Slab, Wheel, mailbox};
use hioload_protocol::ws::{CloseCode, MessageKind};

use super::accept::Listeners;
use super::dial::Dials;
use super::driver::Driver;
use super::entry::{Entry, Phase};
use super::executor::Executor;
use super::handler::Closed;
use super::handshake::Unfinished;
use super::iproto::{Late, LateQueue};
use super::mailbox::Letter;
use super::message::Message;
use super::orders::{ORDERS_MAX, Order, OrdersOf};
use super::outbox::Egress;
use super::paths::Paths;
use super::request::UpgradeToken;
use super::route::Route;
use super::said::Said;
use super::secrets::Secrets;
use super::settings::Settings;
use super::spin::Spin;
use super::{Action, Counters, Shard, ShardHandle};
use crate::Time;
use crate::place::ShardPlace;
use crate::reactor::{BATCH_MAX, Completion, Event, Reactor, ReactorStats};

/// Letters read in one turn at the most: what came beyond that waits for the next one.
const LETTERS_MAX: usize = 1024;

/// How long the reactor may take to report the last sockets closed, once all were told to close.
const CLOSE_GRACE_MS: u64 = 1000;

/// A shard's loop over one kind of reactor.
pub(crate) struct Turn<R: Reactor> {
    pub(crate) driver: Driver<R>,
    pub(super) entries: Slab<Entry>,
    pub(super) listeners: Listeners,
    /// When the shard gives up what is left; set once it drains.
    pub(super) drain_until_ms: Option<u64>,
    letters: mailbox::Receiver<Letter>,
    batch: Vec<Completion>,
    pub(super) expired: Vec<u32>,
    /// What handles of connections ask of this shard.
    pub(super) orders: OrdersOf,
    /// The other of two lists of actions: one is run while the other is filled.
    actions: Vec<Action>,
    /// The same for replies.
    late: Vec<Late>,
    /// Those that a message is being published to.
    pub(super) recipients: Vec<u32>,
    spin: Spin,
}

/// What a shard is made of.
pub(crate) struct Parts<R> {
    pub(crate) reactor: R,
    pub(crate) place: ShardPlace,
    pub(crate) settings: Settings,
    pub(crate) pool: Rc<dyn BytePool>,
    pub(crate) letters: mailbox::Receiver<Letter>,
    pub(crate) handles: Arc<[ShardHandle]>,
    /// What all randomness of the shard comes from.
    pub(crate) seed: [u8; 32],
}

impl<R: Reactor> Turn<R> {
    pub(crate) fn new(parts: Parts<R>) -> Self {
        let Parts { reactor, place, settings, pool, letters, handles, seed } = parts;
        let mut secrets = Secrets::from_seed(seed);
        let rng = u64::from_ne_bytes(secrets.bytes());
        let connections_max = settings.connections_max;
        let spin = Spin::new(settings.spin);
        let outbox = (settings.outbox_high_bytes, settings.outbox_max_bytes);
        let iproto_calls_max = settings.iproto.calls_max as usize;
        let iproto_timeout = Duration::from_millis(settings.request_timeout_ms);
        let egress = Egress::new(Rc::clone(&pool), Rc::new(settings), secrets);
        let orders = OrdersOf(Arc::clone(&handles), place.shard);
        let shard = Shard {
            place,
            now: reactor.now(),
            rng,
            pool,
            executor: Executor::new(reactor.waker()),
            handles,
            actions: Vec::new(),
            late: Rc::new(LateQueue::default()),
            counters: Counters::default(),
            reactor: ReactorStats::default(),
            sessions: 0,
            topics: Rc::clone(&egress.topics),
            dials: Dials::new(),
            outbox,
            iproto_calls_max,
            iproto_timeout,
        };
        let driver = Driver {
            reactor,
            routes: Vec::new(),
            paths: Paths::default(),
            unfinished: Unfinished::default(),
            shard,
            egress,
            wheel: Wheel::new(),
            unsure: Vec::with_capacity(BATCH_MAX),
            unaimed: Vec::with_capacity(BATCH_MAX),
            is_alone: false,
            rest: None,
            panics_said: Said::default(),
        };
        Self {
            driver,
            entries: Slab::new(connections_max),
            listeners: Listeners::default(),
            drain_until_ms: None,
            letters,
            batch: Vec::with_capacity(BATCH_MAX),
            expired: Vec::with_capacity(BATCH_MAX),
            orders,
            actions: Vec::new(),
            late: Vec::new(),
            recipients: Vec::new(),
            spin,
        }
    }

    /// Makes the handlers: `build` is given the shard, and answers with its routes and paths.
    pub(crate) fn install(
        &mut self,
        build: impl FnOnce(&mut Shard) -> (Vec<Box<dyn Route>>, Paths),
    ) {
        (self.driver.routes, self.driver.paths) = build(&mut self.driver.shard);
        self.driver.shard.dials.set_routes_from(self.driver.routes.len());
    }

    /// Turns until the shard has drained.
    ///
    /// # Errors
    /// The reactor broke.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.is_over() {
            if let Err(error) = self.turn() {
                self.abandon();
                return Err(error);
            }
        }
        tell_unsaid(self.driver.panics_said.rest());
        Ok(())
    }

    /// Ends every connection as it is, because the reactor broke or the time to drain is over.
    fn abandon(&mut self) {
        for entry in self.entries.iter_mut() {
            entry.phase = Phase::Dead;
            self.driver.settle(entry);
        }
    }

    /// One turn.
    ///
    /// # Errors
    /// The reactor broke.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.batch.clear();
        self.wait()?;
        let now = self.driver.reactor.now();
        self.driver.shard.now = now;
        self.driver.shard.counters.turns += 1;
        self.driver.shard.executor.timers().advance(now);
        self.driver.egress.begin_turn(now);

        self.read_rest();
        let mut batch = std::mem::take(&mut self.batch);
        self.driver.is_alone = batch.len() == 1;
        for Completion { token, event } in batch.drain(..) {
            match Listeners::index_of(token) {
                Some(listener) => self.listener_event(listener, event),
                None => self.session_event(Key::from_u64(token.0), event),
            }
        }
        self.batch = batch;
        self.driver.is_alone = false;
        self.confirm_flushed();
        self.read_letters();
        self.run_tasks();
        self.run_orders(ORDERS_MAX);
        self.run_timers();
        self.run_actions();
        self.run_late();
        self.aim();
        self.flush();
        self.driver.shard.sessions = self.entries.len();
        Ok(())
    }

    /// Collects what completed; sleeps if there is nothing else to do.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = self.timeout();
        if !self.spin.is_on() || timeout == Some(Duration::ZERO) {
            return self.driver.reactor.wait(timeout, &mut self.batch);
        }
        let began = self.driver.reactor.now();
        let end = self.spin.until(began);
        let mut now = began;
        while now < end && timeout.is_none_or(|timeout| now.since(began) < timeout) {
            self.driver.reactor.wait(Some(Duration::ZERO), &mut self.batch)?;
            // Other threads bring work too, of which a reactor reports nothing.
            if !self.batch.is_empty() || !self.is_idle() {
                self.spin.hit();
                return Ok(());
            }
            now = self.driver.reactor.now();
        }
        let rest = timeout.map(|timeout| timeout.saturating_sub(now.since(began)));
        self.driver.reactor.wait(rest, &mut self.batch)?;
        self.spin.slept(self.driver.reactor.now().since(now));
        Ok(())
    }

    /// Whether it has drained.
    pub(crate) fn is_over(&self) -> bool {
        let Some(until) = self.drain_until_ms else { return false };
        let all_gone = self.entries.is_empty() && self.listeners.are_closed();
        all_gone || self.driver.egress.now_ms > until + CLOSE_GRACE_MS
    }

    /// How long the reactor may sleep.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        if !self.is_idle() {
            return Some(Duration::ZERO);
        }
        let Driver { shard, wheel, reactor, egress, panics_said, .. } = &self.driver;
        let dials = shard.dials.next_tick();
        let retry = self.listeners.retry_at_ms();
        // What is left when the time to drain is over only waits for its sockets to be closed.
        let drained = self.drain_until_ms.and_then(|until| {
            [until, until + CLOSE_GRACE_MS + 1].into_iter().find(|at| *at > egress.now_ms)
        });
        let sleeper = shard.executor.timers().next().map(Time::as_nanos);
        let next = [wheel.next_tick(), dials, retry, drained, panics_said.due_ms()]
            .map(|ms| ms.map_or(u64::MAX, |ms| ms.saturating_mul(1_000_000)))
            .into_iter()
            .fold(sleeper.unwrap_or(u64::MAX), u64::min);
        if next == u64::MAX {
            return None;
        }
        Some(Duration::from_nanos(next.saturating_sub(reactor.now().as_nanos())))
    }

    /// Whether there is nothing to do until something completes or is due.
    fn is_idle(&self) -> bool {
        let Driver { shard, egress, unsure, unaimed, rest, .. } = &self.driver;
        shard.actions.is_empty()
            && shard.late.is_empty()
            && !shard.executor.is_ready()
            && self.letters.is_empty()
            && self.orders.orders().is_empty()
            && egress.dirty.is_empty()
            && unsure.is_empty()
            && unaimed.is_empty()
            && rest.is_none()
    }

    /// Reads what the last turn left of the only window that it got.
    fn read_rest(&mut self) {
        if let Some((key, rest)) = self.driver.rest.take() {
            self.session_event(key, Event::Received(rest));
        }
    }

    fn session_event(&mut self, key: Key, event: Event) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match event {
            Event::Closed => {}
            Event::Released(connection) => self.driver.released(entry, connection),
            event => return self.driver.dispatch(entry, event),
        }
        // The reactor let go of the socket: nothing names the slot any more.
        entry.phase = Phase::Dead;
        self.driver.settle(entry);
        self.entries.remove(key);
        self.resume_accept();
    }

    /// Those of whom the reactor would have reported by now that their send blocked.
    fn confirm_flushed(&mut self) {
        if self.driver.unsure.is_empty() {
            return;
        }
        let mut unsure = std::mem::take(&mut self.driver.unsure);
        for key in unsure.drain(..) {
            if let Some(entry) = self.entries.get_mut(key) {
                self.driver.confirm(entry);
            }
        }
        unsure.append(&mut self.driver.unsure);
        self.driver.unsure = unsure;
    }

    fn read_letters(&mut self) {
        if self.letters.is_empty() {
            return;
        }
        // Who asks for the figures gets all of them of this moment: this turn may have accepted.
        self.driver.shard.reactor = self.driver.reactor.stats();
        self.driver.shard.sessions = self.entries.len();
        for _ in 0..LETTERS_MAX {
            let Some(letter) = self.letters.try_recv() else { return };
            self.orders.handle().letter_taken(&letter);
            match letter {
                Letter::Send { to, kind, payload } => self.send_copy(to.key, kind, &payload),
                Letter::Close { session, code } => self.close(session.key, code),
                Letter::Run(task) => {
                    let shard = &mut self.driver.shard;
                    let ran = catch_unwind(AssertUnwindSafe(|| task(shard)));
                    self.note_panic(ran.err());
                }
                Letter::Drain { timeout_ms } => self.drain(timeout_ms),
            }
        }
    }

    fn run_tasks(&mut self) {
        for _ in 0..Executor::POLLS_MAX {
            let Some(ran) = self.driver.shard.executor.run_next() else { return };
            self.note_panic(ran.err());
        }
    }

    pub(super) fn note_panic(&mut self, panic: Option<Box<dyn Any + Send>>) {
        if panic.is_some() {
            self.driver.shard.counters.panics += 1;
            if let Some(unsaid) = self.driver.panics_said.admit(self.driver.egress.now_ms) {
                tracing::error!(unsaid, "a future or a function on this shard panicked and ended");
            }
        }
    }

    fn run_timers(&mut self) {
        let now_ms = self.driver.egress.now_ms;
        let mut expired = std::mem::take(&mut self.expired);
        self.driver.wheel.advance(now_ms, &mut |index| expired.push(index));
        for index in expired.drain(..) {
            if let Some(entry) = self.entries.get_index_mut(index) {
                self.driver.expire(entry);
            }
        }
        self.expired = expired;
        self.run_dial_timers(now_ms);
        tell_unsaid(self.driver.panics_said.overdue(now_ms));
        if self.listeners.retry_at_ms().is_some_and(|at| at <= now_ms) {
            self.resume_accept();
        }
        if self.drain_until_ms.is_some_and(|until| until <= now_ms) {
            self.abandon();
        }
    }

    /// Runs what callbacks asked for other sessions; what that asks for waits for the next turn.
    fn run_actions(&mut self) {
        if self.driver.shard.actions.is_empty() {
            return;
        }
        let mut actions = std::mem::take(&mut self.actions);
        std::mem::swap(&mut actions, &mut self.driver.shard.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send { to, message } => self.send(to.key, message),
                Action::Close { session, code } => self.close(session.key, code),
                Action::Publish(publish) => self.publish(publish),
                Action::Answer { token, answer } => self.answer(token, answer),
                Action::Dial(client) => self.dial(client),
                Action::Refuse(route, error) => self.refuse_client(route, &error),
                Action::CloseClient { key, code } => self.close_client(key, code),
            }
        }
        self.actions = actions;
    }

    /// Sends the replies of this turn; those that are given meanwhile wait for the next one.
    fn run_late(&mut self) {
        if self.driver.shard.late.is_empty() {
            return;
        }
        let mut late = std::mem::take(&mut self.late);
        self.driver.shard.late.swap(&mut late);
        for each in late.drain(..) {
            self.late(each);
        }
        self.late = late;
    }

    /// What handles of connections asked for, from any thread: at most so much.
    fn run_orders(&mut self, most: usize) {
        for _ in 0..most {
            match self.orders.orders().pop() {
                Some(Order::Run(task)) => {
                    let shard = &mut self.driver.shard;
                    let ran = catch_unwind(AssertUnwindSafe(|| task(shard)));
                    self.note_panic(ran.err());
                }
                Some(Order::Wake(key)) => self.wake_client(key),
                Some(Order::Reply { session, to, answer }) => {
                    self.late(Late::remote(session, to, answer));
                }
                None => return,
            }
        }
    }

    fn late(&mut self, late: Late) {
        if let Some(entry) = self.entries.get_mut(late.session) {
            self.driver.late(entry, late);
        }
    }

    fn send(&mut self, key: Key, message: Message) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.driver.send(entry, message);
        }
    }

    fn send_copy(&mut self, key: Key, kind: MessageKind, payload: &[u8]) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.driver.send_copy(entry, kind, payload);
        }
    }

    fn close(&mut self, key: Key, code: CloseCode) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.driver.close(entry, Closed::ByHandler(code));
        }
    }

    fn answer(&mut self, token: UpgradeToken, answer: Box<dyn Any>) {
        if let Some(entry) = self.entries.get_mut(token.0.key)
            && entry.phase == Phase::Deciding
        {
            self.driver.answer(entry, answer);
        }
    }

    /// Stops accepting and closes every session; the loop ends when all are gone.
    fn drain(&mut self, timeout_ms: u64) {
        if self.drain_until_ms.is_some() {
            return;
        }
        self.drain_until_ms = Some(self.driver.egress.now_ms + timeout_ms);
        self.close_listeners();
        // What handles were told before they hear of the end.
        self.run_orders(self.orders.orders().len());
        self.drain_clients();
        for entry in self.entries.iter_mut() {
            // A client that closes does so by itself, after what it has accepted.
            let is_closing = entry.is_open() && self.driver.shard.dials.is_closing(entry.route);
            if !is_closing {
                self.driver.close(entry, Closed::Shutdown);
            }
        }
    }

    /// Says where the next bytes of those go for whom that changes.
    fn aim(&mut self) {
        if self.driver.unaimed.is_empty() {
            return;
        }
        let mut unaimed = std::mem::take(&mut self.driver.unaimed);
        for key in unaimed.drain(..) {
            if let Some(entry) = self.entries.get_mut(key) {
                self.driver.aim(entry);
            }
        }
        unaimed.append(&mut self.driver.unaimed);
        self.driver.unaimed = unaimed;
    }

    /// One gathered send for each session that has something to say.
    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.driver.egress.dirty);
        for index in dirty.drain(..) {
            if let Some(entry) = self.entries.get_index_mut(index) {
                self.driver.flush(entry);
            }
        }
        // What a last callback of a closing session wrote is flushed in the next turn.
        dirty.append(&mut self.driver.egress.dirty);
        self.driver.egress.dirty = dirty;
        self.driver.egress.end_turn();
    }
}

/// Counts the panics of a flood that has ended, of which no later one tells.
fn tell_unsaid(unsaid: Option<u64>) {
    if let Some(unsaid) = unsaid {
        tracing::error!(unsaid, "there were more panics than were told");
    }
}
