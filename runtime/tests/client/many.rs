//! Many connections on one shard, and none that waits for another.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use hioload::CloseCode;
use hioload::config::ReactorChoice;
use hioload::ws::{Client, Connect};
use rstest::rstest;

use crate::support::{connector, echo, stats, until, wait};

const CLIENTS: usize = 200;

/// All of them at once, on one thread.
async fn join<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) -> Vec<T> {
    let mut outputs: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[rstest]
fn two_hundred_clients_talk_at_the_same_time(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
) {
    let (server, url) = echo(reactor, |_| {});
    let connector = connector(reactor);
    let talk = |number: usize| {
        let opening = connector.open(Connect::to(&url));
        async move {
            let mut client = opening.await.unwrap();
            for round in 0..5 {
                let text = format!("{number} in round {round}");
                client.send(text.clone()).await.unwrap();
                assert_eq!(client.next().await.unwrap().unwrap().text(), Some(&*text));
            }
            client
        }
    };
    let talks =
        (0..CLIENTS).map(|number| Box::pin(talk(number)) as Pin<Box<dyn Future<Output = _>>>);
    let clients: Vec<Client> = wait(join(talks.collect()));
    assert_eq!(clients.len(), CLIENTS);
    assert_eq!(stats(&connector).connections, CLIENTS);
    let closings = clients.iter().map(|client| {
        Box::pin(client.close(CloseCode::NORMAL, "")) as Pin<Box<dyn Future<Output = _>>>
    });
    wait(join(closings.collect()));
    until("all sockets are gone", || stats(&connector).connections == 0);
    connector.stop().unwrap();
    server.stop().unwrap();
}
