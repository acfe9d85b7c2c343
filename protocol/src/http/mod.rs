//! HTTP/1.1 (RFC 9112), as much of it as comes before a WebSocket: heads and refusals.
//!
//! What comes in: the bytes of a head. What goes out: a parsed [`Head`], the complete bytes of an
//! answer, or a [`Refusal`] that is one. What this room must never do: guess. Every request has
//! one reading or is refused, and a connection is closed after whatever is not an upgrade, so
//! that nothing behind a head can be taken for a second request.

mod accept;
pub mod client;
mod head;
mod origin;
mod parse;
mod refusal;
mod response;
mod scanner;
mod token;
mod websocket;

pub use accept::{Acceptance, accept_key, write_accept};
pub use head::Head;
pub use origin::OriginPolicy;
pub use refusal::Refusal;
pub use response::Response;
pub use scanner::{HeadLimits, HeadScanner};
pub use token::InvalidHeader;
pub use websocket::WebSocketRequest;
