//! What holds of iproto for any bytes: of packets however they are cut, of packed values, and of a
//! connection that any operations are tried on. Each is a function of the bytes, which asserts.

use std::borrow::Cow;
use std::fmt::Debug;

use hioload_protocol::iproto::pack::{unpack_front, unpack_front_ber};
use hioload_protocol::iproto::{
    Env, Limits, Mode, Pack, PacketReader, Unpack, Violation, pack, pack_ber,
};

use super::{TestMemory, iproto_script};

/// What a reader gives: packets, and at last perhaps a failure.
type Packets = Vec<Result<(u32, u32, Vec<u8>), Violation>>;

/// A stream of packets, however it is cut, gives the packets of a plain reader of all of it.
///
/// The first byte says in how many pieces, as many bytes how long those are, one byte what may be
/// received straight into a body; the rest is the stream.
pub fn packets(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else { return };
    let Some((cuts, rest)) = rest.split_at_checked(usize::from(count % 16)) else { return };
    let Some((&min_bytes, stream)) = rest.split_first() else { return };
    // Small, so that streams of a few hundred bytes reach it.
    let limits = Limits { body_bytes_max: 700, ..Limits::default() };
    let expected = plain_packets(stream, limits.body_bytes_max);
    let direct = min_bytes.is_multiple_of(2).then_some(usize::from(min_bytes));
    assert_eq!(read_cut(stream, &[], None, &limits), expected, "in one piece");
    assert_eq!(read_cut(stream, cuts, direct, &limits), expected, "cut by {cuts:?}");
    assert_eq!(read_cut(stream, &[1; 400], None, &limits), expected, "byte by byte");
}

fn plain_packets(mut stream: &[u8], body_bytes_max: usize) -> Packets {
    let mut packets = Vec::new();
    while let Some((header, rest)) = stream.split_first_chunk::<12>() {
        let field =
            |at: usize| (0..4).map(|byte| u32::from(header[at + byte]) << (8 * byte)).sum::<u32>();
        let (msg, len, sync) = (field(0), field(4), field(8));
        if len as usize > body_bytes_max {
            packets.push(Err(Violation::BodyTooBig { len, limit: body_bytes_max }));
            break;
        }
        let Some((body, rest)) = rest.split_at_checked(len as usize) else { break };
        packets.push(Ok((msg, sync, body.to_vec())));
        stream = rest;
    }
    packets
}

/// Reads pieces of these lengths, and the rest in one; what is at least `direct` bytes long is
/// received straight into its body.
fn read_cut(stream: &[u8], cuts: &[u8], direct: Option<usize>, limits: &Limits) -> Packets {
    let mut reader = PacketReader::new();
    let mut memory = TestMemory::default();
    let (mut seen, mut rest) = (Vec::new(), stream);
    let mut cuts = cuts.iter().map(|cut| usize::from(*cut));
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
        rest = later;
        memory.arrived(piece.len());
        let mut env = Env { limits, memory: &mut memory, now_ms: 0 };
        if let Some(min_bytes) = direct
            && let Some(lent) = reader.direct(min_bytes, &mut env).expect("it has memory")
        {
            let tail = &mut lent.buffer[lent.filled..];
            assert!(!tail.is_empty() && tail.len() <= lent.wanted);
            let (filled, behind) = piece.split_at(tail.len().min(piece.len()));
            tail[..filled.len()].copy_from_slice(filled);
            let packet = reader.filled(filled.len());
            seen.extend(packet.map(|packet| {
                let body = packet.body.bytes(&[]).to_vec();
                Ok((packet.header.msg, packet.header.sync, body))
            }));
            piece = behind;
        }
        let mut at = 0;
        loop {
            match reader.read(piece, &mut at, &mut env) {
                Ok(Some(packet)) => {
                    let body = packet.body.bytes(piece).to_vec();
                    seen.push(Ok((packet.header.msg, packet.header.sync, body)));
                }
                Ok(None) => break,
                Err(violation) => seen.push(Err(violation)),
            }
        }
        assert_eq!(at, piece.len(), "all is consumed");
    }
    seen
}

/// A connection on which operations are tried is as its model after each of them.
pub fn operations(data: &[u8]) {
    iproto_script::run(data);
}

/// Bytes unpacked as some type give what a plain decoder gives, or both refuse; and what comes out
/// is packed to bytes that give the same again.
///
/// The first byte says the type and the mode.
pub fn unpacking(data: &[u8]) {
    let Some((&choice, input)) = data.split_first() else { return };
    let mode = if choice & 1 == 1 { Mode::Ber } else { Mode::Default };
    match choice >> 1 {
        0 => unpack_as::<u8>(input, mode),
        1 => unpack_as::<i8>(input, mode),
        2 => unpack_as::<u16>(input, mode),
        3 => unpack_as::<i16>(input, mode),
        4 => unpack_as::<u32>(input, mode),
        5 => unpack_as::<i32>(input, mode),
        6 => unpack_as::<u64>(input, mode),
        7 => unpack_as::<i64>(input, mode),
        8 => unpack_as::<&str>(input, mode),
        9 => unpack_as::<String>(input, mode),
        10 => unpack_as::<&[u8]>(input, mode),
        11 => unpack_as::<Vec<u8>>(input, mode),
        12 => unpack_as::<Cow<'_, str>>(input, mode),
        13 => unpack_as::<Vec<u16>>(input, mode),
        14 => unpack_as::<Vec<Cow<'_, [u8]>>>(input, mode),
        15 => unpack_as::<Vec<Vec<i8>>>(input, mode),
        16 => unpack_as::<(u16, &str, Vec<(u8, i64)>)>(input, mode),
        _ => unpack_as::<(Vec<String>, u32, Vec<Vec<(i32, &[u8])>>)>(input, mode),
    }
}

fn unpack_as<'a, T: Plain + Pack + Unpack<'a> + Debug>(input: &'a [u8], mode: Mode) {
    let mut left = input;
    let plain = decode(&T::shape(), mode, &mut left);
    let unpacked = match mode {
        Mode::Default => unpack_front::<T>(input),
        Mode::Ber => unpack_front_ber::<T>(input),
    };
    let Ok((value, rest)) = unpacked else {
        assert_eq!(plain, None, "{unpacked:?}");
        return;
    };
    assert_eq!(plain.as_ref(), Some(&value.value()));
    assert_eq!(left, rest);
    let taken = &input[..input.len() - rest.len()];
    match mode {
        Mode::Default => assert_eq!(pack(&value).expect("it is short"), taken),
        // A BER integer may come with leading zeros, which we do not write.
        Mode::Ber => {
            let packed = pack_ber(&value).expect("it is short");
            assert!(packed.len() <= taken.len());
            let mut left = &packed[..];
            assert_eq!(decode(&T::shape(), mode, &mut left), plain);
            assert_eq!(left, b"");
        }
    }
}

/// What a type is, for the plain decoder.
enum Shape {
    Integer { bits: u32 },
    Text,
    Bytes,
    Slice(Box<Shape>),
    Tuple(Vec<Shape>),
}

/// A value of any type; integers without their sign.
#[derive(Debug, PartialEq)]
enum Value {
    Integer(u64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
}

fn decode(shape: &Shape, mode: Mode, input: &mut &[u8]) -> Option<Value> {
    Some(match shape {
        Shape::Integer { bits } => Value::Integer(decode_integer(*bits, mode, input)?),
        Shape::Text | Shape::Bytes => {
            let len = decode_integer(32, mode, input)?;
            let bytes = input.split_off(..usize::try_from(len).ok()?)?.to_vec();
            if matches!(shape, Shape::Text) && str::from_utf8(&bytes).is_err() {
                return None;
            }
            Value::Bytes(bytes)
        }
        Shape::Slice(element) => {
            let count = decode_integer(32, mode, input)?;
            let elements = (0..count).map(|_| decode(element, Mode::Default, input));
            Value::List(elements.collect::<Option<_>>()?)
        }
        Shape::Tuple(elements) => {
            let elements = elements.iter().map(|element| decode(element, mode, input));
            Value::List(elements.collect::<Option<_>>()?)
        }
    })
}

fn decode_integer(bits: u32, mode: Mode, input: &mut &[u8]) -> Option<u64> {
    if mode == Mode::Default || bits == 8 {
        let bytes = input.split_off(..bits as usize / 8)?;
        return Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)));
    }
    let mut value = 0_u128;
    for _ in 0..bits.div_ceil(7) {
        let byte = *input.split_off_first()?;
        value = value << 7 | u128::from(byte % 128);
        if byte < 128 {
            return (value < 1 << bits).then_some(value as u64);
        }
    }
    None
}

trait Plain {
    fn shape() -> Shape;
    fn value(&self) -> Value;
}

macro_rules! plain_integers {
    ($($integer:ident as $unsigned:ident)*) => {$(
        impl Plain for $integer {
            fn shape() -> Shape {
                Shape::Integer { bits: $integer::BITS }
            }

            fn value(&self) -> Value {
                Value::Integer(u64::from(*self as $unsigned))
            }
        }
    )*};
}

plain_integers!(u8 as u8 i8 as u8 u16 as u16 i16 as u16 u32 as u32 i32 as u32 u64 as u64 i64 as u64);

macro_rules! plain_bytes {
    ($($bytes:ty: $shape:ident, $as_bytes:ident;)*) => {$(
        impl Plain for $bytes {
            fn shape() -> Shape {
                Shape::$shape
            }

            fn value(&self) -> Value {
                Value::Bytes(self.$as_bytes().to_vec())
            }
        }
    )*};
}

plain_bytes! {
    &str: Text, as_bytes;
    String: Text, as_bytes;
    Cow<'_, str>: Text, as_bytes;
    &[u8]: Bytes, as_ref;
    Cow<'_, [u8]>: Bytes, as_ref;
}

impl<T: Plain> Plain for Vec<T> {
    fn shape() -> Shape {
        Shape::Slice(Box::new(T::shape()))
    }

    fn value(&self) -> Value {
        Value::List(self.iter().map(T::value).collect())
    }
}

macro_rules! plain_tuples {
    ($($($element:ident.$at:tt)*;)*) => {$(
        impl<$($element: Plain),*> Plain for ($($element,)*) {
            fn shape() -> Shape {
                Shape::Tuple(vec![$($element::shape()),*])
            }

            fn value(&self) -> Value {
                Value::List(vec![$(self.$at.value()),*])
            }
        }
    )*};
}

plain_tuples! {
    A.0 B.1;
    A.0 B.1 C.2;
}
