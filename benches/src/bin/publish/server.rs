//! The server on hioload: whatever one connection says, all of them are told.

use std::process::ExitCode;

use clap::ValueEnum;
use hioload::config::{ReactorChoice, ShardCount};
use hioload::{Handler, Message, Request, Server, Session, SessionId, Shard, Upgrade};

/// What the server is told.
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT")]
    addr: String,
    /// How to talk to the kernel
    #[arg(long, value_enum)]
    reactor: Reactor,
    /// How everybody is told
    #[arg(long, value_enum)]
    how: How,
}

/// How to talk to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reactor {
    Uring,
    Epoll,
}

/// How everybody is told.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    /// By a topic that all subscribe to.
    Publish,
    /// By a message to each of them, as one would without topics.
    Loop,
}

impl Reactor {
    /// What it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

impl How {
    /// What it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Loop => "loop",
        }
    }
}

/// Serves until the process is ended.
pub(crate) fn run(flags: &Flags) -> ExitCode {
    let (how, reactor) = (flags.how, flags.reactor);
    Server::builder()
        .listen(&flags.addr)
        .configure(|config| {
            config.server.reactor = match reactor {
                Reactor::Uring => ReactorChoice::Uring,
                Reactor::Epoll => ReactorChoice::Epoll,
            };
            config.server.shards = ShardCount::Exactly(1);
            // Nothing may happen by itself while something is measured.
            config.websocket.idle_timeout_ms = 0;
        })
        .websocket("/", move |_| News { how, everybody: Vec::new() })
        .run()
}

struct News {
    how: How,
    /// Whom a loop tells.
    everybody: Vec<SessionId>,
}

impl Handler for News {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
        match self.how {
            How::Publish => {
                session.subscribe("news").expect("the limits have room for one topic");
            }
            How::Loop => self.everybody.push(session.id()),
        }
    }

    fn message(&mut self, shard: &mut Shard, _: &mut Session<'_, ()>, message: Message) {
        match self.how {
            How::Publish => {
                shard.publish("news", message);
            }
            How::Loop => {
                for &id in &self.everybody {
                    let copy = shard.message(message.kind(), &message);
                    shard.send_to(id, copy.expect("the pool has room for all copies"));
                }
            }
        }
    }
}
