//! What compression allocates: all of it when it is made, and nothing per message.
#![cfg(feature = "deflate")]
#![allow(unsafe_code, unreachable_pub)] // to count, the global allocator has to be one

#[path = "common/counting.rs"]
mod counting;

use counting::counted;
use hioload_protocol::deflate::{Deflater, Inflater, Whole};
use hioload_protocol::ws::{Env, Limits, Memory};

/// Lends one block that was there before.
struct Lender(Option<Vec<u8>>);

impl Memory for Lender {
    type Buffer = Vec<u8>;

    fn acquire(&mut self, _len: usize, _expected: usize) -> Option<Vec<u8>> {
        self.0.take()
    }

    fn grow(&mut self, _buffer: &mut Vec<u8>, _used: usize, _len: usize) -> bool {
        false
    }
}

#[test]
fn what_is_made_has_the_size_that_is_said() {
    let (_, calls, bytes) = counted(|| Box::new(Inflater::new()));
    println!("inflater: {bytes} bytes in {calls} allocations; said: {}", Inflater::BYTES);
    assert!(bytes <= Inflater::BYTES && Inflater::BYTES < bytes + bytes / 16);
    for bits in 9..=15 {
        let (_, calls, bytes) = counted(|| Box::new(Deflater::new(9, bits)));
        let said = Deflater::bytes(bits);
        println!("deflater of {bits} bits: {bytes} bytes in {calls} allocations; said: {said}");
        assert!(bytes <= said && said < bytes + bytes / 16);
    }
}

/// For the C library the allocator that counts here is not asked, so its part is not seen.
#[test]
fn whole_has_the_size_that_is_said() {
    for level in 1..=9 {
        let mut out = [0; 2_000];
        let (mut whole, _, made) = counted(|| Box::new(Whole::new(level)));
        let mut message = |bits| whole.message(&[7; 20_000], bits, &mut out).expect("room");
        let (_, _, usual) = counted(|| message(15));
        assert!(made + usual <= Whole::BYTES, "{made} and {usual} bytes");
        let (_, _, others) = counted(|| (9..15).map(message).sum::<usize>());
        assert!(made + usual + others <= Whole::BYTES_MAX, "{others} bytes");
        println!("whole of level {level}: {made} bytes, 15 bits {usual}, all others {others}");
    }
}

#[test]
fn no_message_allocates() {
    let limits = Limits::default();
    let mut memory = Lender(Some(vec![0; limits.message_bytes_max]));
    let mut ends = [9, 15].map(|bits| (Deflater::new(6, bits), Inflater::new()));
    let mut alone = Inflater::new();
    let mut whole = Whole::new(6);
    let message: Vec<u8> = (0..100_000_u32).map(|i| (i % 1_000 * i % 61) as u8).collect();
    let mut out = vec![0; Deflater::bound(message.len())];
    let mut check = |inflater: &mut Inflater, payload: &[u8], keeps: bool, message: &[u8]| {
        let mut env = Env { limits: &limits, memory: &mut memory, now_ms: 0 };
        let (buffer, len) = inflater.message(payload, keeps, &mut env).expect("we compressed it");
        assert_eq!(&buffer[..len], message);
        memory.0 = Some(buffer);
    };
    let mut round = || {
        for len in [0, 1, 100, 5_000, message.len()] {
            let message = &message[..len];
            for keeps in [true, false] {
                for (deflater, inflater) in &mut ends {
                    let len = deflater.message(message, keeps, &mut out).expect("room");
                    check(inflater, &out[..len], keeps, message);
                    deflater.message(message, keeps, &mut []).expect_err("no room");
                }
            }
            for bits in [9, 15] {
                let len = whole.message(message, bits, &mut out).expect("room");
                check(&mut alone, &out[..len], false, message);
            }
        }
    };
    round();
    let ((), calls, _) = counted(|| (0..10).for_each(|_| round()));
    assert_eq!(calls, 0, "allocations in 10 rounds");
}
