//! What the servers here share: their command line, the socket they listen on, and the loops of
//! those on tokio.

use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::exit;

use socket2::{Domain, Socket, Type};

#[cfg(feature = "streams")]
pub mod streams;
#[cfg(feature = "tokio")]
pub mod tasks;

/// Connections that may wait to be accepted: more than a load opens at once.
pub const BACKLOG: i32 = 4096;
/// Room for a read of the raw servers, and the largest single one.
pub const READ_BYTES: usize = 64 * 1024;

/// The port on the command line: `NAME PORT`.
pub fn port() -> u16 {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(|port| port.parse()) {
        Some(Ok(port)) if arguments.len() == 1 => port,
        _ => {
            eprintln!("the port to listen on is wanted, and nothing else");
            exit(2)
        }
    }
}

/// Where to listen.
pub fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port()).into()
}

/// A socket that listens there, does not block, and has the backlog of all servers here.
pub fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address().into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
