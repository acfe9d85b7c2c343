//! A request head: parsed once, and refused if it could be read in two ways.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::parse::{self, Parsed};
use super::token::list;
use super::{HeadLimits, Refusal, WebSocketRequest};

/// Fields that must not come twice, because two readers might each believe another one.
const SINGLE: [&str; 6] =
    ["Host", "Origin", "Upgrade", "Content-Length", "Sec-WebSocket-Key", "Sec-WebSocket-Version"];

/// The parsed head of a GET or HEAD request in HTTP/1.1.
///
/// ```
/// use hioload_protocol::http::{Head, HeadLimits};
///
/// let bytes = b"GET /chat%20room?user=J%C3%BCrgen HTTP/1.1\r\nHost: example.com\r\n\r\n";
/// let head = Head::parse(bytes, &HeadLimits::default())?;
/// assert_eq!(head.path(), "/chat%20room");
/// assert_eq!(head.path_decoded().as_deref(), Some("/chat room"));
/// assert_eq!(head.query_param("user").as_deref(), Some("Jürgen"));
/// assert_eq!(head.header("host"), Some("example.com"));
/// assert!(!head.is_upgrade());
/// # Ok::<(), hioload_protocol::http::Refusal>(())
/// ```
#[derive(Clone, Debug)]
pub struct Head<'a> {
    method: &'a str,
    target: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    host: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    len: usize,
}

impl<'a> Head<'a> {
    /// Parses the head at the front of `bytes`; what follows it is left alone.
    ///
    /// # Errors
    /// The head is malformed, incomplete or ambiguous (400), not GET or HEAD (405), has a body
    /// (413), is larger than the limits (431), or not HTTP/1.1 (505).
    pub fn parse(bytes: &'a [u8], limits: &HeadLimits) -> Result<Self, Refusal> {
        let Parsed { start: (method, target), fields, len } = parse::request(bytes, limits)?;
        if !matches!(method, "GET" | "HEAD") {
            return Err(Refusal::fixed(405, "the method is neither GET nor HEAD"));
        }
        let (authority, path, query) = split_target(target)?;
        let mut head = Self { method, target, path, query, host: "", fields, len };
        head.check_framing()?;
        head.host = head.header("Host").ok_or(Refusal::bad("no Host header"))?;
        if !is_authority(head.host) {
            return Err(Refusal::bad("the Host header is malformed"));
        }
        if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(head.host)) {
            return Err(Refusal::bad("the Host header differs from the request target"));
        }
        Ok(head)
    }

    /// `GET` or `HEAD`.
    #[must_use]
    pub const fn method(&self) -> &'a str {
        self.method
    }

    /// The request target as it came.
    #[must_use]
    pub const fn target(&self) -> &'a str {
        self.target
    }

    /// The path as it came: it begins with `/`, and its escapes are not decoded.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// The path with its `%` escapes decoded. `None` if one is malformed, or they do not make
    /// UTF-8 without NUL. An encoded slash becomes a slash: match routes on [`path`](Self::path).
    #[must_use]
    pub fn path_decoded(&self) -> Option<Cow<'a, str>> {
        percent_decoded(self.path, false)
    }

    /// What follows the `?`, as it came.
    #[must_use]
    pub const fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The value of the first parameter `name` of the query (`name=value&...`), with `%` escapes
    /// and `+` decoded; empty if it has no `=`. `None` if there is none, or its escapes are
    /// malformed.
    #[must_use]
    pub fn query_param(&self, name: &str) -> Option<Cow<'a, str>> {
        let pairs = self.query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs
            .into_iter()
            .find(|(key, _)| percent_decoded(key, true).is_some_and(|key| key == name))?;
        percent_decoded(value, true)
    }

    /// All header fields, in their order: name as it came, value without white space around it.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.fields.iter().copied()
    }

    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.header_all(name).next()
    }

    /// All headers of this name, in any case.
    pub fn header_all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The `Host` header: a host, and perhaps a port.
    #[must_use]
    pub const fn host(&self) -> &'a str {
        self.host
    }

    /// The `Origin` header, which browsers send.
    #[must_use]
    pub fn origin(&self) -> Option<&'a str> {
        self.header("Origin")
    }

    /// The length of the head in bytes: what follows is at this offset of the parsed bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.len
    }

    /// Whether the client wants to speak WebSocket: [`websocket`](Self::websocket) says if it may.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.has_token("Upgrade", "websocket") || self.header("Sec-WebSocket-Key").is_some()
    }

    /// Checks the opening handshake of a client (RFC 6455 section 4.2.1).
    ///
    /// # Errors
    /// It is not one (426), of another version (426), HEAD (405), or malformed (400).
    pub fn websocket(&self) -> Result<WebSocketRequest<'_>, Refusal> {
        WebSocketRequest::check(self)
    }

    /// Whether a header that is a list of tokens has this one, in any case.
    pub(super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.header_all(name).flat_map(list).any(|element| element.eq_ignore_ascii_case(token))
    }

    /// Refuses what could hide a second request, or be read in two ways (RFC 9112 sections 6 and
    /// 11.2).
    fn check_framing(&self) -> Result<(), Refusal> {
        for name in SINGLE {
            if self.header_all(name).nth(1).is_some() {
                return Err(Refusal::bad("a header that must be single is repeated"));
            }
        }
        if self.header("Transfer-Encoding").is_some() {
            return Err(Refusal::bad("a request with Transfer-Encoding is not accepted"));
        }
        match self.header("Content-Length") {
            None | Some("0") => Ok(()),
            Some(length) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
                Err(Refusal::fixed(413, "a request with a body is not accepted"))
            }
            Some(_) => Err(Refusal::bad("the Content-Length header is malformed")),
        }
    }
}

/// Authority (of the absolute form only), path and query of a request target (RFC 9112 section
/// 3.2).
fn split_target(target: &str) -> Result<(Option<&str>, &str, Option<&str>), Refusal> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Refusal::bad("the request target has a fragment or is not ASCII"));
    }
    let (authority, rest) = if target.starts_with('/') {
        (None, target)
    } else {
        let rest = strip_scheme(target).ok_or(Refusal::bad("the request target is malformed"))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        (Some(&rest[..end]), &rest[end..])
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    Ok((authority, if path.is_empty() { "/" } else { path }, query))
}

/// What follows `http://` or `https://`, in any case.
fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)).then_some(rest)
}

/// Whether `host` can be a host and a port: nothing that would end it elsewhere for another
/// reader (RFC 9110 section 7.2). Lists and user names are among what is refused.
pub(super) fn is_authority(host: &str) -> bool {
    let host_byte = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'-' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
            || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
    };
    !host.is_empty() && host.bytes().all(host_byte)
}

/// Decodes `%XX`, and `+` as space if `plus`.
fn percent_decoded(text: &str, plus: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (plus && byte == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            b'+' if plus => b' ',
            byte => byte,
        });
    }
    if decoded.contains(&0) {
        return None;
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
