//! The small grammar that all header fields share (RFC 9110 section 5.6).

/// A header name or value that cannot be sent: not a token, control characters in it (CR and LF
/// among them, which would begin another field), or a field that the answer sets itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// The name, or a value that must be one, is not a token.
    #[error("a header name or subprotocol is not a token (RFC 9110 section 5.6.2)")]
    NotAToken,
    /// The value has control characters or white space around it, or is none that this header
    /// can have (a host, a request target, a key).
    #[error("a header value or the request target is malformed")]
    Value,
    /// The field frames the message or belongs to the handshake, so it is set for you.
    #[error("the header is set by the handshake or by the framing of the message itself")]
    Reserved,
}

/// Whether `text` is a token: not empty, of these characters.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// RFC 9110 section 5.6.2, `tchar`.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// The elements of a comma-separated list; empty ones are skipped (RFC 9110 section 5.6.1).
pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(trim).filter(|element| !element.is_empty())
}

/// Without the white space that is allowed around elements and values.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Fields that frame a message or carry the handshake.
const RESERVED: [&str; 10] = [
    "Connection",
    "Content-Length",
    "Transfer-Encoding",
    "Trailer",
    "Upgrade",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
];

/// Whether a field that a user gave may be sent as it is.
pub(super) fn check_header(name: &str, value: &str) -> Result<(), InvalidHeader> {
    if !is_token(name) {
        return Err(InvalidHeader::NotAToken);
    }
    if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Err(InvalidHeader::Reserved);
    }
    check_value(value)
}

/// Whether a value is one line and comes through a parser as it is.
pub(super) fn check_value(value: &str) -> Result<(), InvalidHeader> {
    let control = value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
    if control || trim(value) != value { Err(InvalidHeader::Value) } else { Ok(()) }
}

/// Appends one field.
pub(super) fn write_header(out: &mut alloc::vec::Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}
