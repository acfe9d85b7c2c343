//! Where io_uring is refused, as in a container with the usual seccomp profile, or does not exist:
//! `auto` serves on epoll at once and says why once; a demand for it fails with the reason.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic wherever it is")]

mod child;

use std::time::{Duration, Instant};

use hioload::config::{ReactorChoice, ShardCount};
use hioload::{Running, Server, StartError};
use rstest::rstest;

use child::{Echo, Log, address, ask, command, echo, expect_open, scenario};

/// From the call of `start()` to the first echo: what a restart may cost where io_uring is refused.
const FIRST_ECHO_MAX: Duration = Duration::from_secs(1);

#[rstest]
#[case::container(libc::EPERM)]
#[case::kernel_without(libc::ENOSYS)]
fn auto_serves_on_epoll_and_says_why_once(#[case] errno: i32, #[values(1, 2)] shards: u16) {
    if std::thread::available_parallelism().unwrap().get() < usize::from(shards) {
        eprintln!("skipped: it takes {shards} CPUs to have {shards} shards");
        return;
    }
    run(&format!("auto {errno} {shards}"));
}

#[rstest]
#[case::container(libc::EPERM)]
#[case::kernel_without(libc::ENOSYS)]
fn a_demand_fails_with_the_reason(#[case] errno: i32) {
    run(&format!("uring {errno} 1"));
}

/// Runs a scenario in a child, in which every assertion is.
fn run(scenario: &str) {
    let output = command(scenario).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}: {stdout}\n{stderr}");
    // Not zero tests: then nothing would have been shown.
    assert!(stdout.contains("1 passed"), "{scenario}: {stdout}");
    let said = stdout.lines().filter_map(|line| line.split_once("@ "));
    said.for_each(|(_, line)| println!("{scenario}: {line}"));
}

#[test]
#[ignore = "the other tests run it as a child"]
fn child() {
    let Some(words) = scenario() else { return };
    let [reactor, errno, shards] = &words[..] else { panic!("{words:?}") };
    let errno: i32 = errno.parse().unwrap();
    let cause = match errno {
        libc::EPERM => ["io_uring_setup was refused", "Operation not permitted", "seccomp"],
        libc::ENOSYS => ["io_uring_setup failed", "not implemented", "has no io_uring"],
        other => panic!("{other} is no scenario"),
    };
    refuse_io_uring(errno);
    let log = Log::install();
    let began = Instant::now();
    match reactor.as_str() {
        "auto" => {
            let server = start(ReactorChoice::Auto, shards.parse().unwrap()).unwrap();
            expect_epoll(server, began, &log, &cause);
        }
        _ => {
            let error = start(ReactorChoice::Uring, shards.parse().unwrap()).unwrap_err();
            let text = error.to_string();
            println!("@ {text}");
            assert!(matches!(error, StartError::Shard { shard: 0, .. }), "{error:?}");
            expect_parts(&text, &cause);
            assert!(text.contains("use the epoll reactor"), "nothing to do is named: {text}");
            assert!(!text.contains('\n') && !text.contains("  "), "no sentence: {text:?}");
            assert_eq!(log.lines(), Vec::<String>::new());
        }
    }
}

fn expect_epoll(server: Running, began: Instant, log: &Log, cause: &[&str]) {
    let mut client = ask(address(&server));
    expect_open(&mut client).unwrap();
    echo(&mut client).unwrap();
    let took = began.elapsed();
    println!("@ the first echo came after {took:?}");
    assert!(took < FIRST_ECHO_MAX, "the first echo came after {took:?}");

    for shard in &server.report().shards {
        assert_eq!(shard.reactor.as_deref(), Some("epoll"));
        expect_parts(shard.fallback.as_deref().unwrap_or_default(), cause);
    }
    let report = server.report().to_string();
    expect_parts(&report, cause);
    assert_eq!(report.matches("epoll, because").count(), 1, "{report}");
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "one warning, not {lines:#?}");
    println!("@ {}", lines[0]);
    assert!(lines[0].contains(" WARN "), "{lines:?}");
    expect_parts(&lines[0], cause);

    drop(client);
    server.stop().unwrap();
    assert_eq!(log.lines().len(), 1, "{:#?}", log.lines());
}

fn start(reactor: ReactorChoice, shards: u16) -> Result<Running, StartError> {
    let builder = Server::builder().listen("127.0.0.1:0").configure(|config| {
        config.server.reactor = reactor;
        config.server.shards = ShardCount::Exactly(shards);
        config.memory.buffers = 16;
    });
    builder.websocket("/", |_| Echo).start()
}

fn expect_parts(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

/// Lets `io_uring_setup` fail on this thread and on those that it starts, as a container's seccomp
/// profile does.
#[allow(unsafe_code)]
fn refuse_io_uring(errno: i32) {
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut program = [
        step(0x20, 0), // load the number of the call
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::SYS_io_uring_setup as u32 },
        step(0x06, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(0x06, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0);
    // SAFETY: `program` and the steps it points to live until the call, which copies them, returns.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
