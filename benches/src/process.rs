//! Processes: which cores they run on, how much time they used, and their memory.

use std::fs;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this thread may use.
///
/// # Errors
/// The kernel does not tell.
pub fn cores() -> Result<Vec<usize>, String> {
    let allowed = sched_getaffinity(None).map_err(|error| error.to_string())?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect())
}

/// Moves this thread, and the threads and processes that it starts from now on, to one core.
///
/// # Errors
/// There is no such core, or it is not allowed.
pub fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    if core < CpuSet::MAX_CPU {
        set.set(core);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("cannot run on core {core}: {error}"))
}

/// The processor time of all threads of a process, to the nanosecond.
///
/// # Errors
/// It is gone, or the kernel does not count.
pub fn cpu_time(process: u32) -> Result<Duration, String> {
    thread_times(process).map(|times| times.iter().map(|(_, time)| time).sum())
}

/// The threads of a process, and the processor time of each, to the nanosecond.
///
/// # Errors
/// It is gone, or the kernel does not count.
pub fn thread_times(process: u32) -> Result<Vec<(u32, Duration)>, String> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.map_err(|error| format!("the server is gone: {error}"))?;
    let mut times = Vec::new();
    for thread in threads.flatten() {
        let Some(id) = thread.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
        // A thread that ended meanwhile has no file any more.
        if let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) {
            let spent = text.split_whitespace().next().and_then(|spent| spent.parse().ok());
            let spent = spent.ok_or("the kernel keeps no schedstat")?;
            times.push((id, Duration::from_nanos(spent)));
        }
    }
    Ok(times)
}

/// The memory that a process has touched and that no file backs (`RssAnon`), in bytes.
///
/// # Errors
/// It is gone, or the kernel does not tell.
pub fn anonymous_bytes(process: u32) -> Result<u64, String> {
    let status = fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.map_err(|error| format!("the server is gone: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| "the kernel does not tell RssAnon".to_owned())
}
