//! Raw TCP echo on a shard of hioload, to see what WebSocket costs on the same reactor.
//!
//! It stands beside the `echo` example, whose runtime, configuration and sessions it shares; the
//! `reactor_echo` example prints every message, so that it would measure the terminal.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hioload::config::ReactorChoice;
use hioload::{Message, RawHandler, Server, Session, Shard};
use hioload_benches::command_line;

/// Sends every byte back.
#[derive(Parser)]
#[command(name = "raw_echo", version)]
struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9003")]
    addr: String,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to talk to the kernel: uring, epoll or auto
    #[arg(long, value_name = "REACTOR", default_value = "auto", value_parser = reactor)]
    reactor: ReactorChoice,
}

fn reactor(word: &str) -> Result<ReactorChoice, String> {
    match word {
        "uring" => Ok(ReactorChoice::Uring),
        "epoll" => Ok(ReactorChoice::Epoll),
        "auto" => Ok(ReactorChoice::Auto),
        _ => Err("uring, epoll or auto is wanted".to_owned()),
    }
}

struct Echo;

impl RawHandler for Echo {
    type Session = ();

    fn accepted(&mut self, _: &mut Shard) {}

    fn received(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, bytes: Message) {
        session.send(bytes);
    }
}

fn main() -> ExitCode {
    let flags: Flags = match command_line::parse("raw_echo") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let mut server = Server::builder();
    if let Some(file) = flags.config {
        server = server.config_file(file);
    }
    // A server listens for HTTP as well; nobody asks this one.
    server.listen("127.0.0.1:0").raw(&flags.addr, |_| Echo).reactor(flags.reactor).run()
}
