//! The servers: what each needs, how it is built, and how it is started.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::script::{LEVEL, Mode};

/// The folder with the servers' sources.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Where the sources of others lie, as far as anybody said.
pub(crate) struct Checkouts {
    pub(crate) uwebsockets: Option<PathBuf>,
    pub(crate) gws: Option<PathBuf>,
    pub(crate) gws_compress: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The echo example, on the reactor of this name.
    Hioload(&'static str),
    /// uWebSockets, and the word that its build script takes for the variant.
    UWebSockets(&'static str),
    Gws,
    Ws,
}

/// A server that can be measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    kind: Kind,
}

/// All of them. Ratios are to the first that is there.
pub(crate) const PEERS: [Peer; 7] = [
    Peer { name: "uwebsockets", kind: Kind::UWebSockets("zlib") },
    Peer { name: "uwebsockets+libdeflate", kind: Kind::UWebSockets("libdeflate") },
    Peer { name: "uwebsockets+window", kind: Kind::UWebSockets("window") },
    Peer { name: "gws", kind: Kind::Gws },
    Peer { name: "ws", kind: Kind::Ws },
    Peer { name: "hioload/uring", kind: Kind::Hioload("uring") },
    Peer { name: "hioload/epoll", kind: Kind::Hioload("epoll") },
];

/// A server that is built.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) peer: Peer,
    folder: PathBuf,
    program: PathBuf,
}

impl Peer {
    /// Builds it into a folder under `out`; the reason if that cannot be done.
    pub(crate) fn build(self, out: &Path, checkouts: &Checkouts) -> Result<Built, String> {
        let folder = out.join(self.name.replace('/', "-"));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let program = match self.kind {
            Kind::Hioload(_) => build_example()?,
            Kind::UWebSockets(variant) => {
                let checkout = needed(checkouts.uwebsockets.as_deref(), "--uwebsockets")?;
                script("uwebsockets", &folder, &[&checkout, Path::new(variant)])?;
                folder.join("echo")
            }
            Kind::Gws => {
                let gws = needed(checkouts.gws.as_deref(), "--gws")?;
                let compress = needed(checkouts.gws_compress.as_deref(), "--gws-compress")?;
                script("gws", &folder, &[&gws, &compress])?;
                folder.join("echo")
            }
            Kind::Ws => {
                script("ws", &folder, &[])?;
                PathBuf::from("node")
            }
        };
        Ok(Built { peer: self, folder, program })
    }
}

impl Built {
    /// Where its output goes.
    pub(crate) fn log(&self, mode: Mode) -> PathBuf {
        self.folder.join(format!("{}.log", mode.name()))
    }

    /// Why there is no point in measuring it in this mode, if there is none.
    pub(crate) fn skip(&self, mode: Mode) -> Option<String> {
        let differs = match self.peer.kind {
            Kind::UWebSockets("libdeflate") => mode == Mode::NoContext,
            Kind::UWebSockets("window") => mode == Mode::Takeover,
            _ => true,
        };
        (!differs).then(|| "here it is no different from uwebsockets".to_owned())
    }

    /// What starts it on a port.
    pub(crate) fn command(&self, port: u16, mode: Mode) -> Result<Command, String> {
        let mut command = Command::new(&self.program);
        match self.peer.kind {
            Kind::Hioload(reactor) => {
                let config = self.folder.join(format!("{}.toml", mode.name()));
                fs::write(&config, configuration(mode)?)
                    .map_err(|error| format!("{}: {error}", config.display()))?;
                command.arg("--config").arg(config).args(["--reactor", reactor]);
                command.args(["--addr", &format!("127.0.0.1:{port}")]);
            }
            Kind::Ws => {
                command.arg(self.folder.join("server.mjs")).args([&port.to_string(), mode.name()]);
            }
            Kind::UWebSockets(_) | Kind::Gws => {
                command.args([&port.to_string(), mode.name()]);
            }
        }
        Ok(command)
    }
}

/// The file under peers/hioload, and what the mode adds to its last section.
fn configuration(mode: Mode) -> Result<String, String> {
    let file = Path::new(SOURCES).join("hioload/echo.toml");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let compression = match mode {
        Mode::NoContext => "no_context",
        Mode::Takeover => "dedicated_window",
        Mode::Plain => return Ok(text),
    };
    Ok(format!("{text}compression = \"{compression}\"\ncompression_level = {LEVEL}\n"))
}

fn needed(checkout: Option<&Path>, flag: &str) -> Result<PathBuf, String> {
    let checkout = checkout.ok_or_else(|| format!("no sources: say where with {flag} DIR"))?;
    fs::canonicalize(checkout).map_err(|error| format!("{}: {error}", checkout.display()))
}

/// Runs the build script of a peer, whose output is kept.
fn script(peer: &str, folder: &Path, arguments: &[&Path]) -> Result<(), String> {
    let mut command = Command::new(Path::new(SOURCES).join(peer).join("build"));
    command.arg(folder).args(arguments);
    run(command, &folder.join("build.log"))
}

/// Builds the echo example with the cargo that runs this; it lies beside this program's folder.
fn build_example() -> Result<PathBuf, String> {
    let own = env::current_exe().map_err(|error| error.to_string())?;
    let folder = own.parent().ok_or("this program lies in no folder")?;
    let target = folder.parent().ok_or("this program lies in no target folder")?;
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "-p", "hioload-examples", "--example", "echo"]);
    command.arg("--manifest-path").arg(Path::new(SOURCES).join("../Cargo.toml"));
    command.arg("--target-dir").arg(target);
    run(command, &target.join("deflate_echo-build.log"))?;
    Ok(target.join("release/examples/echo"))
}

fn run(mut command: Command, log: &Path) -> Result<(), String> {
    let output = fs::File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let errors = output.try_clone().map_err(|error| error.to_string())?;
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(output).stderr(errors).status();
    let status = status.map_err(|error| format!("{program} does not start: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("it could not be built ({}): {}", log.display(), last.trim()))
}
