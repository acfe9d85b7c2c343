//! Attacks on a server that speaks iproto.

use std::time::Instant;

use hioload::iproto::{Header, PING, SHUTDOWN};

use crate::peer::{Heard, Peer, Target, not_tried};
use crate::report::{Attack, Did, Outcome, Rule, Run};

pub(crate) const ATTACKS: &[Attack] = &[
    attack("giant-length", "a header that claims 4 GiB", Rule::Wise, |target| {
        say(target, &Header { msg: 1, len: u32::MAX, sync: 1 }.encode())
    }),
    attack("garbage", "bytes that are no packet", Rule::Wise, |target| say(target, &[0xee; 4096])),
    attack("http", "a request of HTTP", Rule::Wise, |target| {
        say(target, target.handshake("").as_bytes())
    }),
    attack("half-packet", "a packet whose rest never comes", Rule::Wise, |target| {
        let header = Header { msg: 1, len: 1000, sync: 1 };
        say(target, &[&header.encode()[..], &[1; 500]].concat())
    }),
    attack("slow-header", "a header whose last byte never comes", Rule::Wise, |target| {
        say(target, &Header { msg: 1, len: 0, sync: 1 }.encode()[..11])
    }),
    attack("unasked-response", "an answer to what was not asked", Rule::Live, |target| {
        say(target, &packet(PING, 77, b"unasked"))
    }),
    attack("shutdown-and-more", "a shutdown, and packets behind it", Rule::Live, |target| {
        say(target, &[packet(SHUTDOWN, 0, b""), packet(1, 1, b"more")].concat())
    }),
    attack("notify-flood", "notifies without end", Rule::Live, |target| {
        flood(target, &packet(1, 0, b"notify"))
    }),
    attack("never-reads", "requests whose answers are not read", Rule::Wise, |target| {
        flood(target, &packet(1, 1, &[5; 30_000]))
    }),
    attack("ping-flood", "pings whose answers are not read", Rule::Wise, |target| {
        flood(target, &packet(PING, 1, b""))
    }),
    attack("half-open", "a connection that says nothing", Rule::Wise, |target| say(target, b"")),
    attack("many-connections", "connections that stay", Rule::Live, |target| {
        let began = Instant::now();
        let peers: Vec<_> = (0..target.connections).map_while(|_| Peer::connect(target)).collect();
        if peers.is_empty() {
            return not_tried();
        }
        let (after, did) =
            (began.elapsed(), if is_served(target) { Did::Took } else { Did::Ended });
        Outcome { did, after, note: format!("{} at once", peers.len()) }
    }),
];

const fn attack(
    name: &'static str,
    about: &'static str,
    rule: Rule,
    run: fn(&Target) -> Outcome,
) -> Attack {
    Attack { name, about, rule, run: Run::Do(run) }
}

fn packet(msg: u32, sync: u32, body: &[u8]) -> Vec<u8> {
    let header = Header { msg, len: body.len() as u32, sync };
    [&header.encode()[..], body].concat()
}

/// Says something, and waits for the end of the connection; answers are passed over.
fn say(target: &Target, bytes: &[u8]) -> Outcome {
    let Some(mut peer) = Peer::connect(target) else { return not_tried() };
    peer.say(bytes);
    let did = loop {
        match peer.hear() {
            Heard::End => break Did::Ended,
            _ if peer.is_over() => break Did::Waits,
            _ => {}
        }
    };
    let heard = peer.heard.len();
    peer.outcome(did, if heard > 0 { format!("{heard} bytes came") } else { String::new() })
}

/// Repeats a packet and reads nothing.
fn flood(target: &Target, packet: &[u8]) -> Outcome {
    let Some(mut peer) = Peer::connect(target) else { return not_tried() };
    let (did, sent) = peer.flood(packet);
    peer.outcome(did, format!("after {sent} bytes"))
}

/// Whether an honest client gets an answer to its ping.
pub(crate) fn is_served(target: &Target) -> bool {
    let Some(mut peer) = Peer::connect(target) else { return false };
    peer.say(&packet(PING, 7, b""));
    while peer.heard.len() < 12 && peer.hear() != Heard::End && !peer.is_over() {}
    let answer = peer.heard.first_chunk::<12>().map(Header::decode);
    answer.is_some_and(|header| header.msg == PING && header.sync == 7)
}
