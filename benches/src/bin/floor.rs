//! What the kernel takes of a round trip when nobody sleeps: two threads that do nothing but send and
//! receive a few bytes over TCP, each on a core of its own. No server that speaks TCP to a client on
//! this machine can answer sooner.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hioload_benches::figures::Spread;
use hioload_benches::machine::{CoreFlags, Cores, seconds};
use hioload_benches::{command_line, network, process};
use serde_json::json;

/// Measures the round trip of a few bytes between two threads that never sleep.
#[derive(Parser)]
#[command(name = "floor", version)]
struct Flags {
    /// Bytes that go to and fro: a frame of 20 bytes has 26
    #[arg(long, value_name = "BYTES", default_value_t = 26, value_parser = clap::value_parser!(u16).range(1..=4096))]
    bytes: u16,
    /// How often it is measured
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How long each time, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.7", value_parser = seconds)]
    measure: Duration,
    #[command(flatten)]
    cores: CoreFlags,
    /// Stay in the network of the machine
    #[arg(long)]
    host_network: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match command_line::parse("floor") {
        Ok(flags) => command_line::end("floor", run(&flags)),
        Err(code) => code,
    }
}

fn run(flags: &Flags) -> Result<(), String> {
    let cores = flags.cores.choose()?;
    let network = network::isolate(flags.host_network)?;
    let round = |_| round_trip(flags, &cores);
    let rounds = (0..flags.rounds).map(round).collect::<Result<Vec<f64>, _>>()?;
    let Spread { median, min, max } = Spread::of(rounds.iter().copied());
    if flags.json {
        println!(
            "{}",
            json!({ "round_trip_us": rounds, "bytes": flags.bytes, "network": network })
        );
    } else {
        println!(
            "{} bytes to and fro, nobody sleeps: {median:.2} us ({min:.2}..{max:.2}); network: {network}",
            flags.bytes
        );
    }
    Ok(())
}

/// Microseconds of a round trip, on average.
fn round_trip(flags: &Flags, cores: &Cores) -> Result<f64, String> {
    let problem = |error: std::io::Error| format!("the connection broke: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(problem)?;
    let mut client = awake(TcpStream::connect(listener.local_addr().map_err(problem)?))?;
    let mut server = awake(listener.accept().map(|(stream, _)| stream))?;
    let (core, len) = (cores.servers, usize::from(flags.bytes));
    let echo = thread::spawn(move || {
        process::pin(core)?;
        let mut bytes = vec![0; len];
        while receive(&mut server, &mut bytes)? {
            server.write_all(&bytes).map_err(|error| error.to_string())?;
        }
        Ok::<_, String>(())
    });
    process::pin(cores.clients)?;
    let asked = ask(&mut client, len, flags.measure);
    drop(client);
    // If it has ended early, it knows better why.
    echo.join().map_err(|_| "the thread that answers panicked".to_owned())??;
    asked
}

/// Asks for so long: microseconds of a round trip.
fn ask(client: &mut TcpStream, len: usize, measure: Duration) -> Result<f64, String> {
    let mut bytes = vec![0; len];
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < measure {
        client.write_all(&bytes).map_err(|error| format!("the connection broke: {error}"))?;
        if !receive(client, &mut bytes)? {
            break;
        }
        count += 1;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(count.max(1)))
}

/// Makes a connection one that neither waits for more to send nor sleeps for what comes.
fn awake(stream: std::io::Result<TcpStream>) -> Result<TcpStream, String> {
    let made = stream.and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    });
    made.map_err(|error| format!("cannot connect to myself: {error}"))
}

/// Looks until all bytes are there. `false`: the other side is gone.
fn receive(stream: &mut TcpStream, bytes: &mut [u8]) -> Result<bool, String> {
    let mut filled = 0;
    while filled < bytes.len() {
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => return Ok(false),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(true)
}
