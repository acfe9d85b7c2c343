//! A WebSocket echo server on every core: `ws://127.0.0.1:9001/ws`.
//!
//! `cargo run --release --example echo -- --help` shows the flags; `echo.toml` beside this file
//! shows every key of the configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use hioload::config::ReactorChoice;
use hioload::{Handler, Message, Request, Response, Server, Session, Shard, Upgrade};

/// Sends every WebSocket message back.
#[derive(Parser)]
#[command(name = "echo", version)]
struct Flags {
    /// Address to listen on: HOST:PORT, :PORT for every interface, or unix:/PATH
    /// [default: 127.0.0.1:9001, or what the configuration says]
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the resolved configuration, the placement and the memory bill, and exit
    #[arg(long)]
    check: bool,
    /// How to talk to the kernel [default: auto, or what the configuration says]
    #[arg(long, value_enum)]
    reactor: Option<ReactorFlag>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ReactorFlag {
    /// io_uring if it can be had, epoll otherwise
    Auto,
    /// io_uring, or fail
    Uring,
    /// epoll
    Epoll,
}

/// One of these per core. Nothing is shared, so nothing is locked.
struct Echo;

impl Handler for Echo {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<()>, message: Message) {
        session.send(message); // the very buffer it arrived in goes back out
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let flags = Flags::parse();
    let mut server = Server::builder()
        .websocket("/ws", |_shard| Echo)
        .websocket("/", |_shard| Echo)
        .http("/health", |_, _| Response::text(200, "ok\n"));
    if let Some(file) = flags.config {
        server = server.config_file(file);
    }
    if let Some(address) = flags.addr {
        server = server.listen(&address);
    }
    if let Some(reactor) = flags.reactor {
        server = server.reactor(match reactor {
            ReactorFlag::Auto => ReactorChoice::Auto,
            ReactorFlag::Uring => ReactorChoice::Uring,
            ReactorFlag::Epoll => ReactorChoice::Epoll,
        });
    }
    if flags.check { server.print_check() } else { server.run() }
}
