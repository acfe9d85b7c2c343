//! Gathered sends: any number of segments, of any size, in their order.

use hioload::reactor::Reactor;

use crate::bed::{Bed, pattern};

contract![
    one_segment,
    two_segments,
    sixty_five_segments,
    fifteen_hundred_segments,
    segments_of_all_sizes,
    empty_segments_are_nothing,
    a_send_of_nothing_is_nothing,
    parts_of_one_block,
    segments_are_let_go_once_taken,
];

/// As many as every back end hands over at once.
const SEGMENTS_TAKEN: usize = 16;

fn gathers(bed: &Bed, count: usize, bytes_each: usize) {
    let mut host = bed.host();
    let mut line = host.open();
    let bytes = pattern(count * bytes_each, count as u64);
    host.reactor.send(line.socket, bytes.chunks(bytes_each).map(|part| bed.shared(part)));
    // What is more than one call takes may be told as blocked, although nothing was.
    assert!(host.delivers(&mut line, bytes.len()) == bytes);
    if count <= SEGMENTS_TAKEN {
        assert_eq!(host.stats().sends_blocked, 0);
    }
    host.stays_silent();
    assert_eq!(bed.in_use_bytes(), 0);
}

fn one_segment(bed: &Bed) {
    gathers(bed, 1, 100);
}

fn two_segments(bed: &Bed) {
    gathers(bed, 2, 100);
}

fn sixty_five_segments(bed: &Bed) {
    gathers(bed, 65, 100);
}

fn fifteen_hundred_segments(bed: &Bed) {
    gathers(bed, 1500, 10);
}

fn segments_of_all_sizes(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let (mut segments, mut expected) = (Vec::new(), Vec::new());
    for size in (0..100).chain([1000, 1, 4096, 2]) {
        let part = pattern(size, size as u64);
        segments.push(bed.shared(&part));
        expected.extend(part);
    }
    host.reactor.send(line.socket, segments);
    assert_eq!(host.peer_reads(&mut line.peer, expected.len()), expected);
}

fn empty_segments_are_nothing(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let parts = ["", "a", "", "", "b", ""].map(|part| bed.shared(part.as_bytes()));
    host.reactor.send(line.socket, parts);
    assert_eq!(host.peer_reads(&mut line.peer, 2), b"ab");
    host.reactor.send(line.socket, (0..100).map(|_| bed.shared(b"")));
    host.stays_silent();
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_send_of_nothing_is_nothing(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.send(line.socket, []);
    host.stays_silent();
    host.reactor.send(line.socket, [bed.shared(b"something")]);
    assert_eq!(host.peer_reads(&mut line.peer, 9), b"something");
}

fn parts_of_one_block(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    let block = bed.shared(b"abcdef");
    let parts = [block.slice(3, 6), block.slice(0, 3), block.clone(), block];
    host.reactor.send(line.socket, parts);
    assert_eq!(host.peer_reads(&mut line.peer, 18), b"defabcabcdefabcdef");
}

/// A silent send keeps nothing once the wait that could have told of it is over.
fn segments_are_let_go_once_taken(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    for round in 0..100 {
        host.reactor.send(line.socket, [bed.shared(&[round; 500]), bed.shared(&[round; 20])]);
        host.peer_reads(&mut line.peer, 520);
        host.turn();
        assert_eq!(bed.in_use_bytes(), 0, "after round {round}");
    }
}
