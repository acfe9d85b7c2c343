//! Connecting from a reactor, to itself and to nobody; and reactors on threads of their own.

use std::io::ErrorKind;
use std::thread;

use hioload::reactor::{Event, Reactor, Receive};

use crate::bed::{Bed, pattern, token};
use crate::rigs::Limits;

contract![
    connects_and_talks,
    connecting_to_nobody_fails_once,
    a_connection_that_is_being_made_can_be_closed,
    a_full_table_refuses_to_connect,
    connecting_many_at_once,
    reactors_on_two_threads_do_not_meet,
];

fn connects_and_talks(bed: &Bed) {
    let mut host = bed.host();
    let (client, server) = (token(1), token(2));
    let near = host.reactor.connect(host.address, client).unwrap();
    assert!(matches!(host.next(client), Event::Connected));
    let connection = host.accepted();
    let far = host.reactor.adopt(connection, server).unwrap();
    for socket in [near, far] {
        host.reactor.receive(socket, Receive::Pool);
    }
    host.reactor.send(near, [bed.shared(b"ping")]);
    assert_eq!(host.receives(server, 4), b"ping");
    host.reactor.send(far, [bed.shared(b"pong")]);
    assert_eq!(host.receives(client, 4), b"pong");
    if !bed.is_simulated() {
        assert_eq!(host.reactor.peer_address(near), Some(host.address));
    }
    host.reactor.close(near);
    assert!(matches!(host.next(client), Event::Closed));
    assert!(matches!(host.next(server), Event::Ended));
}

fn connecting_to_nobody_fails_once(bed: &Bed) {
    let mut host = bed.host();
    let socket = host.reactor.connect(bed.nowhere(), token(1)).unwrap();
    match host.next(token(1)) {
        Event::Failed(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        other => panic!("{other:?} instead of a refusal"),
    }
    host.stays_silent();
    host.reactor.close(socket);
    assert!(matches!(host.next(token(1)), Event::Closed));
    host.stays_silent();
    assert_eq!(host.stats().sockets, 1);
}

fn a_connection_that_is_being_made_can_be_closed(bed: &Bed) {
    let mut host = bed.host();
    let socket = host.reactor.connect(host.address, token(1)).unwrap();
    host.reactor.close(socket);
    host.until("the end", |host| match host.queued(token(1)) {
        // It may have been in flight.
        Some(Event::Connected | Event::Failed(_)) | None => None,
        Some(Event::Closed) => Some(()),
        Some(other) => panic!("{other:?}"),
    });
    assert_eq!(host.stats().sockets, 1);
}

fn a_full_table_refuses_to_connect(bed: &Bed) {
    let mut host = bed.host_with(Limits { sockets_max: 1, ..Limits::default() });
    host.reactor.connect(host.address, token(1)).unwrap_err();
    assert_eq!(host.stats().sockets, 1);
    host.until("some turns", |host| (host.stats().waits > 5).then_some(()));
    assert!(host.queued(token(1)).is_none());
}

fn connecting_many_at_once(bed: &Bed) {
    let mut host = bed.host();
    let sockets: Vec<_> =
        (0..30).map(|number| host.reactor.connect(host.address, token(number)).unwrap()).collect();
    for number in 0..30 {
        assert!(matches!(host.next(token(number)), Event::Connected));
        host.accepted();
    }
    for socket in sockets {
        host.reactor.close(socket);
    }
    for number in 0..30 {
        assert!(matches!(host.next(token(number)), Event::Closed));
    }
    assert_eq!(host.stats().sockets, 1);
}

fn reactors_on_two_threads_do_not_meet(bed: &Bed) {
    let rig = bed.rig;
    let talk = move |seed: u64| {
        let bed = Bed::new(rig);
        let mut host = bed.host();
        let mut lines = [host.open(), host.open()];
        for round in 0..20 {
            for line in &mut lines {
                let bytes = pattern(10_000, seed + round);
                assert_eq!(host.carries(line, &bytes), bytes);
            }
        }
        host.stats().received_bytes
    };
    let threads = [thread::spawn(move || talk(1)), thread::spawn(move || talk(100))];
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 400_000);
    }
}
