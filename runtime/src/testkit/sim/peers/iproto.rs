//! A simulated peer that speaks iproto, with the state machine of the protocol crate on its side.

use std::time::Duration;

use hioload_protocol::iproto::{
    Action, CloseReason, Connection, Env, Event, Header, HeapMemory, Limits,
};

use super::super::ledger::digest;
use super::{Act, Fate, Line, Speaker};
use crate::Time;
use crate::reactor::sim::Rng;

/// Clocks as of an impatient peer; it takes anything.
const LIMITS: Limits = Limits {
    body_bytes_max: 1 << 30,
    packet_age_ms_max: 0,
    calls_max: 1 << 16,
    requests_max: 1 << 16,
    late_max: 1 << 16,
    late_ms: 0,
    ping_interval_ms: 20_000,
    idle_timeout_ms: 0,
    shutdown_timeout_ms: 10_000,
};

/// What a peer of an iproto listener does.
pub trait Caller: 'static {
    /// It may call or say something. Called when the connection stands, after the time of
    /// [`Act::Again`], and when something arrived.
    fn act(&mut self, wire: &mut IprotoWire<'_>) -> Act;

    /// A call that was made with this token has ended; `None`: without a response.
    fn answered(&mut self, wire: &mut IprotoWire<'_>, token: u64, body: Option<&[u8]>);

    /// The server asks. `None` leaves it without an answer.
    fn asked(&mut self, wire: &mut IprotoWire<'_>, msg: u32, body: &[u8]) -> Option<Vec<u8>> {
        let _ = body;
        wire.fail(&format!("it was asked {msg}, which no server of this simulation asks"));
        None
    }

    /// The server says something.
    fn told(&mut self, wire: &mut IprotoWire<'_>, msg: u32, body: &[u8]) {
        let _ = (wire, msg, body);
    }

    /// The connection is over; `clean` if both sides had shut it down.
    fn ended(&mut self, wire: &mut IprotoWire<'_>, clean: bool) {
        let _ = (wire, clean);
    }
}

/// The connection of a [`Caller`].
#[derive(Debug)]
pub struct IprotoWire<'a> {
    line: &'a mut Line,
    connection: &'a mut Connection<Vec<u8>, u64>,
}

impl IprotoWire<'_> {
    /// Calls; [`Caller::answered`] gets the token back. `false`: the connection is being shut down.
    pub fn call(&mut self, msg: u32, body: &[u8], timeout: Duration, token: u64) -> bool {
        let deadline = self.line.now().after(timeout).as_millis();
        let Ok(header) = self.connection.call(msg, body.len(), deadline, token, &LIMITS) else {
            return false;
        };
        self.line.ledger.borrow_mut().sent(self.line.index, digest(u64::from(msg) << 1 | 1, body));
        push(self.line, header, body);
        true
    }

    /// Says something that wants no answer. `false`: the connection is being shut down.
    pub fn notify(&mut self, msg: u32, body: &[u8]) -> bool {
        let Ok(header) = self.connection.notify(msg, body.len()) else { return false };
        self.line.ledger.borrow_mut().sent(self.line.index, digest(u64::from(msg) << 1, body));
        push(self.line, header, body);
        true
    }

    /// Calls that wait for their responses.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.connection.pending()
    }

    /// The randomness of this peer.
    pub const fn rng(&mut self) -> &mut Rng {
        &mut self.line.rng
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.line.now()
    }

    /// The run has failed, for this reason.
    pub fn fail(&mut self, why: &str) {
        self.line.problem(why);
    }
}

fn push(line: &mut Line, header: Header, body: &[u8]) {
    line.outgoing.extend(header.encode());
    line.outgoing.extend(body);
}

pub(in super::super) struct IprotoSpeaker {
    caller: Box<dyn Caller>,
    connection: Connection<Vec<u8>, u64>,
}

impl IprotoSpeaker {
    pub(in super::super) fn new(caller: Box<dyn Caller>) -> Self {
        Self { caller, connection: Connection::new(0) }
    }

    fn event(&mut self, line: &mut Line, event: Event<Vec<u8>, u64>, input: &[u8]) {
        let connection = &mut self.connection;
        match event {
            Event::Request { to, body } => {
                let mut wire = IprotoWire { line, connection };
                let answer = self.caller.asked(&mut wire, to.msg(), body.bytes(input));
                match answer {
                    Some(answer) => {
                        if let Ok(header) = self.connection.reply(to, answer.len()) {
                            push(line, header, &answer);
                        }
                    }
                    None => self.connection.discard(to),
                }
            }
            Event::Notify { msg, body } => {
                self.caller.told(&mut IprotoWire { line, connection }, msg, body.bytes(input));
            }
            Event::Response { token, body, .. } => {
                let body = Some(body.bytes(input));
                self.caller.answered(&mut IprotoWire { line, connection }, token, body);
            }
            Event::Send(header) => push(line, header, &[]),
            Event::Shutdown => line.stop_acting(),
        }
    }
}

impl Speaker for IprotoSpeaker {
    fn connected(&mut self, line: &mut Line) {
        self.connection = Connection::new(line.now_ms());
        line.act_soon();
    }

    fn received(&mut self, line: &mut Line, bytes: &mut Vec<u8>) -> bool {
        let input = std::mem::take(bytes);
        let mut at = 0;
        let mut progress = self.connection.is_mid_packet();
        loop {
            let mut env = Env { limits: &LIMITS, memory: &mut HeapMemory, now_ms: line.now_ms() };
            match self.connection.read(&input, &mut at, &mut env) {
                Ok(Some(event)) => {
                    progress |= !matches!(event, Event::Send(_));
                    self.event(line, event, &input);
                }
                Ok(None) => return progress || self.connection.is_mid_packet(),
                Err(broken) => {
                    line.problem(&format!("the server broke the rules: {broken}"));
                    return false;
                }
            }
        }
    }

    fn act(&mut self, line: &mut Line) -> Act {
        self.caller.act(&mut IprotoWire { line, connection: &mut self.connection })
    }

    /// A header that claims more than anybody takes.
    fn break_rules(&mut self, line: &mut Line) {
        push(line, Header { msg: 1, len: u32::MAX, sync: 1 }, &[7; 20]);
    }

    fn close(&mut self, line: &mut Line) {
        self.connection.shutdown(line.now_ms());
    }

    fn poll(&mut self, line: &mut Line) -> Option<Time> {
        while let Some(action) = self.connection.poll(line.now_ms(), &LIMITS) {
            match action {
                Action::Send(header) => push(line, header, &[]),
                Action::TimedOut(token) => {
                    let mut wire = IprotoWire { line, connection: &mut self.connection };
                    self.caller.answered(&mut wire, token, None);
                    line.act_soon();
                }
                Action::Close(reason) => {
                    if reason == CloseReason::Finished && line.fate == Fate::Honest {
                        line.ledger.borrow_mut().confirmed(line.index);
                    }
                    line.finish();
                }
            }
        }
        let next_ms = self.connection.next_deadline_ms(&LIMITS)?;
        Some(Time::from_nanos(next_ms.saturating_mul(1_000_000)))
    }

    fn was_told(&self) -> bool {
        self.connection.close_reason() == Some(CloseReason::Finished)
    }

    fn ended(&mut self, line: &mut Line, clean: bool) {
        let unsolicited = self.connection.stats().unsolicited;
        if unsolicited > 0 {
            line.problem(&format!("it got {unsolicited} packets that nobody asked for"));
        }
        let finished = self.connection.close_reason() == Some(CloseReason::Finished);
        self.connection.closed();
        while let Some(token) = self.connection.take_call() {
            let mut wire = IprotoWire { line, connection: &mut self.connection };
            self.caller.answered(&mut wire, token, None);
        }
        let mut wire = IprotoWire { line, connection: &mut self.connection };
        self.caller.ended(&mut wire, clean && finished);
    }
}
