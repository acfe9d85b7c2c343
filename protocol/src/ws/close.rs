//! Close codes, and the body of a close frame (RFC 6455 sections 5.5.1 and 7.4).

use core::fmt;

use super::event::Control;
use super::{Violation, utf8};

/// Why a connection is closed (RFC 6455 section 7.4, and IANA's registry for 1012 to 1014).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// What the connection was made for is done.
    pub const NORMAL: Self = Self(1000);
    /// The server is shutting down, or the browser left the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Data of a kind that cannot be accepted, such as binary where only text is.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Never sent: the close frame that came had no code.
    pub const NO_STATUS: Self = Self(1005);
    /// Never sent: the connection ended without a close frame.
    pub const ABNORMAL: Self = Self(1006);
    /// Text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A message violates a policy, for which no other code fits.
    pub const POLICY: Self = Self(1008);
    /// A message is too big.
    pub const TOO_BIG: Self = Self(1009);
    /// A client expected an extension that the server did not negotiate.
    pub const EXTENSION: Self = Self(1010);
    /// Something unexpected happened at the server.
    pub const INTERNAL: Self = Self(1011);
    /// The server restarts: connect again.
    pub const RESTART: Self = Self(1012);
    /// The server is overloaded: connect again later.
    pub const TRY_AGAIN: Self = Self(1013);

    /// The code, if it may be sent in a close frame: 1000 to 1003, 1007 to 1014, 3000 to 4999.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads the body of a close frame: nothing, or a code and a reason.
pub(super) fn parse(body: &[u8]) -> Result<(Option<CloseCode>, Control), Violation> {
    let (code, reason) = match body {
        [] => return Ok((None, Control::default())),
        [_] => return Err(Violation::CloseBodyOneByte),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    let code = CloseCode::new(code).ok_or(Violation::CloseCodeInvalid)?;
    utf8::check(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
    Ok((Some(code), Control::copied(reason)))
}
