//! The face of the runtime: a builder, a running server, and what it says about itself.
//!
//! Comes in: a configuration and the factories of handlers. Goes out: one thread per shard, and a
//! control thread (the caller's) that waits for signals. Nothing here is on the way of the data.

mod backend;
mod builder;
mod error;
mod launch;
mod report;

pub use builder::{Server, ServerBuilder};
pub use error::StartError;
pub use launch::Running;
pub(crate) use launch::start_lone;
pub use report::{Report, ShardReport};
