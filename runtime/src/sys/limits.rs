//! Limits of the process that a server runs into.

use std::io;

use crate::config::Config;

/// Descriptors beside connections: listeners, rings, logs, files.
const SPARE_DESCRIPTORS: u64 = 64;

/// Raises the limit of open files to what the system allows this process, and answers with it.
///
/// # Errors
/// The system does not tell it.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole `rlimit` and lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        // SAFETY: `raised` is a whole `rlimit` and lives through the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            return Ok(raised.rlim_cur);
        }
    }
    Ok(limit.rlim_cur)
}

/// Whether there are descriptors for all connections that the configuration allows: if not, a
/// sentence for the operator.
#[must_use]
pub fn descriptors_note(config: &Config, shards: usize, descriptors: u64) -> Option<String> {
    let connections = config.limits.connections_max as u64 * shards as u64;
    let wanted = connections + SPARE_DESCRIPTORS;
    (descriptors < wanted).then(|| {
        format!(
            "{connections} connections are allowed, but only {descriptors} open files: raise \
             `ulimit -n` (LimitNOFILE in systemd) or lower limits.connections_max; accepting \
             pauses where the files end"
        )
    })
}
