//! What is tried with whatever a fuzzer makes up: a function for each target. The corpus runs
//! through the same functions in `cargo test` (`protocol/tests/fuzz_corpus.rs`).

#![allow(dead_code, unused_imports)] // each target is one of them

use std::cell::RefCell;
use std::collections::HashMap;

use hioload_protocol::deflate::{Agreement, Deflater, Direction, Inflater, Offer, Policy, Whole};
use hioload_protocol::http::client::Handshake;
use hioload_protocol::http::{HeadLimits, HeadScanner, accept_key};
use hioload_protocol::ws::{Env, Limits, Memory, Role};

#[path = "../protocol/tests/common/mod.rs"]
mod common;
#[path = "heads.rs"]
pub(crate) mod heads;
#[path = "messages.rs"]
pub(crate) mod messages;

pub(crate) use common::iproto_bodies::{
    operations as iproto_connection, packets as iproto_packet, unpacking as iproto_unpack,
};
use common::puff::Puff;
use common::{Peer, model};

/// A direction for a byte, with a window of `bits_min` bits or more.
fn direction(byte: u8, bits_min: u8) -> Direction {
    let window_bits = bits_min + (byte >> 1) % (16 - bits_min);
    Direction { keeps_context: byte & 1 == 1, window_bits }
}

/// Offers and answers: four bytes of settings, then a header as text.
pub(crate) fn negotiate(data: &[u8]) {
    let Some((settings, text)) = data.split_first_chunk::<4>() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let [server, client] = [direction(settings[0], 9), direction(settings[1], 8)];
    let offers: Vec<&str> = text.split(',').map(|offer| offer.trim_matches([' ', '\t'])).collect();
    let policy = Policy { server, client };
    if let Some(agreed) = policy.accept(offers.iter().copied()) {
        let first = offers.iter().find(|offer| policy.accept([**offer]).is_some());
        let offer = first.expect("one of them was accepted");
        assert_eq!(policy.accept([*offer]), Some(agreed), "the first that suits");
        assert_is_at_most(agreed.server, server);
        assert!(agreed.server.can_compress());
        let limits_itself = offer.contains("client_max_window_bits");
        let bits = if limits_itself { client.window_bits } else { 15 };
        assert_is_at_most(agreed.client, Direction { window_bits: bits, ..client });
        assert_is_at_most_what_is_said(agreed, offer);
        assert!(limits_itself || agreed.client.window_bits == 15);
        assert_eq!(Offer::default().check(&agreed.to_string()), Ok(agreed));
    }

    let offer = Offer { server: direction(settings[2], 8), client: direction(settings[3], 8) };
    if let Ok(agreed) = offer.check(text) {
        assert_is_at_most(agreed.server, offer.server);
        assert_is_at_most(agreed.client, offer.client);
        assert_is_at_most_what_is_said(agreed, text);
    }
}

fn assert_is_at_most(agreed: Direction, bound: Direction) {
    assert!(agreed.window_bits <= bound.window_bits, "{agreed:?}, not {bound:?}");
    assert!(bound.keeps_context || !agreed.keeps_context, "{agreed:?}, not {bound:?}");
}

/// Judged by a plain search for the parameters.
fn assert_is_at_most_what_is_said(agreed: Agreement, text: &str) {
    for (agreed, side) in [(agreed.server, "server"), (agreed.client, "client")] {
        let no_context = text.contains(&format!("{side}_no_context_takeover"));
        assert!(!no_context || !agreed.keeps_context);
        let (_, rest) = text.split_once(&format!("{side}_max_window_bits")).unwrap_or_default();
        let value = rest.trim_start_matches([' ', '\t', '=', '"']);
        let digits = value.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        if let Ok(bits) = digits.parse::<u8>() {
            assert!(agreed.window_bits <= bits, "{agreed:?}, not {bits} bits");
        }
    }
}

/// Lends at most what a message may have.
struct Bounded(usize);

impl Memory for Bounded {
    type Buffer = Vec<u8>;

    fn acquire(&mut self, len: usize, expected: usize) -> Option<Vec<u8>> {
        assert!(0 < len && len <= expected && expected <= self.0.max(1));
        Some(vec![0xEE; len])
    }

    fn grow(&mut self, buffer: &mut Vec<u8>, used: usize, len: usize) -> bool {
        assert!(used <= buffer.len() && buffer.len() < len && len <= self.0);
        buffer.truncate(used);
        buffer.resize(len, 0xEE);
        true
    }
}

/// What is made once, as it would take most of the time.
#[derive(Default)]
struct Tools {
    inflater: Inflater,
    deflaters: HashMap<(u8, u8), Deflater>,
    whole: HashMap<u8, Whole>,
}

thread_local! {
    static TOOLS: RefCell<Tools> = RefCell::default();
}

/// Payloads and messages: three bytes of settings, then pieces with a byte of length each.
pub(crate) fn inflate(data: &[u8]) {
    let Some(([settings, limit, kind], rest)) = data.split_first_chunk::<3>() else { return };
    let (keeps, compress) = (settings & 1 == 1, settings & 2 == 2);
    let limit = usize::from(*limit) << ((settings >> 2) & 3);
    TOOLS.with_borrow_mut(|tools| {
        if compress {
            round_trips(tools, keeps, *kind, rest);
        } else {
            payloads(&mut tools.inflater, keeps, limit, rest);
        }
    });
}

fn pieces(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, behind) = rest.split_first()?;
        let len = if *len == 255 { behind.len() } else { behind.len().min(usize::from(*len)) };
        let (piece, behind) = behind.split_at(len);
        rest = behind;
        Some(piece)
    })
}

/// Whatever a peer may send is what the model says, and costs no more than the limit.
fn payloads(inflater: &mut Inflater, keeps: bool, limit: usize, rest: &[u8]) {
    let limits = Limits { message_bytes_max: limit, ..Limits::default() };
    let mut puff = Puff::new(15);
    inflater.reset();
    for payload in pieces(rest).take(16) {
        let mut env = Env { limits: &limits, memory: &mut Bounded(limit), now_ms: 0 };
        let got = inflater.message(payload, keeps, &mut env);
        let got = got.map(|(buffer, len)| buffer[..len].to_vec());
        let expected = puff.expected(payload, keeps, limit, &got);
        assert_eq!(got, expected);
        if got.is_err() {
            inflater.reset();
            puff = Puff::new(15);
        }
    }
}

/// Whatever we send is what comes out, also if some of it did not fit.
fn round_trips(tools: &mut Tools, keeps: bool, kind: u8, rest: &[u8]) {
    let (level, bits) =
        ([1, 2, 6, 9][usize::from(kind & 3)], [9, 10, 15][usize::from(kind >> 2) % 3]);
    let deflater =
        tools.deflaters.entry((level, bits)).or_insert_with(|| Deflater::new(level, bits));
    let whole = tools.whole.entry(level).or_insert_with(|| Whole::new(level));
    let inflater = &mut tools.inflater;
    deflater.reset();
    inflater.reset();
    let (limits, mut puff) = (Limits::default(), Puff::new(bits));
    for (at, piece) in pieces(rest).take(6).enumerate() {
        // Long enough to leave small windows.
        let message = piece.repeat(1 + usize::from(kind >> 5));
        let mut out = vec![0xEE; Deflater::bound(message.len())];
        let is_short = kind & 16 == 16 && at % 3 == 1;
        if is_short {
            out.truncate(message.len() / 2);
        }
        if let Ok(len) = deflater.message(&message, keeps, &mut out) {
            let mut memory = Bounded(limits.message_bytes_max);
            let mut env = Env { limits: &limits, memory: &mut memory, now_ms: 0 };
            let (buffer, count) =
                inflater.message(&out[..len], keeps, &mut env).expect("we compressed it");
            assert!(buffer[..count] == message, "it came out as something else");
            assert_eq!(puff.message(&out[..len], keeps, message.len()), Ok(message.clone()));
        } else {
            assert!(is_short, "the bound is none");
        }
        if let Ok(len) = whole.message(&message, bits, &mut out) {
            assert_eq!(Puff::new(bits).message(&out[..len], false, message.len()), Ok(message));
        } else {
            assert!(is_short, "the bound is none");
        }
    }
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Responses to a client: a byte of settings, then what the server sent.
pub(crate) fn response(data: &[u8]) {
    let Some((settings, bytes)) = data.split_first() else { return };
    let offer = Offer { server: direction(settings >> 2, 8), client: Direction::DEFAULT };
    let handshake = Handshake {
        deflate: (settings & 1 == 1).then_some(offer),
        subprotocols: if settings & 2 == 2 { &["chat", "superchat"] } else { &[] },
        ..Handshake::new("a.example", "/", KEY)
    };
    let limits = HeadLimits { bytes_max: 1_024, headers_max: 8 };
    let Ok(accepted) = handshake.check_response(bytes, &limits) else { return };

    let head = &bytes[..accepted.len_bytes];
    assert!(head.len() <= limits.bytes_max && head.ends_with(b"\r\n\r\n"));
    assert!(head.starts_with(b"HTTP/1.1 101"));
    let expected = accept_key(KEY);
    assert!(head.windows(expected.len()).any(|part| part == expected), "without the right key");
    if let Some(agreed) = accepted.deflate {
        assert!(settings & 1 == 1, "it was not offered");
        assert_is_at_most(agreed.server, offer.server);
    }
    if let Some(subprotocol) = accepted.subprotocol {
        assert!(handshake.subprotocols.contains(&&subprotocol[..]));
    }
    // The scanner finds the same end however the bytes come.
    let mut scanner = HeadScanner::default();
    let found = (0..=bytes.len()).find_map(|end| {
        scanner.find_end(&bytes[..end], &limits).expect("it was accepted as a whole")
    });
    assert_eq!(found, Some(accepted.len_bytes));
}

/// Frames: eight bytes of settings, then a stream.
pub(crate) fn frame(data: &[u8]) {
    let Some((settings, stream)) = data.split_first_chunk::<8>() else { return };
    let [flags, message_bytes, fragments, overhead, cuts @ ..] = settings;
    let role = if flags & 1 == 1 { Role::Server } else { Role::Client };
    let deflate = flags & 2 == 2;
    let limits = Limits {
        message_bytes_max: usize::from(*message_bytes) << ((flags >> 4) & 7),
        fragments_max: u32::from(*fragments),
        message_age_ms_max: 0,
        overhead_budget_bytes: u32::from(*overhead) << 3,
    };
    let peer = || {
        let mut peer = Peer::with_limits(role, limits);
        if deflate {
            peer.connection = peer.connection.with_deflate();
        }
        peer
    };
    let whole = peer().read(stream);
    assert_eq!(whole, model::events(role, &limits, deflate, stream));

    let (mut cut, mut seen, mut rest) = (peer(), Vec::new(), stream);
    let mut random = u32::from_le_bytes(*cuts) | 1;
    while !rest.is_empty() {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = rest.len().min(1 + (random >> 16) as usize % (1 << (random >> 29)));
        let (mut piece, behind) = rest.split_at(len);
        if random & 0x100 != 0
            && let Some(events) = cut.read_direct(&mut piece, 1)
        {
            seen.extend(events);
        }
        seen.extend(cut.read(piece));
        rest = behind;
    }
    assert_eq!(seen, whole);
}
