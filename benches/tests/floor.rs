//! The program that measures what the kernel takes of a round trip.

use std::process::Command;

use serde_json::Value;

fn floor(flags: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floor"));
    let output = command.args(flags.split_whitespace()).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_round_trip_takes_its_time() {
    let (code, json, problem) = floor("--host-network --rounds 2 --measure 0.05 --json");
    assert_eq!(code, Some(0), "{problem}");
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    let rounds = json["round_trip_us"].as_array().expect("it has rounds");
    assert_eq!(rounds.len(), 2);
    // Two system calls on either side are never less than a microsecond.
    assert!(rounds.iter().all(|round| round.as_f64().is_some_and(|us| us > 1.0)), "{json}");
}

#[test]
fn one_core_is_not_enough() {
    let (code, _, problem) = floor("--server-core 0 --client-core 0");
    assert_eq!(code, Some(1));
    assert!(problem.starts_with("floor: two different cores"), "{problem}");
}
