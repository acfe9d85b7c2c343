//! A WebSocket client for the terminal and for pipes: each line of standard input is sent as one
//! text message, and each message that comes is printed with a line end; binary ones in hex.
//!
//! `cargo run --release --example client -- ws://127.0.0.1:9001/ws`

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Parser;
use hioload::config::Config;
use hioload::sys::signals::Signals;
use hioload::ws::{self, Broken, Client, Connect, Connector, Payload};
use hioload::{CloseCode, Compression, StartError};

/// Whether there is a connection, which a signal closes.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Sends the lines of standard input to a WebSocket server, and prints what it sends.
#[derive(Parser)]
#[command(name = "client", version)]
struct Flags {
    /// ws://HOST[:PORT][/PATH][?QUERY]
    url: String,
    /// How to talk to the kernel
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    reactor: String,
    /// Offer permessage-deflate
    #[arg(long, default_value = "off", value_parser = ["off", "no_context", "shared_window", "dedicated_window"])]
    compression: String,
    /// Offer this subprotocol; the best one first
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Send this header with the request
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How long connecting may take
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    timeout_ms: u64,
}

enum Event {
    Came(Payload),
    Typed,
    InputEnded,
    Interrupted,
    Closed(Option<Broken>),
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let mut connect = Connect::to(&flags.url)
        .timeout(Duration::from_millis(flags.timeout_ms))
        .compression(compression(&flags.compression));
    for name in flags.subprotocol {
        connect = connect.subprotocol(name);
    }
    for header in flags.header {
        let Some((name, value)) = header.split_once(':') else {
            return fail(2, format!("the header `{header}` has no colon: write NAME: VALUE"));
        };
        connect = connect.header(name.trim(), value.trim());
    }
    if let Err(error) = connect.check() {
        return fail(2, error);
    }
    let (sender, events) = sync_channel(64);
    // Before any thread starts: they inherit that signals wait to be asked for.
    let _blocked = Signals::block();
    let interrupts = sender.clone();
    thread::spawn(move || {
        let Ok(signals) = Signals::block() else { return };
        while let Ok(Some(_)) = signals.wait(None) {
            // There is nothing to close, or it was asked for before.
            if !IS_OPEN.swap(false, Ordering::Relaxed) {
                std::process::exit(130);
            }
            let _ = interrupts.send(Event::Interrupted);
        }
    });
    let config = Config::from_toml(&format!("server.reactor = '{}'", flags.reactor), "--reactor");
    let started = config.map_err(StartError::from).and_then(Connector::start);
    match started.as_ref().map(|connector| ws::block_on(connector.open(connect))) {
        Ok(Ok(client)) => talk(client, flags.count, sender, &events),
        Ok(Err(error)) => fail(1, error),
        Err(error) => fail(1, error),
    }
}

fn compression(name: &str) -> Compression {
    match name {
        "no_context" => Compression::no_context(),
        "shared_window" => Compression::shared_window(),
        "dedicated_window" => Compression::dedicated_window(),
        _ => Compression::off(),
    }
}

fn fail(code: u8, problem: impl std::fmt::Display) -> ExitCode {
    eprintln!("error: {problem}");
    ExitCode::from(code)
}

fn talk(
    client: Client,
    mut count: Option<u64>,
    sender: SyncSender<Event>,
    events: &Receiver<Event>,
) -> ExitCode {
    IS_OPEN.store(true, Ordering::Relaxed);
    let (outgoing, mut incoming) = client.split();
    let (lines, typed) = (outgoing.clone(), sender.clone());
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            // Why it cannot be sent is told by whoever receives.
            let _ = ws::block_on(lines.send(line));
            let _ = typed.send(Event::Typed);
        }
        typed.send(Event::InputEnded)
    });
    thread::spawn(move || {
        let end = loop {
            match ws::block_on(incoming.next()).transpose() {
                Ok(Some(message)) => drop(sender.send(Event::Came(message))),
                end => break end.err(),
            }
        };
        sender.send(Event::Closed(end))
    });
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let (before, prompt) = if is_terminal { ("\r< ", "> ") } else { ("", "") };
    // After the end of the input, a second of silence is taken for the end of the answers.
    let mut patience = Duration::MAX;
    while count != Some(0) {
        let _ = write!(std::io::stdout(), "{prompt}").and_then(|()| std::io::stdout().flush());
        match events.recv_timeout(patience) {
            Ok(Event::Came(message)) => {
                // Whoever reads us may have enough, as `head` does.
                if writeln!(std::io::stdout(), "{before}{}", shown(&message)).is_err() {
                    break;
                }
                count = count.map(|count| count - 1);
            }
            Ok(Event::InputEnded) if count.is_none() => patience = Duration::from_secs(1),
            Ok(Event::Typed | Event::InputEnded) => {}
            Ok(Event::Closed(Some(broken))) => return fail(1, broken),
            Ok(Event::Closed(None)) if count.is_some() => return fail(1, "closed too early"),
            Ok(Event::Closed(None)) => return ExitCode::SUCCESS,
            Ok(Event::Interrupted) | Err(_) => break,
        }
    }
    ws::block_on(outgoing.close(CloseCode::NORMAL, ""));
    ExitCode::SUCCESS
}

/// A text as it is, anything else in hex.
fn shown(message: &Payload) -> String {
    let hex = || message.iter().map(|byte| format!("{byte:02x}")).collect();
    message.text().map_or_else(hex, str::to_owned)
}
