//! UTF-8 (RFC 3629) as it arrives: the first impossible byte is refused when it is seen.

/// The bytes are not UTF-8, or end in the middle of a code point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not UTF-8")]
pub struct Invalid;

/// Checks text that comes in pieces, which may be cut inside a code point.
///
/// ```
/// use hioload_protocol::ws::utf8::{Incremental, Invalid};
///
/// let mut text = Incremental::default();
/// text.push(b"Gr\xc3")?;
/// text.push(b"\xbc\xc3\x9fe")?;
/// text.finish()?;
///
/// // A surrogate is known to be one at its second byte; the third need not come.
/// assert_eq!(Incremental::default().push(b"\xed\xa0"), Err(Invalid));
/// # Ok::<(), Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incremental {
    /// Bytes of the cut code point still to come: 0 to 3.
    pending: u8,
    /// The range of the next of them. It is narrower than 80 to BF after E0, ED, F0 and F4, where
    /// it excludes overlong forms, surrogates and what lies above U+10FFFF.
    low: u8,
    high: u8,
}

impl Incremental {
    /// At the beginning of a text.
    #[must_use]
    pub const fn new() -> Self {
        Self { pending: 0, low: 0x80, high: 0xBF }
    }

    /// Checks the next piece.
    ///
    /// # Errors
    /// The text so far cannot be the beginning of valid UTF-8; the check is over.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Invalid> {
        let mut rest = bytes;
        while self.pending > 0 {
            let Some((&byte, tail)) = rest.split_first() else { return Ok(()) };
            self.continuation(byte)?;
            rest = tail;
        }
        let Err(error) = simdutf8::compat::from_utf8(rest) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(Invalid);
        }
        // Only the last code point is left, at most three bytes of it.
        let mut cut = rest[error.valid_up_to()..].iter();
        let lead = cut.next().ok_or(Invalid)?;
        self.lead(*lead)?;
        cut.try_for_each(|&byte| self.continuation(byte))
    }

    /// Ends the text, and makes ready for the next.
    ///
    /// # Errors
    /// The last code point is cut.
    #[inline]
    pub fn finish(&mut self) -> Result<(), Invalid> {
        let whole = self.pending == 0;
        *self = Self::new();
        if whole { Ok(()) } else { Err(Invalid) }
    }

    /// The first byte of a code point of several (RFC 3629 section 4).
    fn lead(&mut self, byte: u8) -> Result<(), Invalid> {
        let (pending, low, high) = match byte {
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return Err(Invalid),
        };
        *self = Self { pending, low, high };
        Ok(())
    }

    /// One of the bytes that follow.
    fn continuation(&mut self, byte: u8) -> Result<(), Invalid> {
        if byte < self.low || byte > self.high {
            return Err(Invalid);
        }
        *self = Self { pending: self.pending - 1, low: 0x80, high: 0xBF };
        Ok(())
    }
}

impl Default for Incremental {
    fn default() -> Self {
        Self::new()
    }
}

/// Below this, the vectors are not used: they are of no use to a text that fits into one or two.
const VECTORS_FROM: usize = 64;

/// Checks a text that is there as a whole, which is a little faster.
///
/// # Errors
/// It is not UTF-8.
#[inline]
pub fn check(text: &[u8]) -> Result<(), Invalid> {
    if text.len() < VECTORS_FROM && text.is_ascii() {
        return Ok(());
    }
    simdutf8::basic::from_utf8(text).map(|_| ()).map_err(|_| Invalid)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// Every prefix that no code point begins with is refused at its last byte, not later.
    #[rstest]
    #[case::continuation_first(b"\x80")]
    #[case::overlong_two(b"\xc0")]
    #[case::overlong_two_too(b"\xc1")]
    #[case::overlong_three(b"\xe0\x9f")]
    #[case::surrogate(b"\xed\xa0")]
    #[case::overlong_four(b"\xf0\x8f")]
    #[case::above_the_last(b"\xf4\x90")]
    #[case::five_bytes(b"\xf5")]
    #[case::not_a_continuation(b"\xe2\x82\x41")]
    #[case::byte_order(b"\xff")]
    fn an_impossible_prefix_is_refused_at_once(#[case] bad: &[u8]) {
        for start in
            [&b""[..], b"some text before it, longer than one vector of sixty-four bytes.."]
        {
            let mut whole = Incremental::default();
            assert_eq!(whole.push(&[start, bad].concat()), Err(Invalid));

            let mut bytewise = Incremental::default();
            let (last, first) = bad.split_last().expect("not empty");
            assert_eq!(bytewise.push(start), Ok(()));
            for byte in first {
                assert_eq!(bytewise.push(&[*byte]), Ok(()));
            }
            assert_eq!(bytewise.push(&[*last]), Err(Invalid));
        }
    }

    #[test]
    fn a_cut_code_point_at_the_end_is_refused_by_finish() {
        let mut text = Incremental::default();
        assert_eq!(text.push("€".as_bytes().split_last().expect("three bytes").1), Ok(()));
        assert_eq!(text.finish(), Err(Invalid));
        assert_eq!(text.finish(), Ok(()), "ready for the next text");
    }

    proptest! {
        #[test]
        fn text_is_accepted_however_it_is_cut(text: String, cut in any::<prop::sample::Index>()) {
            let (head, tail) = text.as_bytes().split_at(cut.index(text.len() + 1));
            let mut check = Incremental::default();
            prop_assert_eq!(check.push(head), Ok(()));
            prop_assert_eq!(check.push(tail), Ok(()));
            prop_assert_eq!(check.finish(), Ok(()));
        }

        /// Against the standard library: each byte is judged as `from_utf8` judges the prefix.
        #[test]
        fn each_byte_is_judged_like_core_does(
            bytes in prop::collection::vec(
                prop_oneof![
                    any::<u8>(),
                    prop::sample::select(&b"\x41\x80\x8f\x90\x9f\xa0\xbf\xc2\xe0\xed\xf0\xf4"[..]),
                ],
                0..9,
            ),
        ) {
            let mut check = Incremental::default();
            for end in 1..=bytes.len() {
                let possible = match core::str::from_utf8(&bytes[..end]) {
                    Ok(_) => true,
                    Err(error) => error.error_len().is_none(),
                };
                prop_assert_eq!(check.push(&bytes[end - 1..end]).is_ok(), possible);
                if !possible {
                    break;
                }
            }
        }
    }
}
