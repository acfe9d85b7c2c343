//! The end of a handle, of its connector, and of what was on its way.

use hioload::config::{ReactorChoice, SlowReader};
use hioload::ws::{Connect, ConnectError, Connector, SendError};
use hioload::{CloseCode, Closed};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::peer::Peer;
use crate::support::{config, connector, hold, opening, pair, poll_once, stats, until, wait};

#[rstest]
fn what_was_sent_leaves_before_the_close_frame(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (mut client, mut line) = pair(&connector);
    for number in 0..10 {
        wait(client.send(number.to_string())).unwrap();
    }
    let mut closing = Box::pin(client.close(CloseCode::new(4000).unwrap(), "bye"));
    assert!(poll_once(closing.as_mut()).is_pending());
    for number in 0..10 {
        assert_eq!(line.read_frame().payload, number.to_string().as_bytes());
    }
    let frame = line.read_frame();
    assert_eq!((frame.opcode, &*frame.payload), (Opcode::Close, &b"\x0f\xa0bye"[..]));
    line.finish(4000);
    assert_eq!(wait(closing), Closed::ByHandler(CloseCode::new(4000).unwrap()));
    assert!(wait(client.next()).is_none());
    assert_eq!(wait(client.send("more")), Err(SendError::Closed));
}

/// What is more than the outbox takes at once leaves before the close frame too, whatever is done
/// with slow readers.
#[rstest]
fn a_full_outbox_loses_nothing_at_the_end(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(SlowReader::Pause, SlowReader::Drop, SlowReader::Close)] policy: SlowReader,
    #[values(true, false)] stops: bool,
) {
    let small = config(reactor, |config| {
        config.websocket.slow_reader = policy;
        config.websocket.message_bytes_max = 1000;
        config.websocket.outbox_high_bytes = 1000;
        config.websocket.outbox_low_bytes = 500;
        config.websocket.outbox_max_bytes = 2000;
    });
    let connector = Connector::start(small).unwrap();
    let (client, mut line) = pair(&connector);
    let release = hold(&connector);
    // Each of them costs six bytes more as a frame.
    for number in 0..900_u32 {
        wait(client.send(vec![number as u8])).unwrap();
    }
    let code = CloseCode::new(4000).unwrap();
    let mut closing = Box::pin(client.close(code, ""));
    assert!(poll_once(closing.as_mut()).is_pending());
    // A connector that is told to stop meanwhile waits for it.
    let connector = (!stops).then_some(connector);
    drop(release);
    for number in 0..900_u32 {
        assert_eq!(line.read_frame().payload, [number as u8]);
    }
    assert_eq!(line.read_close(), 4000);
    line.finish(4000);
    assert_eq!(wait(closing), Closed::ByHandler(code));
    assert_eq!(client.lost(), 0);
    drop(connector);
}

#[rstest]
fn what_was_sent_leaves_before_the_connector_stops(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] is_dropped: bool,
) {
    let connector = connector(reactor);
    let (client, mut line) = pair(&connector);
    let release = hold(&connector);
    wait(client.send("last words")).unwrap();
    let client = (!is_dropped).then_some(client);
    drop(connector);
    drop(release);
    assert_eq!(line.read_frame().payload, b"last words");
    assert_eq!(line.read_close(), 1001);
    line.finish(1001);
    drop(client);
}

#[rstest]
fn nobody_answers_the_close_frame(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let short = config(reactor, |config| config.websocket.close_timeout_ms = 100);
    let connector = Connector::start(short).unwrap();
    let (client, mut line) = pair(&connector);
    assert_eq!(wait(client.close(CloseCode::NORMAL, "")), Closed::ByHandler(CloseCode::NORMAL));
    assert_eq!(line.read_close(), 1000);
    line.expect_end();
}

#[rstest]
fn a_dropped_handle_closes_the_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (client, mut line) = pair(&connector);
    wait(client.send("last words")).unwrap();
    drop(client);
    assert_eq!(line.read_frame().payload, b"last words");
    assert_eq!(line.read_close(), 1001);
    line.finish(1001);
    until("the socket is gone", || stats(&connector).connections == 0);
}

#[rstest]
fn halves_close_it_when_both_are_gone(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (client, mut line) = pair(&connector);
    let (sender, receiver) = client.split();
    drop(receiver);
    // Nobody takes it any more; pings are answered all the same.
    line.send(Opcode::Text, &[b'x'; 100_000]);
    line.send(Opcode::Ping, b"p");
    assert_eq!(line.read_frame().opcode, Opcode::Pong);
    wait(sender.clone().send("still here")).unwrap();
    assert_eq!(line.read_frame().payload, b"still here");
    drop(sender);
    assert_eq!(line.read_close(), 1001);
}

#[rstest]
fn a_connector_that_is_dropped_closes_its_connections(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] waits: bool,
) {
    let connector = connector(reactor);
    let (mut client, mut line) = pair(&connector);
    let peer = Peer::listen();
    let mut opening = opening(&connector, Connect::to(peer.url()));
    let unanswered = peer.accept();
    let late = connector.open(Connect::to(peer.url()));
    let end = std::thread::spawn(move || {
        assert_eq!(line.read_close(), 1001);
        line.finish(1001);
    });
    if waits {
        connector.stop().unwrap();
    } else {
        drop(connector);
    }
    assert!(wait(client.next()).unwrap().is_err());
    assert_eq!(client.closed(), Some(Closed::Shutdown));
    let stopped = wait(opening.as_mut()).expect_err("it ends");
    assert!(matches!(stopped, ConnectError::Stopped), "{stopped:?}");
    let stopped = wait(late).expect_err("nobody is there to do it");
    assert!(matches!(stopped, ConnectError::Stopped), "{stopped:?}");
    drop(unanswered);
    end.join().unwrap();
}

#[rstest]
fn a_wrong_configuration_does_not_start(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let wrong = config(reactor, |config| config.memory.buffers = 5);
    assert!(Connector::start(wrong).is_err());
}
