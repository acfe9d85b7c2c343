//! A raw TCP echo straight on the [`Reactor`] seam, without shards or sessions: `127.0.0.1:9002`.
//!
//! `cargo run --release --example reactor_echo`, then `nc 127.0.0.1 9002`.

use std::collections::HashMap;
use std::net::TcpListener;
use std::process::ExitCode;

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

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), Box<dyn std::error::Error>> {
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
}

fn serve(mut reactor: impl Reactor, listener: Listener) -> Result<(), Box<dyn std::error::Error>> {
    println!("[reactor-echo] Reactor initialized: {}", reactor.name());
    reactor.listen(listener, Token(0))?;
    let mut peers: HashMap<Token, Peer> = HashMap::new();
    let mut batch = Vec::new();
    for number in 1.. {
        reactor.wait(None, &mut batch)?;
        for (index, Completion { token, event }) in batch.drain(..).enumerate() {
            if let Event::Accepted(connection) = event {
                let token = Token(number * BATCH_MAX as u64 + index as u64);
                let socket = reactor.adopt(connection, token)?;
                let peer = reactor.peer_address(socket).map(|peer| peer.to_string());
                println!("[reactor-echo] Accepted connection from {}", peer.unwrap_or_default());
                reactor.receive(socket, Receive::Pool);
                peers.insert(token, Peer { socket, waiting: Vec::new(), blocked: false });
                continue;
            }
            let Some(peer) = peers.get_mut(&token) else { continue };
            match event {
                Event::Received(bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    println!("[reactor-echo] Received ({} bytes): {}", bytes.len(), text.trim());
                    peer.waiting.push(bytes.freeze());
                }
                Event::SendBlocked(_) => {
                    peer.blocked = true;
                    reactor.receive(peer.socket, Receive::Paused);
                }
                Event::Sent { done: true, .. } => {
                    peer.blocked = false;
                    reactor.receive(peer.socket, Receive::Pool);
                }
                Event::Ended => {
                    println!("[reactor-echo] Connection closed by peer");
                    reactor.close(peer.socket);
                }
                Event::Failed(error) => {
                    println!("[reactor-echo] Connection lost: {error}");
                    reactor.close(peer.socket);
                }
                Event::Closed => drop(peers.remove(&token)),
                _ => {}
            }
        }
        for peer in peers.values_mut().filter(|peer| !peer.blocked && !peer.waiting.is_empty()) {
            let bytes: usize = peer.waiting.iter().map(|segment| segment.len()).sum();
            reactor.send(peer.socket, peer.waiting.drain(..));
            println!("[reactor-echo] Sent ({bytes} bytes) back to client");
        }
    }
    Ok(())
}
