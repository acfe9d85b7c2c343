//! The whole server over real sockets, on every reactor: what users see, and what attackers meet.

mod accept;
mod client;
mod echo;
mod floods;
mod handler;
mod handshake;
mod shards;
mod shutdown;
mod slow;
