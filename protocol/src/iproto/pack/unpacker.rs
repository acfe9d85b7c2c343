//! Reads packed values one after the other.

use super::{Fault, Mode, UnpackError};

/// How deep slices may be nested: what a type that contains slices of itself could otherwise use
/// to exhaust the stack.
pub const NESTING_MAX: usize = 128;

/// Bytes that packed values are taken from, front to back.
#[derive(Clone, Debug)]
pub struct Unpacker<'a> {
    input: &'a [u8],
    at: usize,
    nesting: usize,
}

impl<'a> Unpacker<'a> {
    /// One in front of all of `input`.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, nesting: 0 }
    }

    /// How many bytes were taken.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// The bytes that were not taken.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        &self.input[self.at..]
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Fault::Trailing`].
    pub const fn finish(&self) -> Result<(), UnpackError> {
        match self.input.len() - self.at {
            0 => Ok(()),
            left => Err(UnpackError { at: self.at, fault: Fault::Trailing { left } }),
        }
    }

    /// Takes one byte, which is the same in both modes.
    ///
    /// # Errors
    /// [`Fault::Short`].
    pub fn u8(&mut self) -> Result<u8, UnpackError> {
        self.array().map(|[byte]| byte)
    }

    /// Takes an integer of 16 bits.
    ///
    /// # Errors
    /// [`Fault::Short`]; in BER mode also [`Fault::Overflow`] and [`Fault::BerTooLong`].
    pub fn u16(&mut self, mode: Mode) -> Result<u16, UnpackError> {
        match mode {
            Mode::Default => self.array().map(u16::from_le_bytes),
            Mode::Ber => self.ber(u16::BITS).map(|value| value as u16), // it was checked to fit
        }
    }

    /// Takes an integer of 32 bits.
    ///
    /// # Errors
    /// As for [`u16`](Self::u16).
    pub fn u32(&mut self, mode: Mode) -> Result<u32, UnpackError> {
        match mode {
            Mode::Default => self.array().map(u32::from_le_bytes),
            Mode::Ber => self.ber(u32::BITS).map(|value| value as u32), // it was checked to fit
        }
    }

    /// Takes an integer of 64 bits.
    ///
    /// # Errors
    /// As for [`u16`](Self::u16).
    pub fn u64(&mut self, mode: Mode) -> Result<u64, UnpackError> {
        match mode {
            Mode::Default => self.array().map(u64::from_le_bytes),
            Mode::Ber => self.ber(u64::BITS),
        }
    }

    /// Takes a length and as many bytes, without a copy.
    ///
    /// # Errors
    /// As for [`u16`](Self::u16).
    pub fn bytes(&mut self, mode: Mode) -> Result<&'a [u8], UnpackError> {
        let start = self.at;
        let len = self.u32(mode)? as usize;
        self.take(len).map_err(|fault| UnpackError { at: start, fault })
    }

    /// Takes a length and as many bytes of UTF-8, without a copy.
    ///
    /// # Errors
    /// As for [`u16`](Self::u16), and [`Fault::NotUtf8`].
    pub fn string(&mut self, mode: Mode) -> Result<&'a str, UnpackError> {
        let start = self.at;
        let bytes = self.bytes(mode)?;
        simdutf8::basic::from_utf8(bytes)
            .map_err(|_| UnpackError { at: start, fault: Fault::NotUtf8 })
    }

    /// Takes the count of a slice whose elements have at least `bytes_min` bytes each, and checks
    /// that there can be so many.
    ///
    /// # Errors
    /// As for [`u16`](Self::u16), and [`Fault::Count`].
    pub fn count(&mut self, bytes_min: usize, mode: Mode) -> Result<usize, UnpackError> {
        let start = self.at;
        let count = self.u32(mode)? as usize;
        let left = self.input.len() - self.at;
        if count.checked_mul(bytes_min).is_none_or(|bytes| bytes > left) {
            return Err(UnpackError { at: start, fault: Fault::Count { count, left } });
        }
        Ok(count)
    }

    /// Takes `len` bytes as they stand, without a copy.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let left = self.rest();
        let taken = left.get(..len).ok_or(Fault::Short { wanted: len, left: left.len() })?;
        self.at += len;
        Ok(taken)
    }

    /// Does `work` one level deeper.
    pub(super) fn nested<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, UnpackError>,
    ) -> Result<T, UnpackError> {
        if self.nesting == NESTING_MAX {
            return Err(UnpackError { at: self.at, fault: Fault::TooDeep });
        }
        self.nesting += 1;
        let done = work(self);
        self.nesting -= 1;
        done
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], UnpackError> {
        let left = self.rest();
        let short = Fault::Short { wanted: N, left: left.len() };
        let array = left.first_chunk().ok_or(UnpackError { at: self.at, fault: short })?;
        self.at += N;
        Ok(*array)
    }

    /// Takes a BER integer that must fit `bits`. Leading groups of zeros are accepted as long as the
    /// whole is not longer than the largest value.
    fn ber(&mut self, bits: u32) -> Result<u64, UnpackError> {
        let (at, left) = (self.at, self.rest());
        let bytes_max = bits.div_ceil(7) as usize;
        let Some(end) = left.iter().take(bytes_max).position(|byte| byte & 0x80 == 0) else {
            let fault = match left.len() < bytes_max {
                true => Fault::Short { wanted: left.len() + 1, left: left.len() },
                false => Fault::BerTooLong { bytes_max },
            };
            return Err(UnpackError { at, fault });
        };
        let mut value = 0_u64;
        for byte in &left[..=end] {
            if value >> (bits - 7) != 0 {
                return Err(UnpackError { at, fault: Fault::Overflow { bits } });
            }
            value = value << 7 | u64::from(byte & 0x7f);
        }
        self.at += end + 1;
        Ok(value)
    }
}
