//! What an attack may cost in memory, and how far the harm of a broken handler goes.

use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload::config::SlowReader;
use hioload::{Handler, Message, Request, Response, Running, Session, Shard, Upgrade};
use hioload_protocol::ws::Opcode;
use rstest::rstest;

use crate::client::{Client, PATIENCE, announced, frame, handshake, start};
use crate::handler::Echo;

/// What a peer may pin with a message of which little has come.
const UNEARNED_BYTES_MAX: usize = 64 * 1024;

/// Receive buffers that may be on their way when memory is looked at.
const BUFFERS_BYTES: usize = 16 * 64 * 1024;

/// What the shard answers about itself.
fn ask<T: Send + 'static>(
    server: &Running,
    question: impl FnOnce(&Shard) -> T + Send + 'static,
) -> T {
    let (sender, answer) = std::sync::mpsc::channel();
    let look = move |shard: &mut Shard| sender.send(question(shard)).expect("the test listens");
    server.handles()[0].run(look).unwrap();
    answer.recv_timeout(PATIENCE).unwrap()
}

/// Bytes of pool memory that the shard has leased now.
fn pool_bytes(server: &Running) -> usize {
    ask(server, |shard| shard.stats().pool.in_use_bytes)
}

/// Everything that was written before this on other connections has been read: these bytes came
/// after them, and were answered.
fn settle(honest: &mut Client) {
    for _ in 0..3 {
        honest.send(Opcode::Text, b"read");
        assert_eq!(honest.read_frame().payload, b"read");
    }
}

#[rstest]
fn a_byte_of_an_announced_mebibyte_pins_little(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut honest = Client::open(&server, "/");
    let mut clients: Vec<_> = (0..100).map(|_| Client::open(&server, "/")).collect();
    let before = pool_bytes(&server);
    let mut begun = announced(true, Opcode::Binary, 1 << 20);
    begun.push(0);
    for client in &mut clients {
        client.write(&begun);
    }
    settle(&mut honest);
    let pinned = pool_bytes(&server).saturating_sub(before);
    println!("100 times 15 bytes pin {pinned} bytes");
    assert!(pinned <= 100 * UNEARNED_BYTES_MAX, "100 times 15 bytes pin {pinned} bytes");
    server.stop().unwrap();
}

#[rstest]
fn fragments_of_one_byte_pin_what_they_carry(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    const FRAGMENTS: usize = 60_000;
    let server = start(
        reactor,
        |config| config.websocket.overhead_budget_bytes = 1 << 30,
        |server| server.websocket("/", |_| Echo),
    );
    let mut client = Client::open(&server, "/");
    let before = pool_bytes(&server);
    client.write(&frame(false, Opcode::Binary, b"x"));
    client.write(&frame(false, Opcode::Continuation, b"x").repeat(FRAGMENTS - 2));
    // The pong shows that all of them were read.
    client.send(Opcode::Ping, b"all?");
    assert_eq!(client.read_frame().opcode, Opcode::Pong);
    let pinned = pool_bytes(&server).saturating_sub(before);
    println!("{FRAGMENTS} fragments of a byte pin {pinned} bytes");
    assert!(pinned <= 2 * UNEARNED_BYTES_MAX, "{FRAGMENTS} bytes pin {pinned}");
    client.write(&frame(true, Opcode::Continuation, b"x"));
    assert_eq!(client.read_frame().payload.len(), FRAGMENTS);
    server.stop().unwrap();
}

#[rstest]
#[case::pause(SlowReader::Pause)]
#[case::drop(SlowReader::Drop)]
fn a_peer_that_reads_nothing_pins_bounded_memory(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[case] policy: SlowReader,
) {
    const OUTBOX_BYTES_MAX: usize = 256 * 1024;
    let server = start(
        reactor,
        |config| {
            config.websocket.slow_reader = policy;
            config.websocket.message_bytes_max = 64 * 1024;
            config.websocket.outbox_max_bytes = OUTBOX_BYTES_MAX;
            // The deaf peer answers no close frame either.
            config.shutdown.drain_ms = 100;
        },
        |server| server.websocket("/", |_| Echo),
    );
    let mut honest = Client::open(&server, "/");
    let mut deaf = Client::open(&server, "/");
    let before = pool_bytes(&server);
    deaf.stream.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let message = frame(true, Opcode::Binary, &[5; 60_000]);
    // 24 MB: several times what the kernel's buffers take of it.
    let taken = (0..400).take_while(|_| deaf.try_write(&message)).count();
    settle(&mut honest);
    let pinned = pool_bytes(&server).saturating_sub(before);
    let bound = OUTBOX_BYTES_MAX + BUFFERS_BYTES;
    println!("{taken} messages of a peer that reads nothing pin {pinned} bytes");
    assert!(pinned <= bound, "after {taken} messages {pinned} bytes are pinned, not {bound}");
    server.stop().unwrap();
}

/// A burst of pings whose pongs never block: nothing but the end of the turn tells that the newest
/// one, kept back for a while, can be answered.
#[rstest]
fn the_last_ping_of_a_burst_is_answered(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::open(&server, "/");
    let mut burst = frame(true, Opcode::Ping, &[7; 125]).repeat(400);
    burst.extend(frame(true, Opcode::Ping, b"newest"));
    client.write(&burst);
    while client.read_frame().payload != b"newest" {}
    server.stop().unwrap();
}

/// Where nobody is held back, only the rule for pongs bounds them: above the low mark the newest
/// ping alone is answered (RFC 6455 section 5.5.3).
#[rstest]
fn only_the_newest_ping_of_a_deaf_peer_waits(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    const PINGS: usize = 120_000;
    let server = start(
        reactor,
        |config| {
            config.websocket.overhead_budget_bytes = 1 << 30;
            config.websocket.slow_reader = SlowReader::Drop;
        },
        |server| server.websocket("/", |_| Echo),
    );
    let mut deaf = Client::open(&server, "/");
    let before = pool_bytes(&server);
    // 16 MB: several times what the kernel's buffers take of the pongs.
    let burst = frame(true, Opcode::Ping, &[7; 125]).repeat(PINGS / 100);
    for _ in 0..100 {
        deaf.write(&burst);
    }
    deaf.send(Opcode::Ping, b"newest");
    let sent = (burst.len() * 100) as u64;
    let began = std::time::Instant::now();
    while ask(&server, |shard| shard.stats().reactor.received_bytes) <= sent {
        assert!(began.elapsed() < PATIENCE, "the server does not read on");
    }
    let pinned = pool_bytes(&server).saturating_sub(before);
    println!("{PINGS} pings of a deaf peer pin {pinned} bytes");
    assert!(pinned <= BUFFERS_BYTES, "unread pongs pin {pinned} bytes");
    let mut pongs = 1;
    while deaf.read_frame().payload != b"newest" {
        pongs += 1;
    }
    assert!(pongs < PINGS, "all {pongs} pongs were kept");
    server.stop().unwrap();
}

/// Panics in the callback that the path names.
struct Broken;

impl Handler for Broken {
    type Session = String;

    fn upgrade(&mut self, _: &mut Shard, request: &Request<'_>) -> Upgrade<String> {
        Upgrade::accept(request.query().unwrap_or_default().to_owned())
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, String>) {
        assert!(*session.data != "opened", "asked for");
    }

    fn message(&mut self, _: &mut Shard, session: &mut Session<'_, String>, message: Message) {
        assert!(*session.data != "message", "asked for");
        session.send(message);
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, String>, _: hioload::Closed) {
        assert!(*session.data != "closed", "asked for");
    }
}

#[rstest]
#[case::opened("opened")]
#[case::message("message")]
#[case::closed("closed")]
fn a_panic_in_any_callback_is_counted_and_harms_nobody_else(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[case] callback: &str,
) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Broken));
    let mut other = Client::open(&server, "/");
    let mut victim = Client::open(&server, &format!("/?{callback}"));
    victim.try_write(&frame(true, Opcode::Text, b"now"));
    if callback == "closed" {
        assert_eq!(victim.read_frame().payload, b"now");
        victim.send_close(1000);
        assert_eq!(victim.read_close(), 1000);
    } else {
        assert_eq!(victim.read_close(), 1011);
    }
    victim.read_to_end();
    other.send(Opcode::Text, b"unharmed");
    assert_eq!(other.read_frame().payload, b"unharmed");
    assert_eq!(ask(&server, |shard| shard.stats().counters.panics), 1);
    server.stop().unwrap();
}

#[rstest]
fn a_panic_in_a_plain_answer_is_a_500(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(
        reactor,
        |_| {},
        |server| {
            let broken = |_: &mut Shard, _: &Request<'_>| -> Response { panic!("asked for") };
            server.websocket("/", |_| Echo).http("/broken", broken)
        },
    );
    let mut other = Client::open(&server, "/");
    let mut client = Client::raw(&server);
    client.write(b"GET /broken HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(client.read_head().starts_with("HTTP/1.1 500 "));
    client.read_to_end();
    other.send(Opcode::Text, b"unharmed");
    assert_eq!(other.read_frame().payload, b"unharmed");
    server.stop().unwrap();
}

#[rstest]
fn after_a_refusal_nothing_more_is_read(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = start(reactor, |_| {}, |server| server.websocket("/", |_| Echo));
    let mut client = Client::raw(&server);
    // A second request behind one that is refused, as a smuggler would send it.
    let refused = handshake("/", "Origin: http://evil.example\r\n");
    client.write(format!("{refused}{}", handshake("/", "")).as_bytes());
    let all = String::from_utf8(client.read_to_end()).unwrap();
    assert!(all.starts_with("HTTP/1.1 403 "), "{all}");
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    assert_eq!(ask(&server, |shard| shard.stats().counters.opened), 0);
    server.stop().unwrap();
}
