//! Accepting: order, bounds, pauses, and what goes wrong with a connection or with the process.

use std::fs::File;
use std::process::Command;

use hioload::reactor::{BATCH_MAX, Event, Reactor, Receive, Token};

use crate::bed::{Bed, token};
use crate::host::{Host, LISTENER, write_some};
use crate::rigs::{self, Limits};

contract![
    accepts_a_connection,
    accepts_in_the_order_of_connecting,
    accepts_more_than_a_batch,
    a_flood_of_connects_waits_in_the_backlog,
    a_paused_listener_accepts_nothing_new,
    a_resumed_listener_accepts_what_waited,
    pausing_and_resuming_at_once_changes_nothing,
    a_connection_reset_before_it_was_accepted_harms_nobody,
    a_closed_listener_refuses,
    two_listeners_keep_their_tokens,
    running_out_of_descriptors_pauses_accepting,
    closing_a_listener_leaves_its_connections_open,
];

fn accepts_a_connection(bed: &Bed) {
    let mut host = bed.host();
    let _peer = bed.connect(host.address).unwrap();
    assert!(matches!(host.next(LISTENER), Event::Accepted(_)));
    host.stays_silent();
}

fn accepts_in_the_order_of_connecting(bed: &Bed) {
    let mut host = bed.host();
    let mut peers: Vec<_> = (0..20).map(|_| bed.connect(host.address).unwrap()).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        assert_eq!(write_some(peer, &[number as u8]), 1);
    }
    for number in 0..20 {
        let connection = host.accepted();
        let socket = host.reactor.adopt(connection, token(number)).unwrap();
        host.reactor.receive(socket, Receive::Pool);
        assert_eq!(host.receives(token(number), 1), [number as u8]);
    }
}

fn accepts_more_than_a_batch(bed: &Bed) {
    let mut host = bed.host();
    let _peers: Vec<_> = (0..300).map(|_| bed.connect(host.address).unwrap()).collect();
    for _ in 0..300 {
        host.accepted();
    }
    host.stays_silent();
}

/// Two batches, and so much that accepting is still held back when those were delivered.
const FLOOD: usize = 2 * BATCH_MAX + 188;
const MORE: usize = 100;

fn a_flood_of_connects_waits_in_the_backlog(bed: &Bed) {
    let mut host = bed.host();
    let mut peers: Vec<_> = (0..FLOOD).map(|_| bed.connect(host.address).unwrap()).collect();
    let mut taken = 0;
    host.until("all of the flood", |host| {
        while let Some(event) = host.queued(LISTENER) {
            assert!(matches!(event, Event::Accepted(_)), "{event:?}");
            taken += 1;
        }
        let ahead = host.stats().accepted_waiting;
        // In the wait after the one that saw too many, what was on its way may still come.
        if (BATCH_MAX / 2..BATCH_MAX).contains(&ahead) && peers.len() == FLOOD {
            peers.extend((0..MORE).map(|_| bed.connect(host.address).unwrap()));
            assert_eq!(host.turn(), ahead, "others were accepted although these waited");
        }
        (taken == peers.len()).then_some(())
    });
    // A ring accepts all of the first flood at once: the others have nothing that waits.
    assert_eq!(peers.len() > FLOOD, bed.rig.starts_with("uring"));
    assert_eq!(host.stats().accepted_waiting, 0);
    host.stays_silent();
    let _late = bed.connect(host.address).unwrap();
    host.accepted();
}

fn a_paused_listener_accepts_nothing_new(bed: &Bed) {
    let mut host = bed.host();
    host.reactor.accept(host.listener, false);
    host.stays_silent();
    let _peer = bed.connect(host.address).unwrap();
    host.stays_silent();
}

fn a_resumed_listener_accepts_what_waited(bed: &Bed) {
    let mut host = bed.host();
    host.reactor.accept(host.listener, false);
    host.stays_silent();
    let _peers: Vec<_> = (0..3).map(|_| bed.connect(host.address).unwrap()).collect();
    host.stays_silent();
    host.reactor.accept(host.listener, true);
    for _ in 0..3 {
        host.accepted();
    }
    host.stays_silent();
}

fn pausing_and_resuming_at_once_changes_nothing(bed: &Bed) {
    let mut host = bed.host();
    for _ in 0..20 {
        host.reactor.accept(host.listener, false);
        host.reactor.accept(host.listener, true);
        let _peer = bed.connect(host.address).unwrap();
        host.accepted();
    }
    host.stays_silent();
}

fn a_connection_reset_before_it_was_accepted_harms_nobody(bed: &Bed) {
    let mut host = bed.host();
    for _ in 0..10 {
        bed.connect(host.address).unwrap().reset();
    }
    let mut good = bed.connect(host.address).unwrap();
    write_some(&mut good, b"good");
    // Those that were reset may show as connections that fail, or not at all.
    let mut adopted = 0;
    host.until("the good connection", |host| {
        while let Some(event) = host.queued(LISTENER) {
            let Event::Accepted(connection) = event else { panic!("{event:?}") };
            let socket = host.reactor.adopt(connection, token(adopted)).unwrap();
            host.reactor.receive(socket, Receive::Pool);
            adopted += 1;
        }
        let is_good = |number| match host.queued(token(number)) {
            Some(Event::Received(lease)) => lease[..] == *b"good",
            Some(Event::Failed(_)) | None => false,
            Some(other) => panic!("{other:?}"),
        };
        (0..adopted).any(is_good).then_some(())
    });
}

fn a_closed_listener_refuses(bed: &Bed) {
    let mut host = bed.host();
    host.reactor.close(host.listener);
    assert!(matches!(host.next(LISTENER), Event::Closed));
    assert!(bed.connect(host.address).is_err());
    host.stays_silent();
    assert_eq!(host.stats().sockets, 0);
}

fn two_listeners_keep_their_tokens(bed: &Bed) {
    let mut host = bed.host();
    let (listener, address) = bed.listener();
    let other = Token(u64::MAX - 1);
    host.reactor.listen(listener, other).unwrap();
    let _first = bed.connect(address).unwrap();
    assert!(matches!(host.next(other), Event::Accepted(_)));
    let _second = bed.connect(host.address).unwrap();
    host.accepted();
    host.stays_silent();
}

fn closing_a_listener_leaves_its_connections_open(bed: &Bed) {
    let mut host = bed.host();
    let mut line = host.open();
    host.reactor.close(host.listener);
    assert!(matches!(host.next(LISTENER), Event::Closed));
    assert_eq!(host.carries(&mut line, b"still here"), b"still here");
}

/// What a process says that ran the case with few descriptors.
const RECOVERED: &str = "accepting stopped, and went on";
const CHILD: &str = "HIOLOAD_CONTRACT_FEW_DESCRIPTORS";

fn running_out_of_descriptors_pauses_accepting(bed: &Bed) {
    if bed.is_simulated() {
        let mut host = bed.host();
        let _peer = bed.connect(host.address).unwrap();
        bed.net.fail_accept(24);
        fails_once_and_recovers(&mut host, || ());
    } else if std::env::var_os(CHILD).is_some() {
        let mut host = bed.host_with(Limits { sockets_max: 16, ..Limits::default() });
        host.turn();
        let _peer = bed.connect(host.address).unwrap();
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        fails_once_and_recovers(&mut host, || drop(files));
        println!("{RECOVERED}");
    } else {
        run_with_few_descriptors(bed.rig);
    }
}

fn fails_once_and_recovers(host: &mut Host<'_>, recover: impl FnOnce()) {
    match host.next(LISTENER) {
        Event::AcceptFailed(error) => assert_eq!(error.raw_os_error(), Some(24)),
        other => panic!("{other:?} instead of EMFILE"),
    }
    host.stays_silent();
    recover();
    host.stays_silent();
    host.reactor.accept(host.listener, true);
    host.accepted();
}

/// In a process of its own, so that nobody else runs out of them.
fn run_with_few_descriptors(rig: &str) {
    let others: Vec<_> = rigs::NAMES.into_iter().filter(|name| *name != rig).collect();
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["running_out_of_descriptors", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("HIOLOAD_SKIP_REACTORS", others.join(","))
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains(RECOVERED), "{out}\n{err}");
}
