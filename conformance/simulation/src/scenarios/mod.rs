//! What is simulated: each scenario is a server, its peers, and what they expect of each other.

mod calls;
mod chat;
mod dial;
mod echo;
mod flow;
mod limits;
mod raw;

use hioload::testkit::sim::{Rng, Sim};

/// One of the simulated servers.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    pub(crate) build: fn(Sim) -> Sim,
}

impl Scenario {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "echo",
            about: "WebSocket echo with fragments, pings and compression",
            build: echo::scenario,
        },
        Self {
            name: "calls",
            about: "iproto: nested calls, late and lost replies, shutdowns",
            build: calls::scenario,
        },
        Self {
            name: "chat",
            about: "topics and mailboxes over three shards",
            build: chat::scenario,
        },
        Self {
            name: "flow",
            about: "backpressure: more to say than is read, and timers",
            build: flow::scenario,
        },
        Self {
            name: "limits",
            about: "limits of fragments and messages, to the byte",
            build: limits::scenario,
        },
        Self { name: "raw", about: "raw streams", build: raw::scenario },
        Self {
            name: "dial",
            about: "connections of our own that come back",
            build: dial::scenario,
        },
    ];

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|scenario| scenario.name == name).copied()
    }

    /// The one that a seed runs if none is named.
    #[must_use]
    pub const fn of_seed(seed: u64) -> Self {
        Self::ALL[(seed % Self::ALL.len() as u64) as usize]
    }

    /// Puts its server and its peers into a simulation.
    #[must_use]
    pub fn build(&self, sim: Sim) -> Sim {
        (self.build)(sim)
    }
}

/// A text of about `len` bytes, that can be compressed, with characters of all lengths.
fn words(rng: &mut Rng, len: usize) -> String {
    const WORDS: &[&str] =
        &["and ", "server ", "wörter ", "слово ", "語 ", "🦀 ", "x", "0123456789 "];
    let mut text = String::new();
    while text.len() < len {
        let word: &&str = rng.pick(WORDS);
        text.push_str(word);
    }
    text
}
