//! Test kit.
mod fakes;
pub use fakes::{ConnCall, FakeConn, FakeWebSocketConn};
