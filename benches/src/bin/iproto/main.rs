//! iproto beside go-iproto: how many calls one connection carries, how long one takes, and what a
//! request costs the server.
//!
//! Every measurement is a server and a client started anew, each on a core of its own. A round
//! measures everybody once, and the one that is first changes; ratios are taken within a round.

mod call;
mod contenders;
mod executor;
mod points;
mod report;
mod serve;
mod turn;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use hioload_benches::machine::{CoreFlags, Cores, LOAD_AVERAGE, read_word, seconds};
use hioload_benches::progress::Progress;
use hioload_benches::{command_line, network, process};
use serde_json::{Value, json};

use crate::contenders::{Programs, Work};
use crate::points::{POINTS, Point};
use crate::report::{Row, Table};

/// Measures calls over iproto, side by side with go-iproto.
#[derive(Parser)]
#[command(name = "iproto", version, args_conflicts_with_subcommands = true)]
struct Flags {
    /// A clone of Educentr/go-iproto [or: $HIOLOAD_GO_IPROTO]
    #[arg(long, value_name = "DIR")]
    go: Option<PathBuf>,
    /// Only these loads: many, single, spin, server
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = point)]
    points: Vec<Point>,
    /// Rounds; in each everybody has a turn
    #[arg(long, value_name = "NUMBER", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Bytes of a body
    #[arg(long, value_name = "BYTES", default_value_t = 50, value_parser = clap::value_parser!(u16).range(8..=32_768))]
    bytes: u16,
    /// How long a turn is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    measure: Duration,
    /// How long calls are made before that, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.3", value_parser = seconds)]
    warm_up: Duration,
    #[command(flatten)]
    cores: CoreFlags,
    /// Stay in the network of the machine
    #[arg(long)]
    host_network: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it has started itself.
#[derive(Subcommand)]
enum Role {
    /// Be our server
    #[command(hide = true)]
    Serve(serve::Flags),
    /// Be our client
    #[command(hide = true)]
    Call(call::Flags),
}

fn point(name: &str) -> Result<Point, String> {
    command_line::named(POINTS, "loads", |point| point.name, name)
}

fn main() -> ExitCode {
    let flags: Flags = match command_line::parse("iproto") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match &flags.role {
        Some(Role::Serve(flags)) => serve::run(flags),
        Some(Role::Call(flags)) => call::run(flags),
        None => command_line::end("iproto", measure_all(&flags)),
    }
}

fn measure_all(flags: &Flags) -> Result<(), String> {
    let cores = flags.cores.choose()?;
    eprintln!("building");
    let programs = Programs::build(flags.go.as_deref())?;
    if let Some(problem) = programs.go_problem() {
        eprintln!("without Go: {problem}");
    }
    let network = network::isolate(flags.host_network)?;
    process::pin(cores.clients)?;
    let about = format!(
        "bodies of {} B, {} rounds of {:?} after {:?}; servers on core {}, clients on core {}; \
         network: {network}; load average at the start {}",
        flags.bytes,
        flags.rounds,
        flags.measure,
        flags.warm_up,
        cores.servers,
        cores.clients,
        read_word(LOAD_AVERAGE),
    );
    if !flags.json {
        println!("{about}");
    }
    let wanted = |point: &Point| flags.points.is_empty() || flags.points.contains(point);
    let points: Vec<Point> = POINTS.into_iter().filter(wanted).collect();
    let turns: usize = points.iter().map(|point| point.contenders().len()).sum();
    let mut progress = Progress::new(turns * usize::from(flags.rounds));
    let mut tables = Vec::new();
    for point in points {
        let table = measure(flags, &programs, cores, point, &mut progress);
        progress.clear();
        if !flags.json {
            println!("\n{}", table.text().trim_end());
        }
        tables.push(table);
    }
    if flags.json {
        let tables: Vec<Value> = tables.iter().map(Table::json).collect();
        println!("{}", json!({ "about": about, "points": tables }));
    }
    if tables.iter().flat_map(|table| &table.rows).all(|row| row.samples.is_err()) {
        return Err("nothing could be measured".to_owned());
    }
    Ok(())
}

fn measure(
    flags: &Flags,
    programs: &Programs,
    cores: Cores,
    point: Point,
    progress: &mut Progress,
) -> Table {
    let work = Work {
        in_flight: point.in_flight,
        bytes: flags.bytes,
        spin_us: 0,
        warm_up_ms: flags.warm_up.as_millis() as u64,
        measure_ms: flags.measure.as_millis() as u64,
    };
    let row = |contender| Row { contender, samples: Ok(Vec::new()) };
    let mut rows: Vec<Row> = point.contenders().into_iter().map(row).collect();
    let (count, rounds) = (rows.len(), usize::from(flags.rounds));
    for round in 0..rounds {
        // Everybody is first once, and follows another one then.
        for place in 0..count {
            let Row { contender, samples } = &mut rows[(round + place) % count];
            let name = format!("{} > {}", contender.client_name(), contender.server.name());
            progress.next(point.name, &name, round + 1, rounds);
            let Ok(list) = samples else { continue };
            match point.measure(contender, programs, cores, work) {
                Ok(sample) => list.push(sample),
                Err(problem) => *samples = Err(problem),
            }
        }
    }
    Table { point, rows }
}
