//! On which CPUs a thread may run: threads inherit it from the one that starts them.

use std::sync::OnceLock;

/// The mask of a thread of this process before the first one was pinned; `None` if it could not be
/// read.
static UNPINNED: OnceLock<Option<libc::cpu_set_t>> = OnceLock::new();

/// Notes where threads may run by now, unless one was pinned before: to be called by a thread that
/// is to be pinned.
pub(crate) fn remember() {
    UNPINNED.get_or_init(|| {
        // SAFETY: the type is an array of bits, and all zeros is the empty set.
        let mut mask: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes at most the size of the mask into it.
        let read = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), &raw mut mask) };
        (read == 0).then_some(mask)
    });
}

/// Lets the calling thread run wherever threads could before the first one was pinned. Where that
/// fails it works as well, on fewer CPUs.
pub(crate) fn unpin() {
    if let Some(Some(mask)) = UNPINNED.get() {
        // SAFETY: the kernel reads the size of the mask from it.
        let _ = unsafe { libc::sched_setaffinity(0, size_of_val(mask), mask) };
    }
}
