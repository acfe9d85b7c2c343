//! Waiting and time: how long a wait takes, and what an idle reactor costs.

use std::thread;
use std::time::Duration;

use hioload::reactor::{Event, Reactor};

use crate::bed::Bed;
use crate::host::{LISTENER, write_some};

contract![
    a_wait_of_zero_returns_at_once,
    a_wait_for_nothing_takes_its_time,
    a_timeout_below_a_millisecond_passes,
    a_long_timeout_delays_nothing,
    a_wait_for_ever_ends_with_a_completion,
    the_clock_never_goes_back,
    an_idle_reactor_sleeps,
    statistics_count_what_went_through,
    a_batch_is_added_to,
];

fn a_wait_of_zero_returns_at_once(bed: &Bed) {
    let mut host = bed.host();
    let _line = host.open();
    let start = host.reactor.now();
    for _ in 0..100 {
        assert_eq!(host.wait(Some(Duration::ZERO)), 0);
    }
    assert!(host.reactor.now().since(start) < Duration::from_secs(2));
}

fn a_wait_for_nothing_takes_its_time(bed: &Bed) {
    let mut host = bed.host();
    let _line = host.open();
    host.turn();
    for millis in [1, 5, 20] {
        let (timeout, start) = (Duration::from_millis(millis), host.reactor.now());
        assert_eq!(host.wait(Some(timeout)), 0);
        let took = host.reactor.now().since(start);
        assert!(took >= timeout, "{took:?} instead of {timeout:?}");
        assert!(took < Duration::from_secs(5), "{took:?} instead of {timeout:?}");
    }
}

fn a_timeout_below_a_millisecond_passes(bed: &Bed) {
    let mut host = bed.host();
    for micros in [1, 100, 999] {
        let (timeout, start) = (Duration::from_micros(micros), host.reactor.now());
        assert_eq!(host.wait(Some(timeout)), 0);
        assert!(host.reactor.now().since(start) >= timeout);
    }
}

fn a_long_timeout_delays_nothing(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    write_some(&mut line.peer, b"now");
    let start = host.reactor.now();
    assert_eq!(host.wait(Some(Duration::from_secs(3600))), 1);
    assert!(host.reactor.now().since(start) < Duration::from_secs(20));
    assert_eq!(host.receives(line.token, 3), b"now");
}

fn a_wait_for_ever_ends_with_a_completion(bed: &Bed) {
    let mut host = bed.host();
    let address = host.address;
    if bed.is_simulated() {
        bed.net.schedule(Duration::from_secs(60), move |net| {
            net.connect(address.port()).unwrap();
        });
        assert_eq!(host.wait(None), 1);
        assert_eq!(host.reactor.now().as_millis(), 60_000);
    } else {
        let peer = thread::spawn(move || std::net::TcpStream::connect(address).unwrap());
        assert_eq!(host.wait(None), 1);
        peer.join().unwrap();
    }
    assert!(matches!(host.queued(LISTENER), Some(Event::Accepted(_))));
}

fn the_clock_never_goes_back(bed: &Bed) {
    let mut host = bed.host();
    let mut before = host.reactor.now();
    for number in 0..1000 {
        if number % 100 == 0 {
            host.turn();
        }
        let now = host.reactor.now();
        assert!(now >= before);
        before = now;
    }
    assert!(before.as_nanos() > 0);
}

fn an_idle_reactor_sleeps(bed: &Bed) {
    let mut host = bed.host();
    let mut lines: Vec<_> = (0..10).map(|_| host.open()).collect();
    // Of every kind: silent, ended, finished on both sides, paused with something to read.
    lines[0].peer.shutdown();
    lines[1].peer.shutdown();
    host.reactor.shutdown(lines[1].socket);
    host.reactor.receive(lines[2].socket, hioload::reactor::Receive::Paused);
    host.turn();
    write_some(&mut lines[2].peer, b"unread");
    for line in [0, 1] {
        assert!(matches!(host.next(lines[line].token), Event::Ended));
    }
    host.stays_silent();
    let before = host.stats();
    for _ in 0..10 {
        assert_eq!(host.wait(Some(Duration::from_millis(10))), 0);
    }
    let after = host.stats();
    assert!(after.waits - before.waits <= 10, "{before:?} {after:?}");
    assert_eq!(after.calls, before.calls);
}

fn statistics_count_what_went_through(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    assert_eq!(host.carries(&mut line, &[7; 1000]).len(), 1000);
    host.reactor.send(line.socket, [bed.shared(&[1; 300]), bed.shared(&[2; 33])]);
    host.peer_reads(&mut line.peer, 333);
    host.turn();
    let stats = host.stats();
    assert_eq!(stats.received_bytes, 1000);
    assert_eq!(stats.sent_bytes, 333);
    assert_eq!((stats.sockets, stats.buffers), (2, 16));
    assert_eq!((stats.sends_blocked, stats.starved), (0, 0));
    assert!(stats.completions >= 2 && stats.waits >= 2, "{stats:?}");
    assert_eq!(stats.buffers_lent, 0);
}

fn a_batch_is_added_to(bed: &Bed) {
    let mut host = bed.host();
    let mut batch = Vec::new();
    let mut peers = Vec::new();
    for count in 1..4 {
        peers.push(bed.connect(host.address).unwrap());
        while batch.len() < count {
            host.reactor.wait(Some(Duration::from_millis(1)), &mut batch).unwrap();
        }
    }
    assert!(batch.iter().all(|completion| matches!(completion.event, Event::Accepted(_))));
}
