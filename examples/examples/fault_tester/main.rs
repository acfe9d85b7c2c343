//! Attacks a WebSocket or iproto server in every way that RELIABILITY.md lists, and says for each
//! what the server did, after how long, and whether an honest client was still served.
//!
//! `cargo run --release --example fault_tester -- 127.0.0.1:9001 --path /ws`

mod floods;
mod frames;
mod iproto;
mod peer;
mod report;
mod upgrade;

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use peer::Target;
use report::{Finding, Run, Verdict};

/// Attacks a WebSocket or iproto server, and reports what it did about it.
///
/// Exit codes: 0: nothing is broken; 1: something is, an attack could not be tried, or the server
/// cannot be reached; 2: wrong flags.
#[derive(Parser)]
#[command(name = "fault_tester", version)]
struct Flags {
    /// HOST:PORT of the server
    #[arg(default_value = "127.0.0.1:9001")]
    address: String,
    /// What it speaks
    #[arg(long, value_enum, default_value = "websocket")]
    protocol: Protocol,
    /// The path of its WebSocket
    #[arg(long, default_value = "/ws")]
    path: String,
    /// Run these attacks alone
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Name the attacks, and end
    #[arg(long)]
    list: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
    /// How long an attack waits for the server to do something about it
    #[arg(long, value_name = "MS", default_value_t = 7_000,
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    patience_ms: u64,
    /// Connections of the attacks that need many
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=50_000))]
    connections: u32,
    /// The server is mine, though it is on another machine
    #[arg(long)]
    i_may_attack_this: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Websocket,
    Iproto,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let all = match flags.protocol {
        Protocol::Websocket => [upgrade::ATTACKS, frames::ATTACKS, floods::ATTACKS].concat(),
        Protocol::Iproto => iproto::ATTACKS.to_vec(),
    };
    if flags.list {
        all.iter().for_each(|attack| println!("{:<26}{}", attack.name, attack.about));
        return ExitCode::SUCCESS;
    }
    let unknown = flags.only.iter().find(|name| all.iter().all(|attack| attack.name != **name));
    if let Some(name) = unknown {
        return fail(2, format!("there is no attack `{name}`: --list names them"));
    }
    let address = match resolve(&flags) {
        Ok(address) => address,
        Err(problem) => return fail(2, problem),
    };
    let target = Target {
        address,
        host: flags.address.clone(),
        path: flags.path.clone(),
        patience: Duration::from_millis(flags.patience_ms),
        connections: flags.connections as usize,
    };
    let is_served = || match flags.protocol {
        Protocol::Websocket => frames::is_served(&target),
        Protocol::Iproto => iproto::is_served(&target),
    };
    if !is_served() {
        let protocol = flags.protocol.to_possible_value();
        let name = protocol.as_ref().map_or("", |value| value.get_name());
        return fail(1, format!("nobody answers an honest {name} client at {}", flags.address));
    }
    let chosen = |name: &str| flags.only.is_empty() || flags.only.iter().any(|only| only == name);
    let mut findings = Vec::new();
    for attack in all.iter().filter(|attack| chosen(attack.name)) {
        let outcome = match attack.run {
            Run::Do(run) => run(&target),
            Run::Say(bytes) => frames::say(&target, &bytes()),
        };
        let finding = Finding::of(attack, outcome, is_served());
        if !flags.json {
            finding.print();
        }
        findings.push(finding);
    }
    report::print_end(&findings, &flags.address, flags.json);
    let is_bad = |finding: &Finding| matches!(finding.verdict, Verdict::Broken | Verdict::NotTried);
    ExitCode::from(u8::from(findings.iter().any(is_bad)))
}

fn resolve(flags: &Flags) -> Result<SocketAddr, String> {
    let address = flags
        .address
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| format!("`{}` is no address: write HOST:PORT", flags.address))?;
    if address.ip().is_loopback() || flags.i_may_attack_this {
        return Ok(address);
    }
    Err(format!("{address} is another machine: say --i-may-attack-this if you are allowed to"))
}

fn fail(code: u8, problem: String) -> ExitCode {
    eprintln!("fault_tester: {problem}");
    ExitCode::from(code)
}
