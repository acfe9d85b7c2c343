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

/// The command line: the port, and whether the word that this server knows follows it.
pub fn port_and(word: Option<&str>) -> (u16, bool) {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let port = arguments.first().and_then(|port| port.parse().ok());
    match (port, arguments.get(1)) {
        (Some(port), None) => (port, false),
        (Some(port), given) if given.map(String::as_str) == word => (port, true),
        _ => {
            eprintln!("the port to listen on is wanted{}", word.map_or("", |_| ", or PORT spin"));
            exit(2)
        }
    }
}

/// A socket that listens on the port of the command line, does not block, and has the backlog of all servers here.
pub fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    let (port, _) = port_and(None);
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
