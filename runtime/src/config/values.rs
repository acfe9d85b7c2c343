//! The values that are more than a number.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use hioload_pools::HugePages;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How to talk to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReactorChoice {
    /// io_uring if it can be had, epoll with one warning otherwise.
    #[default]
    Auto,
    /// io_uring, or fail with the reason.
    Uring,
    /// epoll.
    Epoll,
}

/// Which features of io_uring to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierChoice {
    /// The best that the kernel has.
    #[default]
    Auto,
    /// Multishot accept and receive with provided buffers (Linux 6.1).
    Base,
    /// One completion for several buffers (6.10).
    Bundles,
    /// Buffers that are filled piece by piece (6.12).
    Incremental,
}

/// What happens to a peer that does not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlowReader {
    /// It is not read from until it has read.
    #[default]
    Pause,
    /// Messages to it are dropped while its outbox is above the high mark.
    Drop,
    /// Its session is closed with 1008 by the first send above the high mark.
    Close,
}

/// Which pages the pool of a shard asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// How many shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShardCount {
    /// One per CPU.
    #[default]
    Auto,
    /// This many.
    Exactly(u16),
}

impl From<u16> for ShardCount {
    fn from(count: u16) -> Self {
        Self::Exactly(count)
    }
}

/// Which CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CpuList {
    /// Those that this process may use: by its affinity mask, its cgroup's cpuset and its quota.
    #[default]
    Auto,
    /// These.
    Exactly(BTreeSet<usize>),
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        parse_list(text).map(Self::Exactly)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(cpus) => {
                let cpus: Vec<_> = cpus.iter().map(ToString::to_string).collect();
                f.write_str(&cpus.join(","))
            }
        }
    }
}

/// The largest CPU number that a list may name: more than any machine has.
const CPU_MAX: usize = 16_383;

/// Reads a list as the kernel writes it: `0-3,8`.
pub(crate) fn parse_list(text: &str) -> Result<BTreeSet<usize>, String> {
    let wrong = || {
        format!("`{text}` is no CPU list: write \"auto\", or numbers and ranges such as \"0-3,8\"")
    };
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |digits: &str| digits.trim().parse::<usize>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last > CPU_MAX {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

impl Serialize for CpuList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for ShardCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Exactly(count) => serializer.serialize_u16(*count),
        }
    }
}

impl<'de> Deserialize<'de> for ShardCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = ShardCount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number from 1 to 1024")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ShardCount, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                if text == "auto" { Ok(ShardCount::Auto) } else { Err(wrong()) }
            }

            fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<ShardCount, E> {
                match u16::try_from(count) {
                    Ok(count @ 1..=1024) => Ok(ShardCount::Exactly(count)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Signed(count), &self)),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
