//! Who calls whom: the pairs of a point, and how each end is started.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use hioload::config::ReactorChoice;
use hioload_benches::builds;

use crate::call::How;

/// How to talk to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reactor {
    Uring,
    Epoll,
}

impl Reactor {
    /// What it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

impl From<Reactor> for ReactorChoice {
    fn from(reactor: Reactor) -> Self {
        match reactor {
            Reactor::Uring => Self::Uring,
            Reactor::Epoll => Self::Epoll,
        }
    }
}

/// One end of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Go,
    Ours(Reactor, How),
}

/// The other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Go,
    Ours(Reactor),
    /// Bytes without iproto.
    Raw(Reactor),
}

impl Client {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Go => "go".to_owned(),
            Self::Ours(reactor, how) => format!("{}/{}", reactor.name(), how.name()),
        }
    }
}

impl Server {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Go => "go".to_owned(),
            Self::Ours(reactor) => reactor.name().to_owned(),
            Self::Raw(reactor) => format!("{}/raw", reactor.name()),
        }
    }
}

/// A client and its server.
pub(crate) type Pair = (Client, Server);

/// What one connection is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) in_flight: u16,
    pub(crate) bytes: u16,
    /// For both ends of ours: how long they poll before they sleep.
    pub(crate) spin_us: u64,
    pub(crate) warm_up_ms: u64,
    pub(crate) measure_ms: u64,
}

/// Everything that is started.
pub(crate) struct Programs {
    /// This program, which is both ends of ours.
    own: PathBuf,
    raw_echo: PathBuf,
    pub(crate) load: PathBuf,
    /// Why it is not there, if it is not.
    go: Result<PathBuf, String>,
    /// Where output goes.
    pub(crate) folder: PathBuf,
}

impl Programs {
    pub(crate) fn build(go: Option<&Path>) -> Result<Self, String> {
        let folder = builds::peer_folder("iproto")?;
        Ok(Self {
            own: env::current_exe().map_err(|error| error.to_string())?,
            raw_echo: builds::build_program("raw_echo")?,
            load: builds::build_program("load")?,
            go: builds::build_go_iproto(&builds::peer_folder("go-iproto")?, go),
            folder,
        })
    }

    /// Why Go cannot be measured.
    pub(crate) fn go_problem(&self) -> Option<&str> {
        self.go.as_ref().err().map(String::as_str)
    }

    /// What starts a server on a port.
    pub(crate) fn serve(&self, server: Server, port: u16, work: &Work) -> Result<Command, String> {
        let address = format!("127.0.0.1:{port}");
        Ok(match server {
            Server::Go => {
                let mut command = Command::new(self.go.as_ref().map_err(Clone::clone)?);
                command.args(["serve", &address]);
                command
            }
            Server::Ours(reactor) => {
                let mut command = Command::new(&self.own);
                command.args(["serve", "--addr", &address, "--reactor", reactor.name()]);
                command.args(["--spin-us", &work.spin_us.to_string()]);
                command
            }
            Server::Raw(reactor) => {
                let mut command = Command::new(&self.raw_echo);
                command.args(["--addr", &address, "--reactor", reactor.name()]);
                command
            }
        })
    }

    /// What starts a client of that address, behind which is that process.
    pub(crate) fn call(
        &self,
        client: Client,
        address: &str,
        server: u32,
        work: &Work,
    ) -> Result<Command, String> {
        let numbers = [
            u64::from(server),
            u64::from(work.in_flight),
            u64::from(work.bytes),
            work.warm_up_ms,
            work.measure_ms,
        ];
        let numbers = numbers.map(|number| number.to_string());
        Ok(match client {
            Client::Go => {
                let mut command = Command::new(self.go.as_ref().map_err(Clone::clone)?);
                command.args(["call", address]).args(numbers);
                command
            }
            Client::Ours(reactor, how) => {
                let mut command = Command::new(&self.own);
                command.args(["call", "--addr", address, "--reactor", reactor.name()]);
                command.args(["--how", how.name(), "--spin-us", &work.spin_us.to_string()]);
                let flags =
                    ["--server-pid", "--in-flight", "--bytes", "--warm-up-ms", "--measure-ms"];
                for (flag, number) in flags.iter().zip(numbers) {
                    command.arg(flag).arg(number);
                }
                command
            }
        })
    }
}
