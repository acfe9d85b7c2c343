//! Why something cannot be packed or unpacked.

/// A string or slice is too long: its length or count is a `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a string or slice of {len} elements cannot be packed: 4294967295 is the most; split it")]
pub struct PackError {
    /// Its length.
    pub len: usize,
}

/// Bytes are not the packed form of what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the packed value at byte {at} {fault}")]
pub struct UnpackError {
    /// Where the value begins that is wrong, from the start of the input.
    pub at: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a packed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// The input ends within it.
    #[error("needs {wanted} bytes, but {left} are left")]
    Short {
        /// How many it needs, as far as they were seen.
        wanted: usize,
        /// How many there are.
        left: usize,
    },
    /// A BER integer is larger than its type.
    #[error("does not fit {bits} bits")]
    Overflow {
        /// How wide the type is.
        bits: u32,
    },
    /// A BER integer has no end where it must.
    #[error("is a BER integer of more than {bytes_max} bytes")]
    BerTooLong {
        /// The most bytes for its type.
        bytes_max: usize,
    },
    /// The count of a slice is higher than the bytes behind it allow.
    #[error("is a slice of {count} elements, but only {left} bytes are left")]
    Count {
        /// What it says.
        count: usize,
        /// How many bytes there are.
        left: usize,
    },
    /// A string is not UTF-8.
    #[error("is not UTF-8; unpack it as bytes")]
    NotUtf8,
    /// Slices are nested deeper than [`NESTING_MAX`](super::NESTING_MAX).
    #[error("is a slice that is nested too deep")]
    TooDeep,
    /// Bytes are left behind the last value.
    #[error("was not expected: {left} bytes are left behind the last one")]
    Trailing {
        /// How many.
        left: usize,
    },
}
