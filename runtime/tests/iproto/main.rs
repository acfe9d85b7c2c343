//! iproto over real sockets, on every reactor: what users see, and what attackers meet.

#![allow(clippy::unwrap_used, reason = "a test may panic wherever it is")]
#![allow(unreachable_pub, reason = "the modules of a test have no outside")]

mod attacks;
mod both_ways;
mod channel;
mod recorded;
mod replies;
mod shutdown;
mod support;
