//! The few system calls beside the reactors': listening sockets, signals, limits, affinity,
//! randomness.
//!
//! Comes in: what the control thread wants of the system before, while and after the shards run.
//! Goes out: sockets, signals, and errors that say what to do. Nothing here is on the way of the
//! data.

#[cfg(target_os = "linux")]
pub(crate) mod affinity;
#[cfg(target_os = "linux")]
pub mod limits;
#[cfg(target_os = "linux")]
pub mod listen;
#[cfg(target_os = "linux")]
pub mod signals;

use std::io;

/// 32 bytes that nobody can foretell, to seed a generator with.
///
/// # Errors
/// The system has none to give.
pub fn entropy() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
