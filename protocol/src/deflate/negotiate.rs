//! Who may keep which window (RFC 7692 sections 5 and 7.1).

use core::fmt;

use super::{DEFLATE_BITS_MIN, WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use crate::ws::Role;

/// The name of the extension (section 7).
const NAME: &str = "permessage-deflate";

/// How one side compresses what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Direction {
    /// Whether the window is kept from one message to the next (section 7.1.1). Without it every
    /// message stands alone, and nothing needs to be kept between two messages.
    pub keeps_context: bool,
    /// The size of the window as the power of two: 8 to 15 (section 7.1.2).
    pub window_bits: u8,
}

impl Direction {
    /// A window of 32 KiB that is kept: what holds if nobody says otherwise.
    pub const DEFAULT: Self = Self { keeps_context: true, window_bits: WINDOW_BITS_MAX };

    /// No window is kept; within a message it may reach 32 KiB back.
    pub const NO_CONTEXT: Self = Self { keeps_context: false, window_bits: WINDOW_BITS_MAX };

    /// Whether we can compress for this window. A server may ask a client for one of 8 bits (RFC
    /// 7692 section 7.1.2.2); all that the client sends then is not compressed.
    #[must_use]
    pub const fn can_compress(self) -> bool {
        self.window_bits >= DEFLATE_BITS_MIN
    }
}

/// What both sides agreed on.
///
/// As a header value it is the answer of the server:
/// ```
/// use hioload_protocol::deflate::{Agreement, Direction};
///
/// let (server, client) = (Direction::NO_CONTEXT, Direction::DEFAULT);
/// let agreed = Agreement { server, client, names_server_bits: false };
/// assert_eq!(agreed.to_string(), "permessage-deflate; server_no_context_takeover");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Agreement {
    /// What the server sends.
    pub server: Direction,
    /// What the client sends.
    pub client: Direction,
    /// Whether the answer names the window of the server: where it is not the largest, and where
    /// the client asked for one (section 7.1.2.1).
    pub names_server_bits: bool,
}

impl Agreement {
    /// How the side with this role compresses.
    #[must_use]
    pub const fn sent_by(&self, role: Role) -> Direction {
        match role {
            Role::Server => self.server,
            Role::Client => self.client,
        }
    }

    /// How what the side with this role receives was compressed.
    #[must_use]
    pub const fn received_by(&self, role: Role) -> Direction {
        match role {
            Role::Server => self.client,
            Role::Client => self.server,
        }
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if !self.server.keeps_context {
            f.write_str("; server_no_context_takeover")?;
        }
        if !self.client.keeps_context {
            f.write_str("; client_no_context_takeover")?;
        }
        if self.names_server_bits {
            write!(f, "; server_max_window_bits={}", self.server.window_bits)?;
        }
        if self.client.window_bits < WINDOW_BITS_MAX {
            write!(f, "; client_max_window_bits={}", self.client.window_bits)?;
        }
        Ok(())
    }
}

/// What a server agrees to: the most that it is ready to keep for a connection.
///
/// ```
/// use hioload_protocol::deflate::{Direction, Policy};
///
/// let policy = Policy { server: Direction::NO_CONTEXT, client: Direction::NO_CONTEXT };
/// let offers = ["x-other", "permessage-deflate; client_max_window_bits"];
/// let agreed = policy.accept(offers).ok_or("no offer that suits")?;
/// assert_eq!(
///     agreed.to_string(),
///     "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
/// );
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What we send: whether we keep a window, and how large it may be (9 to 15 bits).
    pub server: Direction,
    /// What we receive: whether the client may keep a window, and how large it may be. A client
    /// that does not offer to limit its window may use 32 KiB all the same (section 7.1.2.2).
    pub client: Direction,
}

impl Policy {
    /// The answer to the elements of `Sec-WebSocket-Extensions`, in the client's order of
    /// preference: agrees with the first that can be had, and passes over other extensions and
    /// what it must decline (section 7.1). `None`: no compression.
    pub fn accept<'a>(&self, offers: impl IntoIterator<Item = &'a str>) -> Option<Agreement> {
        offers.into_iter().find_map(|offer| self.agree(&Parameters::read(offer)?.ok()?))
    }

    fn agree(&self, offer: &Parameters) -> Option<Agreement> {
        let asked = match offer.server_bits {
            Bits::Absent => WINDOW_BITS_MAX,
            Bits::Value(bits) => bits,
            // Section 7.1.2.1: in an offer it has a value.
            Bits::Bare => return None,
        };
        let server_bits = asked.min(self.server.window_bits);
        if server_bits < DEFLATE_BITS_MIN {
            return None;
        }
        // Section 7.1.2.2: without the parameter in the offer there is none in the answer.
        let client_bits = match offer.client_bits {
            Bits::Absent => WINDOW_BITS_MAX,
            Bits::Bare => self.client.window_bits,
            Bits::Value(bits) => bits.min(self.client.window_bits),
        };
        Some(Agreement {
            server: Direction {
                keeps_context: self.server.keeps_context && !offer.server_no_context,
                window_bits: server_bits,
            },
            client: Direction {
                keeps_context: self.client.keeps_context && !offer.client_no_context,
                window_bits: client_bits,
            },
            names_server_bits: offer.server_bits != Bits::Absent || server_bits < WINDOW_BITS_MAX,
        })
    }
}

/// What a client offers: one element of its `Sec-WebSocket-Extensions`.
///
/// ```
/// use hioload_protocol::deflate::{Direction, Offer};
///
/// let offer = Offer { server: Direction::NO_CONTEXT, client: Direction::DEFAULT };
/// let expected = "permessage-deflate; server_no_context_takeover; client_max_window_bits";
/// assert_eq!(offer.to_string(), expected);
///
/// // The server may ask for more modesty, but not for less.
/// let agreed = offer.check("permessage-deflate; server_no_context_takeover; \
///                           client_max_window_bits=10")?;
/// assert_eq!(agreed.client.window_bits, 10);
/// assert!(offer.check("permessage-deflate").is_err());
/// # Ok::<(), hioload_protocol::deflate::ResponseFault>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What the server may keep at the most: without context it must answer with
    /// `server_no_context_takeover`, and its window may not be larger.
    pub server: Direction,
    /// What we would keep; the server may ask for less.
    pub client: Direction,
}

impl Default for Offer {
    fn default() -> Self {
        Self { server: Direction::DEFAULT, client: Direction::DEFAULT }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        if !self.server.keeps_context {
            f.write_str("; server_no_context_takeover")?;
        }
        if !self.client.keeps_context {
            f.write_str("; client_no_context_takeover")?;
        }
        if self.server.window_bits < WINDOW_BITS_MAX {
            write!(f, "; server_max_window_bits={}", self.server.window_bits)?;
        }
        f.write_str("; client_max_window_bits")?;
        if self.client.window_bits < WINDOW_BITS_MAX {
            write!(f, "={}", self.client.window_bits)?;
        }
        Ok(())
    }
}

impl Offer {
    /// Checks the element of the server's `Sec-WebSocket-Extensions` against what was offered.
    ///
    /// # Errors
    /// The server answered with what was not offered: fail the connection (section 7.1).
    pub fn check(&self, response: &str) -> Result<Agreement, ResponseFault> {
        let answer = Parameters::read(response).ok_or(ResponseFault::Unoffered)??;
        if !self.server.keeps_context && !answer.server_no_context {
            return Err(ResponseFault::KeepsContext);
        }
        let server_bits = match answer.server_bits {
            Bits::Absent => WINDOW_BITS_MAX,
            Bits::Value(bits) => bits,
            Bits::Bare => return Err(ResponseFault::Value),
        };
        let client_bits = match answer.client_bits {
            Bits::Absent => self.client.window_bits,
            Bits::Value(bits) => bits.min(self.client.window_bits),
            // Section 7.1.2.2: in an answer it has a value.
            Bits::Bare => return Err(ResponseFault::Value),
        };
        if server_bits > self.server.window_bits {
            return Err(ResponseFault::WindowTooLarge);
        }
        Ok(Agreement {
            server: Direction {
                keeps_context: !answer.server_no_context,
                window_bits: server_bits,
            },
            client: Direction {
                keeps_context: self.client.keeps_context && !answer.client_no_context,
                window_bits: client_bits,
            },
            names_server_bits: answer.server_bits != Bits::Absent,
        })
    }
}

/// Why the answer of a server does not fit what was offered (RFC 7692 sections 5 and 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseFault {
    /// Another extension, or one more than was offered.
    #[error("the server chose an extension that was not offered")]
    Unoffered,
    /// A parameter that RFC 7692 does not define.
    #[error("the server answered with an unknown parameter of permessage-deflate")]
    Unknown,
    /// A parameter more than once.
    #[error("the server answered with a parameter of permessage-deflate twice")]
    Repeated,
    /// A value that the parameter cannot have, or none where it needs one.
    #[error("the server answered with a bad value for a parameter of permessage-deflate")]
    Value,
    /// We asked for no context, and the server did not agree.
    #[error("the server keeps its context, although it was asked not to")]
    KeepsContext,
    /// The window of the server is larger than what we asked for.
    #[error("the window of the server is larger than it was asked to be")]
    WindowTooLarge,
}

/// `*_max_window_bits` as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    Absent,
    /// Without a value.
    Bare,
    Value(u8),
}

/// The parameters of one offer or answer.
#[derive(Clone, Copy, Debug)]
struct Parameters {
    server_no_context: bool,
    client_no_context: bool,
    server_bits: Bits,
    client_bits: Bits,
}

impl Parameters {
    /// Reads one element of the header (RFC 6455 section 9.1). `None`: another extension.
    fn read(element: &str) -> Option<Result<Self, ResponseFault>> {
        let mut parts = element.split(';').map(trim);
        // Names of extensions are tokens, which are compared exactly.
        (parts.next() == Some(NAME)).then(|| Self::read_all(parts))
    }

    fn read_all<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Self, ResponseFault> {
        let mut all = Self {
            server_no_context: false,
            client_no_context: false,
            server_bits: Bits::Absent,
            client_bits: Bits::Absent,
        };
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (trim(name), Some(trim(value))),
                None => (part, None),
            };
            match name {
                "server_no_context_takeover" => set_flag(&mut all.server_no_context, value)?,
                "client_no_context_takeover" => set_flag(&mut all.client_no_context, value)?,
                "server_max_window_bits" => set_bits(&mut all.server_bits, value)?,
                "client_max_window_bits" => set_bits(&mut all.client_bits, value)?,
                _ => return Err(ResponseFault::Unknown),
            }
        }
        Ok(all)
    }
}

fn set_flag(flag: &mut bool, value: Option<&str>) -> Result<(), ResponseFault> {
    if value.is_some() {
        return Err(ResponseFault::Value);
    }
    if core::mem::replace(flag, true) { Err(ResponseFault::Repeated) } else { Ok(()) }
}

fn set_bits(bits: &mut Bits, value: Option<&str>) -> Result<(), ResponseFault> {
    let given = match value {
        None => Bits::Bare,
        Some(value) => Bits::Value(window_bits(value).ok_or(ResponseFault::Value)?),
    };
    match core::mem::replace(bits, given) {
        Bits::Absent => Ok(()),
        Bits::Bare | Bits::Value(_) => Err(ResponseFault::Repeated),
    }
}

/// A decimal integer without leading zeroes between 8 and 15 (section 7.1.2), as a token or in
/// quotes (RFC 6455 section 9.1).
fn window_bits(value: &str) -> Option<u8> {
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let digits = quoted.unwrap_or(value);
    if digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bits = digits.parse().ok()?;
    (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits).then_some(bits)
}

/// Without the white space that is allowed around parameters.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
