//! The servers: what each needs, how it is built, and how it is started.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use hioload_benches::builds::{self, Checkouts, build_example, build_ws};

use crate::script::{LEVEL, Mode};

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
    /// Builds it; the reason if that cannot be done.
    pub(crate) fn build(self, checkouts: &Checkouts) -> Result<Built, String> {
        let folder = builds::peer_folder(self.name)?;
        let program = match self.kind {
            Kind::Hioload(_) => build_example("echo")?,
            Kind::UWebSockets(variant) => checkouts.build_uwebsockets(&folder, variant)?,
            Kind::Gws => checkouts.build_gws(&folder)?,
            Kind::Ws => build_ws(&folder)?,
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

    /// What starts it on a port, and on a core if it is to be told.
    pub(crate) fn command(&self, port: u16, core: usize, mode: Mode) -> Result<Command, String> {
        let mut command = Command::new(&self.program);
        match self.peer.kind {
            Kind::Hioload(reactor) => {
                let config = self.folder.join(format!("{}.toml", mode.name()));
                fs::write(&config, configuration(core, mode)?)
                    .map_err(|error| format!("{}: {error}", config.display()))?;
                command.arg("--config").arg(config).args(["--reactor", reactor]);
                command.args(["--addr", &format!("127.0.0.1:{port}")]);
            }
            Kind::Ws => {
                command = Command::new("node");
                command.arg(&self.program).args([&port.to_string(), mode.name()]);
            }
            Kind::UWebSockets(_) | Kind::Gws => {
                command.args([&port.to_string(), mode.name()]);
            }
        }
        Ok(command)
    }
}

/// The file under peers/hioload, and what the mode adds to its last section.
fn configuration(core: usize, mode: Mode) -> Result<String, String> {
    let text = builds::hioload_configuration(core, 0)?;
    let compression = match mode {
        Mode::NoContext => "no_context",
        Mode::Takeover => "dedicated_window",
        Mode::Plain => return Ok(text),
    };
    Ok(format!("{text}compression = \"{compression}\"\ncompression_level = {LEVEL}\n"))
}
