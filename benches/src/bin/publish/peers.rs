//! The servers: how each is built, and how it is started.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use hioload_benches::builds::{self, Checkouts};

use crate::server::{How, Reactor};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hioload(Reactor, How),
    UWebSockets,
}

/// A server that can be measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    kind: Kind,
}

/// All of them. Ratios are to the first that is there.
pub(crate) const PEERS: [Peer; 5] = [
    Peer { name: "uwebsockets", kind: Kind::UWebSockets },
    Peer { name: "hioload/uring", kind: Kind::Hioload(Reactor::Uring, How::Publish) },
    Peer { name: "hioload/epoll", kind: Kind::Hioload(Reactor::Epoll, How::Publish) },
    Peer { name: "hioload/uring+loop", kind: Kind::Hioload(Reactor::Uring, How::Loop) },
    Peer { name: "hioload/epoll+loop", kind: Kind::Hioload(Reactor::Epoll, How::Loop) },
];

/// A server that is built.
pub(crate) struct Built {
    peer: Peer,
    folder: PathBuf,
    program: PathBuf,
}

impl Peer {
    /// Builds it; the reason if that cannot be done.
    pub(crate) fn build(self, checkouts: &Checkouts) -> Result<Built, String> {
        let folder = builds::peer_folder(self.name)?;
        let program = match self.kind {
            // It is this program: see `Role`.
            Kind::Hioload(..) => env::current_exe().map_err(|error| error.to_string())?,
            Kind::UWebSockets => checkouts.build_uwebsockets(&folder, "zlib")?,
        };
        Ok(Built { peer: self, folder, program })
    }
}

impl Built {
    /// Where its output goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("publish.log")
    }

    /// What starts it on a port.
    pub(crate) fn command(&self, port: u16) -> Result<Command, String> {
        let mut command = Command::new(&self.program);
        match self.peer.kind {
            Kind::Hioload(reactor, how) => {
                command.args(["serve", "--addr", &format!("127.0.0.1:{port}")]);
                command.args(["--reactor", reactor.name(), "--how", how.name()]);
            }
            Kind::UWebSockets => {
                command.args([&port.to_string(), "publish"]);
            }
        }
        Ok(command)
    }
}
