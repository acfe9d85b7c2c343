//! Connections that are taken away in a simulated network: every cut, with faults and without.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hioload::iproto::{CallError, Channel, Closed, Connect, Hijacked};
use hioload::reactor::sim::{Faults, SimConfig, SimReactor};
use hioload::reactor::{Connection, Event, Reactor, Receive, Socket, Token};
use hioload::testkit::Bench;
use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
use hioload_pools::{Arena, ArenaConfig, BytePool};
use rstest::rstest;

use crate::support::packet;

/// Serves nothing: the shard is there for a connection of its own.
pub(crate) struct Nothing;

impl Handler for Nothing {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::refuse(404)
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}
}

/// The port of the server, which is the test itself.
const PORT: u16 = 3301;
const LISTENER: Token = Token(0);
const SERVED: Token = Token(1);
const TAKEN: Token = Token(2);

/// A shard with a channel, and the reactor of everybody else in its network.
struct Scene {
    bench: Bench,
    others: SimReactor,
    pool: Arena,
    server: Socket,
    channel: Channel,
    /// A send of the server is on its way.
    is_blocked: bool,
    /// What arrived at the server, and of the connection that was taken.
    served: Vec<u8>,
    taken: Vec<u8>,
}

type Given<T> = Rc<RefCell<Option<T>>>;

impl Scene {
    fn new(faults: Faults) -> Self {
        let bench = Bench::new(Nothing);
        bench.net().set_faults(faults);
        let pool =
            Arena::new(ArenaConfig { capacity_bytes: 8 << 20, ..ArenaConfig::default() }).unwrap();
        let config =
            SimConfig { buffers: 8, buffer_bytes: 4096, sockets_max: 16, pool: pool.clone() };
        let mut others = SimReactor::new(bench.net(), config).unwrap();
        others.listen(bench.net().listen(PORT).unwrap(), LISTENER).unwrap();
        let connect = Connect::to(format!("127.0.0.1:{PORT}")).timeout(Duration::from_secs(60));
        let opening = bench.run(|shard| shard.open_iproto(connect));
        let opened = run(&bench, opening);
        let mut accepted = None;
        let channel = loop {
            for (_, event) in step(&bench, &mut others) {
                if let Event::Accepted(connection) = event {
                    accepted = Some(connection);
                }
            }
            if accepted.is_some()
                && let Some(channel) = opened.borrow_mut().take()
            {
                break channel.unwrap();
            }
        };
        let server = others.adopt(accepted.unwrap(), SERVED).unwrap();
        others.receive(server, Receive::Pool);
        let (served, taken) = (Vec::new(), Vec::new());
        Self { bench, others, pool, server, channel, is_blocked: false, served, taken }
    }

    /// Lets a millisecond pass for everybody.
    fn turn(&mut self) {
        for (token, event) in step(&self.bench, &mut self.others) {
            match (token, event) {
                (SERVED, Event::Received(lease)) => self.served.extend_from_slice(&lease),
                (TAKEN, Event::Received(lease)) => self.taken.extend_from_slice(&lease),
                (_, Event::SendBlocked(_)) => self.is_blocked = true,
                (_, Event::Sent { done, .. }) => self.is_blocked = !done,
                (_, Event::Ended) => {}
                (token, event) => panic!("{token:?}: {event:?}"),
            }
        }
    }

    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        for _ in 0..20_000 {
            if is_so(self) {
                return;
            }
            self.turn();
        }
        panic!("in vain: {what}");
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut lease = self.pool.acquire(bytes.len(), bytes.len()).unwrap();
        lease.copy_from_slice(bytes);
        self.others.send(self.server, [lease.freeze()]);
        self.turn();
        self.until("all of it has left", |scene| !scene.is_blocked);
        // And has arrived, if it is delayed.
        for _ in 0..50 {
            self.turn();
        }
    }

    /// The sync of the next call that the server finds.
    fn asked(&mut self) -> u32 {
        self.until("a call", |scene| scene.served.len() >= 12);
        let header: Vec<u8> = self.served.drain(..12).collect();
        let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let body = number(4) as usize;
        self.until("its body", |scene| scene.served.len() >= body);
        self.served.drain(..body);
        number(8)
    }

    /// Reads on where the channel has stopped.
    fn take(&mut self, connection: Connection) -> Socket {
        let socket = self.others.adopt(connection, TAKEN).unwrap();
        self.others.receive(socket, Receive::Pool);
        socket
    }
}

/// A millisecond for the shard and for the others: what happened to those.
fn step(bench: &Bench, others: &mut SimReactor) -> Vec<(Token, Event)> {
    bench.advance(Duration::from_millis(1));
    let mut batch = Vec::new();
    others.wait(Some(Duration::ZERO), &mut batch).unwrap();
    batch.into_iter().map(|completion| (completion.token, completion.event)).collect()
}

/// Runs a future on the shard.
fn run<T: 'static>(bench: &Bench, future: impl Future<Output = T> + 'static) -> Given<T> {
    let given = Rc::new(RefCell::new(None));
    let giving = Rc::clone(&given);
    let running = async move {
        let value = future.await;
        *giving.borrow_mut() = Some(value);
    };
    bench.run(|shard| shard.spawn(running).detach());
    given
}

fn get<T: 'static>(scene: &mut Scene, given: &Given<T>) -> T {
    scene.until("what a future gives", |_| given.borrow().is_some());
    given.borrow_mut().take().unwrap()
}

#[rstest]
#[case::without_faults(Faults::none())]
#[case::with_faults(Faults::benign())]
fn no_byte_is_lost_wherever_it_is_cut(#[case] faults: Faults) {
    // What could be the beginning of a notify, and what could not.
    let tail = [&packet(5, 0, &[7; 40])[..], b"and something else"].concat();
    for cut in 0..12 + 40 {
        let mut scene = Scene::new(faults.clone());
        let call = run(&scene.bench, scene.channel.call_within(Duration::from_secs(600), 1, "?"));
        let other = run(&scene.bench, scene.channel.call_within(Duration::from_secs(600), 2, "!"));
        let sync = scene.asked();
        scene.asked();
        let response = packet(1, sync, b"yes");
        scene.write(&[&response[..], &tail[..cut]].concat());
        assert_eq!(get(&mut scene, &call).unwrap(), "yes");
        let hijack = run(&scene.bench, scene.channel.hijack());
        let (middle, end) = tail[cut..].split_at((tail.len() - cut) / 2);
        scene.write(middle);
        let Hijacked { connection, unread } = get(&mut scene, &hijack).unwrap();
        assert_eq!(get(&mut scene, &other), Err(CallError::Hijacked));
        let channel = scene.channel.clone();
        let done = run(&scene.bench, async move { channel.done().await });
        assert_eq!(get(&mut scene, &done), Closed::Hijacked);
        scene.take(connection);
        scene.write(end);
        let beside = unread.len();
        scene.until("the rest", |scene| beside + scene.taken.len() >= tail.len());
        assert_eq!([&unread[..], &scene.taken].concat(), tail, "cut at {cut}");
        let stats = scene.bench.shard_stats();
        assert_eq!(
            (stats.connections, stats.reactor.sockets, stats.reactor.buffers_lent),
            (0, 1, 0)
        );
    }
}

#[rstest]
#[case::without_faults(Faults::none())]
#[case::with_faults(Faults::benign())]
fn a_packet_that_was_thrown_away_is_so_to_its_end(#[case] faults: Faults) {
    // A call that nobody waits for any more: its response is late, and not kept.
    let body = [9; 40];
    for cut in 12..12 + body.len() {
        let mut scene = Scene::new(faults.clone());
        let call = scene.channel.call_within(Duration::from_millis(50), 1, "late");
        let call = run(&scene.bench, call);
        assert_eq!(get(&mut scene, &call), Err(CallError::Timeout));
        let sync = scene.asked();
        let late = packet(1, sync, &body);
        scene.write(&late[..cut]);
        let hijack = run(&scene.bench, scene.channel.hijack());
        for _ in 0..20 {
            scene.turn();
        }
        assert!(hijack.borrow().is_none(), "half of it would be found by the next");
        scene.write(&[&late[cut..], b"something else"].concat());
        let Hijacked { connection, unread } = get(&mut scene, &hijack).unwrap();
        scene.take(connection);
        let beside = unread.len();
        scene.until("the rest", |scene| beside + scene.taken.len() >= 14);
        assert_eq!([&unread[..], &scene.taken].concat(), b"something else", "cut at {cut}");
    }
}

/// A channel whose call has timed out, and that then gets a part of the response.
fn half_a_late_response() -> Scene {
    let mut scene = Scene::new(Faults::none());
    let call = scene.channel.call_within(Duration::from_millis(50), 1, "late");
    let call = run(&scene.bench, call);
    assert_eq!(get(&mut scene, &call), Err(CallError::Timeout));
    let sync = scene.asked();
    scene.write(&packet(1, sync, &[9; 40])[..20]);
    scene
}

#[test]
fn a_packet_that_never_ends_does_not_hold_it_for_ever() {
    let mut scene = half_a_late_response();
    let began = scene.bench.now().as_millis();
    let hijack = run(&scene.bench, scene.channel.hijack());
    scene.until("its time is over", |_| hijack.borrow().is_some());
    assert_eq!(hijack.borrow_mut().take().unwrap().map(drop), Err(CallError::Dropped));
    // `iproto.shutdown_timeout_ms`.
    let took = scene.bench.now().as_millis() - began;
    assert!((5000..5010).contains(&took), "{took} ms");
    assert_eq!(scene.bench.shard_stats().connections, 0);
}

#[test]
fn a_packet_that_is_cut_off_by_a_fin_holds_it_no_longer() {
    let mut scene = half_a_late_response();
    let hijack = run(&scene.bench, scene.channel.hijack());
    scene.turn();
    assert!(hijack.borrow().is_none(), "the rest of it may come");
    scene.others.shutdown(scene.server);
    let Hijacked { unread, .. } = get(&mut scene, &hijack).unwrap();
    assert!(unread.is_empty(), "of a packet that nobody waits for nothing is kept");
}
