//! Finds the end of a head as its bytes arrive, looking at each byte once.

use super::Refusal;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The most bytes, with the empty line at the end. Default 8,192.
    pub bytes_max: usize,
    /// The most header fields. Default 64, never more than 128.
    pub headers_max: usize,
}

impl HeadLimits {
    /// What the field `headers_max` is cut to: the parser's table on the stack has this many
    /// entries (4 KiB).
    pub const HEADERS_MAX: usize = 128;

    pub(super) fn fields_max(&self) -> usize {
        self.headers_max.min(Self::HEADERS_MAX)
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes_max: 8_192, headers_max: 64 }
    }
}

/// Looks for the end of a head, and goes on where it stopped when more bytes have come: a head
/// that comes byte by byte costs no more than one that comes at once.
///
/// It refuses what parsers disagree on, at the byte that shows it: a bare LF or CR, NUL, a folded
/// line (obs-fold, RFC 9112 section 5.2), an empty line where the request line belongs.
///
/// ```
/// use hioload_protocol::http::{HeadLimits, HeadScanner};
///
/// let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore";
/// let mut scanner = HeadScanner::default();
/// assert_eq!(scanner.find_end(&bytes[..20], &HeadLimits::default())?, None);
/// assert_eq!(scanner.find_end(bytes, &HeadLimits::default())?, Some(bytes.len() - 4));
/// # Ok::<(), hioload_protocol::http::Refusal>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScanner {
    /// Bytes looked at.
    scanned: u32,
    /// Lines that have ended.
    lines: u16,
    before: Before,
}

/// What the next byte comes after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Before {
    /// The beginning of a line.
    #[default]
    Line,
    /// Some of a line.
    Text,
    /// Some of a line, and CR.
    TextCr,
    /// CR at the beginning of a line.
    LineCr,
}

impl HeadScanner {
    /// Where the head ends: the length of it in bytes, with the empty line. `bytes` is all that
    /// has come since its beginning, also what earlier calls saw. `Ok(None)`: not yet.
    ///
    /// # Errors
    /// The head is malformed (400) or larger than the limits (431).
    pub fn find_end(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, Refusal> {
        // More than 4 GiB is more than any limit that this can count to.
        let bytes_max = limits.bytes_max.min(u32::MAX as usize);
        let end = bytes.len().min(bytes_max);
        let start = self.scanned as usize;
        for (at, &byte) in bytes.iter().enumerate().take(end).skip(start) {
            self.scanned += 1;
            if self.step(byte, limits)? {
                return Ok(Some(at + 1));
            }
        }
        if bytes.len() >= bytes_max {
            return Err(Refusal::HEAD_TOO_LARGE);
        }
        Ok(None)
    }

    /// Takes one byte; `true` if the head ends with it.
    fn step(&mut self, byte: u8, limits: &HeadLimits) -> Result<bool, Refusal> {
        self.before = match (self.before, byte) {
            (_, 0) => return Err(Refusal::bad("a NUL byte in the head")),
            (Before::TextCr, b'\n') => {
                self.end_line(limits)?;
                Before::Line
            }
            (Before::LineCr, b'\n') if self.lines > 0 => return Ok(true),
            (Before::LineCr, b'\n') => return Err(Refusal::bad("no request line")),
            (Before::TextCr | Before::LineCr, _) => {
                return Err(Refusal::bad("a CR without LF in the head"));
            }
            (_, b'\n') => return Err(Refusal::bad("a LF without CR in the head")),
            (Before::Line, b'\r') => Before::LineCr,
            (Before::Text, b'\r') => Before::TextCr,
            (Before::Line, b' ' | b'\t') => {
                return Err(Refusal::bad("a folded or indented line in the head"));
            }
            (Before::Line | Before::Text, _) => Before::Text,
        };
        Ok(false)
    }

    fn end_line(&mut self, limits: &HeadLimits) -> Result<(), Refusal> {
        self.lines += 1;
        // The first line is the request line.
        if usize::from(self.lines) > limits.fields_max() + 1 {
            return Err(Refusal::TOO_MANY_HEADERS);
        }
        Ok(())
    }
}
