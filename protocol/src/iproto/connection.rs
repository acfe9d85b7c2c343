//! The state machine of one connection. Both sides are the same.
//!
//! What comes in: received bytes, cut anywhere; calls, notifies and replies to be sent; the time.
//! What goes out: [`Event`]s, headers of packets to send, and [`Action`]s. Bodies never pass
//! through it: who sends puts the body behind the header.

use alloc::boxed::Box;

use super::calls::{Calls, Lookup};
use super::event::{Action, CloseReason, Event, ReplyTo};
use super::packet::{Packet, PacketReader, Unread};
use super::{
    Env, HEADER_BYTES, Header, Limits, Memory, PING, Refusal, Refused, SHUTDOWN, Stats, Violation,
};
use crate::receive::Direct;

const PING_HEADER: Header = Header::empty(PING, 0);
const SHUTDOWN_HEADER: Header = Header::empty(SHUTDOWN, 0);

/// An iproto connection, known elsewhere as a channel.
///
/// `B` is the memory that [`Memory`] gives for packets that do not arrive whole, and `T` what the
/// caller knows a call by. An idle connection holds no memory, and the table of calls is made with
/// the first of them.
///
/// After anything that was done with it, and when [`next_deadline_ms`](Self::next_deadline_ms) is
/// reached, [`poll`](Self::poll) until it gives nothing more. Once in a turn is enough.
///
/// ```
/// use hioload_protocol::iproto::{Action, Connection, Env, Event, HeapMemory, Limits};
///
/// let limits = Limits::default();
/// let mut memory = HeapMemory;
/// let mut env = Env { limits: &limits, memory: &mut memory, now_ms: 0 };
///
/// // We ask: the header goes out, and the body of two bytes behind it.
/// let mut client: Connection<Vec<u8>, &str> = Connection::new(0);
/// let header = client.call(42, 2, 5_000, "mine", &limits)?;
/// let wire = [&header.encode()[..], b"OK"].concat();
///
/// // They answer.
/// let mut server: Connection<Vec<u8>, ()> = Connection::new(0);
/// let mut at = 0;
/// let Some(Event::Request { to, body }) = server.read(&wire, &mut at, &mut env)? else {
///     panic!("a request");
/// };
/// let reply = [b"R:", body.bytes(&wire)].concat();
/// let header = server.reply(to, reply.len())?;
/// let wire = [&header.encode()[..], &reply].concat();
///
/// let mut at = 0;
/// let Some(Event::Response { token, body, .. }) = client.read(&wire, &mut at, &mut env)? else {
///     panic!("the response");
/// };
/// assert_eq!((token, body.bytes(&wire)), ("mine", &b"R:OK"[..]));
///
/// // A minute later it pings.
/// assert_eq!(client.next_deadline_ms(&limits), Some(60_000));
/// assert!(matches!(client.poll(60_000, &limits), Some(Action::Send(ping)) if ping.sync == 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection<B, T> {
    reader: PacketReader<B>,
    calls: Option<Box<Calls<T>>>,
    stats: Stats,
    /// When something was received last.
    heard_ms: u64,
    /// When the last ping was sent.
    pinged_ms: u64,
    /// When the shutdown began.
    shutdown_ms: u64,
    /// How many requests of the peer are open.
    requests: u32,
    /// What the packet that is arriving is.
    kind: Kind,
    /// Whether a ping of ours was not answered yet.
    awaits_ping: bool,
    /// Whether the end was asked for, by us or by the peer.
    stopping: bool,
    shutdown_sent: bool,
    shutdown_received: bool,
    ended: Option<CloseReason>,
}

/// What a packet is, by its header and what we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Request,
    Notify,
    Response,
    Late,
    Ping,
    Shutdown,
    Unsolicited,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>, T> Connection<B, T> {
    /// A connection that was just made.
    #[must_use]
    pub const fn new(now_ms: u64) -> Self {
        Self {
            reader: PacketReader::new(),
            calls: None,
            stats: Stats::NONE,
            heard_ms: now_ms,
            pinged_ms: now_ms,
            shutdown_ms: 0,
            requests: 0,
            kind: Kind::Request,
            awaits_ping: false,
            stopping: false,
            shutdown_sent: false,
            shutdown_received: false,
            ended: None,
        }
    }

    /// Reads the next event from `input[*at..]` and moves `*at` behind it. `Ok(None)`: all of
    /// `input` is consumed, nothing of it is needed any more.
    ///
    /// A body that arrived whole stays where it is; what is cut is copied to memory from `env`,
    /// except of packets that nobody waits for: nothing of those is kept. Who wants to slow the
    /// peer down does not call this again for a while.
    ///
    /// After the end everything is consumed in silence.
    ///
    /// # Errors
    /// The peer broke a limit, or `env` has no memory. The connection has ended: close it.
    ///
    /// # Panics
    /// If `*at` is behind the end of `input`, or if [`Memory`] gives less than it was asked for.
    #[inline]
    pub fn read<M: Memory<Buffer = B>>(
        &mut self,
        input: &[u8],
        at: &mut usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Event<B, T>>, Violation> {
        let start = *at;
        let read = self.next_event(input, at, env);
        if read.is_err() {
            *at = input.len();
        }
        if *at > start {
            self.heard_ms = env.now_ms;
            self.stats.bytes_in += (*at - start) as u64;
        }
        read.inspect_err(|violation| self.end(CloseReason::Failed(*violation)))
    }

    /// Lends the memory of the body that is arriving; see [`PacketReader::direct`].
    ///
    /// # Errors
    /// There is no room, and `env` has no memory. The connection has ended.
    pub fn direct<M: Memory<Buffer = B>>(
        &mut self,
        min_bytes: usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Direct<'_, B>>, Violation> {
        match self.reader.earn(min_bytes, env.memory) {
            Ok(true) => Ok(self.reader.lend()),
            Ok(false) => Ok(None),
            Err(violation) => {
                self.end(CloseReason::Failed(violation));
                Err(violation)
            }
        }
    }

    /// The memory of the body that is arriving, if it has any: to put back what was split off
    /// after [`direct`](Self::direct).
    pub const fn buffer_mut(&mut self) -> Option<&mut B> {
        self.reader.buffer_mut()
    }

    /// Takes the `bytes` that were received to `buffer[filled..]` of [`direct`](Self::direct). What
    /// is complete with them comes out.
    ///
    /// # Panics
    /// If `bytes` is more than was lent.
    pub fn filled(&mut self, bytes: usize, now_ms: u64) -> Option<Event<B, T>> {
        if bytes > 0 {
            self.heard_ms = now_ms;
            self.stats.bytes_in += bytes as u64;
        }
        let packet = self.reader.filled(bytes)?;
        self.deliver(packet, now_ms)
    }

    /// Makes a call: the header that it gives is to be sent, and `len` bytes of body behind it.
    /// `token` comes back with the response, or when `deadline_ms` is reached, or by
    /// [`cancel`](Self::cancel) or [`take_call`](Self::take_call).
    ///
    /// # Errors
    /// The call cannot be made, for each reason of [`Refusal`]; `token` is given back.
    pub fn call(
        &mut self,
        msg: u32,
        len: usize,
        deadline_ms: u64,
        token: T,
        limits: &Limits,
    ) -> Result<Header, Refused<T>> {
        let header = self.outgoing(msg, len).and_then(|header| {
            let full = self.pending() >= limits.calls_max as usize;
            let limit = limits.calls_max;
            if full { Err(Refusal::TooManyCalls { limit }) } else { Ok(header) }
        });
        match header {
            Ok(mut header) => {
                let calls = self.calls.get_or_insert_with(|| Box::new(Calls::new()));
                header.sync = calls.insert(msg, deadline_ms, token);
                self.stats.calls += 1;
                Ok(self.sent(header))
            }
            Err(why) => Err(Refused { why, token }),
        }
    }

    /// The header of a notify, to be sent with `len` bytes of body behind it.
    ///
    /// # Errors
    /// It cannot be sent, for each reason of [`Refusal`] but the number of calls.
    pub fn notify(&mut self, msg: u32, len: usize) -> Result<Header, Refusal> {
        let header = self.outgoing(msg, len)?;
        self.stats.notices += 1;
        Ok(self.sent(header))
    }

    /// The header of the reply to a request, to be sent with `len` bytes of body behind it.
    /// Allowed as long as the connection has not ended, also while it shuts down.
    ///
    /// # Errors
    /// The connection has ended, or the body is too long; `to` is given back.
    pub fn reply(&mut self, to: ReplyTo, len: usize) -> Result<Header, Refused<ReplyTo>> {
        if self.ended.is_some() {
            return Err(Refused { why: Refusal::Stopped, token: to });
        }
        match Header::new(to.msg, to.sync, len) {
            Ok(header) => {
                self.discard(to);
                Ok(self.sent(header))
            }
            Err(why) => Err(Refused { why, token: to }),
        }
    }

    /// Leaves a request without a reply: the peer runs into its timeout.
    pub const fn discard(&mut self, to: ReplyTo) {
        let ReplyTo { .. } = to;
        self.requests = self.requests.saturating_sub(1);
    }

    /// Ends a call whose caller does not wait any more, and gives its token. A response that still
    /// comes is counted, and nothing else.
    pub fn cancel(&mut self, call: &Header, now_ms: u64, limits: &Limits) -> Option<T> {
        let calls = self.calls.as_mut()?;
        let forget_ms = match limits.late_ms {
            0 => u64::MAX,
            late_ms => now_ms.saturating_add(late_ms),
        };
        let token = calls.cancel(call.msg, call.sync, limits.late_max, forget_ms)?;
        self.stats.calls_dropped += 1;
        Some(token)
    }

    /// A ping to be sent now, instead of when its time comes. `None`: the last one was not
    /// answered yet, or the connection shuts down.
    pub const fn ping(&mut self, now_ms: u64) -> Option<Header> {
        if self.awaits_ping || self.stopping || self.ended.is_some() {
            return None;
        }
        self.awaits_ping = true;
        self.pinged_ms = now_ms;
        Some(self.sent(PING_HEADER))
    }

    /// Asks for the end: no new calls are taken, those that wait may finish, the rest is up to
    /// [`poll`](Self::poll).
    pub const fn shutdown(&mut self, now_ms: u64) {
        if !self.stopping {
            self.stopping = true;
            self.shutdown_ms = now_ms;
        }
    }

    /// Ends the connection at once, because there is nothing to send on or receive from any more.
    pub fn closed(&mut self) {
        if self.ended.is_none() {
            self.end(CloseReason::Gone);
        }
    }

    /// Ends the connection because somebody else goes on with the bytes, in whatever protocol, and
    /// gives what he has to read before those that come. Calls that wait are left to
    /// [`take_call`](Self::take_call), requests that are open have no answer.
    pub fn hijack(&mut self) -> Unread {
        let unread = self.reader.take_unread();
        self.closed();
        unread
    }

    /// What is to be done now, one thing at a time, until `None`. Calls time out here, the earliest
    /// first and those of the same moment in the order they were made; pings and the shutdown are
    /// sent from here, and here a connection ends.
    pub fn poll(&mut self, now_ms: u64, limits: &Limits) -> Option<Action<T>> {
        if self.ended.is_some() {
            return None;
        }
        if let Some(token) = self.timed_out(now_ms, limits) {
            return Some(Action::TimedOut(token));
        }
        if let Some(reason) = self.overdue(now_ms, limits) {
            return Some(self.close(reason));
        }
        // Behind its shutdown a peer reads nothing more, so what it asked for is answered before.
        let answered = self.requests == 0;
        if self.stopping
            && !self.shutdown_sent
            && self.pending() == 0
            && (answered || !self.shutdown_received)
        {
            self.shutdown_sent = true;
            return Some(Action::Send(self.sent(SHUTDOWN_HEADER)));
        }
        if self.shutdown_sent && self.shutdown_received && answered {
            return Some(self.close(CloseReason::Finished));
        }
        if self.ping_at_ms(limits).is_some_and(|at_ms| at_ms <= now_ms) {
            return self.ping(now_ms).map(Action::Send);
        }
        None
    }

    /// When [`poll`](Self::poll) has something to do if nothing happens before. `None`: never.
    #[must_use]
    pub fn next_deadline_ms(&self, limits: &Limits) -> Option<u64> {
        if self.ended.is_some() {
            return None;
        }
        let call = self.calls.as_ref().and_then(|calls| calls.deadline_ms());
        let ends = self.ends(limits).into_iter().map(|(at_ms, _)| at_ms);
        ends.chain([call, self.ping_at_ms(limits)]).flatten().min()
    }

    /// A call that waits, in any order: when the connection has ended, each of them has failed.
    pub fn take_call(&mut self) -> Option<T> {
        let token = self.calls.as_mut()?.take()?;
        self.stats.calls_dropped += 1;
        Some(token)
    }

    /// Starts the clocks anew that judge the peer by what it sends: for a caller that did not read
    /// for a while.
    pub fn restart_clocks(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.reader.restart_age(now_ms);
    }

    /// How many calls of ours wait for their responses.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.calls.as_ref().map_or(0, |calls| calls.waiting())
    }

    /// How many requests of the peer are open: neither replied to nor discarded.
    #[must_use]
    pub const fn requests(&self) -> u32 {
        self.requests
    }

    /// Whether a packet has begun to arrive and is not complete.
    #[must_use]
    pub const fn is_mid_packet(&self) -> bool {
        self.reader.is_mid_packet()
    }

    /// Whether a ping of ours was not answered yet.
    #[must_use]
    pub const fn awaits_ping(&self) -> bool {
        self.awaits_ping
    }

    /// Whether new calls are refused, because the end was asked for or is there.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stopping || self.ended.is_some()
    }

    /// Why the connection has ended; `None` if it has not.
    #[must_use]
    pub const fn close_reason(&self) -> Option<CloseReason> {
        self.ended
    }

    /// What it has done so far.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    #[inline]
    fn next_event<M: Memory<Buffer = B>>(
        &mut self,
        input: &[u8],
        at: &mut usize,
        env: &mut Env<'_, M>,
    ) -> Result<Option<Event<B, T>>, Violation> {
        // Each round consumes a packet, which is at least the end of a header.
        loop {
            let Some(begun) = self.reader.begin(input, at, env.limits, env.now_ms)? else {
                return Ok(None);
            };
            if begun.fresh {
                self.kind = self.classify(&begun.header, env.limits)?;
                if !matches!(self.kind, Kind::Request | Kind::Notify | Kind::Response) {
                    self.reader.skip();
                }
            }
            let Some(packet) = self.reader.finish(&begun, input, at, env.memory)? else {
                return Ok(None);
            };
            let event = self.deliver(packet, env.now_ms);
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Decides by its header what a packet is, before anything is done for its body.
    #[inline]
    fn classify(&self, header: &Header, limits: &Limits) -> Result<Kind, Violation> {
        let Header { msg, sync, .. } = *header;
        let lookup = self.calls.as_ref().map_or(Lookup::Unknown, |calls| calls.look(msg, sync));
        Ok(match (lookup, msg) {
            (Lookup::Waiting, _) => Kind::Response,
            (Lookup::Late, _) => Kind::Late,
            (Lookup::Unknown, PING) => Kind::Ping,
            (Lookup::Unknown, SHUTDOWN) if !self.shutdown_received => Kind::Shutdown,
            _ if self.shutdown_received => Kind::Unsolicited,
            _ if sync == 0 => Kind::Notify,
            _ if limits.requests_max == 0 => Kind::Unsolicited,
            _ if self.requests >= limits.requests_max => {
                return Err(Violation::TooManyRequests { limit: limits.requests_max });
            }
            _ => Kind::Request,
        })
    }

    #[inline]
    fn deliver(&mut self, packet: Packet<B>, now_ms: u64) -> Option<Event<B, T>> {
        let Packet { header, body } = packet;
        let Header { msg, sync, .. } = header;
        self.stats.packets_in += 1;
        match self.kind {
            Kind::Request => {
                self.requests += 1;
                self.stats.requests_in += 1;
                return Some(Event::Request { to: ReplyTo { msg, sync }, body });
            }
            Kind::Notify => {
                self.stats.notices_in += 1;
                return Some(Event::Notify { msg, body });
            }
            Kind::Response | Kind::Late => {
                // A call may have ended while its response was arriving.
                let calls = self.calls.as_mut()?;
                if let Some(token) = calls.resolve(msg, sync) {
                    return Some(Event::Response { token, header, body });
                }
                calls.forget_late(msg, sync);
                self.stats.late += 1;
            }
            Kind::Ping if sync == 0 && self.awaits_ping => self.awaits_ping = false,
            Kind::Ping => return Some(Event::Send(self.sent(Header::empty(PING, sync)))),
            Kind::Shutdown => {
                self.shutdown_received = true;
                if !self.stopping {
                    self.shutdown(now_ms);
                    return Some(Event::Shutdown);
                }
            }
            Kind::Unsolicited => self.stats.unsolicited += 1,
        }
        None
    }

    /// The header of something new that is to be sent.
    const fn outgoing(&self, msg: u32, len: usize) -> Result<Header, Refusal> {
        if self.is_stopped() {
            return Err(Refusal::Stopped);
        }
        if matches!(msg, PING | SHUTDOWN) {
            return Err(Refusal::ControlCode { msg });
        }
        Header::new(msg, 0, len)
    }

    /// Counts a packet that is given out.
    const fn sent(&mut self, header: Header) -> Header {
        self.stats.packets_out += 1;
        self.stats.bytes_out += HEADER_BYTES as u64 + header.len as u64;
        header
    }

    fn timed_out(&mut self, now_ms: u64, limits: &Limits) -> Option<T> {
        let calls = self.calls.as_mut()?;
        calls.forget_until(now_ms);
        let (msg, sync) = calls.expired(now_ms)?;
        self.cancel(&Header::empty(msg, sync), now_ms, limits)
    }

    /// Why the connection has ended by now, if it has.
    fn overdue(&self, now_ms: u64, limits: &Limits) -> Option<CloseReason> {
        let over = |(at_ms, reason): (Option<u64>, _)| (at_ms? <= now_ms).then_some(reason);
        self.ends(limits).into_iter().find_map(over)
    }

    /// What would end the connection, and when.
    fn ends(&self, limits: &Limits) -> [(Option<u64>, CloseReason); 4] {
        let after = |applies: bool, from_ms: u64, time_ms: u64| {
            (applies && time_ms > 0).then(|| from_ms.saturating_add(time_ms))
        };
        let silent_ms = self.heard_ms.max(self.pinged_ms);
        let missed_ms = limits.ping_interval_ms.saturating_mul(2);
        let shutdown_ms = limits.shutdown_timeout_ms;
        [
            (after(self.stopping, self.shutdown_ms, shutdown_ms), CloseReason::ShutdownTimeout),
            (self.reader.packet_deadline_ms(limits), CloseReason::PacketTooOld),
            (after(self.awaits_ping, silent_ms, missed_ms), CloseReason::PingTimeout),
            (after(true, self.heard_ms, limits.idle_timeout_ms), CloseReason::IdleTimeout),
        ]
    }

    /// When the next ping is due.
    fn ping_at_ms(&self, limits: &Limits) -> Option<u64> {
        let pings = limits.ping_interval_ms > 0 && !self.awaits_ping && !self.stopping;
        pings.then(|| self.pinged_ms.saturating_add(limits.ping_interval_ms))
    }

    fn close(&mut self, reason: CloseReason) -> Action<T> {
        self.end(reason);
        Action::Close(reason)
    }

    /// Nothing will be read or sent any more: gives the memory back.
    fn end(&mut self, reason: CloseReason) {
        self.ended = Some(reason);
        self.reader.stop();
    }
}
