//! The opening handshake as a client sees it (RFC 6455 sections 4.1 and 4.2.2).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::head::is_authority;
use super::parse::{self, Parsed};
use super::token::{InvalidHeader, check_header, check_value, is_token, list, write_header};
use super::websocket::is_key;
use super::{HeadLimits, Refusal, accept_key};
use crate::deflate::{Agreement, Offer, ResponseFault};

/// What a client asks for.
///
/// ```
/// use hioload_protocol::http::client::{Handshake, encode_key};
/// use hioload_protocol::http::{Acceptance, Head, HeadLimits, write_accept};
///
/// let key = encode_key(*b"the sample nonce"); // 16 random bytes, new for each connection
/// let handshake = Handshake { subprotocols: &["chat"], ..Handshake::new("a.example", "/", &key) };
/// let mut request = Vec::new();
/// handshake.write_request(&mut request)?;
///
/// // The other side.
/// let head = Head::parse(&request, &HeadLimits::default())?;
/// let websocket = head.websocket()?;
/// let mut response = Vec::new();
/// let chat = Acceptance { subprotocol: Some("chat"), ..Acceptance::default() };
/// write_accept(&mut response, websocket.key(), &chat)?;
///
/// let accepted = handshake.check_response(&response, &HeadLimits::default())?;
/// assert_eq!(accepted.subprotocol.as_deref(), Some("chat"));
/// assert_eq!(accepted.len_bytes, response.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Handshake<'a> {
    /// The host, and the port unless it is the scheme's own.
    pub host: &'a str,
    /// Path and query: begins with `/`.
    pub target: &'a str,
    /// `Sec-WebSocket-Key`: see [`encode_key`].
    pub key: &'a str,
    /// The origin, if a browser's behaviour is wanted.
    pub origin: Option<&'a str>,
    /// The subprotocols that we would speak, the best first.
    pub subprotocols: &'a [&'a str],
    /// The compression that is offered (RFC 7692).
    pub deflate: Option<Offer>,
    /// Further headers: cookies, authorization.
    pub headers: &'a [(&'a str, &'a str)],
}

impl<'a> Handshake<'a> {
    /// One that offers nothing further.
    #[must_use]
    pub const fn new(host: &'a str, target: &'a str, key: &'a str) -> Self {
        Self { host, target, key, origin: None, subprotocols: &[], deflate: None, headers: &[] }
    }

    /// Appends the request to `out`.
    ///
    /// # Errors
    /// Something in it would change the request, or is set by it; `out` is then as it was.
    pub fn write_request(&self, out: &mut Vec<u8>) -> Result<(), InvalidHeader> {
        self.check()?;
        for part in ["GET ", self.target, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        write_header(out, "Host", self.host);
        write_header(out, "Upgrade", "websocket");
        write_header(out, "Connection", "Upgrade");
        write_header(out, "Sec-WebSocket-Key", self.key);
        write_header(out, "Sec-WebSocket-Version", "13");
        if let Some(origin) = self.origin {
            write_header(out, "Origin", origin);
        }
        if !self.subprotocols.is_empty() {
            write_header(out, "Sec-WebSocket-Protocol", &self.subprotocols.join(", "));
        }
        if let Some(offer) = self.deflate {
            write_header(out, "Sec-WebSocket-Extensions", &offer.to_string());
        }
        for (name, value) in self.headers {
            write_header(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Checks the head of the response, of which [`HeadScanner`](super::HeadScanner) finds the
    /// end. `bytes` may go on behind it.
    ///
    /// # Errors
    /// The server did not accept, or broke a MUST of sections 4.1 and 4.2.2: close the connection.
    pub fn check_response(
        &self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Accepted, ResponseError> {
        let Parsed { start: status, fields, len } =
            parse::response(bytes, limits).map_err(ResponseError::Malformed)?;
        if status != 101 {
            return Err(ResponseError::Status(status));
        }
        let all = |wanted: &'static str| {
            let named = move |(name, _): &&(&str, &str)| name.eq_ignore_ascii_case(wanted);
            fields.iter().filter(named).map(|(_, value)| *value)
        };
        let has = |name, token: &str| {
            all(name).flat_map(list).any(|element| element.eq_ignore_ascii_case(token))
        };
        if !has("Upgrade", "websocket") {
            return Err(ResponseError::Upgrade);
        }
        if !has("Connection", "Upgrade") {
            return Err(ResponseError::Connection);
        }
        let mut accepts = all("Sec-WebSocket-Accept");
        let expected = accept_key(self.key);
        if accepts.next().map(str::as_bytes) != Some(&expected[..]) || accepts.next().is_some() {
            return Err(ResponseError::Accept);
        }
        let mut extensions = all("Sec-WebSocket-Extensions").flat_map(list);
        let deflate = match (extensions.next(), &self.deflate) {
            (None, _) => None,
            (Some(answer), Some(offer)) => Some(offer.check(answer)?),
            (Some(_), None) => return Err(ResponseFault::Unoffered.into()),
        };
        if extensions.next().is_some() {
            return Err(ResponseFault::Unoffered.into());
        }
        let mut chosen = all("Sec-WebSocket-Protocol");
        let subprotocol = chosen.next();
        let unasked = subprotocol.is_some_and(|name| !self.subprotocols.contains(&name));
        if unasked || chosen.next().is_some() {
            return Err(ResponseError::Subprotocol);
        }
        Ok(Accepted { subprotocol: subprotocol.map(ToString::to_string), deflate, len_bytes: len })
    }

    fn check(&self) -> Result<(), InvalidHeader> {
        let target_is_good = self.target.starts_with('/')
            && self.target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !is_authority(self.host) || !target_is_good || !is_key(self.key) {
            return Err(InvalidHeader::Value);
        }
        check_value(self.origin.unwrap_or_default())?;
        for (at, name) in self.subprotocols.iter().enumerate() {
            // Section 4.1: tokens, and all different.
            if !is_token(name) || self.subprotocols[..at].contains(name) {
                return Err(InvalidHeader::NotAToken);
            }
        }
        self.headers.iter().try_for_each(|(name, value)| {
            if name.eq_ignore_ascii_case("Host") || name.eq_ignore_ascii_case("Origin") {
                return Err(InvalidHeader::Reserved);
            }
            check_header(name, value)
        })
    }
}

/// `Sec-WebSocket-Key` for a nonce: 16 bytes that nobody can guess, new for each connection
/// (RFC 6455 section 4.1).
#[must_use]
pub fn encode_key(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

/// A server that accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The subprotocol that it chose, one of those offered.
    pub subprotocol: Option<String>,
    /// The compression that was agreed on.
    pub deflate: Option<Agreement>,
    /// The length of the head: the first frame begins at this offset.
    pub len_bytes: usize,
}

/// Why a response does not open a WebSocket (RFC 6455 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// It cannot be read, or is larger than the limits.
    #[error("the response is malformed: {}", .0.cause())]
    Malformed(Refusal),
    /// The server answered with another status than 101.
    #[error("the server answered {0} instead of 101")]
    Status(u16),
    /// `Upgrade` is missing, or is not `websocket`.
    #[error("the response does not upgrade to websocket")]
    Upgrade,
    /// `Connection` is missing, or does not have the token `Upgrade`.
    #[error("the Connection header of the response does not have the token Upgrade")]
    Connection,
    /// `Sec-WebSocket-Accept` is missing, repeated, or does not answer our key.
    #[error("the Sec-WebSocket-Accept header of the response does not answer our key")]
    Accept,
    /// An extension that we did not offer, or not in this way.
    #[error(transparent)]
    Extension(#[from] ResponseFault),
    /// A subprotocol that we did not offer, or several.
    #[error("the server chose a subprotocol that was not offered")]
    Subprotocol,
}
