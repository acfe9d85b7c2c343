//! The contract of [`Reactor`](hioload::reactor::Reactor): one suite, run on every back end.
//!
//! Each case is a function over a [`Bed`](bed::Bed), which makes reactors, listeners and peers of
//! one rig; `rigs.rs` is the one place that knows the back ends. A rig that this machine does not
//! have fails its cases, unless it is skipped by name: `HIOLOAD_SKIP_REACTORS=uring_base,epoll`.
//! `-- the_counts --nocapture` prints what ran where.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[macro_use]
mod rigs;
mod bed;
mod host;
mod peer;

mod accept;
mod adopt;
mod clock;
mod close;
mod connect;
mod end;
mod into;
mod receive;
mod release;
mod segments;
mod send;
mod starve;
mod wake;

/// The cases of each room.
const ROOMS: &[&[&str]] = &[
    accept::CASES,
    adopt::CASES,
    clock::CASES,
    close::CASES,
    connect::CASES,
    end::CASES,
    into::CASES,
    receive::CASES,
    release::CASES,
    segments::CASES,
    send::CASES,
    starve::CASES,
    wake::CASES,
];

#[test]
fn the_counts() {
    let cases: usize = ROOMS.iter().map(|room| room.len()).sum();
    let mut counts = Vec::new();
    for rig in rigs::NAMES {
        let skipped = if rigs::is_skipped(rig) { " (skipped by name)" } else { "" };
        counts.push(format!("{rig} {cases}{skipped}"));
    }
    println!("contract: {}", counts.join(", "));
    assert!(cases >= 60, "the contract has {cases} cases: some were lost");
    assert!(rigs::NAMES.iter().any(|rig| !rigs::is_skipped(rig)), "every reactor is skipped");
}
