//! Sending: silence when all was taken, reports when not, and memory that comes back.

use std::collections::VecDeque;

use hioload::reactor::{Event, Reactor};

use crate::bed::{Bed, pattern};
use crate::host::{read_some, write_some};
use crate::rigs::Limits;

contract![
    a_small_send_is_silent,
    a_large_send_blocks_and_tells_its_progress,
    blocked_bytes_arrive_intact_whatever_their_sizes,
    every_blocked_send_is_told_by_the_next_wait,
    after_a_blocked_send_the_next_one_is_free,
    sends_and_receives_go_on_together,
    a_send_to_a_peer_that_reset_fails_once,
    a_reset_ends_a_blocked_send,
    a_shutdown_follows_what_was_sent,
    a_shutdown_waits_for_a_blocked_send,
    a_send_after_a_shutdown_is_dropped,
    one_segment_goes_to_many_sockets,
    a_blocked_send_is_resumed_after_a_long_stall,
];

/// More than all buffers between two ends hold.
const LARGE: usize = 1 << 20;

fn a_small_send_is_silent(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.send(line.socket, [bed.shared(b"quiet")]);
    assert_eq!(host.peer_reads(&mut line.peer, 5), b"quiet");
    host.stays_silent();
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_large_send_blocks_and_tells_its_progress(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_narrow();
    let bytes = pattern(LARGE, 1);
    host.reactor.send(line.socket, [bed.shared(&bytes)]);
    host.turn();
    assert!(matches!(
        host.queue.front().map(|completion| &completion.event),
        Some(Event::SendBlocked(_))
    ));
    assert!(host.delivers(&mut line, LARGE) == bytes);
    assert_eq!(bed.in_use_bytes(), 0);
    let stats = host.stats();
    assert_eq!((stats.sends_blocked, stats.sent_bytes), (1, LARGE as u64));
    host.stays_silent();
}

fn blocked_bytes_arrive_intact_whatever_their_sizes(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_narrow();
    let sizes = pattern(64, 2);
    for round in 0..8 {
        let mut expected = Vec::new();
        let mut segments = Vec::new();
        for size in &sizes[round * 8..][..8] {
            let part = pattern(1 + usize::from(*size) * 200, u64::from(*size) + round as u64);
            segments.push(bed.shared(&part));
            expected.extend(part);
        }
        host.reactor.send(line.socket, segments);
        assert!(host.delivers(&mut line, expected.len()) == expected, "round {round}");
        assert_eq!(bed.in_use_bytes(), 0);
    }
}

fn every_blocked_send_is_told_by_the_next_wait(bed: &Bed) {
    let limits = Limits { sockets_max: 512, ..Limits::default() };
    let mut host = bed.host_with(limits);
    let mut lines: Vec<_> = (0..300).map(|_| host.open_narrow()).collect();
    let large = bed.shared(&pattern(LARGE, 3));
    for line in &lines {
        host.reactor.send(line.socket, [large.clone()]);
    }
    host.turn();
    let is_told = |completion: &hioload::reactor::Completion| {
        matches!(completion.event, Event::SendBlocked(_))
    };
    assert_eq!(host.queue.iter().filter(|completion| is_told(completion)).count(), 300);
    for line in &mut lines {
        host.closes(line);
    }
    drop(large);
    assert_eq!(bed.in_use_bytes(), 0);
}

fn after_a_blocked_send_the_next_one_is_free(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_narrow();
    for round in 0..5 {
        for size in [10, LARGE / 2, 10] {
            let bytes = pattern(size, round);
            host.reactor.send(line.socket, [bed.shared(&bytes)]);
            host.turn();
            assert!(host.delivers(&mut line, size) == bytes);
        }
    }
}

/// An echo: as many bytes come as go, and at most one send is open.
fn sends_and_receives_go_on_together(bed: &Bed) {
    let mut host = bed.host_with(Limits { buffers: 64, ..Limits::default() });
    let mut line = host.open_narrow();
    let bytes = pattern(300_000, 4);
    let (mut written, mut echoed, mut is_blocked) = (0, Vec::new(), false);
    let mut waiting = VecDeque::new();
    host.until("the echo of all", |host| {
        // No more under way than the buffers hold.
        let until = bytes.len().min(echoed.len() + 50_000);
        written += write_some(&mut line.peer, &bytes[written..until.max(written)]);
        read_some(&mut line.peer, &mut echoed);
        while let Some(event) = host.queued(line.token) {
            match event {
                Event::Received(lease) => waiting.push_back(bed.shared(&lease)),
                Event::SendBlocked(_) => is_blocked = true,
                Event::Sent { done, .. } => is_blocked = !done,
                other => panic!("{other:?}"),
            }
        }
        if !is_blocked && !waiting.is_empty() {
            host.reactor.send(line.socket, waiting.drain(..));
            host.turn();
        }
        (echoed.len() >= bytes.len()).then_some(())
    });
    assert!(echoed == bytes);
}

fn a_send_to_a_peer_that_reset_fails_once(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open_paused();
    line.peer.reset();
    // The reset is found by this send, or was told before it.
    host.reactor.send(line.socket, [bed.shared(b"anybody?")]);
    assert!(matches!(host.next(line.token), Event::Failed(_)));
    host.stays_silent();
    assert_eq!(bed.in_use_bytes(), 0);
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
}

fn a_reset_ends_a_blocked_send(bed: &Bed) {
    let mut host = bed.host();
    let line = host.open_narrow();
    host.reactor.send(line.socket, [bed.shared(&pattern(LARGE, 5))]);
    assert!(matches!(host.next(line.token), Event::SendBlocked(_)));
    line.peer.reset();
    let is_failed = |event| match event {
        Event::Sent { done: false, .. } => false,
        Event::Failed(_) => true,
        other => panic!("{other:?}"),
    };
    while !is_failed(host.next(line.token)) {}
    host.stays_silent();
    host.reactor.close(line.socket);
    assert!(matches!(host.next(line.token), Event::Closed));
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_shutdown_follows_what_was_sent(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.send(line.socket, [bed.shared(b"good"), bed.shared(b"bye")]);
    host.reactor.shutdown(line.socket);
    host.reactor.shutdown(line.socket);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"goodbye");
    host.stays_silent();
}

fn a_shutdown_waits_for_a_blocked_send(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_narrow();
    let bytes = pattern(LARGE, 6);
    host.reactor.send(line.socket, [bed.shared(&bytes)]);
    host.reactor.shutdown(line.socket);
    assert!(host.peer_reads_to_end(&mut line.peer) == bytes);
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_send_after_a_shutdown_is_dropped(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.shutdown(line.socket);
    host.turn();
    host.reactor.send(line.socket, [bed.shared(b"after the end")]);
    assert_eq!(host.peer_reads_to_end(&mut line.peer), b"");
    host.stays_silent();
    assert_eq!(bed.in_use_bytes(), 0);
}

fn one_segment_goes_to_many_sockets(bed: &Bed) {
    let mut host = bed.host();
    let mut lines: Vec<_> = (0..20).map(|_| host.open()).collect();
    let news = bed.shared(b"to whom it may concern");
    for line in &lines {
        host.reactor.send(line.socket, [news.clone()]);
    }
    drop(news);
    for line in &mut lines {
        assert_eq!(host.peer_reads(&mut line.peer, 22), b"to whom it may concern");
    }
    host.stays_silent();
    assert_eq!(bed.in_use_bytes(), 0);
}

fn a_blocked_send_is_resumed_after_a_long_stall(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open_narrow();
    let bytes = pattern(LARGE, 7);
    host.reactor.send(line.socket, [bed.shared(&bytes)]);
    for _ in 0..50 {
        host.turn();
    }
    let waits = host.stats().waits;
    host.wait(Some(std::time::Duration::from_millis(20)));
    let waits = host.stats().waits - waits;
    assert!(waits <= 2, "{waits} waits while nothing could leave");
    assert!(host.delivers(&mut line, LARGE) == bytes);
}
