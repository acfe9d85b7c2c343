//! Payloads that are meant to harm: bombs, cut and corrupted ones (RFC 7692 section 8).
#![cfg(feature = "deflate")]

mod common;

use std::time::{Duration, Instant};

use common::puff::Puff;
use hioload_protocol::deflate::{Deflater, Inflater};
use hioload_protocol::ws::{Env, Limits, Memory, Violation};
use proptest::prelude::*;
use rstest::rstest;

/// Far more than it takes here, far less than what a missing bound costs.
const SOON: Duration = Duration::from_secs(20);

/// Counts, and refuses from the n-th request on.
#[derive(Default)]
struct Counting {
    asked: usize,
    len_max: usize,
    refuse_from: Option<usize>,
}

impl Counting {
    fn ask(&mut self, len: usize) -> bool {
        self.asked += 1;
        self.len_max = self.len_max.max(len);
        self.refuse_from.is_none_or(|from| self.asked < from)
    }
}

impl Memory for Counting {
    type Buffer = Vec<u8>;

    fn acquire(&mut self, len: usize, expected: usize) -> Option<Vec<u8>> {
        assert!(0 < len && len <= expected);
        self.ask(len.max(expected)).then(|| vec![0xEE; len])
    }

    fn grow(&mut self, buffer: &mut Vec<u8>, used: usize, len: usize) -> bool {
        assert!(used <= buffer.len() && buffer.len() < len);
        let given = self.ask(len);
        if given {
            buffer.truncate(used);
            buffer.resize(len, 0xEE);
        }
        given
    }
}

fn limited(message_bytes_max: usize) -> Limits {
    Limits { message_bytes_max, ..Limits::default() }
}

/// What comes out, and what was asked for.
fn inflate(
    inflater: &mut Inflater,
    payload: &[u8],
    keeps: bool,
    limit: usize,
) -> (Result<Vec<u8>, Violation>, Counting) {
    let (limits, mut memory) = (limited(limit), Counting::default());
    let mut env = Env { limits: &limits, memory: &mut memory, now_ms: 0 };
    let message = inflater.message(payload, keeps, &mut env);
    (message.map(|(buffer, len)| buffer[..len].to_vec()), memory)
}

fn deflate(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; Deflater::bound(message.len())];
    let len = Deflater::new(9, 15).message(message, false, &mut out).expect("room");
    out.truncate(len);
    out
}

/// A GiB of zeros: one compressed MiB of them again and again, which refers to nothing before it.
fn gibibyte() -> Vec<u8> {
    let unit = deflate(&vec![0; 1024 * 1024]);
    assert_eq!(inflate(&mut Inflater::new(), &unit, false, 1 << 20).0, Ok(vec![0; 1 << 20]));
    // What was cut off is put back, as more follows in the same payload.
    let mut payload = [&unit[..], b"\x00\x00\xff\xff"].concat().repeat(1024);
    payload.truncate(payload.len() - 4);
    payload
}

#[test]
fn s8_a_bomb_of_a_gibibyte_costs_its_limit() {
    const LIMIT: usize = 1024 * 1024;
    let payload = gibibyte();
    assert!(payload.len() < limited(LIMIT).compressed_bytes_max(), "it would be let in");
    let mut inflater = Inflater::new();
    for keeps in [true, false] {
        let began = Instant::now();
        let (message, memory) = inflate(&mut inflater, &payload, keeps, LIMIT);
        assert_eq!(message, Err(Violation::MessageTooBig));
        assert!(memory.len_max <= LIMIT, "{} bytes", memory.len_max);
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        inflater.reset();
    }
}

/// The message of a bomb in a bomb is a payload, and nobody inflates that.
#[test]
fn s8_a_bomb_in_a_bomb_is_opened_once() {
    let inner = gibibyte();
    let outer = deflate(&inner);
    let (message, memory) = inflate(&mut Inflater::new(), &outer, false, inner.len());
    assert_eq!(message, Ok(inner.clone()));
    assert!(memory.len_max <= inner.len());
    let (message, memory) = inflate(&mut Inflater::new(), &outer, false, inner.len() - 1);
    assert_eq!(message, Err(Violation::MessageTooBig));
    assert!(memory.len_max < inner.len());
}

#[rstest]
fn s8_the_limit_is_exact(
    #[values(1, 2, 511, 512, 513, 65_536, 100_000)] len: usize,
    #[values(true, false)] random: bool,
) {
    let message: Vec<u8> = match random {
        true => (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
        false => vec![b'a'; len],
    };
    let payload = deflate(&message);
    let mut inflater = Inflater::new();
    for limit in [len, len + 1, 10 * len] {
        let (got, memory) = inflate(&mut inflater, &payload, false, limit);
        assert_eq!(got, Ok(message.clone()), "limit {limit}");
        assert!(memory.len_max <= limit);
    }
    for limit in [0, len / 2, len - 1] {
        let (got, memory) = inflate(&mut inflater, &payload, false, limit);
        assert_eq!(got, Err(Violation::MessageTooBig), "limit {limit}");
        assert!(memory.len_max <= limit.max(1));
    }
}

/// With a limit of 0 only messages without a byte come through.
#[rstest]
#[case(b"", Ok(vec![]))]
#[case(b"\x00", Ok(vec![]))]
#[case(b"\x03\x00\x00", Ok(vec![]))]
#[case(b"\x03\x00", Ok(vec![]))]
#[case(b"\xf2\x48\xcd\xc9\xc9\x07\x00", Err(Violation::MessageTooBig))]
#[case(b"\x07", Err(Violation::NotDeflate))]
fn s8_the_limit_may_be_zero(#[case] payload: &[u8], #[case] expected: Result<Vec<u8>, Violation>) {
    assert_eq!(inflate(&mut Inflater::new(), payload, false, 0).0, expected);
}

/// Blocks that carry nothing, as many as a message may have: final ones make us start anew with a
/// window of 32 KiB each time, dynamic ones make the library build tables.
#[test]
fn s8_a_flood_of_final_blocks_is_refused() {
    const LIMIT: usize = 1024 * 1024;
    let mut payload = deflate(&vec![b'x'; 40_000]);
    payload.extend_from_slice(b"\x00\x00\xff\xff");
    let size = limited(LIMIT).compressed_bytes_max();
    payload.extend(b"\x03\x00".iter().cycle().take((size - payload.len()) & !1));
    let mut inflater = Inflater::new();
    let began = Instant::now();
    let (message, _) = inflate(&mut inflater, &payload, false, LIMIT);
    assert_eq!(message, Err(Violation::OverheadExhausted));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    println!("a flood of final blocks: {:?}", began.elapsed());

    // A payload counts to its end, also if the block that was cut off is final.
    payload = [deflate(&vec![b'x'; 32_768]), b"\x00\x00\xff\xff".to_vec()].concat();
    payload.extend(b"\x00\x00\x00\xff\xff".repeat(410)); // blocks of nothing
    payload.extend(b"\x03\x00".repeat(48));
    for end in [b"\x00", b"\x01"] {
        let (message, _) = inflate(&mut inflater, &[&payload, &end[..]].concat(), false, LIMIT);
        assert_eq!(message.map(|message| message.len()), Ok(32_768), "end {end:x?}");
    }

    // With nothing to restore they cost nothing.
    let (message, _) = inflate(&mut inflater, &b"\x03\x00".repeat(size / 2), false, LIMIT);
    assert_eq!(message, Ok(vec![]));

    // A sender that ends a block every 2 KiB is served.
    let mut compressor = Deflater::new(6, 15);
    let (mut honest, mut out) = (Vec::new(), [0; 4_096]);
    for chunk in vec![7; LIMIT].chunks(2_048) {
        let len = compressor.message(chunk, false, &mut out).expect("room");
        // A final block of no bytes, where a sender of that kind would have a final block of all.
        honest.extend_from_slice(&out[..len]);
        honest.extend_from_slice(b"\x00\x00\xff\xff\x03\x00");
    }
    let (message, _) = inflate(&mut inflater, &honest, false, LIMIT);
    assert_eq!(message.map(|message| message.len()), Ok(LIMIT));
}

#[test]
fn s8_a_flood_of_tables_is_bounded_by_the_payload() {
    // The shortest dynamic block: nothing but an end. 17 bytes with the byte that ends it.
    let mut bits = Bits::default();
    while bits.bytes.len() < limited(1024 * 1024).compressed_bytes_max() - 32 {
        bits.push(0, 1); // not final
        bits.push(2, 2); // dynamic
        bits.push(0, 5); // 257 lengths
        bits.push(0, 5); // 1 distance
        bits.push(14, 4); // 18 code lengths
        // In their order (16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1): 18 and 1, a bit each.
        for at in 0..18 {
            bits.push(u32::from(at == 2 || at == 17), 3);
        }
        for zeros in [138, 118] {
            bits.push(1, 1); // 18: zeros
            bits.push(zeros - 11, 7);
        }
        bits.push(0, 1); // the end: 1 bit
        bits.push(0, 1); // a distance of 1 bit
        bits.push(0, 1); // the end of the block
    }
    bits.push(0, 3);
    let blocks = bits.bytes.len() * 8 / 96;
    let payload = bits.finish();
    let began = Instant::now();
    let (message, _) = inflate(&mut Inflater::new(), &payload, false, 1024 * 1024);
    assert_eq!(message, Ok(vec![]), "it is DEFLATE");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    println!("{blocks} tables of one MiB: {:?}", began.elapsed());
}

/// Bits from the lowest on.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    last: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        self.last |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.last as u8);
            self.last >>= 8;
            self.count -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.last as u8);
        }
        self.bytes
    }
}

/// Refused the 1st, 2nd, ... time: it says so, and works again after a reset.
#[test]
fn refused_memory_is_an_answer() {
    let message = vec![b'z'; 300_000];
    let payload = deflate(&message);
    let (limits, mut inflater) = (Limits::default(), Inflater::new());
    let mut run = |refuse_from| {
        let mut memory = Counting { refuse_from, ..Counting::default() };
        let mut env = Env { limits: &limits, memory: &mut memory, now_ms: 0 };
        let got = inflater.message(&payload, true, &mut env);
        inflater.reset();
        (got.map(|(buffer, len)| buffer[..len].to_vec()), memory.asked)
    };
    let (got, asked) = run(None);
    assert_eq!(got, Ok(message.clone()));
    assert!(asked > 5, "{asked} requests");
    for refuse_from in 1..=asked {
        assert_eq!(run(Some(refuse_from)), (Err(Violation::OutOfMemory), refuse_from));
        assert_eq!(run(None).0, Ok(message.clone()), "after {refuse_from}");
    }
}

/// Every payload that lacks its end is found out, whatever its blocks are, and what the peer sent
/// is not taken for a shorter message.
#[rstest]
#[case::fixed(deflate(b"Hello"))]
#[case::dynamic(deflate(&(0..3_000_u32).map(|i| (i * i % 61) as u8).collect::<Vec<_>>()))]
#[case::stored(deflate(
    &(0..600_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>()
))]
#[case::final_blocks(b"\xf3\x48\xcd\xc9\xc9\x07\x00\xf2\x48\xcd\xc9\xc9\x07\x00".to_vec())]
fn a_payload_that_was_cut_is_no_message(#[case] payload: Vec<u8>) {
    let mut inflater = Inflater::new();
    let (whole, _) = inflate(&mut inflater, &payload, true, 1 << 20);
    assert!(whole.is_ok());
    for end in 1..payload.len() {
        inflater.reset();
        let (got, _) = inflate(&mut inflater, &payload[..end], true, 1 << 20);
        let expected = match Puff::new(15).message(&payload[..end], true, 1 << 20) {
            Ok(message) => Ok(message), // it ended with a final block
            Err(_) => Err(Violation::NotDeflate),
        };
        assert_eq!(got, expected, "{end} of {} bytes", payload.len());
        assert!(got.is_err() || payload[0] == 0xF3);
    }
    // Nor is one whose end was not cut off.
    for end in [&b"\x00\x00\xff\xff"[..], b"\x00", b"\x00\x00\xff"] {
        let (got, _) = inflate(&mut inflater, &[&payload, end].concat(), false, 1 << 20);
        assert_eq!(got, Err(Violation::NotDeflate), "{end:x?} too much");
    }
}

proptest! {
    /// Bytes changed anywhere: what the model says, and afterwards the inflater works.
    #[test]
    fn corrupted_payloads_are_what_the_model_says(
        message in prop::collection::vec(0_u8..20, 0..2_000),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        limit in 0_usize..3_000,
    ) {
        let mut payload = deflate(&message);
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] ^= byte;
        }
        let mut inflater = Inflater::new();
        let (got, memory) = inflate(&mut inflater, &payload, true, limit);
        prop_assert!(memory.len_max <= limit.max(1));
        let expected = Puff::new(15).expected(&payload, true, limit, &got);
        prop_assert_eq!(got, expected);
        inflater.reset();
        let (again, _) = inflate(&mut inflater, &deflate(b"Hello"), true, 5);
        prop_assert_eq!(again, Ok(b"Hello".to_vec()));
    }
}
