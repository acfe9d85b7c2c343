//! A chat handler in a simulation, which finds the bug that it may be given.
//!
//! Nothing here opens a socket: shards, network, clients and clock are simulated, and every run
//! follows from a number. `cargo run --release --example simulate -- --bug` prints what led to the
//! failure, and the number that repeats it.

use std::process::ExitCode;

use clap::Parser;
use hioload::testkit::Received;
use hioload::testkit::sim::{Act, Client, Sim, WebSocketWire, explore};
use hioload::{Closed, Handler, Message, MessageKind, Request, Session, SessionId, Shard, Upgrade};

/// Simulates a chat, seed by seed.
#[derive(Parser)]
#[command(name = "simulate", version)]
struct Flags {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Gives the chat a bug
    #[arg(long)]
    bug: bool,
}

/// Everybody on a shard hears everybody.
struct Chat {
    members: Vec<SessionId>,
    has_bug: bool,
}

impl Handler for Chat {
    type Session = usize; // the place among the members when it came

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<usize> {
        Upgrade::accept(0)
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, usize>) {
        *session.data = self.members.len();
        self.members.push(session.id());
    }

    fn message(&mut self, shard: &mut Shard, _: &mut Session<'_, usize>, message: Message) {
        for member in &self.members {
            if let Some(copy) = shard.message(MessageKind::Text, &message) {
                shard.send_to(*member, copy);
            }
        }
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, usize>, _: Closed) {
        if self.has_bug {
            // Whoever came last takes the place of who leaves, and does not know it.
            self.members.swap_remove((*session.data).min(self.members.len() - 1));
        } else {
            self.members.retain(|member| *member != session.id());
        }
    }
}

/// Says ten things, each when it has heard the last one, and leaves.
struct Member {
    said: usize,
    heard: usize,
}

impl Client for Member {
    fn act(&mut self, wire: &mut WebSocketWire<'_>) -> Act {
        if self.heard < self.said {
            return Act::Wait; // for ever is a failure
        }
        if self.said == 10 {
            return Act::Close;
        }
        self.said += 1;
        let line = format!("{}: line {}", wire.number(), self.said);
        wire.send_text(&line);
        Act::Wait
    }

    fn received(&mut self, wire: &mut WebSocketWire<'_>, received: Received) {
        if received == Received::Text(format!("{}: line {}", wire.number(), self.said)) {
            self.heard = self.said;
        }
    }
}

fn main() -> ExitCode {
    let Flags { seeds, bug: has_bug } = Flags::parse();
    let scenario = |sim: Sim| {
        sim.websocket("/chat", move |_shard| Chat { members: Vec::new(), has_bug }).clients(
            "/chat",
            8,
            |_number| Member { said: 0, heard: 0 },
        )
    };
    match explore(0..seeds, scenario) {
        Ok(totals) => {
            println!("{} seeds: {} messages, nothing is wrong", totals.seeds, totals.messages);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
