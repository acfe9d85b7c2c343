//! The load generator, run as users run it: against our own echo server, and against small servers
//! that do something wrong.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hioload::config::{CompressionMode, ListenAddress, ShardCount};
use hioload::{Running, Server, Shard};
use hioload_protocol::http::{Head, HeadLimits, accept_key};
use hioload_protocol::ws::frame::Header;
use hioload_protocol::ws::{Opcode, mask::mask};
use rstest::rstest;
use serde_json::Value;

use common::{Echo, choice, tcp};

/// An echo server in this process.
fn echo(reactor: &str) -> Running {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .configure(|config| {
            config.server.reactor = choice(reactor);
            config.server.shards = ShardCount::Exactly(1);
            config.websocket.compression = CompressionMode::NoContext;
        })
        .websocket("/", |_| Echo);
    server.start().expect("the server starts")
}

/// A server that does the same with every connection, each in a thread of its own.
fn act(play: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it is bound");
    let play = Arc::new(play);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, play) = (stream.expect("it accepts"), Arc::clone(&play));
            thread::spawn(move || play(stream));
        }
    });
    address
}

/// Reads a request and gives the key that answers it.
fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("the request comes");
        head.push(byte[0]);
    }
    let head = Head::parse(&head, &HeadLimits::default()).expect("it is a good one");
    let accept = accept_key(head.websocket().expect("it asks for a WebSocket").key());
    String::from_utf8(accept.to_vec()).expect("it is Base64")
}

fn answer(stream: &mut TcpStream, accept: &str) {
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).expect("the client reads");
}

fn upgrade(stream: &mut TcpStream) {
    let accept = request(stream);
    answer(stream, &accept);
}

/// The next frame, whose payload is short; `None`: the client is gone.
fn frame(stream: &mut TcpStream) -> Option<(Opcode, Vec<u8>)> {
    let mut bytes = vec![0; 6];
    stream.read_exact(&mut bytes).ok()?;
    let (header, len) = Header::decode(&bytes).expect("it is a frame").expect("it is short");
    assert_eq!(len, bytes.len());
    let mut payload = vec![0; header.len as usize];
    stream.read_exact(&mut payload).ok()?;
    mask(&mut payload, header.mask.expect("clients mask"), 0);
    Some((header.opcode, payload))
}

fn send(stream: &mut TcpStream, fin: bool, opcode: Opcode, payload: &[u8]) {
    let mut header = [0; 14];
    let len = Header::new(fin, opcode, None, payload.len() as u64).encode(&mut header);
    // The client may have enough already.
    let _ = stream.write_all(&[&header[..len], payload].concat());
}

fn load(url: &str, flags: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args(flags.split_whitespace()).arg(url);
    command.output().expect("it runs")
}

/// A run that has to go well, and its figures.
fn measure(url: &str, flags: &str) -> Value {
    let output = load(url, &format!("--json {flags}"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(errors, "", "nothing is said when nobody watches");
    serde_json::from_slice(&output.stdout).expect("it is JSON and nothing else")
}

/// A run that has to fail with `code`, and its sentence.
fn fail(url: &str, flags: &str, code: i32) -> String {
    let output = load(url, flags);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert_eq!(output.stdout, b"", "a failure has no report");
    let sentence = errors.strip_prefix("load: ").expect("it says who speaks");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    sentence.to_owned()
}

fn number(figures: &Value, name: &str) -> f64 {
    let value = name.split('/').fold(figures, |value, name| &value[name]);
    value.as_f64().unwrap_or_else(|| panic!("{name} is {value}"))
}

const SHORT: &str = "-d 0.3 --warm-up 0.1";

#[rstest]
fn an_echo_server_is_measured(
    #[values("uring", "epoll")] reactor: &str,
    #[values(
        "",
        "-c 3 -f 16",
        "-s 0-300 -f 4",
        "-s 5:50%,70000:50% -c 4",
        "--binary -s 1",
        "--deflate -s 300",
        "--deflate -s 4 -f 3 --no-verify",
        "--threads 2 -c 5 --ramp-up 200",
        "--spin -r 500",
        "--spin -c 1 -s 70000 -f 4",
        "--spin -c 2 -r 300"
    )]
    flags: &str,
) {
    let server = echo(reactor);
    let url = format!("ws://{}/", tcp(&server));
    let figures = measure(&url, &format!("{SHORT} --server-pid {} {flags}", std::process::id()));
    assert!(number(&figures, "messages") > 0.0);
    assert!(number(&figures, "messages_per_s") > 0.0);
    assert!(number(&figures, "bytes_in") > 0.0 && number(&figures, "bytes_out") > 0.0);
    assert!(number(&figures, "duration_s") >= 0.3);
    let quantiles = ["min", "p50", "p75", "p90", "p99", "p99_9", "p99_99", "max"]
        .map(|name| number(&figures, &format!("latency_us/{name}")));
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{quantiles:?}");
    let mean = number(&figures, "latency_us/mean");
    assert!((quantiles[0]..=quantiles[7]).contains(&mean), "{mean} in {quantiles:?}");
    assert!(number(&figures, "self_cpu_us_per_message") > 0.0);
    assert!(number(&figures, "server_cpu_us_per_message") > 0.0);
    assert!(number(&figures, "server_rss_anon_bytes") > 0.0);
    assert_eq!(figures["url"], url);
    assert_eq!(figures["verified"], !flags.contains("--no-verify"));
    assert_eq!(figures["interrupted"], false);
    assert_eq!(figures["idle"], Value::Null);
    server.stop().expect("the shards end well");
}

#[rstest]
fn an_iproto_server_is_measured(
    #[values("uring", "epoll")] reactor: &str,
    #[values("", "-c 3 -f 16 -s 50", "-s 0", "-s 5:50%,70000:50% -c 4 -f 5", "-r 500 --no-verify")]
    flags: &str,
) {
    let server = Server::builder().configure(|config| {
        config.server.reactor = choice(reactor);
        config.server.shards = ShardCount::Exactly(1);
        // Pings come between the replies.
        config.iproto.ping_interval_ms = 150;
    });
    let mux = |_: &mut Shard| {
        hioload::iproto::Mux::new().default(|_, session, request| {
            session.reply(request.reply, request.body);
        })
    };
    let server = server.iproto("127.0.0.1:0", mux).start().expect("the server starts");
    let [ListenAddress::Tcp(address)] = server.raw_addresses() else { panic!("one address") };
    let figures = measure(&format!("iproto://{address}"), &format!("{SHORT} {flags}"));
    assert!(number(&figures, "messages") > 0.0);
    server.stop().expect("the shards end well");
}

#[test]
fn compressed_messages_are_shorter() {
    let server = echo("epoll");
    let url = format!("ws://{}/", tcp(&server));
    let each = |flags: &str| {
        let figures = measure(&url, &format!("{SHORT} -c 2 -s 4000 {flags}"));
        number(&figures, "bytes_in") / number(&figures, "messages")
    };
    let (plain, compressed) = (each(""), each("--deflate"));
    assert!(plain >= 4000.0 && compressed < 2000.0, "{plain} and {compressed} bytes");
    server.stop().expect("the shards end well");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = echo("epoll");
    let figures = measure(&format!("ws://{}/", tcp(&server)), "-r 1000 -d 1 --warm-up 0.2 -c 7");
    let messages = number(&figures, "messages");
    assert!((800.0..=1200.0).contains(&messages), "{messages} messages in a second");
    assert!(number(&figures, "late") < 200.0);
    assert_eq!(number(&figures, "rate"), 1000.0);
    server.stop().expect("the shards end well");
}

/// Echoes bytes, but pauses for 200 ms once, when it has been busy for 400 ms.
fn pausing_echo() -> SocketAddr {
    act(|mut stream| {
        let began = Instant::now();
        let mut has_paused = false;
        let mut room = [0; 65_536];
        while let Ok(read @ 1..) = stream.read(&mut room) {
            if !has_paused && began.elapsed() > Duration::from_millis(400) {
                has_paused = true;
                thread::sleep(Duration::from_millis(200));
            }
            if stream.write_all(&room[..read]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_pause_delays_every_message_that_was_due_in_it() {
    let figures =
        measure(&format!("tcp://{}", pausing_echo()), "-c 1 -r 1000 -d 1.5 --warm-up 0.1");
    // 200 of 1500 messages were due in it: the 150th longest wait was a quarter of it.
    assert!(number(&figures, "latency_us/p90") > 20_000.0, "{figures}");
    assert!(number(&figures, "latency_us/p99") > 150_000.0, "{figures}");
    assert!(number(&figures, "latency_us/max") > 190_000.0, "{figures}");
}

#[test]
fn a_closed_loop_sees_a_pause_once() {
    let figures = measure(&format!("tcp://{}", pausing_echo()), "-c 1 -d 1.5 --warm-up 0.1");
    assert!(number(&figures, "latency_us/max") > 190_000.0, "{figures}");
    assert!(number(&figures, "latency_us/p99") < 150_000.0, "{figures}");
}

#[test]
fn idle_connections_are_held() {
    let server = echo("epoll");
    let flags = format!("--idle -c 50 -d 0.2 --server-pid {}", std::process::id());
    let figures = measure(&format!("ws://{}/", tcp(&server)), &flags);
    assert_eq!(number(&figures, "messages"), 50.0);
    assert_eq!(number(&figures, "idle/first_connections"), 5.0);
    assert!(figures["idle"]["bytes_per_connection"].is_number(), "{figures}");
    assert!(number(&figures, "idle/rss_anon_before_bytes") > 0.0);
    server.stop().expect("the shards end well");
}

#[test]
fn a_server_may_ping_and_fragment() {
    static PONGS: AtomicU64 = AtomicU64::new(0);
    let address = act(|mut stream| {
        upgrade(&mut stream);
        while let Some((opcode, payload)) = frame(&mut stream) {
            if opcode == Opcode::Pong {
                assert_eq!(payload, b"are you there?");
                PONGS.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            send(&mut stream, false, Opcode::Text, &payload[..7]);
            send(&mut stream, true, Opcode::Ping, b"are you there?");
            send(&mut stream, true, Opcode::Continuation, &payload[7..]);
        }
    });
    let figures = measure(&format!("ws://{address}/x"), &format!("{SHORT} -c 2"));
    assert!(number(&figures, "messages") > 0.0);
    assert!(PONGS.load(Ordering::Relaxed) > 0);
}

#[rstest]
#[case::no_url("localhost:9001", "", "ws://HOST:PORT/PATH")]
#[case::tls("wss://localhost/", "", "TLS")]
#[case::https("https://localhost/", "", "TLS")]
#[case::size("ws://localhost/", "-s 20:50%", "100 %")]
#[case::rate("ws://localhost/", "-r 0", "a number from")]
#[case::duration("ws://localhost/", "-d 0", "measures nothing")]
#[case::threads("ws://localhost/", "-c 1 --threads 2", "2 threads need")]
#[case::nothing_to_compress("tcp://localhost:1", "--deflate", "nothing else is compressed")]
#[case::nothing_to_send("tcp://localhost:1", "-s 0", "one byte at least")]
#[case::contradiction("ws://localhost/", "--idle -r 5", "cannot be used with")]
fn wrong_usage_is_said_in_a_sentence(#[case] url: &str, #[case] flags: &str, #[case] why: &str) {
    let sentence = fail(url, flags, 2);
    assert!(sentence.contains(why), "{sentence}");
}

#[test]
fn a_server_that_does_not_run_is_asked_about() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = address.expect("there is a port");
    let sentence = fail(&format!("ws://{address}/"), SHORT, 1);
    assert!(sentence.contains(&address.to_string()), "{sentence}");
    assert!(sentence.contains("does the server run?"), "{sentence}");
}

#[test]
fn a_name_without_an_address_is_named() {
    let sentence = fail("ws://no-such-host.invalid/", SHORT, 1);
    assert!(sentence.contains("no-such-host.invalid"), "{sentence}");
}

#[test]
fn a_missing_server_process_is_named() {
    let server = echo("epoll");
    let sentence = fail(&format!("ws://{}/", tcp(&server)), "--server-pid 4194304", 1);
    assert!(sentence.contains("there is no process 4194304"), "{sentence}");
    server.stop().expect("the shards end well");
}

#[rstest]
#[case::refused("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 403 Forbidden")]
#[case::no_http("SSH-2.0-OpenSSH\r\nhello\r\n\r\n", "handshake")]
#[case::silent_end("", "closed a connection during the handshake")]
fn a_server_that_does_not_upgrade_is_told(#[case] answer: &'static str, #[case] why: &str) {
    let address = act(move |mut stream| {
        request(&mut stream);
        let _ = stream.write_all(answer.as_bytes());
    });
    let sentence = fail(&format!("ws://{address}/"), SHORT, 1);
    assert!(sentence.contains(why), "{sentence}");
}

#[test]
fn a_wrong_accept_key_is_refused() {
    let address = act(|mut stream| {
        request(&mut stream);
        answer(&mut stream, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let _ = stream.read(&mut [0]);
    });
    let sentence = fail(&format!("ws://{address}/"), SHORT, 1);
    assert!(sentence.contains("Sec-WebSocket-Accept"), "{sentence}");
}

#[test]
fn a_server_without_compression_is_told() {
    let address = act(|mut stream| {
        upgrade(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let sentence = fail(&format!("ws://{address}/"), &format!("{SHORT} --deflate"), 1);
    assert!(sentence.contains("turns permessage-deflate down"), "{sentence}");
}

#[rstest]
#[case::without_a_word(false)]
#[case::with_a_close_frame(true)]
fn a_server_that_dies_is_counted(#[case] says_why: bool) {
    static IS_DEAD: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
    let address = act(move |mut stream| {
        let is_dead = &IS_DEAD[usize::from(says_why)];
        upgrade(&mut stream);
        for _ in 0..50 {
            let Some((_, payload)) = frame(&mut stream) else { return };
            if is_dead.load(Ordering::Relaxed) {
                break;
            }
            send(&mut stream, true, Opcode::Text, &payload);
        }
        is_dead.store(true, Ordering::Relaxed);
        if says_why {
            send(&mut stream, true, Opcode::Close, b"\x03\xf3out of order");
            let _ = stream.read(&mut [0]);
        }
    });
    let sentence = fail(&format!("ws://{address}/"), "-c 4 -d 20", 1);
    assert!(sentence.contains("closed 4 of 4 connections after "), "{sentence}");
    let reason = if says_why { "code 1011, \"out of order\"" } else { "without a close frame" };
    assert!(sentence.contains(reason) || sentence.contains("reset"), "{sentence}");
}

#[test]
fn wrong_bytes_are_shown_with_their_place() {
    let address = act(|mut stream| {
        upgrade(&mut stream);
        let mut number = 0;
        while let Some((_, mut payload)) = frame(&mut stream) {
            number += 1;
            if number == 3 {
                payload[10] ^= 1;
            }
            send(&mut stream, true, Opcode::Text, &payload);
        }
    });
    let url = format!("ws://{address}/");
    let sentence = fail(&url, &format!("{SHORT} -c 1"), 1);
    assert!(sentence.contains("connection 1: the reply to message 3 is wrong at byte 10"));
    assert!(sentence.contains("expected ") && sentence.contains(", got "), "{sentence}");
    assert!(number(&measure(&url, &format!("{SHORT} -c 1 --no-verify")), "messages") > 3.0);
}

#[test]
fn swapped_connections_are_noticed() {
    let waiting = Mutex::new(None::<(TcpStream, Vec<u8>)>);
    let address = act(move |mut stream| {
        upgrade(&mut stream);
        let Some((_, payload)) = frame(&mut stream) else { return };
        let mut waiting = waiting.lock().expect("nobody panics");
        let Some((mut other, others)) = waiting.take() else {
            *waiting = Some((stream, payload));
            return;
        };
        send(&mut stream, true, Opcode::Text, &others);
        send(&mut other, true, Opcode::Text, &payload);
        let _ = stream.read(&mut [0]);
    });
    let sentence = fail(&format!("ws://{address}/"), "-c 2 -d 20", 1);
    assert!(sentence.contains("the reply to message 1 is wrong at byte "), "{sentence}");
}

#[rstest]
#[case::during_the_handshake(false, "did not answer a handshake")]
#[case::with_messages_under_way(true, "sent no reply for 500ms, with 2 messages under way")]
fn a_server_that_says_nothing_is_given_up(#[case] upgrades: bool, #[case] why: &str) {
    let address = act(move |mut stream| {
        if upgrades {
            upgrade(&mut stream);
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let sentence = fail(&format!("ws://{address}/"), "-c 2 -d 20 --stall-timeout 0.5", 1);
    assert!(sentence.contains(why), "{sentence}");
}

#[test]
fn ctrl_c_ends_a_run_with_its_report() {
    let server = echo("epoll");
    let mut child = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["--json", "-d", "60", "--warm-up", "0", "-c", "2"])
        .arg(format!("ws://{}/", tcp(&server)))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    // Until its connections are there and have messages behind them.
    let began = Instant::now();
    let messages = || {
        let (sender, answer) = mpsc::channel();
        let look = move |shard: &mut Shard| {
            sender.send(shard.stats().counters.messages).expect("the test listens");
        };
        server.handles()[0].run(look).expect("the mailbox has room");
        answer.recv().expect("the shard answers")
    };
    while messages() < 100 {
        assert!(began.elapsed() < common::PATIENCE, "it sends nothing");
        thread::yield_now();
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it lives");
    let mut text = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut text).expect("it is text");
    assert_eq!(child.wait().expect("it is our child").code(), Some(130));
    let figures: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(figures["interrupted"], true);
    assert!(number(&figures, "messages") > 0.0 && number(&figures, "duration_s") < 60.0);
    server.stop().expect("the shards end well");
}

#[test]
fn the_report_is_for_people() {
    let server = echo("epoll");
    let output = load(&format!("ws://{}/", tcp(&server)), SHORT);
    let text = String::from_utf8(output.stdout).expect("it is text");
    for part in ["connections   64", "every reply verified", "p99.99", "█", "generator CPU"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    server.stop().expect("the shards end well");
}
