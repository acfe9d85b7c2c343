//! permessage-deflate (RFC 7692) over real sockets: what is agreed, what comes back, and what an
//! attacker gets for it.

use std::sync::mpsc;

use hioload::config::CompressionMode::{self, DedicatedWindow, NoContext, Off, SharedWindow};
use hioload::config::ReactorChoice::{self, Epoll, Uring};
use hioload::{
    Compression, Handler, Message, Request, Running, ServerBuilder, Session, Shard, Upgrade,
};
use hioload_protocol::deflate::{Deflater, Inflater};
use hioload_protocol::ws::{Env, HeapMemory, Limits, Opcode};
use rstest::rstest;

use crate::client::{Client, Frame, PATIENCE, compressed_frame, frame, handshake, start};
use crate::handler::Echo;

const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// The windows of a client, and its connection.
struct Peer {
    client: Client,
    deflater: Deflater,
    inflater: Inflater,
    server_keeps: bool,
    client_keeps: bool,
}

impl Peer {
    fn open(server: &Running, path: &str, offer: &str) -> Self {
        let mut client = Client::raw(server);
        let header = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        client.write(handshake(path, &header).as_bytes());
        let head = client.read_head();
        let answer = extensions(&head).expect("the server agrees");
        Self {
            client,
            deflater: Deflater::new(6, 15),
            inflater: Inflater::new(),
            server_keeps: !answer.contains("server_no_context_takeover"),
            client_keeps: !answer.contains("client_no_context_takeover"),
        }
    }

    fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = vec![0; Deflater::bound(message.len())];
        let len = self.deflater.message(message, self.client_keeps, &mut out).unwrap();
        out.truncate(len);
        out
    }

    fn send(&mut self, opcode: Opcode, message: &[u8]) {
        let payload = self.compress(message);
        let bytes = compressed_frame(true, opcode, &payload);
        let mut stream = self.client.stream.try_clone().unwrap();
        std::thread::spawn(move || std::io::Write::write_all(&mut stream, &bytes).unwrap());
    }

    /// The next message, and whether it came compressed.
    fn receive(&mut self) -> (Opcode, Vec<u8>, bool) {
        let Frame { opcode, payload, compressed, .. } = self.client.read_frame();
        if !compressed {
            return (opcode, payload, false);
        }
        let limits = Limits { message_bytes_max: 1 << 24, ..Limits::default() };
        let mut env = Env { limits: &limits, memory: &mut HeapMemory, now_ms: 0 };
        let (mut message, len) =
            self.inflater.message(&payload, self.server_keeps, &mut env).expect("good DEFLATE");
        message.truncate(len);
        (opcode, message, true)
    }
}

/// The extensions of a response head.
fn extensions(head: &str) -> Option<&str> {
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "))
}

fn serve(reactor: ReactorChoice, mode: CompressionMode) -> Running {
    let configure = |config: &mut hioload::config::Config| config.websocket.compression = mode;
    start(reactor, configure, |server| server.websocket("/", |_| Echo))
}

/// Asks the only shard of a server.
fn ask<T: Send + 'static>(
    server: &Running,
    look: impl FnOnce(&mut Shard) -> T + Send + 'static,
) -> T {
    let (sender, answer) = mpsc::channel();
    let look = move |shard: &mut Shard| sender.send(look(shard)).expect("the test waits");
    server.handles()[0].run(look).expect("the mailbox has room");
    answer.recv_timeout(PATIENCE).expect("the shard answers")
}

/// Text that compresses to about a third, never twice the same.
fn text(len: usize, seed: usize) -> Vec<u8> {
    let mut text = String::new();
    for number in seed.. {
        if text.len() >= len {
            break;
        }
        text.push_str(&format!("{{\"id\":{},\"name\":\"user {number}\"}},", number * 7919 % 9973));
    }
    text.truncate(len);
    text.into_bytes()
}

/// Bytes that do not compress.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(next).collect()
}

#[rstest]
#[case(Off, OFFER, None)]
#[case(NoContext, "x-other", None)]
#[case(NoContext, "permessage-deflate; unknown", None)]
#[case(NoContext, "permessage-deflate; server_max_window_bits=8", None)]
#[case(
    NoContext,
    OFFER,
    Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
)]
#[case(SharedWindow, OFFER, Some("permessage-deflate; server_no_context_takeover"))]
#[case(
    SharedWindow,
    "permessage-deflate; client_no_context_takeover",
    Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
)]
#[case(DedicatedWindow, OFFER, Some("permessage-deflate"))]
#[case(
    DedicatedWindow,
    "permessage-deflate; bad, permessage-deflate; server_max_window_bits=10",
    Some("permessage-deflate; server_max_window_bits=10")
)]
fn the_answer_says_what_both_sides_keep(
    #[case] mode: CompressionMode,
    #[case] offer: &str,
    #[case] expected: Option<&str>,
) {
    let server = serve(Epoll, mode);
    let mut client = Client::raw(&server);
    let header = format!("Sec-WebSocket-Extensions: {offer}\r\n");
    client.write(handshake("/", &header).as_bytes());
    assert_eq!(extensions(&client.read_head()), expected);
    server.stop().unwrap();
}

#[rstest]
fn messages_of_every_size_come_back(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[values(NoContext, SharedWindow, DedicatedWindow)] mode: CompressionMode,
    #[values(OFFER, "permessage-deflate; server_max_window_bits=9")] offer: &str,
) {
    let server = serve(reactor, mode);
    let mut peers: Vec<_> = (0..3).map(|_| Peer::open(&server, "/", offer)).collect();
    for round in 0..2 {
        for (seed, len) in [1, 127, 128, 500, 5_000, 70_000, 300_000].iter().enumerate() {
            for peer in &mut peers {
                let sent = text(*len, seed + 100 * round);
                peer.send(Opcode::Text, &sent);
                let (opcode, message, compressed) = peer.receive();
                assert_eq!(opcode, Opcode::Text);
                assert!(message == sent, "{len} bytes of text came back changed");
                assert_eq!(compressed, *len >= 128, "{len} bytes of text");

                let sent = noise(*len, (seed + 1) as u64);
                peer.send(Opcode::Binary, &sent);
                let (opcode, message, compressed) = peer.receive();
                assert_eq!(opcode, Opcode::Binary);
                assert!(message == sent, "{len} random bytes came back changed");
                assert_eq!(compressed, *len >= 128 && mode == DedicatedWindow && peer.server_keeps);
            }
        }
    }
    server.stop().unwrap();
}

#[rstest]
fn fragments_are_inflated_as_one_message(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[values(NoContext, DedicatedWindow)] mode: CompressionMode,
) {
    let server = serve(reactor, mode);
    let mut peer = Peer::open(&server, "/", OFFER);
    let sent = text(600, 1);
    for pieces in [2, 3, 50] {
        let payload = peer.compress(&sent);
        let cuts: Vec<_> = payload.chunks(payload.len().div_ceil(pieces)).collect();
        for (number, piece) in cuts.iter().enumerate() {
            let fin = number + 1 == cuts.len();
            peer.client.write(&match number {
                0 => compressed_frame(fin, Opcode::Text, piece),
                _ => frame(fin, Opcode::Continuation, piece),
            });
            if number == 0 {
                peer.client.send(Opcode::Ping, b"between");
            }
        }
        assert_eq!(peer.receive(), (Opcode::Pong, b"between".to_vec(), false));
        assert_eq!(peer.receive(), (Opcode::Text, sent.clone(), true));
    }
    server.stop().unwrap();
}

#[rstest]
fn uncompressed_messages_may_come_between(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let server = serve(reactor, DedicatedWindow);
    let mut peer = Peer::open(&server, "/", OFFER);
    for seed in 0..10 {
        let sent = text(1000, seed);
        if seed % 2 == 0 {
            peer.send(Opcode::Text, &sent);
        } else {
            peer.client.send(Opcode::Text, &sent);
        }
        assert_eq!(peer.receive(), (Opcode::Text, sent, true));
    }
    server.stop().unwrap();
}

#[rstest]
fn a_route_has_its_own_setting(#[values(Uring, Epoll)] reactor: ReactorChoice) {
    let feed = Compression::no_context().level(1).bytes_min(10);
    let server = start(
        reactor,
        |config| config.websocket.compression = DedicatedWindow,
        |server| {
            server
                .websocket("/", |_| Echo)
                .websocket_compressed("/feed", feed, |_| Echo)
                .websocket_compressed("/plain", Compression::off(), |_| Echo)
        },
    );
    let mut peer = Peer::open(&server, "/feed", OFFER);
    assert!(!peer.server_keeps && !peer.client_keeps);
    let sent = vec![b'a'; 100];
    peer.send(Opcode::Text, &sent);
    assert_eq!(peer.receive(), (Opcode::Text, sent, true));
    let mut client = Client::raw(&server);
    client
        .write(handshake("/plain", "Sec-WebSocket-Extensions: permessage-deflate\r\n").as_bytes());
    assert_eq!(extensions(&client.read_head()), None);
    assert!(Peer::open(&server, "/", OFFER).server_keeps);
    server.stop().unwrap();
}

#[rstest]
fn windows_go_with_their_sessions(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[values(NoContext, SharedWindow, DedicatedWindow)] mode: CompressionMode,
) {
    let server = serve(reactor, mode);
    let mut stays = Peer::open(&server, "/", OFFER);
    for seed in 0..20 {
        // A new session in the place of the last one must not see what was said there.
        let mut peer = Peer::open(&server, "/", OFFER);
        for peer in [&mut peer, &mut stays] {
            let sent = text(2000, seed);
            peer.send(Opcode::Text, &sent);
            assert_eq!(peer.receive(), (Opcode::Text, sent, true));
        }
        peer.client.send_close(1000);
        assert_eq!(peer.client.read_close(), 1000);
        assert_eq!(peer.client.read_to_end(), b"");
    }
    server.stop().unwrap();
}

#[rstest]
#[case::rsv1_that_nobody_agreed_on(None, compressed_frame(true, Opcode::Text, &[0]), 1002)]
#[case::rsv1_on_a_ping(Some(OFFER), compressed_frame(true, Opcode::Ping, &[]), 1002)]
#[case::rsv1_on_a_continuation(
    Some(OFFER),
    [frame(false, Opcode::Text, &[]), compressed_frame(true, Opcode::Continuation, &[])].concat(),
    1002
)]
#[case::no_deflate(Some(OFFER), compressed_frame(true, Opcode::Binary, &[0xff; 20]), 1007)]
// "ÿ" in a stored block, which is no UTF-8.
#[case::no_utf8(
    Some(OFFER),
    compressed_frame(true, Opcode::Text, &[0x00, 1, 0, 0xfe, 0xff, 0xff, 0x00]),
    1007
)]
fn violations_close_with_the_right_code(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[case] offer: Option<&str>,
    #[case] bytes: Vec<u8>,
    #[case] code: u16,
) {
    let server = serve(reactor, NoContext);
    let mut bystander = Peer::open(&server, "/", OFFER);
    let mut client = match offer {
        None => Client::open(&server, "/"),
        Some(offer) => Peer::open(&server, "/", offer).client,
    };
    client.write(&bytes);
    assert_eq!(client.read_close(), code);
    bystander.send(Opcode::Text, b"still here");
    assert_eq!(bystander.receive(), (Opcode::Text, b"still here".to_vec(), false));
    server.stop().unwrap();
}

#[rstest]
fn a_bomb_costs_no_more_than_the_limit(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[values(NoContext, DedicatedWindow)] mode: CompressionMode,
) {
    let server = serve(reactor, mode);
    // 256 MiB of zeros are some 260 KB: 256 times the limit of a message.
    let mut bomb = vec![0; 4 << 20];
    let zeros = vec![0; 256 << 20];
    let len = Deflater::new(9, 15).message(&zeros, false, &mut bomb).expect("4 MiB are enough");
    bomb.truncate(len);
    drop(zeros);
    let mut peer = Peer::open(&server, "/", OFFER);
    peer.client.write(&compressed_frame(true, Opcode::Binary, &bomb));
    assert_eq!(peer.client.read_close(), 1009);
    let pool = ask(&server, |shard| shard.stats().pool);
    let buffers = 16 * 65_536;
    // What grows has its old and its new block at once: twice the limit, and the bomb as it came.
    let most = buffers + (3 << 20) + (1 << 19);
    assert!(pool.in_use_bytes_max <= most, "{} bytes of the pool", pool.in_use_bytes_max);
    server.stop().unwrap();
}

/// Answers that compress well are kept in memory of their size, not of that of the message: what
/// waits for a peer is counted by its bytes.
#[rstest]
fn compressed_answers_pin_what_they_count(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
    #[values(NoContext, DedicatedWindow)] mode: CompressionMode,
) {
    let server = serve(reactor, mode);
    let mut peer = Peer::open(&server, "/", OFFER);
    let zeros = vec![0; 1 << 20];
    let mut bytes = Vec::new();
    for _ in 0..100 {
        let payload = peer.compress(&zeros);
        bytes.extend_from_slice(&compressed_frame(true, Opcode::Binary, &payload));
    }
    peer.client.write(&bytes);
    for _ in 0..100 {
        let (_, message, compressed) = peer.receive();
        assert!(compressed && message == zeros);
    }
    let pool = ask(&server, |shard| shard.stats().pool);
    // One message as it is inflated, and one as it is compressed, have twice the room they need.
    let most = 16 * 65_536 + (8 << 20);
    assert!(pool.in_use_bytes_max <= most, "{} bytes of the pool", pool.in_use_bytes_max);
    server.stop().unwrap();
}

/// Everybody hears what somebody says, but for echoes of what begins with `!`.
struct Room;

impl Handler for Room {
    type Session = ();

    fn upgrade(&mut self, _: &mut Shard, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::accept(())
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, ()>) {
        session.subscribe("room").expect("there is room for it");
    }

    fn message(&mut self, shard: &mut Shard, session: &mut Session<'_, ()>, message: Message) {
        if message.starts_with(b"!") {
            session.send(message);
        } else {
            shard.publish("room", message);
        }
    }
}

/// What compression did not make shorter goes out as it is, and windows go on across it.
#[rstest]
fn what_is_published_as_it_is_leaves_the_windows_alone(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
) {
    let dedicated = Compression::dedicated_window();
    let room = |server: ServerBuilder| server.websocket_compressed("/own", dedicated, |_| Room);
    let server = start(reactor, |_| {}, room);
    let mut peer = Peer::open(&server, "/own", "permessage-deflate; server_max_window_bits=15");
    let heard = [b"!".to_vec(), text(500, 1)].concat();
    let noise: Vec<u8> = (0..3000_u64)
        .map(|index| (index.wrapping_mul(index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    let lens = [&heard, &noise, &heard].map(|message| {
        peer.send(Opcode::Binary, message);
        let Frame { payload, compressed, .. } = peer.client.read_frame();
        assert_eq!(compressed, *message != noise);
        payload.len()
    });
    assert!(lens[2] < lens[0] / 4, "{lens:?}");
    server.stop().unwrap();
}

#[rstest]
fn what_is_published_is_compressed_once_for_each_setting(
    #[values(Uring, Epoll)] reactor: ReactorChoice,
) {
    let server = start(
        reactor,
        |config| config.websocket.compression = NoContext,
        |server| {
            let dedicated = Compression::dedicated_window();
            server.websocket("/", |_| Room).websocket_compressed("/own", dedicated, |_| Room)
        },
    );
    let mut plain = Client::open(&server, "/");
    let mut peers: Vec<_> = ["/", "/", "/own", "/own"]
        .iter()
        .map(|path| Peer::open(&server, path, "permessage-deflate; server_max_window_bits=15"))
        .collect();
    for seed in 0..5 {
        // What only one of them hears must not confuse the windows of the others.
        let sent = [b"!".to_vec(), text(500, seed)].concat();
        peers[3].send(Opcode::Text, &sent);
        assert_eq!(peers[3].receive(), (Opcode::Text, sent, true));

        let sent = text(3000, seed);
        peers[0].send(Opcode::Text, &sent);
        for peer in &mut peers {
            assert_eq!(peer.receive(), (Opcode::Text, sent.clone(), true));
        }
        let Frame { payload, compressed, .. } = plain.read_frame();
        assert_eq!((payload, compressed), (sent, false));
    }
    let counters = ask(&server, |shard| shard.stats().counters);
    // As it is, standing alone, and standing alone for those who keep their windows.
    assert_eq!((counters.published, counters.encodings), (5, 15));
    server.stop().unwrap();
}
