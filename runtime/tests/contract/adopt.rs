//! Adopting: whose connection it was, how many there may be, and what a socket is called.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

use hioload::reactor::{Connection, Event, Reactor, Receive, Token};

use crate::bed::{Bed, token};
use crate::host::{LISTENER, write_some};
use crate::rigs::Limits;

contract![
    adopts_what_another_reactor_accepted,
    adopts_a_connection_that_crossed_threads,
    an_adopted_socket_receives_nothing_before_it_is_asked_to,
    a_full_table_refuses_and_closes_the_connection,
    a_closed_socket_makes_room,
    a_slot_used_again_has_another_generation,
    tokens_come_back_unchanged,
    stale_sockets_are_ignored,
    the_address_of_the_peer_is_known,
    a_socket_of_another_kind_is_refused,
    unix_sockets_are_streams_too,
];

fn adopts_what_another_reactor_accepted(bed: &Bed) {
    let mut acceptor = bed.host();
    let mut host = bed.host();
    let mut peer = bed.connect(acceptor.address).unwrap();
    let connection = acceptor.accepted();
    let socket = host.reactor.adopt(connection, token(7)).unwrap();
    host.reactor.receive(socket, Receive::Pool);
    write_some(&mut peer, b"to the second");
    assert_eq!(host.receives(token(7), 13), b"to the second");
    host.reactor.send(socket, [bed.shared(b"and back")]);
    assert_eq!(host.peer_reads(&mut peer, 8), b"and back");
    acceptor.stays_silent();
}

fn adopts_a_connection_that_crossed_threads(bed: &Bed) {
    let mut host = bed.host();
    let mut peer = bed.connect(host.address).unwrap();
    let connection = host.accepted();
    let connection = thread::spawn(move || connection).join().unwrap();
    let socket = host.reactor.adopt(connection, token(0)).unwrap();
    host.reactor.receive(socket, Receive::Pool);
    write_some(&mut peer, b"x");
    assert_eq!(host.receives(token(0), 1), b"x");
}

fn an_adopted_socket_receives_nothing_before_it_is_asked_to(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    write_some(&mut line.peer, b"early");
    host.stays_silent();
    host.reactor.receive(line.socket, Receive::Pool);
    assert_eq!(host.receives(line.token, 5), b"early");
}

fn a_full_table_refuses_and_closes_the_connection(bed: &Bed) {
    let mut host = bed.host_with(Limits { sockets_max: 3, ..Limits::default() });
    let lines = [host.open(), host.open()];
    let mut peer = bed.connect(host.address).unwrap();
    let connection = host.accepted();
    host.reactor.adopt(connection, token(9)).unwrap_err();
    host.peer_reads_to_end(&mut peer);
    assert_eq!(host.stats().sockets, 3);
    for mut line in lines {
        assert_eq!(host.carries(&mut line, b"unharmed"), b"unharmed");
    }
}

fn a_closed_socket_makes_room(bed: &Bed) {
    let mut host = bed.host_with(Limits { sockets_max: 2, ..Limits::default() });
    for _ in 0..20 {
        let mut line = host.open();
        assert_eq!(host.carries(&mut line, b"hello"), b"hello");
        host.closes(&line);
    }
    assert_eq!(host.stats().sockets, 1);
}

fn a_slot_used_again_has_another_generation(bed: &Bed) {
    let mut host = bed.host_with(Limits { sockets_max: 2, ..Limits::default() });
    let first = host.open();
    host.closes(&first);
    let second = host.open();
    assert_eq!(second.socket.index(), first.socket.index());
    assert_ne!(second.socket.generation(), first.socket.generation());
}

fn tokens_come_back_unchanged(bed: &Bed) {
    let mut host = bed.host();
    for number in [0, 1 << 63, u64::MAX, u64::MAX - 1, 0xffff_ffff] {
        let token = Token(number);
        let mut peer = bed.connect(host.address).unwrap();
        let connection = host.accepted();
        let socket = host.reactor.adopt(connection, token).unwrap();
        host.reactor.receive(socket, Receive::Pool);
        write_some(&mut peer, b"x");
        assert_eq!(host.receives(token, 1), b"x");
        host.reactor.close(socket);
        assert!(matches!(host.next(token), Event::Closed));
    }
}

fn stale_sockets_are_ignored(bed: &Bed) {
    let mut host = bed.host_with(Limits { sockets_max: 2, ..Limits::default() });
    let stale = host.open();
    host.closes(&stale);
    let mut line = host.open();
    assert_eq!(line.socket.index(), stale.socket.index());
    host.reactor.send(stale.socket, [bed.shared(b"from the grave")]);
    host.reactor.receive(stale.socket, Receive::Paused);
    host.reactor.receive(stale.socket, Receive::Into(bed.lease(100)));
    host.reactor.shutdown(stale.socket);
    host.reactor.accept(stale.socket, false);
    host.reactor.close(stale.socket);
    assert_eq!(host.reactor.peer_address(stale.socket), None);
    assert_eq!(host.reactor.local_address(stale.socket), None);
    host.stays_silent();
    assert_eq!(bed.in_use_bytes(), 0);
    assert_eq!(host.carries(&mut line, b"alive"), b"alive");
    host.reactor.send(line.socket, [bed.shared(b"and well")]);
    assert_eq!(host.peer_reads(&mut line.peer, 8), b"and well");
}

fn the_address_of_the_peer_is_known(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open();
    let address = host.reactor.peer_address(line.socket);
    match line.peer.address() {
        Some(expected) => assert_eq!(address, Some(expected)),
        None => assert!(address.is_some()),
    }
    assert_eq!(host.reactor.peer_address(host.listener), None);
    let local = host.reactor.local_address(line.socket);
    match line.peer.address() {
        Some(_) => assert_eq!(local, Some(host.address)),
        None => assert!(local.is_some_and(|local| Some(local) != address)),
    }
}

fn a_socket_of_another_kind_is_refused(bed: &Bed) {
    let mut host = bed.host();
    let foreign = if bed.is_simulated() {
        Connection::from(OwnedFd::from(UnixStream::pair().unwrap().0))
    } else {
        Connection::simulated(7)
    };
    host.reactor.adopt(foreign, token(0)).unwrap_err();
    assert_eq!(host.stats().sockets, 1);
    let _peer = bed.connect(host.address).unwrap();
    assert!(matches!(host.next(LISTENER), Event::Accepted(_)));
}

/// A simulated network has none of them, and says so when it is given one.
fn unix_sockets_are_streams_too(bed: &Bed) {
    let mut host = bed.host();
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let adopted = host.reactor.adopt(Connection::from(OwnedFd::from(ours)), token(0));
    if bed.is_simulated() {
        adopted.unwrap_err();
        return;
    }
    let socket = adopted.unwrap();
    host.reactor.receive(socket, Receive::Pool);
    peer.write_all(b"local").unwrap();
    assert_eq!(host.receives(token(0), 5), b"local");
    host.reactor.send(socket, [bed.shared(b"host")]);
    host.turn();
    let mut answer = [0; 4];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"host");
    assert_eq!(host.reactor.peer_address(socket), None);
    assert_eq!(host.reactor.local_address(socket), None);
    drop(peer);
    assert!(matches!(host.next(token(0)), Event::Ended));
    host.stays_silent();
    host.reactor.close(socket);
    assert!(matches!(host.next(token(0)), Event::Closed));
}
