//! The load generator: echo over WebSocket, iproto or bare TCP, measured from outside.
//!
//! What comes in: a URL and flags. What goes out: a report, or one JSON object. Each thread has its
//! own epoll instance and connections, and shares nothing with the others while it sends; what is
//! sent is made beforehand, so that a message costs little more than its two system calls.

mod connection;
mod drive;
mod failure;
mod flags;
mod opening;
mod progress;
mod reader;
mod report;
mod resources;
mod schedule;
mod script;
mod size;
mod summary;
mod tally;
mod target;
mod worker;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use hioload_benches::command_line;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::Failure;
use crate::flags::Flags;
use crate::summary::Summary;
use crate::tally::{Tally, Trouble};
use crate::worker::{Plan, Run, work};

/// Ended by Ctrl-C, with a report.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let flags: Flags = match command_line::parse("load") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    run(&flags).unwrap_or_else(|failure| {
        eprintln!("load: {}", failure.text);
        failure.exit_code()
    })
}

fn run(flags: &Flags) -> Result<ExitCode, Failure> {
    let plan = flags.plan(!flags.quiet && io::stderr().is_terminal())?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends it at once.
        flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&interrupted))
            .and_then(|_| flag::register(signal, Arc::clone(&interrupted)))
            .map_err(|error| format!("signals cannot be handled: {error}"))?;
    }
    let tally = load(&plan, &interrupted)?;
    let summary = Summary::new(&plan, flags.sizes(), &tally, interrupted.load(Ordering::Relaxed));
    let text = if flags.json { summary.json() } else { report::text(&plan, &summary, &tally) };
    writeln!(io::stdout(), "{text}")
        .map_err(|error| format!("the report cannot be written: {error}"))?;
    Ok(if summary.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Runs all threads to their end.
fn load(plan: &Plan, interrupted: &AtomicBool) -> Result<Tally, Failure> {
    let run = Run {
        plan,
        origin: Instant::now(),
        interrupted,
        failed: AtomicBool::new(false),
        opened: AtomicUsize::new(0),
        ready: AtomicUsize::new(0),
        start: OnceLock::new(),
    };
    let (news, heard) = channel();
    let mut tally = thread::scope(|scope| {
        for thread in 0..plan.threads {
            let (news, run) = (news.clone(), &run);
            scope.spawn(move || work(run, thread, &news));
        }
        drop(news);
        progress::follow(&run, &heard)
    });
    match tally.trouble.take() {
        None => Ok(tally),
        Some(Trouble::Other(text)) => Err(Failure::from(text)),
        Some(Trouble::Lost(reason)) => Err(Failure::from(format!(
            "{} closed {} of {} connections after {} messages: {reason}",
            plan.door.address, tally.lost, tally.connections, tally.replies
        ))),
    }
}
