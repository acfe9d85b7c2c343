//! A thread of load: its connections, their messages, and when it does what.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hioload_benches::process::{anonymous_bytes, thread_times};
use rustix::time::{ClockId, clock_gettime};

use crate::drive::{Drive, Sending};
use crate::opening::Door;
use crate::schedule::Schedule;
use crate::script::Script;
use crate::tally::{IdleMemory, ServerTime, Tally, Trouble};

/// What is under way at the end is waited for so long.
const DRAIN_NS: u64 = 1_000_000_000;
/// Connections that are first when idle ones are counted, or a tenth of them all.
const FIRST_CONNECTIONS: usize = 300;
/// A connection that waits longer than this for a reply is called silent.
const SILENT_NS: u64 = 1_000_000_000;

/// What is to be done, by all threads together.
pub(crate) struct Plan {
    pub(crate) door: Door,
    pub(crate) script: Script,
    pub(crate) bytes_max: usize,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) in_flight: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Messages per second on a fixed schedule; without it each reply lets the next one go.
    pub(crate) rate: Option<f64>,
    /// Connections per second.
    pub(crate) ramp_up: Option<f64>,
    pub(crate) verify: bool,
    pub(crate) spin: bool,
    pub(crate) idle: bool,
    pub(crate) stall_timeout: Duration,
    pub(crate) server: Option<u32>,
    pub(crate) cpu: Option<usize>,
    /// Whether somebody watches.
    pub(crate) live: bool,
}

/// What the threads of a run have in common.
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) origin: Instant,
    pub(crate) interrupted: &'a AtomicBool,
    /// Whether a thread has failed.
    pub(crate) failed: AtomicBool,
    pub(crate) opened: AtomicUsize,
    /// Threads whose connections are open.
    pub(crate) ready: AtomicUsize,
    /// When all begin, in nanoseconds since the origin.
    pub(crate) start: OnceLock<u64>,
}

impl Run<'_> {
    pub(crate) fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    pub(crate) fn is_over(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }
}

/// What a thread tells while it runs.
pub(crate) enum News {
    /// The last second: latencies in nanoseconds, and how long the schedule is behind.
    Second {
        latency: Histogram<u64>,
        behind: Duration,
    },
    Done(Box<Tally>),
}

/// Processor times when something began.
struct Begin {
    at: u64,
    cpu: Duration,
    idle_ns: u64,
    server: Option<HashMap<u32, Duration>>,
}

/// Runs thread number `thread`, and tells what it counted.
pub(crate) fn work(run: &Run<'_>, thread: usize, news: &Sender<News>) {
    let mut drive = match Drive::new(run, thread, news) {
        Ok(drive) => drive,
        Err(problem) => {
            run.failed.store(true, Ordering::Relaxed);
            let mut tally = Tally::new();
            tally.trouble = Some(Trouble::Other(problem));
            let _ = news.send(News::Done(Box::new(tally)));
            return;
        }
    };
    let done = if run.plan.idle { idle(&mut drive) } else { measure(&mut drive) };
    if let Err(trouble) = done {
        run.failed.store(true, Ordering::Relaxed);
        drive.tally.trouble = Some(trouble);
    }
    // If nobody listens any more, nobody wants to know.
    let _ = news.send(News::Done(Box::new(drive.into_tally())));
}

fn measure(drive: &mut Drive<'_>) -> Result<(), Trouble> {
    let run = drive.run;
    let plan = run.plan;
    drive.open(usize::MAX)?;
    if run.ready.fetch_add(1, Ordering::Relaxed) + 1 == plan.threads {
        let _ = run.start.set(run.now());
    }
    while run.start.get().is_none() && !run.is_over() {
        drive.run_until(run.now() + 1_000_000)?;
    }
    let Some(&start) = run.start.get() else { return Ok(()) };
    drive.sending = match plan.rate {
        None => Sending::Closed { in_flight: plan.in_flight },
        Some(rate) => {
            let connections = drive.connections.len();
            Sending::Open {
                window: plan.in_flight,
                schedule: Schedule::new(start, rate, drive.thread, plan.threads, connections),
            }
        }
    };
    drive.send_all()?;
    drive.run_until(start + plan.warm_up.as_nanos() as u64)?;
    let begin = begin(drive)?;
    drive.run_until(begin.at + plan.duration.as_nanos() as u64)?;
    end(drive, &begin)?;
    drive.sending = Sending::Nothing;
    let deadline = run.now() + DRAIN_NS;
    while plan.rate.is_some() && drive.under_way() > 0 && run.now() < deadline && !run.is_over() {
        drive.run_until((run.now() + 1_000_000).min(deadline))?;
    }
    Ok(())
}

/// Opens connections that do nothing after their first message, and holds them.
fn idle(drive: &mut Drive<'_>) -> Result<(), Trouble> {
    let run = drive.run;
    let plan = run.plan;
    let memory = || plan.server.map_or(Ok(0), anonymous_bytes).map_err(Trouble::Other);
    let before = memory()?;
    drive.sending = Sending::Once;
    let first_connections = FIRST_CONNECTIONS.min(plan.connections.div_ceil(10));
    let begin = begin(drive)?;
    let mut echoed = |connections: usize| {
        drive.open(connections)?;
        while drive.under_way() > 0 && !run.is_over() {
            drive.run_until(run.now() + 1_000_000)?;
        }
        memory()
    };
    let after_first = echoed(first_connections)?;
    let after_all = echoed(usize::MAX)?;
    drive.run_until(run.now() + plan.duration.as_nanos() as u64)?;
    let at_end = memory()?;
    end(drive, &begin)?;
    drive.tally.idle =
        Some(IdleMemory { first_connections, before, after_first, after_all, at_end });
    Ok(())
}

/// What follows is measured.
fn begin(drive: &mut Drive<'_>) -> Result<Begin, Trouble> {
    drive.is_measured = true;
    let server = server_times(drive)?;
    Ok(Begin { at: drive.run.now(), cpu: own_time(), idle_ns: drive.idle_ns, server })
}

/// What follows is not measured any more.
fn end(drive: &mut Drive<'_>, begin: &Begin) -> Result<(), Trouble> {
    drive.is_measured = false;
    let now = drive.run.now();
    let elapsed = Duration::from_nanos(now - begin.at);
    let tally = &mut drive.tally;
    tally.elapsed = elapsed;
    tally.cpu = own_time().saturating_sub(begin.cpu);
    tally.busy = if drive.run.plan.spin {
        let idle = Duration::from_nanos(drive.idle_ns - begin.idle_ns);
        1.0 - idle.as_secs_f64() / elapsed.as_secs_f64()
    } else {
        tally.cpu.as_secs_f64() / elapsed.as_secs_f64()
    };
    tally.late =
        drive.connections.iter().map(|one| one.due.saturating_sub(one.progress.sent)).sum();
    let waits = |since: Option<&u64>| since.is_some_and(|since| since + SILENT_NS < now);
    tally.silent = drive.connections.iter().filter(|one| waits(one.under_way.front())).count();
    if let (Some(before), Some(after)) = (&begin.server, server_times(drive)?) {
        let spent = |(id, time): (&u32, &Duration)| {
            time.saturating_sub(before.get(id).copied().unwrap_or_default())
        };
        let busiest = after.iter().map(spent).max().unwrap_or_default();
        drive.tally.server = Some(ServerTime {
            cpu: after.iter().map(spent).sum(),
            busy: busiest.as_secs_f64() / elapsed.as_secs_f64(),
        });
    }
    Ok(())
}

/// The first thread asks for all.
fn server_times(drive: &Drive<'_>) -> Result<Option<HashMap<u32, Duration>>, Trouble> {
    let Some(server) = drive.run.plan.server.filter(|_| drive.thread == 0) else {
        return Ok(None);
    };
    let times = thread_times(server).map_err(Trouble::Other)?;
    Ok(Some(times.into_iter().collect()))
}

/// The processor time of this thread.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
