//! Whatever is sent in whatever order, with whatever settings, comes out at the other side; and
//! what is said of the room that it takes is true.
#![cfg(feature = "deflate")]

mod common;

use common::puff::Puff;
use hioload_protocol::deflate::{Deflater, Inflater, NoRoom, Whole};
use hioload_protocol::ws::{Env, HeapMemory, Limits};
use proptest::prelude::*;

fn inflate(inflater: &mut Inflater, payload: &[u8], keeps: bool) -> Vec<u8> {
    let limits = Limits { message_bytes_max: 1 << 24, ..Limits::default() };
    let mut env = Env { limits: &limits, memory: &mut HeapMemory, now_ms: 0 };
    let (buffer, len) = inflater.message(payload, keeps, &mut env).expect("we compressed it");
    buffer[..len].to_vec()
}

/// Bytes that no code is short for: above 143, which the fixed codes write in 9 bits.
fn incompressible(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        144 + ((state >> 8) % 112) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let words =
        prop::sample::select(vec![&b"\"price\":"[..], b"{\"id\":1,", b"true}", b"\r\n", b"0"]);
    prop_oneof![
        4 => prop::collection::vec(words, 0..200).prop_map(|words| words.concat()),
        2 => prop::collection::vec(any::<u8>(), 0..600),
        1 => (0_usize..70_000, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        1 => (0_usize..20_000, any::<u32>()).prop_map(|(len, seed)| incompressible(len, seed)),
        1 => Just(Vec::new()),
    ]
}

/// A message, and how much too small its room is in 256ths; `None` for room enough.
fn sends() -> impl Strategy<Value = Vec<(Vec<u8>, Option<u8>)>> {
    prop::collection::vec((message(), prop::option::weighted(0.3, any::<u8>())), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `Deflater`: what does not fit is sent as it is, and the peer, which keeps its window,
    /// understands what comes next.
    #[test]
    fn sequences_come_out_as_they_went_in(
        sends in sends(), level in 1_u8..=9, bits in 9_u8..=15, keeps in any::<bool>(),
    ) {
        let (mut deflater, mut inflater) = (Deflater::new(level, bits), Inflater::new());
        let mut puff = Puff::new(bits);
        for (message, short) in sends {
            let bound = Deflater::bound(message.len());
            let room = short.map_or(bound, |short| message.len() * usize::from(short) / 256);
            let mut out = vec![0xEE; room];
            match deflater.message(&message, keeps, &mut out) {
                Ok(len) => {
                    prop_assert_eq!(&inflate(&mut inflater, &out[..len], keeps), &message);
                    prop_assert_eq!(&puff.message(&out[..len], keeps, 1 << 24), &Ok(message));
                }
                Err(NoRoom) => prop_assert!(short.is_some(), "the bound is none"),
            }
        }
    }

    /// `Whole`: each message is understood by a receiver that has just come.
    #[test]
    fn whole_messages_stand_alone(
        sends in sends(), level in 1_u8..=9, all_bits in prop::collection::vec(9_u8..=15, 12),
    ) {
        let (mut whole, mut inflater) = (Whole::new(level), Inflater::new());
        for ((message, short), bits) in sends.into_iter().zip(all_bits) {
            let bound = Deflater::bound(message.len());
            let room = short.map_or(bound, |short| message.len() * usize::from(short) / 256);
            let mut out = vec![0xEE; room];
            match whole.message(&message, bits, &mut out) {
                Ok(len) => {
                    prop_assert_eq!(&inflate(&mut inflater, &out[..len], false), &message);
                    let puff = Puff::new(bits).message(&out[..len], false, 1 << 24);
                    prop_assert_eq!(&puff, &Ok(message));
                }
                Err(NoRoom) => prop_assert!(short.is_some(), "the bound is none"),
            }
        }
    }

    /// The room that is exactly needed is used, and a byte less is refused; nothing is written
    /// behind it (it is a slice), and what is there before does not matter.
    #[test]
    fn room_is_used_to_the_last_bytes(message in message(), level in 1_u8..=9, bits in 9_u8..=15) {
        let mut whole = Whole::new(level);
        let mut out = vec![0; Deflater::bound(message.len())];
        let len = whole.message(&message, bits, &mut out).expect("the bound suffices");
        let mut tight = None;
        for room in (0..=len + 8).rev() {
            let mut out = vec![0xFF; room];
            match whole.message(&message, bits, &mut out) {
                Ok(len) => {
                    tight = Some(room);
                    let puff = Puff::new(bits).message(&out[..len], false, 1 << 24);
                    prop_assert_eq!(&puff, &Ok(message.clone()));
                }
                Err(NoRoom) => break,
            }
        }
        prop_assert!(tight.is_some_and(|room| room <= len + 5), "{tight:?} for {len}");
    }
}

/// The worst that a message can be: long, of bytes without short codes, at every level.
#[test]
fn the_bound_suffices_for_what_cannot_be_compressed() {
    let mut worst = 0;
    for bits in 9..=15 {
        for level in 1..=9 {
            let (mut kept, mut whole) = (Deflater::new(level, bits), Whole::new(level));
            for len in [1, 2, 7, 8, 9, 63, 64, 100, 1_000, 16_383, 16_384, 16_385, 65_535, 200_000]
            {
                let message = incompressible(len, len as u32 + u32::from(level));
                let mut out = vec![0; Deflater::bound(len)];
                let one = kept.message(&message, true, &mut out).expect("the bound suffices");
                let two = whole.message(&message, bits, &mut out).expect("the bound suffices");
                worst = worst.max(one.max(two) * 1_000 / (len + 64));
                // What arrives is let in by a peer with the same limit.
                let limits = Limits { message_bytes_max: len, ..Limits::default() };
                assert!(one.max(two) <= limits.compressed_bytes_max());
            }
        }
    }
    assert!(worst > 1_100, "level 1 writes 9 bits for such a byte: {worst}");
}
