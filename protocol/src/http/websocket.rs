//! The opening handshake as a server sees it (RFC 6455 section 4.2.1).

use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::token::{is_token, list};
use super::{Acceptance, Head, InvalidHeader, Refusal, write_accept};

/// The length of `Sec-WebSocket-Key`: 16 bytes in base64.
const KEY_LEN: usize = 24;
/// What the key decodes to.
const NONCE_BYTES: usize = 16;

/// An opening handshake that keeps every MUST of RFC 6455 section 4.1.
#[derive(Clone, Debug)]
pub struct WebSocketRequest<'a> {
    key: &'a str,
    subprotocols: Vec<&'a str>,
    extensions: Vec<&'a str>,
}

impl<'a> WebSocketRequest<'a> {
    /// `Sec-WebSocket-Key`: 24 characters.
    #[must_use]
    pub const fn key(&self) -> &'a str {
        self.key
    }

    /// The subprotocols that the client offers, the ones it likes best first.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> {
        self.subprotocols.iter().copied()
    }

    /// The subprotocol to speak: the first that the client offers and `supported` has (RFC 6455
    /// section 4.2.2; names are compared exactly).
    #[must_use]
    pub fn choose_subprotocol(&self, supported: &[&str]) -> Option<&'a str> {
        self.subprotocols().find(|offered| supported.contains(offered))
    }

    /// The extensions that the client offers, each with its parameters as it came.
    pub fn extensions(&self) -> impl Iterator<Item = &'a str> {
        self.extensions.iter().copied()
    }

    /// Appends the response that accepts this request: see [`write_accept`].
    ///
    /// # Errors
    /// A header or the subprotocol cannot be sent; `out` is then as it was.
    pub fn accept(
        &self,
        out: &mut Vec<u8>,
        acceptance: &Acceptance<'_>,
    ) -> Result<(), InvalidHeader> {
        write_accept(out, self.key, acceptance)
    }

    pub(super) fn check(head: &Head<'a>) -> Result<Self, Refusal> {
        if head.method() != "GET" {
            return Err(Refusal::fixed(405, "a WebSocket is opened with GET"));
        }
        if !head.has_token("Upgrade", "websocket") {
            return Err(Refusal::fixed(426, "this is a WebSocket endpoint"));
        }
        if !head.has_token("Connection", "Upgrade") {
            return Err(Refusal::bad("the Connection header does not have the token Upgrade"));
        }
        if head.header("Sec-WebSocket-Version") != Some("13") {
            return Err(Refusal::fixed(426, "the WebSocket version is not 13"));
        }
        let key = head.header("Sec-WebSocket-Key").ok_or(Refusal::bad("no Sec-WebSocket-Key"))?;
        if !is_key(key) {
            return Err(Refusal::bad("the Sec-WebSocket-Key is not 16 bytes in base64"));
        }
        let subprotocols = subprotocols(head)?;
        let extensions = head.header_all("Sec-WebSocket-Extensions").flat_map(list).collect();
        Ok(Self { key, subprotocols, extensions })
    }
}

/// Section 4.1: the elements are tokens and all different.
fn subprotocols<'a>(head: &Head<'a>) -> Result<Vec<&'a str>, Refusal> {
    let mut offered = Vec::new();
    for name in head.header_all("Sec-WebSocket-Protocol").flat_map(list) {
        if !is_token(name) {
            return Err(Refusal::bad("an element of Sec-WebSocket-Protocol is not a token"));
        }
        if offered.contains(&name) {
            return Err(Refusal::bad("an element of Sec-WebSocket-Protocol is repeated"));
        }
        offered.push(name);
    }
    Ok(offered)
}

/// Whether `key` is 16 bytes in base64, in its only spelling.
pub(super) fn is_key(key: &str) -> bool {
    let mut nonce = [0; NONCE_BYTES + 2]; // 24 characters could be 18 bytes
    key.len() == KEY_LEN && STANDARD.decode_slice(key, &mut nonce) == Ok(NONCE_BYTES)
}
