//! Opening addresses, once per shard.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::ListenAddress;
use crate::reactor::Listener;

/// An address that cannot be listened on: what, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {}", advice(source))]
pub struct BindError {
    /// Which one.
    pub address: ListenAddress,
    /// The system's answer.
    pub source: io::Error,
}

/// An address that is listened on. Dropping it removes the file of a Unix socket.
#[derive(Debug)]
pub struct Bound {
    address: ListenAddress,
    /// The file that was made for it.
    file: Option<PathBuf>,
}

impl Bound {
    /// The address, with the port that the system chose for port 0.
    #[must_use]
    pub const fn address(&self) -> &ListenAddress {
        &self.address
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Whoever removed it before us did what we wanted.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Listens on an address with `copies` sockets: the kernel spreads TCP connections over them
/// (`SO_REUSEPORT`); those of a Unix socket go to whoever accepts first.
///
/// # Errors
/// The address is in use, also by another server of the same user that would share it silently;
/// or the system refuses it.
pub fn bind(
    address: &ListenAddress,
    backlog: u32,
    copies: usize,
) -> Result<(Vec<Listener>, Bound), BindError> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let opened = match address {
        ListenAddress::Tcp(tcp) => open_tcp(*tcp, backlog, copies),
        ListenAddress::Unix(path) => open_unix(path, backlog, copies),
    };
    opened.map_err(|source| BindError { address: address.clone(), source })
}

type Opened = (Vec<Listener>, Bound);

fn open_tcp(address: SocketAddr, backlog: i32, copies: usize) -> io::Result<Opened> {
    // Without SO_REUSEPORT this fails where anybody listens; with it, a second server of the same
    // user would take a part of the first one's connections, and neither would say so. The probe
    // stays bound until the first of the sockets is, so that no port 0 is drawn twice.
    let probe = tcp_socket(address)?;
    probe.bind(&address.into())?;
    let local = probe.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    probe.set_reuse_port(true)?;
    let mut listeners = Vec::new();
    for _ in 0..copies {
        let socket = tcp_socket(address)?;
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&local.into())?;
        listeners.push(socket);
    }
    drop(probe);
    for socket in &listeners {
        socket.listen(backlog)?;
    }
    let listeners = listeners.into_iter().map(|socket| std::net::TcpListener::from(socket).into());
    Ok((listeners.collect(), Bound { address: ListenAddress::Tcp(local), file: None }))
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A server that was just stopped leaves connections in TIME_WAIT, which are no reason to wait.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn open_unix(path: &Path, backlog: i32, copies: usize) -> io::Result<Opened> {
    let address = SockAddr::unix(path)?;
    remove_if_dead(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    let bound =
        Bound { address: ListenAddress::Unix(path.to_owned()), file: Some(path.to_owned()) };
    socket.listen(backlog)?;
    let mut listeners = Vec::new();
    for _ in 0..copies {
        let copy: std::os::fd::OwnedFd = socket.try_clone()?.into();
        listeners.push(copy.into());
    }
    Ok((listeners, bound))
}

/// Removes the file that a server left behind which did not end as it should.
fn remove_if_dead(path: &Path, address: &SockAddr) -> io::Result<()> {
    let is_socket = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // Somebody listens, or this user may not know: binding gives the error.
        _ => Ok(()),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there: find it with `ss -ltnp` (`ss -lxp` for a path), stop \
             it, or choose another address"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: see `ip address`",
        io::ErrorKind::PermissionDenied => {
            "choose a port above 1023 or a directory that this user may write to, or allow it \
             (CAP_NET_BIND_SERVICE)"
        }
        io::ErrorKind::NotFound => "make the directory first",
        _ => "choose another address",
    }
}
