//! The simulated chat: right as it is, and wrong with its bug, which one seed shows again and again.

use std::path::PathBuf;
use std::process::{Command, Output};

fn simulate(flags: &[&str], seed: Option<&str>) -> Output {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.ancestors().nth(2).expect("it is in target/<profile>/deps");
    let path: PathBuf =
        [profile.as_os_str(), "examples".as_ref(), "simulate".as_ref()].iter().collect();
    let mut command = Command::new(path);
    command.args(flags).env_remove("HIOLOAD_SEED");
    if let Some(seed) = seed {
        command.env("HIOLOAD_SEED", seed);
    }
    command.output().expect("`cargo test` has built the example")
}

#[test]
fn the_chat_is_right() {
    let ran = simulate(&["--seeds", "300"], None);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(String::from_utf8_lossy(&ran.stdout).starts_with("300 seeds: "));
}

#[test]
fn its_bug_is_found_and_its_seed_repeats_it() {
    let found = simulate(&["--bug"], None);
    assert_eq!(found.status.code(), Some(1));
    let text = String::from_utf8_lossy(&found.stderr).into_owned();
    let (_, seed) = text.trim_end().rsplit_once("HIOLOAD_SEED=").expect("it says how to repeat it");
    let again = simulate(&["--bug"], Some(seed));
    assert_eq!(String::from_utf8_lossy(&again.stderr), text);
    assert!(simulate(&[], Some(seed)).status.success(), "without the bug the seed passes");
}
