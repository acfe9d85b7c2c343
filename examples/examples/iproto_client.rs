//! A client that holds an iproto echo server to its word.
//!
//! It shows both ways to be a client: a channel, which any thread may call on, and callbacks on a
//! shard; either can also serve what the server asks. Unless a flag says otherwise it sends bodies
//! of many sizes, many calls at once, pings, a pool, and ends in order.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::sleep;
use std::time::Duration;

use clap::Parser;
use hioload::Shard;
use hioload::config::{Config, ReactorChoice};
use hioload::iproto::{
    Body, CallError, Channel, ClientHandler, Closed, Connect, Opened, Pool, Request, Session,
};
use hioload::ws::{Connector, block_on};

const ECHO: u32 = 42;
/// What a server that asks its clients is asked with, and asks with.
const ASK_BACK: u32 = 7;
const ASKED: u32 = 8;
const NOTIFY: u32 = 3;
/// How much is under way at once, and how often.
const IN_FLIGHT: usize = 500;
const ROUNDS: usize = 40;
/// Connections of the pool, and calls on each.
const POOL: usize = 4;
const POOL_CALLS: usize = 100;
/// Long enough that a busy machine answers within two of them.
const PING_INTERVAL: Duration = Duration::from_millis(250);

/// Checks that an iproto server sends every body back.
#[derive(Parser)]
#[command(name = "iproto_client", version)]
struct Flags {
    /// The server: HOST:PORT
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3301")]
    addr: String,
    /// How to talk to the kernel
    #[arg(long, default_value = "auto", value_parser = ["auto", "uring", "epoll"])]
    reactor: String,
    /// Only a short conversation on each of so many connections, one after the other
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["wait", "asked_back"])]
    short: Option<u32>,
    /// Only ask once, and wait for the server to shut down
    #[arg(long, conflicts_with = "asked_back")]
    wait: bool,
    /// Only ask with code 7, which the server answers with what we answer to its code 8
    #[arg(long)]
    asked_back: bool,
}

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result {
    let connector = Connector::start(config(flags))?;
    let open = || block_on(Connect::to(&flags.addr).open_on(&connector));
    if let Some(count) = flags.short {
        (0..count).try_for_each(|_| short(&open()?))?;
    } else if flags.wait {
        wait(&open()?)?;
    } else if flags.asked_back {
        asked_back(&connector, &flags.addr)?;
    } else {
        check(&open()?)?;
        pings(flags)?;
        pool(flags, &connector)?;
    }
    Ok(connector.stop()?)
}

fn config(flags: &Flags) -> Config {
    let mut config = Config::default();
    config.server.reactor = match &*flags.reactor {
        "uring" => ReactorChoice::Uring,
        "epoll" => ReactorChoice::Epoll,
        _ => ReactorChoice::Auto,
    };
    config
}

/// Everything on one connection.
fn check(channel: &Channel) -> Result {
    bodies(channel, &[0, 1, 11, 12, 13, 2048, 2049, 65_536, 1 << 20, 10 << 20])?;
    println!("good: bodies from 0 bytes to 10 MiB");
    for round in 0..ROUNDS {
        let body = |number: usize| format!("round {round}, number {number}");
        // A call is on its way before anybody awaits it.
        let calls: Vec<_> = (0..IN_FLIGHT).map(|number| channel.call(ECHO, body(number))).collect();
        for (number, call) in calls.into_iter().enumerate() {
            same(&block_on(call)?, body(number).as_bytes())?;
        }
    }
    println!("good: {} calls, {IN_FLIGHT} in flight", ROUNDS * IN_FLIGHT);
    shut_down(channel)?;
    println!("good: a shutdown is answered");
    Ok(())
}

/// On a connection that is pinged: one that stays unanswered for two intervals ends it.
fn pings(flags: &Flags) -> Result {
    let mut config = config(flags);
    config.iproto.ping_interval_ms = PING_INTERVAL.as_millis().try_into()?;
    let connector = Connector::start(config)?;
    let channel = block_on(Connect::to(&flags.addr).open_on(&connector))?;
    sleep(PING_INTERVAL * 4);
    bodies(&channel, &[1])?;
    let pings = channel.stats().packets_in - 1;
    if pings < 2 {
        return Err(format!("{pings} pings were answered in {:?}", PING_INTERVAL * 4).into());
    }
    println!("good: pings are answered");
    shut_down(&channel)?;
    Ok(connector.stop()?)
}

fn pool(flags: &Flags, connector: &Connector) -> Result {
    let pool = Pool::to(&flags.addr).on(connector.handle()).size(POOL).build()?;
    block_on(pool.init_all())?;
    for number in 0..POOL * POOL_CALLS {
        let body = number.to_le_bytes();
        same(&pool.call_blocking(ECHO, &body[..])?, &body)?;
    }
    for channel in pool.online() {
        let calls = channel.stats().calls;
        if calls != POOL_CALLS as u64 {
            return Err(format!("a connection of the pool had {calls} calls").into());
        }
    }
    block_on(pool.shutdown());
    println!("good: a pool of {POOL} connections");
    Ok(())
}

/// What a proxy can cut at every byte.
fn short(channel: &Channel) -> Result {
    bodies(channel, &[0, 5])?;
    channel.notify(NOTIFY, "told")?;
    bodies(channel, &[20])?;
    shut_down(channel)
}

fn wait(channel: &Channel) -> Result {
    bodies(channel, &[5])?;
    println!("ready");
    match block_on(channel.done()) {
        Closed::ByPeer => Ok(()),
        reason => Err(format!("the connection ended as {reason:?}").into()),
    }
}

fn bodies(channel: &Channel, lengths: &[usize]) -> Result {
    for &length in lengths {
        let body: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        same(&channel.call_blocking(ECHO, &body)?, &body)?;
    }
    Ok(())
}

fn same(came: &[u8], sent: &[u8]) -> Result {
    if came == sent {
        return Ok(());
    }
    Err(format!("a body of {} bytes came back as another one of {}", sent.len(), came.len()).into())
}

fn shut_down(channel: &Channel) -> Result {
    match block_on(channel.shutdown()) {
        Closed::ByHandler => Ok(()),
        reason => Err(format!("the connection ended as {reason:?}").into()),
    }
}

/// Asks, answers what it is asked meanwhile, and gives the answer away.
struct Both(mpsc::Sender<std::result::Result<Vec<u8>, CallError>>);

impl ClientHandler for Both {
    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: &Opened) {
        if let Err(error) = session.call(ASK_BACK, "hello", None, 0) {
            // Who does not listen any more needs no answer.
            let _ = self.0.send(Err(error));
        }
    }

    fn request(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
        // Anything else drops the reply, which answers with an error.
        if request.msg == ASKED {
            session.reply(request.reply, said(&request.body));
        }
    }

    fn answered(
        &mut self,
        _: &mut Shard,
        session: &mut Session<'_, ()>,
        _: u64,
        response: std::result::Result<Body, CallError>,
    ) {
        // A body is a part of the shard's memory: what leaves the shard is a copy.
        let _ = self.0.send(response.map(|body| body.to_vec()));
        session.shutdown();
    }
}

fn said(body: &[u8]) -> Vec<u8> {
    [b"you said ", body].concat()
}

fn asked_back(connector: &Connector, address: &str) -> Result {
    let (sender, answers) = mpsc::channel();
    let connect = Connect::to(address);
    connector.handle().run(move |shard| {
        shard.connect_iproto(connect, Both(sender));
    })?;
    same(&answers.recv()??, b"you said hello")?;

    let connect = Connect::to(address).on_request(|shard, request| match request.msg {
        ASKED => {
            let answer = said(&request.body);
            request.reply.send(shard, answer);
        }
        // Perhaps a response that comes too late, which wants no answer.
        _ => request.reply.discard(),
    });
    let channel = block_on(connect.open_on(connector))?;
    same(&channel.call_blocking(ASK_BACK, "hello")?, b"you said hello")?;
    shut_down(&channel)?;
    println!("good: a request that is answered when ours is");
    Ok(())
}
