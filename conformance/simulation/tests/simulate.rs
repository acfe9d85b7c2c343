//! What the scenarios reach, and the program as people run it.

use std::process::{Command, Output};

use hioload::testkit::sim::Knob;
use hioload_simulation::explore::{self, Plan};
use hioload_simulation::scenarios::Scenario;

/// Enough for shares of a few percent to be told apart.
const SEEDS: u64 = 1400;

#[test]
fn every_knob_is_turned_in_a_twentieth_of_the_seeds() {
    let plan = Plan { first: 0, seeds: SEEDS, scenario: None, jobs: 2, names_runs: false };
    let outcome = explore::run(&plan, |_done, _runs| ());
    assert!(outcome.failure.is_none(), "{:?}", outcome.failure);
    assert_eq!(outcome.totals.seeds, SEEDS);
    for (knob, count) in Knob::ALL.iter().zip(&outcome.totals.turned_in) {
        let percent = count * 100 / SEEDS;
        println!("{:<18} {percent} %", knob.name());
        assert!(percent >= 5, "{} is turned in {percent} % of the seeds", knob.name());
    }
    let median = outcome.median_completions();
    println!("median completions of a seed: {median}");
    assert!(median >= 500, "half of the seeds have fewer than {median} completions");
}

/// As many refusals of each seed as a test build does in some seconds: the gate tries all of them.
const REFUSALS: u64 = 60;

#[test]
fn whichever_lease_is_refused_the_invariants_hold() {
    let seeds = Scenario::ALL.len() as u64;
    let plan = Plan { first: 0, seeds, scenario: None, jobs: 2, names_runs: false };
    let refusals = explore::refuse_leases(&plan, REFUSALS, |_done, _runs| ());
    assert!(refusals.outcome.failure.is_none(), "{:?}", refusals.outcome.failure);
    assert_eq!(refusals.outcome.gap(refusals.runs), None);
    for (run, leases) in &refusals.leases {
        println!("{:<8} {leases} leases", run.scenario.name);
        assert!(*leases > 0, "{run} of {} takes no lease", run.scenario.name);
    }
}

#[test]
fn a_lease_of_a_seed_can_be_refused_by_its_number() {
    let ran = simulate(&["--seed", "0", "--lease", "3"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(String::from_utf8_lossy(&ran.stdout).starts_with("seed 0 lease 3 of echo: passed"));
    let ran = simulate(&["--lease-failures", "--seeds", "1", "--scenario", "dial", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("it is JSON");
    assert_eq!(json["runs"], json["leases"]["dial"]);
    assert!(json["failure"].is_null());
}

fn simulate(flags: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_simulate");
    Command::new(program).args(flags).output().expect("the program starts")
}

#[test]
fn a_seed_is_the_same_in_every_process() {
    for seed in 0..2 * Scenario::ALL.len() {
        let flags = ["--seed", &seed.to_string()];
        let (one, other) = (simulate(&flags), simulate(&flags));
        assert!(one.status.success(), "{}", String::from_utf8_lossy(&one.stderr));
        assert!(String::from_utf8_lossy(&one.stdout).contains("fingerprint"));
        assert_eq!(one.stdout, other.stdout, "seed {seed}");
    }
}

#[test]
fn different_seeds_differ() {
    let prints = |seed: &str| simulate(&["--scenario", "echo", "--seed", seed]).stdout;
    assert_ne!(prints("1"), prints("2"));
}

#[test]
fn a_scenario_that_is_none_is_a_usage_error() {
    let ran = simulate(&["--scenario", "nothing"]);
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("take one of echo, calls"));
}

#[test]
fn the_result_is_there_as_json() {
    let ran = simulate(&["--seeds", "20", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("it is JSON");
    assert_eq!(json["seeds"], 20);
    assert!(json["failure"].is_null());
}

#[test]
fn no_seeds_at_all_are_a_usage_error() {
    assert_eq!(simulate(&["--seeds", "0"]).status.code(), Some(2));
}
