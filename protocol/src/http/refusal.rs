//! The answer to a request that is not accepted.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::Response;

/// Why a request is not accepted, and the complete answer that says so. The connection is closed
/// after it: who sent one head that we do not understand may have sent a second one behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {cause}")]
pub struct Refusal {
    status: u16,
    cause: Cow<'static, str>,
}

impl Refusal {
    pub(super) const HEAD_TOO_LARGE: Self = Self::fixed(431, "the request head is too large");
    pub(super) const TOO_MANY_HEADERS: Self = Self::fixed(431, "too many header fields");

    /// A refusal with an HTTP status (400 to 599; another becomes 500), and as body one sentence
    /// that names the cause.
    ///
    /// ```
    /// use hioload_protocol::http::Refusal;
    ///
    /// let mut out = Vec::new();
    /// Refusal::new(503, "no room for another connection").write_to(&mut out);
    /// assert!(out.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"));
    /// assert!(out.ends_with(b"\r\n\r\nno room for another connection\n"));
    /// ```
    #[must_use]
    pub fn new(status: u16, cause: impl Into<Cow<'static, str>>) -> Self {
        let status = if matches!(status, 400..=599) { status } else { 500 };
        Self { status, cause: cause.into() }
    }

    pub(super) const fn fixed(status: u16, cause: &'static str) -> Self {
        Self { status, cause: Cow::Borrowed(cause) }
    }

    /// The request is malformed.
    pub(super) const fn bad(cause: &'static str) -> Self {
        Self::fixed(400, cause)
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The sentence in the body.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// The whole answer, which ends the connection. 426 names the version that we speak
    /// (RFC 6455 section 4.4), 405 the methods.
    #[must_use]
    pub fn to_response(&self) -> Response {
        let mut body = Vec::with_capacity(self.cause.len() + 1);
        body.extend_from_slice(self.cause.as_bytes());
        body.push(b'\n');
        let response = Response::text(self.status, body);
        match self.status {
            405 => response.fixed_header("Allow", "GET, HEAD"),
            426 => response
                .fixed_header("Upgrade", "websocket")
                .fixed_header("Sec-WebSocket-Version", "13"),
            _ => response,
        }
    }

    /// Appends the bytes of the whole answer to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.to_response().write_to(out, false);
    }
}
