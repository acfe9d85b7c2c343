//! Which types have a packed form.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;

use super::write::append_count;
use super::{
    Mode, Pack, PackError, Unpack, UnpackError, Unpacker, pack_string, pack_u16, pack_u32, pack_u64,
};

impl Pack for u8 {
    fn pack_to(&self, out: &mut Vec<u8>, _mode: Mode) -> Result<(), PackError> {
        out.push(*self);
        Ok(())
    }

    fn pack_elements_to(elements: &[Self], out: &mut Vec<u8>) -> Result<(), PackError> {
        out.extend_from_slice(elements);
        Ok(())
    }
}

impl<'a> Unpack<'a> for u8 {
    const BYTES_MIN: usize = 1;

    fn unpack_from(input: &mut Unpacker<'a>, _mode: Mode) -> Result<Self, UnpackError> {
        input.u8()
    }

    fn unpack_elements_from(
        input: &mut Unpacker<'a>,
        count: usize,
    ) -> Result<Vec<Self>, UnpackError> {
        let at = input.position();
        input.take(count).map(<[u8]>::to_vec).map_err(|fault| UnpackError { at, fault })
    }
}

impl Pack for i8 {
    fn pack_to(&self, out: &mut Vec<u8>, _mode: Mode) -> Result<(), PackError> {
        out.push(self.cast_unsigned());
        Ok(())
    }
}

impl<'a> Unpack<'a> for i8 {
    const BYTES_MIN: usize = 1;

    fn unpack_from(input: &mut Unpacker<'a>, _mode: Mode) -> Result<Self, UnpackError> {
        input.u8().map(u8::cast_signed)
    }
}

macro_rules! integers {
    ($($unsigned:ident $signed:ident $pack:ident;)*) => {$(
        impl Pack for $unsigned {
            fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError> {
                $pack(out, *self, mode);
                Ok(())
            }
        }

        impl<'a> Unpack<'a> for $unsigned {
            const BYTES_MIN: usize = size_of::<Self>();

            fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError> {
                input.$unsigned(mode)
            }
        }

        impl Pack for $signed {
            fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError> {
                $pack(out, self.cast_unsigned(), mode);
                Ok(())
            }
        }

        impl<'a> Unpack<'a> for $signed {
            const BYTES_MIN: usize = size_of::<Self>();

            fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError> {
                input.$unsigned(mode).map($unsigned::cast_signed)
            }
        }
    )*};
}

integers! {
    u16 i16 pack_u16;
    u32 i32 pack_u32;
    u64 i64 pack_u64;
}

impl Pack for str {
    fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError> {
        pack_string(out, self, mode)
    }
}

impl Pack for String {
    fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError> {
        pack_string(out, self, mode)
    }
}

impl<T: Pack> Pack for [T] {
    fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError> {
        append_count(out, self.len(), mode)?;
        T::pack_elements_to(self, out)
    }
}

impl<T: Pack> Pack for Vec<T> {
    fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError> {
        self.as_slice().pack_to(out, mode)
    }
}

impl<T: Pack + ?Sized> Pack for &T {
    fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError> {
        (**self).pack_to(out, mode)
    }
}

impl<T: Pack + ToOwned + ?Sized> Pack for Cow<'_, T> {
    fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError> {
        (**self).pack_to(out, mode)
    }
}

/// The fewest bytes of a length or count in default mode.
const COUNT_BYTES: usize = size_of::<u32>();

impl<'a: 'b, 'b> Unpack<'a> for &'b str {
    const BYTES_MIN: usize = COUNT_BYTES;

    fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError> {
        input.string(mode)
    }
}

impl<'a: 'b, 'b> Unpack<'a> for &'b [u8] {
    const BYTES_MIN: usize = COUNT_BYTES;

    fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError> {
        input.bytes(mode)
    }
}

impl<'a: 'b, 'b> Unpack<'a> for Cow<'b, str> {
    const BYTES_MIN: usize = COUNT_BYTES;

    fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError> {
        input.string(mode).map(Cow::Borrowed)
    }
}

impl<'a: 'b, 'b> Unpack<'a> for Cow<'b, [u8]> {
    const BYTES_MIN: usize = COUNT_BYTES;

    fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError> {
        input.bytes(mode).map(Cow::Borrowed)
    }
}

impl<'a> Unpack<'a> for String {
    const BYTES_MIN: usize = COUNT_BYTES;

    fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError> {
        input.string(mode).map(Into::into)
    }
}

impl<'a, T: Unpack<'a>> Unpack<'a> for Vec<T> {
    const BYTES_MIN: usize = COUNT_BYTES;

    fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError> {
        const {
            assert!(T::BYTES_MIN > 0, "the elements of a slice must take at least one byte each");
        }
        let count = input.count(T::BYTES_MIN, mode)?;
        input.nested(|input| T::unpack_elements_from(input, count))
    }
}

macro_rules! tuples {
    ($($($element:ident)+;)*) => {$(
        impl<$($element: Pack),+> Pack for ($($element,)+) {
            fn pack_to(&self, out: &mut Vec<u8>, mode: Mode) -> Result<(), PackError> {
                #[allow(non_snake_case, reason = "an element is named as its type")]
                let ($($element,)+) = self;
                $($element.pack_to(out, mode)?;)+
                Ok(())
            }
        }

        impl<'a, $($element: Unpack<'a>),+> Unpack<'a> for ($($element,)+) {
            const BYTES_MIN: usize = 0 $(+ $element::BYTES_MIN)+;

            fn unpack_from(input: &mut Unpacker<'a>, mode: Mode) -> Result<Self, UnpackError> {
                Ok(($($element::unpack_from(input, mode)?,)+))
            }
        }
    )*};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
}
