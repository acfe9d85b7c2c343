//! Futures that are dropped in every state, and lose or send nothing by that.

use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};

use hioload::config::ReactorChoice;
use hioload::ws::{Client, Connect, ConnectError, Reconnect};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::peer::Peer;
use crate::support::{
    PATIENCE, connector, echo, hold, opening, pair, poll_once, stats, until, wait,
};

#[rstest]
fn a_send_that_is_dropped_has_sent_all_or_nothing(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (client, mut line) = pair(&connector);
    let numbered = |number: u32| {
        let mut payload = vec![0; 50_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        payload
    };
    // Never polled: not sent.
    drop(client.send(numbered(999)));
    let mut accepted = Vec::new();
    let mut dropped = 0;
    // The peer does not read, so that soon one must wait.
    for number in 0.. {
        let mut sending = Box::pin(client.send(numbered(number)));
        if poll_once(sending.as_mut()).is_ready() {
            accepted.push(number);
        } else {
            dropped += 1;
        }
        drop(sending);
        assert!(number < 1_000_000, "a peer that does not read takes everything");
        if dropped == 100 {
            break;
        }
    }
    let reading = std::thread::spawn(move || {
        for number in accepted {
            assert_eq!(line.read_frame().payload[..4], number.to_be_bytes());
        }
        line
    });
    wait(client.send("the end")).unwrap();
    let mut line = reading.join().unwrap();
    assert_eq!(line.read_frame().payload, b"the end");
}

#[rstest]
fn a_next_that_is_dropped_has_taken_nothing(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (mut client, mut line) = pair(&connector);
    for number in 0..20_u8 {
        let mut next = Box::pin(client.next());
        assert!(poll_once(next.as_mut()).is_pending());
        line.send(Opcode::Binary, &[number]);
        // It may have arrived by now, or not.
        drop(next);
        assert_eq!(wait(client.next()).unwrap().unwrap()[..], [number]);
    }
}

#[rstest]
fn an_open_that_is_dropped_gives_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] is_answered: bool,
) {
    let connector = connector(reactor);
    let peer = Peer::listen();
    // Never polled: nobody connects.
    drop(connector.open(Connect::to(peer.url())));
    let opening = opening(&connector, Connect::to(peer.url()));
    if is_answered {
        let mut line = peer.open();
        until("it is open", || stats(&connector).counters.opened == 1);
        drop(opening);
        assert_eq!(line.read_close(), 1001);
        line.finish(1001);
    } else {
        let mut line = peer.accept();
        drop(opening);
        line.expect_end();
    }
    until("the socket is gone", || stats(&connector).connections == 0);
}

type Opening = Pin<Box<dyn Future<Output = Result<Client, ConnectError>> + Send>>;

/// Drops a future when it is woken.
struct Dropper(Mutex<Option<Opening>>, mpsc::Sender<()>);

impl Wake for Dropper {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
        self.1.send(()).unwrap();
    }
}

/// Between the turn's look at what handles want, where the client begins, and its first step.
#[rstest]
fn an_open_that_is_dropped_in_the_turn_in_which_it_begins_gives_up(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] persists: bool,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    let (other, line) = pair(&connector);
    let connect = Connect::to(&url);
    let rule = Reconnect::default();
    let release = hold(&connector);
    let opening = opening(&connector, if persists { connect.reconnect(rule) } else { connect });
    // The shard takes the first one, and then wakes who waits to send the second: on its thread.
    wait(other.send(vec![0; 40_000])).unwrap();
    let mut second = Box::pin(other.send(vec![0; 40_000]));
    let (sender, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Dropper(Mutex::new(Some(opening)), sender)));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(release);
    woken.recv_timeout(PATIENCE).expect("there is room for the second one");
    until("only the other one is left", || stats(&connector).connections == 1);
    drop((second, line));
    server.stop().unwrap();
}

#[rstest]
fn a_close_that_is_dropped_closes(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor);
    let (mut client, mut line) = pair(&connector);
    {
        let mut closing = Box::pin(client.close(hioload::CloseCode::NORMAL, ""));
        assert!(poll_once(closing.as_mut()).is_pending());
    }
    assert_eq!(line.read_close(), 1000);
    line.finish(1000);
    assert!(wait(client.next()).is_none());
}
