//! The response that opens a WebSocket (RFC 6455 section 4.2.2).

use alloc::string::ToString;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::token::{InvalidHeader, check_header, is_token, write_header};
use crate::deflate::Agreement;

/// RFC 6455 section 1.3: shows that the server read the key as a WebSocket server does.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Accept` that answers `key`, in base64.
///
/// ```
/// use hioload_protocol::http::accept_key;
///
/// // RFC 6455 section 1.3
/// assert_eq!(&accept_key("dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
#[must_use]
pub fn accept_key(key: &str) -> [u8; 28] {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(hash.finalize(), &mut accept);
    assert_eq!(written, Ok(28), "20 bytes are 28 characters of base64");
    accept
}

/// What a server says when it accepts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acceptance<'a> {
    /// The subprotocol that it chose.
    pub subprotocol: Option<&'a str>,
    /// What was agreed about compression.
    pub deflate: Option<Agreement>,
    /// Further headers: cookies, for example.
    pub headers: &'a [(&'a str, &'a str)],
}

/// Appends the 101 response to a client's `key`.
///
/// # Errors
/// A header or the subprotocol has characters that would change the response, or the header is
/// one that the handshake sets; `out` is then as it was.
pub fn write_accept(
    out: &mut Vec<u8>,
    key: &str,
    acceptance: &Acceptance<'_>,
) -> Result<(), InvalidHeader> {
    let Acceptance { subprotocol, deflate, headers } = *acceptance;
    if subprotocol.is_some_and(|name| !is_token(name)) {
        return Err(InvalidHeader::NotAToken);
    }
    for (name, value) in headers {
        check_header(name, value)?;
    }
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_key(key));
    out.extend_from_slice(b"\r\n");
    if let Some(name) = subprotocol {
        write_header(out, "Sec-WebSocket-Protocol", name);
    }
    if let Some(agreement) = deflate {
        write_header(out, "Sec-WebSocket-Extensions", &agreement.to_string());
    }
    for (name, value) in headers {
        write_header(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}
