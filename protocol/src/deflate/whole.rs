//! Messages that stand alone: compressed in one go, for every connection that keeps no context.

use core::fmt;

use super::{Deflater, NoRoom};

/// Compresses messages that refer to no other one. One of them serves all connections of a shard,
/// whatever windows they agreed on.
///
/// With the cargo feature `libdeflate` it is about 1.5 times as fast for messages of a few KiB. Its
/// payloads then end with a block that has BFINAL set and a byte of zero, as RFC 7692 section
/// 7.2.3.4 allows.
pub struct Whole {
    level: u8,
    #[cfg(feature = "libdeflate")]
    fast: libdeflater::Compressor,
    /// For each size of window that somebody asked for: 9 to 15 bits.
    by_window: [Option<Deflater>; 7],
}

impl Whole {
    /// What one takes at the most for the usual window, in bytes.
    #[cfg(feature = "libdeflate")]
    pub const BYTES: usize = 656 * 1024; // the C library's part is 652.6 KiB from level 2 on
    /// What one takes at the most for the usual window, in bytes.
    #[cfg(not(feature = "libdeflate"))]
    pub const BYTES: usize = Deflater::bytes(super::WINDOW_BITS_MAX) + 1_024;

    /// What one takes if somebody asked for each of the windows that there are, in bytes.
    pub const BYTES_MAX: usize = {
        let (mut bytes, mut bits) = (Self::BYTES, super::DEFLATE_BITS_MIN);
        while bits < super::WINDOW_BITS_MAX {
            bytes += Deflater::bytes(bits);
            bits += 1;
        }
        bytes
    };

    /// Allocates what it needs for the usual window ([`BYTES`](Self::BYTES)), or without the
    /// feature `libdeflate` when that is first asked for, as for every other window.
    ///
    /// # Panics
    /// If `level` is not 1 to 9.
    #[must_use]
    pub fn new(level: u8) -> Self {
        assert!((1..=9).contains(&level), "a level is 1 to 9");
        Self {
            level,
            #[cfg(feature = "libdeflate")]
            fast: libdeflater::Compressor::new(
                libdeflater::CompressionLvl::new(level.into()).expect("1 to 9 are levels"),
            ),
            by_window: [const { None }; 7],
        }
    }

    /// Compresses one message to the front of `out`, for a receiver whose window
    /// has `window_bits` (9 to 15), and answers how long the payload is.
    ///
    /// # Errors
    /// It does not fit: give it fewer bytes than the message has, and what compression does not
    /// make shorter is found out early.
    ///
    /// # Panics
    /// If `window_bits` is not 9 to 15.
    pub fn message(
        &mut self,
        message: &[u8],
        window_bits: u8,
        out: &mut [u8],
    ) -> Result<usize, NoRoom> {
        if message.is_empty() {
            return super::empty(out);
        }
        #[cfg(feature = "libdeflate")]
        // No reference is longer than the message, so a short one fits every window.
        if window_bits == super::WINDOW_BITS_MAX || message.len() <= 1 << window_bits {
            let (last, room) = out.split_last_mut().ok_or(NoRoom)?;
            let len = self.fast.deflate_compress(message, room).map_err(|_| NoRoom)?;
            *room.get_mut(len).unwrap_or(last) = 0;
            return Ok(len + 1);
        }
        self.flushed(message, window_bits, out)
    }

    /// As [`message`](Self::message), but never with a block that has BFINAL set: for a receiver
    /// that keeps its window, as not every one of them goes on behind such a block.
    ///
    /// # Errors
    /// It does not fit.
    ///
    /// # Panics
    /// If `window_bits` is not 9 to 15.
    pub fn flushed(
        &mut self,
        message: &[u8],
        window_bits: u8,
        out: &mut [u8],
    ) -> Result<usize, NoRoom> {
        let level = self.level;
        self.by_window[usize::from(window_bits - super::DEFLATE_BITS_MIN)]
            .get_or_insert_with(|| Deflater::new(level, window_bits))
            .message(message, false, out)
    }
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whole").field("level", &self.level).finish_non_exhaustive()
    }
}
