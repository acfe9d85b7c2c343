//! Memory from the system: reserved at once, paid for page by page as it is touched.
//!
//! Comes in: a size, a wish for huge pages, a NUMA node. Goes out: a zeroed region and a report of
//! what the system really gave. It never fails for want of huge pages or of a node: it says so
//! and goes on.

use std::fmt;
use std::io;
use std::ptr::NonNull;

#[cfg(all(target_os = "linux", not(miri)))]
#[path = "linux.rs"]
mod system;
#[cfg(not(all(target_os = "linux", not(miri))))]
#[path = "portable.rs"]
mod system;
#[cfg(test)]
mod tests;

use system::Mapping;

/// Which pages a region asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Ordinary pages.
    #[default]
    Off,
    /// Ordinary pages that the kernel may join to huge ones (`MADV_HUGEPAGE`).
    Transparent,
    /// Pages from the huge-page pool (`MAP_HUGETLB`), populated at once; falls back to
    /// [`Transparent`](Self::Transparent) with the reason in the report.
    Explicit,
}

/// A region that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {bytes} bytes: {source}; {advice}")]
pub struct RegionError {
    /// What was tried.
    pub what: &'static str,
    /// The size of the region.
    pub bytes: usize,
    /// The system's answer.
    pub source: io::Error,
    /// What to do about it.
    pub advice: &'static str,
}

/// What was asked for and what was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionReport {
    /// The size in bytes, rounded up to whole pages.
    pub bytes: usize,
    /// The pages that were given.
    pub pages: HugePages,
    /// The NUMA node to which the region is bound. Ordinary pages come from another one when it
    /// is full, so that a full node does not end the process; explicit huge pages never do.
    pub node: Option<u32>,
    /// Why something that was asked for was not given.
    pub fallback: Option<String>,
}

impl fmt::Display for RegionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = match self.pages {
            HugePages::Off => "ordinary pages",
            HugePages::Transparent => "transparent huge pages",
            HugePages::Explicit => "huge pages",
        };
        f.write_str(pages)?;
        if let Some(node) = self.node {
            write!(f, " of node {node}")?;
        }
        if let Some(fallback) = &self.fallback {
            write!(f, " ({fallback})")?;
        }
        Ok(())
    }
}

/// Zeroed memory, page-aligned, given back when dropped.
///
/// # Examples
/// ```
/// use hioload_pools::{HugePages, Region};
///
/// let region = Region::new(1 << 20, HugePages::Off, None)?;
/// assert_eq!(region.len(), 1 << 20);
/// assert_eq!(region.report().fallback, None);
/// # Ok::<(), hioload_pools::RegionError>(())
/// ```
#[derive(Debug)]
pub struct Region {
    mapping: Mapping,
    report: RegionReport,
}

/// A multiple of every ordinary page size that is in use on servers (4, 16 and 64 KiB).
const PAGE_BYTES: usize = 64 << 10;

impl Region {
    /// Reserves `bytes` (rounded up to whole pages), on a NUMA node if one is named.
    ///
    /// # Errors
    /// The address space cannot be had.
    pub fn new(bytes: usize, pages: HugePages, node: Option<u32>) -> Result<Self, RegionError> {
        let mut reasons = Vec::new();
        if pages == HugePages::Explicit {
            match Self::explicit(bytes, node, &mut reasons) {
                Ok(region) => return Ok(region),
                Err(reason) => reasons = vec![format!("no huge pages: {reason}")],
            }
        }
        Self::ordinary(bytes, pages, node, reasons)
    }

    /// The first byte.
    #[must_use]
    pub const fn start(&self) -> NonNull<u8> {
        self.mapping.start()
    }

    /// The size in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Whether it has no bytes: never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.mapping.len() == 0
    }

    /// What was asked for and what was given.
    #[must_use]
    pub const fn report(&self) -> &RegionReport {
        &self.report
    }

    fn ordinary(
        bytes: usize,
        pages: HugePages,
        node: Option<u32>,
        mut reasons: Vec<String>,
    ) -> Result<Self, RegionError> {
        let huge = pages != HugePages::Off;
        let bytes = bytes.max(1).checked_next_multiple_of(PAGE_BYTES).unwrap_or(usize::MAX);
        let mapping = Mapping::ordinary(bytes, huge).map_err(|source| RegionError {
            what: "map",
            bytes,
            source,
            advice: "lower memory.pool_bytes, or raise the limit of address space (ulimit -v)",
        })?;
        let given = match huge.then(|| mapping.advise_huge()) {
            None => HugePages::Off,
            Some(Ok(())) => HugePages::Transparent,
            Some(Err(reason)) => {
                reasons.push(format!("no transparent huge pages: {reason}"));
                HugePages::Off
            }
        };
        let bound = node.and_then(|node| bound(node, mapping.prefer(node), &mut reasons));
        Ok(Self::reported(mapping, given, bound, &reasons))
    }

    /// A huge page that its node does not have kills the process when it is touched: so all of
    /// them are taken now, after the binding, by a call that answers with an error instead.
    fn explicit(
        bytes: usize,
        node: Option<u32>,
        reasons: &mut Vec<String>,
    ) -> Result<Self, String> {
        let mapping = Mapping::explicit(bytes)?;
        let bound = node.and_then(|node| bound(node, mapping.bind(node), reasons));
        mapping.populate()?;
        Ok(Self::reported(mapping, HugePages::Explicit, bound, reasons))
    }

    fn reported(mapping: Mapping, pages: HugePages, node: Option<u32>, reasons: &[String]) -> Self {
        let fallback = (!reasons.is_empty()).then(|| reasons.join("; "));
        let report = RegionReport { bytes: mapping.len(), pages, node, fallback };
        Self { mapping, report }
    }
}

/// The node, if the binding worked. A container that forbids it (Docker's default profile does)
/// is no reason to fail: the first touch by a pinned thread takes pages of its node, too.
fn bound(node: u32, result: io::Result<()>, reasons: &mut Vec<String>) -> Option<u32> {
    match result {
        Ok(()) => Some(node),
        Err(error) => {
            reasons.push(format!("not bound to node {node}: {error}"));
            None
        }
    }
}
