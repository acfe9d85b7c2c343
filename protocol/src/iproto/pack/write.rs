//! The packed forms of the basic types.

use alloc::vec::Vec;

use super::{Mode, PackError};

/// Appends one byte, which is the same in both modes.
pub fn pack_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

/// Appends an integer of 16 bits; 3 bytes at most in BER mode.
pub fn pack_u16(out: &mut Vec<u8>, value: u16, mode: Mode) {
    match mode {
        Mode::Default => out.extend_from_slice(&value.to_le_bytes()),
        Mode::Ber => append_ber(out, value.into()),
    }
}

/// Appends an integer of 32 bits; 5 bytes at most in BER mode.
pub fn pack_u32(out: &mut Vec<u8>, value: u32, mode: Mode) {
    match mode {
        Mode::Default => out.extend_from_slice(&value.to_le_bytes()),
        Mode::Ber => append_ber(out, value.into()),
    }
}

/// Appends an integer of 64 bits; 10 bytes at most in BER mode.
pub fn pack_u64(out: &mut Vec<u8>, value: u64, mode: Mode) {
    match mode {
        Mode::Default => out.extend_from_slice(&value.to_le_bytes()),
        Mode::Ber => append_ber(out, value),
    }
}

/// Appends the length of a string in `mode`, and its bytes.
///
/// # Errors
/// It has more than `u32::MAX` bytes.
pub fn pack_string(out: &mut Vec<u8>, value: &str, mode: Mode) -> Result<(), PackError> {
    pack_bytes(out, value.as_bytes(), mode)
}

/// Appends the number of bytes in `mode`, and the bytes.
///
/// # Errors
/// There are more than `u32::MAX`.
pub fn pack_bytes(out: &mut Vec<u8>, value: &[u8], mode: Mode) -> Result<(), PackError> {
    append_count(out, value.len(), mode)?;
    out.extend_from_slice(value);
    Ok(())
}

/// Appends a length or count.
pub(super) fn append_count(out: &mut Vec<u8>, len: usize, mode: Mode) -> Result<(), PackError> {
    let count = u32::try_from(len).map_err(|_| PackError { len })?;
    pack_u32(out, count, mode);
    Ok(())
}

fn append_ber(out: &mut Vec<u8>, mut value: u64) {
    let mut bytes = [0; 10];
    let mut at = bytes.len() - 1;
    bytes[at] = value as u8 & 0x7f;
    value >>= 7;
    while value > 0 {
        at -= 1; // 64 bits are 10 groups
        bytes[at] = value as u8 | 0x80;
        value >>= 7;
    }
    out.extend_from_slice(&bytes[at..]);
}
