//! Lists of CPUs in the notation of the kernel: `0-3,8`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::ConfigError;

/// CPU numbers beyond this one are taken for mistakes: Linux has at most 8,192 CPUs.
const CPU_MAX: usize = 8191;

/// Which CPUs. As text: `auto`, or numbers and ranges.
///
/// # Examples
/// ```
/// use hioload::config::CpuList;
///
/// let cpus: CpuList = "8,0-2,3".parse()?;
/// assert_eq!(cpus, CpuList::Exactly([0, 1, 2, 3, 8].into()));
/// assert_eq!(cpus.to_string(), "0-3,8");
/// # Ok::<(), hioload::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CpuList {
    /// Those that this process may use: by its affinity mask, its cgroup's cpuset and its quota.
    #[default]
    Auto,
    /// These.
    Exactly(BTreeSet<usize>),
}

impl FromStr for CpuList {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let cpus = parse_list(text).filter(|cpus| !cpus.is_empty());
        cpus.map(Self::Exactly).ok_or_else(|| {
            ConfigError::Text(format!(
                "{text:?} is not a list of CPUs: write \"auto\", or numbers and ranges as in \
                 \"0-3,8\""
            ))
        })
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(cpus) => f.write_str(&format_list(cpus)),
        }
    }
}

/// Reads a list as the kernel writes it; an empty line is the empty set.
pub(crate) fn parse_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    if text.trim().is_empty() {
        return Some(cpus);
    }
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number =
            |digits: &str| digits.trim().parse::<usize>().ok().filter(|cpu| *cpu <= CPU_MAX);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Writes a list as the kernel does.
pub(crate) fn format_list(cpus: &BTreeSet<usize>) -> String {
    let mut ranges = Vec::new();
    let mut rest = cpus.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while rest.next_if_eq(&(last + 1)).is_some() {
            last += 1;
        }
        ranges.push(match last {
            _ if last == first => first.to_string(),
            _ => format!("{first}-{last}"),
        });
    }
    ranges.join(",")
}
