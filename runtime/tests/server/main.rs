//! The whole server over real sockets, on every reactor: what users see, and what attackers meet.

#![allow(clippy::unwrap_used, reason = "a test may panic wherever it is")]
#![allow(unreachable_pub, reason = "the modules of a test have no outside")]

mod accept;
mod attacks;
mod client;
mod deflate;
mod echo;
mod floods;
mod handler;
mod handshake;
mod sessions;
mod shards;
mod shutdown;
mod slow;
