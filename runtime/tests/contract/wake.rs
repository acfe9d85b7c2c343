//! Waking: from any thread, at any time, never lost and never twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hioload::reactor::Reactor;

use crate::bed::Bed;
use crate::host::Host;

contract![
    another_thread_ends_a_wait,
    a_wake_before_a_wait_ends_it,
    a_wake_ends_one_wait_only,
    many_wakes_before_a_wait_are_one,
    no_wake_is_lost,
    what_was_written_before_a_wake_is_seen,
    a_waker_outlives_its_reactor,
    a_wake_hides_no_completion,
];

/// Longer than any wake may take; a wake that is lost would take this long.
const LATE: Duration = Duration::from_secs(20);

/// Sleeps until woken. Simulated time would not wait for another thread: there it is for ever.
fn sleep(host: &mut Host<'_>) {
    let timeout = (!host.bed.is_simulated()).then_some(LATE);
    let start = Instant::now();
    host.wait(timeout);
    assert!(start.elapsed() < LATE, "a wake was lost");
}

fn another_thread_ends_a_wait(bed: &Bed) {
    let mut host = bed.host();
    let waker = host.reactor.waker();
    let thread = thread::spawn(move || waker.wake());
    sleep(&mut host);
    thread.join().unwrap();
    assert!(host.queue.is_empty());
}

fn a_wake_before_a_wait_ends_it(bed: &Bed) {
    let mut host = bed.host();
    host.reactor.waker().wake();
    sleep(&mut host);
    assert!(host.queue.is_empty());
}

fn a_wake_ends_one_wait_only(bed: &Bed) {
    let mut host = bed.host();
    let waker = host.reactor.waker();
    for _ in 0..20 {
        let other = waker.clone();
        let thread = thread::spawn(move || other.wake());
        sleep(&mut host);
        thread.join().unwrap();
        let (start, timeout) = (host.reactor.now(), Duration::from_millis(3));
        host.wait(Some(timeout));
        assert!(host.reactor.now().since(start) >= timeout, "woken twice");
    }
}

fn many_wakes_before_a_wait_are_one(bed: &Bed) {
    let mut host = bed.host();
    for _ in 0..1000 {
        host.reactor.waker().wake();
    }
    sleep(&mut host);
    let (start, timeout) = (host.reactor.now(), Duration::from_millis(3));
    host.wait(Some(timeout));
    assert!(host.reactor.now().since(start) >= timeout, "woken twice");
}

fn no_wake_is_lost(bed: &Bed) {
    const ROUNDS: u32 = 10_000;
    let mut host = bed.host();
    let waker = host.reactor.waker();
    let answered = Arc::new(AtomicU32::new(0));
    let (ask, asked) = mpsc::channel();
    let thread = thread::spawn({
        let answered = Arc::clone(&answered);
        move || {
            for round in asked {
                answered.store(round, Ordering::Relaxed);
                waker.wake();
            }
        }
    });
    for round in 1..=ROUNDS {
        ask.send(round).unwrap();
        while answered.load(Ordering::Relaxed) < round {
            sleep(&mut host);
        }
    }
    drop(ask);
    thread.join().unwrap();
    let waits = host.stats().waits;
    assert!(waits <= u64::from(ROUNDS) * 4, "{waits} waits for {ROUNDS} wakes");
}

fn what_was_written_before_a_wake_is_seen(bed: &Bed) {
    let mut host = bed.host();
    let (tell, told) = mpsc::channel();
    let waker = host.reactor.waker();
    let thread = thread::spawn(move || {
        for number in 0..100 {
            tell.send(number).unwrap();
            waker.wake();
        }
    });
    let mut next = 0;
    while next < 100 {
        sleep(&mut host);
        for number in told.try_iter() {
            assert_eq!(number, next);
            next += 1;
        }
    }
    thread.join().unwrap();
}

fn a_waker_outlives_its_reactor(bed: &Bed) {
    let host = bed.host();
    let waker = host.reactor.waker();
    drop(host);
    waker.wake();
    let mut next = bed.host();
    let (start, timeout) = (next.reactor.now(), Duration::from_millis(3));
    next.wait(Some(timeout));
    assert!(next.reactor.now().since(start) >= timeout, "woken by a stranger");
}

fn a_wake_hides_no_completion(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    for number in 0..100_u8 {
        host.reactor.waker().wake();
        assert_eq!(host.carries(&mut line, &[number]), [number]);
    }
}
