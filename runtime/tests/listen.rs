//! Listening sockets: who gets an address, who does not, and what is left behind.
#![cfg(target_os = "linux")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use hioload::config::ListenAddress;
use hioload::reactor::Listener;
use hioload::sys::listen::{BindError, Bound, bind};
use rstest::rstest;

const BACKLOG: u32 = 128;

fn local(port: u16) -> ListenAddress {
    ListenAddress::Tcp(([127, 0, 0, 1], port).into())
}

fn tcp_address(bound: &Bound) -> SocketAddr {
    match bound.address() {
        ListenAddress::Tcp(address) => *address,
        ListenAddress::Unix(path) => panic!("{} is no TCP address", path.display()),
    }
}

fn tcp_listeners(listeners: Vec<Listener>) -> Vec<TcpListener> {
    listeners
        .into_iter()
        .map(|listener| TcpListener::from(listener.into_descriptor().expect("a real one")))
        .collect()
}

#[test]
fn all_copies_share_the_port_that_the_system_chose_and_get_connections() {
    let (listeners, bound) = bind(&local(0), BACKLOG, 3).unwrap();
    let address = tcp_address(&bound);
    assert_ne!(address.port(), 0);
    let listeners = tcp_listeners(listeners);
    assert!(listeners.iter().all(|one| one.local_addr().unwrap() == address));

    // Which socket gets a connection is a hash of its ports: 256 miss none of three.
    let clients: Vec<_> = (0..256).map(|_| TcpStream::connect(address).unwrap()).collect();
    let accepted: Vec<usize> = listeners
        .iter()
        .map(|listener| std::iter::from_fn(|| listener.accept().ok()).count())
        .collect();
    assert_eq!(accepted.iter().sum::<usize>(), clients.len());
    assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
}

#[test]
fn accepting_never_blocks_and_what_is_accepted_has_no_delay() {
    let (listeners, bound) = bind(&local(0), BACKLOG, 1).unwrap();
    let [listener] = &tcp_listeners(listeners)[..] else { panic!("one was asked for") };
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let _client = TcpStream::connect(tcp_address(&bound)).unwrap();
    assert!(listener.accept().unwrap().0.nodelay().unwrap());
}

#[test]
fn a_second_server_is_refused_while_the_first_one_listens() {
    let (listeners, bound) = bind(&local(0), BACKLOG, 2).unwrap();
    let port = tcp_address(&bound).port();
    let error = bind(&local(port), BACKLOG, 2).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "127.0.0.1:{port} is in use: `ss -ltnp 'sport = :{port}'` shows by whom; end that or \
             change `server.listen`"
        )
    );
    drop(listeners);
    bind(&local(port), BACKLOG, 2).unwrap();
}

#[test]
fn another_program_is_not_joined_either() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = bind(&local(other.local_addr().unwrap().port()), BACKLOG, 2).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
}

#[test]
fn connections_of_an_earlier_server_do_not_keep_the_next_one_out() {
    let (listeners, bound) = bind(&local(0), BACKLOG, 1).unwrap();
    let address = tcp_address(&bound);
    let mut client = TcpStream::connect(address).unwrap();
    let (server, _) = tcp_listeners(listeners)[0].accept().unwrap();
    // The server closes first, so the connection lingers on its side.
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    bind(&ListenAddress::Tcp(address), BACKLOG, 2).unwrap();
}

#[test]
fn all_interfaces_are_those_of_ipv4_too() {
    let (listeners, bound) = bind(&":0".parse().unwrap(), BACKLOG, 2).unwrap();
    let listeners = tcp_listeners(listeners);
    let _client = TcpStream::connect(("127.0.0.1", tcp_address(&bound).port())).unwrap();
    let accepted = listeners.iter().filter(|listener| listener.accept().is_ok()).count();
    assert_eq!(accepted, 1);
}

#[test]
fn an_address_of_another_machine_is_told_from_one_in_use() {
    // 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
    let error = bind(&"192.0.2.1:9001".parse().unwrap(), BACKLOG, 1).unwrap_err();
    assert!(matches!(error, BindError::NotHere { .. }), "{error:?}");
    assert!(error.to_string().starts_with("192.0.2.1:9001 is no address of this machine"));
}

fn unix(path: &Path) -> ListenAddress {
    ListenAddress::Unix(path.to_owned())
}

#[test]
fn a_unix_socket_is_shared_by_its_copies_and_removed_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo.sock");
    let (listeners, bound) = bind(&unix(&path), BACKLOG, 2).unwrap();
    assert_eq!(*bound.address(), unix(&path));
    let listeners: Vec<_> = listeners
        .into_iter()
        .map(|listener| UnixListener::from(listener.into_descriptor().unwrap()))
        .collect();
    for listener in &listeners {
        let mut client = UnixStream::connect(&path).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
    drop(bound);
    assert!(!path.exists());
}

#[test]
fn the_socket_of_a_dead_server_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves the file");
    let (_listeners, _bound) = bind(&unix(&path), BACKLOG, 1).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn the_socket_of_a_live_server_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo.sock");
    let _other = UnixListener::bind(&path).unwrap();
    let error = bind(&unix(&path), BACKLOG, 1).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("ss -lxp"), "{error}");
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_server_at_its_end_leaves_the_socket_of_its_successor() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo.sock");
    let (_first, old) = bind(&unix(&path), BACKLOG, 1).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (_second, _new) = bind(&unix(&path), BACKLOG, 1).unwrap();
    drop(old);
    UnixStream::connect(&path).unwrap();
}

#[rstest]
#[case::file("taken", "is a file and no socket: move it away or change `server.listen`")]
#[case::no_directory("missing/echo.sock", "lies in no directory: create that or change ")]
fn a_path_that_cannot_be_a_socket_is_named(#[case] name: &str, #[case] problem: &str) {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken");
    std::fs::write(&taken, "precious").unwrap();
    let path = directory.path().join(name);
    let sentence = bind(&unix(&path), BACKLOG, 1).unwrap_err().to_string();
    assert!(sentence.starts_with(&format!("{} {problem}", path.display())), "{sentence}");
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "precious");
}
