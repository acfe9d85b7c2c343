//! Many runs on all cores: who does which, what they add up to, and the first that fails.
//!
//! A run is a seed, or a seed of which one lease is refused. Runs are handed out one by one, so a
//! slow one keeps nobody waiting. The first failure in the order of time stops everybody; which run
//! it is does not depend on the number of threads only if there is one.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hioload::testkit::sim::{Failure, Knob, Report, Sim, Totals};

use crate::scenarios::Scenario;

/// One run of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What is simulated.
    pub scenario: Scenario,
    /// Everything follows from it.
    pub seed: u64,
    /// The one lease that is refused, zero for none; or memory runs out as the seed wants it.
    pub refused_lease: Option<u64>,
}

impl Run {
    /// Does it.
    ///
    /// # Errors
    /// It failed, or its scenario panicked.
    pub fn go(&self, traced: bool) -> Result<Report, Failure> {
        let &Self { scenario, seed, refused_lease } = self;
        let sim = Sim::seed(seed);
        let sim = if traced { sim.traced() } else { sim };
        let sim = if let Some(lease) = refused_lease { sim.refuse_lease(lease) } else { sim };
        catch_unwind(AssertUnwindSafe(|| scenario.build(sim).run())).unwrap_or_else(|panic| {
            let problem = format!("the scenario panicked: {}", words_of(&*panic));
            Err(Failure { seed, problem, trace: Vec::new() })
        })
    }

    /// As [`go`](Self::go), and the lease that is to be refused must have been asked for.
    fn refuses(&self) -> Result<Report, Failure> {
        let report = self.go(false)?;
        if report.turned.times(Knob::NoMemory) != 1 {
            let problem = "the lease that is to be refused was not asked for: up to it, the run is \
                           not the one without a refusal";
            return Err(Failure {
                seed: self.seed,
                problem: problem.to_owned(),
                trace: Vec::new(),
            });
        }
        Ok(report)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}", self.seed)?;
        self.refused_lease.map_or(Ok(()), |lease| write!(f, " lease {lease}"))
    }
}

/// Which seeds to run.
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
    /// Whether each run is named on standard error before it is done: a bug may end the process.
    pub names_runs: bool,
}

impl Plan {
    fn run(&self, at: u64) -> Run {
        let seed = self.first.wrapping_add(at);
        let scenario = self.scenario.unwrap_or_else(|| Scenario::of_seed(seed));
        Run { scenario, seed, refused_lease: None }
    }
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Outcome {
    /// All of them together.
    pub totals: Totals,
    /// Completions of each, sorted.
    pub completions: Vec<u64>,
    /// The first that failed.
    pub failure: Option<(Run, Failure)>,
    /// What a thread said that panicked outside of its runs: what it had run is lost.
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

    /// Why none failed although not all of them were done.
    #[must_use]
    pub fn gap(&self, runs: u64) -> Option<String> {
        if self.failure.is_some() {
            return None;
        }
        if let Some(words) = &self.thread_lost {
            return Some(format!("a thread panicked, and its runs are lost: {words}"));
        }
        let done = self.totals.seeds;
        (done != runs).then(|| format!("{done} of {runs} runs were done"))
    }

    /// The completions of the seed in the middle.
    #[must_use]
    pub fn median_completions(&self) -> u64 {
        self.completions.get(self.completions.len() / 2).copied().unwrap_or(0)
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
}

/// Runs all seeds of a plan; `progress` is called four times a second with how many runs are done,
/// and of how many.
pub fn run(plan: &Plan, progress: impl Fn(u64, u64) + Sync) -> Outcome {
    run_each(plan, plan.seeds, progress, |at| plan.run(at), |run| run.go(false))
}

/// What came of refusing leases.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Each seed without a refusal, and how many leases that took.
    pub leases: Vec<(Run, u64)>,
    /// How many runs there were to be, each with one refusal.
    pub runs: u64,
    /// What came of them.
    pub outcome: Outcome,
}

/// Runs each seed of a plan again and again, and refuses another lease each time: every one that it
/// asks for if there are no more than `most`, else the first half of so many, and as many of the
/// others, evenly apart.
pub fn refuse_leases(plan: &Plan, most: u64, progress: impl Fn(u64, u64) + Sync) -> Refusals {
    let mut refusals = Refusals::default();
    let mut runs = Vec::new();
    for run in (0..plan.seeds).map(|at| Run { refused_lease: Some(0), ..plan.run(at) }) {
        match run.go(false) {
            Ok(Report { leases, .. }) => {
                refusals.leases.push((run, leases));
                let refused = |lease| Run { refused_lease: Some(lease), ..run };
                runs.extend(chosen(leases, most).map(refused));
            }
            Err(failure) => {
                refusals.outcome.failure = Some((run, failure));
                return refusals;
            }
        }
    }
    refusals.runs = runs.len() as u64;
    let at = |at| runs[at as usize];
    refusals.outcome = run_each(plan, refusals.runs, progress, at, Run::refuses);
    refusals
}

/// So many of these leases: half of them are the first ones, the others lie evenly behind those.
fn chosen(leases: u64, most: u64) -> impl Iterator<Item = u64> {
    let first = if leases <= most { leases } else { most / 2 };
    let rest = leases - first;
    let some = rest.min(most - first);
    (1..=first).chain((0..some).map(move |at| first + 1 + at * rest / some))
}

fn run_each(
    plan: &Plan,
    runs: u64,
    progress: impl Fn(u64, u64) + Sync,
    run_at: impl Fn(u64) -> Run + Sync,
    go: impl Fn(&Run) -> Result<Report, Failure> + Sync,
) -> Outcome {
    let shared = Shared::default();
    let mut outcome = Outcome::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.jobs)
            .map(|_| scope.spawn(|| work(plan, &shared, runs, &run_at, &go)))
            .collect();
        scope.spawn(|| {
            while !shared.is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(250));
                progress(shared.done.load(Ordering::Relaxed), runs);
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
    /// Runs that were handed out.
    taken: AtomicU64,
    done: AtomicU64,
    is_over: AtomicBool,
}

fn work(
    plan: &Plan,
    shared: &Shared,
    runs: u64,
    run_at: &impl Fn(u64) -> Run,
    go: &impl Fn(&Run) -> Result<Report, Failure>,
) -> Outcome {
    let mut outcome = Outcome::default();
    while !shared.is_over.load(Ordering::Relaxed) {
        let taken = shared.taken.fetch_add(1, Ordering::Relaxed);
        if taken >= runs {
            break;
        }
        let run = run_at(taken);
        if plan.names_runs {
            eprintln!("{run}");
        }
        match go(&run) {
            Ok(report) => outcome.add(&report),
            Err(failure) => {
                shared.is_over.store(true, Ordering::Relaxed);
                outcome.failure = Some((run, failure));
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

    const PLAN: Plan = Plan { first: 0, seeds: 4, scenario: None, jobs: 2, names_runs: false };

    #[test]
    fn a_thread_that_panics_is_a_gap() {
        let outcome = run_each(
            &PLAN,
            PLAN.seeds,
            |_done, _runs| (),
            |at| PLAN.run(at),
            |run| {
                assert_ne!(run.seed, 2, "planted");
                run.go(false)
            },
        );
        assert!(outcome.failure.is_none());
        let gap = outcome.gap(PLAN.seeds).expect("two seeds at most were counted");
        assert!(gap.contains("planted"), "{gap}");
    }

    #[test]
    fn seeds_that_were_not_run_are_a_gap() {
        let outcome = run(&PLAN, |_done, _runs| ());
        assert_eq!(outcome.gap(4), None);
        assert_eq!(outcome.gap(5).as_deref(), Some("4 of 5 runs were done"));
    }

    #[test]
    fn a_scenario_that_panics_is_a_failure_with_its_seed() {
        let mut broken = Scenario::ALL[0];
        broken.build = |_sim| panic!("planted");
        let plan = Plan { first: u64::MAX, seeds: 2, scenario: Some(broken), jobs: 1, ..PLAN };
        let (_, failure) = run(&plan, |_done, _runs| ()).failure.expect("it fails");
        assert_eq!(failure.seed, u64::MAX);
        assert!(failure.problem.contains("planted"), "{}", failure.problem);
    }

    #[test]
    fn a_lease_that_is_never_asked_for_is_a_failure() {
        let run = Run { refused_lease: Some(u64::MAX), ..PLAN.run(0) };
        let failure = run.refuses().expect_err("no run takes so many");
        assert!(failure.problem.contains("was not asked for"), "{}", failure.problem);
    }

    #[test]
    fn every_lease_is_chosen_or_the_first_and_some_of_the_others() {
        assert!(chosen(5, 5).eq(1..=5));
        assert!(chosen(9, 4).eq([1, 2, 3, 6]));
        assert_eq!(chosen(0, 4).count(), 0);
        assert_eq!(chosen(10_000, 300).max(), Some(9935));
    }
}
