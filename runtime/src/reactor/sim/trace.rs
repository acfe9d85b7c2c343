//! What happened in a simulation: a fingerprint of all of it, and the last lines for a reader.

use std::collections::VecDeque;
use std::fmt;

use crate::Time;

/// Lines that are kept: what led to a failure is among the last ones.
const LINES_MAX: usize = 4000;

/// What happened, in its order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    fingerprint: u64,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    /// From now on keeps lines too.
    pub(crate) fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// Notes something: who, what, and a number that belongs to it.
    pub(crate) fn note(&mut self, now: Time, who: u64, what: &'static str, number: u64) {
        // The length and two bytes tell the words apart; an address would differ from run to run.
        let word =
            what.bytes().fold(what.len() as u64, |sum, byte| sum.rotate_left(7) ^ u64::from(byte));
        for part in [now.as_nanos(), who, word, number] {
            self.fingerprint =
                (self.fingerprint.rotate_left(5) ^ part).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        if let Some(lines) = &mut self.lines {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            let micros = now.as_nanos() / 1000;
            lines.push_back(format!(
                "{:>10}.{:03} ms  {:<10} {what} {number}",
                micros / 1000,
                micros % 1000,
                Who(who).to_string()
            ));
        }
    }

    /// A number that is different if anything was.
    pub(crate) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The lines that were kept.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().map(Vec::from).unwrap_or_default()
    }
}

/// The network itself in a trace.
pub(crate) const NET: u64 = 0;

/// Shard `index` in a trace.
pub(crate) const fn shard(index: usize) -> u64 {
    1 << 32 | index as u64
}

/// Connection `number` of the network in a trace.
pub(crate) const fn connection(number: u64, side: usize) -> u64 {
    (2 + side as u64) << 32 | number
}

/// Peer `index` in a trace.
pub(crate) const fn peer(index: usize) -> u64 {
    4 << 32 | index as u64
}

struct Who(u64);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.0 & 0xffff_ffff;
        match self.0 >> 32 {
            1 => write!(f, "shard {index}"),
            2 => write!(f, "wire {index} <"),
            3 => write!(f, "wire {index} >"),
            4 => write!(f, "peer {index}"),
            _ => write!(f, "net"),
        }
    }
}
