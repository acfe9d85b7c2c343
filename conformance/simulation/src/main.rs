//! Runs simulated servers, seed by seed, and repeats one that failed.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use hioload::testkit::sim::{Failure, Knob};
use hioload_simulation::explore::{self, Outcome, Plan, Refusals, Run};
use hioload_simulation::scenarios::Scenario;
use serde_json::json;

/// Simulates whole servers in a network where everything goes wrong that may.
///
/// Each seed is one run: its shards, its peers, what goes wrong and when. A seed that fails is
/// printed with the command that repeats it.
#[derive(Parser)]
#[command(name = "simulate", version)]
struct Flags {
    /// How many seeds [default: 1000, or 14 with --lease-failures]
    #[arg(long, conflicts_with = "seed", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    first: u64,
    /// New seeds each time: begins at a number made of the time
    #[arg(long, conflicts_with_all = ["first", "seed"])]
    fresh: bool,
    /// This seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// Runs each seed once for every lease that it asks a pool for, and refuses that one
    #[arg(long, conflicts_with = "seed")]
    lease_failures: bool,
    /// Refuses this lease of the seed and no other, counted from one
    #[arg(long, requires = "seed")]
    lease: Option<u64>,
    /// One scenario for all seeds, instead of one after the other
    #[arg(long, value_parser = scenario)]
    scenario: Option<Scenario>,
    /// Threads [default: one for each CPU]
    #[arg(long)]
    jobs: Option<usize>,
    /// Names each seed before it is run, on standard error
    #[arg(long)]
    verbose: bool,
    /// Prints what happened in the seed
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Prints the scenarios
    #[arg(long)]
    list: bool,
    /// Prints the result as JSON
    #[arg(long)]
    json: bool,
}

fn scenario(name: &str) -> Result<Scenario, String> {
    let names: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name).collect();
    Scenario::named(name)
        .ok_or_else(|| format!("there is no such scenario: take one of {}", names.join(", ")))
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.list {
        for scenario in Scenario::ALL {
            println!("{:<12} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    match flags.seed {
        Some(seed) => {
            let scenario = flags.scenario.unwrap_or_else(|| Scenario::of_seed(seed));
            one(&flags, &Run { scenario, seed, refused_lease: flags.lease })
        }
        None => many(&flags),
    }
}

/// Does one run, twice: it must be the same both times.
fn one(flags: &Flags, run: &Run) -> ExitCode {
    match (run.go(true), run.go(false)) {
        (Ok(report), Ok(again)) if report == again => {
            println!(
                "{run} of {}: passed, {} completions, {} messages, {} leases, {:.3} s of virtual \
                 time, fingerprint {:016x}",
                run.scenario.name,
                report.completions,
                report.messages,
                report.leases,
                report.virtual_time.as_secs_f64(),
                report.fingerprint
            );
            ExitCode::SUCCESS
        }
        (Err(failure), Err(_)) => {
            let lines = if flags.trace { failure.trace.len() } else { 40 };
            print_failure(run, &failure, lines);
            ExitCode::FAILURE
        }
        (first, second) => {
            eprintln!("error: {run} is not the same twice: {first:?} and {second:?}");
            ExitCode::FAILURE
        }
    }
}

fn many(flags: &Flags) -> ExitCode {
    // What panics is run again, with the message.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let seeds = if flags.lease_failures { 2 * Scenario::ALL.len() as u64 } else { 1000 };
    let plan = Plan {
        first: if flags.fresh { fresh() } else { flags.first },
        seeds: flags.seeds.unwrap_or(seeds),
        scenario: flags.scenario,
        names_runs: flags.verbose,
        jobs: flags.jobs.unwrap_or(cpus).max(1),
    };
    let began = Instant::now();
    let is_terminal = std::io::stderr().is_terminal();
    let progress = |done, runs| {
        if is_terminal {
            let rate = done as f64 / began.elapsed().as_secs_f64();
            eprint!("\r{done} of {runs} runs, {rate:.0} a second ");
            let _ = std::io::stderr().flush();
        }
    };
    let (outcome, runs) = if flags.lease_failures {
        let refusals = explore::refuse_leases(&plan, u64::MAX, progress);
        print_refusals(flags, &plan, &refusals, began.elapsed().as_secs_f64());
        (refusals.outcome, refusals.runs)
    } else {
        let outcome = explore::run(&plan, progress);
        print_seeds(flags, &plan, &outcome, began.elapsed().as_secs_f64());
        (outcome, plan.seeds)
    };
    std::panic::set_hook(usual);
    if let Some((run, failure)) = &outcome.failure {
        let again = run.go(true).err();
        print_failure(run, again.as_ref().unwrap_or(failure), 40);
        if flags.fresh {
            eprintln!("this seed is new: what fails may be older than the last change");
        }
        return ExitCode::FAILURE;
    }
    if let Some(gap) = outcome.gap(runs) {
        eprintln!("error: {gap}: run it again with --jobs 1 --verbose --first {}", plan.first);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A number made of the time. Its last 16 bits are free for the seeds that follow.
fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 & 0xffff_ffff_0000
}

fn print_failure(run: &Run, failure: &Failure, lines: usize) {
    let from = failure.trace.len().saturating_sub(lines);
    for line in &failure.trace[from..] {
        eprintln!("{line}");
    }
    let &Run { scenario, seed, refused_lease } = run;
    eprintln!("error: {run} of {}: {}", scenario.name, failure.problem);
    let program = "cargo run --release --locked -p hioload-simulation --";
    let lease = refused_lease.map_or(String::new(), |lease| format!(" --lease {lease}"));
    eprintln!("repeat it: {program} --seed {seed} --scenario {}{lease} --trace", scenario.name);
}

/// Leaves the line of the progress.
fn end_progress() {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
}

fn print_refusals(flags: &Flags, plan: &Plan, refusals: &Refusals, seconds: f64) {
    let leases_of = |scenario: &Scenario| {
        let of = |(run, _): &&(Run, u64)| run.scenario.name == scenario.name;
        refusals.leases.iter().filter(of).map(|(_, leases)| leases).sum::<u64>()
    };
    let runs = refusals.outcome.totals.seeds;
    end_progress();
    if flags.json {
        let leases = Scenario::ALL.iter().map(|scenario| (scenario.name, leases_of(scenario)));
        let json = json!({
            "first": plan.first,
            "seeds": plan.seeds,
            "threads": plan.jobs,
            "seconds": seconds,
            "runs": runs,
            "leases": leases.collect::<BTreeMap<_, _>>(),
            "failure": failure_as_json(&refusals.outcome),
        });
        return println!("{json}");
    }
    println!(
        "{runs} runs of {} seeds from {} on {} threads in {seconds:.1} s, each with one lease \
         refused:",
        plan.seeds, plan.first, plan.jobs,
    );
    for scenario in Scenario::ALL {
        println!("  {:<12} {:>6} leases", scenario.name, leases_of(scenario));
    }
}

fn print_seeds(flags: &Flags, plan: &Plan, outcome: &Outcome, seconds: f64) {
    end_progress();
    if flags.json {
        return println!("{}", as_json(plan, outcome, seconds));
    }
    let totals = &outcome.totals;
    println!(
        "{} seeds from {} on {} threads in {seconds:.1} s: {:.0} a second and thread",
        totals.seeds,
        plan.first,
        plan.jobs,
        rate(plan, outcome, seconds)
    );
    println!(
        "{} completions (median of a seed {}), {} messages, {:.0} s of virtual time: {:.0} times \
         real time",
        totals.completions,
        outcome.median_completions(),
        totals.messages,
        totals.virtual_time.as_secs_f64(),
        totals.virtual_time.as_secs_f64() / seconds / plan.jobs as f64,
    );
    println!("turned in so many of a hundred seeds:");
    for (knob, count) in Knob::ALL.iter().zip(&totals.turned_in) {
        println!("  {:<18} {:5.1}", knob.name(), *count as f64 * 100.0 / totals.seeds as f64);
    }
}

fn rate(plan: &Plan, outcome: &Outcome, seconds: f64) -> f64 {
    outcome.totals.seeds as f64 / seconds / plan.jobs as f64
}

fn as_json(plan: &Plan, outcome: &Outcome, seconds: f64) -> serde_json::Value {
    let totals = &outcome.totals;
    let turned: serde_json::Map<_, _> = Knob::ALL
        .iter()
        .zip(&totals.turned_in)
        .map(|(knob, count)| (knob.name().to_owned(), json!(count)))
        .collect();
    json!({
        "first": plan.first,
        "seeds": totals.seeds,
        "threads": plan.jobs,
        "seconds": seconds,
        "seeds_per_second_and_thread": rate(plan, outcome, seconds),
        "completions": totals.completions,
        "completions_median": outcome.median_completions(),
        "messages": totals.messages,
        "virtual_seconds": totals.virtual_time.as_secs_f64(),
        "seeds_in_which_turned": turned,
        "failure": failure_as_json(outcome),
    })
}

fn failure_as_json(outcome: &Outcome) -> serde_json::Value {
    let Some((run, failure)) = &outcome.failure else { return serde_json::Value::Null };
    json!({
        "seed": run.seed,
        "scenario": run.scenario.name,
        "lease": run.refused_lease,
        "problem": failure.problem,
    })
}
