//! More calls that nobody waits for than a connection remembers, to peers that answer anything: on
//! the wire a forgotten call's response is a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use hioload::config::ReactorChoice;
use hioload::iproto::{CallError, Connect, Mux};
use hioload::ws::block_on;
use rstest::rstest;

use crate::channel::{connector, listen};
use crate::support::{PATIENCE, Packet, address, packet, start};

/// More than `iproto.late_max`.
const MANY: u32 = 6000;

#[rstest]
fn responses_to_forgotten_calls_are_not_answered(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let calls: Vec<_> = (0..MANY).map(|_| channel.call_within(PATIENCE, 3, "do it")).collect();
    let mut echoes = Vec::new();
    for _ in 0..MANY {
        let Packet { msg, sync, body } = peer.read();
        echoes.extend(packet(msg, sync, &body));
    }
    drop(calls);
    // The shard looks at what was cancelled before it sends this.
    let last = channel.call_within(PATIENCE, 4, "the last");
    let Packet { msg, sync, body } = peer.read();
    echoes.extend(packet(msg, sync, &body));
    peer.write(&echoes);
    assert_eq!(block_on(last).unwrap(), "the last");
    let stats = channel.stats();
    assert!(stats.unsolicited > 0, "all were remembered: {stats:?}");
    assert_eq!(stats.late + stats.unsolicited, u64::from(MANY));
    channel.close();
    assert_eq!(peer.try_read(), None, "a response was answered");
    connector.stop().unwrap();
}

#[rstest]
fn every_send_is_handled_once(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let server = start(
        reactor,
        |_| {},
        move |_| {
            let count = Arc::clone(&count);
            Mux::new().default(move |_, session, request| {
                count.fetch_add(1, Ordering::Relaxed);
                session.reply(request.reply, request.body);
            })
        },
    );
    let connector = connector(reactor, |_| {});
    let connect = Connect::to(address(&server).to_string()).timeout(PATIENCE);
    let channel = block_on(connect.open_on(&connector)).unwrap();
    for _ in 0..MANY {
        channel.send(3, "do it").unwrap();
    }
    // Behind the first of these are all the responses, and behind the second what they caused.
    for _ in 0..2 {
        assert_eq!(block_on(channel.call_within(PATIENCE, 4, "?")).unwrap(), "?");
    }
    assert_eq!(handled.load(Ordering::Relaxed), MANY + 2);
    let stats = channel.stats();
    assert_eq!((stats.calls, stats.late, stats.unsolicited), (u64::from(MANY) + 2, 0, 0));
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn sends_are_calls_until_they_are_answered_or_time_out(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] answered: bool,
) {
    let timeout = if answered { PATIENCE.as_millis() as u64 } else { 50 };
    let connector = connector(reactor, |config| {
        config.iproto.calls_max = 3;
        config.iproto.request_timeout_ms = timeout;
    });
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    let sent: Vec<_> = (0..100).map(|_| channel.send(1, "do it")).collect();
    let refused = Err(CallError::TooManyCalls { limit: 3 });
    assert_eq!(sent[..4], [Ok(()), Ok(()), Ok(()), refused]);
    for _ in 0..3 {
        let Packet { msg, sync, body } = peer.read();
        if answered {
            peer.send(msg, sync, &body);
        }
    }
    let began = Instant::now();
    while channel.send(2, "there is room again") == refused {
        assert!(began.elapsed() < PATIENCE, "they wait for ever");
        std::thread::yield_now();
    }
    assert_eq!(peer.read().msg, 2);
    connector.stop().unwrap();
}
