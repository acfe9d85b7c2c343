//! Memory from the system: reserved at once, paid for page by page as it is touched.
//!
//! Comes in: a size, a wish for huge pages, a NUMA node. Goes out: a zeroed region and a report of
//! what the system really gave. It never fails for want of huge pages: it says so and goes on.

use std::fmt;
use std::io;
use std::ptr::NonNull;

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
    /// The NUMA node to which the region is bound.
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
    start: NonNull<u8>,
    report: RegionReport,
}

/// Size of an explicit huge page on the machines we know: what `MAP_HUGETLB` rounds to.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// A multiple of every ordinary page size that is in use on servers (4, 16 and 64 KiB).
const PAGE_BYTES: usize = 64 << 10;

impl Region {
    /// Reserves `bytes` (rounded up to whole pages), on a NUMA node if one is named.
    ///
    /// # Errors
    /// The address space cannot be had.
    pub fn new(bytes: usize, pages: HugePages, node: Option<u32>) -> Result<Self, RegionError> {
        if pages == HugePages::Explicit {
            match Self::explicit(bytes, node) {
                Ok(region) => return Ok(region),
                Err(error) => {
                    let reason = format!("no huge pages: {error}");
                    let mut region = Self::ordinary(bytes, HugePages::Transparent, node)?;
                    let later = region.report.fallback.take();
                    let reasons = [Some(reason), later].into_iter().flatten();
                    region.report.fallback = Some(reasons.collect::<Vec<_>>().join("; "));
                    return Ok(region);
                }
            }
        }
        Self::ordinary(bytes, pages, node)
    }

    /// The first byte.
    #[must_use]
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The size in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.report.bytes
    }

    /// Whether it has no bytes: never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.report.bytes == 0
    }

    /// What was asked for and what was given.
    #[must_use]
    pub const fn report(&self) -> &RegionReport {
        &self.report
    }

    fn ordinary(bytes: usize, pages: HugePages, node: Option<u32>) -> Result<Self, RegionError> {
        let bytes = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let start = system::map(bytes, false).map_err(|source| RegionError {
            what: "map",
            bytes,
            source,
            advice: "lower memory.pool_bytes, or raise the limit of address space (ulimit -v)",
        })?;
        let report = RegionReport { bytes, pages, node: None, fallback: None };
        let mut region = Self { start, report };
        let mut reasons = Vec::new();
        if pages == HugePages::Transparent
            && let Err(error) = system::advise_huge(start, bytes)
        {
            region.report.pages = HugePages::Off;
            reasons.push(format!("no transparent huge pages: {error}"));
        }
        if let Some(node) = node {
            match system::bind(start, bytes, node) {
                Ok(()) => region.report.node = Some(node),
                Err(error) => reasons.push(format!("not bound to node {node}: {error}")),
            }
        }
        region.report.fallback = (!reasons.is_empty()).then(|| reasons.join("; "));
        Ok(region)
    }

    /// A huge page that its node does not have kills the process when it is touched: so all of
    /// them are taken now, after the binding, by a call that answers with an error instead.
    fn explicit(bytes: usize, node: Option<u32>) -> io::Result<Self> {
        let bytes = bytes.max(1).next_multiple_of(HUGE_PAGE_BYTES);
        let start = system::map(bytes, true)?;
        let report = RegionReport { bytes, pages: HugePages::Explicit, node, fallback: None };
        let region = Self { start, report };
        if let Some(node) = node {
            system::bind(start, bytes, node)?;
        }
        system::populate(start, bytes)?;
        Ok(region)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        system::unmap(self.start, self.report.bytes);
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::ptr::{NonNull, null_mut};

    pub(super) fn map(bytes: usize, huge: bool) -> io::Result<NonNull<u8>> {
        let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        flags |= if huge { libc::MAP_HUGETLB } else { libc::MAP_NORESERVE };
        // SAFETY: a new anonymous mapping at an address that the kernel chooses touches no memory
        // of ours.
        let start = unsafe {
            libc::mmap(null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))
    }

    pub(super) fn unmap(start: NonNull<u8>, bytes: usize) {
        // SAFETY: `Region` owns exactly this mapping, and is being dropped: nobody holds a
        // reference into it.
        let result = unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
        debug_assert_eq!(result, 0, "a region is a mapping of our own");
    }

    pub(super) fn advise_huge(start: NonNull<u8>, bytes: usize) -> io::Result<()> {
        advise(start, bytes, libc::MADV_HUGEPAGE)
    }

    pub(super) fn populate(start: NonNull<u8>, bytes: usize) -> io::Result<()> {
        advise(start, bytes, libc::MADV_POPULATE_WRITE)
    }

    fn advise(start: NonNull<u8>, bytes: usize, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is a mapping of ours, and neither advice changes its contents.
        let result = unsafe { libc::madvise(start.as_ptr().cast(), bytes, advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// `MPOL_BIND` without `MPOL_MF_STRICT`: pages that are touched from now on come from `node`.
    pub(super) fn bind(start: NonNull<u8>, bytes: usize, node: u32) -> io::Result<()> {
        const NODES_MAX: u32 = 1024;
        if node >= NODES_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let mut mask = [0u64; NODES_MAX as usize / 64];
        mask[node as usize / 64] |= 1 << (node % 64);
        // SAFETY: `mask` outlives the call and has the number of bits that is passed; the kernel
        // reads one less than `maxnode`, hence the 1.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                start.as_ptr(),
                bytes,
                libc::MPOL_BIND,
                mask.as_ptr(),
                u64::from(NODES_MAX) + 1,
                0,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::io;
    use std::ptr::NonNull;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, super::PAGE_BYTES).expect("a multiple of the page size")
    }

    pub(super) fn map(bytes: usize, huge: bool) -> io::Result<NonNull<u8>> {
        if huge {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout(bytes)) };
        NonNull::new(start).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn unmap(start: NonNull<u8>, bytes: usize) {
        // SAFETY: allocated by `map` with this very layout.
        unsafe { dealloc(start.as_ptr(), layout(bytes)) };
    }

    pub(super) fn advise_huge(_: NonNull<u8>, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn populate(_: NonNull<u8>, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn bind(_: NonNull<u8>, _: usize, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
