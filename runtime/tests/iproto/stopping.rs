//! What a pool does with a connection that takes nothing more, and has not ended yet.

use std::future::{Future, poll_fn};
use std::net::TcpListener;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hioload::config::{ReactorChoice, SlowReader};
use hioload::iproto::{CallError, Pool};
use hioload::ws::block_on;
use rstest::rstest;

use crate::channel::connector;
use crate::support::PATIENCE;

#[rstest]
#[case(SlowReader::Drop, 0)]
#[case(SlowReader::Close, 1 << 20)]
fn a_pool_does_not_try_a_connection_that_stops_again_and_again(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[case] slow_reader: SlowReader,
    #[case] len: usize,
) {
    let connector = connector(reactor, |config| {
        config.websocket.slow_reader = slow_reader;
        config.iproto.shutdown_timeout_ms = 600;
        config.shutdown.drain_ms = 600;
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let pool = Pool::to(address).on(connector.handle()).size(1).build().unwrap();
    block_on(pool.init_all()).unwrap();
    let _deaf = listener.accept().unwrap();
    // The end waits for this one.
    let long = pool.call_within(PATIENCE, 1, "never answered");
    let channel = pool.online().remove(0);
    let drains = (len == 0).then(|| std::thread::spawn(move || connector.stop()));
    let (began, body) = (Instant::now(), Bytes::from(vec![7; len]));
    let short = Duration::from_millis(1);
    while block_on(channel.call_within(short, 2, body.clone())) != Err(CallError::Stopped) {
        assert!(began.elapsed() < PATIENCE, "it does not stop");
    }
    let mut call = pin!(pool.call_within(Duration::from_millis(800), 3, "meanwhile"));
    let mut polls = 0;
    let ended = block_on(poll_fn(|cx| {
        polls += 1;
        call.as_mut().poll(cx)
    }));
    assert!(ended.is_err(), "nobody answers: {ended:?}");
    assert!(polls < 10, "{polls} polls");
    drop(long);
    if let Some(drains) = drains {
        drains.join().unwrap().unwrap();
    }
}
