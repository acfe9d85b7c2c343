//! Answers to plain HTTP requests.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::token::{InvalidHeader, check_header, write_header};

/// A complete answer to a plain HTTP request; the connection is closed after it.
///
/// ```
/// use hioload_protocol::http::Response;
///
/// let response = Response::json(200, r#"{"ready":true}"#).header("Cache-Control", "no-store")?;
/// let mut out = Vec::new();
/// response.write_to(&mut out, false);
/// assert_eq!(
///     out,
///     b"HTTP/1.1 200 OK\r\n\
///       Content-Type: application/json\r\n\
///       Cache-Control: no-store\r\n\
///       Content-Length: 14\r\n\
///       Connection: close\r\n\
///       \r\n\
///       {\"ready\":true}"
/// );
/// # Ok::<(), hioload_protocol::http::InvalidHeader>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Vec<u8>,
}

impl Response {
    /// An answer without headers of its own. `status` is 200 to 599; another becomes 500.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let status = if matches!(status, 200..=599) { status } else { 500 };
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// Plain text in UTF-8.
    #[must_use]
    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, body).fixed_header("Content-Type", "text/plain; charset=utf-8")
    }

    /// A page in UTF-8.
    #[must_use]
    pub fn html(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, body).fixed_header("Content-Type", "text/html; charset=utf-8")
    }

    /// JSON.
    #[must_use]
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, body).fixed_header("Content-Type", "application/json")
    }

    /// Adds a header.
    ///
    /// # Errors
    /// It has characters that would change the answer, or is one that frames it.
    pub fn header(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, InvalidHeader> {
        let (name, value) = (name.into(), value.into());
        check_header(&name, &value)?;
        self.headers.push((name.into(), value.into()));
        Ok(self)
    }

    /// Adds a header that is known to be good.
    pub(super) fn fixed_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Appends the bytes of the answer to `out`; without the body if `head_only`, as a HEAD
    /// request asks for (RFC 9110 section 9.3.2).
    pub fn write_to(&self, out: &mut Vec<u8>, head_only: bool) {
        let line = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        out.extend_from_slice(line.as_bytes());
        for (name, value) in &self.headers {
            write_header(out, name, value);
        }
        // RFC 9110 section 8.6: 204 has no length, and it and 304 have no body.
        if self.status != 204 {
            write_header(out, "Content-Length", &format!("{}", self.body.len()));
        }
        // An Upgrade header is valid only together with its token here (RFC 9110 section 7.8).
        let upgrade = self.headers.iter().any(|(name, _)| name == "Upgrade");
        write_header(out, "Connection", if upgrade { "Upgrade, close" } else { "close" });
        out.extend_from_slice(b"\r\n");
        if !head_only && !matches!(self.status, 204 | 304) {
            out.extend_from_slice(&self.body);
        }
    }
}

/// The phrase behind the status, which nobody reads but people (RFC 9112 section 4).
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
