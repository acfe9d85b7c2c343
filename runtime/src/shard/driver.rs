//! What happens to one connection in a turn: completions, deadlines, the end.
//!
//! Comes in: one event of one connection, beside the entry of that connection. Goes out: calls of
//! its route, and what the reactor is asked to do with its socket. It never sees another
//! connection; the loop over all of them is [`turn`](super::turn).

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hioload_pools::{Key, Lease, Wheel};
use hioload_protocol::http::Response;
use hioload_protocol::ws::{MessageKind, Opcode};

use super::Shard;
use super::conn::{NetConn, Wire};
use super::entry::{Entry, Handshake, Phase, Protocol, Receiving};
use super::handler::Closed;
use super::handshake::{self, Unfinished};
use super::iproto::{Iproto, Late};
use super::message::Message;
use super::outbox::Egress;
use super::paths::Paths;
use super::route::{Context, Route, fail_with};
use super::said::Said;
use super::session::{Sent, WebSocketConn};
use super::share::Share;
use super::timers::{self, Due};
use super::topics::Publication;
use crate::config::SlowReader;
use crate::reactor::{Connection, Event, Reactor, Receive};

/// A shard without its connections.
pub(crate) struct Driver<R> {
    pub(crate) reactor: R,
    pub(super) routes: Vec<Box<dyn Route>>,
    pub(crate) paths: Paths,
    pub(super) unfinished: Unfinished,
    pub(crate) shard: Shard,
    pub(super) egress: Egress,
    pub(super) wheel: Wheel,
    /// Connections whose outbox was handed over at the end of the last turn and for whom it matters
    /// whether that blocked: if the reactor reports nothing by the next turn, it did not.
    pub(super) unsure: Vec<Key>,
    /// Connections to be told at the end of the turn where to receive.
    pub(super) unaimed: Vec<Key>,
    /// Whether what is being dispatched is all that the reactor reported in this turn.
    pub(super) is_alone: bool,
    /// What that leaves to be read in the next turn, before anything else.
    pub(super) rest: Option<(Key, Lease)>,
    /// Of panics, which a peer may be able to cause.
    pub(super) panics_said: Said,
}

impl<R: Reactor> Driver<R> {
    /// Lets a connection act on what happened to it.
    pub(super) fn dispatch(&mut self, entry: &mut Entry, event: Event) {
        let before = entry.phase;
        match event {
            Event::Received(bytes) => {
                self.heard(entry);
                self.guarded(entry, |driver, entry| driver.received(entry, bytes));
            }
            Event::ReceivedInto { lease, filled } => {
                self.heard(entry);
                entry.receiving = Receiving::Paused;
                self.guarded(entry, |driver, entry| driver.filled(entry, lease, filled));
            }
            Event::Ended => self.ended(entry),
            Event::SendBlocked(bytes) => self.blocked(entry, bytes),
            Event::Sent { bytes, done } => self.progressed(entry, bytes, done),
            Event::Connected => self.guarded(entry, |driver, entry| driver.connected(entry)),
            Event::Failed(error) => {
                tracing::debug!(%error, "a connection broke");
                entry.broke(error);
                entry.advance(Phase::Dead, self.egress.now_ms);
            }
            Event::Accepted(_) | Event::AcceptFailed(_) | Event::Closed | Event::Released(_) => {
                unreachable!("the loop takes these itself")
            }
        }
        // What most events leave behind: nothing of the outside is to be brought in line with it.
        if before == Phase::Open && entry.is_steady() {
            return;
        }
        self.settle(entry);
        let ends = entry.phase > Phase::Open;
        if entry.phase != before || ends || entry.outbox.is_blocked() || entry.is_mid_message() {
            self.arm(entry);
        }
    }

    /// A new connection: from the first byte on it is a handshake, or raw.
    pub(super) fn begin(&mut self, entry: &mut Entry, raw_route: Option<u16>) {
        match raw_route {
            None => {
                entry.protocol = Protocol::Handshake(Handshake::default());
                entry.phase = Phase::Head;
                self.unfinished.began(entry);
            }
            Some(route) => {
                entry.route = route;
                self.shard.counters.opened += 1;
                self.guarded(entry, |driver, entry| {
                    driver.call(entry, |route, cx, entry| {
                        route.accepted(cx, entry);
                    })
                });
            }
        }
        self.settle(entry);
        self.arm(entry);
    }

    /// Brings the outside of a connection in line with its phase.
    pub(super) fn settle(&mut self, entry: &mut Entry) {
        if entry.phase > Phase::Deciding {
            self.unfinished.finished(entry);
        }
        if entry.phase > Phase::Open && entry.flags.subscribed() {
            entry.flags.set_subscribed(false);
            self.egress.topics.borrow_mut().leave(entry.key.index);
        }
        if entry.phase >= Phase::Lingering && entry.flags.opened() {
            entry.flags.set_opened(false);
            self.guarded(entry, |driver, entry| {
                driver.call(entry, |route, cx, entry| {
                    route.closed(cx, entry);
                })
            });
            self.egress.extras.forget(entry);
        }
        if entry.flags.unarmed() {
            entry.flags.set_unarmed(false);
            self.arm(entry);
        }
        let finished = entry.flags.shut() || entry.closes_last();
        let done = entry.flags.ended() && finished && !entry.flags.doubtful();
        if entry.phase == Phase::Lingering && done && entry.outbox.queued() == 0 {
            entry.advance(Phase::Dead, self.egress.now_ms);
        }
        if entry.phase == Phase::Dead && !entry.flags.released() {
            entry.flags.set_released(true);
            drop(self.egress.drain(&mut entry.outbox));
            self.egress.windows.close(&mut entry.deflate);
            self.egress.late_pongs.remove(&entry.key.index);
            self.egress.extras.forget(entry);
            self.wheel.cancel(entry.key.index);
            self.wire(entry).close();
            if entry.flags.client() {
                self.dial_over(entry);
            }
        }
        if entry.phase > Phase::Open {
            entry.flags.set_paused(false);
        }
        if matches!(entry.phase, Phase::Leaving | Phase::Lingering) {
            // What comes is discarded: the peer must get to its FIN, or to the end of a packet.
            entry.flags.set_held_back(false);
        }
        let waits = entry.phase == Phase::Deciding || entry.flags.paused() || entry.is_unread();
        if waits && entry.receiving == Receiving::Pool {
            entry.receiving = Receiving::Paused;
            self.wire(entry).receive(Receive::Paused);
        }
        let elsewhere = match entry.receiving {
            Receiving::Paused => true,
            Receiving::Pool => entry.is_mid_message(),
            Receiving::Into => false,
        };
        if elsewhere && entry.wants_bytes() {
            self.want_aim(entry);
        }
    }

    /// Sets the connection's timer to its next deadline.
    pub(super) fn arm(&mut self, entry: &mut Entry) {
        let own = self.egress.extras.due_ms(entry);
        let deadline = timers::deadline(entry, &self.egress.settings, own);
        if let Protocol::Iproto(iproto) = &mut entry.protocol {
            iproto.armed(deadline);
        }
        match deadline {
            Some(tick) => self.wheel.set(entry.key.index, tick),
            None => self.wheel.cancel(entry.key.index),
        }
    }

    /// Its timer fired: does what is due by now.
    pub(super) fn expire(&mut self, entry: &mut Entry) {
        let now_ms = self.egress.now_ms;
        entry.wait_on(now_ms);
        let own = self.egress.extras.due_ms(entry);
        match timers::due(entry, &self.egress.settings, own, now_ms) {
            Due::Nothing => {}
            Due::Handshake => {
                self.shard.counters.handshakes_expired += 1;
                if entry.phase == Phase::Deciding {
                    let response = Response::text(503, "the handshake was not answered in time");
                    handshake::refuse(&mut self.context(), entry, &response, false);
                } else {
                    entry.advance(Phase::Dead, now_ms);
                }
            }
            Due::Ping => {
                entry.flags.set_pinged(true);
                self.context().link(entry).send_control(Opcode::Ping, &[]);
            }
            Due::Idle => {
                self.shard.counters.timeouts += 1;
                self.context().link(entry).close_for(Closed::Idle, "idle timeout");
            }
            Due::MessageAge => fail_with(&mut self.context(), entry, Closed::MessageTooOld),
            Due::Own => self.own_timers(entry),
            Due::Protocol => self.poll(entry),
            Due::Stalled => {
                self.shard.counters.timeouts += 1;
                entry.blame(Closed::Stalled);
                entry.flags.set_cut(true);
                entry.advance(Phase::Dead, now_ms);
            }
            Due::Close => entry.advance(Phase::Dead, now_ms),
        }
        self.settle(entry);
        self.arm(entry);
    }

    /// Lets the protocol do what is due.
    fn poll(&mut self, entry: &mut Entry) {
        self.guarded(entry, |driver, entry| {
            driver.call(entry, |route, cx, entry| route.poll(cx, entry));
        });
    }

    /// A reply came from outside of the callbacks of its session.
    pub(super) fn late(&mut self, entry: &mut Entry, late: Late) {
        if entry.is_open() {
            self.guarded(entry, |driver, entry| {
                driver.call(entry, |route, cx, entry| route.late(cx, entry, late));
            });
            self.settle_and_arm(entry);
        }
    }

    /// What the handler set for this session and is due by now.
    fn own_timers(&mut self, entry: &mut Entry) {
        let now_ms = self.egress.now_ms;
        if let Some(code) = self.egress.extras.overdue(entry, now_ms) {
            return self.context().link(entry).close_for(Closed::Deadline(code), "deadline");
        }
        // Not those that are set meanwhile: they are for another turn.
        for _ in 0..self.egress.extras.timers_due(entry, now_ms) {
            let Some(token) = self.egress.extras.take_timer(entry, now_ms) else { return };
            self.guarded(entry, |driver, entry| {
                driver.call(entry, |route, cx, entry| route.timer(cx, entry, token));
            });
            if !entry.is_open() {
                return;
            }
        }
    }

    /// Ends a connection of any phase from our side; a second time it does nothing.
    pub(super) fn close(&mut self, entry: &mut Entry, cause: Closed) {
        match entry.phase {
            Phase::Dialing | Phase::Head | Phase::Deciding => {
                entry.advance(Phase::Dead, self.egress.now_ms)
            }
            Phase::Open => {
                self.context().link(entry).close_for(cause, "");
                if entry.iproto().is_some() {
                    self.poll(entry);
                }
            }
            Phase::Closing | Phase::Leaving | Phase::Lingering | Phase::Dead => {}
        }
        self.settle(entry);
        self.arm(entry);
    }

    /// Sends to a connection on behalf of somebody else.
    pub(super) fn send(&mut self, entry: &mut Entry, message: Message) {
        self.context().link(entry).send(message);
        self.settle_and_arm(entry);
    }

    /// As [`send`](Self::send), a copy.
    pub(super) fn send_copy(&mut self, entry: &mut Entry, kind: MessageKind, payload: &[u8]) {
        self.context().link(entry).send_copy(kind, payload);
        self.settle_and_arm(entry);
    }

    /// Sends what was published to a topic to one of its subscribers.
    pub(super) fn deliver(&mut self, entry: &mut Entry, publication: &mut Publication) {
        if !entry.is_open() {
            return;
        }
        match self.context().link(entry).send_published(publication) {
            Sent::Queued | Sent::Full => self.shard.counters.delivered += 1,
            Sent::Dropped => self.shard.counters.missed += 1,
        }
        if !entry.is_open() {
            self.settle_and_arm(entry);
        }
    }

    /// Answers a handshake that was left open.
    pub(super) fn answer(&mut self, entry: &mut Entry, answer: Box<dyn Any>) {
        self.guarded(entry, |driver, entry| {
            let Self { shard, egress, routes, paths, reactor, .. } = driver;
            let mut cx = Context { shard, egress, net: reactor };
            handshake::answered(&mut cx, routes, paths, entry, answer);
        });
        self.settle(entry);
        self.arm(entry);
    }

    /// The reactor has given the socket of a connection back.
    pub(super) fn released(&mut self, entry: &mut Entry, connection: Connection) {
        // Whoever wanted it may have failed meanwhile.
        if entry.phase == Phase::Leaving {
            self.guarded(entry, |driver, entry| {
                driver.call(entry, |route, cx, entry| route.released(cx, entry, connection));
            });
        }
    }

    /// The end of the turn for a dirty connection: one gathered send, unless one is still open.
    pub(super) fn flush(&mut self, entry: &mut Entry) {
        entry.flags.set_dirty(false);
        if entry.phase == Phase::Dead {
            return self.settle(entry);
        }
        if entry.outbox.is_blocked() {
            self.egress.settle(&entry.outbox);
            return self.hold_back(entry);
        }
        if entry.outbox.is_waiting() {
            let Self { egress, reactor, .. } = self;
            let mut wire = Wire { reactor, socket: entry.socket };
            wire.send(egress.drain(&mut entry.outbox));
            let flags = &entry.flags;
            let pong_waits = self.egress.late_pongs.contains_key(&entry.key.index);
            let somebody_waits = flags.full() || flags.held_back() || pong_waits;
            if somebody_waits || entry.phase > Phase::Open {
                entry.flags.set_doubtful(true);
                self.unsure.push(entry.key);
            }
        } else {
            self.note_left(entry);
        }
        if entry.phase == Phase::Leaving && entry.iproto_mut().is_some_and(Iproto::may_release) {
            self.reactor.release(entry.socket);
        }
        let is_last = !entry.closes_last() || entry.flags.ended();
        if entry.phase == Phase::Lingering && is_last && !entry.flags.shut() {
            entry.flags.set_shut(true);
            if !entry.flags.leaving() {
                entry.mark_ms = self.egress.now_ms + self.egress.settings.close_timeout_ms;
            }
            self.wire(entry).shutdown();
            self.settle(entry);
            self.arm(entry);
        }
    }

    /// A turn after a flush: had it blocked, that would be known by now.
    pub(super) fn confirm(&mut self, entry: &mut Entry) {
        entry.flags.set_doubtful(false);
        self.note_left(entry);
        self.tell_drained(entry);
        self.settle_and_arm(entry);
    }

    /// Starts the clock of what follows the backlog of an end, once that has left.
    fn note_left(&mut self, entry: &mut Entry) {
        if entry.note_left(&self.egress.settings, self.egress.now_ms) {
            self.arm(entry);
        }
    }

    /// After something that a handler or the policy may have answered by closing.
    pub(super) fn settle_and_arm(&mut self, entry: &mut Entry) {
        self.settle(entry);
        if entry.phase > Phase::Open {
            self.arm(entry);
        }
    }

    /// After `Full`: the outbox is low again. Tells the handler, once.
    fn tell_drained(&mut self, entry: &mut Entry) {
        let low = self.egress.settings.outbox_low_bytes;
        if entry.outbox.queued() > low {
            return;
        }
        if entry.flags.held_back() {
            entry.flags.set_held_back(false);
            entry.read_again(self.egress.now_ms);
            self.arm(entry);
        }
        if entry.flags.full() && entry.is_open() {
            entry.flags.set_full(false);
            self.guarded(entry, |driver, entry| {
                driver.call(entry, |route, cx, entry| {
                    route.drained(cx, entry);
                })
            });
            self.settle(entry);
        }
        // Behind that: the handler was promised that the outbox is low.
        if let Some(payload) = self.egress.late_pongs.remove(&entry.key.index)
            && entry.is_open()
        {
            self.context().link(entry).send_control(Opcode::Pong, &payload);
        }
    }

    pub(super) fn context(&mut self) -> Context<'_> {
        Context { shard: &mut self.shard, egress: &mut self.egress, net: &self.reactor }
    }

    pub(super) fn wire(&mut self, entry: &Entry) -> Wire<'_, R> {
        Wire { reactor: &mut self.reactor, socket: entry.socket }
    }

    /// Calls the route of a connection.
    fn call<T>(
        &mut self,
        entry: &mut Entry,
        callback: impl FnOnce(&mut dyn Route, &mut Context<'_>, &mut Entry) -> T,
    ) -> T {
        let Self { shard, egress, reactor, .. } = self;
        let mut cx = Context { shard, egress, net: reactor };
        callback(&mut *self.routes[usize::from(entry.route)], &mut cx, entry)
    }

    /// Runs what may call a handler: a panic costs this session, and nobody else.
    pub(super) fn guarded(&mut self, entry: &mut Entry, run: impl FnOnce(&mut Self, &mut Entry)) {
        let caught = catch_unwind(AssertUnwindSafe(|| run(self, entry)));
        if caught.is_ok() {
            return;
        }
        self.shard.counters.panics += 1;
        if let Some(unsaid) = self.panics_said.admit(self.egress.now_ms) {
            let session = entry.key.to_u64();
            tracing::error!(session, unsaid, "a handler panicked: its session ends");
        }
        if entry.phase == Phase::Dialing {
            entry.advance(Phase::Dead, self.egress.now_ms);
        } else if entry.phase <= Phase::Deciding {
            let response = Response::text(500, "the handler of this path failed");
            handshake::refuse(&mut self.context(), entry, &response, false);
        } else {
            fail_with(&mut self.context(), entry, Closed::Panicked);
        }
    }

    fn heard(&mut self, entry: &mut Entry) {
        entry.heard_ms = self.egress.now_ms;
        entry.flags.set_pinged(false);
    }

    pub(super) fn received(&mut self, entry: &mut Entry, bytes: Lease) {
        match entry.phase {
            Phase::Open | Phase::Closing | Phase::Leaving => {
                let share = self.share_of(entry, bytes.len());
                let rest =
                    self.call(entry, |route, cx, entry| route.received(cx, entry, bytes, share));
                if let Some(rest) = rest {
                    self.rest = Some((entry.key, rest));
                }
            }
            Phase::Head => {
                let Self { shard, egress, routes, paths, reactor, .. } = self;
                let mut cx = Context { shard, egress, net: reactor };
                handshake::received(&mut cx, routes, paths, entry, bytes);
            }
            Phase::Dialing => self.answered(entry, bytes),
            Phase::Deciding => {
                handshake::received_behind_head(&mut self.context(), entry, &bytes);
            }
            Phase::Lingering | Phase::Dead => {}
        }
    }

    /// How much of a window is read in this turn: all of it if something is due, which the end of
    /// the window may prevent.
    fn share_of(&self, entry: &Entry, len: usize) -> Share {
        let share = if self.is_alone { Share::half_of(len) } else { Share::ALL };
        if share == Share::ALL {
            return share;
        }
        let own = self.egress.extras.due_ms(entry);
        let deadline = timers::deadline(entry, &self.egress.settings, own);
        let is_due = deadline.is_some_and(|at| at <= self.egress.now_ms);
        if is_due { Share::ALL } else { share }
    }

    fn filled(&mut self, entry: &mut Entry, lease: Lease, filled: usize) {
        if matches!(entry.phase, Phase::Open | Phase::Closing | Phase::Leaving) {
            self.call(entry, |route, cx, entry| route.filled(cx, entry, lease, filled));
        }
    }

    /// The peer's FIN. A raw peer may still read what waits for it; a WebSocket peer that sends
    /// one without a close frame is gone (RFC 6455 section 7.1.1).
    fn ended(&mut self, entry: &mut Entry) {
        entry.flags.set_ended(true);
        let now_ms = self.egress.now_ms;
        match (entry.phase, &entry.protocol) {
            (Phase::Open | Phase::Leaving, Protocol::Raw | Protocol::Iproto(_)) => {
                self.guarded(entry, |driver, entry| {
                    driver.call(entry, |route, cx, entry| route.ended(cx, entry));
                });
            }
            (Phase::Lingering, _) => {}
            _ => entry.advance(Phase::Dead, now_ms),
        }
    }

    fn blocked(&mut self, entry: &mut Entry, bytes: usize) {
        entry.outbox.block(bytes);
        if entry.phase <= Phase::Open {
            entry.mark_ms = self.egress.now_ms;
        }
        self.hold_back(entry);
    }

    /// Stops reading from a peer for whom too much waits, if that is the policy.
    fn hold_back(&mut self, entry: &mut Entry) {
        let settings = &self.egress.settings;
        let above = entry.outbox.queued() > settings.outbox_high_bytes;
        // Who waits for the peer while the peer waits to be read from would wait for ever. So a
        // WebSocket client reads on, and its own sender waits instead; an iproto side reads on while
        // calls of its own wait, up to `iproto.requests_max`.
        let waits = match &entry.protocol {
            Protocol::Iproto(iproto) => iproto.connection.pending() > 0,
            _ => entry.flags.client(),
        };
        if above && !waits && settings.slow_reader == SlowReader::Pause && entry.is_open() {
            entry.flags.set_held_back(true);
            if entry.receiving == Receiving::Pool {
                entry.receiving = Receiving::Paused;
                self.wire(entry).receive(Receive::Paused);
            }
        }
    }

    fn progressed(&mut self, entry: &mut Entry, bytes: usize, done: bool) {
        entry.outbox.progress(bytes);
        // A session that ends gets no new time for a part of its backlog.
        if entry.phase <= Phase::Open {
            entry.mark_ms = self.egress.now_ms;
        }
        if bytes > 0 {
            // It reads, so it is there.
            self.heard(entry);
        }
        if done {
            self.context().link(entry).mark_dirty();
        }
        self.tell_drained(entry);
    }

    /// Notes that it must be said where the next bytes go.
    fn want_aim(&mut self, entry: &mut Entry) {
        if !entry.flags.unaimed() {
            entry.flags.set_unaimed(true);
            self.unaimed.push(entry.key);
        }
    }

    /// The end of the turn for a connection that is mid-message, or receives nothing: says where
    /// its next bytes go. Not earlier, as more of its bytes may wait in the batch.
    pub(super) fn aim(&mut self, entry: &mut Entry) {
        entry.flags.set_unaimed(false);
        if !entry.wants_bytes() || entry.receiving == Receiving::Into {
            return;
        }
        let mut into = None;
        if matches!(entry.phase, Phase::Open | Phase::Closing) {
            into = self.call(entry, |route, cx, entry| route.aim(cx, entry));
            if entry.phase > Phase::Closing {
                // There was no memory for the rest of the message.
                self.settle(entry);
            }
        }
        if entry.phase == Phase::Dead {
            return;
        }
        let (receiving, mode) = match into {
            Some(lease) => (Receiving::Into, Receive::Into(lease)),
            None if entry.receiving == Receiving::Pool => return,
            None => (Receiving::Pool, Receive::Pool),
        };
        entry.receiving = receiving;
        self.wire(entry).receive(mode);
    }
}
