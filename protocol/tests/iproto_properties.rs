//! iproto with any bytes: cut anywhere, unpacked as anything, and as a script of operations.

mod common;

use common::iproto::packet;
use common::iproto_bodies::{operations, packets, unpacking};
use hioload_protocol::iproto::{Pack, pack, pack_ber, unpack, unpack_ber};
use proptest::prelude::*;

/// Packets, most of them good.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 600..800),
    ];
    let whole =
        (any::<u32>(), any::<u32>(), body).prop_map(|(msg, sync, body)| packet(msg, sync, &body));
    let garbage = prop::collection::vec(any::<u8>(), 0..30);
    let pieces = prop::collection::vec(prop_oneof![12 => whole, 1 => garbage], 0..8);
    pieces.prop_map(|pieces| pieces.concat())
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

/// Bytes of which many are small, as counts and lengths are.
fn small_bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0), 2 => 1..6_u8, 1 => 0x80..0x84_u8, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..max)
}

type Nested = (Vec<String>, u32, Vec<Vec<(i32, Vec<u8>)>>, (u64, i64, u16));

fn nested() -> impl Strategy<Value = Nested> {
    let deep = prop::collection::vec((any::<i32>(), bytes(9)), 0..4);
    (
        prop::collection::vec(".{0,9}", 0..5),
        any::<u32>(),
        prop::collection::vec(deep, 0..4),
        (any::<u64>(), any::<i64>(), any::<u16>()),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_cuts_give_the_same_packets(
        cuts in prop::collection::vec(any::<u8>(), 0..16),
        min_bytes in any::<u8>(),
        stream in stream(),
    ) {
        packets(&[&[cuts.len() as u8], &cuts[..], &[min_bytes], &stream].concat());
    }

    #[test]
    fn any_bytes_are_unpacked_as_a_plain_decoder_does(
        choice in 0..36_u8,
        input in prop_oneof![bytes(60), small_bytes(60)],
    ) {
        unpacking(&[&[choice], &input[..]].concat());
    }

    #[test]
    fn any_operations_leave_a_connection_as_the_model(script in bytes(300)) {
        operations(&script);
    }

    #[test]
    fn what_is_packed_is_unpacked(value in nested()) {
        fn check<T: Pack + for<'a> hioload_protocol::iproto::Unpack<'a> + PartialEq + std::fmt::Debug>(value: &T) {
            let packed = pack(value).expect("it is short");
            assert_eq!(&unpack::<T>(&packed).expect("we packed it"), value);
            let packed = pack_ber(value).expect("it is short");
            assert_eq!(&unpack_ber::<T>(&packed).expect("we packed it"), value);
        }
        check(&value);
    }
}
