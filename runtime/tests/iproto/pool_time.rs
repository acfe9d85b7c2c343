//! What a pool does without a server, on a clock turned by hand.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use hioload::iproto::{CallError, ConnectError, Pool, PoolBuilder};
use hioload::testkit::Bench;
use hioload::{Handler, Message, Request, Session, Shard, Upgrade};
use rstest::rstest;

/// Speaks something else: only its port matters.
pub(crate) struct Nothing;

impl Handler for Nothing {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::refuse(404)
    }

    fn message(&mut self, _: &mut Shard, _: &mut Session<'_, ()>, _: Message) {}
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// To a port where nobody listens.
fn nobody(bench: &Bench) -> PoolBuilder {
    Pool::to("127.0.0.1:81").on(bench.handle())
}

/// To a port where connections are taken.
pub(crate) fn somebody(bench: &Bench) -> PoolBuilder {
    Pool::to("127.0.0.1:80").on(bench.handle())
}

/// What a future has given, once it has.
pub(crate) type Given<T> = Rc<RefCell<Option<T>>>;

/// Runs a future on the shard.
pub(crate) fn run<T: 'static>(
    bench: &Bench,
    future: impl Future<Output = T> + 'static,
) -> Given<T> {
    let given = Rc::new(RefCell::new(None));
    let giving = Rc::clone(&given);
    let running = async move {
        let value = future.await;
        *giving.borrow_mut() = Some(value);
    };
    bench.run(|shard| shard.spawn(running).detach());
    given
}

/// Lets time pass until a future has ended: how long that takes, to the millisecond.
pub(crate) fn until<T: Clone>(bench: &Bench, given: &Given<T>) -> (u64, T) {
    let began = bench.now().as_millis();
    for _ in 0..100_000 {
        if let Some(value) = &*given.borrow() {
            return (bench.now().as_millis() - began, value.clone());
        }
        bench.advance(ms(1));
    }
    panic!("it never ends");
}

/// When the pool has dialled, in milliseconds.
pub(crate) fn dials(bench: &Bench, pool: &Pool, duration: Duration) -> Vec<u64> {
    let mut times = Vec::new();
    for _ in 0..duration.as_millis() {
        bench.advance(ms(1));
        let new = pool.stats().dials - times.len() as u64;
        times.extend((0..new).map(|_| bench.now().as_millis()));
    }
    times
}

pub(crate) fn gaps(times: &[u64]) -> Vec<u64> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn redials_back_off_with_jitter_up_to_a_most() {
    let bench = Bench::new(Nothing);
    let pool = nobody(&bench).redial_interval(ms(10)).redial_interval_max(ms(500)).build().unwrap();
    let call = run(&bench, pool.call(1, "?"));
    let times = dials(&bench, &pool, Duration::from_secs(60));
    assert_eq!(until(&bench, &call).1, Err(CallError::NoChannel));
    let gaps = gaps(&times);
    for (index, gap) in gaps.iter().enumerate() {
        let most = if index < 6 { 10 << index } else { 500 };
        assert!(*gap <= most, "gap {index} is {gap} ms");
    }
    let late = &gaps[6..];
    // Evenly drawn between 0 and 500 ms: the mean of more than 100 is far from both.
    let mean = late.iter().sum::<u64>() as f64 / late.len() as f64;
    assert!(late.len() > 100 && (200.0..300.0).contains(&mean), "{} gaps, {mean}", late.len());
    let different: std::collections::HashSet<_> = late.iter().collect();
    assert!(different.len() > 60, "{gaps:?}");
    let stats = pool.stats();
    assert_eq!((stats.dials, stats.dials_failed), (times.len() as u64, times.len() as u64));
}

#[test]
fn the_connections_of_a_pool_do_not_dial_as_one() {
    let bench = Bench::new(Nothing);
    let pool = nobody(&bench).size(20).build().unwrap();
    drop(run(&bench, pool.call(1, "?")));
    let times = dials(&bench, &pool, Duration::from_secs(5));
    let different: std::collections::HashSet<_> = times[100..].iter().collect();
    assert!(different.len() * 10 > (times.len() - 100) * 8, "{times:?}");
}

#[rstest]
#[case::given_up(false)]
#[case::forever(true)]
fn dialling_rests_after_the_redial_timeout(#[case] forever: bool) {
    let bench = Bench::new(Nothing);
    let pool = nobody(&bench).redial_timeout(ms(3000)).redial_forever(forever).build().unwrap();
    drop(run(&bench, pool.call(1, "?")));
    let times = dials(&bench, &pool, Duration::from_secs(10));
    let last = *times.last().unwrap();
    if forever {
        assert!(last > 9000, "{times:?}");
    } else {
        assert!((2500..=3000).contains(&last), "{times:?}");
        // What is asked of it then begins anew.
        let call = run(&bench, pool.call(1, "?"));
        assert_eq!(until(&bench, &call), (1000, Err(CallError::NoChannel)));
        assert!(pool.stats().dials > times.len() as u64 + 3);
    }
}

#[rstest]
#[case::of_the_pool(None, 1000)]
#[case::shorter(Some(ms(300)), 300)]
#[case::longer(Some(ms(5000)), 1000)]
fn without_a_connection_a_call_waits_for_one(
    #[case] timeout: Option<Duration>,
    #[case] waits: u64,
) {
    let bench = Bench::new(Nothing);
    let pool = nobody(&bench).build().unwrap();
    assert_eq!(pool.stats().dials, 0, "a pool that is built dials nobody");
    let call = match timeout {
        Some(timeout) => run(&bench, pool.call_within(timeout, 1, "?")),
        None => run(&bench, pool.call(1, "?")),
    };
    assert_eq!(until(&bench, &call), (waits, Err(CallError::NoChannel)));
    assert_eq!(pool.stats().waits_failed, 1);
    let notify = run(&bench, pool.notify(1, "!"));
    assert_eq!(until(&bench, &notify), (1000, Err(CallError::NoChannel)));
    let next = {
        let pool = pool.clone();
        run(&bench, async move { pool.next_channel().await.map(drop) })
    };
    assert_eq!(until(&bench, &next), (1000, Err(CallError::NoChannel)));
    assert_eq!(pool.stats().waits_failed, 3);
}

#[test]
fn a_pool_that_fails_on_cutoff_does_not_wait() {
    let bench = Bench::new(Nothing);
    let pool = nobody(&bench).fail_on_cutoff(true).build().unwrap();
    for expected in 1..=3 {
        let call = run(&bench, pool.call(1, "?"));
        assert_eq!(until(&bench, &call), (0, Err(CallError::Cutoff)));
        assert_eq!(pool.stats().cutoffs, expected);
        bench.advance(ms(2000));
    }
    assert!(pool.stats().dials > 10, "it dials all the same: {:?}", pool.stats());
    // The first call finds no connection, and one is dialled for those after it.
    let pool = somebody(&bench).fail_on_cutoff(true).build().unwrap();
    let early = run(&bench, pool.call(1, "?"));
    assert_eq!(until(&bench, &early).1, Err(CallError::Cutoff));
    bench.advance(ms(1));
    assert_eq!(pool.stats().online, 1);
    let notify = run(&bench, pool.notify(1, "!"));
    assert_eq!(until(&bench, &notify), (0, Ok(())));
}

#[test]
fn init_waits_for_the_first_connection_and_init_all_for_all() {
    let bench = Bench::new(Nothing);
    let pool = somebody(&bench).size(5).build().unwrap();
    let init = {
        let pool = pool.clone();
        run(&bench, async move { pool.init_all().await.map_err(|error| error.to_string()) })
    };
    assert_eq!(until(&bench, &init).1, Ok(()));
    assert_eq!((pool.stats().online, pool.online().len()), (5, 5));
    let opened = run(&bench, somebody(&bench).open());
    bench.advance(ms(1));
    assert!(matches!(&*opened.borrow(), Some(Ok(_))));

    let offline = nobody(&bench).connect_timeout(ms(700)).build().unwrap();
    for all in [false, true] {
        let pool = offline.clone();
        let init = run(&bench, async move {
            let init = if all { pool.init_all().await } else { pool.init().await };
            init.map_err(|error| matches!(error, ConnectError::Io { .. }))
        });
        assert_eq!(until(&bench, &init), (700, Err(true)), "the last attempt says why");
    }
    let opened = run(&bench, nobody(&bench).open());
    bench.advance(ms(1001));
    assert!(matches!(&*opened.borrow(), Some(Err(ConnectError::Io { .. }))));
}

#[test]
fn a_pool_and_what_it_gives_may_change_threads() {
    fn goes_anywhere<T: Send>(_: T) {}
    fn is_shared<T: Send + Sync + Clone>(_: &T) {}
    let bench = Bench::new(Nothing);
    let pool = nobody(&bench).build().unwrap();
    is_shared(&pool);
    goes_anywhere(nobody(&bench).open());
    goes_anywhere(pool.call(1, "?"));
    goes_anywhere(pool.notify(1, "!"));
    goes_anywhere(pool.next_channel());
    goes_anywhere(pool.init_all());
    goes_anywhere(pool.shutdown());
    assert_eq!(pool.stats().online, 0);
}

#[test]
fn a_wrong_address_is_told_at_once() {
    for address in ["nowhere", "127.0.0.1:", ":1", "127.0.0.1:99999"] {
        assert!(
            matches!(Pool::to(address).check(), Err(ConnectError::Address { .. })),
            "{address}"
        );
        assert!(Pool::to(address).build().is_err());
    }
}

#[rstest]
#[case::nothing_at_all(0.0, 2)]
#[case::a_burst_only(0.001, 2)]
fn what_is_above_the_rate_limit_is_policed(#[case] rate: f64, #[case] burst: u32) {
    let bench = Bench::new(Nothing);
    let pool = somebody(&bench).rate_limit(rate, burst).build().unwrap();
    let allowed = if rate > 0.0 { u64::from(burst) } else { 0 };
    for number in 0..6 {
        let call = run(&bench, pool.call(1, "?"));
        let policed = until(&bench, &call).1 == Err(CallError::Policed);
        assert_eq!(policed, number >= allowed, "call {number}");
    }
    let next = {
        let pool = pool.clone();
        run(&bench, async move { pool.next_channel().await.map(drop) })
    };
    assert_eq!(until(&bench, &next).1, Err(CallError::Policed));
    let told = [run(&bench, pool.notify(1, "!")), run(&bench, pool.send(1, "!"))];
    assert!(told.iter().all(|it| until(&bench, it).1 == Err(CallError::Policed)));
    assert_eq!(pool.stats().policed, 6 - allowed + 3);
}

#[test]
fn who_would_wait_too_long_for_the_rate_limit_is_policed() {
    let bench = Bench::new(Nothing);
    let pool = somebody(&bench).rate_limit(0.001, 1).rate_wait(true).build().unwrap();
    let first = run(&bench, pool.notify(1, "!"));
    assert_eq!(until(&bench, &first).1, Ok(()));
    let second = run(&bench, pool.call_within(ms(50), 1, "?"));
    assert_eq!(until(&bench, &second), (0, Err(CallError::Policed)));
    // One without a timeout waits as long as it would for a response.
    let third = run(&bench, pool.call(1, "?"));
    assert_eq!(until(&bench, &third), (0, Err(CallError::Policed)));
    let pool = somebody(&bench).rate_limit(0.3, 1).rate_wait(true).build().unwrap();
    assert_eq!(until(&bench, &run(&bench, pool.notify(1, "!"))).1, Ok(()));
    let patient = run(&bench, pool.call(1, "?"));
    bench.advance(ms(2000));
    assert!(patient.borrow().is_none());
    assert_eq!(until(&bench, &run(&bench, pool.send(1, "!"))), (0, Err(CallError::Policed)));
    pool.close();
    assert_eq!(until(&bench, &patient).1, Err(CallError::Stopped));
}

#[test]
fn whoever_waits_is_told_of_the_end() {
    let bench = Bench::new(Nothing);
    let pool = nobody(&bench).size(3).connect_timeout(Duration::from_secs(3600)).build().unwrap();
    let waiting = [run(&bench, pool.call(1, "?")), run(&bench, pool.call(2, "?"))];
    let cancelled = pool.call(3, "?");
    bench.advance(ms(100));
    assert!(waiting.iter().all(|it| it.borrow().is_none()));
    drop(cancelled);
    let ended = {
        let pool = pool.clone();
        run(&bench, async move { pool.shutdown().await })
    };
    assert_eq!(until(&bench, &ended), (0, ()));
    for call in &waiting {
        assert_eq!(until(&bench, call), (0, Err(CallError::Stopped)));
    }
    let before = pool.stats().dials;
    assert_eq!(until(&bench, &run(&bench, pool.call(4, "?"))), (0, Err(CallError::Stopped)));
    bench.advance(Duration::from_secs(60));
    assert_eq!(pool.stats().dials, before, "nobody dials any more");
}

#[test]
fn a_shard_that_drains_ends_the_waits() {
    let bench = Bench::new(Nothing);
    let pool = nobody(&bench).connect_timeout(Duration::from_secs(3600)).build().unwrap();
    let call = run(&bench, pool.call(1, "?"));
    bench.advance(ms(5));
    bench.shutdown();
    bench.advance(ms(1));
    assert_eq!(until(&bench, &call), (0, Err(CallError::NoChannel)));
}

#[test]
fn so_much_waits_for_a_pool_and_no_more() {
    let bench = Bench::new(Nothing);
    let full = CallError::PoolFull { limit: 3 };
    let pool = nobody(&bench).waiting_max(3).build().unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| run(&bench, pool.call(1, "?"))).collect();
    let more = [run(&bench, pool.call(1, "?")), run(&bench, pool.call_within(ms(9), 1, "?"))];
    assert!(more.iter().all(|it| until(&bench, it) == (0, Err(full))));
    assert_eq!(until(&bench, &run(&bench, pool.notify(1, "!"))).1, Err(full));
    // Who ends makes room.
    for call in waiting.drain(..) {
        assert_eq!(until(&bench, &call).1, Err(CallError::NoChannel));
    }
    let again = run(&bench, pool.call(1, "?"));
    assert_eq!(until(&bench, &again), (1000, Err(CallError::NoChannel)));

    // The same for those that wait for the rate limit; who leaves that one may wait for the next.
    let pool = nobody(&bench).rate_limit(10.0, 1).rate_wait(true).waiting_max(1).build().unwrap();
    drop(pool.call(1, "takes the token, and leaves"));
    let paced = run(&bench, pool.call(1, "?"));
    let more = run(&bench, pool.call(1, "?"));
    assert_eq!(until(&bench, &more), (0, Err(CallError::PoolFull { limit: 1 })));
    assert_eq!(until(&bench, &paced).1, Err(CallError::NoChannel));
}
