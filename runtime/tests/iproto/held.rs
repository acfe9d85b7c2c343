//! Notifies that wait for room, to a peer that does not read yet.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{self, Sender};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hioload::config::ReactorChoice;
use hioload::iproto::{CallError, Channel, ChannelNotify};
use hioload::ws::{Connector, block_on};
use rstest::rstest;

use crate::channel::{connector, listen};
use crate::support::PATIENCE;

const MIB: usize = 1 << 20;

/// Fills the outbox, until the kernel takes nothing more for a while: a notify of 1 MiB does not fit
/// any more.
fn fill(channel: &Channel) {
    let body = Bytes::from(vec![7; MIB]);
    let short = Duration::from_millis(150);
    let mut refused = 0;
    for _ in 0..1000 {
        match block_on(channel.notify_within(short, 1, body.clone())) {
            Ok(()) => refused = 0,
            Err(error) => {
                assert_eq!(error, CallError::Full);
                refused += 1;
            }
        }
        if refused == 4 {
            return;
        }
    }
    panic!("nobody reads, and yet");
}

/// Returns when the shard has looked at everything.
fn look(connector: &Connector) {
    let (sender, done) = mpsc::channel();
    // An order of the channel may be behind the first one.
    for _ in 0..2 {
        let sender = sender.clone();
        connector.handle().run(move |_| sender.send(()).unwrap()).unwrap();
        done.recv_timeout(PATIENCE).unwrap();
    }
}

fn poll(notify: &mut ChannelNotify) -> Poll<Result<(), CallError>> {
    Pin::new(notify).poll(&mut Context::from_waker(Waker::noop()))
}

/// A body that says when it is gone.
struct Tracked(Vec<u8>, Sender<()>);

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

#[rstest]
fn a_notify_that_is_dropped_gives_its_body_back(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, channel, _peer) = listen(&connector, |it| it);
    fill(&channel);
    let mut first = channel.notify_within(PATIENCE * 9, 2, vec![7; MIB]);
    let (sender, gone) = mpsc::channel();
    let body = Bytes::from_owner(Tracked(vec![7; MIB], sender));
    let mut second = channel.notify_within(PATIENCE * 9, 3, body);
    look(&connector);
    assert!(poll(&mut second).is_pending());
    drop(second);
    gone.recv_timeout(PATIENCE).expect("the body is not kept");
    assert!(poll(&mut first).is_pending(), "the one in front of it waits on");
    channel.close();
    connector.stop().unwrap();
}

#[rstest]
fn what_waits_for_room_is_bounded(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] at_once: bool,
) {
    let connector = connector(reactor, |config| config.websocket.outbox_max_bytes = 4 * MIB);
    let (_listener, channel, _peer) = listen(&connector, |it| it);
    fill(&channel);
    let body = Bytes::from(vec![7; MIB]);
    let mut waiting = Vec::new();
    let refused = (0..50).find_map(|_| {
        let mut notify = channel.notify_within(PATIENCE, 2, body.clone());
        if !at_once {
            look(&connector);
        }
        match poll(&mut notify) {
            Poll::Ready(ended) => ended.err(),
            Poll::Pending => {
                waiting.push(notify);
                None
            }
        }
    });
    assert_eq!(refused, Some(CallError::Full), "{} MiB wait", waiting.len());
    assert!(!waiting.is_empty() && waiting.len() <= 4, "{} MiB wait", waiting.len());
    // What is taken back makes room for others.
    waiting.pop();
    let began = Instant::now();
    let refused = Poll::Ready(Err(CallError::Full));
    while poll(&mut channel.notify_within(PATIENCE, 2, body.clone())) == refused {
        assert!(began.elapsed() < PATIENCE, "what was taken back is counted still");
        look(&connector);
    }
    channel.close();
    connector.stop().unwrap();
}

#[rstest]
fn notifies_do_not_overtake_one_that_waits(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values(true, false)] waits: bool,
) {
    let connector = connector(reactor, |_| {});
    let (_listener, channel, mut peer) = listen(&connector, |it| it);
    fill(&channel);
    let big = channel.notify_within(PATIENCE, 2, vec![7; MIB]);
    look(&connector);
    let small = if waits {
        Some(channel.notify_within(PATIENCE, 3, "small"))
    } else {
        channel.notify(3, "small").unwrap();
        None
    };
    look(&connector);
    let reading = std::thread::spawn(move || {
        let mut codes = Vec::new();
        while codes.last() != Some(&4) {
            codes.push(peer.read().msg);
        }
        codes
    });
    assert_eq!(block_on(big), Ok(()));
    if let Some(small) = small {
        assert_eq!(block_on(small), Ok(()));
    }
    assert_eq!(block_on(channel.notify_within(PATIENCE, 4, "the end")), Ok(()));
    let codes: Vec<u32> = reading.join().unwrap().into_iter().skip_while(|msg| *msg == 1).collect();
    // One that never waits is lost instead.
    assert_eq!(codes, if waits { vec![2, 3, 4] } else { vec![2, 4] });
    connector.stop().unwrap();
}
