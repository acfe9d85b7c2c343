//! A shard that is warm allocates nothing for the calls that its futures make through a pool, or a
//! channel, of the same shard; and nothing for serving them either.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;

use hioload::config::{ListenAddress, ShardCount};
use hioload::iproto::{Channel, Connect, Mux, Pool};
use hioload::{Running, Server, Shard};
use rstest::rstest;

use common::counting::{Counting, count_here, take_count};
use common::{PATIENCE, choice};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Futures that call at the same time, each one call after the other.
const FUTURES: usize = 32;
/// Calls before anything is counted, and those in which it is.
const WARM: usize = 50_000;
const COUNTED: usize = 150_000;

/// What the futures call through.
#[derive(Clone)]
enum Way {
    Pool(Pool),
    Channel(Channel),
}

impl Way {
    async fn call(&self, number: usize, body: &[u8]) {
        let msg = number as u32 % 1000;
        let response = match self {
            Self::Pool(pool) => pool.call(msg, body).await,
            Self::Channel(channel) => channel.call(msg, body).await,
        };
        assert!(response.expect("the server answers") == body, "another body came back");
    }
}

/// Counts the calls of all futures, and what is allocated in those that are not for warming up.
struct Ledger {
    calls: Cell<usize>,
    counted: mpsc::Sender<u64>,
}

impl Ledger {
    fn next(&self) -> usize {
        let number = self.calls.get();
        self.calls.set(number + 1);
        if number == WARM {
            count_here(true);
            take_count();
        } else if number == WARM + COUNTED {
            count_here(false);
            self.counted.send(take_count()).expect("the test listens");
        }
        number
    }
}

/// Calls with bodies of 0 to 499 bytes, until enough was counted.
async fn work(way: Way, ledger: Rc<Ledger>) {
    let mut body = [0; 500];
    loop {
        let number = ledger.next();
        if number > WARM + COUNTED {
            return;
        }
        body.fill(number as u8);
        way.call(number, &body[..number % 500]).await;
    }
}

fn serve(reactor: &str) -> Running {
    let echo = |_: &mut Shard| {
        Mux::new().default(|_, session, request| {
            session.reply(request.reply, request.body);
        })
    };
    let server = Server::builder().iproto("127.0.0.1:0", echo).configure(|config| {
        config.server.reactor = choice(reactor);
        config.server.shards = ShardCount::Exactly(1);
        // Nothing may happen by itself while something is measured.
        config.iproto.ping_interval_ms = 0;
    });
    server.start().expect("the server starts")
}

#[rstest]
fn calls_of_futures_cost_no_allocation(
    #[values("uring", "epoll")] reactor: &str,
    #[values("pool", "channel")] way: &'static str,
) {
    let server = serve(reactor);
    let [ListenAddress::Tcp(address)] = server.raw_addresses() else { panic!("one TCP address") };
    let address = address.to_string();
    let (sender, counted) = mpsc::channel();
    let begin = move |shard: &mut Shard| {
        let handle = shard.handle();
        let opening = Pool::to(&address).on(handle.clone()).size(4).open();
        let channel = shard.open_iproto(Connect::to(&address));
        let open = async move {
            let way = match way {
                "pool" => Way::Pool(opening.await.expect("the server accepts")),
                _ => Way::Channel(channel.await.expect("the server accepts")),
            };
            let run = move |shard: &mut Shard| {
                let ledger = Rc::new(Ledger { calls: Cell::new(0), counted: sender });
                for _ in 0..FUTURES {
                    shard.spawn(work(way.clone(), Rc::clone(&ledger))).detach();
                }
            };
            handle.run(run).expect("the mailbox has room");
        };
        shard.spawn(open).detach();
    };
    server.handles()[0].run(begin).expect("the mailbox has room");
    let counted = counted.recv_timeout(PATIENCE).expect("the calls are answered");
    println!("{reactor}, {way}: {COUNTED} calls, {counted} allocations");
    assert_eq!(counted, 0, "a warm shard allocated");
    server.stop().expect("the shards end well");
}
