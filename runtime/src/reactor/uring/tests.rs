//! Tests that need the inside, or are about io_uring only. What all reactors have in common is
//! tested by the contract suite.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use hioload_pools::{Arena, ArenaConfig, BytePool, Lease, Shared};
use rstest::rstest;

use super::*;

const SECOND: Option<Duration> = Some(Duration::from_secs(1));

fn arena() -> Arena {
    Arena::new(ArenaConfig { capacity_bytes: 64 << 20, ..ArenaConfig::default() }).unwrap()
}

/// A reactor of this tier, unless this machine has no such thing.
fn uring_with(tier: Tier, arena: &Arena, buffers: usize, buffer_bytes: usize) -> Option<Uring> {
    uring_of(64, tier, arena, buffers, buffer_bytes)
}

fn uring_of(
    entries: u32,
    tier: Tier,
    arena: &Arena,
    buffers: usize,
    buffer_bytes: usize,
) -> Option<Uring> {
    let config = UringConfig {
        entries,
        buffers,
        buffer_bytes,
        sockets_max: 1000,
        tier: Some(tier),
        pool: arena.clone(),
    };
    match Uring::new(config) {
        Ok(uring) => {
            assert_eq!(uring.tier(), tier);
            Some(uring)
        }
        Err(
            error @ (UringError::Absent { .. }
            | UringError::Refused { .. }
            | UringError::Lacking { .. }),
        ) => {
            eprintln!("not tested on this machine: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

macro_rules! uring {
    ($tier:expr, $arena:expr, $buffers:expr, $bytes:expr) => {
        match uring_with($tier, $arena, $buffers, $bytes) {
            Some(uring) => uring,
            None => return,
        }
    };
}

/// A listener on a loopback address of this process: the ports of one address run out when the
/// suite is run again and again, as closed connections keep them for a minute.
fn listener() -> TcpListener {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    TcpListener::bind((Ipv4Addr::new(127, 1, high, low), 0)).unwrap()
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = listener();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    (client, listener.accept().unwrap().0)
}

fn shared(arena: &Arena, bytes: &[u8]) -> Shared {
    let mut lease = arena.acquire(bytes.len(), bytes.len()).unwrap();
    lease.copy_from_slice(bytes);
    lease.freeze()
}

/// Waits until `enough` says so, and gives all that came.
fn collect(uring: &mut Uring, mut enough: impl FnMut(&[Completion]) -> bool) -> Vec<Completion> {
    let mut all = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !enough(&all) {
        assert!(Instant::now() < deadline, "too late; so far: {all:?}");
        uring.wait(SECOND, &mut all).unwrap();
    }
    all
}

fn received(all: &[Completion]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for completion in all {
        match &completion.event {
            Event::Received(lease) => bytes.extend_from_slice(lease),
            Event::ReceivedInto { lease, filled } => bytes.extend_from_slice(&lease[..*filled]),
            _ => {}
        }
    }
    bytes
}

fn count_of(all: &[Completion], is: impl Fn(&Event) -> bool) -> usize {
    all.iter().filter(|completion| is(&completion.event)).count()
}

#[rstest]
fn the_best_tier_is_chosen_unless_one_is_asked() {
    let arena = arena();
    let mut config = UringConfig::new(arena.clone());
    config.tier = Some(Tier::Incremental);
    let has_best = Uring::new(config.clone()).is_ok();
    config.tier = None;
    match Uring::new(config) {
        Ok(uring) => assert_eq!(uring.tier() == Tier::Incremental, has_best),
        Err(error) => assert!(!has_best, "{error}"),
    }
    assert_eq!(arena.stats().in_use_bytes, 0);
}

#[rstest]
#[case::entries(|config: &mut UringConfig| config.entries = 1000, "entries = 1000")]
#[case::buffers(|config: &mut UringConfig| config.buffers = 0, "buffers = 0")]
#[case::bytes(|config: &mut UringConfig| config.buffer_bytes = 100, "buffer_bytes = 100")]
#[case::sockets(|config: &mut UringConfig| config.sockets_max = 0, "sockets_max = 0")]
fn a_wrong_size_is_named(#[case] change: fn(&mut UringConfig), #[case] named: &str) {
    let mut config = UringConfig::new(arena());
    change(&mut config);
    let error = Uring::new(config).unwrap_err().to_string();
    assert!(error.contains(named), "{error}");
}

#[rstest]
fn a_small_pool_is_an_answer() {
    let pool = Arena::new(ArenaConfig { capacity_bytes: 1 << 20, ..ArenaConfig::default() });
    match Uring::new(UringConfig::new(pool.unwrap())) {
        Err(UringError::Pool { buffers, .. }) => assert_eq!(buffers, 64),
        Err(UringError::Absent { .. } | UringError::Refused { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// Answers a system call with an error on this thread, as a container's seccomp profile does.
fn refuse(call: libc::c_long, errno: i32) {
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut program = [
        step(0x20, 0), // load the number of the call
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: call as u32 },
        step(0x06, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(0x06, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0);
    // SAFETY: the program is copied during the call.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

#[rstest]
#[case::container(libc::SYS_io_uring_setup, libc::EPERM, "probably by a seccomp filter")]
#[case::kernel_without(libc::SYS_io_uring_setup, libc::ENOSYS, "has no io_uring")]
#[case::kernel_before_6_1(libc::SYS_io_uring_setup, libc::EINVAL, "lacks SINGLE_ISSUER")]
#[case::descriptors(libc::SYS_io_uring_setup, libc::EMFILE, "`ulimit -n`")]
#[case::kernel_before_6_12(libc::SYS_io_uring_register, libc::EINVAL, "REGISTER")]
fn a_refusal_says_why(#[case] call: libc::c_long, #[case] errno: i32, #[case] why: &'static str) {
    let refused = std::thread::spawn(move || {
        refuse(call, errno);
        let arena = arena();
        let error = Uring::new(UringConfig::new(arena.clone())).unwrap_err().to_string();
        assert_eq!(arena.stats().in_use_bytes, 0);
        assert!(error.contains(why), "{error}");
    });
    refused.join().unwrap();
}

#[rstest]
fn an_echo_in_a_steady_state_enters_once_a_wait_and_calls_nothing_else(
    #[values(Tier::Base, Tier::Bundles, Tier::Incremental)] tier: Tier,
) {
    let arena = arena();
    let mut uring = uring!(tier, &arena, 8, 4096);
    let (mut client, server) = pair();
    let socket = uring.adopt(server.into(), Token(1)).unwrap();
    uring.receive(socket, Receive::Pool);
    let mut batch = Vec::new();
    let mut waits = 0;
    for round in 0..1000_u32 {
        let message = round.to_ne_bytes().repeat(1 + round as usize % 50);
        client.write_all(&message).unwrap();
        let mut echoed = 0;
        while echoed < message.len() {
            uring.wait(SECOND, &mut batch).unwrap();
            waits += 1;
            let leases = batch.drain(..).map(|completion| match completion.event {
                Event::Received(lease) => lease.freeze(),
                other => panic!("{other:?}"),
            });
            uring.send(socket, leases.inspect(|lease| echoed += lease.len()));
        }
        uring.wait(Some(Duration::ZERO), &mut batch).unwrap();
        waits += 1;
        assert!(batch.is_empty());
        let mut back = vec![0; message.len()];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, message);
    }
    let stats = uring.stats();
    assert!(stats.waits <= waits, "{} enters in {waits} waits", stats.waits);
    assert_eq!((stats.calls, stats.starved, stats.sends_blocked), (0, 0, 0));
    assert_eq!(stats.sent_bytes, stats.received_bytes);
}

#[rstest]
fn a_poll_of_an_idle_reactor_makes_no_call() {
    let arena = arena();
    let mut uring = uring!(Tier::Base, &arena, 8, 4096);
    let (mut client, server) = pair();
    let socket = uring.adopt(server.into(), Token(1)).unwrap();
    uring.receive(socket, Receive::Pool);
    let mut batch = Vec::new();
    uring.wait(Some(Duration::ZERO), &mut batch).unwrap();
    let before = uring.stats().waits;
    for _ in 0..100 {
        uring.wait(Some(Duration::ZERO), &mut batch).unwrap();
    }
    assert_eq!(uring.stats().waits, before);
    client.write_all(b"there").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while batch.is_empty() {
        assert!(Instant::now() < deadline, "the poll never sees that something came");
        uring.wait(Some(Duration::ZERO), &mut batch).unwrap();
    }
    assert_eq!(received(&batch), b"there");
}

#[rstest]
fn who_keeps_everything_is_given_copies_and_nobody_starves(
    #[values(Tier::Base, Tier::Bundles, Tier::Incremental)] tier: Tier,
) {
    let arena = arena();
    let mut uring = uring!(tier, &arena, 8, 4096);
    let (mut client, server) = pair();
    let socket = uring.adopt(server.into(), Token(1)).unwrap();
    uring.receive(socket, Receive::Pool);
    let mut kept = Vec::new();
    for round in 0..200_u8 {
        client.write_all(&[round; 2000]).unwrap();
        let wanted = (usize::from(round) + 1) * 2000;
        while received(&kept).len() < wanted {
            uring.wait(SECOND, &mut kept).unwrap();
        }
    }
    let stats = uring.stats();
    assert!(stats.buffers_lent <= stats.buffers / 4 + 1, "{stats:?}");
    assert_eq!(stats.starved, 0);
    let expected: Vec<u8> = (0..200).flat_map(|round| [round; 2000]).collect();
    assert!(received(&kept) == expected);
    drop(kept);
    assert_eq!(uring.stats().buffers_lent, 0);
}

#[rstest]
fn few_buffers_go_round_until_more_are_needed(
    #[values(Tier::Base, Tier::Bundles, Tier::Incremental)] tier: Tier,
) {
    const BYTES: usize = 64 << 10;
    let arena = arena();
    let mut uring = uring!(tier, &arena, 64, BYTES);
    let (mut client, server) = pair();
    let socket = uring.adopt(server.into(), Token(1)).unwrap();
    uring.receive(socket, Receive::Pool);
    let mut blocks = std::collections::HashSet::new();
    for _ in 0..200 {
        client.write_all(&[7; 16 << 10]).unwrap();
        let all = collect(&mut uring, |all| received(all).len() == 16 << 10);
        for completion in &all {
            let Event::Received(lease) = &completion.event else { continue };
            blocks.insert(lease.as_ptr() as usize / BYTES);
        }
    }
    // A buffer need not begin at a multiple of its size, and then lies in two such blocks.
    assert!(blocks.len() <= 2 * 8 + 2, "{} blocks of 64 buffers were touched", blocks.len());
    uring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    assert_eq!(uring.buffers.in_ring(), 8, "512 KiB");

    let mut clients: Vec<_> = (0..60).map(|_| pair()).collect();
    for ((client, server), token) in clients.iter_mut().zip(2..) {
        let socket = uring.adopt(server.try_clone().unwrap().into(), Token(token)).unwrap();
        uring.receive(socket, Receive::Pool);
        client.write_all(&[7; BYTES]).unwrap();
    }
    drop(collect(&mut uring, |all| received(all).len() == 60 * BYTES));
    uring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    let most = uring.buffers.in_ring();
    assert!(most > 8, "more are needed than {most}");
    // After a long calm those that are too many leave the ring, as the kernel takes them out of it.
    for _ in 0..5 * 4096 {
        uring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    }
    for _ in 0..4 * 64 {
        client.write_all(&[7; 16 << 10]).unwrap();
        drop(collect(&mut uring, |all| received(all).len() == 16 << 10));
    }
    uring.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
    assert_eq!(uring.buffers.in_ring(), 8, "as at the beginning");
}

#[rstest]
fn a_ring_that_ran_dry_goes_on_when_a_buffer_comes_back(
    #[values(Tier::Base, Tier::Bundles, Tier::Incremental)] tier: Tier,
) {
    let arena = Arena::new(ArenaConfig { capacity_bytes: 1 << 20, ..ArenaConfig::default() });
    let arena = arena.unwrap();
    let mut uring = uring!(tier, &arena, 4, 1024);
    // The pool is exhausted, so that nothing can be copied: everything is lent.
    let _all: Vec<_> = std::iter::from_fn(|| arena.acquire(128, 128)).collect();
    let (mut client, server) = pair();
    let socket = uring.adopt(server.into(), Token(1)).unwrap();
    uring.receive(socket, Receive::Pool);
    let message: Vec<u8> = (0..20_000_u32).map(|at| (at % 251) as u8).collect();
    client.write_all(&message).unwrap();
    let mut kept = collect(&mut uring, |all| received(all).len() == 4096);
    for _ in 0..3 {
        uring.wait(Some(Duration::from_millis(5)), &mut kept).unwrap();
    }
    let mut all = received(&kept);
    assert_eq!(all.len(), 4096, "there are four buffers of 1024 bytes");
    let before = uring.stats();
    assert!(before.waits < 100, "{before:?}");
    kept.clear();
    while all.len() < message.len() {
        uring.wait(SECOND, &mut kept).unwrap();
        all.extend(received(&kept));
        kept.clear();
    }
    assert!(all == message);
}

#[rstest]
fn without_multishot_it_goes_on_one_by_one() {
    let arena = arena();
    let mut uring = uring!(Tier::Base, &arena, 8, 4096);
    let (mut client, server) = pair();
    let socket = uring.adopt(server.into(), Token(1)).unwrap();
    uring.go_single_shot(libc::EINVAL);
    uring.receive(socket, Receive::Pool);
    for text in [&b"one"[..], b"two", b"three"] {
        client.write_all(text).unwrap();
        let all = collect(&mut uring, |all| received(all).len() == text.len());
        assert_eq!(received(&all), text);
    }
    // Pointed into a lease while a receive of the other kind is on its way.
    let lease = arena.acquire(3, 3).unwrap();
    uring.receive(socket, Receive::Into(lease));
    client.write_all(b"into").unwrap();
    let all = collect(&mut uring, |all| !all.is_empty());
    assert!(matches!(all[0].event, Event::ReceivedInto { filled: 3, .. }), "{all:?}");
    let mut bytes = received(&all);
    uring.receive(socket, Receive::Pool);
    if bytes.len() < 4 {
        bytes.extend(received(&collect(&mut uring, |all| !all.is_empty())));
    }
    assert_eq!(bytes, b"into");
    drop(client);
    collect(&mut uring, |all| count_of(all, |event| matches!(event, Event::Ended)) == 1);
    uring.close(socket);
    collect(&mut uring, |all| count_of(all, |event| matches!(event, Event::Closed)) == 1);
    drop((uring, all));
    assert_eq!(arena.stats().in_use_bytes, 0);
}

#[rstest]
fn more_sends_than_entries_fit_into_a_turn() {
    let arena = arena();
    let mut uring = uring!(Tier::Base, &arena, 8, 4096);
    let mut clients = Vec::new();
    let mut sockets = Vec::new();
    for number in 0..200 {
        let (client, server) = pair();
        clients.push(client);
        sockets.push(uring.adopt(server.into(), Token(number)).unwrap());
    }
    for (number, &socket) in sockets.iter().enumerate() {
        // 64 segments each: more vectors than a turn has, too.
        let segments: Vec<_> = (0..64).map(|_| shared(&arena, &[number as u8; 3])).collect();
        uring.send(socket, segments);
    }
    let mut batch = Vec::new();
    uring.wait(Some(Duration::ZERO), &mut batch).unwrap();
    assert!(batch.is_empty(), "{batch:?}");
    assert_eq!(uring.stats().sent_bytes, 200 * 192);
    for (number, client) in clients.iter_mut().enumerate() {
        let mut bytes = [0; 192];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [number as u8; 192]);
    }
    drop(uring);
    assert_eq!(arena.stats().in_use_bytes, 0);
}

#[rstest]
fn a_send_of_any_number_of_segments_is_silent_if_the_kernel_takes_it(
    #[values(1, 2, 64, 65, 1024, 1025, 1500, 5000)] count: usize,
) {
    let arena = arena();
    let mut uring = uring!(Tier::Base, &arena, 8, 4096);
    let (mut client, server) = pair();
    let socket = uring.adopt(server.into(), Token(1)).unwrap();
    let byte = |at: usize| (at % 251) as u8;
    uring.send(socket, (0..count).map(|at| shared(&arena, &[byte(at)])));
    let mut batch = Vec::new();
    uring.wait(Some(Duration::ZERO), &mut batch).unwrap();
    assert!(batch.is_empty(), "{batch:?}");
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).unwrap();
    assert!((0..count).all(|at| bytes[at] == byte(at)));
    assert_eq!(uring.stats().sent_bytes, count as u64);
    drop(uring);
    assert_eq!(arena.stats().in_use_bytes, 0);
}

#[rstest]
fn more_segments_than_the_kernel_takes_are_told_of_once() {
    let arena = arena();
    let mut uring = uring!(Tier::Base, &arena, 8, 4096);
    let (mut client, server) = pair();
    let socket = uring.adopt(server.into(), Token(1)).unwrap();
    let part = shared(&arena, &[9; 10_000]);
    uring.send(socket, (0..2000).map(|_| part.clone()));
    let mut batch = Vec::new();
    uring.wait(Some(Duration::ZERO), &mut batch).unwrap();
    assert_eq!(count_of(&batch, |event| matches!(event, Event::SendBlocked(_))), 1);
    let reader = std::thread::spawn(move || {
        let mut sink = Vec::new();
        client.read_to_end(&mut sink).unwrap();
        sink.len()
    });
    uring.shutdown(socket);
    let is_done = |event: &Event| matches!(event, Event::Sent { done: true, .. });
    while count_of(&batch, is_done) == 0 {
        uring.wait(SECOND, &mut batch).unwrap();
    }
    assert_eq!(reader.join().unwrap(), 20_000_000);
    assert_eq!((uring.stats().sent_bytes, uring.stats().sends_blocked), (20_000_000, 1));
}

#[rstest]
fn a_dropped_reactor_leaves_nothing_behind(
    #[values(Tier::Base, Tier::Bundles, Tier::Incremental)] tier: Tier,
) {
    let arena = arena();
    for round in 0..10 {
        let mut uring = uring!(tier, &arena, 8, 4096);
        let mut peers = Vec::new();
        let mut adopt = |uring: &mut Uring, number| {
            let (client, server) = pair();
            peers.push(client);
            uring.adopt(server.into(), Token(number)).unwrap()
        };
        let subscribed = adopt(&mut uring, 1);
        uring.receive(subscribed, Receive::Pool);
        let directed = adopt(&mut uring, 2);
        uring.receive(directed, Receive::Into(arena.acquire(5000, 5000).unwrap()));
        let blocked = adopt(&mut uring, 3);
        uring.send(blocked, (0..100).map(|_| shared(&arena, &[7; 100_000])));
        let pending = adopt(&mut uring, 4);
        uring.send(pending, [shared(&arena, b"pending")]);
        let closing = adopt(&mut uring, 5);
        uring.receive(closing, Receive::Pool);
        uring.close(closing);
        let listener = listener();
        let address = listener.local_addr().unwrap();
        uring.listen(listener.into(), Token(6)).unwrap();
        uring.connect(address, Token(7)).unwrap();
        uring.connect("192.0.2.1:9".parse().unwrap(), Token(8)).unwrap();
        peers[0].write_all(&[1; 3000]).unwrap();
        let mut batch = Vec::new();
        for _ in 0..round {
            uring.wait(Some(Duration::from_millis(1)), &mut batch).unwrap();
        }
        drop(uring);
        // What was delivered lives on, and is the last that does.
        let delivered = received(&batch);
        assert!(delivered.iter().all(|&byte| byte == 1));
        drop(batch);
        assert_eq!(arena.stats().in_use_bytes, 0, "in round {round}");
        // All descriptors are closed: every peer sees the end.
        for peer in &mut peers {
            peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut sink = Vec::new();
            let _ = peer.read_to_end(&mut sink).map_err(|error| {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "in round {round}");
            });
        }
    }
}

#[rstest]
fn wakes_from_another_thread_are_never_lost() {
    let arena = arena();
    let mut uring = uring!(Tier::Base, &arena, 8, 4096);
    let waker = uring.waker();
    let (to_waker, orders) = std::sync::mpsc::channel::<()>();
    let (confirm, confirmed) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        for () in orders {
            waker.wake();
            confirm.send(()).unwrap();
        }
    });
    let mut batch = Vec::new();
    for _ in 0..5000 {
        to_waker.send(()).unwrap();
        let start = Instant::now();
        uring.wait(Some(Duration::from_secs(10)), &mut batch).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "a wake was lost");
        confirmed.recv().unwrap();
    }
    drop(to_waker);
    thread.join().unwrap();
    // A wake that came twice ends one more wait at the most, and none ends early after that.
    uring.wait(Some(Duration::ZERO), &mut batch).unwrap();
    let start = Instant::now();
    uring.wait(Some(Duration::from_millis(20)), &mut batch).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(batch.is_empty());
}

mod stress;
