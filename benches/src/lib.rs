//! Measurements of hioload, and what their programs share.

pub mod builds;
pub mod command_line;
pub mod documents;
pub mod figures;
pub mod machine;
pub mod network;
pub mod process;
pub mod progress;
pub mod server;
