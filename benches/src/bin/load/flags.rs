//! The command line, and the plan that it asks for.

use std::net::IpAddr;
use std::time::Duration;

use clap::Parser;
use hioload_benches::process::{anonymous_bytes, cores};

use crate::failure::Failure;
use crate::opening::Door;
use crate::resources;
use crate::script::{Format, Script};
use crate::size::Sizes;
use crate::target::{Scheme, Target};
use crate::worker::Plan;

/// Messages under way on a connection at the most when time decides what is sent.
const WINDOW: usize = 1024;

const ABOUT: &str = "\
Measures an echo server: how many messages per second, and how long each takes.

Opens connections, sends messages, and compares every reply with what was sent, byte for byte.
Without --rate a connection sends its next message when a reply comes (closed loop); with --rate
messages are due on a fixed schedule, and latency counts from then (open loop).";

const EXAMPLES: &str = "\
\x1b[1;4mExamples:\x1b[0m
  load ws://127.0.0.1:9001/ws                          64 connections, 10 seconds
  load -c 1000 -f 16 -s 20:90%,4096:10% ws://HOST/     a mix of sizes, 16 under way on each
  load -r 50000 --server-pid PID ws://HOST:9001/       latency at a load, and the server's CPU
  load --idle -c 10000 --server-pid PID ws://HOST/     memory of an idle connection

\x1b[1;4mExit status:\x1b[0m
  0 measured; 1 the server or a connection failed; 2 wrong usage; 130 ended early by Ctrl-C, with
  the report of what was measured until then";

/// Measures an echo server: how many messages per second, and how long each takes.
#[derive(Parser, Debug)]
#[command(name = "load", version, long_about = ABOUT, after_help = EXAMPLES)]
pub(crate) struct Flags {
    /// ws://HOST:PORT/PATH, iproto://HOST:PORT, or tcp://HOST:PORT for bare bytes
    #[arg(value_name = "URL", value_parser = Target::parse)]
    target: Target,

    /// Connections
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Load")]
    connections: u32,
    /// Messages under way on each connection [default: 1; with --rate 1024 at the most]
    #[arg(short = 'f', long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=65_536), help_heading = "Load")]
    in_flight: Option<u32>,
    /// Payload of a message: BYTES, FROM-TO (evenly spread), or shares: 20:90%,4096:10%
    #[arg(short, long, value_name = "BYTES", default_value = "20", help_heading = "Load")]
    size: Sizes,
    /// Send binary messages instead of text
    #[arg(long, conflicts_with = "deflate", help_heading = "Load")]
    binary: bool,
    /// Messages per second over all connections, on a fixed schedule (open loop)
    #[arg(short, long, value_name = "N", value_parser = positive, help_heading = "Load")]
    rate: Option<f64>,
    /// Negotiate permessage-deflate without context takeover, and send compressed
    #[arg(long, help_heading = "Load")]
    deflate: bool,
    /// Exchange one message on each connection, then hold them: what does an idle one cost?
    #[arg(long, conflicts_with_all = ["rate", "in_flight", "threads"], help_heading = "Load")]
    idle: bool,

    /// How long to measure, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = seconds, help_heading = "Time")]
    duration: Duration,
    /// How long to send before that, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, help_heading = "Time")]
    warm_up: Duration,
    /// Connections opened per second [default: as fast as 128 handshakes at once go]
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "Time")]
    ramp_up: Option<f64>,
    /// Give up when no reply has come for so long, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, hide = true)]
    stall_timeout: Duration,

    /// Process of the server, on this machine: its CPU time and memory are reported
    #[arg(long, value_name = "PID", help_heading = "Machine")]
    server_pid: Option<u32>,
    /// Run on this CPU; further threads on those that follow
    #[arg(long, value_name = "N", help_heading = "Machine")]
    cpu: Option<usize>,
    /// Threads, each with its share of the connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "Machine")]
    threads: u16,
    /// Never sleep: lower and steadier latency, for a whole CPU per thread
    #[arg(long, help_heading = "Machine")]
    spin: bool,
    /// Addresses to connect from, in turn [default: as the system likes]
    ///
    /// For more than 25,000 connections on loopback it is 127.0.0.2 and those that follow.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', help_heading = "Machine")]
    source_addresses: Vec<IpAddr>,

    /// Do not compare replies with what was sent: count them only
    #[arg(long, help_heading = "Output")]
    no_verify: bool,
    /// Print one JSON object instead of the report
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Show no progress on the terminal
    #[arg(long, help_heading = "Output")]
    pub(crate) quiet: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted".to_owned())?;
    if !(0.0..=1e6).contains(&seconds) {
        return Err("0 to 1,000,000 seconds are wanted".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.001..=1e9).contains(&number) => Ok(number),
        _ => Err("a number from 0.001 to 1,000,000,000 is wanted".to_owned()),
    }
}

impl Flags {
    pub(crate) fn sizes(&self) -> &Sizes {
        &self.size
    }

    /// What the flags ask for, once it is clear that the machine can do it.
    pub(crate) fn plan(&self, live: bool) -> Result<Plan, Failure> {
        let format = self.format()?;
        if self.duration.is_zero() {
            return Err(Failure::usage(
                "--duration 0 measures nothing: give it a part of a second",
            ));
        }
        let threads = usize::from(self.threads);
        let connections = self.connections as usize;
        if connections < threads {
            return Err(Failure::usage(format!(
                "{threads} threads need as many connections at least, not {connections}"
            )));
        }
        if let Some(cpu) = self.cpu {
            let allowed = cores()?;
            if let Some(missing) = (cpu..cpu + threads).find(|cpu| !allowed.contains(cpu)) {
                return Err(Failure::usage(format!(
                    "CPU {missing} is not one of those that this process may use: {allowed:?}"
                )));
            }
        }
        if let Some(server) = self.server_pid {
            anonymous_bytes(server)
                .map_err(|_| format!("there is no process {server} (--server-pid)"))?;
        }
        resources::descriptors(connections, threads)?;
        let address = self.target.resolve()?;
        let sources = resources::sources(&self.source_addresses, address, connections)?;
        let script = Script::new(format, &self.size);
        let in_flight = match (self.in_flight, self.rate) {
            (Some(given), _) => given as usize,
            (None, Some(_)) => WINDOW,
            (None, None) => 1,
        };
        Ok(Plan {
            door: Door {
                target: self.target.clone(),
                address,
                sources,
                deflate: self.deflate,
                reach: script.reach(),
            },
            script,
            bytes_max: self.size.max(),
            connections,
            threads,
            in_flight,
            warm_up: self.warm_up,
            duration: self.duration,
            rate: self.rate,
            ramp_up: self.ramp_up,
            verify: !self.no_verify,
            spin: self.spin,
            idle: self.idle,
            stall_timeout: self.stall_timeout,
            server: self.server_pid,
            cpu: self.cpu,
            live,
        })
    }

    fn format(&self) -> Result<Format, Failure> {
        match self.target.scheme {
            Scheme::Tcp | Scheme::Iproto if self.deflate => {
                Err(Failure::usage("--deflate is for WebSocket: nothing else is compressed"))
            }
            Scheme::Tcp if self.size.min() == 0 => {
                Err(Failure::usage("over tcp:// a message has one byte at least: see --size"))
            }
            Scheme::Tcp => Ok(Format::Tcp),
            Scheme::Iproto => Ok(Format::Iproto),
            Scheme::WebSocket if self.deflate => Ok(Format::Deflate),
            Scheme::WebSocket if self.binary => Ok(Format::Binary),
            Scheme::WebSocket => Ok(Format::Text),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Flags;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Flags::command().debug_assert();
    }
}
