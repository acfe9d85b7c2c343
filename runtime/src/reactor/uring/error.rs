//! Why there is no io_uring reactor on this machine, and what to do about it.

use std::io;

use hioload_pools::BLOCK_BYTES_MIN;
use thiserror::Error;

use super::{BUFFERS_MAX, Tier, UringConfig};

/// Why a [`Uring`](super::Uring) could not be made: what failed, the likely cause, what to try.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UringError {
    /// A value of the configuration cannot be.
    #[error("io_uring: {key} = {value} is not possible: {rule}")]
    Configuration {
        /// The field of [`UringConfig`].
        key: &'static str,
        /// What was asked.
        value: usize,
        /// What it must be.
        rule: &'static str,
    },
    /// The kernel has no io_uring at all.
    #[error(
        "io_uring_setup failed ({source}): this kernel has no io_uring; use the epoll reactor, or \
         a kernel from 6.1 on"
    )]
    Absent {
        /// What the system said.
        source: io::Error,
    },
    /// Somebody does not allow it.
    #[error(
        "io_uring_setup was refused ({source}): {cause}; use the epoll reactor, or allow it: in a \
         container with a seccomp profile that has the io_uring calls, on a host with `sysctl \
         kernel.io_uring_disabled=0`"
    )]
    Refused {
        /// Who probably refused.
        cause: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It was refused memory or descriptors.
    #[error(
        "{call} failed for want of resources ({source}): raise the limit of open files (`ulimit \
         -n`), of locked memory (`ulimit -l`) or of the memory cgroup, or lower `entries`"
    )]
    Resources {
        /// The call that failed.
        call: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel is too old.
    #[error(
        "this kernel's io_uring lacks {missing}, which the tier `{tier}` needs; use the epoll \
         reactor{lower}, or a kernel from {since} on"
    )]
    Lacking {
        /// What is not there.
        missing: &'static str,
        /// The tier that was asked.
        tier: Tier,
        /// What else could be used.
        lower: &'static str,
        /// The first kernel that has it.
        since: &'static str,
    },
    /// The pool has no room for the receive buffers.
    #[error(
        "the memory pool has no room for {buffers} receive buffers of {buffer_bytes} bytes: make \
         the pool larger, or the buffers fewer or smaller"
    )]
    Pool {
        /// How many were asked.
        buffers: usize,
        /// How large.
        buffer_bytes: usize,
    },
    /// Something else.
    #[error("{call} failed: {source}")]
    System {
        /// The call that failed.
        call: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl UringError {
    /// What a failed `io_uring_setup` with all our flags means.
    pub(super) fn of_setup(source: io::Error, disabled: Option<u8>) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSYS) => Self::Absent { source },
            Some(libc::EPERM | libc::EACCES) => {
                let cause = match disabled {
                    Some(1) => "kernel.io_uring_disabled is 1 and this process is not privileged",
                    Some(2) => "kernel.io_uring_disabled is 2",
                    _ => "probably by a seccomp filter, as containers have by default",
                };
                Self::Refused { cause, source }
            }
            Some(libc::EINVAL) => Self::Lacking {
                missing: "SINGLE_ISSUER with DEFER_TASKRUN",
                tier: Tier::Base,
                lower: "",
                since: "6.1",
            },
            _ => Self::of_call("io_uring_setup", source),
        }
    }

    /// What another failed call means.
    pub(super) fn of_call(call: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::EAGAIN) => {
                Self::Resources { call, source }
            }
            _ => Self::System { call, source },
        }
    }

    /// Checks what no call would check for us.
    pub(super) fn check(config: &UringConfig) -> Result<(), Self> {
        let refuse = |key, value, rule| Err(Self::Configuration { key, value, rule });
        let UringConfig { entries, buffers, buffer_bytes, sockets_max, .. } = config;
        if !entries.is_power_of_two() || !(8..=8192).contains(entries) {
            return refuse("entries", *entries as usize, "a power of two from 8 to 8192");
        }
        if !buffers.is_power_of_two() || *buffers > BUFFERS_MAX {
            return refuse("buffers", *buffers, "a power of two up to 32768");
        }
        let sizes = BLOCK_BYTES_MIN..=1 << 20;
        if !buffer_bytes.is_power_of_two() || !sizes.contains(buffer_bytes) {
            return refuse("buffer_bytes", *buffer_bytes, "a power of two from 128 to 1048576");
        }
        if *sockets_max == 0 || *sockets_max >= u32::MAX as usize {
            return refuse("sockets_max", *sockets_max, "from 1 to 2^32 - 2");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(errno: i32, disabled: Option<u8>) -> String {
        UringError::of_setup(io::Error::from_raw_os_error(errno), disabled).to_string()
    }

    #[test]
    fn a_refusal_names_who_refused() {
        assert!(text(libc::EPERM, Some(0)).contains("seccomp filter"));
        assert!(text(libc::EPERM, Some(1)).contains("not privileged"));
        assert!(text(libc::EPERM, Some(2)).contains("io_uring_disabled is 2"));
        assert!(text(libc::ENOSYS, None).contains("has no io_uring"));
        assert!(text(libc::EINVAL, None).contains("DEFER_TASKRUN"));
        assert!(text(libc::ENOMEM, None).contains("ulimit -l"));
        assert!(text(libc::EIO, None).contains("io_uring_setup failed"));
    }
}
