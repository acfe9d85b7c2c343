//! Clients whose end comes between two steps.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hioload_pools::{Arena, ArenaConfig, Key, mailbox};
use hioload_protocol::ws::CloseCode;
use rstest::rstest;

use super::super::mailbox::Letter;
use super::super::settings::Settings;
use super::super::turn::{Parts, Turn};
use super::super::{Action, Message, Paths, Session, Shard, ShardHandle};
use super::Step;
use crate::config::Config;
use crate::place::ShardPlace;
use crate::reactor::Reactor;
use crate::reactor::sim::{Net, SimConfig, SimReactor};
use crate::ws::{ClientHandler, Connect, ConnectError, Reconnect};

/// Notes how attempts failed.
struct Notes(Rc<RefCell<Vec<String>>>);

impl ClientHandler for Notes {
    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}

    fn failed(&mut self, _: &mut Shard, error: &ConnectError) {
        self.0.borrow_mut().push(error.to_string());
    }
}

fn pool() -> Arena {
    Arena::new(ArenaConfig { capacity_bytes: 64 << 20, ..ArenaConfig::default() }).unwrap()
}

fn turn() -> (Turn<SimReactor>, ShardHandle) {
    turn_in(&Net::new())
}

fn turn_in(net: &Net) -> (Turn<SimReactor>, ShardHandle) {
    let config = SimConfig { buffers: 16, buffer_bytes: 4096, sockets_max: 10, pool: pool() };
    let reactor = SimReactor::new(net, config).unwrap();
    let (sender, letters) = mailbox::channel(16);
    let handle = ShardHandle::new(0, sender, reactor.waker());
    let mut turn = Turn::new(Parts {
        reactor,
        place: ShardPlace { shard: 0, cpu: 0, node: None },
        settings: Settings::from(&Config::default()),
        pool: Rc::new(pool()),
        letters,
        handles: Arc::new([handle.clone()]),
        seed: [1; 32],
    });
    turn.install(|_| (Vec::new(), Paths::default()));
    (turn, handle)
}

fn turn_awake(turn: &mut Turn<SimReactor>) {
    turn.driver.reactor.waker().wake();
    turn.turn().unwrap();
}

/// A client whose host was found to have two addresses, as of the next turn.
fn found(turn: &mut Turn<SimReactor>, handler: Notes) -> Key {
    let shard = &mut turn.driver.shard;
    let connect = Connect::to("ws://127.0.0.1:81/").reconnect(Reconnect::default());
    let key = shard.connect(connect, handler).key;
    let address = SocketAddr::from(([127, 0, 0, 1], 81));
    let dial = shard.dials.get(key).unwrap();
    dial.step = Step::Found(Ok(vec![address, address]));
    dial.deadline_ms = 1000;
    key
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Drain,
    Close,
}

#[rstest]
#[case::drained_before(End::Drain, 0)]
#[case::drained_while_it_connects(End::Drain, 1)]
#[case::closed_before(End::Close, 0)]
#[case::closed_while_it_connects(End::Close, 1)]
fn what_ends_tries_no_other_address(#[case] end: End, #[case] turns: usize) {
    let (mut turn, handle) = turn();
    let failed = Rc::default();
    let key = found(&mut turn, Notes(Rc::clone(&failed)));
    turn.seat(key);
    for _ in 0..turns {
        turn_awake(&mut turn);
        let dial = turn.driver.shard.dials.get(key).unwrap();
        assert!(matches!(dial.step, Step::Connecting(_)), "it is at its first address");
    }
    match end {
        End::Drain => handle.post(Letter::Drain { timeout_ms: 1000 }).unwrap(),
        End::Close => {
            // Before what it has to do in that turn.
            let close = Action::CloseClient { key, code: CloseCode::NORMAL };
            turn.driver.shard.actions.insert(0, close);
        }
    }
    for _ in 0..2 {
        turn_awake(&mut turn);
        let dial = turn.driver.shard.dials.get(key);
        let connects = dial.is_some_and(|dial| matches!(dial.step, Step::Connecting(_)));
        assert!(!connects, "it connects");
    }
    assert!(turn.driver.shard.dials.get(key).is_none(), "it is not gone");
    let told = failed.borrow();
    match end {
        End::Drain => assert!(told.len() == 1 && told[0].contains("shuts down"), "{told:?}"),
        End::Close => assert!(told.is_empty(), "{told:?}"),
    }
}

/// A client of a name, at this step as of the next turn.
fn at_step(turn: &mut Turn<SimReactor>, handler: Notes, step: Step) -> Key {
    let shard = &mut turn.driver.shard;
    let connect = Connect::to("ws://a.example/").timeout(Duration::from_millis(500));
    let key = shard.connect(connect, handler).key;
    let dial = shard.dials.get(key).unwrap();
    (dial.step, dial.attempt) = (step, 1);
    turn.seat(key);
    key
}

#[rstest]
#[case::without_addresses(Ok(Vec::new()), "entity not found")]
#[case::with_an_error(Err(io::Error::other("no server answers")), "no server answers")]
fn a_name_that_leads_nowhere_is_told(
    #[case] found: io::Result<Vec<SocketAddr>>,
    #[case] why: &str,
) {
    let (mut turn, _) = turn();
    let failed = Rc::default();
    let key = at_step(&mut turn, Notes(Rc::clone(&failed)), Step::Found(found));
    turn_awake(&mut turn);
    assert_eq!(*failed.borrow(), [format!("cannot look up `a.example`: {why}")]);
    assert!(turn.driver.shard.dials.get(key).is_none(), "it is not gone");
}

#[test]
fn a_look_up_that_takes_too_long_is_given_up_and_its_answer_nobody_s() {
    let net = Net::new();
    let (mut turn, _) = turn_in(&net);
    let failed = Rc::default();
    let key = at_step(&mut turn, Notes(Rc::clone(&failed)), Step::Resolving);
    turn.driver.shard.dials.wheel.set(key.index, 1);
    net.advance(Duration::from_millis(2));
    turn_awake(&mut turn);
    assert_eq!(*failed.borrow(), ["no connection within 500 ms"]);
    let address = SocketAddr::from(([127, 0, 0, 1], 81));
    turn.driver.shard.found(key, 1, Ok(vec![address]));
    turn_awake(&mut turn);
    assert_eq!((failed.borrow().len(), turn.connections()), (1, 0));
}
