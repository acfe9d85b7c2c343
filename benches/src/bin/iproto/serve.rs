//! Our server: echo over iproto.

use std::process::ExitCode;

use hioload::config::{ReactorChoice, ShardCount};
use hioload::iproto::{Handler, Peer, Request, Session};
use hioload::{Server, Shard};

use crate::contenders::Reactor;

/// What the server is told.
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT")]
    addr: String,
    /// How to talk to the kernel
    #[arg(long, value_enum)]
    reactor: Reactor,
    /// How long to poll before it sleeps, in microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    spin_us: u64,
}

struct Echo;

impl Handler for Echo {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &Peer<'_>) -> Option<()> {
        Some(())
    }

    fn request(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        session.reply(request.reply, request.body);
    }
}

/// Serves until the process is ended.
pub(crate) fn run(flags: &Flags) -> ExitCode {
    let server = Server::builder().configure(|config| {
        config.server.reactor = ReactorChoice::from(flags.reactor);
        config.server.shards = ShardCount::Exactly(1);
        config.server.spin_us = flags.spin_us;
    });
    server.iproto(&flags.addr, |_| Echo).run()
}
