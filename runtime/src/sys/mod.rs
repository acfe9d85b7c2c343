//! The system calls that are neither a reactor's nor memory's: listening, signals, limits.
//!
//! The only unsafe code of the runtime outside of the reactors.

pub mod limits;
pub mod listen;
pub mod signals;

/// Eight bytes of randomness from the system, for seeds.
#[must_use]
pub fn entropy() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: `bytes` has the length that is said and lives through the call.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(got, 8, "getrandom never gives less than eight bytes once the system is up");
    u64::from_ne_bytes(bytes)
}
