//! One measurement: a server is started on its core, loaded from the other, and ended.
//!
//! Nothing else runs meanwhile, so that a server that spins or has a thread that wakes up takes no
//! time from the one that is measured; and every round has a new process, so that where the
//! memory of one happens to lie is part of the spread.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hioload_benches::machine::Cores;
use hioload_benches::server::Server;

use crate::config::Protocol;
use crate::points::{Pace, Point, Work};
use crate::sample::Sample;
use crate::servers::Built;

/// What the load generator may need on top of what it is told: to connect, and to close.
const SPARE_TIME: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// How everything is measured.
pub(crate) struct Method {
    pub(crate) cores: Cores,
    pub(crate) rounds: usize,
    pub(crate) measure: Duration,
    pub(crate) warm_up: Duration,
    /// The load generator.
    pub(crate) load: PathBuf,
    /// Where its output goes.
    pub(crate) folder: PathBuf,
}

impl Method {
    /// Measures a server at a point.
    pub(crate) fn measure(
        &self,
        built: &Built,
        protocol: Protocol,
        point: &Point,
    ) -> Result<Sample, String> {
        let core = self.cores.servers;
        let command = |port| built.command(port, core, point.spins());
        let mut server = Server::start(command, self.cores, &built.log())?;
        let url = match protocol {
            Protocol::WebSocket => format!("ws://{}{}", server.address(), built.path),
            Protocol::Tcp => format!("tcp://{}", server.address()),
        };
        let said = self.run(self.command(&url, server.id(), point));
        if let Some(status) = server.ended() {
            return Err(format!("it ended with {status} ({})", built.log().display()));
        }
        Sample::read(&said?, point.work)
    }

    fn command(&self, url: &str, server: u32, point: &Point) -> Command {
        let mut command = Command::new(&self.load);
        command.arg(url).arg("--json");
        let mut flag = |name: &str, value: String| {
            command.arg(name).arg(value);
        };
        flag("--connections", point.connections.to_string());
        flag("--cpu", self.cores.clients.to_string());
        flag("--server-pid", server.to_string());
        flag("--duration", self.measure.as_secs_f64().to_string());
        flag("--warm-up", self.warm_up.as_secs_f64().to_string());
        match point.work {
            Work::Idle => {
                command.arg("--idle");
            }
            Work::Echo { in_flight, bytes, pace } => {
                flag("--size", bytes.to_string());
                match pace {
                    Pace::Schedule { per_s } => flag("--rate", per_s.to_string()),
                    Pace::Replies | Pace::Spinning => flag("--in-flight", in_flight.to_string()),
                }
                command.args(point.spins().then_some("--spin"));
            }
        }
        command
    }

    /// Runs the load generator; what it printed.
    fn run(&self, mut command: Command) -> Result<String, String> {
        let (said, complaint) = (self.folder.join("load.json"), self.folder.join("load.log"));
        let create = |file: &PathBuf| {
            File::create(file).map_err(|error| format!("{}: {error}", file.display()))
        };
        command.stdin(Stdio::null()).stdout(create(&said)?).stderr(create(&complaint)?);
        let child = command.spawn();
        let child =
            child.map_err(|error| format!("{} does not start: {error}", self.load.display()))?;
        let end = Instant::now() + self.warm_up + self.measure + SPARE_TIME;
        if Load(child).succeeded(end)? {
            return fs::read_to_string(&said)
                .map_err(|error| format!("{}: {error}", said.display()));
        }
        let text = fs::read_to_string(&complaint).unwrap_or_default();
        let last = text.lines().rfind(|line| !line.trim().is_empty());
        Err(last.unwrap_or("the load generator failed without a word").trim().to_owned())
    }
}

/// The load generator, which ends with this.
struct Load(Child);

impl Load {
    fn succeeded(&mut self, end: Instant) -> Result<bool, String> {
        loop {
            if let Some(status) = self.0.try_wait().map_err(|error| error.to_string())? {
                return Ok(status.success());
            }
            if Instant::now() > end {
                return Err("the load generator did not end in time".to_owned());
            }
            sleep(POLL);
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // An error means that it ended by itself, as it should.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
