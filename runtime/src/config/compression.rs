//! How the messages of a route are compressed.

use hioload_protocol::deflate::{Deflater, Direction, Inflater, Offer, Policy};

use super::CompressionMode;
use super::sections::WebSocketConfig;

/// How a route, or a connection to another server, compresses (permessage-deflate, RFC 7692), if
/// the peer does so too.
///
/// What it costs is memory for windows. [`shared_window`](Self::shared_window) is a good choice for
/// many connections, [`dedicated_window`](Self::dedicated_window) for few that send much of the
/// same. Do not compress secrets together with what an attacker can choose: the length of the
/// result tells about both.
///
/// ```
/// use hioload::Compression;
///
/// let feed = Compression::shared_window().level(1).bytes_min(512);
/// # assert_ne!(feed, Compression::default());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    pub(crate) mode: CompressionMode,
    pub(crate) level: u8,
    pub(crate) bytes_min: usize,
    pub(crate) window_bits: u8,
}

impl Default for Compression {
    /// [`Compression::off`].
    fn default() -> Self {
        Self::off()
    }
}

impl Compression {
    const fn new(mode: CompressionMode) -> Self {
        Self { mode, level: 6, bytes_min: 128, window_bits: 15 }
    }

    /// None.
    #[must_use]
    pub const fn off() -> Self {
        Self::new(CompressionMode::Off)
    }

    /// Every message stands alone, both ways: a session costs nothing more, as all of a shard share
    /// one compressor and one window.
    #[must_use]
    pub const fn no_context() -> Self {
        Self::new(CompressionMode::NoContext)
    }

    /// What we send stands alone, and all sessions of a shard share one compressor; the peer may
    /// keep its window, which costs its session some 40 KiB here once it has sent something.
    #[must_use]
    pub const fn shared_window() -> Self {
        Self::new(CompressionMode::SharedWindow)
    }

    /// Both sides keep their windows: the best compression, and some 350 KiB for each session that
    /// has used both.
    #[must_use]
    pub const fn dedicated_window() -> Self {
        Self::new(CompressionMode::DedicatedWindow)
    }

    /// How hard to try: 1 (fast) to 9, by default 6; what is out of this range is moved into it.
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.level = level.clamp(1, 9);
        self
    }

    /// Messages shorter than this are sent as they are; by default 128 bytes.
    #[must_use]
    pub const fn bytes_min(mut self, bytes: usize) -> Self {
        self.bytes_min = bytes;
        self
    }

    /// The largest window that is kept, as a power of two: 9 to 15, by default 15; what is out of
    /// this range is moved into it. A smaller one makes a dedicated compressor smaller.
    #[must_use]
    pub fn window_bits(mut self, bits: u8) -> Self {
        self.window_bits = bits.clamp(9, 15);
        self
    }

    /// What a server with this setting agrees to.
    pub(crate) fn policy(&self) -> Option<Policy> {
        let (server, client) = self.directions()?;
        Some(Policy { server, client })
    }

    /// What a client with this setting offers.
    pub(crate) fn offer(&self) -> Option<Offer> {
        let (client, server) = self.directions()?;
        Some(Offer { server, client })
    }

    /// What the windows of one session take at the most, in bytes.
    pub(crate) fn session_bytes(&self) -> usize {
        match self.mode {
            CompressionMode::Off | CompressionMode::NoContext => 0,
            CompressionMode::SharedWindow => Inflater::BYTES,
            CompressionMode::DedicatedWindow => Inflater::BYTES + Deflater::bytes(self.window_bits),
        }
    }

    /// At most what is kept of what we send, and of what we receive.
    fn directions(&self) -> Option<(Direction, Direction)> {
        let kept = Direction { keeps_context: true, window_bits: self.window_bits };
        match self.mode {
            CompressionMode::Off => None,
            CompressionMode::NoContext => Some((Direction::NO_CONTEXT, Direction::NO_CONTEXT)),
            CompressionMode::SharedWindow => Some((Direction::NO_CONTEXT, kept)),
            CompressionMode::DedicatedWindow => Some((kept, kept)),
        }
    }
}

impl From<&WebSocketConfig> for Compression {
    fn from(config: &WebSocketConfig) -> Self {
        Self::new(config.compression)
            .level(config.compression_level)
            .bytes_min(config.compression_bytes_min)
            .window_bits(config.compression_window_bits)
    }
}
