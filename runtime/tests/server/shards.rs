//! Several shards: each has its own sessions, and they reach each other by letters.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload::config::ShardCount;
use hioload::{Handler, Message, MessageKind, Request, Session, SessionId, Shard, Upgrade};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, start};

type Names = Arc<Mutex<HashMap<String, SessionId>>>;

/// Sends "name: text" to the session of that name, wherever it is.
struct Post(Names);

impl Handler for Post {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<()> {
        let name = request.query().unwrap_or_default().to_owned();
        self.0.lock().unwrap().insert(name, request.session_id());
        Upgrade::accept(())
    }

    fn message(&mut self, shard: &mut Shard, _: &mut Session<'_, ()>, message: Message) {
        let (name, text) = message.text().unwrap().split_once(": ").unwrap();
        let to = self.0.lock().unwrap()[name];
        let message = shard.message(MessageKind::Text, text.as_bytes()).unwrap();
        shard.send_to(to, message);
    }
}

#[rstest]
fn sessions_of_different_shards_reach_each_other(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        eprintln!("skipped: it takes two CPUs to have two shards");
        return;
    }
    let names = Names::default();
    let known = Arc::clone(&names);
    let server = start(
        reactor,
        |config| config.server.shards = ShardCount::Exactly(2),
        |server| server.websocket("/", move |_| Post(Arc::clone(&known))),
    );
    let mut clients: Vec<_> =
        (0..40).map(|number| Client::open(&server, &format!("/?c{number}"))).collect();
    let shards: Vec<_> = names.lock().unwrap().values().map(|id| id.shard()).collect();
    assert!(shards.contains(&0) && shards.contains(&1), "SO_REUSEPORT spreads 40 connections");
    for number in 0..40 {
        let next = (number + 1) % 40;
        clients[number].send(Opcode::Text, format!("c{next}: from c{number}").as_bytes());
        let received = clients[next].read_frame();
        assert_eq!(received.payload, format!("from c{number}").as_bytes());
    }
    server.stop().unwrap();
}
