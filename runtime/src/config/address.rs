//! Where to listen.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// An address to listen on: `127.0.0.1:9001`, `[::1]:9001`, `:9001` (every interface, IPv4 and
/// IPv6) or `unix:/run/echo.sock`.
///
/// ```
/// use hioload::config::ListenAddress;
///
/// let address: ListenAddress = ":9001".parse()?;
/// assert_eq!(address.to_string(), "[::]:9001");
/// assert!("localhost".parse::<ListenAddress>().is_err());
/// # Ok::<(), hioload::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket at a path.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Address { text: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.file_name().is_some() { Ok(Self::Unix(path)) } else { Err(wrong()) };
        }
        let numeric = text.replacen("localhost:", "127.0.0.1:", 1);
        let every = text.strip_prefix(':').map(|port| format!("[::]:{port}"));
        every.unwrap_or(numeric).parse().map(Self::Tcp).map_err(|_| wrong())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

impl From<ListenAddress> for String {
    fn from(address: ListenAddress) -> Self {
        address.to_string()
    }
}
