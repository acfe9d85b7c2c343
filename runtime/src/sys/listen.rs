//! Listening sockets: one per shard, all of one address.
//!
//! Comes in: an address and how many sockets. Goes out: [`Listener`]s and what they are
//! [`Bound`] to, or one sentence that says who is in the way and what to do.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::ListenAddress;
use crate::reactor::Listener;

/// An address that the server listens on. Dropping it removes the file of a Unix socket; the
/// sockets themselves belong to whoever has the [`Listener`]s.
#[derive(Debug)]
pub struct Bound {
    address: ListenAddress,
    file: Option<SocketFile>,
}

impl Bound {
    /// The address, with the port that the system chose where port 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> &ListenAddress {
        &self.address
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let (ListenAddress::Unix(path), Some(file)) = (&self.address, self.file)
            && SocketFile::at(path) == Some(file)
        {
            // If it cannot be removed, the next server finds it dead and removes it.
            let _ = fs::remove_file(path);
        }
    }
}

/// An address cannot be listened on. One sentence: which, why, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody listens there.
    #[error("{address} is in use: `{who}` shows by whom; end that or change `server.listen`")]
    InUse {
        /// Which address.
        address: ListenAddress,
        /// The command that names the process.
        who: String,
    },
    /// This user may not.
    #[error("{address} is not allowed to this user: {advice}")]
    Denied {
        /// Which address.
        address: ListenAddress,
        /// What to do.
        advice: &'static str,
    },
    /// The address does not belong to this machine.
    #[error("{address} is no address of this machine: `ip address` lists them; or use 0.0.0.0")]
    NotHere {
        /// Which address.
        address: ListenAddress,
    },
    /// There is something at the path of a Unix socket that is no socket.
    #[error("{} is a file and no socket: move it away or change `server.listen`", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The directory of a Unix socket does not exist.
    #[error("{} lies in no directory: create that or change `server.listen`", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    System {
        /// Which address.
        address: ListenAddress,
        /// The system's answer.
        source: io::Error,
    },
}

/// Opens `copies` listening sockets of one address, non-blocking and closed on exec.
///
/// TCP: the kernel spreads connections over the sockets (SO_REUSEPORT), and these have no delay
/// (TCP_NODELAY is inherited). Unix: the sockets are duplicates of one. `backlog` is the number of
/// connections that each holds until they are accepted; the kernel caps it at
/// `net.core.somaxconn`.
///
/// # Errors
/// See [`BindError`]. A second server with the same address is always refused.
///
/// # Panics
/// If `copies` is 0.
pub fn bind(
    address: &ListenAddress,
    backlog: u32,
    copies: usize,
) -> Result<(Vec<Listener>, Bound), BindError> {
    assert!(copies > 0, "somebody must listen");
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    match address {
        ListenAddress::Tcp(tcp) => {
            bind_tcp(*tcp, backlog, copies).map_err(|source| explain_tcp(*tcp, source))
        }
        ListenAddress::Unix(path) => bind_unix(path, backlog, copies),
    }
}

/// The first socket listens alone, without SO_REUSEPORT: that fails if anybody else listens, also
/// another server of this user, who could otherwise share the port unnoticed. Only then it, and the
/// others with it, become a group; as one of them always listens, nobody can slip in between.
fn bind_tcp(
    address: SocketAddr,
    backlog: i32,
    copies: usize,
) -> io::Result<(Vec<Listener>, Bound)> {
    let (first, address) = match tcp_socket(address, false, backlog) {
        // No IPv6 on this machine: all interfaces are all that speak IPv4.
        Err(error) if is_any_v6(address) && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            tcp_socket((Ipv4Addr::UNSPECIFIED, address.port()).into(), false, backlog)?
        }
        first => first?,
    };
    first.set_reuse_port(true)?;
    let mut listeners = vec![listener(first)];
    for _ in 1..copies {
        listeners.push(listener(tcp_socket(address, true, backlog)?.0));
    }
    Ok((listeners, Bound { address: ListenAddress::Tcp(address), file: None }))
}

/// A socket that listens, and where.
fn tcp_socket(address: SocketAddr, shared: bool, backlog: i32) -> io::Result<(Socket, SocketAddr)> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Connections of an earlier server that linger in TIME_WAIT shall not keep us out.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        // Whatever the system's default is: all interfaces means IPv4 too.
        socket.set_only_v6(!is_any_v6(address))?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket, bound))
}

fn is_any_v6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn explain_tcp(tcp: SocketAddr, source: io::Error) -> BindError {
    let address = ListenAddress::Tcp(tcp);
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            BindError::InUse { address, who: format!("ss -ltnp 'sport = :{}'", tcp.port()) }
        }
        io::ErrorKind::AddrNotAvailable => BindError::NotHere { address },
        io::ErrorKind::PermissionDenied => BindError::Denied {
            address,
            advice: "ports below 1024 need CAP_NET_BIND_SERVICE; use a higher one or grant it",
        },
        _ => BindError::System { address, source },
    }
}

/// A socket file that nobody listens on any more is in the way of the next server, so it is
/// removed; nothing else ever is.
fn bind_unix(
    path: &Path,
    backlog: i32,
    copies: usize,
) -> Result<(Vec<Listener>, Bound), BindError> {
    let explain = |source| explain_unix(path, source);
    let name = SockAddr::unix(path).map_err(explain)?;
    let first = match unix_socket(&name, backlog) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_dead(path, &name)?;
            unix_socket(&name, backlog).map_err(explain)?
        }
        first => first.map_err(explain)?,
    };
    let bound = Bound { address: ListenAddress::Unix(path.into()), file: SocketFile::at(path) };
    let others: Vec<Socket> =
        (1..copies).map(|_| first.try_clone()).collect::<io::Result<_>>().map_err(explain)?;
    Ok((std::iter::once(first).chain(others).map(listener).collect(), bound))
}

fn unix_socket(name: &SockAddr, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(name)?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// Removes the file of a socket on which nobody listens.
fn remove_dead(path: &Path, name: &SockAddr) -> Result<(), BindError> {
    let explain = |source| explain_unix(path, source);
    let found = SocketFile::at(path);
    let Some(file) = found else { return Err(BindError::NoSocket { path: path.to_owned() }) };
    let kind = Type::STREAM.nonblocking().cloexec();
    let probe = Socket::new(Domain::UNIX, kind, None).map_err(explain)?;
    match probe.connect(name) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // Somebody took it, is too busy to (EAGAIN), or may not be asked: alive.
        _ => return Err(explain(io::ErrorKind::AddrInUse.into())),
    }
    if SocketFile::at(path) != Some(file) {
        return Err(explain(io::ErrorKind::AddrInUse.into()));
    }
    fs::remove_file(path).map_err(explain)
}

fn explain_unix(path: &Path, source: io::Error) -> BindError {
    let address = ListenAddress::Unix(path.to_owned());
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            BindError::InUse { address, who: format!("ss -lxp src {}", path.display()) }
        }
        io::ErrorKind::NotFound => BindError::NoDirectory { path: path.to_owned() },
        io::ErrorKind::PermissionDenied => BindError::Denied {
            address,
            advice: "let it write to the directory, or use one that it may write to",
        },
        _ => BindError::System { address, source },
    }
}

/// The identity of a socket's file, so that a server removes only its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SocketFile {
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// That of the socket at `path`; `None` if there is nothing, or something else.
    fn at(path: &Path) -> Option<Self> {
        let file = fs::symlink_metadata(path).ok()?;
        let identity = Self { device: file.dev(), inode: file.ino() };
        file.file_type().is_socket().then_some(identity)
    }
}

fn listener(socket: Socket) -> Listener {
    OwnedFd::from(socket).into()
}
