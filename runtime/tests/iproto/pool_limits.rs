//! What a pool does when there is no room, or no time left.

use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hioload::config::ReactorChoice;
use hioload::iproto::{CallError, Channel, Pool, PoolCall};
use hioload::ws::block_on;
use rstest::rstest;

use crate::channel::{accept, connector};
use crate::support::PATIENCE;

#[rstest]
fn what_one_connection_has_no_room_for_goes_to_another(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = Pool::to(listener.local_addr().unwrap().to_string()).on(connector.handle());
    let pool = pool.connect_timeout(PATIENCE).size(2).build().unwrap();
    block_on(pool.init_all()).unwrap();
    let (deaf, mut peer) = (accept(&listener), accept(&listener));
    let reading = std::thread::spawn(move || {
        while let Some(packet) = peer.try_read() {
            if packet.sync != 0 {
                peer.send(packet.msg, packet.sync, b"read");
            }
        }
    });
    let channels = pool.online();
    let answers = |channel: &Channel| {
        block_on(channel.call_within(Duration::from_millis(100), 1, "?")).is_ok()
    };
    let hears = (0..100).find_map(|_| channels.iter().position(answers)).unwrap();
    let body = Bytes::from(vec![7; 1 << 20]);
    let unheard = |_| {
        let notify = channels[1 - hears].notify_within(Duration::from_millis(200), 9, body.clone());
        block_on(notify) == Err(CallError::Full)
    };
    assert!((0..60).any(unheard), "nobody reads, and yet");
    // However the turns fall, one of two is the deaf one's. Its outbox may have got some room again:
    // what it takes after all is not answered.
    let second = Duration::from_secs(1);
    let mut answered = 0;
    for round in 0..8 {
        let calls: Vec<_> = (0..3).map(|_| pool.call_within(second, 1, body.clone())).collect();
        for call in calls {
            let ended = block_on(call);
            assert!(matches!(ended, Ok(_) | Err(CallError::Timeout)), "round {round}: {ended:?}");
            answered += u32::from(ended.is_ok());
        }
    }
    assert!(answered > 0, "nobody answers");
    pool.close();
    // What is queued for it would be waited for.
    drop(deaf);
    block_on(pool.done());
    reading.join().unwrap();
    connector.stop().unwrap();
}

#[test]
fn a_timeout_is_for_all_that_a_call_waits_for() {
    let connector = connector(ReactorChoice::Epoll, |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = Pool::to(listener.local_addr().unwrap().to_string()).on(connector.handle());
    let pool = pool.connect_timeout(PATIENCE).rate_limit(0.4, 1).rate_wait(true).build().unwrap();
    assert_eq!(block_on(pool.notify(1, "takes the token")), Ok(()));
    let began = Instant::now();
    // Its turn comes after two seconds and a half, and its answer never.
    let call = pool.call_within(Duration::from_secs(3), 1, "?");
    assert_eq!(block_on(call), Err(CallError::Timeout));
    let took = began.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
    pool.close();
    connector.stop().unwrap();
}

/// A waker that owns a call.
struct Holder(#[allow(dead_code, reason = "it is only dropped")] Mutex<Option<PoolCall>>);

impl Wake for Holder {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_do_anything_when_it_is_dropped() {
    let connector = connector(ReactorChoice::Epoll, |_| {});
    // Nobody listens there.
    let pool = Pool::to("127.0.0.1:1").on(connector.handle()).connect_timeout(PATIENCE * 2);
    let pool = pool.build().unwrap();
    let (mut waits, held) = (pool.call(1, "waits"), pool.call(1, "held"));
    let (sender, ended) = mpsc::channel();
    // A lock that is taken twice would stop this thread for good.
    std::thread::spawn(move || {
        let waker = Waker::from(Arc::new(Holder(Mutex::new(Some(held)))));
        let is_pending = |waits: &mut PoolCall, waker: &Waker| {
            Pin::new(waits).poll(&mut Context::from_waker(waker)).is_pending()
        };
        assert!(is_pending(&mut waits, &waker));
        drop(waker);
        assert!(is_pending(&mut waits, Waker::noop()), "the other waker is dropped here");
        sender.send(()).unwrap();
    });
    if ended.recv_timeout(PATIENCE).is_err() {
        // Dropping these would wait for that lock, too.
        std::mem::forget((pool, connector));
        panic!("the lock of the pool is taken for good");
    }
    pool.close();
    connector.stop().unwrap();
}
