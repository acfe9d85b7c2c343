//! The few system calls beside the reactors': listening sockets, signals, limits, randomness.
//!
//! Comes in: what the control thread wants of the system before, while and after the shards run.
//! Goes out: sockets, signals, and errors that say what to do. Nothing here is on the way of the
//! data.

#[cfg(target_os = "linux")]
pub mod limits;
#[cfg(target_os = "linux")]
pub mod listen;
#[cfg(target_os = "linux")]
pub mod signals;

use std::hash::{BuildHasher, RandomState};

/// 8 bytes that nobody can foretell, to seed a generator with; not for keys.
///
/// The standard library keys its hashers with randomness of the system (`getrandom(2)` on Linux),
/// so one of them, hashing nothing, is a way to it on every system.
#[must_use]
pub fn entropy() -> u64 {
    RandomState::new().hash_one(())
}
