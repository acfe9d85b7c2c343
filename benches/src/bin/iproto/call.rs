//! Our client: calls on one connection, as many at once as are asked for.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use hioload::Shard;
use hioload::config::{Config, ReactorChoice};
use hioload::iproto::{Body, CallError, Channel, ClientHandler, Connect, Opened, Session};
use hioload::ws::{Connector, block_on};

use hioload_benches::{command_line, process::cpu_time};

use crate::contenders::Reactor;
use crate::executor;

const MSG: u32 = 42;

/// What the client is told.
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Whom to call
    #[arg(long, value_name = "HOST:PORT")]
    addr: SocketAddr,
    /// How to talk to the kernel
    #[arg(long, value_enum)]
    reactor: Reactor,
    /// By which means
    #[arg(long, value_enum)]
    how: How,
    /// How long to poll before it sleeps, in microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    spin_us: u64,
    /// Process of the server, whose processor time is told
    #[arg(long, value_name = "PID")]
    server_pid: u32,
    /// Calls at once
    #[arg(long, value_name = "NUMBER")]
    in_flight: u16,
    /// Bytes of a body
    #[arg(long, value_name = "BYTES")]
    bytes: u16,
    /// How long to call before it is measured
    #[arg(long, value_name = "MILLISECONDS")]
    warm_up_ms: u64,
    /// How long it is measured
    #[arg(long, value_name = "MILLISECONDS")]
    measure_ms: u64,
}

/// How calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    /// By futures on a thread of their own, on a channel whose connection is on a shard
    Channel,
    /// By futures on the shard of the channel's connection
    Spawned,
    /// By callbacks on the shard
    Handler,
}

impl How {
    /// What it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Spawned => "spawned",
            Self::Handler => "handler",
        }
    }
}

/// Calls, and prints how many calls there were while it was measured, how many nanoseconds that
/// took, and how many of processor time this process and the server needed.
pub(crate) fn run(flags: &Flags) -> ExitCode {
    command_line::end("call", call(flags))
}

fn call(flags: &Flags) -> Result<(), String> {
    let mut config = Config::default();
    config.server.reactor = ReactorChoice::from(flags.reactor);
    config.server.spin_us = flags.spin_us;
    let connector = Connector::start(config).map_err(|error| error.to_string())?;
    let calls = Arc::new(AtomicU64::new(0));
    let connect = Connect::to(flags.addr.to_string());
    let bodies = (0..flags.in_flight).map(|caller| body(caller, flags.bytes)).collect();
    match flags.how {
        How::Channel => {
            let channel =
                block_on(connect.open_on(&connector)).map_err(|error| error.to_string())?;
            let calls = Arc::clone(&calls);
            thread::spawn(move || run_futures(&channel, bodies, &calls));
        }
        How::Spawned => on_shard(&connector, Arc::clone(&calls), move |shard, calls| {
            let opening = shard.open_iproto(connect);
            shard.spawn(spawned(opening, bodies, calls, shard.handle())).detach();
        })?,
        How::Handler => on_shard(&connector, Arc::clone(&calls), move |shard, calls| {
            shard.connect_iproto(connect, Caller { bodies, calls });
        })?,
    }
    thread::sleep(Duration::from_millis(flags.warm_up_ms));
    let look = || {
        let [own, server] = [process::id(), flags.server_pid].map(cpu_time);
        Ok::<_, String>((Instant::now(), calls.load(Ordering::Relaxed), own?, server?))
    };
    let (begun, calls_before, own_before, server_before) = look()?;
    thread::sleep(Duration::from_millis(flags.measure_ms));
    let (ended, calls_after, own_after, server_after) = look()?;
    let times = [ended - begun, own_after - own_before, server_after - server_before];
    let [elapsed, own, server] = times.map(|time| time.as_nanos());
    println!("{} {elapsed} {own} {server}", calls_after - calls_before);
    // Who calls never ends: this process does.
    process::exit(0);
}

fn on_shard(
    connector: &Connector,
    calls: Arc<AtomicU64>,
    task: impl FnOnce(&mut Shard, Arc<AtomicU64>) + Send + 'static,
) -> Result<(), String> {
    connector.handle().run(move |shard| task(shard, calls)).map_err(|error| error.to_string())
}

fn body(caller: u16, bytes: u16) -> Vec<u8> {
    (0..bytes).map(|at| at.wrapping_add(caller) as u8).collect()
}

/// Only one thread counts, so that it needs no locked instruction.
fn count(calls: &AtomicU64) {
    calls.store(calls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// A measurement with a wrong answer is none.
fn fail(problem: &str) -> ! {
    eprintln!("call: {problem}");
    process::exit(1)
}

async fn keep_calling(channel: Channel, body: Vec<u8>, calls: Arc<AtomicU64>) {
    loop {
        match channel.call(MSG, &body).await {
            Ok(answer) if answer == body => count(&calls),
            Ok(_) => fail("another answer than what was sent"),
            Err(error) => fail(&error.to_string()),
        }
    }
}

fn run_futures(channel: &Channel, bodies: Vec<Vec<u8>>, calls: &Arc<AtomicU64>) {
    let future = |body| -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(keep_calling(channel.clone(), body, Arc::clone(calls)))
    };
    executor::run(bodies.into_iter().map(future).collect());
}

async fn spawned(
    opening: impl Future<Output = Result<Channel, hioload::iproto::ConnectError>>,
    bodies: Vec<Vec<u8>>,
    calls: Arc<AtomicU64>,
    shard: hioload::ShardHandle,
) {
    let channel = match opening.await {
        Ok(channel) => channel,
        Err(error) => fail(&error.to_string()),
    };
    let begun = shard.run(move |shard| {
        for body in bodies {
            shard.spawn(keep_calling(channel.clone(), body, Arc::clone(&calls))).detach();
        }
    });
    if let Err(error) = begun {
        fail(&error.to_string());
    }
}

/// Calls again whenever an answer comes; the token of a call says whose it is.
struct Caller {
    bodies: Vec<Vec<u8>>,
    calls: Arc<AtomicU64>,
}

impl Caller {
    fn call(&self, session: &mut Session<'_, ()>, caller: usize) {
        if let Err(error) = session.call(MSG, &self.bodies[caller][..], None, caller as u64) {
            fail(&error.to_string());
        }
    }
}

impl ClientHandler for Caller {
    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>, _: &Opened) {
        (0..self.bodies.len()).for_each(|caller| self.call(session, caller));
    }

    fn answered(
        &mut self,
        _: &mut Shard,
        session: &mut Session<'_, ()>,
        token: u64,
        response: Result<Body, CallError>,
    ) {
        let caller = token as usize;
        match response {
            Ok(answer) if answer[..] == self.bodies[caller] => count(&self.calls),
            Ok(_) => fail("another answer than what was sent"),
            Err(error) => fail(&error.to_string()),
        }
        self.call(session, caller);
    }
}
