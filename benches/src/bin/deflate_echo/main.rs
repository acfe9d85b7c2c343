//! Compressed echo (permessage-deflate), side by side with other servers.
//!
//! All servers run at once on one core and are asked in turn from another, round by round, so that
//! whatever else the machine does hits all of them; ratios are taken within a round.

mod connection;
mod load;
mod peers;
mod report;
mod script;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hioload_benches::builds::Checkouts;
use hioload_benches::command_line;
use hioload_benches::documents::documents;
use hioload_benches::machine::{
    CONGESTION_CONTROL, CoreFlags, Cores, LOAD_AVERAGE, read_word, seconds,
};
use hioload_benches::process;
use hioload_benches::server::Server;

use crate::load::{Load, Sample};
use crate::peers::{Built, PEERS, Peer};
use crate::report::{Row, Setting};
use crate::script::{Mode, Script};

/// How many different documents are sent.
const DOCUMENTS: usize = 64;

/// Measures compressed WebSocket echo on several servers, side by side.
#[derive(Parser)]
#[command(name = "deflate_echo", version)]
struct Flags {
    /// What is negotiated, one or more
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "MODES",
        default_value = "no-context,takeover,plain"
    )]
    modes: Vec<Mode>,
    /// Messages under way on every connection, one or more numbers
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_value = "1,16", value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: Vec<u16>,
    /// Connections to every server
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Bytes of a message before compression
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1024..=32_768))]
    bytes: u16,
    /// Rounds; in each every server has its turn
    #[arg(long, value_name = "NUMBER", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How long a server is measured in a round, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    measure: Duration,
    /// How long a server is asked before that, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// Only these servers
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = peer)]
    peers: Vec<Peer>,
    #[command(flatten)]
    checkouts: Checkouts,
    #[command(flatten)]
    cores: CoreFlags,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

fn peer(name: &str) -> Result<Peer, String> {
    command_line::named(PEERS, "servers", |peer| peer.name, name)
}

fn main() -> ExitCode {
    let flags: Flags = match command_line::parse("deflate_echo") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    command_line::end("deflate_echo", measure_all(&flags))
}

fn measure_all(flags: &Flags) -> Result<(), String> {
    let cores = flags.cores.choose()?;
    let wanted = PEERS.into_iter();
    let wanted = wanted.filter(|peer| flags.peers.is_empty() || flags.peers.contains(peer));
    let built: Vec<(Peer, Result<Built, String>)> = wanted
        .map(|peer| {
            eprintln!("building {}", peer.name);
            (peer, peer.build(&flags.checkouts))
        })
        .collect();
    process::pin(cores.clients)?;
    let head = format!(
        "{} B of JSON per message, level {}, {} rounds of {:?} after {:?}; servers on core {}, \
         clients on core {}; congestion control {}; load average at the start {}",
        flags.bytes,
        script::LEVEL,
        flags.rounds,
        flags.measure,
        flags.warm_up,
        cores.servers,
        cores.clients,
        read_word(CONGESTION_CONTROL),
        read_word(LOAD_AVERAGE),
    );
    let mut settings = Vec::new();
    if !flags.json {
        println!("{head}");
    }
    for &mode in &flags.modes {
        for &in_flight in &flags.in_flight {
            let setting = measure(flags, cores, &built, mode, usize::from(in_flight));
            if flags.json {
                settings.push(setting.json());
            } else {
                println!("\n{}", setting.table().trim_end());
            }
        }
    }
    if flags.json {
        println!("{{\"about\":{},\"settings\":[{}]}}", report::quoted(&head), settings.join(","));
    }
    Ok(())
}

/// A server that takes part in a setting, and what it did so far.
struct Contender<'a> {
    server: Server,
    load: Load<'a>,
    samples: Vec<Sample>,
}

fn measure(
    flags: &Flags,
    cores: Cores,
    built: &[(Peer, Result<Built, String>)],
    mode: Mode,
    in_flight: usize,
) -> Setting {
    let documents = documents(DOCUMENTS, usize::from(flags.bytes));
    let script = Script::new(mode, documents);
    let connections = usize::from(flags.connections);
    let mut contenders: Vec<Result<Contender<'_>, String>> = built
        .iter()
        .map(|(_, built)| {
            let built = built.as_ref().map_err(Clone::clone)?;
            built.skip(mode).map_or(Ok(()), Err)?;
            start(built, cores, &script, connections, in_flight)
        })
        .collect();
    let count = contenders.len();
    for round in 0..usize::from(flags.rounds) {
        // Everybody is first once, and follows a different server then.
        for place in 0..count {
            let contender = &mut contenders[(round + place) % count];
            let Ok(running) = contender else { continue };
            match running.load.round(running.server.id(), flags.warm_up, flags.measure) {
                Ok(sample) => running.samples.push(sample),
                Err(problem) => *contender = Err(problem),
            }
        }
    }
    let rows = contenders.into_iter().zip(built).map(|(contender, (peer, _))| Row {
        name: peer.name,
        samples: contender.map(|contender| contender.samples),
    });
    Setting { mode, connections, in_flight, rows: rows.collect() }
}

fn start<'a>(
    built: &Built,
    cores: Cores,
    script: &'a Script,
    connections: usize,
    in_flight: usize,
) -> Result<Contender<'a>, String> {
    let server = Server::start(
        |port| built.command(port, cores.servers, script.mode),
        cores,
        &built.log(script.mode),
    )?;
    let load = Load::open(server.address(), script, connections, in_flight)?;
    Ok(Contender { server, load, samples: Vec::new() })
}
