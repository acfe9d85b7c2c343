//! Masking (RFC 6455 section 5.3): the payload of a client is XORed with a key of four bytes.

/// Masks or unmasks `bytes` in place; `offset` is where they begin in their frame's payload.
///
/// Masking twice gives the bytes back. The loop is written so that the compiler turns it into
/// vector instructions; it runs at the speed of memory.
///
/// ```
/// use hioload_protocol::ws::mask::mask;
///
/// let mut bytes = *b"\x7f\x9f\x4d\x51\x58"; // RFC 6455 section 5.7: "Hello"
/// mask(&mut bytes, [0x37, 0xfa, 0x21, 0x3d], 0);
/// assert_eq!(&bytes, b"Hello");
///
/// // Cut anywhere, the second part goes on where the first ended.
/// let (head, tail) = bytes.split_at_mut(3);
/// mask(head, [0x37, 0xfa, 0x21, 0x3d], 0);
/// mask(tail, [0x37, 0xfa, 0x21, 0x3d], 3);
/// assert_eq!(&bytes, b"\x7f\x9f\x4d\x51\x58");
/// ```
#[inline]
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let key = rotated(key, offset);
    let narrow = u32::from_ne_bytes(key);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);

    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    let (half, rest) = rest.as_chunks_mut::<4>();
    for half in half {
        *half = (u32::from_ne_bytes(*half) ^ narrow).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// The key as it applies from `offset` on.
#[inline]
pub(super) fn rotated(mut key: [u8; 4], offset: usize) -> [u8; 4] {
    key.rotate_left(offset % 4);
    key
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_the_formula_of_section_5_3(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            key: [u8; 4],
            offset in 0_usize..9,
        ) {
            let expected: Vec<u8> =
                bytes.iter().zip(offset..).map(|(byte, i)| byte ^ key[i % 4]).collect();
            let mut masked = bytes;
            mask(&mut masked, key, offset);
            prop_assert_eq!(masked, expected);
        }
    }
}
