//! The only place that knows `httparse`: bytes of one whole head, cut into names and values.

use alloc::vec::Vec;

use httparse::{EMPTY_HEADER, Error, Header, Status};

use super::{HeadLimits, HeadScanner, Refusal};

/// The start line and fields of a head, as they lie in its bytes.
#[derive(Debug)]
pub(super) struct Parsed<'a, Start> {
    pub(super) start: Start,
    pub(super) fields: Vec<(&'a str, &'a str)>,
    /// Of the head in bytes.
    pub(super) len: usize,
}

/// Method and target; the version is HTTP/1.1.
pub(super) type RequestLine<'a> = (&'a str, &'a str);

/// Parses a request. The scanner goes first, because it refuses what `httparse` lets pass.
pub(super) fn request<'a>(
    bytes: &'a [u8],
    limits: &HeadLimits,
) -> Result<Parsed<'a, RequestLine<'a>>, Refusal> {
    let bytes = whole(bytes, limits)?;
    let mut table = [EMPTY_HEADER; HeadLimits::HEADERS_MAX];
    let mut request = httparse::Request::new(&mut table[..limits.fields_max()]);
    match request.parse(bytes) {
        Ok(Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(Refusal::bad("the head does not end where it should")),
        Err(error) => return Err(refusal(error)),
    }
    if request.version != Some(1) {
        return Err(refusal(Error::Version));
    }
    let line = request.method.zip(request.path).ok_or(Refusal::bad("no request line"))?;
    Ok(Parsed { start: line, fields: fields(request.headers)?, len: bytes.len() })
}

/// Parses a response; the start is its status.
pub(super) fn response<'a>(
    bytes: &'a [u8],
    limits: &HeadLimits,
) -> Result<Parsed<'a, u16>, Refusal> {
    let bytes = whole(bytes, limits)?;
    let mut table = [EMPTY_HEADER; HeadLimits::HEADERS_MAX];
    let mut response = httparse::Response::new(&mut table[..limits.fields_max()]);
    match response.parse(bytes) {
        Ok(Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(Refusal::bad("the head does not end where it should")),
        Err(error) => return Err(refusal(error)),
    }
    if response.version != Some(1) {
        return Err(refusal(Error::Version));
    }
    let status = response.code.ok_or(Refusal::bad("no status line"))?;
    Ok(Parsed { start: status, fields: fields(response.headers)?, len: bytes.len() })
}

/// The bytes of the head alone.
fn whole<'a>(bytes: &'a [u8], limits: &HeadLimits) -> Result<&'a [u8], Refusal> {
    let end = HeadScanner::default().find_end(bytes, limits)?;
    end.map(|end| &bytes[..end]).ok_or(Refusal::bad("the head is cut"))
}

/// Values are text here: a byte string with two readings is of no use to anybody.
fn fields<'a>(table: &[Header<'a>]) -> Result<Vec<(&'a str, &'a str)>, Refusal> {
    let text = |field: &Header<'a>| match core::str::from_utf8(field.value) {
        Ok(value) => Ok((field.name, value)),
        Err(_) => Err(Refusal::bad("a header value is not UTF-8")),
    };
    table.iter().map(text).collect()
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::HeaderName => Refusal::bad("a header name is malformed"),
        Error::HeaderValue => Refusal::bad("a header value is malformed"),
        Error::TooManyHeaders => Refusal::TOO_MANY_HEADERS,
        Error::Version => Refusal::fixed(505, "only HTTP/1.1 is spoken here"),
        Error::Status => Refusal::bad("the status line is malformed"),
        Error::Token | Error::NewLine => Refusal::bad("the start line is malformed"),
    }
}
