//! What is going on, and how long it will take, on standard error.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// What is done, and when it began.
pub struct Progress {
    start: Instant,
    done: u32,
    total: u32,
    is_terminal: bool,
}

impl Progress {
    /// Of so many measurements.
    pub fn new(total: usize) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self { start: Instant::now(), done: 0, total, is_terminal: stderr().is_terminal() }
    }

    /// Tells of the measurement that starts; a terminal has one line for all.
    pub fn next(&mut self, point: &str, server: &str, round: usize, rounds: usize) {
        let (count, total) = (self.done + 1, self.total);
        let left = match self.left() {
            Some(left) => format!(", about {} left", words(left)),
            None => String::new(),
        };
        let text = format!("[{count}/{total}] {point}, round {round} of {rounds}: {server}{left}");
        if self.is_terminal {
            eprint!("\r\x1b[2K{text}");
        } else {
            eprintln!("{text}");
        }
        self.done = count;
    }

    /// Makes room for a table.
    pub fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[2K");
        }
    }

    /// Takes measurements out that will not be made.
    pub fn skip(&mut self, count: usize) {
        self.total = self.total.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn left(&self) -> Option<Duration> {
        let each = self.start.elapsed().checked_div(self.done)?;
        Some(each * self.total.saturating_sub(self.done))
    }
}

fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..100 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::words;

    #[test]
    fn time_is_told_in_seconds_and_then_in_minutes() {
        assert_eq!(words(Duration::from_secs(99)), "99 s");
        assert_eq!(words(Duration::from_secs(100)), "2 min");
        assert_eq!(words(Duration::from_secs(3600)), "60 min");
    }
}
