//! A connection that any operations are tried on, against a model that keeps everything in plain
//! lists and looks through all of them.

use hioload_protocol::iproto::{
    Action, CloseReason, Header, Limits, PING, Refusal, SHUTDOWN, Violation,
};

use super::iproto::{Seen, Side, packet};

/// Small, so that a script of a few dozen operations reaches them.
fn limits() -> Limits {
    Limits {
        body_bytes_max: 64,
        calls_max: 8,
        requests_max: 5,
        late_max: 4,
        late_ms: 500,
        ping_interval_ms: 1_000,
        idle_timeout_ms: 3_000,
        shutdown_timeout_ms: 400,
        ..Limits::default()
    }
}

/// Two bytes are an operation and its argument.
pub fn run(script: &[u8]) {
    let mut pair = Pair { side: Side::with_limits(limits()), model: Model::default() };
    for operation in script.chunks_exact(2).take(400) {
        pair.step(operation[0] % 16, operation[1]);
        pair.poll();
        assert_eq!(pair.side.connection.pending(), pair.model.waiting.len());
        assert_eq!(pair.side.connection.requests() as usize, pair.side.open.len());
        assert_eq!(pair.side.connection.close_reason(), pair.model.ended);
        assert_eq!(pair.side.deadline_ms(), pair.model.deadline_ms());
    }
    let mut left: Vec<u32> = std::iter::from_fn(|| pair.side.connection.take_call()).collect();
    let mut waiting: Vec<u32> = pair.model.waiting.iter().map(|call| call.token).collect();
    left.sort_unstable();
    waiting.sort_unstable();
    assert_eq!(left, waiting, "no call is lost");
}

#[derive(Clone, Copy, Debug)]
struct Call {
    header: Header,
    /// When it times out; when it is forgotten, if it has.
    at_ms: u64,
    token: u32,
}

impl Call {
    fn is(&self, header: Header) -> bool {
        (self.header.msg, self.header.sync) == (header.msg, header.sync)
    }
}

#[derive(Debug, Default)]
struct Model {
    now_ms: u64,
    waiting: Vec<Call>,
    /// The oldest first.
    late: Vec<Call>,
    heard_ms: u64,
    pinged_ms: u64,
    awaits_ping: bool,
    stopping_ms: Option<u64>,
    sent: bool,
    received: bool,
    open: usize,
    ended: Option<CloseReason>,
    unsolicited: u64,
    late_count: u64,
}

struct Pair {
    side: Side,
    model: Model,
}

impl Pair {
    fn step(&mut self, operation: u8, argument: u8) {
        let pick = usize::from(argument);
        let msg = u32::from(argument % 3);
        match operation {
            0 | 1 => self.call(msg, [10, 100, 2_000, u64::MAX][pick / 3 % 4]),
            2 | 3 if !self.model.waiting.is_empty() => {
                let call = self.model.waiting[pick % self.model.waiting.len()];
                self.receive(call.header, b"response");
            }
            4 if !self.model.late.is_empty() => {
                let call = self.model.late[pick % self.model.late.len()];
                self.receive(call.header, b"late");
            }
            5 | 6 => self.receive(Header { msg, len: 0, sync: u32::from(argument / 3) }, b"ask"),
            7 => self.receive(Header::empty(PING, u32::from(argument % 2)), b"ping"),
            8 if argument < 64 => self.receive(Header::empty(SHUTDOWN, 0), b""),
            8 if argument < 70 => self.receive(Header::empty(1, 1), &[0; 65]),
            9 if self.model.open > 0 => self.reply(pick, argument.is_multiple_of(2)),
            10 if !self.model.waiting.is_empty() => {
                let at = pick % self.model.waiting.len();
                let call = self.model.waiting[at];
                let (now_ms, limits) = (self.side.now_ms, self.side.limits);
                let token = self.side.connection.cancel(&call.header, now_ms, &limits);
                assert_eq!(token, Some(call.token));
                self.model.cancel(at, &limits);
            }
            11 if argument < 32 => {
                self.side.connection.shutdown(self.side.now_ms);
                self.model.stop();
            }
            12 => {
                let ping = self.side.connection.ping(self.side.now_ms).is_some();
                assert_eq!(ping, self.model.ping());
            }
            13 => {
                let sent = self.side.connection.notify(msg, 0);
                let stopped = self.model.is_stopped();
                assert_eq!(
                    sent,
                    if stopped { Err(Refusal::Stopped) } else { Ok(Header::empty(msg, 0)) }
                );
            }
            14 | 15 => {
                self.side.now_ms += 1 << (argument % 12);
                self.model.now_ms = self.side.now_ms;
            }
            _ => {}
        }
    }

    fn call(&mut self, msg: u32, timeout_ms: u64) {
        let (model, at_ms) = (&mut self.model, self.side.now_ms.saturating_add(timeout_ms));
        let made = self.side.call_header(msg, 3, timeout_ms);
        let calls_max = self.side.limits.calls_max;
        if model.is_stopped() {
            assert_eq!(made, Err(Refusal::Stopped));
        } else if model.waiting.len() == calls_max as usize {
            assert_eq!(made, Err(Refusal::TooManyCalls { limit: calls_max }));
        } else {
            let header = made.expect("nothing is in the way");
            assert_eq!((header.msg, header.len), (msg, 3));
            assert_ne!(header.sync, 0);
            let used = model.waiting.iter().chain(&model.late).any(|call| call.is(header));
            assert!(!used, "{header:?} is in use");
            let token = self.side.connection.stats().calls as u32 - 1;
            model.waiting.push(Call { header, at_ms, token });
        }
    }

    fn receive(&mut self, header: Header, body: &[u8]) {
        let expected = self.model.receive(header, body, &self.side.limits);
        let seen = self.side.read(&packet(header.msg, header.sync, body));
        assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
        assert_eq!(self.side.connection.stats().unsolicited, self.model.unsolicited);
        assert_eq!(self.side.connection.stats().late, self.model.late_count);
        assert_eq!(self.side.connection.awaits_ping(), self.model.awaits_ping);
    }

    fn reply(&mut self, pick: usize, replies: bool) {
        let to = self.side.open.remove(pick % self.model.open);
        self.model.open -= 1;
        let expected = Header { msg: to.msg(), len: 2, sync: to.sync() };
        if !replies {
            self.side.connection.discard(to);
        } else if self.model.ended.is_some() {
            let refused = self.side.connection.reply(to, 2).expect_err("it has ended");
            assert_eq!(refused.why, Refusal::Stopped);
            self.side.connection.discard(refused.token);
        } else {
            assert_eq!(self.side.connection.reply(to, 2), Ok(expected));
        }
    }

    fn poll(&mut self) {
        let now_ms = self.side.now_ms;
        let actions = self.side.poll(now_ms);
        let limits = self.side.limits;
        assert_eq!(actions, self.model.poll(&limits));
    }
}

impl Model {
    fn is_stopped(&self) -> bool {
        self.stopping_ms.is_some() || self.ended.is_some()
    }

    fn stop(&mut self) {
        self.stopping_ms.get_or_insert(self.now_ms);
    }

    fn ping(&mut self) -> bool {
        let pings = !self.awaits_ping && !self.is_stopped();
        if pings {
            (self.awaits_ping, self.pinged_ms) = (true, self.now_ms);
        }
        pings
    }

    fn cancel(&mut self, at: usize, limits: &Limits) {
        let call = self.waiting.remove(at);
        if self.late.len() == limits.late_max as usize {
            self.late.remove(0);
        }
        self.late.push(Call { at_ms: self.now_ms + limits.late_ms, ..call });
    }

    fn receive(&mut self, header: Header, body: &[u8], limits: &Limits) -> Option<Seen> {
        let Header { msg, sync, .. } = header;
        self.heard_ms = self.now_ms;
        if self.ended.is_some() {
            return None;
        }
        let failure = if body.len() > limits.body_bytes_max {
            let (len, limit) = (body.len() as u32, limits.body_bytes_max);
            Some(Violation::BodyTooBig { len, limit })
        } else if let Some(at) = self.waiting.iter().position(|call| call.is(header)) {
            return Some(Seen::Response(self.waiting.remove(at).token, body.to_vec()));
        } else if let Some(at) = self.late.iter().position(|call| call.is(header)) {
            self.late.remove(at);
            self.late_count += 1;
            return None;
        } else if msg == PING {
            if sync == 0 && self.awaits_ping {
                self.awaits_ping = false;
                return None;
            }
            return Some(Seen::Send(Header::empty(PING, sync)));
        } else if self.received {
            self.unsolicited += 1;
            return None;
        } else if msg == SHUTDOWN {
            self.received = true;
            let asked = self.stopping_ms.is_some();
            self.stop();
            return (!asked).then_some(Seen::Shutdown);
        } else if sync == 0 {
            return Some(Seen::Notify(msg, body.to_vec()));
        } else if self.open == limits.requests_max as usize {
            Some(Violation::TooManyRequests { limit: limits.requests_max })
        } else {
            None
        };
        if let Some(violation) = failure {
            self.ended = Some(CloseReason::Failed(violation));
            return Some(Seen::Failed(violation));
        }
        self.open += 1;
        Some(Seen::Request(msg, sync, body.to_vec()))
    }

    fn poll(&mut self, limits: &Limits) -> Vec<Action<u32>> {
        let mut actions = Vec::new();
        if self.ended.is_some() {
            return actions;
        }
        self.late.retain(|call| call.at_ms > self.now_ms);
        // The earliest first, and of the same moment the one that was made first.
        let over = |model: &Self| {
            let over =
                model.waiting.iter().enumerate().filter(|(_, call)| call.at_ms <= model.now_ms);
            over.min_by_key(|(_, call)| call.at_ms).map(|(at, call)| (at, call.token))
        };
        while let Some((at, token)) = over(self) {
            self.cancel(at, limits);
            actions.push(Action::TimedOut(token));
        }
        if let Some((_, reason)) = self.ends(limits).into_iter().find(|end| end.0 <= self.now_ms) {
            self.ended = Some(reason);
            actions.push(Action::Close(reason));
            return actions;
        }
        if self.stopping_ms.is_some()
            && !self.sent
            && self.waiting.is_empty()
            && (self.open == 0 || !self.received)
        {
            self.sent = true;
            actions.push(Action::Send(Header::empty(SHUTDOWN, 0)));
        }
        if self.sent && self.received && self.open == 0 {
            self.ended = Some(CloseReason::Finished);
            actions.push(Action::Close(CloseReason::Finished));
        } else if self.pinged_ms + limits.ping_interval_ms <= self.now_ms && self.ping() {
            actions.push(Action::Send(Header::empty(PING, 0)));
        }
        actions
    }

    fn ends(&self, limits: &Limits) -> Vec<(u64, CloseReason)> {
        let mut ends = Vec::new();
        if let Some(stopping_ms) = self.stopping_ms {
            ends.push((stopping_ms + limits.shutdown_timeout_ms, CloseReason::ShutdownTimeout));
        }
        if self.awaits_ping {
            let silent_ms = self.heard_ms.max(self.pinged_ms);
            ends.push((silent_ms + 2 * limits.ping_interval_ms, CloseReason::PingTimeout));
        }
        ends.push((self.heard_ms + limits.idle_timeout_ms, CloseReason::IdleTimeout));
        ends
    }

    fn deadline_ms(&self) -> Option<u64> {
        if self.ended.is_some() {
            return None;
        }
        let mut deadlines: Vec<u64> = self.waiting.iter().map(|call| call.at_ms).collect();
        deadlines.extend(self.ends(&limits()).iter().map(|end| end.0));
        if !self.awaits_ping && !self.is_stopped() {
            deadlines.push(self.pinged_ms + limits().ping_interval_ms);
        }
        deadlines.into_iter().min()
    }
}
