//! Whom the load is for: a URL, and the address behind it.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long one of several addresses is given to accept.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    WebSocket,
    Iproto,
    Tcp,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "ws",
            Self::Iproto => "iproto",
            Self::Tcp => "tcp",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As it was given.
    pub(crate) url: String,
    pub(crate) scheme: Scheme,
    /// The host, with brackets if it is an IPv6 address, and the port if it was given.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    port: u16,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            "a URL is ws://HOST:PORT/PATH, iproto://HOST:PORT or tcp://HOST:PORT".to_owned()
        })?;
        let scheme = match scheme {
            "ws" => Scheme::WebSocket,
            "iproto" => Scheme::Iproto,
            "tcp" => Scheme::Tcp,
            "wss" | "https" => {
                return Err(format!("{scheme}:// needs TLS, which load does not speak yet"));
            }
            _ => return Err(format!("{scheme}:// is not ws://, iproto:// or tcp://")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("load has no use for a user name in the URL".to_owned());
        }
        if path.contains('#') {
            return Err("a fragment (#) has no place in the URL of a WebSocket".to_owned());
        }
        if scheme != Scheme::WebSocket && !matches!(path, "" | "/") {
            return Err(format!("{}:// takes no path", scheme.name()));
        }
        let (host, port) = split_port(authority);
        let port = match (port, scheme) {
            (Some(port), _) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(format!("{port:?} is not a port: 1 to 65535")),
            },
            (None, Scheme::WebSocket) => 80,
            (None, _) => {
                let scheme = scheme.name();
                return Err(format!("{scheme}:// needs a port: {scheme}://HOST:PORT"));
            }
        };
        if host.is_empty() {
            return Err("the URL names no host".to_owned());
        }
        let path = match path.as_bytes().first() {
            Some(b'/') => path.to_owned(),
            _ => format!("/{path}"),
        };
        Ok(Self { url: url.to_owned(), scheme, authority: authority.to_owned(), path, port })
    }

    /// The address to connect to: the only one that the name has, or the first that accepts.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, String> {
        let (host, _) = split_port(&self.authority);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = (host, self.port).to_socket_addrs();
        let found: Vec<_> =
            found.map_err(|error| format!("the name {host:?} has no address: {error}"))?.collect();
        if let [only] = found[..] {
            return Ok(only);
        }
        let accepts =
            |address: &&SocketAddr| TcpStream::connect_timeout(address, PROBE_TIMEOUT).is_ok();
        found.iter().find(accepts).copied().ok_or_else(|| {
            let all: Vec<_> = found.iter().map(ToString::to_string).collect();
            format!("nothing accepts at {}: does the server run?", all.join(" or "))
        })
    }
}

/// The colons within brackets are those of an IPv6 address.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Scheme, Target};

    #[rstest]
    #[case("ws://a:9001/ws", Scheme::WebSocket, "a:9001", "/ws", 9001)]
    #[case("ws://a", Scheme::WebSocket, "a", "/", 80)]
    #[case("ws://a?room=1", Scheme::WebSocket, "a", "/?room=1", 80)]
    #[case("ws://[::1]:7/x?y", Scheme::WebSocket, "[::1]:7", "/x?y", 7)]
    #[case("ws://[::1]/", Scheme::WebSocket, "[::1]", "/", 80)]
    #[case("tcp://127.0.0.1:9002", Scheme::Tcp, "127.0.0.1:9002", "/", 9002)]
    #[case("iproto://127.0.0.1:3301/", Scheme::Iproto, "127.0.0.1:3301", "/", 3301)]
    fn urls_are_taken_apart(
        #[case] url: &str,
        #[case] scheme: Scheme,
        #[case] authority: &str,
        #[case] path: &str,
        #[case] port: u16,
    ) {
        let target = Target::parse(url).unwrap();
        assert_eq!((target.scheme, target.port), (scheme, port));
        assert_eq!((&target.authority[..], &target.path[..]), (authority, path));
    }

    #[rstest]
    #[case("localhost:9001", "ws://HOST:PORT/PATH")]
    #[case("wss://a", "TLS")]
    #[case("https://a", "TLS")]
    #[case("http://a", "not ws://")]
    #[case("ws://", "no host")]
    #[case("ws://:80", "no host")]
    #[case("ws://a:0/", "not a port")]
    #[case("ws://a:65536/", "not a port")]
    #[case("ws://user@a/", "user name")]
    #[case("ws://a/#b", "fragment")]
    #[case("tcp://a", "needs a port")]
    #[case("tcp://a:1/b", "no path")]
    fn what_is_wrong_with_a_url_is_said(#[case] url: &str, #[case] reason: &str) {
        let error = Target::parse(url).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn an_address_needs_no_name_service() {
        let target = Target::parse("tcp://[::1]:9").unwrap();
        assert_eq!(target.resolve().unwrap(), "[::1]:9".parse().unwrap());
    }
}
