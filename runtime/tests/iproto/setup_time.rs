//! Set-ups that fail, on a clock turned by hand: what they cost, and what they begin anew.

use std::future::pending;
use std::time::Duration;

use hioload::config::Config;
use hioload::iproto::{Connect, ConnectError, FreshChannel, Pool, PoolBuilder};
use hioload::testkit::Bench;

use crate::pool_time::{Nothing, dials, gaps, ms, run, somebody, until};

async fn refused(_: FreshChannel) -> Result<(), &'static str> {
    Err("no")
}

/// Waits for a server that answers nothing.
async fn late(fresh: FreshChannel) -> Result<(), String> {
    let answer = fresh.call_within(Duration::from_secs(11), 1, "?").await;
    answer.map(drop).map_err(|error| error.to_string())
}

fn bench() -> Bench {
    let mut config = Config::default();
    // Nobody answers the end of a connection, which is not to be waited for.
    config.websocket.close_timeout_ms = 1;
    Bench::with_config(&config, |_| Nothing)
}

/// Dials with waits of 10 to 500 ms.
fn begin(pool: PoolBuilder) -> Pool {
    let pool = pool.redial_interval(ms(10)).redial_interval_max(ms(500)).build().unwrap();
    drop(pool.call(1, "begins to dial"));
    pool
}

#[test]
fn a_connection_that_is_not_set_up_begins_no_new_row_of_waits() {
    let bench = bench();
    let pool = begin(somebody(&bench).init(refused));
    let times = dials(&bench, &pool, Duration::from_secs(60));
    let gaps = gaps(&times);
    let late = &gaps[6..];
    let mean = late.iter().sum::<u64>() as f64 / late.len() as f64;
    assert!(late.len() > 100 && (200.0..300.0).contains(&mean), "{} gaps, {mean}", late.len());
    assert_eq!(pool.stats().dials_failed, times.len() as u64);
}

/// Ten seconds make a connection a good one, but only those after its set-up.
#[test]
fn neither_does_one_whose_set_up_fails_late() {
    let bench = bench();
    // Whoever connects there waits to be accepted for ever.
    let _silent = bench.net().listen(3301).unwrap();
    let pool = Pool::to("127.0.0.1:3301").on(bench.handle());
    let pool = begin(pool.connect_timeout(Duration::from_secs(60)).init(late));
    let times = dials(&bench, &pool, Duration::from_secs(600));
    let waits: Vec<u64> = gaps(&times).iter().map(|gap| gap - 11_000).collect();
    assert!(waits.len() > 50, "{waits:?}");
    let mean = waits[6..].iter().sum::<u64>() as f64 / (waits.len() - 6) as f64;
    assert!((180.0..320.0).contains(&mean), "{mean}: {waits:?}");
}

#[test]
fn dialling_rests_after_the_redial_timeout_without_a_set_up_that_succeeds() {
    let bench = bench();
    let pool = begin(somebody(&bench).init(refused).redial_timeout(ms(3000)));
    let times = dials(&bench, &pool, Duration::from_secs(10));
    let last = *times.last().unwrap();
    assert!((2500..=3001).contains(&last), "{times:?}");
}

#[test]
fn a_set_up_has_the_time_of_an_attempt_for_itself() {
    let bench = bench();
    let connect = Connect::to("127.0.0.1:80").timeout(ms(50));
    let connect = connect.init(|_| pending::<Result<(), String>>());
    let opening = bench.run(|shard| shard.open_iproto(connect));
    let opening = run(&bench, async move { opening.await.map(drop).map_err(|it| it.to_string()) });
    let why = "the set-up of the connection failed: it took longer than 50 ms";
    assert_eq!(until(&bench, &opening), (50, Err(why.to_owned())));

    let pool = begin(somebody(&bench).init(|_| pending::<Result<(), String>>()));
    let times = dials(&bench, &pool, Duration::from_secs(20));
    assert!(times.len() > 10, "{times:?}");
    assert!(gaps(&times).iter().all(|gap| (1000..=1502).contains(gap)), "{times:?}");
    let init = run(&bench, async move { pool.init().await });
    bench.advance(ms(1001));
    let init = init.borrow_mut().take().expect("it waits as long as the pool connects");
    assert!(matches!(init, Err(ConnectError::SetUp { .. })), "{init:?}");
}

#[test]
fn a_set_up_that_succeeds_opens_the_connection() {
    let bench = bench();
    let pool = begin(somebody(&bench).size(5).init(|_| async { Ok::<(), String>(()) }));
    bench.advance(ms(1));
    assert_eq!((pool.stats().online, pool.stats().dials, pool.stats().dials_failed), (5, 5, 0));
}

#[test]
fn a_pool_whose_set_up_hangs_says_so() {
    let bench = Bench::new(Nothing);
    let pool = somebody(&bench).init(|_| pending::<Result<(), String>>()).build().unwrap();
    let init = run(&bench, async move { pool.init().await.map_err(|error| error.to_string()) });
    let (took, result) = until(&bench, &init);
    let error = result.unwrap_err();
    assert!(error.contains("set-up"), "after {took} ms: {error}");
}
