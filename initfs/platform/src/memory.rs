//! The kernel's memory scheme: mapping, finding out where pages lie, how much is left.

use core::sync::atomic::{Ordering, fence};

use gem::units::{PAGE_SIZE, PhysAddr};
use libredox::Fd;
use libredox::call::MmapArgs;
use libredox::error::Result;
use libredox::flag::{MAP_PRIVATE, O_CLOEXEC, O_RDONLY, PROT_READ, PROT_WRITE};
use syscall::CallFlags;

use crate::books::{Kind, Span};

/// Where pages lie, and how many there are.
const TRANSLATION: &str = "/scheme/memory/translation";

/// Pages that are left to the rest of the machine: where the kernel has none for a page that somebody
/// touches, it panics.
const RESERVE: u64 = 2048;
/// And one of so many pages besides: those in which the kernel keeps account of the others (16 bytes for
/// each) it counts as free (kernel: `free_frames` and `init_sections` in `src/memory/mod.rs`).
const PAGES_TO_PAGE_OF_ACCOUNTS: u64 = 256;

/// Fds on the memory scheme, opened when they are first needed. Root only.
#[derive(Default)]
pub struct Memory {
    kinds: [Option<Fd>; Kind::COUNT],
    translation: Option<Fd>,
}

/// The fd in `slot`, opened at `path` if it is not yet.
fn opened<'a>(slot: &'a mut Option<Fd>, path: &str) -> Result<&'a Fd> {
    let fd = match slot.take() {
        Some(fd) => fd,
        None => Fd::open(path, O_RDONLY | O_CLOEXEC, 0)?,
    };
    Ok(slot.insert(fd))
}

impl Memory {
    /// Maps `pages` fresh pages. They are backed by memory of their own only once written to.
    ///
    /// # Errors
    ///
    /// ENOMEM; ENOENT or EOPNOTSUPP where this kernel has no such memory; EACCES for others than
    /// root.
    pub fn map(&mut self, kind: Kind, pages: u64) -> Result<Span> {
        let fd = opened(&mut self.kinds[kind.index()], kind.path())?;
        let args = MmapArgs {
            addr: core::ptr::null_mut(),
            length: (pages * PAGE_SIZE) as usize,
            prot: PROT_READ | PROT_WRITE,
            flags: MAP_PRIVATE,
            fd: fd.raw(),
            offset: 0,
        };
        // SAFETY: without a fixed address the kernel maps where nothing is.
        let address = unsafe { libredox::call::mmap(args) }?;
        let first = address as u64 / PAGE_SIZE;
        Ok(Span { first, pages })
    }

    /// Where a page that has been written to lies.
    ///
    /// # Errors
    ///
    /// ENOENT where nothing is mapped.
    pub fn locate(&mut self, page: u64) -> Result<PhysAddr> {
        let fd = opened(&mut self.translation, TRANSLATION)?;
        let mut address = (page * PAGE_SIZE).to_ne_bytes();
        libredox::call::call_rw(fd.raw(), &mut address, CallFlags::empty(), &[])?;
        Ok(PhysAddr::new(u64::from_ne_bytes(address)))
    }

    /// An fd on the memory scheme.
    ///
    /// # Errors
    ///
    /// None but of a failing kernel.
    pub fn fd(&mut self) -> Result<usize> {
        opened(&mut self.translation, TRANSLATION).map(Fd::raw)
    }

    /// How many pages the machine has left that can be had.
    ///
    /// # Errors
    ///
    /// None but of a failing kernel.
    pub fn free_pages(&mut self) -> Result<u64> {
        let fd = opened(&mut self.translation, TRANSLATION)?;
        let stat = fd.statvfs()?;
        let kept = RESERVE + stat.f_blocks / PAGES_TO_PAGE_OF_ACCOUNTS;
        Ok(stat.f_bfree.saturating_sub(kept))
    }
}

/// How many pages of memory the machine has, free or not.
///
/// # Errors
///
/// EACCES for others than root; else none but of a failing kernel.
pub fn machine_pages() -> Result<u64> {
    Ok(Fd::open(TRANSLATION, O_RDONLY | O_CLOEXEC, 0)?
        .statvfs()?
        .f_blocks)
}

/// Overwrites pages with zeroes. Afterwards each has memory of its own.
///
/// # Safety
///
/// The pages are mapped, writeable, and nobody's.
pub unsafe fn clear(span: Span) {
    let start = span.address() as *mut u8;
    // SAFETY: by contract.
    unsafe { start.write_bytes(0, (span.pages * PAGE_SIZE) as usize) };
    // Write-combined stores are not ordered by themselves: nobody may see the pages without the
    // zeroes.
    fence(Ordering::SeqCst);
}

/// Gives pages back to the kernel.
///
/// # Safety
///
/// Nobody uses them any more.
pub unsafe fn unmap(span: Span) {
    // SAFETY: by contract. It fails only where nothing is mapped.
    let _ = unsafe {
        libredox::call::munmap(span.address() as *mut (), (span.pages * PAGE_SIZE) as usize)
    };
}
