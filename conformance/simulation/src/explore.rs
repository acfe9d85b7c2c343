//! Many seeds on all cores: who runs which, what they add up to, and the first that fails.
//!
//! Seeds are handed out one by one, so a slow one keeps nobody waiting. The first failure in the
//! order of time stops everybody; which seed it is does not depend on the number of threads only if
//! there is one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hioload::testkit::sim::{Failure, Report, Sim, Totals};

use crate::scenarios::Scenario;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// This scenario alone, or each seed its own.
    pub scenario: Option<Scenario>,
    /// Threads.
    pub jobs: usize,
    /// Whether each seed is named on standard error before it is run: a bug may end the process.
    pub names_seeds: bool,
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Outcome {
    /// All of them together.
    pub totals: Totals,
    /// Completions of each, sorted.
    pub completions: Vec<u64>,
    /// The first that failed, with its scenario.
    pub failure: Option<(Scenario, Failure)>,
}

impl Outcome {
    fn add(&mut self, report: &Report) {
        self.totals.add(report);
        self.completions.push(report.completions);
    }

    /// The completions of the seed in the middle.
    #[must_use]
    pub fn median_completions(&self) -> u64 {
        self.completions.get(self.completions.len() / 2).copied().unwrap_or(0)
    }
}

/// Runs one seed.
///
/// # Errors
/// It failed.
pub fn run_seed(scenario: Scenario, seed: u64, traced: bool) -> Result<Report, Failure> {
    let sim = Sim::seed(seed);
    let sim = if traced { sim.traced() } else { sim };
    scenario.build(sim).run()
}

/// Runs all seeds of a plan; `progress` is called about every second with how many are done.
pub fn run(plan: &Plan, progress: impl Fn(u64) + Sync) -> Outcome {
    let next = AtomicU64::new(plan.first);
    let end = plan.first.saturating_add(plan.seeds);
    let is_over = AtomicBool::new(false);
    let shared = Mutex::new(Outcome::default());
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs)
            .map(|_| scope.spawn(|| work(plan, end, &next, &done, &is_over)))
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) && done.load(Ordering::Relaxed) < plan.seeds {
                thread::sleep(Duration::from_millis(250));
                progress(done.load(Ordering::Relaxed));
            }
        });
        for worker in workers {
            let Ok(part) = worker.join() else { continue };
            merge(&shared, part);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let mut outcome = shared.into_inner().unwrap_or_default();
    outcome.completions.sort_unstable();
    outcome
}

fn merge(shared: &Mutex<Outcome>, part: Outcome) {
    let Ok(mut all) = shared.lock() else { return };
    all.totals.merge(&part.totals);
    all.completions.extend(part.completions);
    if all.failure.is_none() {
        all.failure = part.failure;
    }
}

fn work(
    plan: &Plan,
    end: u64,
    next: &AtomicU64,
    done: &AtomicU64,
    is_over: &AtomicBool,
) -> Outcome {
    let mut outcome = Outcome::default();
    while !is_over.load(Ordering::Relaxed) {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        if plan.names_seeds {
            eprintln!("seed {seed}");
        }
        let scenario = plan.scenario.unwrap_or_else(|| Scenario::of_seed(seed));
        match run_seed(scenario, seed, false) {
            Ok(report) => outcome.add(&report),
            Err(failure) => {
                is_over.store(true, Ordering::Relaxed);
                outcome.failure = Some((scenario, failure));
                break;
            }
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    outcome
}
