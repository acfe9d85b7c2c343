//! The configuration: one TOML file, every key optional, every mistake named with its line.
//!
//! Comes in: the text of a file, or values set in code. Goes out: a [`Config`] in which every key
//! has a value, or a [`ConfigError`] of one sentence: what is wrong, in which line, and what to
//! write instead. Unknown keys are errors, as a misspelt limit is no limit. Nothing here asks the
//! machine anything (see [`place`](crate::place)) and nothing is guessed.
//!
//! Units are in the names: `_ms` milliseconds, `_bytes` bytes. No key can change at run time: a
//! change takes effect when the server is started again.

mod address;
mod check;
mod choice;
mod compression;
mod cpu_list;
mod error;
mod file;
mod sections;
mod value;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

pub use address::ListenAddress;
pub use choice::{
    CompressionMode, HugePagesChoice, ReactorChoice, ShardCount, SlowReader, TierChoice,
};
pub use compression::Compression;
pub use cpu_list::CpuList;
pub(crate) use cpu_list::{format_list, parse_list};
pub use error::{ConfigError, EXIT_CONFIG, Place};
pub use sections::{
    Config, IprotoConfig, LimitsConfig, MemoryConfig, RingConfig, ServerConfig, ShutdownConfig,
    WebSocketConfig,
};

/// The most bytes of a configuration file that are read: far more than all keys need, and a bound
/// for whoever names `/dev/zero`.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or something in it is wrong.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .and_then(|bytes| {
                let fits = bytes as u64 <= FILE_BYTES_MAX;
                fits.then_some(()).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
            })
            .map_err(|source| ConfigError::unreadable(path, source))?;
        Self::from_toml(&text, &path.display().to_string())
    }

    /// Reads and checks TOML. `origin` is what errors call it: a path, or `command line`.
    ///
    /// # Errors
    /// The text is not TOML, or something in it is wrong.
    ///
    /// # Examples
    /// ```
    /// use hioload::config::Config;
    ///
    /// let config = Config::from_toml("[websocket]\nidle_timeout_ms = 60_000", "echo.toml")?;
    /// assert_eq!(config.websocket.idle_timeout_ms, 60_000);
    /// assert_eq!(config.limits.headers_max, 64); // the default
    ///
    /// let error = Config::from_toml("[websocket]\nidle_timeout = 60_000", "echo.toml");
    /// assert_eq!(
    ///     error.unwrap_err().to_string(),
    ///     "echo.toml:2: unknown key `websocket.idle_timeout`: did you mean `idle_timeout_ms`?",
    /// );
    /// # Ok::<(), hioload::config::ConfigError>(())
    /// ```
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        file::read(text, origin)
    }

    /// Checks what was set in code: every range, and every key against the others. A configuration
    /// from a file has passed this already.
    ///
    /// # Errors
    /// Which key is wrong, and what it may be.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check(self).map_err(|finding| finding.at(Place::default()))
    }

    /// The whole configuration as a TOML file with a comment on every key. Reading it again gives
    /// the same configuration.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for (key, value) in Self::KEYS.iter().zip(self.values()) {
            if key.section() != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                section = key.section();
                let _ = writeln!(text, "{gap}[{section}]");
            }
            for line in key.doc {
                let _ = writeln!(text, "#{line}");
            }
            let _ = writeln!(text, "{} = {}", key.name(), value.to_toml());
        }
        text
    }
}
