//! Topics as a handler uses them, on a bench.

use hioload::config::{Config, SlowReader};
use hioload::testkit::{Bench, Received, TestClient};
use hioload::{CloseCode, Handler, Message, MessageKind, Request, Session, Shard};
use hioload::{SubscribeError, Upgrade};

/// Does what a message says: `+topic` subscribes, `-topic` unsubscribes, `topic=text` publishes,
/// `topic!text` publishes to the others, `*...` publishes the whole message to the others of `a`,
/// `order` does several things at once.
struct Commands;

impl Handler for Commands {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn message(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        let text = message.text().expect("the test sends text").to_owned();
        if text == "order" {
            shard.publish("a", self::text(shard, "first"));
            shard.send_to(session.id(), self::text(shard, "second"));
            shard.publish("a", self::text(shard, "third"));
            session.send_text("before all of them");
        } else if text.starts_with('*') {
            let count = shard.publish_except("a", session.id(), message);
            session.send_text(&count.to_string());
        } else if let Some(topic) = text.strip_prefix('+') {
            let answer = match session.subscribe(topic) {
                Ok(new) => new.to_string(),
                Err(error) => error.to_string(),
            };
            session.send_text(&answer);
        } else if let Some(topic) = text.strip_prefix('-') {
            let was = session.unsubscribe(topic);
            assert!(!session.is_subscribed(topic));
            session.send_text(&was.to_string());
        } else if let Some((topic, said)) = text.split_once('=') {
            let count = shard.publish(topic, self::text(shard, said));
            session.send_text(&count.to_string());
        } else if let Some((topic, said)) = text.split_once('!') {
            let count = shard.publish_except(topic, session.id(), self::text(shard, said));
            session.send_text(&count.to_string());
        }
    }
}

fn text(shard: &Shard, text: &str) -> Message {
    shard.message(MessageKind::Text, text.as_bytes()).expect("the pool has room")
}

fn received(text: &str) -> Option<Received> {
    Some(Received::Text(text.to_owned()))
}

fn ask(client: &mut TestClient, command: &str) -> String {
    client.send_text(command);
    match client.receive() {
        Some(Received::Text(answer)) => answer,
        other => panic!("no answer to {command}: {other:?}"),
    }
}

#[test]
fn a_message_reaches_all_who_are_subscribed_and_nobody_else() {
    let bench = Bench::new(Commands);
    let mut clients: Vec<_> = (0..3).map(|_| bench.connect("/").unwrap()).collect();
    for client in &mut clients[..2] {
        assert_eq!(ask(client, "+a"), "true");
        assert_eq!(ask(client, "+a"), "false", "once is enough");
    }
    // The publisher gets it too, after its own answer.
    assert_eq!(ask(&mut clients[0], "a=hello"), "2");
    assert_eq!(clients[0].receive(), received("hello"));
    assert_eq!(clients[1].receive(), received("hello"));
    assert_eq!(clients[2].receive(), None);
    assert_eq!(ask(&mut clients[0], "a!you"), "1");
    assert_eq!(clients[0].receive(), None);
    assert_eq!(clients[1].receive(), received("you"));
    // Who is not subscribed publishes as well.
    assert_eq!(ask(&mut clients[2], "a!both"), "2");
    assert_eq!(clients[1].receive(), received("both"));
    assert_eq!(ask(&mut clients[1], "-a"), "true");
    assert_eq!(ask(&mut clients[1], "-a"), "false");
    assert_eq!(ask(&mut clients[2], "a=one"), "1");
    assert_eq!(ask(&mut clients[2], "b=nobody"), "0");
    let counters = bench.shard_stats().counters;
    assert_eq!((counters.published, counters.encodings, counters.delivered), (4, 4, 6));
    assert_eq!(counters.missed, 0);
}

#[test]
fn what_is_queued_keeps_its_order() {
    let bench = Bench::new(Commands);
    let mut client = bench.connect("/").unwrap();
    ask(&mut client, "+a");
    assert_eq!(ask(&mut client, "order"), "before all of them");
    for expected in ["first", "second", "third"] {
        assert_eq!(client.receive(), received(expected));
    }
}

#[test]
fn other_threads_and_futures_publish_through_a_handle() {
    let bench = Bench::new(Commands);
    let mut client = bench.connect("/").unwrap();
    ask(&mut client, "+a");
    let handle = bench.handle();
    let publish = move |shard: &mut Shard| {
        assert_eq!(shard.publish("a", text(shard, "from afar")), 1);
    };
    handle.run(publish).unwrap();
    assert_eq!(client.receive(), received("from afar"));
    bench.run(|shard| {
        let handle = shard.handle();
        let say = move |shard: &mut Shard| {
            shard.publish("a", text(shard, "later"));
        };
        let future = async move { handle.run(say).unwrap() };
        shard.spawn(future).detach();
    });
    assert_eq!(client.receive(), received("later"));
}

#[test]
fn a_large_message_is_shared_and_not_copied() {
    let bench = Bench::new(Commands);
    let mut clients: Vec<_> = (0..100).map(|_| bench.connect("/").unwrap()).collect();
    clients.iter_mut().for_each(|client| drop(ask(client, "+a")));
    let payload = vec![b'x'; 1 << 20];
    let peak = |bench: &Bench| bench.shard_stats().pool.in_use_bytes_max;
    let before = peak(&bench);
    bench.run(|shard| {
        let message = shard.message(MessageKind::Binary, &payload).expect("the pool has room");
        assert_eq!(shard.publish("a", message), 100);
    });
    for client in &mut clients {
        assert_eq!(client.receive(), Some(Received::Binary(payload.clone())));
    }
    assert_eq!(bench.shard_stats().counters.encodings, 1);
    // The message, its header, and what the staging buffer takes.
    assert!(peak(&bench) - before <= payload.len() + (128 << 10), "it was copied");
}

#[test]
fn who_does_not_read_misses_it_and_keeps_one_copy_of_the_rest() {
    let mut config = Config::default();
    config.websocket.slow_reader = SlowReader::Drop;
    let bench = Bench::with_config(&config, |_| Commands);
    let mut talker = bench.connect("/").unwrap();
    ask(&mut talker, "+a");
    bench.net().set_window(1000);
    let mut clients: Vec<_> = (0..50).map(|_| bench.connect("/").unwrap()).collect();
    clients.iter_mut().for_each(|client| drop(ask(client, "+a")));
    let before = bench.shard_stats().pool.in_use_bytes;
    // Messages that arrived in a receive buffer which they would pin.
    let said = format!("*{}", "x".repeat(5000));
    for _ in 0..100 {
        assert_eq!(ask(&mut talker, &said), "50");
    }
    let stats = bench.shard_stats();
    let counters = stats.counters;
    assert_eq!(counters.delivered + counters.missed, 50 * 100);
    // The high mark lets 14 of them into each outbox.
    assert_eq!(counters.missed, 50 * (100 - 14));
    let pinned = stats.pool.in_use_bytes - before;
    assert!(pinned <= 14 * 8192 + (64 << 10), "{pinned} bytes for 14 messages of 5000 bytes");
    for client in &mut clients {
        for _ in 0..14 {
            assert_eq!(client.receive(), received(&said));
        }
        assert_eq!(client.receive(), None);
    }
}

#[test]
fn who_reads_too_slowly_is_closed_while_the_others_are_told() {
    let mut config = Config::default();
    config.websocket.slow_reader = SlowReader::Close;
    let bench = Bench::with_config(&config, |_| Commands);
    bench.net().set_window(100_000);
    let mut slow: Vec<_> = (0..3).map(|_| bench.connect("/").unwrap()).collect();
    slow.iter_mut().for_each(|client| drop(ask(client, "+a")));
    let mut quick = bench.connect("/").unwrap();
    ask(&mut quick, "+a");
    let said = "x".repeat(60_000);
    for _ in 0..5 {
        bench.run(|shard| shard.publish("a", text(shard, &said)));
        assert_eq!(quick.receive(), received(&said));
    }
    // The window takes one of them and a part of the next, the outbox those up to its mark.
    for client in &mut slow {
        let mut last = client.receive();
        while last == received(&said) {
            last = client.receive();
        }
        let reason = "reads too slowly".to_owned();
        assert_eq!(last, Some(Received::Close { code: Some(CloseCode::POLICY), reason }));
    }
    assert_eq!(bench.shard_stats().counters.missed, 3, "once each: then they are gone");
    assert_eq!(ask(&mut quick, "a!you"), "0");
}

#[test]
fn who_closes_is_subscribed_no_more() {
    let bench = Bench::new(Commands);
    let (mut one, mut other) = (bench.connect("/").unwrap(), bench.connect("/").unwrap());
    ask(&mut one, "+a");
    ask(&mut other, "+a");
    one.close(CloseCode::NORMAL, "");
    assert_eq!(ask(&mut other, "a=still here"), "1");
    assert_eq!(other.receive(), received("still here"));
    drop(other);
    // Its slot is used again, without what was subscribed there.
    let mut third = bench.connect("/").unwrap();
    assert_eq!(ask(&mut third, "a=nobody"), "0");
    assert_eq!(third.receive(), None);
}

#[test]
fn subscriptions_are_bounded() {
    let mut config = Config::default();
    config.limits.topics_max = 3;
    config.limits.subscriptions_max = 2;
    let bench = Bench::with_config(&config, |_| Commands);
    let (mut one, mut other) = (bench.connect("/").unwrap(), bench.connect("/").unwrap());
    assert_eq!(ask(&mut one, "+a"), "true");
    assert_eq!(ask(&mut one, "+b"), "true");
    assert_eq!(ask(&mut one, "+c"), SubscribeError::TooManySubscriptions.to_string());
    assert_eq!(ask(&mut other, "+c"), "true");
    assert_eq!(ask(&mut other, "+d"), SubscribeError::TooManyTopics.to_string());
    assert_eq!(ask(&mut one, "-b"), "true");
    assert_eq!(ask(&mut other, "+d"), "true", "a topic without subscribers is forgotten");
    let long = format!("+{}", "x".repeat(256));
    assert_eq!(ask(&mut one, &long), SubscribeError::NameTooLong.to_string());
}
