//! What a waker does when it is cloned or dropped may use the very handle that it waits for.

use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::mpsc;

use hioload::config::ReactorChoice;
use hioload::iproto::{Channel, Pool};
use rstest::rstest;

use crate::channel::{connector, listen};
use crate::nosy::poll_and_drop;
use crate::support::PATIENCE;

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Does something in a thread of its own, which must come to its end: answers what it answers.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, done) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    done.recv_timeout(PATIENCE).expect("it waits for itself")
}

fn call(channel: Channel) -> Waiting {
    Box::pin(async move { drop(channel.call_within(PATIENCE, 1, "?").await) })
}

fn done(channel: Channel) -> Waiting {
    Box::pin(async move {
        channel.done().await;
    })
}

#[rstest]
#[case::call(call)]
#[case::done(done)]
fn those_of_a_channel(#[case] wait: fn(Channel) -> Waiting) {
    let connector = connector(ReactorChoice::Auto, |_| {});
    let (_listener, channel, _peer) = listen(&connector, |it| it);
    let handle = channel.clone();
    let look = move || assert!(handle.is_open() && handle.generation() == 1);
    let looks = in_time(move || poll_and_drop(wait(channel), look));
    assert!(looks >= 6, "two clones and four drops at the least: {looks}");
    connector.stop().unwrap();
}

fn pool_call(pool: Pool) -> Waiting {
    Box::pin(async move { drop(pool.call(1, "?").await) })
}

fn next_channel(pool: Pool) -> Waiting {
    Box::pin(async move { drop(pool.next_channel().await) })
}

fn init(pool: Pool) -> Waiting {
    Box::pin(async move { drop(pool.init().await) })
}

fn pool_done(pool: Pool) -> Waiting {
    Box::pin(async move { pool.done().await })
}

#[rstest]
#[case::call(pool_call)]
#[case::next_channel(next_channel)]
#[case::init(init)]
#[case::done(pool_done)]
fn those_of_a_pool(#[case] wait: fn(Pool) -> Waiting) {
    let connector = connector(ReactorChoice::Auto, |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let pool = Pool::to(nobody.to_string()).on(connector.handle());
    let pool = pool.connect_timeout(PATIENCE).build().unwrap();
    let handle = pool.clone();
    let look = move || assert_eq!(handle.stats().online, 0);
    let looks = in_time(move || poll_and_drop(wait(pool), look));
    assert!(looks >= 6, "two clones and four drops at the least: {looks}");
    connector.stop().unwrap();
}
