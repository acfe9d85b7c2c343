//! What is shown while the threads run, and adding up what they counted.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::report::{grouped, human};
use crate::tally::{Tally, histogram};
use crate::worker::{News, Run};

/// Clears the line and goes back to its beginning.
const CLEAR: &str = "\r\x1b[2K";
/// More than this is worth a word.
const BEHIND_MIN: Duration = Duration::from_millis(10);

/// Shows one line, if somebody watches, until all threads are done.
pub(crate) fn follow(run: &Run<'_>, news: &Receiver<News>) -> Tally {
    let mut total = Tally::new();
    let mut second = histogram();
    let mut heard = 0;
    let mut behind = Duration::ZERO;
    // The senders are gone when all threads are.
    for one in news {
        match one {
            News::Done(tally) => total.add(*tally),
            News::Second { latency, behind: late } => {
                second.add(latency).expect("all histograms have the same bounds");
                behind = behind.max(late);
                heard += 1;
                if heard % run.plan.threads == 0 {
                    show(&line(run, &second, behind));
                    second.clear();
                    behind = Duration::ZERO;
                }
            }
        }
    }
    if run.plan.live {
        show("");
    }
    total
}

fn line(run: &Run<'_>, second: &hdrhistogram::Histogram<u64>, behind: Duration) -> String {
    let connections = run.opened.load(Ordering::Relaxed) as u64;
    let mut line =
        format!("{:>4} s  {} connections", run.origin.elapsed().as_secs(), grouped(connections));
    if !second.is_empty() {
        line += &format!(
            "  {} msg/s  p50 {}  p99 {}",
            grouped(second.len()),
            human(second.value_at_quantile(0.5) as f64),
            human(second.value_at_quantile(0.99) as f64)
        );
    }
    if behind > BEHIND_MIN {
        line += &format!("  {} behind the schedule", human(behind.as_nanos() as f64));
    }
    line
}

fn show(line: &str) {
    let mut stderr = io::stderr().lock();
    // Progress that cannot be shown is no reason to stop.
    let _ = write!(stderr, "{CLEAR}{line}").and_then(|()| stderr.flush());
}
