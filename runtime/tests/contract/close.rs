//! Closing: what it drops, what it gives back, and that nothing comes after it.

use hioload::reactor::{Event, Reactor, Receive};

use crate::bed::{Bed, pattern};
use crate::host::{LISTENER, write_some};

contract![
    closed_is_told_once_and_last,
    closing_twice_is_closing_once,
    the_peer_sees_the_end,
    a_close_drops_what_was_not_sent,
    a_close_right_after_a_small_send_loses_nothing,
    a_close_right_after_adopting,
    a_close_forgets_what_was_not_delivered,
    a_close_while_bytes_arrive,
    everything_returns_to_zero,
    hundreds_of_short_connections_leave_nothing_behind,
    dropping_a_reactor_ends_its_connections,
    dropping_a_reactor_gives_everything_back,
];

fn closed_is_told_once_and_last(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open();
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
    host.stays_silent();
}

fn closing_twice_is_closing_once(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open();
    host.reactor.close(line.socket);
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
    host.reactor.close(line.socket);
    host.stays_silent();
}

fn the_peer_sees_the_end(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.close(line.socket);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"");
}

fn a_close_drops_what_was_not_sent(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_narrow();
    let bytes = pattern(1 << 20, 1);
    host.reactor.send(line.socket, [bed.shared(&bytes)]);
    assert!(matches!(host.next(line.token), Event::SendBlocked(_)));
    host.closes(&line);
    assert_eq!(bed.in_use_bytes(), 0);
    let received = host.peer_reads_to_end(&mut line.peer);
    assert!(received.len() < bytes.len());
    assert!(bytes.starts_with(&received));
}

fn a_close_right_after_a_small_send_loses_nothing(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.send(line.socket, [bed.shared(b"farewell")]);
    host.turn();
    host.reactor.close(line.socket);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"farewell");
}

fn a_close_right_after_adopting(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open_paused();
    host.reactor.receive(line.socket, Receive::Pool);
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
    host.stays_silent();
}

fn a_close_forgets_what_was_not_delivered(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    write_some(&mut line.peer, b"never read");
    host.stays_silent();
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
    host.stays_silent();
    host.peer_reads_to_end(&mut line.peer);
}

fn a_close_while_bytes_arrive(bed: &Bed) {
    let mut host = bed.host();
    for round in 0..50 {
        let mut line = host.open();
        write_some(&mut line.peer, &pattern(5000, round));
        if round % 2 == 0 {
            host.turn();
        }
        host.reactor.close(line.socket);
        // What was in flight may still come, but nothing after the last.
        loop {
            match host.next(line.token) {
                Event::Received(_) => {}
                Event::Closed => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(host.queued(line.token).is_none());
    }
    host.stays_silent();
    assert_eq!(host.stats().buffers_lent, 0);
}

fn everything_returns_to_zero(bed: &Bed) {
    let mut host = bed.host();
    let mut lines: Vec<_> = (0..20).map(|_| host.open()).collect();
    for line in &mut lines {
        host.reactor.send(line.socket, [bed.shared(b"hello")]);
        write_some(&mut line.peer, b"hello");
        assert_eq!(host.receives(line.token, 5), b"hello");
    }
    for line in &lines {
        host.closes(line);
    }
    host.reactor.close(host.listener);
    assert!(matches!(host.next(LISTENER), Event::Closed));
    host.turn();
    let stats = host.stats();
    assert_eq!((stats.sockets, stats.buffers_lent), (0, 0));
    assert_eq!(bed.in_use_bytes(), 0);
}

fn hundreds_of_short_connections_leave_nothing_behind(bed: &Bed) {
    let mut host = bed.host();
    for round in 0..500_u32 {
        let mut line = host.open();
        assert_eq!(host.carries(&mut line, &round.to_le_bytes()), round.to_le_bytes());
        match round % 3 {
            0 => line.peer.shutdown(),
            1 => host.reactor.shutdown(line.socket),
            _ => {}
        }
        host.closes(&line);
    }
    host.turn();
    let stats = host.stats();
    assert_eq!((stats.sockets, stats.buffers_lent), (1, 0));
}

fn dropping_a_reactor_ends_its_connections(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    drop(host.reactor);
    let mut other = bed.host();
    assert_eq!(other.peer_reads_to_end(&mut line.peer), b"");
}

fn dropping_a_reactor_gives_everything_back(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_narrow();
    let other = host.open_paused();
    host.reactor.send(line.socket, [bed.shared(&pattern(1 << 20, 2))]);
    host.reactor.receive(other.socket, Receive::Into(bed.lease(4096)));
    host.turn();
    write_some(&mut line.peer, b"unread");
    assert!(bed.in_use_bytes() > 0);
    drop(host);
    assert_eq!(bed.in_use_bytes(), 0);
}
