//! No buffer free: receiving stops without an error and without a noise, and goes on later.

use std::time::Duration;

use hioload::reactor::{Completion, Event, Reactor, Receive};

use crate::bed::{Bed, pattern};
use crate::host::{Host, Line, write_some};
use crate::rigs::Limits;

contract![
    without_buffers_nothing_is_received_and_nothing_fails,
    receiving_goes_on_when_buffers_come_back,
    a_starved_reactor_does_not_spin,
    sends_and_accepts_go_on_without_buffers,
    a_starved_socket_can_be_closed,
    a_starved_socket_can_receive_into_a_lease,
    every_starved_socket_is_fed,
];

const LIMITS: Limits = Limits { buffers: 4, buffer_bytes: 1024, sockets_max: 64 };

/// Lets a line write until there is no memory to receive into; answers how many bytes it wrote.
fn starve(host: &mut Host<'_>, line: &mut Line, bytes: &[u8]) -> usize {
    host.exhaust_pool();
    let mut written = 0;
    host.until("starvation", |host| {
        written += write_some(&mut line.peer, &bytes[written..]);
        let stats = host.stats();
        (stats.starved > 0 || stats.buffers_lent == stats.buffers).then_some(())
    });
    for _ in 0..5 {
        host.turn();
    }
    written
}

fn received(queue: impl IntoIterator<Item = Completion>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for completion in queue {
        match completion.event {
            Event::Received(lease) => bytes.extend_from_slice(&lease),
            other => panic!("{other:?}"),
        }
    }
    bytes
}

fn without_buffers_nothing_is_received_and_nothing_fails(bed: &Bed) {
    let mut host = bed.host_with(LIMITS);
    let mut line = host.open();
    let bytes = pattern(50_000, 1);
    starve(&mut host, &mut line, &bytes);
    let held = host.queue.len();
    for _ in 0..20 {
        host.turn();
    }
    assert_eq!(host.queue.len(), held, "received without a buffer");
    let bytes_held = received(host.queue.drain(..));
    assert!(bytes_held.len() <= 4 * 1024, "{} bytes in 4 KiB", bytes_held.len());
    assert!(bytes.starts_with(&bytes_held));
}

fn receiving_goes_on_when_buffers_come_back(bed: &Bed) {
    let mut host = bed.host_with(LIMITS);
    let mut line = host.open();
    let bytes = pattern(60_000, 2);
    let mut written = starve(&mut host, &mut line, &bytes);
    let mut all = received(host.queue.drain(..));
    host.until("the rest", |host| {
        written += write_some(&mut line.peer, &bytes[written..]);
        all.extend(received(host.queue.drain(..)));
        (all.len() >= bytes.len()).then_some(())
    });
    assert!(all == bytes);
    host.turn();
    assert_eq!(host.stats().buffers_lent, 0);
}

fn a_starved_reactor_does_not_spin(bed: &Bed) {
    let mut host = bed.host_with(LIMITS);
    let mut line = host.open();
    starve(&mut host, &mut line, &pattern(50_000, 3));
    let before = host.stats();
    for _ in 0..5 {
        host.wait(Some(Duration::from_millis(10)));
    }
    let after = host.stats();
    let (waits, calls) = (after.waits - before.waits, after.calls - before.calls);
    assert!(waits + calls <= 100, "{waits} waits and {calls} calls in 50 ms");
}

fn sends_and_accepts_go_on_without_buffers(bed: &Bed) {
    let mut host = bed.host_with(LIMITS);
    let mut line = host.open();
    starve(&mut host, &mut line, &pattern(50_000, 4));
    host.reactor.send(line.socket, [bed.shared(b"still sending")]);
    assert_eq!(host.peer_reads(&mut line.peer, 13), b"still sending");
    let mut other = host.open();
    host.reactor.send(other.socket, [bed.shared(b"welcome")]);
    assert_eq!(host.peer_reads(&mut other.peer, 7), b"welcome");
}

fn a_starved_socket_can_be_closed(bed: &Bed) {
    let mut host = bed.host_with(LIMITS);
    let mut line = host.open();
    starve(&mut host, &mut line, &pattern(50_000, 5));
    let held: Vec<_> = host.queue.drain(..).collect();
    host.closes(&line);
    let mut next = host.open();
    write_some(&mut next.peer, b"next");
    for _ in 0..5 {
        host.turn();
    }
    drop(held);
    assert_eq!(host.receives(next.token, 4), b"next");
}

fn a_starved_socket_can_receive_into_a_lease(bed: &Bed) {
    let mut host = bed.host_with(LIMITS);
    let mut line = host.open();
    let bytes = pattern(50_000, 6);
    starve(&mut host, &mut line, &bytes);
    let held: Vec<_> = host.queue.drain(..).collect();
    let mut all = received(held);
    host.reactor.receive(line.socket, Receive::Into(bed.lease(500)));
    loop {
        match host.next(line.token) {
            Event::Received(lease) => all.extend_from_slice(&lease),
            Event::ReceivedInto { lease, filled } => {
                all.extend_from_slice(&lease[..filled]);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bytes.starts_with(&all));
}

fn every_starved_socket_is_fed(bed: &Bed) {
    let mut host = bed.host_with(LIMITS);
    let mut hoarder = host.open();
    starve(&mut host, &mut hoarder, &pattern(50_000, 7));
    let mut lines: Vec<_> = (0..20).map(|_| host.open()).collect();
    for (number, line) in lines.iter_mut().enumerate() {
        write_some(&mut line.peer, &[number as u8; 10]);
    }
    for _ in 0..5 {
        host.turn();
    }
    host.closes(&hoarder);
    // Each lease is dropped before the next is asked for, so 20 share 4 buffers.
    let mut fed = vec![0; lines.len()];
    host.until("a meal for everybody", |host| {
        while let Some(completion) = host.queue.pop_front() {
            let Event::Received(lease) = completion.event else { panic!("{completion:?}") };
            let line = lines.iter().position(|line| line.token == completion.token).unwrap();
            fed[line] += lease.len();
        }
        fed.iter().all(|bytes| *bytes == 10).then_some(())
    });
}
