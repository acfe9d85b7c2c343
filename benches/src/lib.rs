//! Measurements of hioload, and what their programs share.

pub mod command_line;
pub mod documents;
pub mod process;
