//! Addresses to listen on.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::ConfigError;

/// The longest path of a Unix socket: `sun_path` has 108 bytes, and the last is a zero.
const PATH_BYTES_MAX: usize = 107;

/// Where a server listens.
///
/// As text: `127.0.0.1:9001`, `[::1]:9001`, `:9001` (all interfaces, IPv6 and IPv4), `unix:/path`.
///
/// # Examples
/// ```
/// use hioload::config::ListenAddress;
///
/// let address: ListenAddress = "unix:/run/echo.sock".parse()?;
/// assert_eq!(address, ListenAddress::Unix("/run/echo.sock".into()));
/// assert_eq!(":9001".parse::<ListenAddress>()?.to_string(), "[::]:9001");
/// # Ok::<(), hioload::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP. Port 0 is one that the system chooses; `[::]` takes IPv4 connections too.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                1..=PATH_BYTES_MAX if !path.contains('\0') => Ok(Self::Unix(path.into())),
                _ => Err(ConfigError::Text(format!(
                    "{text:?} is not a Unix socket: write unix: and a path of 1 to \
                     {PATH_BYTES_MAX} bytes"
                ))),
            };
        }
        let all_interfaces = text.strip_prefix(':').and_then(|port| port.parse().ok());
        let tcp = match all_interfaces {
            Some(port) => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
            None => text.parse().ok(),
        };
        tcp.map(Self::Tcp).ok_or_else(|| {
            ConfigError::Text(format!(
                "{text:?} is not an address: write an IP address and a port as in 127.0.0.1:9001 \
                 or [::1]:9001, or :9001 for all interfaces, or unix:/path"
            ))
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
