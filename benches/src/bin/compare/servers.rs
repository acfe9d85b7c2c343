//! The servers: what each needs, how it is built, and how it is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hioload_benches::builds::{self, Checkouts};

use crate::about;
use crate::config::{External, Protocol, with_port};

/// How long a shard of ours polls where servers may spin.
const SPIN_US: u64 = 100;

#[derive(Clone, Debug)]
enum Kind {
    /// The echo example, or raw echo, on the reactor of this name.
    Hioload(&'static str),
    UWebSockets,
    Gws,
    Ws,
    /// The program of its name in peers/rust, and the crate that it stands for.
    Rust(&'static str),
    External(External),
}

/// A server that can be measured.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    kind: Kind,
}

/// A server that is built.
pub(crate) struct Built {
    folder: PathBuf,
    program: PathBuf,
    kind: Kind,
    /// What it is a version of.
    pub(crate) version: String,
    /// Where its connections are accepted.
    pub(crate) path: String,
}

/// Those that are always there, ours first.
pub(crate) fn known() -> Vec<Server> {
    let server = |protocol| {
        move |(name, kind): (&str, Kind)| Server { name: name.to_owned(), protocol, kind }
    };
    let websocket = [
        ("hioload-uring", Kind::Hioload("uring")),
        ("hioload-epoll", Kind::Hioload("epoll")),
        ("uwebsockets", Kind::UWebSockets),
        ("gws", Kind::Gws),
        ("ws", Kind::Ws),
        ("tungstenite", Kind::Rust("tokio-tungstenite")),
        ("fastwebsockets", Kind::Rust("fastwebsockets")),
        ("tokio-websockets", Kind::Rust("tokio-websockets")),
        ("sockudo-ws", Kind::Rust("sockudo-ws")),
        ("ntex", Kind::Rust("ntex")),
    ];
    let tcp = [
        ("hioload-raw-uring", Kind::Hioload("uring")),
        ("hioload-raw-epoll", Kind::Hioload("epoll")),
        ("tokio", Kind::Rust("tokio")),
        ("monoio", Kind::Rust("monoio")),
        ("glommio", Kind::Rust("glommio")),
    ];
    let websocket = websocket.into_iter().map(server(Protocol::WebSocket));
    websocket.chain(tcp.into_iter().map(server(Protocol::Tcp))).collect()
}

/// One that somebody else built.
pub(crate) fn external(external: External) -> Server {
    let (name, protocol) = (external.name.clone(), external.protocol);
    Server { name, protocol, kind: Kind::External(external) }
}

impl Server {
    /// Builds it; the reason if that cannot be done.
    pub(crate) fn build(&self, checkouts: &Checkouts) -> Result<Built, String> {
        let folder = builds::peer_folder(&self.name)?;
        let mut path = "/".to_owned();
        let (program, version) = match &self.kind {
            Kind::Hioload(_) => {
                let program = match self.protocol {
                    Protocol::WebSocket => builds::build_example("echo")?,
                    Protocol::Tcp => builds::build_program("raw_echo")?,
                };
                (program, format!("hioload {}", about::commit(about::own_folder())))
            }
            Kind::UWebSockets => {
                let program = checkouts.build_uwebsockets(&folder, "zlib")?;
                (program, format!("uWebSockets {}", about::commit(&checkouts.uwebsockets()?)))
            }
            Kind::Gws => {
                let program = checkouts.build_gws(&folder)?;
                (program, format!("gws {}", about::commit(&checkouts.gws()?)))
            }
            Kind::Ws => {
                let node = about::first_line(Command::new("node").arg("--version"));
                (builds::build_ws(&folder)?, format!("ws of package-lock.json on node {node}"))
            }
            Kind::Rust(package) => {
                let program = builds::build_rust_peer(&self.name)?;
                (program, locked(&builds::rust_peers_lock()?, package))
            }
            Kind::External(external) => {
                path.clone_from(&external.path);
                (PathBuf::from(&external.command[0]), version(external))
            }
        };
        Ok(Built { folder, program, kind: self.kind.clone(), version, path })
    }
}

fn version(external: &External) -> String {
    match external.version.as_deref() {
        Some([program, arguments @ ..]) => about::first_line(Command::new(program).args(arguments)),
        _ => "unknown".to_owned(),
    }
}

/// A package and its version in a lock file.
fn locked(lock: &str, package: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    format!("{package} {}", version.unwrap_or("of no version").trim_matches('"'))
}

impl Built {
    /// Where its output goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Whether there is a way to start it so that it never sleeps.
    pub(crate) fn can_spin(&self) -> bool {
        match &self.kind {
            Kind::Hioload(_) => true,
            Kind::Rust(package) => *package == "glommio",
            Kind::External(external) => external.spin_command.is_some(),
            Kind::UWebSockets | Kind::Gws | Kind::Ws => false,
        }
    }

    /// What starts it on a port, for a core; so that it never sleeps if `spin` and it can.
    pub(crate) fn command(&self, port: u16, core: usize, spin: bool) -> Result<Command, String> {
        let mut command = Command::new(&self.program);
        let port_text = port.to_string();
        match &self.kind {
            Kind::Hioload(reactor) => {
                let config = self.folder.join("echo.toml");
                write(
                    &config,
                    &builds::hioload_configuration(core, if spin { SPIN_US } else { 0 })?,
                )?;
                command.arg("--config").arg(config).args(["--reactor", reactor]);
                command.args(["--addr", &format!("127.0.0.1:{port}")]);
            }
            Kind::UWebSockets | Kind::Gws => {
                command.args([port_text.as_str(), "plain"]);
            }
            Kind::Ws => {
                command = Command::new("node");
                command.arg(&self.program).args([port_text.as_str(), "plain"]);
            }
            Kind::Rust(_) => {
                command.arg(port_text).args((spin && self.can_spin()).then_some("spin"));
            }
            Kind::External(external) => {
                let spinning = external.spin_command.as_ref().filter(|_| spin);
                let words = with_port(spinning.unwrap_or(&external.command), port);
                command = Command::new(&words[0]);
                command.args(&words[1..]);
            }
        }
        Ok(command)
    }
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{known, locked};

    #[test]
    fn every_server_has_a_name_of_its_own() {
        let servers = known();
        let names: HashSet<_> = servers.iter().map(|server| &server.name).collect();
        assert_eq!(names.len(), servers.len());
    }

    #[test]
    fn a_version_is_found_in_a_lock_file() {
        let lock = "[[package]]\nname = \"tokio-macros\"\nversion = \"2.7.2\"\n\n\
                    [[package]]\nname = \"tokio\"\nversion = \"1.54.1\"\n";
        assert_eq!(locked(lock, "tokio"), "tokio 1.54.1");
        assert_eq!(locked(lock, "monoio"), "monoio of no version");
    }
}
