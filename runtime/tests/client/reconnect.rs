//! Connections that are lost and opened again, as their handle sees it.

use std::time::Duration;

use hioload::config::ReactorChoice;
use hioload::ws::{Broken, Connect, ConnectError, Connector, Event, Reconnect};
use hioload::{CloseCode, Closed};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::peer::Peer;
use crate::support::{config, connector, opening, poll_once, wait};

fn soon() -> Reconnect {
    Reconnect::default().first(Duration::from_millis(1)).max(Duration::from_millis(5))
}

#[rstest]
fn messages_go_on_over_a_reconnect(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let opening = opening(&connector, Connect::to(peer.url()).reconnect(soon()));
    let mut line = peer.open();
    let mut client = wait(opening).unwrap();
    line.send(Opcode::Text, b"one");
    assert_eq!(wait(client.next()).unwrap().unwrap().text(), Some("one"));
    assert_eq!(client.generation(), 1);
    drop(line);

    let mut line = peer.open();
    line.send(Opcode::Text, b"two");
    let event = wait(client.next_event()).unwrap().unwrap();
    assert_eq!(event, Event::Reconnected { generation: 2 });
    assert_eq!(wait(client.next()).unwrap().unwrap().text(), Some("two"));
    assert_eq!((client.generation(), client.closed()), (2, None));
    wait(client.send("three")).unwrap();
    assert_eq!(line.read_frame().payload, b"three");

    // A restart is announced: 1012.
    line.send(Opcode::Close, &1012_u16.to_be_bytes());
    assert_eq!(line.read_close(), 1012);
    drop(line);
    let mut line = peer.open();
    line.send(Opcode::Text, b"four");
    assert_eq!(wait(client.next()).unwrap().unwrap().text(), Some("four"));
    assert_eq!(client.generation(), 3);

    // We close: that is the end.
    let mut closing = Box::pin(client.close(CloseCode::NORMAL, ""));
    assert!(poll_once(closing.as_mut()).is_pending());
    assert_eq!(line.read_close(), 1000);
    line.finish(1000);
    assert_eq!(wait(closing), Closed::ByHandler(CloseCode::NORMAL));
    assert!(wait(client.next()).is_none());
}

#[rstest]
fn a_server_that_does_not_want_us_is_left_alone(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(1000, 1008, 4001)] code: u16,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let opening = opening(&connector, Connect::to(peer.url()).reconnect(soon()));
    let mut line = peer.open();
    let mut client = wait(opening).unwrap();
    line.send(Opcode::Close, &code.to_be_bytes());
    assert_eq!(line.read_close(), code);
    drop(line);
    assert!(wait(client.next()).is_none());
    assert_eq!(client.closed(), Some(Closed::ByPeer(CloseCode::new(code))));
}

#[rstest]
fn senders_wait_for_the_next_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let opening = opening(&connector, Connect::to(peer.url()).reconnect(soon()));
    let line = peer.open();
    let client = wait(opening).unwrap();
    drop(line);
    // The next attempt is begun, so the loss is known; it is not answered yet.
    let mut line = peer.accept();
    let mut sending = Box::pin(client.send("for the second one"));
    assert!(poll_once(sending.as_mut()).is_pending());
    let response = line.response("");
    line.write(&response);
    wait(sending).unwrap();
    assert_eq!(line.read_frame().payload, b"for the second one");
}

#[rstest]
fn a_message_without_memory_costs_one_connection(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let small = config(reactor, |config| {
        config.memory.pool_bytes = 4 << 20;
        config.websocket.message_bytes_max = 1 << 20;
        config.websocket.outbox_max_bytes = 64 << 20;
    });
    let connector = Connector::start(small).unwrap();
    let peer = Peer::listen();
    let opening = opening(&connector, Connect::to(peer.url()).reconnect(soon()));
    let mut line = peer.open();
    let mut client = wait(opening).unwrap();
    wait(client.send(vec![0; 32 << 20])).unwrap();
    assert_eq!(line.read_close(), 1013);
    line.finish(1013);
    let mut line = peer.open();
    let event = wait(client.next_event()).unwrap().unwrap();
    assert_eq!(event, Event::Reconnected { generation: 2 });
    assert_eq!(client.lost(), 1);
    wait(client.send("smaller")).unwrap();
    assert_eq!(line.read_frame().payload, b"smaller");
}

#[rstest]
fn attempts_end_when_they_are_used_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let rule = soon().attempts(3);
    let opening = opening(&connector, Connect::to(peer.url()).reconnect(rule));
    let line = peer.open();
    let mut client = wait(opening).unwrap();
    drop((line, peer));
    let end = wait(client.next()).unwrap();
    assert!(matches!(end, Err(Broken::GaveUp(ConnectError::Io { .. }))), "{end:?}");
    assert!(wait(client.next()).is_none());
    assert!(wait(client.send("too late")).is_err());
}

#[rstest]
fn an_answer_that_will_stay_the_same_ends_it(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let first = opening(&connector, Connect::to(peer.url()).reconnect(soon()));
    for response in ["HTTP/1.1 503 Later\r\n\r\n", "HTTP/1.1 403 Never\r\n\r\n"] {
        peer.accept().write(response.as_bytes());
    }
    let error = wait(first).expect_err("it is given up");
    assert!(matches!(error, ConnectError::Status(403)), "{error:?}");
}

#[rstest]
fn a_handle_that_is_dropped_while_it_waits_gives_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    let patient = Reconnect::default().first(Duration::from_secs(3600)).max(Duration::MAX);
    let opening = opening(&connector, Connect::to(peer.url()).reconnect(patient));
    let line = peer.open();
    let client = wait(opening).unwrap();
    let (sender, receiver) = client.split();
    drop(line);
    drop(receiver);
    // It answers at once, whatever the wait is.
    wait(sender.close(CloseCode::NORMAL, ""));
    assert!(sender.closed().is_some());
    drop(sender);
    connector.stop().unwrap();
}
