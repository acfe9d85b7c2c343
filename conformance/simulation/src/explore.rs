//! Many seeds on all cores: who runs which, what they add up to, and the first that fails.
//!
//! Seeds are handed out one by one, so a slow one keeps nobody waiting. The first failure in the
//! order of time stops everybody; which seed it is does not depend on the number of threads only if
//! there is one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    /// What a thread said that panicked outside of its seeds: what it had run is lost.
    thread_lost: Option<String>,
}

impl Outcome {
    fn add(&mut self, report: &Report) {
        self.totals.add(report);
        self.completions.push(report.completions);
    }

    fn merge(&mut self, part: Self) {
        self.totals.merge(&part.totals);
        self.completions.extend(part.completions);
        if self.failure.is_none() {
            self.failure = part.failure;
        }
    }

    /// Why no seed failed and the plan was not carried out all the same.
    #[must_use]
    pub fn gap(&self, plan: &Plan) -> Option<String> {
        if self.failure.is_some() {
            return None;
        }
        if let Some(words) = &self.thread_lost {
            return Some(format!("a thread panicked, and its seeds are lost: {words}"));
        }
        let (ran, seeds) = (self.totals.seeds, plan.seeds);
        (ran != seeds).then(|| format!("{ran} of {seeds} seeds were run"))
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
/// It failed, or its scenario panicked.
pub fn run_seed(scenario: Scenario, seed: u64, traced: bool) -> Result<Report, Failure> {
    let sim = Sim::seed(seed);
    let sim = if traced { sim.traced() } else { sim };
    catch_unwind(AssertUnwindSafe(|| scenario.build(sim).run())).unwrap_or_else(|panic| {
        let problem = format!("the scenario panicked: {}", words_of(&*panic));
        Err(Failure { seed, problem, trace: Vec::new() })
    })
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
}

/// Runs all seeds of a plan; `progress` is called about every second with how many are done.
pub fn run(plan: &Plan, progress: impl Fn(u64) + Sync) -> Outcome {
    run_with(plan, progress, |scenario, seed| run_seed(scenario, seed, false))
}

fn run_with(
    plan: &Plan,
    progress: impl Fn(u64) + Sync,
    run_seed: impl Fn(Scenario, u64) -> Result<Report, Failure> + Sync,
) -> Outcome {
    let shared = Shared::default();
    let mut outcome = Outcome::default();
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..plan.jobs).map(|_| scope.spawn(|| work(plan, &shared, &run_seed))).collect();
        scope.spawn(|| {
            while !shared.is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(250));
                progress(shared.done.load(Ordering::Relaxed));
            }
        });
        for worker in workers {
            match worker.join() {
                Ok(part) => outcome.merge(part),
                Err(panic) => outcome.thread_lost = Some(words_of(&*panic)),
            }
        }
        shared.is_over.store(true, Ordering::Relaxed);
    });
    outcome.completions.sort_unstable();
    outcome
}

/// What the threads share.
#[derive(Default)]
struct Shared {
    /// Seeds that were handed out.
    taken: AtomicU64,
    done: AtomicU64,
    is_over: AtomicBool,
}

fn work(
    plan: &Plan,
    shared: &Shared,
    run_seed: &impl Fn(Scenario, u64) -> Result<Report, Failure>,
) -> Outcome {
    let mut outcome = Outcome::default();
    while !shared.is_over.load(Ordering::Relaxed) {
        let taken = shared.taken.fetch_add(1, Ordering::Relaxed);
        if taken >= plan.seeds {
            break;
        }
        let seed = plan.first.wrapping_add(taken);
        if plan.names_seeds {
            eprintln!("seed {seed}");
        }
        let scenario = plan.scenario.unwrap_or_else(|| Scenario::of_seed(seed));
        match run_seed(scenario, seed) {
            Ok(report) => outcome.add(&report),
            Err(failure) => {
                shared.is_over.store(true, Ordering::Relaxed);
                outcome.failure = Some((scenario, failure));
                break;
            }
        }
        shared.done.fetch_add(1, Ordering::Relaxed);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { first: 0, seeds: 4, scenario: None, jobs: 2, names_seeds: false };

    #[test]
    fn a_thread_that_panics_is_a_gap() {
        let outcome = run_with(
            &PLAN,
            |_done| (),
            |scenario, seed| {
                assert_ne!(seed, 2, "planted");
                run_seed(scenario, seed, false)
            },
        );
        assert!(outcome.failure.is_none());
        let gap = outcome.gap(&PLAN).expect("two seeds at most were counted");
        assert!(gap.contains("planted"), "{gap}");
    }

    #[test]
    fn seeds_that_were_not_run_are_a_gap() {
        let outcome = run(&PLAN, |_done| ());
        assert_eq!(outcome.gap(&PLAN), None);
        let gap = outcome.gap(&Plan { seeds: 5, ..PLAN });
        assert_eq!(gap.as_deref(), Some("4 of 5 seeds were run"));
    }

    #[test]
    fn a_scenario_that_panics_is_a_failure_with_its_seed() {
        let mut broken = Scenario::ALL[0];
        broken.build = |_sim| panic!("planted");
        let plan = Plan { first: u64::MAX, seeds: 2, scenario: Some(broken), jobs: 1, ..PLAN };
        let (_, failure) = run(&plan, |_done| ()).failure.expect("it fails");
        assert_eq!(failure.seed, u64::MAX);
        assert!(failure.problem.contains("planted"), "{}", failure.problem);
    }
}
