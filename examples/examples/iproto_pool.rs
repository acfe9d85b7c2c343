//! A pool of connections to an iproto server: makes calls, many at a time, and prints how they ended
//! and what the pool has done.
//!
//! `cargo run --release --example iproto_echo`, and in another terminal
//! `cargo run --release --example iproto_pool -- --calls 1000`

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use hioload::iproto::{CallError, ConnectError, Pool, PoolStats};
use hioload::ws::block_on;

/// Makes calls to an iproto server through a pool of connections.
#[derive(Parser)]
#[command(name = "iproto_pool", version)]
struct Flags {
    /// The server: HOST:PORT
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3301")]
    addr: String,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 4)]
    size: usize,
    /// Calls to make
    #[arg(long, value_name = "N", default_value_t = 100)]
    calls: usize,
    /// Calls on their way at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    at_a_time: u16,
    /// The code of the calls
    #[arg(long, value_name = "CODE", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..0xff00))]
    msg: u32,
    /// Their body; {} is the number of the call
    #[arg(long, value_name = "TEXT", default_value = "hello {}")]
    body: String,
    /// How long a call may wait for its response
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    timeout_ms: u64,
    /// How long connecting may take
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    connect_timeout_ms: u64,
    /// Calls in a second; what is above that waits (0: any)
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u32,
}

/// How the calls ended.
#[derive(Default)]
struct Outcome {
    answered: usize,
    /// The body of the first response.
    first: Option<String>,
    failed: BTreeMap<String, usize>,
}

async fn open(flags: &Flags) -> Result<Pool, ConnectError> {
    // What is above the rate waits for its turn: shaping. Otherwise it would be refused.
    let burst = if flags.rate > 0 { u32::from(flags.at_a_time) } else { 0 };
    Pool::to(&flags.addr)
        .size(flags.size)
        .connect_timeout(Duration::from_millis(flags.connect_timeout_ms))
        .rate_limit(f64::from(flags.rate), burst)
        .rate_wait(true)
        .open() // returns with the first connection; the others are dialled meanwhile
        .await
}

async fn call(pool: &Pool, flags: &Flags) -> Outcome {
    let timeout = Duration::from_millis(flags.timeout_ms);
    let mut outcome = Outcome::default();
    let numbers: Vec<usize> = (0..flags.calls).collect();
    for numbers in numbers.chunks(flags.at_a_time.into()) {
        // A call is on its way when it is made, so these are on their way together, each on the
        // next connection.
        let calls: Vec<_> = numbers
            .iter()
            .map(|number| {
                let body = flags.body.replace("{}", &number.to_string());
                pool.call_within(timeout, flags.msg, body)
            })
            .collect();
        for call in calls {
            match call.await {
                Ok(body) => {
                    outcome.answered += 1;
                    outcome.first.get_or_insert_with(|| body.escape_ascii().to_string());
                }
                Err(error) => *outcome.failed.entry(explained(error)).or_default() += 1,
            }
        }
    }
    outcome
}

/// Each error is a sentence; which of them mean that the server may have acted on the call?
fn explained(error: CallError) -> String {
    match error {
        CallError::Timeout | CallError::Dropped => error.to_string(),
        unsent => format!("safe to repeat: {unsent}"),
    }
}

fn print(flags: &Flags, outcome: &Outcome, took: Duration, stats: &PoolStats) {
    let rate = flags.calls as f64 / took.as_secs_f64();
    println!("{} calls in {:.1} ms, {rate:.0} in a second", flags.calls, took.as_secs_f64() * 1e3);
    println!("  answered     {}", outcome.answered);
    for (error, times) in &outcome.failed {
        println!("  failed       {times}: {error}");
    }
    if let Some(body) = &outcome.first {
        println!("  first answer \"{body}\"");
    }
    let PoolStats { online, dials, dials_failed, channels, .. } = stats;
    println!("pool");
    println!(
        "  connections  {online} of {} open, {dials} dialled, {dials_failed} failed",
        flags.size
    );
    println!("  sent         {} packets, {} bytes", channels.packets_out, channels.bytes_out);
    println!("  received     {} packets, {} bytes", channels.packets_in, channels.bytes_in);
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Err(error) = Pool::to(&flags.addr).check() {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    // Any executor will do. This is the smallest one: it runs one future on this thread.
    let ended = block_on(async {
        let pool = open(&flags).await?;
        let began = Instant::now();
        let outcome = call(&pool, &flags).await;
        print(&flags, &outcome, began.elapsed(), &pool.stats());
        pool.shutdown().await;
        Ok::<_, ConnectError>(outcome.answered == flags.calls)
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
