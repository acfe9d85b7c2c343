//! One message to very many subscribers, side by side with another server.
//!
//! All servers run at once on one core, and everybody who subscribes is on another. A subscriber
//! sends a message, the server tells it to all of them, and the next one follows when the last of
//! them has it. The servers have their turns round by round, so that whatever else the machine
//! does hits all of them; ratios are taken within a round.

mod load;
mod peers;
mod report;
mod server;
mod subscribers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hioload_benches::builds::Checkouts;
use hioload_benches::machine::{CONGESTION_CONTROL, CoreFlags, Cores, LOAD_AVERAGE, read_word};
use hioload_benches::server::Server;
use hioload_benches::{command_line, process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::load::Sample;
use crate::peers::{Built, PEERS, Peer};
use crate::report::{Report, Row};
use crate::subscribers::Subscribers;

/// Descriptors that are not those of subscribers.
const OTHER_DESCRIPTORS: u64 = 100;

/// Measures what it costs to publish a message to many WebSocket connections, side by side.
#[derive(Parser)]
#[command(name = "publish", version, args_conflicts_with_subcommands = true)]
// uWebSockets is the only one of the checkouts that is measured here.
#[command(mut_arg("gws", |flag| flag.hide(true)), mut_arg("gws_compress", |flag| flag.hide(true)))]
struct Flags {
    /// Connections to every server; all of them subscribe
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    subscribers: u16,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..=32_768))]
    bytes: u16,
    /// Rounds; in each every server has its turn
    #[arg(long, value_name = "NUMBER", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Publications of a turn, one after the other
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    publications: u16,
    /// Only these servers
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = peer)]
    peers: Vec<Peer>,
    #[command(flatten)]
    checkouts: Checkouts,
    #[command(flatten)]
    cores: CoreFlags,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it has started itself.
#[derive(Subcommand)]
enum Role {
    /// Be the server on hioload
    #[command(hide = true)]
    Serve(server::Flags),
    /// Be the subscribers of one server
    #[command(hide = true)]
    Subscribe(subscribers::Flags),
}

fn peer(name: &str) -> Result<Peer, String> {
    command_line::named(PEERS, "servers", |peer| peer.name, name)
}

fn main() -> ExitCode {
    let flags: Flags = match command_line::parse("publish") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match &flags.role {
        Some(Role::Serve(flags)) => server::run(flags),
        Some(Role::Subscribe(flags)) => subscribers::run(flags),
        None => command_line::end("publish", measure_all(&flags)),
    }
}

fn measure_all(flags: &Flags) -> Result<(), String> {
    let cores = flags.cores.choose()?;
    raise_descriptors(u64::from(flags.subscribers) + OTHER_DESCRIPTORS)?;
    let wanted = PEERS.into_iter();
    let wanted = wanted.filter(|peer| flags.peers.is_empty() || flags.peers.contains(peer));
    let built: Vec<(Peer, Result<Built, String>)> = wanted
        .map(|peer| {
            eprintln!("building {}", peer.name);
            (peer, peer.build(&flags.checkouts))
        })
        .collect();
    process::pin(cores.clients)?;
    let about = format!(
        "one message of {} B to {} subscribers, {} rounds of {} publications; servers on core {}, \
         subscribers on core {}; congestion control {}; load average at the start {}",
        flags.bytes,
        flags.subscribers,
        flags.rounds,
        flags.publications,
        cores.servers,
        cores.clients,
        read_word(CONGESTION_CONTROL),
        read_word(LOAD_AVERAGE),
    );
    let report = Report { about, rows: measure(flags, cores, &built) };
    if flags.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    if report.rows.iter().all(|row| row.samples.is_err()) {
        return Err("no server could be measured".to_owned());
    }
    Ok(())
}

/// The servers and the processes of their subscribers inherit what this process may have.
fn raise_descriptors(needed: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|error| {
        format!(
            "a process needs {needed} open files ({error}): raise the hard limit (ulimit -Hn), or \
             have fewer --subscribers"
        )
    })
}

/// A server that takes part, and what it did so far.
struct Contender {
    /// It ends when nobody measures it any more.
    _server: Server,
    subscribers: Subscribers,
    samples: Vec<Sample>,
}

fn measure(flags: &Flags, cores: Cores, built: &[(Peer, Result<Built, String>)]) -> Vec<Row> {
    let mut contenders: Vec<Result<Contender, String>> =
        built.iter().map(|(_, built)| start(flags, cores, built.as_ref()?)).collect();
    let count = contenders.len();
    for round in 0..usize::from(flags.rounds) {
        // Everybody is first once, and follows a different server then.
        for place in 0..count {
            let contender = &mut contenders[(round + place) % count];
            let Ok(running) = contender else { continue };
            match running.subscribers.turn() {
                Ok(sample) => running.samples.push(sample),
                Err(problem) => *contender = Err(problem),
            }
        }
    }
    let rows = contenders.into_iter().zip(built).map(|(contender, (peer, _))| Row {
        name: peer.name,
        samples: contender.map(|contender| contender.samples),
    });
    rows.collect()
}

fn start(flags: &Flags, cores: Cores, built: &Built) -> Result<Contender, String> {
    let server = Server::start(|port| built.command(port), cores, &built.log())?;
    let subscribers = Subscribers::start(&subscribers::Flags {
        addr: server.address(),
        server: server.id(),
        subscribers: flags.subscribers,
        bytes: flags.bytes,
        publications: flags.publications,
    })?;
    Ok(Contender { _server: server, subscribers, samples: Vec::new() })
}
