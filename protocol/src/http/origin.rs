//! Which web pages may connect (RFC 6455 section 10.2): the guard against cross-site hijacking.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Head, Refusal};

/// Which web pages may connect. Browsers send cookies with the handshake whatever page opens it,
/// and tell the page's origin: the server has to judge it.
///
/// By default the page must come from the same host and port as the WebSocket; clients that are
/// no browsers send no origin and are let in.
///
/// ```
/// use hioload_protocol::http::{Head, HeadLimits, OriginPolicy};
///
/// let bytes = b"GET / HTTP/1.1\r\nHost: chat.example\r\nOrigin: https://evil.example\r\n\r\n";
/// let head = Head::parse(bytes, &HeadLimits::default())?;
/// assert_eq!(OriginPolicy::default().check(&head).map_err(|r| r.status()), Err(403));
///
/// let policy = OriginPolicy { allowed: vec!["https://evil.example".into()], require: true };
/// assert_eq!(policy.check(&head), Ok(()));
/// # Ok::<(), hioload_protocol::http::Refusal>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginPolicy {
    /// Origins (`https://example.com`) let in beside the same one. `*` lets in any page, also the
    /// `null` origin of a sandboxed one, which otherwise only an entry `null` does.
    pub allowed: Vec<String>,
    /// Whether a request without an origin is refused too.
    pub require: bool,
}

impl OriginPolicy {
    /// Judges a request.
    ///
    /// # Errors
    /// The page may not connect: 403.
    pub fn check(&self, head: &Head<'_>) -> Result<(), Refusal> {
        let Some(origin) = head.origin() else {
            if self.require {
                return Err(Refusal::fixed(403, "a request without an Origin is not accepted"));
            }
            return Ok(());
        };
        let listed = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(origin);
        if is_same(origin, head.host()) || self.allowed.iter().any(listed) {
            return Ok(());
        }
        Err(Refusal::fixed(403, "pages of this Origin may not connect"))
    }
}

/// Whether `origin` (`scheme://host[:port]`, RFC 6454 section 6.1) names the same host and port as
/// the `Host` header. The schemes cannot be compared: TLS may have ended in front of us.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => ":80",
        _ if scheme.eq_ignore_ascii_case("https") => ":443",
        _ => return false,
    };
    let bare = |authority: &'_ str| -> usize {
        authority.strip_suffix(default_port).map_or(authority.len(), str::len)
    };
    authority[..bare(authority)].eq_ignore_ascii_case(&host[..bare(host)])
}
