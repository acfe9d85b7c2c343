//! What can be wrong with a configuration, in one sentence each.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// The exit code of a program whose configuration is wrong: `EX_CONFIG` of `sysexits.h`.
pub const EXIT_CONFIG: u8 = 78;

/// A configuration cannot be used. Its text is one sentence: where, what, and what to do; programs
/// print it and exit with [`EXIT_CONFIG`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {advice}", path.display())]
    Unreadable {
        /// The path as it was given.
        path: PathBuf,
        /// Why, and what to do.
        advice: String,
        /// The answer of the system.
        source: io::Error,
    },
    /// The text is not TOML.
    #[error("{place}not valid TOML: {problem}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser met and what it expected.
        problem: String,
    },
    /// A key or a section that does not exist.
    #[error("{place}unknown {what} `{name}`: {hint}")]
    Unknown {
        /// Where.
        place: Place,
        /// `key` or `section`.
        what: &'static str,
        /// The name as it was written.
        name: String,
        /// What was probably meant.
        hint: String,
    },
    /// The value of a key is of the wrong type, out of its range, or does not fit another key.
    #[error("{place}`{key}` {problem}")]
    Value {
        /// Where.
        place: Place,
        /// The key with its section: `limits.headers_max`.
        key: &'static str,
        /// What it must be and what it is.
        problem: String,
    },
    /// A text that is no address or no list of CPUs.
    #[error("{0}")]
    Text(String),
    /// A route of the server is none, or answers what another one answers.
    #[error("{0}")]
    Route(String),
    /// The configuration asks for CPUs or nodes that are not to be had on this machine.
    #[error("{0}")]
    Placement(String),
}

impl ConfigError {
    pub(super) fn unreadable(path: &Path, source: io::Error) -> Self {
        let advice = match source.kind() {
            io::ErrorKind::NotFound => {
                "there is no such file; check the path, which is relative to the working directory"
                    .to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                "this user may not read it; change its owner or its mode".to_owned()
            }
            io::ErrorKind::IsADirectory => "it is a directory; name the file in it".to_owned(),
            io::ErrorKind::InvalidData => "it is not UTF-8 text; save it as UTF-8".to_owned(),
            io::ErrorKind::FileTooLarge => {
                "it is larger than 1 MiB, so it is hardly the right file".to_owned()
            }
            _ => source.to_string(),
        };
        Self::Unreadable { path: path.to_owned(), advice, source }
    }
}

/// A line of a configuration file; nothing, for what was set in code. As text it is the beginning
/// of a sentence: `echo.toml:7: `.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(Option<(String, usize)>);

impl Place {
    /// Line `line` (from 1) of `origin`.
    #[must_use]
    pub fn new(origin: &str, line: usize) -> Self {
        Self(Some((origin.to_owned(), line)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((origin, line)) => write!(f, "{origin}:{line}: "),
            None => Ok(()),
        }
    }
}
