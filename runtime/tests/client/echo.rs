//! Messages there and back, through a handle.

use hioload::config::ReactorChoice;
use hioload::ws::{self, Connect, Payload};
use hioload::{CloseCode, Closed, MessageKind};
use rstest::rstest;

use crate::support::{config, connector, echo, open, wait};

#[rstest]
fn messages_come_back_in_their_order(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    let mut client = open(&connector, Connect::to(&url));
    wait(async {
        for number in 0..100 {
            client.send(format!("message {number}")).await.unwrap();
        }
        for number in 0..100 {
            let message = client.next().await.unwrap().unwrap();
            assert_eq!(message.text(), Some(&*format!("message {number}")));
        }
        client.send(vec![0, 255]).await.unwrap();
        let message = client.next().await.unwrap().unwrap();
        assert_eq!((message.kind(), &message[..]), (MessageKind::Binary, &[0, 255][..]));
        assert_eq!(client.closed(), None);
        let closed = client.close(CloseCode::NORMAL, "done").await;
        assert_eq!(closed, Closed::ByHandler(CloseCode::NORMAL));
        assert_eq!(client.closed(), Some(closed));
        assert!(client.next().await.is_none());
        assert_eq!(client.lost(), 0);
    });
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn every_length_comes_back(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    let mut client = open(&connector, Connect::to(&url));
    let lengths = [0, 1, 125, 126, 2048, 2049, 65_535, 65_536, 200_000, 1_048_576];
    wait(async {
        for len in lengths {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 31 % 251) as u8).collect();
            client.send(bytes.clone()).await.unwrap();
            let message = client.next().await.unwrap().unwrap();
            assert!(message[..] == bytes, "{len} bytes came back changed");
        }
    });
    drop(client);
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn a_message_of_16_mib_comes_back(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let large = |config: &mut hioload::config::Config| {
        config.websocket.message_bytes_max = 16 << 20;
        config.websocket.outbox_max_bytes = 64 << 20;
    };
    let (server, url) = echo(reactor, large);
    let connector = ws::Connector::start(config(reactor, large)).unwrap();
    let mut client = open(&connector, Connect::to(&url).inbox(1, 1));
    let bytes: Vec<u8> = (0..16 << 20).map(|at: u32| (at * 7 % 253) as u8).collect();
    wait(async {
        client.send(bytes.clone()).await.unwrap();
        let message = client.next().await.unwrap().unwrap();
        assert!(message[..] == bytes, "it came back changed");
    });
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[test]
fn the_background_shard_needs_no_connector() {
    let (server, url) = echo(ReactorChoice::Auto, |_| {});
    let mut client = wait(Connect::to(&url).open()).unwrap();
    wait(client.send("hello")).unwrap();
    assert_eq!(wait(client.next()).unwrap().unwrap(), Payload::from("hello"));
    // Twice, as the first one starts it.
    let client = wait(Connect::to(&url).open()).unwrap();
    assert_eq!(wait(client.close(CloseCode::NORMAL, "")), Closed::ByHandler(CloseCode::NORMAL));
    server.stop().unwrap();
}

#[rstest]
fn a_name_is_looked_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    // It may have an IPv6 address, too, at which nobody listens.
    let mut client = open(&connector, Connect::to(url.replace("127.0.0.1", "localhost")));
    wait(client.send("hello")).unwrap();
    assert_eq!(wait(client.next()).unwrap().unwrap().text(), Some("hello"));
    server.stop().unwrap();
}

#[rstest]
fn halves_work_on_two_threads(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    let (sender, mut receiver) = open(&connector, Connect::to(&url)).split();
    let sending = std::thread::spawn(move || {
        wait(async {
            for number in 0..20_000_u32 {
                sender.send(number.to_be_bytes().to_vec()).await.unwrap();
            }
        });
        sender
    });
    wait(async {
        for number in 0..20_000_u32 {
            assert_eq!(receiver.next().await.unwrap().unwrap()[..], number.to_be_bytes());
        }
    });
    drop(sending.join().unwrap());
    connector.stop().unwrap();
    server.stop().unwrap();
}

#[rstest]
fn a_subprotocol_is_agreed_on(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    let connect = Connect::to(&url).subprotocol("best").subprotocol("chat");
    assert_eq!(open(&connector, connect).subprotocol().as_deref(), Some("chat"));
    assert_eq!(open(&connector, Connect::to(&url)).subprotocol(), None);
    server.stop().unwrap();
}
