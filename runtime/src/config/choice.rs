//! Keys with a choice of words.

use std::fmt;

use hioload_pools::HugePages;

/// How many shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardCount {
    /// One per CPU.
    #[default]
    Auto,
    /// This many.
    Exactly(u16),
}

/// Which reactor the shards shall have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReactorChoice {
    /// io_uring, or epoll with a warning where io_uring is refused.
    #[default]
    Auto,
    /// io_uring, or an error that says why not.
    Uring,
    /// epoll.
    Epoll,
}

/// How many of the newer abilities of io_uring are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TierChoice {
    /// The best that the kernel has.
    #[default]
    Auto,
    /// Multishot operations and provided buffers.
    Base,
    /// Base, and receives that fill several buffers.
    Bundles,
    /// Base, and buffers that are filled bit by bit.
    Incremental,
}

/// What happens to a session whose peer does not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowReader {
    /// It is not read from until it has read.
    #[default]
    Pause,
    /// Messages to it are dropped while its outbox is above the high mark.
    Drop,
    /// Its session is closed with 1008 by the first send above the high mark.
    Close,
}

/// What is kept to compress the messages of a session (permessage-deflate, RFC 7692).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompressionMode {
    /// Nothing is compressed.
    #[default]
    Off,
    /// Nothing: every message stands alone, both ways.
    NoContext,
    /// The window of what the peer sends; what we send stands alone.
    SharedWindow,
    /// The windows of both directions.
    DedicatedWindow,
}

/// Which pages the pool of a shard asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePagesChoice {
    /// Ordinary ones.
    #[default]
    Off,
    /// Ordinary ones that the kernel may join.
    Transparent,
    /// Reserved ones; transparent ones, with a note, where there are not enough.
    Explicit,
}

impl From<HugePagesChoice> for HugePages {
    fn from(choice: HugePagesChoice) -> Self {
        match choice {
            HugePagesChoice::Off => Self::Off,
            HugePagesChoice::Transparent => Self::Transparent,
            HugePagesChoice::Explicit => Self::Explicit,
        }
    }
}

/// A type whose values are words.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// Every value and its word.
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, value)| *value == self);
        found.expect("every value has its word").0
    }
}

impl Word for ReactorChoice {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("uring", Self::Uring), ("epoll", Self::Epoll)];
}

impl Word for TierChoice {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("base", Self::Base),
        ("bundles", Self::Bundles),
        ("incremental", Self::Incremental),
    ];
}

impl Word for SlowReader {
    const WORDS: &'static [(&'static str, Self)] =
        &[("pause", Self::Pause), ("drop", Self::Drop), ("close", Self::Close)];
}

impl Word for CompressionMode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("off", Self::Off),
        ("no_context", Self::NoContext),
        ("shared_window", Self::SharedWindow),
        ("dedicated_window", Self::DedicatedWindow),
    ];
}

impl Word for HugePagesChoice {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("transparent", Self::Transparent), ("explicit", Self::Explicit)];
}

macro_rules! display {
    ($($Type:ty),*) => {$(
        impl fmt::Display for $Type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    )*};
}

display!(ReactorChoice, TierChoice, SlowReader, CompressionMode, HugePagesChoice);
