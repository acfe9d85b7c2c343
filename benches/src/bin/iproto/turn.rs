//! One measurement: a server is started on its core, called from the other, and ended.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use hioload_benches::machine::Cores;
use hioload_benches::process::cpu_time;
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
    let command = programs.call(client, &running.address().to_string(), work)?;
    let mut client = Client::start(command, programs)?;
    client.expect("begin")?;
    let times = || Ok::<_, String>((cpu_time(client.child.id())?, cpu_time(running.id())?));
    let (client_before, server_before) = times()?;
    // The client sleeps while it is measured, so that its last words are late by its own wait.
    std::thread::sleep(Duration::from_millis(work.measure_ms * 9 / 10));
    let (client_after, server_after) = times()?;
    let said = client.expect("end ")?;
    let mut numbers = said.split(' ').map(str::parse::<f64>);
    let (Some(Ok(calls)), Some(Ok(elapsed_ns))) = (numbers.next(), numbers.next()) else {
        return Err(format!("the client said {said:?}"));
    };
    if let Some(status) = running.ended() {
        return Err(format!("the server ended with {status} ({})", log.display()));
    }
    let calls_per_s = calls / elapsed_ns * 1e9;
    let per_call = |before: Duration, after: Duration| {
        (after - before).as_nanos() as f64 / (calls_per_s * work.measure_ms as f64 * 0.9e-3)
    };
    Ok(Sample {
        calls_per_s,
        client_ns: per_call(client_before, client_after),
        server_ns: per_call(server_before, server_after),
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
    let output = command.output().map_err(|error| format!("load does not start: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let said: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("load printed no JSON: {error}"))?;
    let number =
        |name: &str| said[name].as_f64().ok_or_else(|| format!("load printed no number {name}"));
    Ok(Sample {
        calls_per_s: number("messages_per_s")?,
        client_ns: number("self_cpu_us_per_message")? * 1e3,
        server_ns: number("server_cpu_us_per_message")? * 1e3,
    })
}

/// A client in a process of its own, which ends with this.
struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: String,
}

impl Client {
    fn start(mut command: Command, programs: &Programs) -> Result<Self, String> {
        let log = programs.folder.join("client.log");
        let errors = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn();
        let mut child = child.map_err(|error| format!("{program} does not start: {error}"))?;
        let output = child.stdout.take().ok_or("the client has no output")?;
        let lines = BufReader::new(output).lines();
        Ok(Self { child, lines, log: log.display().to_string() })
    }

    /// The rest of the next line, which has to begin like that.
    fn expect(&mut self, begin: &str) -> Result<String, String> {
        let line = self.lines.next().and_then(Result::ok).unwrap_or_default();
        let rest = line.strip_prefix(begin).map(str::to_owned);
        rest.ok_or_else(|| format!("the client said {line:?} instead of {begin:?} ({})", self.log))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // An error means that it ended by itself, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
