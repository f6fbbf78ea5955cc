//! Memory from the kernel, and the heap: `talc` over chunks of it.

use syscall::PAGE_SIZE;
use syscall::data::Map;
use syscall::error::Result;
use syscall::flag::MapFlags;

/// Maps `size` bytes, rounded up to pages, of fresh zeroed memory; its address.
///
/// # Errors
///
/// What the kernel answers: ENOMEM, or EINVAL for no bytes.
pub fn map_anonymous(size: usize) -> Result<usize> {
    let map = Map {
        offset: 0,
        size: size.next_multiple_of(PAGE_SIZE),
        flags: MapFlags::PROT_READ | MapFlags::PROT_WRITE | MapFlags::MAP_PRIVATE,
        address: 0,
    };
    // SAFETY: without a fixed address the kernel maps where nothing is.
    unsafe { syscall::fmap(!0, &map) }
}

#[cfg(feature = "program")]
mod global {
    use core::alloc::{GlobalAlloc, Layout};

    use syscall::PAGE_SIZE;
    use talc::TalcLock;
    use talc::source::GlobalAllocSource;

    use crate::sync::RawFutex;

    #[global_allocator]
    static HEAP: TalcLock<RawFutex, GlobalAllocSource<Pages>> =
        TalcLock::new(GlobalAllocSource::new(Pages));

    /// Whole pages from the kernel.
    #[derive(Debug)]
    struct Pages;

    // SAFETY: each allocation is a fresh mapping, page-aligned and at least as long as asked for,
    // and nobody else unmaps it.
    unsafe impl GlobalAlloc for Pages {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if layout.align() > PAGE_SIZE {
                return core::ptr::null_mut();
            }
            let mapped = super::map_anonymous(layout.size());
            mapped.map_or(core::ptr::null_mut(), |address| address as *mut u8)
        }

        unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
            let size = layout.size().next_multiple_of(PAGE_SIZE);
            // SAFETY: the caller gives back what `alloc` mapped. A failure would leak the pages.
            let _ = unsafe { syscall::funmap(address as usize, size) };
        }
    }
}
