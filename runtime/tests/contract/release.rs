//! Releasing: a socket goes from the reactor to whoever has its connection next, and no byte is
//! lost on the way.

use hioload::reactor::{Connection, Event, Reactor, Receive};

use crate::bed::{Bed, pattern, token};
use crate::host::{Host, LISTENER, Line, write_some};

contract![
    released_is_told_once_and_last,
    a_released_connection_goes_on_elsewhere,
    it_goes_on_in_the_same_reactor_too,
    a_released_socket_makes_room,
    the_peer_notices_nothing,
    what_was_received_before_comes_first,
    what_nobody_received_is_left_in_the_socket,
    half_a_message_is_read_by_who_has_it,
    bytes_that_arrive_meanwhile_are_not_lost,
    a_stream_is_cut_without_a_gap,
    a_lease_that_got_nothing_goes_back,
    a_lease_that_got_bytes_comes_back_with_them,
    what_is_sent_leaves_first,
    a_blocked_send_leaves_first,
    a_fin_that_was_asked_for_leaves_first,
    the_end_of_the_peer_is_found_again,
    nothing_else_can_be_asked_of_it,
    releasing_twice_is_releasing_once,
    a_close_meanwhile_ends_it,
    a_close_while_a_send_is_blocked_ends_it,
    a_broken_socket_fails_instead,
    a_listener_is_not_released,
    nothing_is_left_of_many,
    a_connection_that_nobody_takes_is_closed,
];

/// Turns until a socket is released: what was received before, and its connection.
fn released(host: &mut Host<'_>, line: &Line) -> (Vec<u8>, Connection) {
    let mut received = Vec::new();
    loop {
        match host.next(line.token) {
            Event::Received(lease) => received.extend_from_slice(&lease),
            Event::ReceivedInto { lease, filled } => received.extend_from_slice(&lease[..filled]),
            Event::SendBlocked(_) | Event::Sent { .. } => {}
            Event::Released(connection) => return (received, connection),
            other => panic!("{other:?} instead of a release"),
        }
    }
}

/// Lets the peer write on and the reactor receive until there are `until` bytes.
fn goes_on(
    host: &mut Host<'_>,
    line: &mut Line,
    bytes: &[u8],
    (written, received): (&mut usize, &mut Vec<u8>),
    until: usize,
) {
    host.until("more of the stream", |host| {
        *written += write_some(&mut line.peer, &bytes[*written..]);
        while let Some(event) = host.queued(line.token) {
            let Event::Received(lease) = event else { panic!("{event:?} instead of bytes") };
            received.extend_from_slice(&lease);
        }
        (received.len() >= until).then_some(())
    });
}

/// The other side of a line in the hands of another reactor.
fn adopted(host: &mut Host<'_>, connection: Connection, line: Line) -> Line {
    let token = token(77);
    let socket = host.reactor.adopt(connection, token).unwrap();
    host.reactor.receive(socket, Receive::Pool);
    Line { peer: line.peer, socket, token }
}

fn released_is_told_once_and_last(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open();
    host.reactor.release(line.socket);
    assert!(matches!(host.next(line.token), Event::Released(_)));
    host.stays_silent();
    assert_eq!(host.stats().sockets, 1);
}

fn a_released_connection_goes_on_elsewhere(bed: &Bed) {
    let (mut first, mut second) = (bed.host(), bed.host());
    let mut line = first.open();
    assert_eq!(first.carries(&mut line, b"to the first"), b"to the first");
    first.reactor.release(line.socket);
    let (received, connection) = released(&mut first, &line);
    assert_eq!(received, b"");
    let mut line = adopted(&mut second, connection, line);
    assert_eq!(second.carries(&mut line, b"to the second"), b"to the second");
    second.reactor.send(line.socket, [bed.shared(b"and back")]);
    assert_eq!(second.peer_reads(&mut line.peer, 8), b"and back");
    first.stays_silent();
    second.closes(&line);
}

fn it_goes_on_in_the_same_reactor_too(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    for round in 0..10_u32 {
        assert_eq!(host.carries(&mut line, &round.to_le_bytes()), round.to_le_bytes());
        host.reactor.release(line.socket);
        let (_, connection) = released(&mut host, &line);
        line = adopted(&mut host, connection, line);
    }
    host.closes(&line);
}

fn a_released_socket_makes_room(bed: &Bed) {
    let limits = crate::rigs::Limits { sockets_max: 2, ..Default::default() };
    let mut host = bed.host_with(limits);
    let first = host.open();
    host.reactor.release(first.socket);
    let (_, connection) = released(&mut host, &first);
    let mut second = host.open();
    assert_eq!(second.socket.index(), first.socket.index());
    assert_ne!(second.socket.generation(), first.socket.generation());
    drop(connection);
    assert_eq!(host.carries(&mut second, b"unharmed"), b"unharmed");
}

fn the_peer_notices_nothing(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.release(line.socket);
    let (_, connection) = released(&mut host, &line);
    host.stays_silent();
    let mut bytes = Vec::new();
    assert!(!crate::host::read_some(&mut line.peer, &mut bytes), "it has ended");
    drop(connection);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"");
}

fn what_was_received_before_comes_first(bed: &Bed) {
    let (mut first, mut second) = (bed.host(), bed.host());
    let mut line = first.open();
    let bytes = pattern(50_000, 1);
    let mut written = write_some(&mut line.peer, &bytes);
    // Some of it is delivered, some on its way, some in the socket.
    first.turn();
    first.reactor.release(line.socket);
    let (mut received, connection) = released(&mut first, &line);
    let mut line = adopted(&mut second, connection, line);
    goes_on(&mut second, &mut line, &bytes, (&mut written, &mut received), bytes.len());
    assert!(received == bytes, "{} bytes", received.len());
}

fn what_nobody_received_is_left_in_the_socket(bed: &Bed) {
    let (mut first, mut second) = (bed.host(), bed.host());
    let mut line = first.open_paused();
    write_some(&mut line.peer, b"for the next");
    first.stays_silent();
    first.reactor.release(line.socket);
    let (received, connection) = released(&mut first, &line);
    assert_eq!(received, b"");
    let line = adopted(&mut second, connection, line);
    assert_eq!(second.receives(line.token, 12), b"for the next");
}

fn half_a_message_is_read_by_who_has_it(bed: &Bed) {
    let (mut first, mut second) = (bed.host(), bed.host());
    let mut line = first.open();
    write_some(&mut line.peer, b"half a ");
    assert_eq!(first.receives(line.token, 7), b"half a ");
    first.reactor.release(line.socket);
    let (received, connection) = released(&mut first, &line);
    assert_eq!(received, b"");
    write_some(&mut line.peer, b"message");
    first.stays_silent();
    let line = adopted(&mut second, connection, line);
    assert_eq!(second.receives(line.token, 7), b"message");
}

fn bytes_that_arrive_meanwhile_are_not_lost(bed: &Bed) {
    let (mut first, mut second) = (bed.host(), bed.host());
    for round in 0..50_u64 {
        let mut line = first.open();
        let bytes = pattern(3000, round);
        let mut written = write_some(&mut line.peer, &bytes[..1000]);
        if round % 2 == 0 {
            first.turn();
        }
        first.reactor.release(line.socket);
        written += write_some(&mut line.peer, &bytes[written..2000]);
        let (mut received, connection) = released(&mut first, &line);
        written += write_some(&mut line.peer, &bytes[written..]);
        let mut line = adopted(&mut second, connection, line);
        goes_on(&mut second, &mut line, &bytes, (&mut written, &mut received), bytes.len());
        assert!(received == bytes, "round {round}: {} bytes", received.len());
        second.closes(&line);
    }
    assert_eq!(first.stats().buffers_lent, 0);
}

fn a_stream_is_cut_without_a_gap(bed: &Bed) {
    let mut hosts = [bed.host(), bed.host()];
    let bytes = pattern(1 << 20, 5);
    let mut line = hosts[0].open();
    let (mut written, mut received) = (0, Vec::new());
    for round in 0.. {
        let host = &mut hosts[round % 2];
        let until = (received.len() + 20_000).min(bytes.len());
        goes_on(host, &mut line, &bytes, (&mut written, &mut received), until);
        if received.len() == bytes.len() {
            break;
        }
        host.reactor.release(line.socket);
        let (rest, connection) = released(host, &line);
        received.extend(rest);
        line = adopted(&mut hosts[(round + 1) % 2], connection, line);
    }
    assert!(received == bytes);
}

fn a_lease_that_got_nothing_goes_back(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open_paused();
    host.reactor.receive(line.socket, Receive::Into(bed.lease(4096)));
    host.turn();
    host.reactor.release(line.socket);
    assert!(matches!(host.next(line.token), Event::Released(_)));
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_lease_that_got_bytes_comes_back_with_them(bed: &Bed) {
    let (mut first, mut second) = (bed.host(), bed.host());
    for round in 0..20_u64 {
        let mut line = first.open_paused();
        let bytes = pattern(6000, round);
        first.reactor.receive(line.socket, Receive::Into(bed.lease(4096)));
        if round % 2 == 0 {
            first.turn();
        }
        let mut written = write_some(&mut line.peer, &bytes);
        if round % 3 == 0 {
            first.turn();
        }
        first.reactor.release(line.socket);
        let (mut received, connection) = released(&mut first, &line);
        assert_eq!(bed.in_use_bytes(), 0);
        let mut line = adopted(&mut second, connection, line);
        goes_on(&mut second, &mut line, &bytes, (&mut written, &mut received), bytes.len());
        assert!(received == bytes, "round {round}: {} bytes", received.len());
        second.closes(&line);
    }
}

fn what_is_sent_leaves_first(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.send(line.socket, [bed.shared(b"before "), bed.shared(b"that")]);
    host.reactor.release(line.socket);
    let (_, connection) = released(&mut host, &line);
    drop(connection);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"before that");
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_blocked_send_leaves_first(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_narrow();
    let bytes = pattern(1 << 20, 3);
    host.reactor.send(line.socket, [bed.shared(&bytes)]);
    host.reactor.release(line.socket);
    assert!(matches!(host.next(line.token), Event::SendBlocked(_)));
    for _ in 0..10 {
        host.turn();
    }
    let early =
        |completion: &hioload::reactor::Completion| matches!(completion.event, Event::Released(_));
    assert!(!host.queue.iter().any(early), "it was released before that had left");
    let mut read = host.peer_reads(&mut line.peer, bytes.len() - 1);
    let (_, connection) = released(&mut host, &line);
    drop(connection);
    read.extend(host.peer_reads_to_end(&mut line.peer));
    assert!(read == bytes, "{} bytes", read.len());
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_fin_that_was_asked_for_leaves_first(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.send(line.socket, [bed.shared(b"the last")]);
    host.reactor.shutdown(line.socket);
    host.reactor.release(line.socket);
    let (_, connection) = released(&mut host, &line);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"the last");
    drop(connection);
}

fn the_end_of_the_peer_is_found_again(bed: &Bed) {
    let (mut first, mut second) = (bed.host(), bed.host());
    let mut line = first.open();
    line.peer.shutdown();
    assert!(matches!(first.next(line.token), Event::Ended));
    first.reactor.release(line.socket);
    let (_, connection) = released(&mut first, &line);
    let mut line = adopted(&mut second, connection, line);
    assert!(matches!(second.next(line.token), Event::Ended));
    second.reactor.send(line.socket, [bed.shared(b"still sent")]);
    assert_eq!(second.peer_reads(&mut line.peer, 10), b"still sent");
}

fn nothing_else_can_be_asked_of_it(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.release(line.socket);
    host.reactor.receive(line.socket, Receive::Into(bed.lease(100)));
    host.reactor.receive(line.socket, Receive::Pool);
    host.reactor.send(line.socket, [bed.shared(b"too late")]);
    host.reactor.shutdown(line.socket);
    let (_, connection) = released(&mut host, &line);
    assert_eq!(bed.in_use_bytes(), 0);
    host.stays_silent();
    drop(connection);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"");
}

fn releasing_twice_is_releasing_once(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open();
    host.reactor.release(line.socket);
    host.reactor.release(line.socket);
    let (_, connection) = released(&mut host, &line);
    host.reactor.release(line.socket);
    host.stays_silent();
    drop(connection);
}

fn a_close_meanwhile_ends_it(bed: &Bed) {
    let mut host = bed.host();
    for round in 0..20_u64 {
        let mut line = host.open();
        if round % 2 == 0 {
            write_some(&mut line.peer, &pattern(5000, round));
        }
        host.reactor.release(line.socket);
        host.reactor.close(line.socket);
        loop {
            match host.next(line.token) {
                Event::Received(_) => {}
                // The connection is dropped here.
                Event::Closed | Event::Released(_) => break,
                other => panic!("{other:?}"),
            }
        }
        host.peer_reads_to_end(&mut line.peer);
        assert!(host.queued(line.token).is_none());
    }
    host.stays_silent();
    let stats = host.stats();
    assert_eq!((stats.sockets, stats.buffers_lent), (1, 0));
}

fn a_close_while_a_send_is_blocked_ends_it(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open_narrow();
    host.reactor.send(line.socket, [bed.shared(&pattern(1 << 20, 4))]);
    host.reactor.release(line.socket);
    assert!(matches!(host.next(line.token), Event::SendBlocked(_)));
    host.closes(&line);
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_broken_socket_fails_instead(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open_narrow();
    host.reactor.send(line.socket, [bed.shared(&pattern(1 << 20, 6))]);
    host.reactor.release(line.socket);
    assert!(matches!(host.next(line.token), Event::SendBlocked(_)));
    line.peer.reset();
    loop {
        match host.next(line.token) {
            Event::Sent { .. } => {}
            Event::Failed(_) => break,
            other => panic!("{other:?} instead of a failure"),
        }
    }
    host.stays_silent();
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_listener_is_not_released(bed: &Bed) {
    let mut host = bed.host();
    host.reactor.release(host.listener);
    let _peer = bed.connect(host.address).unwrap();
    assert!(matches!(host.next(LISTENER), Event::Accepted(_)));
}

fn nothing_is_left_of_many(bed: &Bed) {
    let mut host = bed.host();
    for round in 0..300_u32 {
        let mut line = host.open();
        assert_eq!(host.carries(&mut line, &round.to_le_bytes()), round.to_le_bytes());
        write_some(&mut line.peer, b"unread");
        host.reactor.send(line.socket, [bed.shared(b"sent")]);
        host.reactor.release(line.socket);
        drop(released(&mut host, &line));
    }
    host.turn();
    let stats = host.stats();
    assert_eq!((stats.sockets, stats.buffers_lent, bed.in_use_bytes()), (1, 0, 0));
}

fn a_connection_that_nobody_takes_is_closed(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.release(line.socket);
    host.turn();
    drop(host);
    let mut other = bed.host();
    assert_eq!(other.peer_reads_to_end(&mut line.peer), b"");
}
