//! Attacks that break a rule of RFC 6455 in an open session, one frame each.

use crate::peer::{Peer, Target, not_tried};
use crate::report::{Attack, Did, Outcome, Rule, Run};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FIN: u8 = 0x80;
const KEY: [u8; 4] = [0x5a, 0x11, 0xc3, 0x7e];

pub(crate) const ATTACKS: &[Attack] = &[
    broken("unmasked", "an unmasked frame (5.1)", || b"\x81\x05hello".to_vec()),
    broken("reserved-bits", "RSV2 and RSV3 (5.2)", || frame(FIN | 0x30 | TEXT, b"hello")),
    broken("reserved-opcode", "opcode 3 (5.2)", || frame(FIN | 3, b"hello")),
    broken("reserved-control", "opcode 11 (5.2)", || frame(FIN | 11, b"")),
    broken("fragmented-ping", "a ping without FIN (5.5)", || frame(PING, b"")),
    broken("long-ping", "a ping of 126 bytes (5.5)", || frame(FIN | PING, &[1; 126])),
    broken("lone-continuation", "a continuation of nothing (5.4)", || frame(FIN, b"hello")),
    broken("message-in-message", "a message within another one (5.4)", || {
        [frame(TEXT, b"one"), frame(FIN | TEXT, b"two")].concat()
    }),
    broken("length-not-minimal", "5 bytes with a length of 16 bits (5.2)", || {
        [&[FIN | BINARY, 0x80 | 126, 0, 5][..], &KEY, b"hello"].concat()
    }),
    broken("length-top-bit", "a length of 64 bits with the top bit (5.2)", || {
        vec![FIN | BINARY, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
    }),
    broken("bad-utf-8", "a surrogate in a text (8.1)", || frame(FIN | TEXT, b"a\xed\xa0\x80b")),
    broken("cut-utf-8", "a text that ends within a character (8.1)", || {
        frame(FIN | TEXT, b"\xe2\x82")
    }),
    broken("bad-close-code", "a close frame with 1005 (7.4.1)", || {
        frame(FIN | CLOSE, &1005_u16.to_be_bytes())
    }),
    broken("short-close", "a close frame of one byte (5.5.1)", || frame(FIN | CLOSE, b"\x03")),
    broken("close-not-utf-8", "a close reason that is no UTF-8 (5.5.1)", || {
        frame(FIN | CLOSE, b"\x03\xe8\xff\xfe")
    }),
    broken("not-negotiated-rsv1", "RSV1 without permessage-deflate (5.2)", || {
        frame(FIN | 0x40 | TEXT, b"hello")
    }),
];

/// An attack that must be answered with the end of the session.
const fn broken(name: &'static str, about: &'static str, bytes: fn() -> Vec<u8>) -> Attack {
    Attack { name, about, rule: Rule::Must, run: Run::Say(bytes) }
}

/// An open session.
pub(crate) fn open(target: &Target, headers: &str) -> Option<Peer> {
    let mut peer = Peer::connect(target)?;
    peer.say(target.handshake(headers).as_bytes());
    let head = peer.head()?;
    head.starts_with("HTTP/1.1 101 ").then_some(peer)
}

/// Says something in an open session. A ping behind it shows whether it was taken.
pub(crate) fn say(target: &Target, bytes: &[u8]) -> Outcome {
    let Some(mut peer) = open(target, "") else { return not_tried() };
    peer.say(bytes);
    peer.say(&frame(FIN | PING, b"taken?"));
    let did = match peer.reaction(Some(PONG)) {
        Did::Took => peer.second_thoughts(),
        did => did,
    };
    peer.outcome(did, String::new())
}

/// Whether an honest client gets a session and an answer to its ping.
pub(crate) fn is_served(target: &Target) -> bool {
    let Some(mut peer) = open(target, "") else { return false };
    peer.say(&frame(FIN | PING, b"there?"));
    let is_there = peer.reaction(Some(PONG)) == Did::Took;
    peer.say(&frame(FIN | CLOSE, &1000_u16.to_be_bytes()));
    is_there
}

/// A masked frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The header of a masked frame alone: what it announces may never come.
pub(crate) fn header(first: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        0..=125 => bytes.push(0x80 | len as u8),
        126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&len.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&KEY);
    bytes
}
