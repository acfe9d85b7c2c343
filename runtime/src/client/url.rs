//! `ws://host[:port]/path?query`, and nothing that could be read in two ways.

use std::net::{IpAddr, Ipv6Addr};

use super::error::ConnectError;

/// Who is to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    /// To be looked up.
    Name(String),
}

/// What carries the bytes: the one place where another transport would be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) transport: Transport,
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// For the `Host` header: with the port, unless it is the scheme's own.
    pub(crate) authority: String,
    /// Path and query: begins with `/`.
    pub(crate) path: String,
}

impl Target {
    /// `host:port`, without a scheme.
    pub(crate) fn parse_address(address: &str) -> Result<Self, ConnectError> {
        let wrong = |problem| ConnectError::Address { address: address.to_owned(), problem };
        let (name, port) = split_port(address).map_err(wrong)?;
        let host = host(name).map_err(wrong)?;
        let port = port.ok_or_else(|| wrong("has no port: write HOST:PORT"))?;
        let (authority, path) = (address.to_owned(), String::new());
        Ok(Self { transport: Transport::Tcp, host, port, authority, path })
    }

    pub(super) fn parse(url: &str) -> Result<Self, ConnectError> {
        let wrong = |problem| ConnectError::Url { url: url.to_owned(), problem };
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("has white space or characters outside of ASCII: encode them"));
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(wrong("has no scheme: write ws://HOST:PORT/PATH"));
        };
        let transport = match scheme.to_ascii_lowercase().as_str() {
            "ws" => Transport::Tcp,
            "wss" => return Err(ConnectError::TlsMissing { url: url.to_owned() }),
            _ => return Err(wrong("is of another scheme than ws")),
        };
        if rest.contains('#') {
            return Err(wrong("has a fragment, which is not allowed (RFC 6455 section 3)"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(wrong("has a user name: send an Authorization header instead"));
        }
        let (name, port) = split_port(authority).map_err(wrong)?;
        let host = host(name).map_err(wrong)?;
        Ok(Self {
            transport,
            host,
            port: port.unwrap_or(80),
            authority: match port {
                None | Some(80) => name.to_owned(),
                Some(port) => format!("{name}:{port}"),
            },
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        })
    }
}

/// Cuts `host:port`, where an IPv6 host is in brackets.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let name_end = if authority.starts_with('[') {
        authority.find(']').ok_or("has an IPv6 address without a closing bracket")? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (name, rest) = authority.split_at(name_end);
    let digits = match rest.strip_prefix(':') {
        None if rest.is_empty() => return Ok((name, None)),
        None => return Err("has something between its host and its path"),
        // RFC 3986 section 3.2.3: an empty port is the default one.
        Some("") => return Ok((name, None)),
        Some(digits) => digits,
    };
    let port = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
    match port.flatten() {
        Some(0) | None => Err("has a port that is not in 1 to 65535"),
        port => Ok((name, port)),
    }
}

fn host(name: &str) -> Result<Host, &'static str> {
    if let Some(inner) = name.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("has a malformed IPv6 address")?;
        let address: Ipv6Addr = inner.parse().map_err(|_| "has a malformed IPv6 address")?;
        return Ok(Host::Address(address.into()));
    }
    if let Ok(address) = name.parse() {
        return Ok(Host::Address(address));
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match name {
        "" => Err("has no host"),
        _ if name.len() > 253 || !name.bytes().all(good) => Err("has a malformed host"),
        // What ends in a number is an address to some readers (WHATWG URL section 3.5).
        _ if name.trim_end_matches('.').rsplit('.').next().is_some_and(is_number) => {
            Err("has a malformed IPv4 address")
        }
        _ => Ok(Host::Name(name.to_owned())),
    }
}

fn is_number(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rstest::rstest;

    use super::{Host, Target};
    use crate::ws::ConnectError;

    #[rstest]
    #[case("ws://a.example", "a.example", 80, "/")]
    #[case("WS://a.example/", "a.example", 80, "/")]
    #[case("ws://a.example:80/x", "a.example", 80, "/x")]
    #[case("ws://a.example:", "a.example", 80, "/")]
    #[case("ws://a.example:9001?q=1", "a.example:9001", 9001, "/?q=1")]
    #[case("ws://a.example:65535/p/q?x=/y?z", "a.example:65535", 65535, "/p/q?x=/y?z")]
    fn names_are_taken_apart(
        #[case] url: &str,
        #[case] authority: &str,
        #[case] port: u16,
        #[case] path: &str,
    ) {
        let target = Target::parse(url).expect("it is good");
        assert_eq!(target.host, Host::Name("a.example".to_owned()));
        assert_eq!((&*target.authority, target.port, &*target.path), (authority, port, path));
    }

    #[test]
    fn addresses_need_no_look_up() {
        let v4 = Target::parse("ws://127.0.0.1:9001/ws").expect("it is good");
        assert_eq!(v4.host, Host::Address(Ipv4Addr::LOCALHOST.into()));
        let v6 = Target::parse("ws://[::1]:9001").expect("it is good");
        assert_eq!(v6.host, Host::Address(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(v6.authority, "[::1]:9001");
        assert_eq!(Target::parse("ws://[::1]").expect("it is good").authority, "[::1]");
    }

    #[rstest]
    #[case("", "no scheme")]
    #[case("127.0.0.1:9001", "no scheme")]
    #[case("http://a.example", "another scheme")]
    #[case("ws://", "no host")]
    #[case("ws:///path", "no host")]
    #[case("ws://:80", "no host")]
    #[case("ws://a b", "white space")]
    #[case("ws://a.example/\u{e4}", "ASCII")]
    #[case("ws://a.example/\r\nX: y", "white space")]
    #[case("ws://user@a.example", "user name")]
    #[case("ws://user:pass@a.example", "user name")]
    #[case("ws://a.example/#here", "fragment")]
    #[case("ws://a.example:0", "port")]
    #[case("ws://a.example:65536", "port")]
    #[case("ws://a.example:+1", "port")]
    #[case("ws://a.example:80:80", "port")]
    #[case("ws://::1", "port")]
    #[case("ws://[::1", "bracket")]
    #[case("ws://[::1]x", "between")]
    #[case("ws://[fe80::1%25eth0]", "IPv6")]
    #[case("ws://1.2.3", "IPv4")]
    #[case("ws://1.2.3.256", "IPv4")]
    #[case("ws://a,b", "host")]
    fn what_is_no_url_is_refused(#[case] url: &str, #[case] why: &str) {
        let error = Target::parse(url).expect_err("it is wrong");
        assert!(matches!(error, ConnectError::Url { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn tls_is_not_there_and_says_so() {
        let error = Target::parse("wss://a.example").expect_err("there is no TLS");
        assert!(matches!(error, ConnectError::TlsMissing { .. }), "{error:?}");
        assert!(error.to_string().contains("TLS"), "{error}");
    }
}
