//! Chat rooms on every core: `ws://127.0.0.1:9001/chat/NAME` is a room, and everybody in it hears
//! what anybody says.
//!
//! `cargo run --release --example chat -- --help` shows the flags.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hioload::{CloseCode, Handler, Message, MessageKind, Request, Server, Session, Shard, Upgrade};

/// Who says nothing for this long is asked to leave.
const SILENCE: Duration = Duration::from_secs(600);
/// The only timer of a session.
const SILENT: u64 = 0;

/// Chat rooms: connect to /chat/NAME.
#[derive(Parser)]
#[command(name = "chat", version)]
struct Flags {
    /// Address to listen on: HOST:PORT, :PORT for every interface, or unix:/PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001")]
    addr: String,
    /// Print the resolved configuration, the placement and the memory bill, and exit
    #[arg(long)]
    check: bool,
}

/// One of these per core. The rooms are the topics of its shard.
struct Chat;

impl Handler for Chat {
    type Session = String; // the room

    fn upgrade(&mut self, _: &mut Shard, request: &Request) -> Upgrade<String> {
        match request.param("room") {
            Some(room) => Upgrade::accept(room.to_owned()),
            None => Upgrade::refuse(404),
        }
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<String>) {
        let room = session.data.clone();
        if let Err(error) = session.subscribe(&room) {
            session.close(CloseCode::POLICY, &error.to_string());
        }
        let _ = session.set_timer(SILENCE, SILENT); // fails only above 64 of them
    }

    fn message(&mut self, shard: &mut Shard, session: &mut Session<String>, message: Message) {
        let _ = session.set_timer(SILENCE, SILENT); // from the start
        let Some(text) = message.text() else {
            return session.close(CloseCode::UNSUPPORTED, "say it in words");
        };
        // A topic belongs to one shard: the room is one of each of them.
        for handle in shard.handles() {
            let (room, line) = (session.data.clone(), text.to_owned());
            let publish = move |shard: &mut Shard| {
                if let Some(message) = shard.message(MessageKind::Text, line.as_bytes()) {
                    shard.publish(&room, message);
                }
            };
            if handle.run(publish).is_err() {
                tracing::warn!("a shard is overloaded: a line of the chat was dropped there");
            }
        }
    }

    fn timer(&mut self, _: &mut Shard, session: &mut Session<String>, _token: u64) {
        session.close(CloseCode::NORMAL, "you are silent");
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let flags = Flags::parse();
    let server = Server::builder().listen(&flags.addr).websocket("/chat/{room}", |_shard| Chat);
    if flags.check { server.print_check() } else { server.run() }
}
