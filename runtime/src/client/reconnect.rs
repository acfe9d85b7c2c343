//! How long to wait before a connection is opened again.

use std::time::Duration;

use crate::shard::Closed;

/// A connection that was open for this long is a success: the waits begin at the first one again.
pub(crate) const STABLE_MS: u64 = 10_000;

/// Opens a connection again after it was lost: with waits that grow from one attempt to the next,
/// and are drawn at random below that bound (full jitter), so that the clients of a server that
/// went away do not come back as one.
///
/// It is opened again after
/// * it broke, or the server was silent for too long, or did not read,
/// * a message of the server took longer than `websocket.message_age_ms_max`,
/// * there was no memory for what it sends or receives,
/// * the server closed with 1001, 1011, 1012, 1013 or 1014, or without a code,
/// * an attempt, the first one included, failed with an error that
///   [is temporary](super::ConnectError::is_temporary).
///
/// It is not opened again after we closed it, after the server closed with any other code (1000:
/// done; 1008, 3000 to 4999 and the like: it does not want us), and not after either side broke the
/// protocol, a handler panicked, or `websocket.slow_reader = "close"` ended it.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use hioload::ws::{Connect, Reconnect};
///
/// let reconnect = Reconnect::default().max(Duration::from_secs(5)).attempts(20);
/// let connect = Connect::to("ws://127.0.0.1:9001/ws").reconnect(reconnect);
/// # connect.check()?;
/// # Ok::<(), hioload::ws::ConnectError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reconnect {
    first: Duration,
    max: Duration,
    factor: f64,
    attempts: Option<u32>,
    within: Option<Duration>,
    always: bool,
}

impl Default for Reconnect {
    /// The first wait is at most 250 ms, each further one twice as long, none longer than 30 s,
    /// without an end.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            max: Duration::from_secs(30),
            factor: 2.0,
            attempts: None,
            within: None,
            always: false,
        }
    }
}

impl Reconnect {
    /// The most that the first wait may be.
    #[must_use]
    pub const fn first(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// The most that any wait may be.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// How much longer each wait may be than the one before; less than 1, or no number, is 1.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// The most attempts in a row. A connection that was open for ten seconds begins a new row.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// How long it is tried without a connection in between: no attempt begins later than that
    /// after the first one, or after the connection was lost.
    #[must_use]
    pub const fn within(mut self, within: Duration) -> Self {
        self.within = Some(within);
        self
    }

    /// Whatever the connection ended by, unless we closed it.
    pub(crate) const fn always(mut self) -> Self {
        self.always = true;
        self
    }

    /// Whether there may be another attempt after so many, which would begin so long after the
    /// last connection.
    pub(crate) fn allows(&self, tries: u32, offline_ms: u64) -> bool {
        self.attempts.is_none_or(|most| tries < most)
            && self.within.is_none_or(|within| u128::from(offline_ms) <= within.as_millis())
    }

    /// Whether a connection that ended so is to be opened again.
    pub(crate) const fn applies(&self, reason: Closed) -> bool {
        let by_us = matches!(reason, Closed::ByHandler(_) | Closed::Shutdown);
        is_worth_another(reason) || (self.always && !by_us)
    }

    /// The wait before the attempt that comes after `tries` others, with 64 random bits.
    pub(crate) fn wait_ms(&self, tries: u32, random: u64) -> u64 {
        let factor = if self.factor >= 1.0 { self.factor } else { 1.0 };
        let exponent = i32::try_from(tries).unwrap_or(i32::MAX);
        // A bound below the tick of a shard's timers is no reason to dial without a wait.
        let first = self.first.as_millis().max(1) as f64;
        // Saturates where it would be more than there are milliseconds.
        let bound = (first * factor.powi(exponent)).min(self.max.as_millis().max(1) as f64) as u64;
        // Of 0 to the bound, both included.
        let range = u128::from(bound) + 1;
        ((u128::from(random) * range) >> 64) as u64
    }
}

/// Whether a connection that ended so is to be opened again. The reasons are those of networks and
/// loads, which pass.
const fn is_worth_another(reason: Closed) -> bool {
    match reason {
        Closed::Lost | Closed::Idle | Closed::Stalled | Closed::ByPeer(None) => true,
        Closed::MessageTooOld | Closed::OutOfMemory => true,
        Closed::ByPeer(Some(code)) => matches!(code.get(), 1001 | 1011..=1014),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hioload_protocol::ws::{CloseCode, Violation};
    use rstest::rstest;

    use super::{Reconnect, is_worth_another};
    use crate::shard::Closed;

    #[rstest]
    #[case::lost(Closed::Lost, true)]
    #[case::silent(Closed::Idle, true)]
    #[case::not_read(Closed::Stalled, true)]
    #[case::slow_message(Closed::MessageTooOld, true)]
    #[case::no_memory(Closed::OutOfMemory, true)]
    #[case::no_code(Closed::ByPeer(None), true)]
    #[case::restart(Closed::ByPeer(Some(CloseCode::RESTART)), true)]
    #[case::done(Closed::ByPeer(Some(CloseCode::NORMAL)), false)]
    #[case::unwanted(Closed::ByPeer(Some(CloseCode::POLICY)), false)]
    #[case::ours(Closed::ByHandler(CloseCode::GOING_AWAY), false)]
    #[case::policy(Closed::SlowReader, false)]
    #[case::panic(Closed::Panicked, false)]
    #[case::protocol(Closed::Violation(Violation::TextNotUtf8), false)]
    fn what_passes_is_worth_another_connection(#[case] reason: Closed, #[case] worth: bool) {
        assert_eq!(is_worth_another(reason), worth);
    }

    #[test]
    fn the_bound_of_a_wait_doubles_up_to_the_most() {
        let reconnect = Reconnect::default();
        let longest = |tries| reconnect.wait_ms(tries, u64::MAX);
        assert_eq!([0, 1, 2, 6, 7, 8].map(longest), [250, 500, 1000, 16_000, 30_000, 30_000]);
        assert_eq!(longest(u32::MAX), 30_000);
        assert_eq!(reconnect.wait_ms(3, 0), 0);
        assert_eq!(reconnect.wait_ms(3, u64::MAX / 2), 1000);
    }

    #[test]
    fn below_a_tick_there_is_a_wait_all_the_same() {
        for tiny in [Duration::ZERO, Duration::from_micros(999)] {
            let rule = Reconnect::default().first(tiny);
            assert_eq!([0, 1, 3].map(|tries| rule.wait_ms(tries, u64::MAX)), [1, 2, 8]);
            assert_eq!(rule.max(tiny).wait_ms(9, u64::MAX), 1);
        }
    }

    #[test]
    fn attempts_are_counted() {
        let reconnect = Reconnect::default().attempts(2);
        assert!(reconnect.allows(1, 0) && !reconnect.allows(2, 0));
        assert!(Reconnect::default().allows(u32::MAX, u64::MAX));
    }

    #[test]
    fn time_without_a_connection_is_bounded() {
        let reconnect = Reconnect::default().within(Duration::from_secs(1));
        assert!(reconnect.allows(7, 1000) && !reconnect.allows(0, 1001));
    }

    #[test]
    fn what_we_closed_is_not_opened_again() {
        let always = Reconnect::default().always();
        assert!(always.applies(Closed::Violation(Violation::TextNotUtf8)));
        assert!(always.applies(Closed::Panicked) && always.applies(Closed::SlowReader));
        assert!(!always.applies(Closed::ByHandler(CloseCode::GOING_AWAY)));
        assert!(!Reconnect::default().applies(Closed::Panicked));
    }

    #[test]
    fn a_factor_that_makes_no_sense_is_one() {
        for factor in [f64::NAN, 0.5, -1.0] {
            assert_eq!(Reconnect::default().factor(factor).wait_ms(9, u64::MAX), 250);
        }
        let endless = Reconnect::default().factor(f64::INFINITY).max(Duration::from_millis(7));
        assert_eq!(endless.wait_ms(1, u64::MAX), 7);
    }
}
