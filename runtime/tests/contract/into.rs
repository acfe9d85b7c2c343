//! Receiving straight into a lease: what is filled, what comes next, and who has the lease.

use hioload::reactor::{Event, Reactor, Receive};
use hioload_pools::Lease;

use crate::bed::{Bed, pattern};
use crate::host::{Host, Line, write_some};

contract![
    fills_a_lease_exactly,
    fills_a_part_of_a_larger_lease,
    fills_a_lease_with_what_was_there_already,
    what_does_not_fit_comes_next,
    nothing_comes_after_a_filled_lease_until_it_is_asked_for,
    a_lease_armed_behind_the_pool_keeps_the_order,
    switching_to_and_fro_keeps_the_order,
    the_tail_of_a_message_is_filled_in_place,
    a_lease_is_filled_while_a_send_is_blocked,
    a_close_gives_the_lease_back,
    an_end_comes_instead_of_a_lease,
    a_reset_comes_instead_of_a_lease,
    a_large_message_arrives_in_its_own_memory,
];

/// What comes next of a line that receives into a lease; bytes that were on their way into the
/// reactor's buffers are added to `early`.
fn filled(host: &mut Host<'_>, line: &Line, early: &mut Vec<u8>) -> (Lease, usize) {
    loop {
        match host.next(line.token) {
            Event::ReceivedInto { lease, filled } => return (lease, filled),
            Event::Received(lease) => early.extend_from_slice(&lease),
            other => panic!("{other:?}"),
        }
    }
}

/// Fills leases until `count` bytes are there.
fn fills(host: &mut Host<'_>, line: &Line, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let mode = Receive::Into(host.bed.lease(count - bytes.len()));
        host.reactor.receive(line.socket, mode);
        let (lease, filled) = filled(host, line, &mut bytes);
        bytes.extend_from_slice(&lease[..filled]);
    }
    bytes
}

fn fills_a_lease_exactly(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    host.reactor.receive(line.socket, Receive::Into(bed.lease(5)));
    host.stays_silent();
    write_some(&mut line.peer, b"exact");
    let (lease, filled) = filled(&mut host, &line, &mut Vec::new());
    assert_eq!((&lease[..], filled), (&b"exact"[..], 5));
}

fn fills_a_part_of_a_larger_lease(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    let mut room = bed.lease(1000);
    room.fill(0xee);
    host.reactor.receive(line.socket, Receive::Into(room));
    write_some(&mut line.peer, b"some");
    let (lease, filled) = filled(&mut host, &line, &mut Vec::new());
    assert_eq!((filled, lease.len()), (4, 1000));
    assert_eq!(&lease[..4], b"some");
    assert!(lease[4..].iter().all(|byte| *byte == 0xee));
}

fn fills_a_lease_with_what_was_there_already(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    write_some(&mut line.peer, b"waiting");
    host.stays_silent();
    assert_eq!(fills(&mut host, &line, 7), b"waiting");
    host.stays_silent();
}

fn what_does_not_fit_comes_next(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    write_some(&mut line.peer, b"0123456789");
    assert_eq!(fills(&mut host, &line, 4), b"0123");
    host.reactor.receive(line.socket, Receive::Pool);
    assert_eq!(host.receives(line.token, 6), b"456789");
}

fn nothing_comes_after_a_filled_lease_until_it_is_asked_for(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    write_some(&mut line.peer, b"first");
    assert_eq!(fills(&mut host, &line, 5), b"first");
    write_some(&mut line.peer, b"second");
    host.stays_silent();
    host.reactor.receive(line.socket, Receive::Pool);
    assert_eq!(host.receives(line.token, 6), b"second");
}

fn a_lease_armed_behind_the_pool_keeps_the_order(bed: &Bed) {
    for round in 0..50 {
        let mut host = bed.host();
        let mut line = host.open();
        let bytes = pattern(3000, round);
        write_some(&mut line.peer, &bytes[..1000]);
        if round % 2 == 0 {
            host.turn();
        }
        write_some(&mut line.peer, &bytes[1000..2000]);
        host.reactor.receive(line.socket, Receive::Into(bed.lease(3000)));
        write_some(&mut line.peer, &bytes[2000..]);
        let mut received = Vec::new();
        let (lease, filled) = filled(&mut host, &line, &mut received);
        received.extend_from_slice(&lease[..filled]);
        host.reactor.receive(line.socket, Receive::Pool);
        received.extend(host.receives(line.token, 3000 - received.len()));
        assert!(received == bytes, "round {round}");
    }
}

fn switching_to_and_fro_keeps_the_order(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let bytes = pattern(400_000, 5);
    let (mut written, mut received, mut count) = (0, Vec::new(), 0);
    host.until("all of it", |host| {
        written += write_some(&mut line.peer, &bytes[written..]);
        let mut is_lease_out = count % 2 == 1;
        while let Some(event) = host.queued(line.token) {
            match event {
                Event::Received(lease) => received.extend_from_slice(&lease),
                Event::ReceivedInto { lease, filled } => {
                    received.extend_from_slice(&lease[..filled]);
                    is_lease_out = false;
                    count += 1;
                    host.reactor.receive(line.socket, Receive::Pool);
                }
                other => panic!("{other:?}"),
            }
        }
        if !is_lease_out && received.len() + 20_000 < bytes.len() {
            count += 1;
            let room = bed.lease(100 + 37 * (count % 200));
            host.reactor.receive(line.socket, Receive::Into(room));
        }
        (received.len() >= bytes.len()).then_some(())
    });
    assert!(received == bytes);
}

fn the_tail_of_a_message_is_filled_in_place(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    let mut message = bed.lease(4000);
    message[..10].copy_from_slice(b"head: 3990");
    let mut at = 10;
    let bytes = pattern(3990, 6);
    while at < 4000 {
        let tail = message.split_off(at);
        host.reactor.receive(line.socket, Receive::Into(tail));
        let written = at - 10;
        write_some(&mut line.peer, &bytes[written..(written + 700).min(3990)]);
        let (tail, filled) = filled(&mut host, &line, &mut Vec::new());
        assert!(message.unsplit(tail).is_ok(), "it is the tail that was given");
        at += filled;
    }
    assert_eq!(&message[..10], b"head: 3990");
    assert!(message[10..] == bytes);
}

fn a_lease_is_filled_while_a_send_is_blocked(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_narrow();
    host.reactor.send(line.socket, [bed.shared(&pattern(1 << 20, 7))]);
    assert!(matches!(host.next(line.token), Event::SendBlocked(_)));
    host.reactor.receive(line.socket, Receive::Into(bed.lease(8)));
    write_some(&mut line.peer, b"in spite");
    let mut bytes = Vec::new();
    host.until("the lease", |host| match host.queued(line.token) {
        Some(Event::Sent { .. }) | None => None,
        Some(Event::Received(lease)) => {
            bytes.extend_from_slice(&lease);
            (bytes.len() == 8).then_some(())
        }
        Some(Event::ReceivedInto { lease, filled }) => {
            bytes.extend_from_slice(&lease[..filled]);
            Some(())
        }
        Some(other) => panic!("{other:?}"),
    });
    assert_eq!(bytes, b"in spite");
}

fn a_close_gives_the_lease_back(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open_paused();
    host.reactor.receive(line.socket, Receive::Into(bed.lease(1 << 20)));
    host.turn();
    assert_eq!(bed.in_use_bytes(), 1 << 20);
    host.closes(&line);
    assert_eq!(bed.in_use_bytes(), 0);
}

fn an_end_comes_instead_of_a_lease(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    host.reactor.receive(line.socket, Receive::Into(bed.lease(100)));
    host.turn();
    line.peer.shutdown();
    assert!(matches!(host.next(line.token), Event::Ended));
    host.stays_silent();
    host.closes(&line);
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_reset_comes_instead_of_a_lease(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open_paused();
    host.reactor.receive(line.socket, Receive::Into(bed.lease(100)));
    host.turn();
    line.peer.reset();
    assert!(matches!(host.next(line.token), Event::Failed(_)));
    host.stays_silent();
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_large_message_arrives_in_its_own_memory(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_paused();
    let bytes = pattern(1 << 20, 8);
    let mut message = bed.lease(1 << 20);
    let address = message.as_ptr();
    let (mut at, mut written) = (0, 0);
    while at < bytes.len() {
        let tail = message.split_off(at);
        host.reactor.receive(line.socket, Receive::Into(tail));
        let (tail, count) = host.until("a part", |host| {
            written += write_some(&mut line.peer, &bytes[written..]);
            match host.queued(line.token)? {
                Event::ReceivedInto { lease, filled } => Some((lease, filled)),
                other => panic!("{other:?}"),
            }
        });
        assert!(message.unsplit(tail).is_ok(), "it is the tail that was given");
        at += count;
    }
    assert_eq!(message.as_ptr(), address);
    assert!(message[..] == bytes);
}
