//! What go-iproto said on the wire (`conformance/iproto/recordings`): our server answers its client
//! as its server did, and our channel gets on with its server as its client did.
//!
//! A line is a packet: `>` from the client, `<` from the server, then its bytes in hex. They are
//! recorded by `conformance/iproto/run --record`.

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Waker};

use hioload::Shard;
use hioload::config::{Config, ReactorChoice};
use hioload::iproto::{Channel, ChannelCall, Closed, PING, Request, SHUTDOWN, Session};
use hioload::ws::block_on;
use rstest::rstest;

use crate::support::{PATIENCE, Packet, Peer, channel_to_the_test, record};

/// What the recorded server did not echo.
const ASK_BACK: u32 = 7;
const ASKED: u32 = 8;
const SHUT_DOWN: u32 = 10;

#[derive(Debug)]
struct Line {
    from_client: bool,
    packet: Packet,
}

fn recording(scene: &str) -> Vec<Line> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/iproto/recordings");
    let text = fs::read_to_string(folder.join(format!("{scene}.txt"))).expect("it is in git");
    text.lines().map(line).collect()
}

fn line(line: &str) -> Line {
    let (mark, hex) = line.split_once(' ').expect("a mark and bytes");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let field = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a header"));
    let packet = Packet { msg: field(0), sync: field(8), body: bytes[12..].to_vec() };
    assert_eq!(field(4) as usize, packet.body.len(), "one whole packet");
    Line { from_client: mark == ">", packet }
}

/// The packets of one side; responses have no order among each other.
fn sorted(packets: impl IntoIterator<Item = Packet>) -> Vec<(u32, u32, Vec<u8>)> {
    let key = |packet: Packet| (packet.msg, packet.sync, packet.body);
    let mut packets: Vec<_> = packets.into_iter().map(key).collect();
    packets.sort();
    packets
}

fn answer(shard: &mut Shard, session: &mut Session<'_, ()>, request: Request) {
    match request.msg {
        ASK_BACK => {
            let told = session.ask(ASKED, request.body, None, shard);
            let reply = request.reply.into_remote(shard);
            shard.spawn(async move { reply.send(told.await.unwrap()) }).detach();
        }
        SHUT_DOWN => {
            session.reply(request.reply, request.body);
            session.shutdown();
        }
        _ => {
            session.reply(request.reply, request.body);
        }
    }
}

#[rstest]
fn our_server_answers_the_go_client_as_the_go_server_did(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values("calls", "in_flight", "notifies", "pings", "asked_back", "server_shuts_down")]
    scene: &str,
) {
    let patience = PATIENCE.as_millis() as u64;
    let wait = |config: &mut Config| config.iproto.shutdown_timeout_ms = patience;
    let (server, _told) = record(reactor, wait, answer);
    let mut peer = Peer::connect(&server);
    let (mut seen, mut expected) = (Vec::new(), Vec::new());
    for Line { from_client, packet } in recording(scene) {
        if from_client {
            peer.send(packet.msg, packet.sync, &packet.body);
        } else {
            seen.push(peer.read());
            expected.push(packet);
        }
    }
    assert_eq!(peer.try_read(), None, "nothing more, and the end");
    assert_eq!(seen.last(), expected.last());
    assert_eq!(sorted(seen), sorted(expected));
    server.stop().unwrap();
}

/// The Go client's callers race, so that its syncs reach the wire out of order: ours do not.
fn in_order(mut lines: Vec<Line>) -> Vec<Line> {
    let mut order = HashMap::from([(0, 0)]);
    for Line { packet, .. } in &mut lines {
        let next = order.len() as u32;
        packet.sync = *order.entry(packet.sync).or_insert(next);
    }
    lines
}

/// A channel that says what the Go client said.
struct Speaker {
    channel: Channel,
    calls: Vec<(u32, ChannelCall)>,
    /// Whether the client ends the connection.
    ends_it: bool,
}

impl Speaker {
    fn say(&mut self, packet: &Packet) {
        match (packet.msg, packet.sync) {
            // It says these by itself.
            (PING, _) => {}
            (SHUTDOWN, _) if !self.ends_it => {}
            (SHUTDOWN, _) => {
                // It begins with the first poll, and goes on without any.
                let shutdown = pin!(self.channel.shutdown());
                assert!(shutdown.poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            (msg, 0) => self.channel.notify(msg, &packet.body).expect("it is taken"),
            (msg, sync) => self.calls.push((sync, self.channel.call(msg, &packet.body))),
        }
    }
}

/// The next packet; a ping that the Go client had no time for is answered.
fn read(peer: &mut Peer, wanted: &Packet) -> Packet {
    loop {
        let packet = peer.read();
        if packet.msg != PING || wanted.msg == PING {
            return packet;
        }
        peer.send(PING, packet.sync, b"");
    }
}

#[rstest]
fn our_channel_says_to_the_go_server_what_the_go_client_said(
    #[values(ReactorChoice::Uring, ReactorChoice::Epoll)] reactor: ReactorChoice,
    #[values("calls", "in_flight", "notifies", "pings", "server_shuts_down")] scene: &str,
) {
    let lines = in_order(recording(scene));
    let (connector, channel, mut peer) = channel_to_the_test(reactor, |config| {
        config.iproto.shutdown_timeout_ms = PATIENCE.as_millis() as u64;
        config.iproto.ping_interval_ms = if scene == "pings" { 50 } else { 0 };
    });
    let end = lines.iter().find(|line| line.packet.msg == SHUTDOWN).expect("each has one");
    let mut speaker = Speaker { channel, calls: Vec::new(), ends_it: end.from_client };
    let mut responses = HashMap::new();
    for stretch in lines.chunk_by(|one, next| one.from_client == next.from_client) {
        let packets = stretch.iter().map(|line| &line.packet);
        if stretch[0].from_client {
            packets.clone().for_each(|packet| speaker.say(packet));
            let seen: Vec<_> = packets.clone().map(|packet| read(&mut peer, packet)).collect();
            assert_eq!(sorted(seen), sorted(packets.cloned()));
        } else {
            for packet in packets {
                peer.send(packet.msg, packet.sync, &packet.body);
                responses.insert(packet.sync, packet.body.clone());
            }
        }
    }
    for (sync, call) in speaker.calls {
        assert_eq!(block_on(call).expect("it was answered"), responses[&sync]);
    }
    drop(peer);
    let reason = if speaker.ends_it { Closed::ByHandler } else { Closed::ByPeer };
    assert_eq!(block_on(speaker.channel.done()), reason);
    connector.stop().unwrap();
}
