//! Receiving into the reactor's buffers: whole and in order, paused and resumed, held and let go.

use hioload::reactor::{Event, Reactor, Receive};
use hioload_pools::Lease;

use crate::bed::{Bed, pattern};
use crate::host::{Host, Line, write_some};
use crate::rigs::Limits;

contract![
    receives_what_was_sent,
    receives_pieces_in_their_order,
    receives_a_long_stream,
    many_sockets_receive_in_one_wait,
    a_batch_is_bounded_and_the_rest_follows,
    paused_receives_nothing_new,
    resumes_with_what_came_meanwhile,
    pausing_and_resuming_loses_nothing,
    pausing_one_socket_pauses_no_other,
    a_held_lease_keeps_its_content,
    a_lease_outlives_its_socket,
    a_lease_outlives_its_reactor,
    a_lease_can_be_changed_and_sent_back,
    neighbours_in_a_buffer_do_not_touch,
    buffers_come_back_when_leases_are_dropped,
];

fn receives_what_was_sent(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    write_some(&mut line.peer, b"hello");
    match host.next(line.token) {
        Event::Received(lease) => assert_eq!(&lease[..], b"hello"),
        other => panic!("{other:?}"),
    }
    host.stays_silent();
}

fn receives_pieces_in_their_order(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let mut received = Vec::new();
    for number in 0..200_u8 {
        write_some(&mut line.peer, &[number; 7]);
        if number % 3 == 0 {
            host.turn();
        }
        while let Some(Event::Received(lease)) = host.queued(line.token) {
            received.extend_from_slice(&lease);
        }
    }
    received.extend(host.receives(line.token, 1400 - received.len()));
    let expected: Vec<u8> = (0..200).flat_map(|number| [number; 7]).collect();
    assert_eq!(received, expected);
}

fn receives_a_long_stream(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let bytes = pattern(1 << 20, 1);
    assert!(host.carries(&mut line, &bytes) == bytes);
    assert_eq!(host.stats().received_bytes, 1 << 20);
}

fn many_sockets_receive_in_one_wait(bed: &Bed) {
    let mut host = bed.host_with(Limits { buffers: 64, ..Limits::default() });
    let mut lines: Vec<_> = (0..50).map(|_| host.open()).collect();
    for (number, line) in lines.iter_mut().enumerate() {
        write_some(&mut line.peer, &[number as u8]);
    }
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(host.receives(line.token, 1), [number as u8]);
    }
    host.stays_silent();
}

fn a_batch_is_bounded_and_the_rest_follows(bed: &Bed) {
    let mut host = bed.host_with(Limits { buffers: 512, buffer_bytes: 1024, sockets_max: 512 });
    let mut lines: Vec<_> = (0..300).map(|_| host.open()).collect();
    for line in &mut lines {
        write_some(&mut line.peer, b"x");
    }
    // The host itself sees to it that no batch is too large.
    for line in &lines {
        assert_eq!(host.receives(line.token, 1), b"x");
    }
    host.stays_silent();
}

fn paused_receives_nothing_new(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.receive(line.socket, Receive::Paused);
    host.stays_silent();
    write_some(&mut line.peer, b"later");
    host.stays_silent();
}

fn resumes_with_what_came_meanwhile(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.receive(line.socket, Receive::Paused);
    host.stays_silent();
    for part in [b"one ", b"two "] {
        write_some(&mut line.peer, part);
        host.stays_silent();
    }
    host.reactor.receive(line.socket, Receive::Pool);
    assert_eq!(host.receives(line.token, 8), b"one two ");
}

fn pausing_and_resuming_loses_nothing(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let bytes = pattern(300_000, 2);
    let (mut written, mut received, mut turn) = (0, Vec::new(), 0);
    host.until("all of it", |host| {
        turn += 1;
        written += write_some(&mut line.peer, &bytes[written..]);
        let mode = if turn % 3 == 0 { Receive::Paused } else { Receive::Pool };
        host.reactor.receive(line.socket, mode);
        while let Some(event) = host.queued(line.token) {
            let Event::Received(lease) = event else { panic!("{event:?}") };
            received.extend_from_slice(&lease);
        }
        (received.len() >= bytes.len()).then_some(())
    });
    assert!(received == bytes);
}

fn pausing_one_socket_pauses_no_other(bed: &Bed) {
    let mut host = bed.host();
    let mut lines = [host.open(), host.open()];
    host.reactor.receive(lines[0].socket, Receive::Paused);
    host.turn();
    write_some(&mut lines[0].peer, b"not this");
    assert_eq!(host.carries(&mut lines[1], b"but that"), b"but that");
    host.stays_silent();
}

fn a_held_lease_keeps_its_content(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let mut held = Vec::new();
    for number in 0..5_u8 {
        write_some(&mut line.peer, &[number; 100]);
        match host.next(line.token) {
            Event::Received(lease) => held.push((number, lease)),
            other => panic!("{other:?}"),
        }
        let traffic = pattern(100_000, u64::from(number));
        assert!(host.carries(&mut line, &traffic) == traffic);
    }
    for (number, lease) in &held {
        assert_eq!(&lease[..], [*number; 100]);
    }
}

fn held(host: &mut Host<'_>, line: &mut Line) -> Lease {
    write_some(&mut line.peer, b"to be kept");
    match host.next(line.token) {
        Event::Received(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn a_lease_outlives_its_socket(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let lease = held(&mut host, &mut line);
    host.closes(&line);
    let mut next = host.open();
    assert_eq!(host.carries(&mut next, &[9; 5000]), [9; 5000]);
    assert_eq!(&lease[..], b"to be kept");
}

fn a_lease_outlives_its_reactor(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let lease = held(&mut host, &mut line);
    drop(host);
    assert_eq!(&lease[..], b"to be kept");
}

fn a_lease_can_be_changed_and_sent_back(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    write_some(&mut line.peer, b"echo");
    let Event::Received(mut lease) = host.next(line.token) else { panic!("bytes are next") };
    lease.make_ascii_uppercase();
    host.reactor.send(line.socket, [lease.freeze()]);
    assert_eq!(host.peer_reads(&mut line.peer, 4), b"ECHO");
}

fn neighbours_in_a_buffer_do_not_touch(bed: &Bed) {
    let mut host = bed.host();
    let mut lines: Vec<_> = (0..8).map(|_| host.open()).collect();
    for (number, line) in lines.iter_mut().enumerate() {
        write_some(&mut line.peer, &[number as u8; 64]);
    }
    let mut leases = Vec::new();
    for line in &lines {
        let Event::Received(lease) = host.next(line.token) else { panic!("bytes are next") };
        leases.push(lease);
    }
    for lease in leases.iter_mut().step_by(2) {
        lease.fill(0xff);
    }
    for (number, lease) in leases.iter().enumerate().skip(1).step_by(2) {
        assert_eq!(&lease[..], [number as u8; 64]);
    }
}

fn buffers_come_back_when_leases_are_dropped(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let mut leases = Vec::new();
    for _ in 0..3 {
        write_some(&mut line.peer, b"x");
        leases.push(host.next(line.token));
    }
    assert!(host.stats().buffers_lent > 0);
    drop(leases);
    host.turn();
    assert_eq!(host.stats().buffers_lent, 0);
}
