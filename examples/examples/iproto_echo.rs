//! An iproto echo server on every core: `127.0.0.1:3301`.
//!
//! `cargo run --release --example iproto_echo -- --help` shows the flags.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use hioload::config::ReactorChoice;
use hioload::iproto::{Handler, Peer, Request, Session};
use hioload::{Server, Shard};

/// Answers every request with its own body.
#[derive(Parser)]
#[command(name = "iproto_echo", version)]
struct Flags {
    /// Address to listen on: HOST:PORT, :PORT for every interface, or unix:/PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3301")]
    addr: String,
    /// How to talk to the kernel
    #[arg(long, value_enum, default_value = "auto")]
    reactor: ReactorFlag,
    /// Print the resolved configuration, the placement and the memory bill, and exit
    #[arg(long)]
    check: bool,
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

    fn accept(&mut self, _: &mut Shard, _: &Peer) -> Option<()> {
        Some(())
    }

    fn request(&mut self, _: &mut Shard, session: &mut Session<()>, request: Request) {
        session.reply(request.reply, request.body); // the very buffer it arrived in goes back out
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let flags = Flags::parse();
    let reactor = match flags.reactor {
        ReactorFlag::Auto => ReactorChoice::Auto,
        ReactorFlag::Uring => ReactorChoice::Uring,
        ReactorFlag::Epoll => ReactorChoice::Epoll,
    };
    let server = Server::builder().iproto(&flags.addr, |_shard| Echo).reactor(reactor);
    if flags.check { server.print_check() } else { server.run() }
}
