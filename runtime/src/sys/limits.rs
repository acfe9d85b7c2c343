//! Descriptors: how many the process may have, and how many it will want.

use std::io;

use crate::config::Config;

/// Descriptors of a shard beside its connections: ring, waker, listeners, a reserve.
const SHARD_DESCRIPTORS: u64 = 96;

/// Descriptors of the process beside its shards: standard streams, signals, files of the program.
const PROCESS_DESCRIPTORS: u64 = 64;

/// Raises the limit of descriptors as far as this process may, and says in one sentence if that is
/// too little for `shards` shards with `limits.connections_max` connections each.
#[must_use]
pub fn descriptors(config: &Config, shards: usize) -> Option<String> {
    match raise_descriptors() {
        Ok(limit) => shortage(config, shards, limit),
        Err(error) => Some(format!("the limit of descriptors cannot be read: {error}")),
    }
}

/// What is to be said if the process may have `limit` descriptors.
fn shortage(config: &Config, shards: usize, limit: u64) -> Option<String> {
    let connections = config.limits.connections_max as u64;
    let each = connections.saturating_add(SHARD_DESCRIPTORS);
    let wanted = each.saturating_mul(shards as u64).saturating_add(PROCESS_DESCRIPTORS);
    (limit < wanted).then(|| {
        format!(
            "this process may have {limit} descriptors, but {shards} x `limits.connections_max` \
             ({connections}) need {wanted}, one per connection: raise the hard limit \
             (LimitNOFILE= of systemd, `ulimit -Hn`), or lower the key; without, accepting pauses \
             when they run out"
        )
    })
}

/// Raises the soft limit of descriptors to the hard one if the system lets us, and returns what it
/// is then.
///
/// # Errors
/// The system does not tell the limit.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer for as long as the call takes.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is initialised and outlives the call, which only reads it.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
    // It is refused where the hard limit lies above `fs.nr_open`; the soft one holds then.
    Ok(if result == 0 { raised.rlim_cur } else { limit.rlim_cur })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one_and_stays() {
        let raised = raise_descriptors().unwrap();
        assert!(raised > 0);
        assert_eq!(raise_descriptors().unwrap(), raised);
    }

    #[test]
    fn a_shortage_names_the_key_and_both_figures() {
        let mut config = Config::default();
        config.limits.connections_max = 1000;
        let wanted = 2 * (1000 + SHARD_DESCRIPTORS) + PROCESS_DESCRIPTORS;
        assert_eq!(shortage(&config, 2, wanted), None);
        let text = shortage(&config, 2, wanted - 1).unwrap();
        for part in ["limits.connections_max", &wanted.to_string(), "LimitNOFILE"] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
        assert!(!text.contains('\n'));
    }
}
