//! hioload: a thread-per-core, shared-nothing network runtime.

pub mod config;
pub mod place;
pub mod reactor;
pub mod server;
pub mod shard;
#[allow(unsafe_code)]
pub mod sys;
pub mod testkit;
mod time;

pub use time::Time;
