//! The client under test of the Autobahn suite: asks its fuzzing server how many cases there are,
//! echoes the messages of each one, and lets it write its report.
//!
//! It shows both ways to be a client: a handle for what is asked and answered, and callbacks for
//! the cases, as an echo must come before the end of a connection that its next frame breaks.

use std::process::ExitCode;
use std::sync::mpsc;

use clap::Parser;
use hioload::config::Config;
use hioload::ws::{self, ClientHandler, Connect, ConnectError, Connector};
use hioload::{Closed, Compression, Message, Session, Shard};

/// Echoes every case of an Autobahn fuzzing server.
#[derive(Parser)]
#[command(name = "autobahn_client", version)]
struct Flags {
    /// The fuzzing server
    #[arg(long, default_value = "ws://127.0.0.1:9001")]
    url: String,
    /// How to talk to the kernel
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    reactor: String,
    /// What the report calls us
    #[arg(long, value_name = "NAME", default_value = "hioload")]
    agent: String,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match ws::block_on(run(&flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error>;

async fn run(flags: &Flags) -> Result<(), Error> {
    let connector = Connector::start(config(&flags.reactor)?)?;
    let connect = |path: String| {
        let connect = Connect::to(format!("{}{path}", flags.url));
        connect.compression(Compression::dedicated_window())
    };
    let open = |path: String| connector.open(connect(path));

    let mut counting = open("/getCaseCount".to_owned()).await?;
    let count = counting.next().await.ok_or("the server closed without a count")??;
    let count: u32 = count.text().ok_or("the count is no text")?.trim().parse()?;
    // The server says nothing more, and closes.
    while counting.next().await.is_some() {}
    for case in 1..=count {
        eprintln!("case {case} of {count}");
        let path = format!("/runCase?case={case}&agent={}", flags.agent);
        let (sender, end) = mpsc::channel();
        let connect = connect(path);
        let start = move |shard: &mut Shard| {
            shard.connect(connect, Echo(sender));
        };
        connector.handle().run(start)?;
        end.recv()??;
    }
    let mut report = open(format!("/updateReports?agent={}", flags.agent)).await?;
    while report.next().await.is_some() {}
    connector.stop()?;
    Ok(())
}

/// Sends back what comes until the case is over. How it ends is for the server to judge.
struct Echo(mpsc::Sender<Result<(), String>>);

impl ClientHandler for Echo {
    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        session.send(message);
    }

    fn closed(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Closed) {
        let _ = self.0.send(Ok(()));
    }

    fn failed(&mut self, _: &mut Shard, error: &ConnectError) {
        let _ = self.0.send(Err(error.to_string()));
    }
}

/// As for the server under test: 16 MiB in one message (9.1.6), 4 MiB in fragments of 64 bytes
/// (9.3.1), and as much on the way out.
fn config(reactor: &str) -> Result<Config, Error> {
    let mut config = Config::from_toml(&format!("server.reactor = '{reactor}'"), "--reactor")?;
    config.limits.connections_max = 16;
    config.websocket.message_bytes_max = 16 << 20;
    config.websocket.fragments_max = 65_537;
    config.websocket.overhead_budget_bytes = 1 << 20;
    config.websocket.outbox_high_bytes = 32 << 20;
    config.websocket.outbox_low_bytes = 1 << 20;
    config.websocket.outbox_max_bytes = 64 << 20;
    Ok(config)
}
