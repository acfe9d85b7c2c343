//! The packed forms that are derived, of every shape of struct.

use std::borrow::Cow;

use hioload_protocol::iproto::pack::{Fault, UnpackError};
use hioload_protocol::iproto::{Pack, Unpack, pack, pack_ber, unpack, unpack_ber};
use rstest::rstest;

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Plain {
    a: u8,
    b: String,
}

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Marked {
    #[iproto(ber)]
    a: u32,
    #[iproto(ber)]
    b: String,
}

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Mixed {
    #[iproto(ber)]
    count: u16,
    name: String,
}

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Inner {
    x: u8,
    #[iproto(ber)]
    y: u32,
}

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Outer {
    a: u16,
    b: Vec<String>,
    c: Inner,
}

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Tuple(u16, #[iproto(ber)] u16);

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Unit;

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Borrowed<'a, 'b> {
    name: &'a str,
    #[iproto(ber)]
    bytes: &'b [u8],
    text: Cow<'a, str>,
}

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Generic<'a, T, U: Clone, const N: usize>
where
    U: PartialEq,
{
    head: &'a str,
    one: T,
    #[iproto(ber)]
    many: Vec<U>,
}

#[derive(Debug, PartialEq, Pack, Unpack)]
struct Tree {
    r#type: u8,
    children: Vec<Tree>,
}

/// As a crate that re-exports the module would be named.
mod facade {
    pub(crate) mod wire {
        pub(crate) use hioload_protocol::iproto::*;
    }
}

#[derive(Debug, PartialEq, Pack, Unpack)]
#[iproto(crate = "facade::wire")]
struct Elsewhere(#[iproto(ber)] u32);

/// A value and its bytes, both ways; the mode of the whole makes no difference.
fn check<T: Pack + for<'a> Unpack<'a> + PartialEq + std::fmt::Debug>(value: &T, bytes: &[u8]) {
    assert_eq!(pack(value).expect("short"), bytes);
    assert_eq!(pack_ber(value).expect("short"), bytes, "the mode does not reach the fields");
    assert_eq!(&unpack::<T>(bytes).expect("its own bytes"), value);
    assert_eq!(&unpack_ber::<T>(bytes).expect("its own bytes"), value);
}

fn marked(a: u32, b: &str) -> Marked {
    Marked { a, b: b.into() }
}

#[test]
fn fields_are_packed_in_order_each_in_its_own_mode() {
    check(&Plain { a: 15, b: "  ".into() }, b"\x0f\x02\0\0\0  ");
    check(&marked(258, "  "), b"\x82\x02\x02  ");
    check(&Mixed { count: 258, name: "world".into() }, b"\x82\x02\x05\0\0\0world");
    let outer = Outer { a: 1, b: vec!["x".into()], c: Inner { x: 7, y: 300 } };
    check(&outer, b"\x01\0\x01\0\0\0\x01\0\0\0x\x07\x82\x2c");
}

#[test]
fn every_shape_of_struct_has_a_form() {
    check(&Tuple(1, 2), b"\x01\0\x02");
    check(&Unit, b"");
    check(&Elsewhere(300), b"\x82\x2c");
    let leaf = || Tree { r#type: 2, children: vec![] };
    check(
        &Tree { r#type: 1, children: vec![leaf(), leaf()] },
        b"\x01\x02\0\0\0\x02\0\0\0\0\x02\0\0\0\0",
    );
}

#[test]
fn fields_may_borrow_from_the_bytes() {
    let value = Borrowed { name: "n", bytes: b"\x01\x02", text: "t".into() };
    let bytes = pack(&value).expect("short");
    assert_eq!(bytes, b"\x01\0\0\0n\x02\x01\x02\x01\0\0\0t");
    let back: Borrowed<'_, '_> = unpack(&bytes).expect("its own bytes");
    assert_eq!(back, value);
    assert!(matches!(back.text, Cow::Borrowed(_)));
    assert!(bytes.as_ptr_range().contains(&back.name.as_ptr()));
}

#[test]
fn generic_structs_have_the_form_of_what_they_hold() {
    let value: Generic<'_, &str, u16, 3> = Generic { head: "h", one: "o", many: vec![1, 2] };
    let bytes = pack(&value).expect("short");
    assert_eq!(bytes, b"\x01\0\0\0h\x01\0\0\0o\x02\x01\0\x02\0");
    assert_eq!(unpack::<Generic<'_, &str, u16, 3>>(&bytes), Ok(value));
}

/// What the count of a slice is held against.
#[test]
fn a_struct_knows_the_fewest_bytes_it_takes() {
    assert_eq!(<Plain as Unpack<'_>>::BYTES_MIN, 5);
    assert_eq!(<Marked as Unpack<'_>>::BYTES_MIN, 2);
    assert_eq!(<Outer as Unpack<'_>>::BYTES_MIN, 2 + 4 + 2);
    assert_eq!(<Unit as Unpack<'_>>::BYTES_MIN, 0);
    let error = unpack::<Vec<Plain>>(b"\x02\0\0\0\x0f\0\0\0\0\x0f\0\0\0").expect_err("9 of 10");
    assert_eq!(error, UnpackError { at: 0, fault: Fault::Count { count: 2, left: 9 } });
}

#[rstest]
#[case(b"", 0, Fault::Short { wanted: 1, left: 0 })]
#[case(b"\x01\0", 1, Fault::Short { wanted: 4, left: 1 })]
#[case(b"\x01\0\0\0\0\x07", 5, Fault::Trailing { left: 1 })]
fn an_error_says_where_in_the_struct(
    #[case] bytes: &[u8],
    #[case] at: usize,
    #[case] fault: Fault,
) {
    assert_eq!(unpack::<Plain>(bytes), Err(UnpackError { at, fault }));
}

/// A tree of one child each, as deep as 5 bytes a level allow, would otherwise end the stack.
#[test]
fn a_struct_that_contains_itself_is_not_nested_without_end() {
    let bytes = [1, 1, 0, 0, 0].repeat(1_000_000);
    let error = unpack::<Tree>(&bytes).expect_err("too deep");
    assert_eq!(error.fault, Fault::TooDeep);
}
