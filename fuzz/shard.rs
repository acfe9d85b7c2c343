//! The target of a whole shard: any bytes and events of several peers, over the simulated network.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use hioload::testkit::{Bench, Opcode, Peer};
use hioload::{
    CloseCode, Closed, Handler, Message, MessageKind, Request, Session, SessionId, Shard, Upgrade,
};
use hioload_protocol::ws::frame::{HEADER_BYTES_MAX, Header};
use hioload_protocol::ws::mask::mask;

/// The port of a bench.
const PORT: u16 = 80;
const PEERS_MAX: usize = 12;
const EMFILE: i32 = 24;
const KEY: [u8; 4] = [1, 2, 3, 4];
/// Longer than every timeout of [`limits`](super::limits) together.
const FOR_EVER: Duration = Duration::from_secs(30);
const TOPIC: &str = "all";

/// Counts what must come in pairs.
#[derive(Default)]
struct Tally {
    opened: Cell<u64>,
    closed: Cell<u64>,
    last: Cell<Option<SessionId>>,
}

/// Does a little of everything that a handler can do, as the first byte of a message says.
struct Busy(Rc<Tally>);

impl Handler for Busy {
    type Session = bool;

    fn upgrade(&mut self, shard: &mut Shard, request: &Request<'_>) -> Upgrade<bool> {
        match request.query() {
            Some("no") => Upgrade::refuse(403),
            Some("later") => {
                let (token, handle, sleep) =
                    (request.token(), shard.handle(), shard.sleep(Duration::from_millis(50)));
                let later = async move {
                    sleep.await;
                    let _ = handle.run(move |shard| shard.answer(token, Upgrade::accept(false)));
                };
                shard.spawn(later).detach();
                Upgrade::later(token)
            }
            Some("kept") => Upgrade::accept(false).keep_request().with_stats(),
            _ => Upgrade::accept(false),
        }
    }

    fn opened(&mut self, _: &mut Shard, session: &mut Session<'_, bool>) {
        assert!(!std::mem::replace(session.data, true), "it is opened once");
        self.0.opened.set(self.0.opened.get() + 1);
        self.0.last.set(Some(session.id()));
    }

    fn message(&mut self, shard: &mut Shard, session: &mut Session<'_, bool>, message: Message) {
        assert!(*session.data, "it is open");
        match message.first() {
            Some(b'p') => {
                shard.publish(TOPIC, message);
            }
            Some(b's') => drop(session.subscribe(TOPIC)),
            Some(b'u') => {
                session.unsubscribe(TOPIC);
            }
            Some(b'c') => session.close(CloseCode::NORMAL, "as asked"),
            Some(b't') => drop(session.set_timer(Duration::from_millis(20), 1)),
            Some(b'd') => session.set_deadline(Duration::from_millis(90), CloseCode::POLICY),
            Some(b'o') => {
                if let Some(other) = self.0.last.get() {
                    shard.send_to(other, message);
                }
            }
            Some(b'k') => {
                if let Some(other) = self.0.last.get() {
                    shard.close(other, CloseCode::GOING_AWAY);
                }
            }
            _ => {
                session.send(message);
            }
        }
    }

    fn timer(&mut self, _: &mut Shard, session: &mut Session<'_, bool>, _: u64) {
        session.ping(b"timer");
    }

    fn closed(&mut self, _: &mut Shard, session: &mut Session<'_, bool>, _: Closed) {
        assert!(std::mem::replace(session.data, false), "it was open");
        self.0.closed.set(self.0.closed.get() + 1);
    }
}

/// A whole shard: a byte of settings, then operations of three bytes, of which some are followed by
/// more. Whatever peers do, it ends with nothing left.
pub(crate) fn shard(data: &[u8]) {
    let Some((settings, mut rest)) = data.split_first() else { return };
    let config = super::limits(*settings);
    let tally = Rc::new(Tally::default());
    let bench = Bench::with_config(&config, |_| Busy(Rc::clone(&tally))).route("/").route("/ws");
    let mut peers: Vec<Peer> = Vec::new();
    for _ in 0..128 {
        let Some(([what, which, amount], behind)) = rest.split_first_chunk::<3>() else { break };
        rest = behind;
        match (what % 16, usize::from(*which).checked_rem(peers.len())) {
            (0, _) | (_, None) => {
                if peers.len() < PEERS_MAX {
                    bench.net().set_window(16 << (amount % 12));
                    peers.extend(bench.net().connect(PORT).ok());
                }
            }
            (1, _) => bench.advance(Duration::from_millis(u64::from(*amount))),
            (2, _) => bench.net().fail_accept(EMFILE),
            (3, _) => post(&bench, &tally, *amount),
            (4, Some(at)) => drop(peers.swap_remove(at)),
            (5, Some(at)) => peers.swap_remove(at).reset(),
            (what, Some(at)) => act(&mut peers[at], what, *amount, &mut rest),
        }
        let stats = bench.shard_stats();
        assert!(stats.connections <= config.limits.connections_max, "more than the limit");
        assert!(tally.closed.get() <= tally.opened.get());
    }
    drop(peers);
    bench.advance(FOR_EVER);
    let stats = bench.shard_stats();
    assert_eq!(stats.connections, 0, "somebody is left");
    assert_eq!(tally.closed.get(), tally.opened.get(), "each is closed");
    assert_eq!(stats.counters.opened, tally.opened.get());
    assert_eq!(stats.counters.panics, 0);
    assert!(stats.pool.blocks <= 1, "more is leased than the block for small sends: {stats:?}");
}

/// What somebody else does, from another thread.
fn post(bench: &Bench, tally: &Tally, amount: u8) {
    let handle = bench.handle();
    match (amount % 4, tally.last.get()) {
        (0, Some(id)) => {
            let payload = vec![amount; usize::from(amount) * 16];
            let _ = handle.send(id, MessageKind::Binary, payload.into());
        }
        (1, Some(id)) => drop(handle.close(id, CloseCode::NORMAL)),
        (2, _) if amount > 250 => bench.shutdown(),
        _ => drop(handle.run(|shard| assert_eq!(shard.index(), 0))),
    }
}

/// What a peer does.
fn act(peer: &mut Peer, what: u8, amount: u8, rest: &mut &[u8]) {
    let mut take = |len: usize| {
        let (front, behind) = rest.split_at(rest.len().min(len));
        *rest = behind;
        front
    };
    let _ = match what {
        6 | 7 => peer.write(handshake(amount).as_bytes()),
        8 => peer.write(take(usize::from(amount))),
        9..=11 => {
            let opcodes = [Opcode::Text, Opcode::Binary, Opcode::Ping, Opcode::Continuation];
            let opcode = opcodes[usize::from(amount >> 6)];
            let payload = take(usize::from(amount & 31));
            let times = if what == 11 { 64 } else { 1 };
            peer.write(&frame(amount & 32 == 0, opcode, &payload.repeat(times)))
        }
        12 => peer.write(&frame(true, Opcode::Close, take(usize::from(amount % 8)))),
        13 => {
            peer.set_window(usize::from(amount) << 6);
            Ok(0)
        }
        14 => {
            peer.shutdown();
            Ok(0)
        }
        _ => {
            let mut bytes = [0; 4096];
            let room = usize::from(amount) * 16;
            peer.read(&mut bytes[..room])
        }
    };
}

fn handshake(amount: u8) -> String {
    let target = ["/", "/ws?no", "/ws?later", "/ws?kept", "/none", "/ws", "/ws", "/"];
    let target = target[usize::from(amount % 8)];
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let extensions = if amount & 8 == 8 { deflate } else { "" };
    let end = if amount & 16 == 16 { "" } else { "\r\n" };
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         {extensions}{end}"
    )
}

fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let len = Header::new(fin, opcode, Some(KEY), payload.len() as u64).encode(&mut header);
    let mut bytes = header[..len].to_vec();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[len..], KEY, 0);
    bytes
}
