//! iproto over real sockets, on every reactor: what users see, and what attackers meet.

#![allow(clippy::unwrap_used, reason = "a test may panic wherever it is")]
#![allow(unreachable_pub, reason = "the modules of a test have no outside")]

mod attacks;
mod both_ways;
mod channel;
#[allow(dead_code, reason = "its servers speak WebSocket")]
#[path = "../child/mod.rs"]
mod child;
mod held;
mod hijack;
mod hijack_time;
mod mux_time;
#[path = "../nosy/mod.rs"]
mod nosy;
mod pool;
mod pool_limits;
mod pool_time;
mod recorded;
mod replies;
mod restarts;
mod served;
mod session_time;
mod setup;
mod setup_time;
mod shutdown;
mod stage;
mod stopping;
mod storms;
mod support;
mod wakers;

#[test]
#[ignore = "the other tests run it as a child"]
fn child() {
    restarts::serve();
}
