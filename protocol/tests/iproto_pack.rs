//! The packed forms of values: vectors that other implementations give, both ways, and what is
//! refused.

mod common;

use std::borrow::Cow;
use std::fmt::Debug;

use common::iproto::hex;
use hioload_protocol::iproto::pack::{
    Fault, PackError, UnpackError, Unpacker, pack_bytes, pack_string, pack_u8, pack_u16, pack_u32,
    pack_u64, unpack_front, unpack_front_ber,
};
use hioload_protocol::iproto::{
    Mode, Pack, Unpack, append, append_ber, pack, pack_ber, unpack, unpack_ber,
};
use rstest::rstest;

/// What a case is checked by, whatever its type.
trait Checked {
    fn check(&self, mode: Mode, bytes: &[u8]);
}

impl<T: Pack + for<'a> Unpack<'a> + Debug + PartialEq> Checked for T {
    fn check(&self, mode: Mode, bytes: &[u8]) {
        let ber = mode == Mode::Ber;
        let packed = if ber { pack_ber(self) } else { pack(self) };
        assert_eq!(packed.as_deref(), Ok(bytes));

        let mut appended = b"in front".to_vec();
        let done = if ber { append_ber(&mut appended, self) } else { append(&mut appended, self) };
        assert_eq!((done, &appended[8..]), (Ok(()), bytes));

        let back = if ber { unpack_ber::<T>(bytes) } else { unpack::<T>(bytes) };
        assert_eq!(back.as_ref(), Ok(self));

        let longer = [bytes, b"behind"].concat();
        let front = if ber { unpack_front_ber(&longer) } else { unpack_front(&longer) };
        let (value, rest): (T, _) = front.expect("its own bytes");
        assert_eq!((&value, rest), (self, &b"behind"[..]));
        for end in 0..bytes.len() {
            let cut = if ber { unpack_ber::<T>(&bytes[..end]) } else { unpack::<T>(&bytes[..end]) };
            let error = cut.expect_err("its end is missing");
            assert!(matches!(error.fault, Fault::Short { .. } | Fault::Count { .. }), "{error}");
            assert!(error.at <= end);
        }
    }
}

fn strings(strings: &[&str]) -> Vec<String> {
    strings.iter().map(|string| (*string).to_owned()).collect()
}

#[rstest]
#[case(2_u8, "02")]
#[case(258_u16, "0201")]
#[case(258_u32, "02010000")]
#[case(258_u64, "0201000000000000")]
#[case(-1_i8, "ff")]
#[case(-1234_i16, "2efb")]
#[case(-1_234_567_890_i32, "2efd69b6")]
#[case(-1_234_567_890_123_456_i64, "404575c32a9dfbff")]
#[case("   ".to_owned(), "03000000202020")]
#[case(vec![2_u32, 2], "020000000200000002000000")]
#[case(1024_u16, "0004")]
#[case("hello".to_owned(), "0500000068656c6c6f")]
#[case(42_u32, "2a000000")]
#[case(vec![1_u8, 2], "020000000102")]
#[case(strings(&["a", "bc"]), "020000000100000061020000006263")]
#[case(vec![1_u32, 300], "02000000010000002c010000")]
#[case(Vec::<u16>::new(), "00000000")]
#[case((1024_u16, "hello".to_owned(), 42_u32), "00040500000068656c6c6f2a000000")]
#[case(vec![vec![1_i8], vec![]], "02000000010000000100000000")]
fn in_default_mode(#[case] value: impl Checked, #[case] digits: &str) {
    value.check(Mode::Default, &hex(digits));
}

#[rstest]
#[case(2_u8, "02")]
#[case(-1_i8, "ff")]
#[case(5_u16, "05")]
#[case(0_u64, "00")]
#[case(128_u32, "8100")]
#[case(u32::MAX, "8fffffff7f")]
#[case(-1_i32, "8fffffff7f")]
#[case(u64::MAX, "81ffffffffffffffff7f")]
#[case(-1_i64, "81ffffffffffffffff7f")]
#[case(65_535_u16, "83ff7f")]
#[case(-1_i16, "83ff7f")]
#[case(127_u16, "7f")]
#[case(16_383_u16, "ff7f")]
#[case(16_384_u32, "818000")]
#[case(2_097_151_u32, "ffff7f")]
#[case(2_097_152_u32, "81808000")]
#[case(1_u64 << 35, "818080808000")]
#[case(100_000_u32, "868d20")]
#[case(vec![1_u8, 2], "020102")]
#[case(strings(&["a", "bc"]), "020100000061020000006263")]
#[case(vec![1_u32, 300], "02010000002c010000")]
#[case(String::new(), "00")]
#[case((300_u16, "a".to_owned(), vec![300_u16]), "822c0161012c01")]
#[case(vec![(300_u16, "a".to_owned())], "012c010100000061")]
fn in_ber_mode(#[case] value: impl Checked, #[case] digits: &str) {
    value.check(Mode::Ber, &hex(digits));
}

#[rstest]
#[case(Mode::Default, "070201020100000201000000000000020000006162020000000102")]
#[case(Mode::Ber, "07820282028202026162020102")]
fn the_basic_forms_are_functions_too(#[case] mode: Mode, #[case] digits: &str) {
    let mut out = Vec::new();
    pack_u8(&mut out, 7);
    pack_u16(&mut out, 258, mode);
    pack_u32(&mut out, 258, mode);
    pack_u64(&mut out, 258, mode);
    pack_string(&mut out, "ab", mode).expect("it is short");
    pack_bytes(&mut out, b"\x01\x02", mode).expect("they are few");
    assert_eq!(out, hex(digits));

    let mut input = Unpacker::new(&out);
    assert_eq!(input.u8(), Ok(7));
    assert_eq!(input.u16(mode), Ok(258));
    assert_eq!(input.u32(mode), Ok(258));
    assert_eq!(input.u64(mode), Ok(258));
    assert_eq!(input.string(mode), Ok("ab"));
    assert_eq!(input.finish().expect_err("bytes are left").at, input.position());
    assert_eq!(input.count(1, mode), Ok(2));
    assert_eq!(input.rest(), b"\x01\x02");
}

#[test]
fn strings_and_bytes_are_borrowed_from_the_input() {
    let input = pack(&("name", [1_u8, 2].as_slice(), "text")).expect("it is short");
    let (name, bytes, text): (&str, &[u8], Cow<'_, str>) = unpack(&input).expect("we packed it");
    assert_eq!((name, bytes, &*text), ("name", &[1, 2][..], "text"));
    assert_eq!(name.as_ptr(), input[4..].as_ptr());
    assert_eq!(bytes.as_ptr(), input[12..].as_ptr());
    assert!(matches!(text, Cow::Borrowed(_)));
}

fn short(wanted: usize, left: usize) -> Fault {
    Fault::Short { wanted, left }
}

fn fault_of<T: for<'a> Unpack<'a> + Debug>(mode: Mode, bytes: &[u8]) -> (usize, Fault) {
    let unpacked = if mode == Mode::Ber { unpack_ber::<T>(bytes) } else { unpack::<T>(bytes) };
    let UnpackError { at, fault } = unpacked.expect_err("it is wrong");
    (at, fault)
}

#[rstest]
#[case::u8(fault_of::<u8>, "", 0, short(1, 0))]
#[case::u16(fault_of::<u16>, "01", 0, short(2, 1))]
#[case::i64(fault_of::<i64>, "01020304050607", 0, short(8, 7))]
#[case::second(fault_of::<(u8, u32)>, "07010203", 1, short(4, 3))]
#[case::length(fault_of::<String>, "030000", 0, short(4, 3))]
#[case::string(fault_of::<(u8, String)>, "07040000006162", 1, short(4, 2))]
#[case::huge_string(fault_of::<String>, "ffffffff61", 0, short(0xffff_ffff, 1))]
#[case::huge_bytes(fault_of::<Vec<u8>>, "ffffffff61", 0, Fault::Count { count: 0xffff_ffff, left: 1 })]
#[case::huge_slice(fault_of::<Vec<u64>>, "ffffffff61", 0, Fault::Count { count: 0xffff_ffff, left: 1 })]
#[case::count(fault_of::<Vec<u16>>, "0300000001000200", 0, Fault::Count { count: 3, left: 4 })]
#[case::not_utf8(fault_of::<(u8, String)>, "0702000000c328", 1, Fault::NotUtf8)]
#[case::trailing(fault_of::<u16>, "010203", 2, Fault::Trailing { left: 1 })]
fn what_is_wrong_in_default_mode_is_said(
    #[case] fault_of: fn(Mode, &[u8]) -> (usize, Fault),
    #[case] digits: &str,
    #[case] at: usize,
    #[case] fault: Fault,
) {
    assert_eq!(fault_of(Mode::Default, &hex(digits)), (at, fault));
}

#[rstest]
#[case::over_u16(fault_of::<u16>, "848000", Fault::Overflow { bits: 16 })]
#[case::over_u32(fault_of::<u32>, "9080808000", Fault::Overflow { bits: 32 })]
#[case::over_i32(fault_of::<i32>, "ffffffff7f", Fault::Overflow { bits: 32 })]
#[case::over_u64(fault_of::<u64>, "82808080808080808000", Fault::Overflow { bits: 64 })]
#[case::long_u16(fault_of::<u16>, "80808001", Fault::BerTooLong { bytes_max: 3 })]
#[case::long_u32(fault_of::<u32>, "808080808001", Fault::BerTooLong { bytes_max: 5 })]
#[case::long_u64(fault_of::<u64>, "8080808080808080808001", Fault::BerTooLong { bytes_max: 10 })]
#[case::ones_u64(fault_of::<u64>, "ffffffffffffffffffffff", Fault::BerTooLong { bytes_max: 10 })]
#[case::cut(fault_of::<u32>, "8180", short(3, 2))]
#[case::length(fault_of::<String>, "8fffffff7f", short(0xffff_ffff, 0))]
#[case::count(fault_of::<Vec<u16>>, "02010002", Fault::Count { count: 2, left: 3 })]
fn what_is_wrong_in_ber_mode_is_said(
    #[case] fault_of: fn(Mode, &[u8]) -> (usize, Fault),
    #[case] digits: &str,
    #[case] fault: Fault,
) {
    assert_eq!(fault_of(Mode::Ber, &hex(digits)), (0, fault));
}

/// Perl and Go accept them as well.
#[rstest]
#[case("8005", 5)]
#[case("80807f", 127)]
fn leading_zeros_of_ber_are_accepted(#[case] digits: &str, #[case] value: u16) {
    assert_eq!(unpack_ber(&hex(digits)), Ok(value));
}

#[test]
fn errors_are_sentences() {
    let error = unpack::<(u8, Vec<u16>)>(b"\x01\x03\0\0\0\x01\0").expect_err("too few");
    let text = "the packed value at byte 1 is a slice of 3 elements, but only 2 bytes are left";
    assert_eq!(error.to_string(), text);
    let error = unpack::<u8>(b"\x01\x02").expect_err("too many");
    let text = "the packed value at byte 1 was not expected: 1 bytes are left behind the last one";
    assert_eq!(error.to_string(), text);
}

/// Takes no bytes, so that a slice of more than 2^32 of them can be made.
#[derive(Clone, Copy)]
struct Nothing;

impl Pack for Nothing {
    fn pack_to(&self, _out: &mut Vec<u8>, _mode: Mode) -> Result<(), PackError> {
        Ok(())
    }
}

#[test]
fn a_slice_that_is_too_long_is_refused_and_leaves_nothing() {
    const LEN: usize = u32::MAX as usize + 1;
    let (mut out, long) = (b"in front".to_vec(), [Nothing; LEN]);
    assert_eq!(append(&mut out, &("x", &long[..])), Err(PackError { len: LEN }));
    assert_eq!(append_ber(&mut out, &("x", &long[..])), Err(PackError { len: LEN }));
    assert_eq!(out, b"in front");
    assert_eq!(pack(&long[..u32::MAX as usize]).as_deref(), Ok(&[0xff; 4][..]));
}
