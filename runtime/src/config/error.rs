//! What is wrong with a configuration, in one sentence.

use std::io;
use std::path::PathBuf;

/// A configuration that cannot be used. For exit code [`EXIT_CONFIG`](super::EXIT_CONFIG).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; {}", path.display(), advice(source))]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The text is no TOML, has an unknown key, or a value of another type.
    #[error("{origin}:{line}: {problem}")]
    Text {
        /// The file, or what the text was called.
        origin: String,
        /// From 1.
        line: usize,
        /// What is wrong there, and how to mend it.
        problem: String,
    },
    /// A value that cannot be.
    #[error("{}{key} {problem}", place(origin))]
    Value {
        /// The file and line, where there is one.
        origin: Option<String>,
        /// The key with its table, `limits.headers_max`.
        key: String,
        /// What it must be.
        problem: String,
    },
    /// An address that cannot be understood.
    #[error("`{text}` is no address: write HOST:PORT with a numeric host, :PORT, or unix:/PATH")]
    Address {
        /// What was given.
        text: String,
    },
    /// The CPUs of this machine do not fit what is asked for.
    #[error("{0}")]
    Placement(String),
}

impl ConfigError {
    pub(super) fn value(key: &str, problem: &str) -> Self {
        Self::Value { origin: None, key: key.to_owned(), problem: problem.to_owned() }
    }
}

fn place(origin: &Option<String>) -> String {
    origin.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default()
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "let this user read it",
        _ => "name a text file in TOML",
    }
}
