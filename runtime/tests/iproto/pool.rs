//! Several connections to one server: whose turn it is, what is dialled again, how each call ends.

use std::collections::HashMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hioload::config::ReactorChoice;
use hioload::iproto::{
    CallError, Connect, Handler, Peer as Who, Pool, PoolBuilder, Reconnect, Request, SHUTDOWN,
    Session,
};
use hioload::ws::{Connector, block_on};
use hioload::{Running, Shard};
use rstest::rstest;

use crate::channel::{accept, connector, listen};
use crate::support::{PATIENCE, Packet, Peer, Told, address, ask, echo, next, record, start};

fn pool_of(connector: &Connector, server: &Running) -> PoolBuilder {
    Pool::to(address(server).to_string()).on(connector.handle()).connect_timeout(PATIENCE)
}

/// A pool with all its connections, to a server that is the test itself.
fn serve(
    connector: &Connector,
    size: usize,
    build: impl FnOnce(PoolBuilder) -> PoolBuilder,
) -> (TcpListener, Pool, Vec<Peer>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = Pool::to(listener.local_addr().unwrap().to_string()).on(connector.handle());
    let pool = build(pool.connect_timeout(PATIENCE).size(size)).build().unwrap();
    block_on(pool.init_all()).expect("the listener accepts");
    let peers = (0..size).map(|_| accept(&listener)).collect();
    (listener, pool, peers)
}

fn answer(peer: &mut Peer, body: &[u8]) -> Packet {
    let asked = peer.read();
    peer.send(asked.msg, asked.sync, body);
    asked
}

/// Waits for something that happens by itself.
fn until(what: &str, happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < PATIENCE, "it never happens: {what}");
        std::thread::yield_now();
    }
}

/// Answers with the name of the connection.
struct Names;

impl Handler for Names {
    type Session = ();

    fn accept(&mut self, _: &mut Shard, _: &Who<'_>) -> Option<()> {
        Some(())
    }

    fn request(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        let name = session.id().to_string();
        session.reply(request.reply, &*name);
    }
}

#[rstest]
fn connections_have_their_turns(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, |_| Names);
    let connector = connector(reactor, |_| {});
    let pool = pool_of(&connector, &server).size(4).build().unwrap();
    assert_eq!((pool.stats().dials, pool.online().len()), (0, 0), "it is lazy");
    block_on(pool.init_all()).unwrap();
    let mut turns: HashMap<Bytes, usize> = HashMap::new();
    for _ in 0..20 {
        *turns.entry(pool.call_blocking(1, "?").unwrap()).or_default() += 1;
    }
    assert_eq!(turns.values().copied().collect::<Vec<_>>(), [5; 4]);
    let next: Vec<_> = (0..4).map(|_| block_on(pool.next_channel()).unwrap()).collect();
    let names: Vec<_> = next.iter().map(|it| it.call_blocking(1, "?").unwrap()).collect();
    assert!(turns.keys().all(|name| names.contains(name)), "{names:?}");
    let stats = pool.stats();
    assert_eq!((stats.online, stats.dials, stats.dials_failed), (4, 4, 0));
    assert_eq!(stats.channels.calls, 24);
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn many_threads_call_and_all_is_counted(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, echo);
    let connector = connector(reactor, |_| {});
    let pool = block_on(pool_of(&connector, &server).size(3).open()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let pool = pool.clone();
            scope.spawn(move || {
                let body = |number: usize| vec![thread as u8; number * 40];
                let calls: Vec<_> = (0..100)
                    .map(|number| {
                        let borrowed = body(number);
                        pool.call(number as u32, &borrowed)
                    })
                    .collect();
                for (number, call) in calls.into_iter().enumerate().rev() {
                    assert!(block_on(call).unwrap() == body(number));
                }
            });
        }
    });
    assert_eq!(pool.stats().channels.calls, 800);
    // The last handle that is dropped shuts the connections down.
    let channel = block_on(pool.next_channel()).unwrap();
    drop(pool);
    block_on(channel.done());
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn only_connections_that_are_open_have_turns(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (listener, pool, mut peers) = serve(&connector, 2, |it| it);
    let dropped = [pool.call(7, "a"), pool.call(7, "b")];
    let asked: Vec<_> = peers.iter_mut().map(Peer::read).collect();
    drop(peers.remove(0));
    peers[0].send(7, asked[1].sync, b"answered");
    let mut results = dropped.map(block_on);
    results.sort_by_key(Result::is_ok);
    assert_eq!(results, [Err(CallError::Dropped), Ok("answered".into())]);
    // It is dialled again, and counts what it has done before.
    peers.push(accept(&listener));
    until("it is back", || pool.stats().online == 2);
    let calls = [pool.call(8, "c"), pool.call(8, "d")];
    peers.iter_mut().for_each(|peer| drop(answer(peer, b"ok")));
    assert!(calls.into_iter().all(|call| block_on(call).unwrap() == "ok"));
    let stats = pool.stats();
    assert_eq!((stats.channels.calls, stats.dials), (4, 3));
    connector.stop().unwrap();
}

#[rstest]
fn a_server_that_shuts_down_gets_nothing_more(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (listener, pool, mut peers) = serve(&connector, 2, |it| it);
    let mut leaving = peers.remove(0);
    leaving.send(SHUTDOWN, 0, b"");
    assert_eq!(leaving.read().msg, SHUTDOWN);
    let calls: Vec<_> = (0..3).map(|_| pool.call(1, "?")).collect();
    assert_eq!(leaving.try_read(), None);
    peers.push(accept(&listener));
    let patient = |call, peers: &mut Vec<Peer>| {
        for peer in peers.iter_mut() {
            peer.stream.set_nonblocking(true).unwrap();
        }
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| block_on(call));
            while !waiting.is_finished() {
                for peer in peers.iter_mut() {
                    let mut header = [0; 12];
                    if peer.stream.peek(&mut header).is_ok_and(|bytes| bytes == 12) {
                        peer.stream.set_nonblocking(false).unwrap();
                        answer(peer, b"!");
                        peer.stream.set_nonblocking(true).unwrap();
                    }
                }
            }
            waiting.join().unwrap()
        })
    };
    for call in calls {
        assert_eq!(patient(call, &mut peers).unwrap(), "!");
    }
    connector.stop().unwrap();
}

#[rstest]
fn a_shutdown_waits_for_calls_and_a_close_does_not(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] in_order: bool,
) {
    let patience = PATIENCE.as_millis() as u64;
    let connector = connector(reactor, |config| config.iproto.shutdown_timeout_ms = patience);
    let (_listener, pool, mut peers) = serve(&connector, 2, |it| it);
    let calls = [pool.call(5, "a"), pool.call(5, "b")];
    let asked: Vec<_> = peers.iter_mut().map(Peer::read).collect();
    if in_order {
        std::thread::scope(|scope| {
            let ended = scope.spawn(|| block_on(pool.shutdown()));
            until("it takes nothing", || pool.online().is_empty());
            assert_eq!(pool.call_blocking(6, "more"), Err(CallError::Stopped));
            for (peer, asked) in peers.iter_mut().zip(&asked) {
                peer.send(5, asked.sync, &asked.body);
                assert_eq!(peer.read().msg, SHUTDOWN);
                assert!(!ended.is_finished());
                peer.send(SHUTDOWN, 0, b"");
                assert_eq!(peer.try_read(), None);
            }
        });
        let [a, b] = calls.map(|call| block_on(call).unwrap());
        assert_eq!((&*a, &*b), (&b"a"[..], &b"b"[..]));
    } else {
        pool.close();
        for call in calls {
            assert_eq!(block_on(call), Err(CallError::Dropped));
        }
        block_on(pool.done());
    }
    assert_eq!((pool.stats().online, pool.stats().channels.calls), (0, 2));
    assert_eq!(block_on(pool.next_channel()).map(drop), Err(CallError::Stopped));
    connector.stop().unwrap();
}

#[rstest]
fn a_shutdown_is_bounded(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |config| config.iproto.shutdown_timeout_ms = 50);
    let (_listener, pool, _peers) = serve(&connector, 2, |it| it);
    let call = pool.call_within(PATIENCE, 5, "never answered");
    let began = Instant::now();
    block_on(pool.shutdown());
    assert!(began.elapsed() < PATIENCE / 2);
    assert_eq!(block_on(call), Err(CallError::Dropped));
    connector.stop().unwrap();
}

#[rstest]
fn a_connection_that_its_user_closes_is_dialled_again(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] in_order: bool,
) {
    let server = start(reactor, |_| {}, echo);
    let connector = connector(reactor, |_| {});
    let pool = pool_of(&connector, &server).size(2).build().unwrap();
    block_on(pool.init_all()).unwrap();
    for round in 0..5 {
        let channel = block_on(pool.next_channel()).unwrap();
        assert_eq!(channel.call_blocking(1, "before").unwrap(), "before");
        if in_order {
            block_on(channel.shutdown());
        } else {
            channel.close();
        }
        assert_eq!(channel.call_blocking(1, "?"), Err(CallError::Stopped));
        assert_eq!(pool.call_blocking(1, "others").unwrap(), "others");
        block_on(pool.init_all()).unwrap();
        assert_eq!(pool.stats().dials, 3 + round);
    }
    assert_eq!(pool.stats().channels.calls, 10);
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn a_call_that_is_dropped_is_cancelled(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |config| config.iproto.request_timeout_ms = 50);
    let (_listener, pool, mut peers) = serve(&connector, 1, |it| it);
    let peer = &mut peers[0];
    drop(pool.call_within(PATIENCE, 1, "cancelled at once"));
    let call = pool.call_within(PATIENCE, 1, "cancelled later");
    until("it arrives", || pool.stats().online == 1);
    // Unless the shard has looked in between, the first one is not sent at all.
    let (mut asked, mut dropped) = (peer.read(), 1);
    if asked.body == b"cancelled at once" {
        (asked, dropped) = (peer.read(), 2);
    }
    assert_eq!(asked.body, b"cancelled later");
    drop(call);
    until("it is cancelled", || pool.stats().channels.calls_dropped == dropped);
    peer.send(1, asked.sync, b"for nobody");
    assert_eq!(pool.call_blocking(2, "too slow"), Err(CallError::Timeout));
    let call = pool.call_within(PATIENCE, 3, "patient");
    assert_eq!(peer.read().body, b"too slow");
    answer(peer, b"!");
    assert_eq!(block_on(call).unwrap(), "!");
    let stats = pool.stats().channels;
    assert!(stats.late >= 1 && stats.requests_in == 0, "{stats:?}");
    connector.stop().unwrap();
}

#[rstest]
fn a_call_is_refused_when_every_connection_is_full(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |config| config.iproto.calls_max = 3);
    let (_listener, pool, mut peers) = serve(&connector, 2, |it| it);
    let full = block_on(pool.next_channel()).unwrap();
    let filling: Vec<_> = (0..3).map(|_| full.call(1, "?")).collect();
    // Whoever has the turn, there is room on the other one.
    let calls: Vec<_> = (0..3).map(|_| pool.call(2, "?")).collect();
    let refused = CallError::TooManyCalls { limit: 3 };
    assert_eq!(pool.call_blocking(3, "?"), Err(refused));
    for peer in &mut peers {
        (0..3).for_each(|_| drop(answer(peer, b"!")));
    }
    for call in calls {
        assert_eq!(block_on(call).unwrap(), "!");
    }
    for call in filling {
        assert_eq!(block_on(call).unwrap(), "!");
    }
    connector.stop().unwrap();
}

#[rstest]
fn calls_that_are_given_up_at_any_moment_leave_nothing_behind(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    const PLACES: usize = 64;
    let server = start(reactor, |_| {}, echo);
    let connector = connector(reactor, |config| config.iproto.calls_max = PLACES as u32);
    let pool = block_on(pool_of(&connector, &server).open()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let pool = pool.clone();
            scope.spawn(move || {
                for round in 0..2000_u32 {
                    let name = (thread << 16 | round).to_le_bytes();
                    let mut kept = pool.call(1, &name);
                    drop(pool.call(2, &name));
                    let mut polled = pool.call(3, &name);
                    let mut context = Context::from_waker(Waker::noop());
                    // Whether they have ended by now or not: nobody waits for them any more.
                    for call in [&mut kept, &mut polled] {
                        drop(Pin::new(call).poll(&mut context));
                    }
                    drop(polled);
                    drop(pool.notify(4, &name));
                    drop(kept);
                    assert_eq!(block_on(pool.call(5, &name)).unwrap(), name[..]);
                }
            });
        }
    });
    // Every place is free again.
    let calls: Vec<_> = (0..PLACES).map(|_| pool.call(6, "all at once")).collect();
    assert!(calls.into_iter().all(|call| block_on(call).is_ok()));
    assert_eq!(pool.stats().channels.requests_in, 0, "a response was taken for a request");
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn calls_above_the_rate_wait_for_their_turn(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, echo);
    let connector = connector(reactor, |_| {});
    let pool = pool_of(&connector, &server).rate_limit(100.0, 1).rate_wait(true);
    let pool = block_on(pool.open()).unwrap();
    let began = Instant::now();
    let calls: Vec<_> = (0..11).map(|_| pool.call(1, "?")).collect();
    for call in calls {
        assert_eq!(block_on(call).unwrap(), "?");
    }
    // The first one at once, ten after it at 10 ms each.
    assert!(began.elapsed() >= Duration::from_millis(99), "{:?}", began.elapsed());
    // Turns that nobody uses are given back.
    drop((0..400).map(|_| pool.call(1, "never")).collect::<Vec<_>>());
    let limit = Duration::from_secs(5);
    assert_eq!(block_on(pool.call_within(limit, 1, "soon")).unwrap(), "soon");
    assert_eq!(pool.stats().policed, 0);
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn notifies_wait_for_room(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let wait = Duration::from_millis(500);
    let (_listener, pool, mut peers) = serve(&connector, 1, |it| it.notice_timeout(wait));
    let body = Bytes::from(vec![7; 1 << 20]);
    let mut taken = 0;
    let refused = loop {
        let began = Instant::now();
        match block_on(pool.notify(9, body.clone())) {
            Ok(()) => taken += 1,
            // The clock of a shard is read at the beginning of a turn, and that may be a long one.
            Err(error) => break (error, began.elapsed() >= wait / 5),
        }
        assert!(taken < 1000, "nobody reads, and yet");
    };
    assert_eq!(refused, (CallError::Full, true));
    let channel = block_on(pool.next_channel()).unwrap();
    let cancelled = channel.notify_within(PATIENCE, 10, body.clone());
    let patient: Vec<_> =
        (0..3).map(|_| channel.notify_within(PATIENCE, 9, body.clone())).collect();
    drop(cancelled);
    let mut peer = peers.remove(0);
    let reading = std::thread::spawn(move || {
        (0..taken + 3).map(|_| peer.read()).filter(|it| it.msg == 9).count()
    });
    for notify in patient {
        assert_eq!(block_on(notify), Ok(()));
    }
    assert_eq!(reading.join().unwrap(), taken + 3, "all that was taken arrives, and no more");
    connector.stop().unwrap();
}

#[rstest]
fn a_send_is_a_call_that_nobody_waits_for(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, pool, mut peers) = serve(&connector, 1, |it| it);
    assert_eq!(block_on(pool.send(3, "do it")), Ok(()));
    let sent = answer(&mut peers[0], b"done");
    assert!(sent.sync != 0 && sent.body == b"do it");
    let channel = block_on(pool.next_channel()).unwrap();
    assert_eq!(channel.send(3, "again"), Ok(()));
    let again = answer(&mut peers[0], b"done");
    assert_ne!(again.sync, sent.sync);
    let call = pool.call(4, "?");
    answer(&mut peers[0], b"!");
    assert_eq!(block_on(call).unwrap(), "!");
    let stats = pool.stats().channels;
    assert_eq!((stats.late, stats.unsolicited, stats.calls), (0, 0, 3));
    connector.stop().unwrap();
}

#[rstest]
fn a_pool_of_a_shard_is_used_on_it(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, told) = record(
        reactor,
        |_| {},
        |_, session, request| {
            session.reply(request.reply, request.body);
        },
    );
    let at = address(&server).to_string();
    let (sender, answer) = std::sync::mpsc::channel();
    ask(&server, move |shard| {
        let pool = Pool::to(at).on(shard.handle()).size(2).connect_timeout(PATIENCE);
        let thread = std::thread::current().id();
        let asking = async move {
            let pool = pool.open().await.unwrap();
            pool.notify(9, "hello").await.unwrap();
            for number in 0..100_u32 {
                let body = pool.call(number, &number.to_le_bytes()).await.unwrap();
                assert_eq!(body, number.to_le_bytes()[..]);
                assert_eq!(std::thread::current().id(), thread);
            }
            pool.shutdown().await;
            sender.send(pool.stats().channels.calls).unwrap();
        };
        shard.spawn(asking).detach();
    });
    assert_eq!(answer.recv_timeout(PATIENCE).unwrap(), 100);
    assert_eq!(next(&told), Told::Notify(9, b"hello".to_vec()));
    server.stop().unwrap();
}

#[rstest]
fn a_pool_whose_shard_has_ended_says_so(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let server = start(reactor, |_| {}, echo);
    let connector = connector(reactor, |_| {});
    let pool = block_on(pool_of(&connector, &server).size(2).open()).unwrap();
    connector.stop().unwrap();
    assert_eq!(pool.stats().online, 0);
    for _ in 0..3 {
        assert_eq!(pool.call_blocking(1, "?"), Err(CallError::NoChannel));
        assert!(block_on(pool.init()).is_err());
    }
    block_on(pool.shutdown());
    assert_eq!(pool.call_blocking(1, "?"), Err(CallError::Stopped));
    server.stop().unwrap();
}

/// 4.2 GiB in notifies of 1 MiB: more than a `u32` counts.
#[rstest]
fn a_connection_sends_more_than_4_gib(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    const NOTIFIES: usize = 4300;
    let connector = connector(reactor, |_| {});
    let (_listener, channel, peer) = listen(&connector, |it| it);
    let body = Bytes::from(vec![7; 1 << 20]);
    let packet = body.len() + 12;
    let mut stream = peer.stream;
    let reading = std::thread::spawn(move || {
        let mut buffer = vec![0; 4 << 20];
        let mut left = NOTIFIES * packet;
        while left > 0 {
            let most = left.min(buffer.len());
            left -= stream.read(&mut buffer[..most]).unwrap();
        }
        // The connection is as good as new: it asks, and is answered.
        let mut peer = Peer { stream };
        answer(&mut peer, b"still here");
        peer
    });
    for _ in 0..NOTIFIES {
        block_on(channel.notify_within(PATIENCE, 9, body.clone())).unwrap();
    }
    assert_eq!(block_on(channel.call_within(PATIENCE, 1, "?")).unwrap(), "still here");
    let stats = channel.stats();
    assert_eq!(stats.bytes_out, (NOTIFIES * packet + 13) as u64);
    assert!(stats.bytes_out > u64::from(u32::MAX) && channel.generation() == 1);
    drop(reading.join().unwrap());
    connector.stop().unwrap();
}

#[rstest]
fn a_reconnect_may_be_bounded_in_time(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let within = Duration::from_millis(100);
    let rule = Reconnect::default().first(Duration::from_millis(5)).within(within);
    let began = Instant::now();
    // Nobody listens on port 1.
    let connect = Connect::to("127.0.0.1:1").reconnect(rule);
    assert!(block_on(connect.open_on(&connector)).is_err());
    assert!(began.elapsed() < PATIENCE / 2);
    connector.stop().unwrap();
}

#[rstest]
fn garbage_costs_one_connection_which_is_dialled_again(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |config| config.iproto.body_bytes_max = 1000);
    let (listener, pool, mut peers) = serve(&connector, 1, |it| it);
    let call = pool.call(1, "?");
    peers[0].read();
    // A body that is longer than it may be.
    peers[0].stream.write_all(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0]).unwrap();
    assert_eq!(block_on(call), Err(CallError::Dropped));
    let mut peer = accept(&listener);
    until("it is back", || pool.stats().online == 1);
    let call = pool.call_within(PATIENCE, 1, "?");
    answer(&mut peer, b"!");
    assert_eq!(block_on(call).unwrap(), "!");
    connector.stop().unwrap();
}
