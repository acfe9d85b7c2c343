//! Memory on Linux: mmap, madvise, mbind.

use std::ffi::c_ulong;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::{NonNull, null_mut};

/// More nodes than any kernel is built for.
const NODES_MAX: u32 = 1024;

/// Transparent huge pages are made of aligned ranges of this size (on x86-64, and on arm64 with
/// pages of 4 KiB).
const TRANSPARENT_BYTES: usize = 2 << 20;

/// A live mapping, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Maps ordinary pages, at a multiple of the huge page size if they shall become huge.
    pub(super) fn ordinary(bytes: usize, huge: bool) -> io::Result<Self> {
        if !huge {
            return Self::map(bytes, libc::MAP_NORESERVE);
        }
        let spare = TRANSPARENT_BYTES;
        let whole = Self::map(bytes.saturating_add(spare), libc::MAP_NORESERVE)?;
        let before = whole.start.as_ptr().align_offset(TRANSPARENT_BYTES);
        Ok(whole.cut(before, bytes))
    }

    /// Maps and reserves pages of the huge-page pool.
    pub(super) fn explicit(bytes: usize) -> Result<Self, String> {
        let page_bytes = huge_page_bytes().ok_or("/proc/meminfo names no Hugepagesize")?;
        let bytes = bytes.max(1).checked_next_multiple_of(page_bytes).unwrap_or(usize::MAX);
        Self::map(bytes, libc::MAP_HUGETLB).map_err(|error| {
            let pages = bytes / page_bytes;
            format!("{pages} of {page_bytes} bytes: {error}; raise vm.nr_hugepages")
        })
    }

    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes
    }

    /// Asks for transparent huge pages.
    pub(super) fn advise_huge(&self) -> Result<(), String> {
        const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
        // The advice is taken and then ignored. Where there is no /sys the kernel has the word.
        if fs::read_to_string(SETTING).is_ok_and(|setting| setting.contains("[never]")) {
            return Err(format!("{SETTING} says never; write madvise there"));
        }
        self.advise(libc::MADV_HUGEPAGE).map_err(|error| error.to_string())
    }

    /// Takes all pages now.
    pub(super) fn populate(&self) -> Result<(), String> {
        self.advise(libc::MADV_POPULATE_WRITE).map_err(|error| {
            format!("populating {} bytes: {error}; raise nr_hugepages of the node", self.bytes)
        })
    }

    /// Pages that are touched from now on come from `node`, and from others when it is full.
    pub(super) fn prefer(&self, node: u32) -> io::Result<()> {
        self.set_policy(libc::MPOL_PREFERRED, node)
    }

    /// Pages that are touched from now on come from `node` only.
    pub(super) fn bind(&self, node: u32) -> io::Result<()> {
        self.set_policy(libc::MPOL_BIND, node)
    }

    fn map(bytes: usize, flags: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address that the kernel chooses touches no memory
        // of ours.
        let start = unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast());
        let start = start.ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { start, bytes })
    }

    /// Keeps `bytes` from `before` on, whole pages, and gives back what is around them.
    fn cut(self, before: usize, bytes: usize) -> Self {
        let whole = ManuallyDrop::new(self);
        assert!(before + bytes <= whole.bytes, "the part is within the whole");
        // SAFETY: within the mapping, as was just checked.
        let start = unsafe { whole.start.add(before) };
        // SAFETY: within the mapping or at its end, as was just checked.
        let end = unsafe { start.add(bytes) };
        let around = [(whole.start, before), (end, whole.bytes - before - bytes)];
        for (start, bytes) in around.into_iter().filter(|(_, bytes)| *bytes > 0) {
            drop(Self { start, bytes });
        }
        Self { start, bytes }
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        let start = self.start.as_ptr().cast();
        // SAFETY: the range is a mapping of ours, and no advice used here changes its contents.
        let result = unsafe { libc::madvise(start, self.bytes, advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn set_policy(&self, mode: libc::c_int, node: u32) -> io::Result<()> {
        if node >= NODES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut mask = [0 as c_ulong; (NODES_MAX / c_ulong::BITS) as usize];
        mask[(node / c_ulong::BITS) as usize] = 1 << (node % c_ulong::BITS);
        // The kernel reads one bit less than it is told.
        let bits = c_ulong::from(NODES_MAX) + 1;
        let (start, bytes, mask) = (self.start.as_ptr(), self.bytes, mask.as_ptr());
        // SAFETY: the range is a mapping of ours; the mask outlives the call and has all the bits
        // that are read.
        let result =
            unsafe { libc::syscall(libc::SYS_mbind, start, bytes, mode, mask, bits, 0 as c_ulong) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this value owns exactly this mapping, and nothing that was lent of it is left.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(result, 0, "it is a mapping of our own");
    }
}

/// The size of the pages that `MAP_HUGETLB` takes when it is not told one; a length that is not a
/// multiple could not be unmapped.
fn huge_page_bytes() -> Option<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024).filter(|bytes| bytes.is_power_of_two())
}
