//! What only some sessions have: a kept request, figures, timers.
//!
//! It lies beside the connections, by their slots, and is made when it is first asked for: a plain
//! session has nothing here, and a bit of its flags says so.

use std::collections::HashMap;
use std::time::Duration;

use hioload_protocol::http::{Head, HeadLimits};
use hioload_protocol::ws::CloseCode;

use super::entry::{Entry, Phase};
use super::paths::Params;
use crate::Time;

/// The most timers that one session has at a time.
pub const TIMERS_MAX: usize = 64;

/// The session has [`TIMERS_MAX`] timers, or is closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has 64 timers, or is closing")]
pub struct TimerRefused;

/// What a session that was opened [with figures](super::Upgrade::with_stats) has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Messages given to the handler.
    pub messages_in: u64,
    /// Bytes of their payloads.
    pub bytes_in: u64,
    /// Messages taken to be sent.
    pub messages_out: u64,
    /// Bytes of their payloads.
    pub bytes_out: u64,
    /// When the session was opened.
    pub opened_at: Time,
    /// When the peer was last heard of, to the millisecond. The time in which nothing is read from
    /// it ([`pause`](super::Session::pause), and peers that do not read) does not count as its
    /// silence: this then moves on by itself.
    pub heard_at: Time,
}

/// The head of the request that opened a session.
#[derive(Debug)]
pub(super) struct Kept {
    head: Box<[u8]>,
    params: Box<[(Box<str>, Box<str>)]>,
}

impl Kept {
    pub(super) fn new(head: &[u8], params: &Params<'_>) -> Self {
        let params = params.iter().map(|(name, value)| (name.into(), value.into()));
        Self { head: head.into(), params: params.collect() }
    }

    pub(super) fn parse(&self, limits: &HeadLimits) -> Option<Head<'_>> {
        Head::parse(&self.head, limits).ok()
    }

    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Timer {
    at_ms: u64,
    token: u64,
}

/// What one session has beside its [`Entry`].
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(super) kept: Option<Box<Kept>>,
    pub(super) subprotocol: Option<Box<str>>,
    /// What the peer wrote into its close frame.
    pub(super) close_reason: Option<Box<str>>,
    pub(super) stats: Option<Box<SessionStats>>,
    deadline: Option<(u64, CloseCode)>,
    /// In the order in which they were set.
    timers: Vec<Timer>,
}

/// The extras of a shard, by the slots of the connections.
#[derive(Debug, Default)]
pub(crate) struct Extras(HashMap<u32, Box<Extra>>);

impl Extras {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, entry: &Entry) -> Option<&Extra> {
        if entry.flags.extra() { self.0.get(&entry.key.index).map(|extra| &**extra) } else { None }
    }

    pub(super) fn get_mut(&mut self, entry: &Entry) -> Option<&mut Extra> {
        if !entry.flags.extra() {
            return None;
        }
        self.0.get_mut(&entry.key.index).map(|extra| &mut **extra)
    }

    /// The extra of a connection, which gets one if it has none.
    pub(super) fn make(&mut self, entry: &mut Entry) -> &mut Extra {
        entry.flags.set_extra(true);
        self.0.entry(entry.key.index).or_default()
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, entry: &mut Entry) {
        if entry.flags.extra() {
            entry.flags.set_extra(false);
            self.0.remove(&entry.key.index);
        }
    }

    /// A message came in.
    pub(super) fn count_in(&mut self, entry: &Entry, bytes: usize) {
        if let Some(stats) = self.get_mut(entry).and_then(|extra| extra.stats.as_mut()) {
            stats.messages_in += 1;
            stats.bytes_in += bytes as u64;
        }
    }

    /// A message is to go out.
    pub(super) fn count_out(&mut self, entry: &Entry, bytes: usize) {
        if let Some(stats) = self.get_mut(entry).and_then(|extra| extra.stats.as_mut()) {
            stats.messages_out += 1;
            stats.bytes_out += bytes as u64;
        }
    }

    pub(super) fn set_timer(
        &mut self,
        entry: &mut Entry,
        at_ms: u64,
        token: u64,
    ) -> Result<(), TimerRefused> {
        let timers = &mut self.make(entry).timers;
        timers.retain(|timer| timer.token != token);
        if timers.len() == TIMERS_MAX {
            return Err(TimerRefused);
        }
        timers.push(Timer { at_ms, token });
        entry.flags.set_unarmed(true);
        Ok(())
    }

    pub(super) fn cancel_timer(&mut self, entry: &Entry, token: u64) -> bool {
        let Some(extra) = self.get_mut(entry) else { return false };
        let before = extra.timers.len();
        extra.timers.retain(|timer| timer.token != token);
        extra.timers.len() < before
    }

    pub(super) fn set_deadline(&mut self, entry: &mut Entry, deadline: Option<(u64, CloseCode)>) {
        if deadline.is_some() || entry.flags.extra() {
            self.make(entry).deadline = deadline;
            entry.flags.set_unarmed(true);
        }
    }

    /// When the first timer or the deadline of an open session is due.
    pub(super) fn due_ms(&self, entry: &Entry) -> Option<u64> {
        let extra = self.get(entry).filter(|_| entry.phase == Phase::Open)?;
        let timers = extra.timers.iter().map(|timer| timer.at_ms);
        timers.chain(extra.deadline.map(|(at_ms, _)| at_ms)).min()
    }

    /// The code with which the session is to be closed by now.
    pub(super) fn overdue(&self, entry: &Entry, now_ms: u64) -> Option<CloseCode> {
        let (at_ms, code) = self.get(entry)?.deadline?;
        (at_ms <= now_ms).then_some(code)
    }

    /// How many timers are due.
    pub(super) fn timers_due(&self, entry: &Entry, now_ms: u64) -> usize {
        let timers = self.get(entry).map_or(&[][..], |extra| &extra.timers);
        timers.iter().filter(|timer| timer.at_ms <= now_ms).count()
    }

    /// Takes out the first timer that is due: the earliest, and of those the one set first.
    pub(super) fn take_timer(&mut self, entry: &Entry, now_ms: u64) -> Option<u64> {
        let timers = &mut self.get_mut(entry)?.timers;
        let due = timers.iter().enumerate().filter(|(_, timer)| timer.at_ms <= now_ms);
        let (index, _) = due.min_by_key(|(index, timer)| (timer.at_ms, *index))?;
        Some(timers.remove(index).token)
    }
}

/// The first tick at which `after` has passed since `now`.
pub(super) fn tick_after(now: Time, after: Duration) -> u64 {
    now.after(after).as_nanos().div_ceil(1_000_000)
}
