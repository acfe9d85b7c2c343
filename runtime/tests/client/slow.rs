//! Who does not read, on either side, costs a bounded amount of memory and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hioload::config::{ReactorChoice, SlowReader};
use hioload::ws::{Connector, SendError};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::peer::frame;
use crate::support::{config, connector, hold, pair, pair_with, poll_once, stats, until, wait};

const MESSAGE_BYTES: usize = 1000;
const MESSAGES: usize = 32_000;

#[rstest]
fn a_user_that_takes_nothing_stops_the_reading(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (mut client, mut line) = pair_with(&connector, |connect| connect.inbox(10, 10_000));
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writing = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            let mut payload = vec![0; MESSAGE_BYTES];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            line.write(&frame(Opcode::Binary, &payload));
            count.store(number + 1, Ordering::Relaxed);
        }
        line
    });
    until("the inbox is full", || stats(&connector).reactor.received_bytes > 10_000);
    // Turns go by, and nothing more is read but what was on its way: the receive buffers.
    let most = 10_000 + 16 * 65_536;
    for _ in 0..200 {
        let stats = stats(&connector);
        assert!(stats.reactor.received_bytes < most, "{} bytes", stats.reactor.received_bytes);
    }
    assert!(written.load(Ordering::Relaxed) < MESSAGES, "the peer was not slowed down");
    for number in 0..MESSAGES {
        let message = wait(client.next()).unwrap().unwrap();
        assert_eq!(message.len(), MESSAGE_BYTES);
        assert_eq!(message[..8], number.to_be_bytes());
    }
    drop(writing.join().unwrap());
}

#[rstest]
fn a_server_that_reads_nothing_makes_senders_wait(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (client, mut line) = pair(&connector);
    let mut accepted = 0;
    // Waits in a row: those in between let the shard hand over what it has.
    let mut waits = 0;
    while waits < 50 {
        let mut sending = Box::pin(client.send(vec![accepted as u8; MESSAGE_BYTES]));
        if poll_once(sending.as_mut()).is_ready() {
            accepted += 1;
            waits = 0;
        } else {
            waits += 1;
            stats(&connector);
        }
        // What two sockets on loopback may hold is a few MiB.
        assert!(accepted * MESSAGE_BYTES < 64 << 20, "it takes everything");
    }
    let sent = stats(&connector).reactor.sent_bytes as usize;
    let waiting = (accepted * (MESSAGE_BYTES + 8)).saturating_sub(sent);
    // Outbox and queue are full to their marks, and a message each.
    assert!(waiting < 2 * 65_536 + 4 * MESSAGE_BYTES, "{waiting} bytes wait");
    let reading = std::thread::spawn(move || {
        for number in 0..=accepted {
            assert_eq!(line.read_frame().payload, vec![number as u8; MESSAGE_BYTES]);
        }
    });
    wait(client.send(vec![accepted as u8; MESSAGE_BYTES])).unwrap();
    reading.join().unwrap();
}

#[rstest]
fn a_server_that_never_reads_again_is_left(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let short = config(reactor, |config| config.websocket.progress_timeout_ms = 100);
    let connector = Connector::start(short).unwrap();
    let (client, line) = pair(&connector);
    let failed = wait(async {
        loop {
            if let Err(error) = client.send(vec![0; 100_000]).await {
                return error;
            }
        }
    });
    assert_eq!(failed, SendError::Closed);
    assert!(client.closed().is_some());
    drop(line);
}

#[test]
fn a_message_that_no_outbox_takes_is_refused() {
    let small = config(ReactorChoice::Epoll, |config| {
        config.websocket.message_bytes_max = 1000;
        config.websocket.outbox_high_bytes = 2000;
        config.websocket.outbox_low_bytes = 1000;
        config.websocket.outbox_max_bytes = 3000;
    });
    let connector = Connector::start(small).unwrap();
    let (client, mut line) = pair(&connector);
    let refused = wait(client.send(vec![0; 1001]));
    assert_eq!(refused, Err(SendError::TooLarge { len: 1001, max: 1000 }));
    wait(client.send(vec![0; 1000])).unwrap();
    assert_eq!(line.read_frame().payload.len(), 1000);
}

/// Pings go into any outbox; what is sent behind them waits until it is low again.
#[rstest]
fn a_ping_costs_no_message(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(SlowReader::Pause, SlowReader::Drop, SlowReader::Close)] policy: SlowReader,
) {
    let small = config(reactor, |config| {
        config.websocket.slow_reader = policy;
        config.websocket.message_bytes_max = 150;
        config.websocket.outbox_high_bytes = 100;
        config.websocket.outbox_low_bytes = 50;
        config.websocket.outbox_max_bytes = 250;
    });
    let connector = Connector::start(small).unwrap();
    let (client, mut line) = pair(&connector);
    let release = hold(&connector);
    client.ping(&[b'p'; 125]);
    wait(client.send(vec![b'm'; 150])).unwrap();
    drop(release);
    assert_eq!(line.read_frame().opcode, Opcode::Ping);
    assert_eq!(line.read_frame().payload, [b'm'; 150]);
    assert_eq!(client.lost(), 0);
}
