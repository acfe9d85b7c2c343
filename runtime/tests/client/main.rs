//! Connections to other servers over real sockets, on every reactor: to our own server, and to a
//! peer that says exactly what a test wants.

#![allow(clippy::unwrap_used, reason = "a test may panic wherever it is")]
#![allow(unreachable_pub, reason = "the modules of a test have no outside")]

mod callbacks;
mod cancel;
mod close;
mod compression;
mod echo;
mod handshake;
mod many;
#[path = "../nosy/mod.rs"]
mod nosy;
mod peer;
mod reconnect;
mod rules;
mod slow;
mod support;
mod virtual_time;
mod wakers;
