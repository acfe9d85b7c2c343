//! Memory where there is no mmap, through the allocator: no huge pages, no nodes.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;

use super::PAGE_BYTES;

/// A live allocation, freed when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    layout: Layout,
}

impl Mapping {
    pub(super) fn ordinary(bytes: usize, _huge: bool) -> io::Result<Self> {
        let layout = Layout::from_size_align(bytes, PAGE_BYTES);
        let layout = layout.map_err(|_| io::ErrorKind::OutOfMemory)?;
        assert!(layout.size() > 0, "whole pages, at least one");
        // SAFETY: the size is not zero, as was just checked.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, layout })
    }

    pub(super) fn explicit(_bytes: usize) -> Result<Self, String> {
        Err("not supported on this system".to_owned())
    }

    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) const fn len(&self) -> usize {
        self.layout.size()
    }

    pub(super) fn advise_huge(&self) -> Result<(), String> {
        Err("not supported on this system".to_owned())
    }

    pub(super) fn populate(&self) -> Result<(), String> {
        Err("not supported on this system".to_owned())
    }

    pub(super) fn prefer(&self, _node: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn bind(&self, _node: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout, and nothing that was lent of it is left.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
