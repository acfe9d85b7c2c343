//! What a waker does when it is cloned or dropped may use the very handle that it waits for.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;

use hioload::CloseCode;
use hioload::config::ReactorChoice;
use hioload::ws::{Receiver, Sender};
use rstest::rstest;

use crate::nosy::poll_and_drop;
use crate::support::{PATIENCE, connector, hold, pair};

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

fn next(_: Sender, mut receiver: Receiver) -> Waiting {
    Box::pin(async move { drop(receiver.next().await) })
}

fn send(sender: Sender, receiver: Receiver) -> Waiting {
    Box::pin(async move {
        let _receiver = receiver;
        // The shard takes nothing: behind the first there is no room.
        for _ in 0..2 {
            sender.send(vec![0; 100_000]).await.unwrap();
        }
    })
}

fn close(sender: Sender, receiver: Receiver) -> Waiting {
    Box::pin(async move {
        let _receiver = receiver;
        sender.close(CloseCode::NORMAL, "").await;
    })
}

#[rstest]
#[case::next(next)]
#[case::send(send)]
#[case::close(close)]
fn wakers_may_use_the_client(#[case] wait: fn(Sender, Receiver) -> Waiting) {
    let connector = connector(ReactorChoice::Auto);
    let (client, _line) = pair(&connector);
    let free = hold(&connector);
    let (sender, receiver) = client.split();
    let handle = sender.clone();
    let look = move || {
        // The last look may be that of the shard, when the connection has ended.
        let _ = (handle.closed(), handle.lost());
        handle.ping(b"!");
    };
    let (tell, done) = mpsc::channel();
    std::thread::spawn(move || tell.send(poll_and_drop(wait(sender, receiver), look)));
    let looks = done.recv_timeout(PATIENCE).expect("it waits for itself");
    assert!(looks >= 5, "two clones and three drops at the least: {looks}");
    drop(free);
}
