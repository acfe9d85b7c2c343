//! Why a server did not start, or did not go on.

use std::io;
use std::process::ExitCode;

use crate::config::{ConfigError, EXIT_CONFIG};
use crate::sys::listen::BindError;

/// Why a server could not start, or ended before its time. Each is one sentence that says what was
/// tried, why it failed and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong. Exit code 78.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on. Exit code 78.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A shard could not start: no reactor, no memory, no thread, or a factory panicked.
    #[error("shard {shard} could not start: {reason}")]
    Shard {
        /// Which one.
        shard: u16,
        /// Why, and what to do.
        reason: String,
    },
    /// The system refused something that concerns the whole process.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A shard ended although nobody asked it to.
    #[error("shard {shard} ended: {reason}")]
    Ended {
        /// Which one.
        shard: u16,
        /// Why.
        reason: String,
    },
}

impl StartError {
    /// The code that a program should exit with: 78 if the configuration is to blame (`EX_CONFIG`
    /// of `sysexits.h`), 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Bind(_) => ExitCode::from(EXIT_CONFIG),
            Self::Shard { .. } | Self::System { .. } | Self::Ended { .. } => ExitCode::FAILURE,
        }
    }
}
