//! One measurement: a server is started on its core, called from the other, and ended.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use hioload_benches::machine::Cores;
use hioload_benches::server;
use serde_json::Value;

use crate::contenders::{Pair, Programs, Server, Work};

/// What one pair did in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) calls_per_s: f64,
    /// Processor time of either process per call.
    pub(crate) client_ns: f64,
    pub(crate) server_ns: f64,
}

/// Lets a pair work.
pub(crate) fn calls(
    programs: &Programs,
    cores: Cores,
    (client, server): Pair,
    work: &Work,
) -> Result<Sample, String> {
    let log = programs.folder.join("server.log");
    let mut running =
        server::Server::start(|port| programs.serve(server, port, work), cores, &log)?;
    let address = running.address().to_string();
    let command = programs.call(client, &address, running.id(), work)?;
    let said = run(command, programs)?;
    if let Some(status) = running.ended() {
        return Err(format!("the server ended with {status} ({})", log.display()));
    }
    let numbers: Vec<f64> = said.split_whitespace().flat_map(str::parse).collect();
    let [calls, elapsed_ns, client_ns, server_ns] = numbers[..] else {
        return Err(format!("the client said {said:?}"));
    };
    Ok(Sample {
        calls_per_s: calls / elapsed_ns * 1e9,
        client_ns: client_ns / calls,
        server_ns: server_ns / calls,
    })
}

/// Loads a server from many connections; the processor time that a message costs it.
pub(crate) fn load(
    programs: &Programs,
    cores: Cores,
    server: Server,
    connections: u16,
    work: &Work,
) -> Result<Sample, String> {
    let log = programs.folder.join("server.log");
    let running = server::Server::start(|port| programs.serve(server, port, work), cores, &log)?;
    let (scheme, bytes) = match server {
        // As many bytes as a packet has.
        Server::Raw(_) => ("tcp", usize::from(work.bytes) + hioload::iproto::HEADER_BYTES),
        _ => ("iproto", usize::from(work.bytes)),
    };
    let mut command = Command::new(&programs.load);
    command.arg(format!("{scheme}://{}", running.address())).arg("--json");
    let flags = [
        ("--connections", connections.to_string()),
        ("--in-flight", work.in_flight.to_string()),
        ("--size", bytes.to_string()),
        ("--cpu", cores.clients.to_string()),
        ("--server-pid", running.id().to_string()),
        ("--warm-up", (work.warm_up_ms as f64 / 1e3).to_string()),
        ("--duration", (work.measure_ms as f64 / 1e3).to_string()),
    ];
    for (flag, value) in flags {
        command.arg(flag).arg(value);
    }
    let said = run(command, programs)?;
    let said: Value =
        serde_json::from_str(&said).map_err(|error| format!("load printed no JSON: {error}"))?;
    let number =
        |name: &str| said[name].as_f64().ok_or_else(|| format!("load printed no number {name}"));
    Ok(Sample {
        calls_per_s: number("messages_per_s")?,
        client_ns: number("self_cpu_us_per_message")? * 1e3,
        server_ns: number("server_cpu_us_per_message")? * 1e3,
    })
}

/// Runs a client to its end; what it printed.
fn run(mut command: Command, programs: &Programs) -> Result<String, String> {
    let log = programs.folder.join("client.log");
    let errors = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).stderr(errors).output();
    let output = output.map_err(|error| format!("{program} does not start: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = fs::read_to_string(&log).unwrap_or_default();
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    Err(last.unwrap_or("the client failed without a word").trim().to_owned())
}
