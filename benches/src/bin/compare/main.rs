//! Echo, side by side with other servers, at many loads.
//!
//! The servers take turns on one core and are loaded from another, round by round in an order that
//! changes, so that whatever else the machine does hits all of them; ratios are taken within a
//! round. What each point showed is printed as soon as it is known, and kept as JSON.

mod about;
mod config;
mod measure;
mod points;
mod report;
mod sample;
mod servers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hioload_benches::builds::{self, Checkouts};
use hioload_benches::machine::{Cores, seconds};
use hioload_benches::progress::Progress;
use hioload_benches::{command_line, network, process};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::measure::Method;
use crate::points::{POINTS, Pace, Point, point};
use crate::report::{Measured, Row};
use crate::sample::Sample;
use crate::servers::{Built, Server};

/// What a wrong configuration ends with, as `sysexits.h` has it.
const CONFIGURATION_ERROR: u8 = 78;
const USAGE_ERROR: u8 = 2;

/// Measures echo on hioload and on other servers, in turn, and prints ratios.
#[derive(Parser)]
#[command(name = "compare", version)]
struct Flags {
    /// Only these points [default: all; --list names them]
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = point)]
    points: Vec<Point>,
    /// Only three points
    #[arg(long, conflicts_with = "points")]
    quick: bool,
    /// Only these servers [default: all; --list names them]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    servers: Vec<String>,
    /// Names the points and the servers, and ends
    #[arg(long)]
    list: bool,
    /// Rounds; in each every server has its turn
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// How long a server is measured in a round, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    measure: Duration,
    /// How long a server is loaded before that, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// Where everything that was measured is kept [default: compare.json in the target folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A file with more servers (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// The core of the servers [default: the last but one that may be used]
    #[arg(long, value_name = "CORE")]
    server_core: Option<usize>,
    /// The core of the load generator [default: the last that may be used]
    #[arg(long, value_name = "CORE")]
    load_core: Option<usize>,
    /// Stay in the network of the machine
    #[arg(long)]
    host_network: bool,
    /// Another load generator that takes the flags of `load`
    #[arg(long, value_name = "PROGRAM")]
    load: Option<PathBuf>,
    #[command(flatten)]
    checkouts: Checkouts,
}

fn main() -> ExitCode {
    let flags: Flags = match command_line::parse("compare") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, problem)) => {
            eprintln!("compare: {problem}");
            ExitCode::from(code)
        }
    }
}

fn run(flags: &Flags) -> Result<(), (u8, String)> {
    let mut servers = servers::known();
    if let Some(file) = &flags.config {
        let more = read_config(file, &servers);
        servers.extend(more.map_err(|problem| (CONFIGURATION_ERROR, problem))?);
    }
    if flags.list {
        list(&servers);
        return Ok(());
    }
    let servers = chosen(servers, &flags.servers).map_err(|problem| (USAGE_ERROR, problem))?;
    let points: Vec<Point> = match (flags.quick, &flags.points[..]) {
        (true, _) => POINTS.into_iter().filter(|point| point.is_quick).collect(),
        (false, []) => POINTS.to_vec(),
        (false, some) => some.to_vec(),
    };
    measure_all(flags, servers, &points).map_err(|problem| (1, problem))
}

fn read_config(file: &Path, known: &[Server]) -> Result<Vec<Server>, String> {
    let origin = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| format!("{origin}: {error}"))?;
    let taken: Vec<_> = known.iter().map(|server| server.name.as_str()).collect();
    let externals = config::read(&text, &origin, &taken)?;
    Ok(externals.into_iter().map(servers::external).collect())
}

fn list(servers: &[Server]) {
    println!("points:");
    for point in POINTS {
        println!("  {}", point.title());
    }
    println!("servers:");
    for server in servers {
        println!("  {}", server.name);
    }
}

/// The servers of these names, or all; in the order in which they are known.
fn chosen(servers: Vec<Server>, names: &[String]) -> Result<Vec<Server>, String> {
    if let Some(unknown) = names.iter().find(|name| servers.iter().all(|s| s.name != **name)) {
        let known: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
        return Err(format!("--servers: there is no {unknown}: there are {}", known.join(", ")));
    }
    let is_wanted = |server: &Server| names.is_empty() || names.contains(&server.name);
    Ok(servers.into_iter().filter(is_wanted).collect())
}

/// A server, and how it was built or why it was not.
type Contender = (Server, Result<Built, String>);

fn measure_all(flags: &Flags, servers: Vec<Server>, points: &[Point]) -> Result<(), String> {
    let cores = Cores::choose(flags.server_core, flags.load_core)?;
    let folder = builds::peer_folder("compare")?;
    let load = match &flags.load {
        Some(load) => load.clone(),
        None => builds::build_program("load").map_err(|problem| format!("load: {problem}"))?,
    };
    let contenders = build(servers, &flags.checkouts);
    if contenders.iter().all(|(_, built)| built.is_err()) {
        let reasons = contenders.iter().filter_map(|(server, built)| {
            Some(format!("{}: {}", server.name, built.as_ref().err()?))
        });
        return Err(format!("no server: {}", reasons.collect::<Vec<_>>().join("; ")));
    }
    let network = network::isolate(flags.host_network)?;
    process::pin(cores.clients)?;
    allow_descriptors()?;
    let out = match &flags.out {
        Some(file) => file.clone(),
        None => builds::target_folder()?.join("compare.json"),
    };
    let about = about::about(cores, &network);
    let mut kept = Kept { about, points: Vec::new(), file: out };
    kept.write()?;
    if !flags.json {
        println!("{}", head(flags, cores, &network));
    }
    let rounds = usize::from(flags.rounds);
    let (measure, warm_up) = (flags.measure, flags.warm_up);
    let method = Method { cores, rounds, measure, warm_up, load, folder };
    let mut progress = Progress::new(points.len() * rounds * contenders.len());
    for &point in points {
        let measured = measure_point(&method, &contenders, point, &mut progress);
        progress.clear();
        if !flags.json {
            println!("\n{}", measured.tables().trim_end());
        }
        kept.points.push(measured.json());
        kept.write()?;
    }
    if flags.json {
        println!("{:#}", kept.json());
    } else {
        println!("\nall of it: {}", kept.file.display());
    }
    Ok(())
}

fn build(servers: Vec<Server>, checkouts: &Checkouts) -> Vec<Contender> {
    let built = servers.into_iter().map(|server| {
        eprintln!("building {}", server.name);
        let built = server.build(checkouts);
        (server, built)
    });
    built.collect()
}

fn head(flags: &Flags, cores: Cores, network: &str) -> String {
    format!(
        "{} rounds of {:?} after {:?}; servers on core {}, load on core {}; network: {network}",
        flags.rounds, flags.measure, flags.warm_up, cores.servers, cores.clients
    )
}

/// Thousands of connections need as many descriptors, at both ends.
fn allow_descriptors() -> Result<(), String> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|error| format!("descriptors: {error}"))
}

/// The file with everything, which is complete after every point.
struct Kept {
    about: Value,
    points: Vec<Value>,
    file: PathBuf,
}

impl Kept {
    fn json(&self) -> Value {
        json!({ "about": self.about, "points": self.points })
    }

    fn write(&self) -> Result<(), String> {
        let text = format!("{:#}\n", self.json());
        fs::write(&self.file, text).map_err(|error| format!("{}: {error}", self.file.display()))
    }
}

fn measure_point(
    method: &Method,
    contenders: &[Contender],
    point: Point,
    progress: &mut Progress,
) -> Measured {
    let mut results: Vec<Result<Vec<Sample>, String>> = contenders
        .iter()
        .map(|(_, built)| built.as_ref().map(|_| Vec::new()).map_err(Clone::clone))
        .collect();
    let point = match point.pace() {
        Some(Pace::Schedule { per_s: 0 }) => half_load(method, contenders, point, &mut results),
        _ => point,
    };
    progress.skip(method.rounds * results.iter().filter(|result| result.is_err()).count());
    for round in 0..method.rounds {
        for index in order(round, contenders.len()) {
            let (server, Ok(built)) = &contenders[index] else { continue };
            let Ok(samples) = &mut results[index] else { continue };
            progress.next(point.name, &server.name, round + 1, method.rounds);
            match method.measure(built, server.protocol, &point) {
                Ok(sample) => samples.push(sample),
                Err(problem) => {
                    progress.skip(method.rounds - round - 1);
                    results[index] = Err(problem);
                }
            }
        }
    }
    let rows = contenders.iter().zip(results).map(|((server, built), samples)| {
        let built = built.as_ref().ok();
        Row {
            name: server.name.clone(),
            protocol: server.protocol,
            version: built.map_or_else(String::new, |built| built.version.clone()),
            spun: point.spins() && built.is_some_and(Built::can_spin),
            samples,
        }
    });
    Measured { point, rows: rows.collect() }
}

/// The point with half the load that the slowest server bears, which is found out here; who bears
/// none is not measured. If nobody bears any the point has no load, and no row of it a figure.
fn half_load(
    method: &Method,
    contenders: &[Contender],
    point: Point,
    results: &mut [Result<Vec<Sample>, String>],
) -> Point {
    let full = point.paced(Pace::Replies);
    let mut slowest = f64::INFINITY;
    for ((server, built), result) in contenders.iter().zip(results) {
        let (Ok(built), Ok(_)) = (built, &result) else { continue };
        match method.measure(built, server.protocol, &full) {
            Ok(sample) => slowest = slowest.min(sample.speed),
            Err(problem) => *result = Err(problem),
        }
    }
    if slowest.is_infinite() {
        return point;
    }
    point.paced(Pace::Schedule { per_s: ((slowest / 2.0) as u32).max(1) })
}

/// In which order the servers are asked in a round: every second one backwards, and starting with
/// another one each time.
fn order(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).map(|place| (round / 2 + place) % count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Flags, chosen, order, servers};

    #[test]
    fn the_order_changes_from_round_to_round() {
        let rounds: Vec<_> = (0..4).map(|round| order(round, 3)).collect();
        assert_eq!(rounds, [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]]);
        assert_eq!(order(3, 2), [0, 1]);
    }

    #[test]
    fn servers_are_chosen_by_name() {
        let names = ["ws".to_owned(), "gws".to_owned()];
        let servers = chosen(servers::known(), &names).unwrap();
        assert_eq!(servers.iter().map(|server| &*server.name).collect::<Vec<_>>(), ["gws", "ws"]);
        let problem = chosen(servers, &["nobody".to_owned()]).unwrap_err();
        assert_eq!(problem, "--servers: there is no nobody: there are gws, ws");
    }

    #[test]
    fn the_flags_are_sound() {
        Flags::command().debug_assert();
    }
}
