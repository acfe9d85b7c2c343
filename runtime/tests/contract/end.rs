//! The peer's end: FIN, half close and reset, and in which order they are told.

use hioload::reactor::{Event, Reactor, Receive};

use crate::bed::{Bed, pattern};
use crate::host::write_some;

contract![
    an_end_is_told_once,
    bytes_before_an_end_come_before_it,
    after_an_end_sending_still_works,
    an_end_while_paused_is_told_when_resumed,
    after_our_end_receiving_still_works,
    both_ends_are_told,
    a_reset_is_told_once,
    a_reset_while_paused_is_told_at_last,
    receiving_after_an_end_brings_nothing,
    a_failed_socket_ignores_everything_but_its_close,
];

fn an_end_is_told_once(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    line.peer.shutdown();
    assert!(matches!(host.next(line.token), Event::Ended));
    host.stays_silent();
}

fn bytes_before_an_end_come_before_it(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let bytes = pattern(20_000, 3);
    assert_eq!(write_some(&mut line.peer, &bytes), bytes.len());
    line.peer.shutdown();
    assert!(host.receives(line.token, bytes.len()) == bytes);
    assert!(matches!(host.next(line.token), Event::Ended));
}

fn after_an_end_sending_still_works(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    line.peer.shutdown();
    assert!(matches!(host.next(line.token), Event::Ended));
    for _ in 0..3 {
        host.reactor.send(line.socket, [bed.shared(b"last words")]);
        assert_eq!(host.peer_reads(&mut line.peer, 10), b"last words");
    }
    host.stays_silent();
}

fn an_end_while_paused_is_told_when_resumed(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    write_some(&mut line.peer, b"bye");
    line.peer.shutdown();
    host.stays_silent();
    host.reactor.receive(line.socket, Receive::Pool);
    assert_eq!(host.receives(line.token, 3), b"bye");
    assert!(matches!(host.next(line.token), Event::Ended));
}

fn after_our_end_receiving_still_works(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.shutdown(line.socket);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"");
    assert_eq!(host.carries(&mut line, b"one more thing"), b"one more thing");
    line.peer.shutdown();
    assert!(matches!(host.next(line.token), Event::Ended));
}

fn both_ends_are_told(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    write_some(&mut line.peer, b"rest");
    line.peer.shutdown();
    host.reactor.shutdown(line.socket);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"");
    host.stays_silent();
    host.reactor.receive(line.socket, Receive::Pool);
    assert_eq!(host.receives(line.token, 4), b"rest");
    assert!(matches!(host.next(line.token), Event::Ended));
    host.stays_silent();
    host.closes(&line);
}

fn a_reset_is_told_once(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open();
    line.peer.reset();
    match host.next(line.token) {
        Event::Failed(error) => assert_eq!(error.raw_os_error(), Some(104)),
        other => panic!("{other:?}"),
    }
    host.stays_silent();
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
    host.stays_silent();
}

/// Whether at once or when receiving is asked for, but once.
fn a_reset_while_paused_is_told_at_last(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open_paused();
    line.peer.reset();
    for _ in 0..10 {
        host.turn();
    }
    host.reactor.receive(line.socket, Receive::Pool);
    assert!(matches!(host.next(line.token), Event::Failed(_)));
    host.stays_silent();
}

fn receiving_after_an_end_brings_nothing(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    line.peer.shutdown();
    assert!(matches!(host.next(line.token), Event::Ended));
    for mode in [Receive::Paused, Receive::Pool, Receive::Pool] {
        host.reactor.receive(line.socket, mode);
        host.stays_silent();
    }
    host.closes(&line);
    assert_eq!(host.stats().sockets, 1);
}

fn a_failed_socket_ignores_everything_but_its_close(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open();
    line.peer.reset();
    assert!(matches!(host.next(line.token), Event::Failed(_)));
    host.reactor.send(line.socket, [bed.shared(b"too late")]);
    host.stays_silent();
    host.reactor.receive(line.socket, Receive::Into(bed.lease(128)));
    host.reactor.shutdown(line.socket);
    host.stays_silent();
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
    assert_eq!(bed.in_use_bytes(), 0);
}
