//! Packing: the form of values in the bodies of packets.
//!
//! | type | [`Mode::Default`] | [`Mode::Ber`] |
//! |---|---|---|
//! | `u8`, `i8` | 1 byte | 1 byte |
//! | `u16` to `u64`, `i16` to `i64` | little-endian, two's complement | BER of the unsigned value of the same width |
//! | strings, bytes | length as `u32`, then the bytes | BER length, then the bytes |
//! | slices | count as `u32`, then the elements | BER count, then the elements: **those always in default mode** |
//! | structs | their fields in order, each in the mode that it is marked with | the same: **the mode does not reach the fields** |
//! | tuples | their elements in order | the same, each in BER mode: a tuple is a list of values |
//!
//! BER is what Perl's `pack 'w'` writes: groups of seven bits, the highest first, and the top bit of
//! a byte says that more follow.
//!
//! Nothing else has a form: `usize`, `bool`, floating point, maps and arrays do not compile, and
//! nothing is cut off in silence. A struct gets its form by `#[derive(Pack, Unpack)]` (cargo feature
//! `derive`), with `#[iproto(ber)]` on a field that has that mode; any other type by implementing
//! [`Pack`] and [`Unpack`].
//!
//! ```
//! use hioload_protocol::iproto::{pack, pack_ber, unpack, unpack_ber};
//!
//! let body = pack(&(1024_u16, "hello"))?;
//! assert_eq!(body, b"\x00\x04\x05\0\0\0hello");
//! // Strings and bytes can be borrowed from the body.
//! assert_eq!(unpack::<(u16, &str)>(&body)?, (1024, "hello"));
//!
//! assert_eq!(pack_ber(&100_000_u32)?, b"\x86\x8d\x20");
//! let error = unpack_ber::<u16>(b"\x86\x8d\x20").unwrap_err();
//! assert_eq!(error.to_string(), "the packed value at byte 0 does not fit 16 bits");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod types;
mod unpacker;
mod write;

use alloc::vec::Vec;

pub use error::{Fault, PackError, UnpackError};
pub use unpacker::{NESTING_MAX, Unpacker};
pub use write::{pack_bytes, pack_string, pack_u8, pack_u16, pack_u32, pack_u64};

/// What derived code names.
#[cfg(feature = "derive")]
#[doc(hidden)]
pub mod derived {
    pub use alloc::vec::Vec;

    /// The fewest bytes in BER mode of a type that has `bytes_min` in default mode.
    #[must_use]
    pub const fn ber_bytes_min(bytes_min: usize) -> usize {
        if bytes_min > 0 { 1 } else { 0 }
    }
}

/// How integers, lengths and counts are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Little-endian, as wide as the type.
    #[default]
    Default,
    /// As few groups of seven bits as the value needs.
    Ber,
}

/// A value that can be packed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no packed form in iproto",
    label = "cannot be packed",
    note = "integers of a fixed width, strings, bytes, slices and tuples can; \
            structs by `#[derive(Pack)]`"
)]
pub trait Pack {
    /// Appends the value to `out`.
    ///
    /// # Errors
    /// Something in it is too long. What was appended until then stays.
    fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError>;

    /// Appends the elements of a slice to `out`: for types that can do it faster than one by one.
    ///
    /// # Errors
    /// As for [`pack_to`](Self::pack_to).
    fn pack_elements_to(elements: &[Self], out: &mut Vec<u8>) -> Result<(), PackError>
    where
        Self: Sized,
    {
        elements.iter().try_for_each(|element| element.pack_to(out, Mode::Default))
    }
}

/// A value that can be unpacked; `'a` is the life of the bytes, which it may borrow from.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no packed form in iproto",
    label = "cannot be unpacked",
    note = "integers of a fixed width, strings, bytes, vectors and tuples can; \
            structs by `#[derive(Unpack)]`"
)]
pub trait Unpack<'a>: Sized {
    /// The fewest bytes that a value takes in default mode: what the count of a slice is checked
    /// against before memory is taken. A type that takes none cannot be the element of a slice.
    const BYTES_MIN: usize;

    /// Takes a value from the front of `input`.
    ///
    /// # Errors
    /// The bytes are not the packed form of one.
    fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError>;

    /// Takes the elements of a slice: for types that can do it faster than one by one. That `count`
    /// is possible was checked.
    ///
    /// # Errors
    /// As for [`unpack_from`](Self::unpack_from).
    fn unpack_elements_from(
        input: &mut Unpacker<'a>,
        count: usize,
    ) -> Result<Vec<Self>, UnpackError> {
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(Self::unpack_from(input, Mode::Default)?);
        }
        Ok(elements)
    }
}

/// Packs a value in default mode.
///
/// # Errors
/// A string or slice in it has more than `u32::MAX` elements.
pub fn pack<T: Pack + ?Sized>(value: &T) -> Result<Vec<u8>, PackError> {
    let mut out = Vec::new();
    value.pack_to(&mut out, Mode::Default)?;
    Ok(out)
}

/// Packs a value in BER mode.
///
/// # Errors
/// As for [`pack()`].
pub fn pack_ber<T: Pack + ?Sized>(value: &T) -> Result<Vec<u8>, PackError> {
    let mut out = Vec::new();
    value.pack_to(&mut out, Mode::Ber)?;
    Ok(out)
}

/// Appends a value in default mode to `out`, which after an error is as it was before.
///
/// # Errors
/// As for [`pack()`].
pub fn append<T: Pack + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), PackError> {
    append_in(out, value, Mode::Default)
}

/// Appends a value in BER mode to `out`, which after an error is as it was before.
///
/// # Errors
/// As for [`pack()`].
pub fn append_ber<T: Pack + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), PackError> {
    append_in(out, value, Mode::Ber)
}

/// Unpacks a value in default mode, which all of `bytes` must be.
///
/// # Errors
/// The bytes are not the packed form of such a value, or some are left.
pub fn unpack<'a, T: Unpack<'a>>(bytes: &'a [u8]) -> Result<T, UnpackError> {
    unpack_in(bytes, Mode::Default)
}

/// Unpacks a value in BER mode, which all of `bytes` must be.
///
/// # Errors
/// As for [`unpack`].
pub fn unpack_ber<'a, T: Unpack<'a>>(bytes: &'a [u8]) -> Result<T, UnpackError> {
    unpack_in(bytes, Mode::Ber)
}

/// Unpacks a value in default mode from the front of `bytes`, and gives the bytes behind it.
///
/// # Errors
/// The bytes do not begin with the packed form of such a value.
pub fn unpack_front<'a, T: Unpack<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), UnpackError> {
    unpack_front_in(bytes, Mode::Default)
}

/// Unpacks a value in BER mode from the front of `bytes`, and gives the bytes behind it.
///
/// # Errors
/// As for [`unpack_front`].
pub fn unpack_front_ber<'a, T: Unpack<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), UnpackError> {
    unpack_front_in(bytes, Mode::Ber)
}

fn append_in<T: Pack + ?Sized>(out: &mut Vec<u8>, value: &T, mode: Mode) -> Result<(), PackError> {
    let len = out.len();
    value.pack_to(out, mode).inspect_err(|_| out.truncate(len))
}

fn unpack_in<'a, T: Unpack<'a>>(bytes: &'a [u8], mode: Mode) -> Result<T, UnpackError> {
    let mut input = Unpacker::new(bytes);
    let value = T::unpack_from(&mut input, mode)?;
    input.finish()?;
    Ok(value)
}

fn unpack_front_in<'a, T: Unpack<'a>>(
    bytes: &'a [u8],
    mode: Mode,
) -> Result<(T, &'a [u8]), UnpackError> {
    let mut input = Unpacker::new(bytes);
    let value = T::unpack_from(&mut input, mode)?;
    Ok((value, input.rest()))
}
