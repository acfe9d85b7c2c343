//! What comes of a run, and of many.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::{Knob, Sim, Turned};

/// The variable of the environment that names the one seed that [`explore`] is to run.
pub const SEED_VARIABLE: &str = "HIOLOAD_SEED";

/// A run in which everything was as it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Completions that the reactors of the shards delivered.
    pub completions: u64,
    /// Turns of all shards.
    pub turns: u64,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Messages that handlers were called with; of raw streams, pieces.
    pub messages: u64,
    /// Leases that the pools of the shards were asked for, growing one included: the numbers that
    /// [`Sim::refuse_lease`] counts by.
    pub leases: u64,
    /// Panics of handlers and futures.
    pub panics: u64,
    /// How far the clock went.
    pub virtual_time: Duration,
    /// What went wrong, and how often.
    pub turned: Turned,
    /// A number made of all that happened, in its order: the same for the same seed.
    pub fingerprint: u64,
}

/// A run in which something was not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// What is wrong.
    pub problem: String,
    /// The last things that happened, if the run was [traced](Sim::traced).
    pub trace: Vec<String>,
}

/// Many runs together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Runs.
    pub seeds: u64,
    /// Completions of all of them.
    pub completions: u64,
    /// Messages of all of them.
    pub messages: u64,
    /// The virtual time of all of them.
    pub virtual_time: Duration,
    /// In how many runs each knob was turned, in the order of [`Knob::ALL`].
    pub turned_in: Vec<u64>,
}

impl Totals {
    /// Counts one more run.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.completions += report.completions;
        self.messages += report.messages;
        self.virtual_time += report.virtual_time;
        self.turned_in.resize(Knob::ALL.len(), 0);
        for (count, knob) in self.turned_in.iter_mut().zip(Knob::ALL) {
            *count += u64::from(report.turned.times(*knob) > 0);
        }
    }

    /// Adds the runs of another.
    pub fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.completions += other.completions;
        self.messages += other.messages;
        self.virtual_time += other.virtual_time;
        self.turned_in.resize(Knob::ALL.len(), 0);
        for (count, more) in self.turned_in.iter_mut().zip(&other.turned_in) {
            *count += more;
        }
    }
}

/// Runs a scenario with each of these seeds, up to the first that fails. That one is run once more
/// for its trace. With [`SEED_VARIABLE`] in the environment, only that seed is run.
///
/// # Errors
/// The first run that failed.
///
/// # Examples
/// See the [module](super).
pub fn explore(seeds: Range<u64>, scenario: impl Fn(Sim) -> Sim) -> Result<Totals, Failure> {
    let asked = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = asked.map_or(seeds, |seed| seed..seed + 1);
    let mut totals = Totals::default();
    for seed in seeds {
        match scenario(Sim::seed(seed)).run() {
            Ok(report) => totals.add(&report),
            Err(failure) => {
                let again = scenario(Sim::seed(seed).traced()).run();
                return Err(again.err().unwrap_or(failure));
            }
        }
    }
    Ok(totals)
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        let Self { seed, problem, .. } = self;
        write!(f, "seed {seed}: {problem}. Run it alone with {SEED_VARIABLE}={seed}")
    }
}

impl std::error::Error for Failure {}
