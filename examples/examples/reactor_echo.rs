//! A raw TCP echo straight on the [`Reactor`] seam, without shards or sessions: `127.0.0.1:9002`.
//!
//! `cargo run --release --example reactor_echo`, then `nc 127.0.0.1 9002`.

use std::collections::HashMap;
use std::error::Error;
use std::net::TcpListener;
use std::time::Duration;

use clap::Parser;
use hioload::pools::{Arena, ArenaConfig, Shared};
use hioload::reactor::epoll::{Epoll, EpollConfig};
use hioload::reactor::uring::{Uring, UringConfig};
use hioload::reactor::{BATCH_MAX, Completion, Event, Listener, Reactor, Receive, Socket, Token};

/// Sends every byte back.
#[derive(Parser)]
#[command(name = "reactor_echo", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9002")]
    addr: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    let pool = Arena::new(ArenaConfig { capacity_bytes: 64 << 20, ..ArenaConfig::default() })?;
    let listener = TcpListener::bind(&flags.addr)
        .map_err(|error| format!("cannot listen on {}: {error}", flags.addr))?;
    println!("[reactor-echo] Listening on {} ...", listener.local_addr()?);
    listener.set_nonblocking(true)?;
    match Uring::new(UringConfig::new(pool.clone())) {
        Ok(reactor) => serve(reactor, listener.into()),
        Err(cause) => {
            println!("[reactor-echo] No io_uring: {cause}");
            serve(Epoll::new(EpollConfig::new(pool))?, listener.into())
        }
    }
}

/// A connected peer. One send may be open at a time, so what arrives meanwhile waits here.
struct Peer {
    socket: Socket,
    waiting: Vec<Shared>,
    blocked: bool,
    ended: bool,
}

fn serve(mut reactor: impl Reactor, listener: Listener) -> Result<(), Box<dyn Error>> {
    println!("[reactor-echo] Reactor initialized: {}", reactor.name());
    reactor.listen(listener, Token(0))?;
    let mut peers: HashMap<Token, Peer> = HashMap::new();
    let mut batch = Vec::new();
    for number in 1.. {
        // A send that blocked is known after the next wait: until then nobody is closed.
        let closing = peers.values().any(|peer| peer.ended && !peer.blocked);
        reactor.wait(closing.then_some(Duration::ZERO), &mut batch)?;
        for (index, Completion { token, event }) in batch.drain(..).enumerate() {
            match (event, peers.get_mut(&token)) {
                (Event::Accepted(connection), _) => {
                    let token = Token(number * BATCH_MAX as u64 + index as u64);
                    let socket = reactor.adopt(connection, token)?;
                    let from = reactor.peer_address(socket).map(|from| from.to_string());
                    let from = from.unwrap_or_default();
                    println!("[reactor-echo] Accepted connection from {from}");
                    reactor.receive(socket, Receive::Pool);
                    let peer = Peer { socket, waiting: Vec::new(), blocked: false, ended: false };
                    peers.insert(token, peer);
                }
                (Event::Received(bytes), Some(peer)) => {
                    let text = String::from_utf8_lossy(&bytes);
                    println!("[reactor-echo] Received ({} bytes): {}", bytes.len(), text.trim());
                    peer.waiting.push(bytes.freeze());
                }
                (event @ (Event::SendBlocked(_) | Event::Sent { done: true, .. }), Some(peer)) => {
                    peer.blocked = matches!(event, Event::SendBlocked(_));
                    let mode = if peer.blocked { Receive::Paused } else { Receive::Pool };
                    reactor.receive(peer.socket, mode);
                }
                (Event::Ended, Some(peer)) => peer.ended = true,
                (Event::Failed(_), Some(peer)) => reactor.close(peer.socket),
                (Event::Closed, _) => {
                    println!("[reactor-echo] Connection closed by peer");
                    peers.remove(&token);
                }
                _ => {}
            }
        }
        for peer in peers.values_mut().filter(|peer| !peer.blocked) {
            if !peer.waiting.is_empty() {
                let bytes: usize = peer.waiting.iter().map(|segment| segment.len()).sum();
                reactor.send(peer.socket, peer.waiting.drain(..));
                println!("[reactor-echo] Sent ({bytes} bytes) back to client");
            } else if peer.ended {
                reactor.close(peer.socket);
            }
        }
    }
    Ok(())
}
