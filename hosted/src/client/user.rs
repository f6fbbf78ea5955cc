//! A client's own pages for a scheme (userptr): a file that stands for the address space, and the
//! move of the pages into the memory file that the scheme's mapping is of.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::errno::Errno;
use syscall::error::{EFAULT, EINVAL, ENOENT, EPERM, Error, Result};

use super::mmap::map;
use super::{call, call_with};
use crate::proto::{Op, Request};
use crate::user::uffd;

const PAGE: usize = gem::units::PAGE_SIZE as usize;

/// A file that stands for this process's address space: what on Redox is `dup(thread,
/// "addrspace")`. Sent to a scheme, it lets the scheme take a range of this process over, once.
///
/// # Errors
///
/// EPERM where this machine forbids userfaultfd (a container's seccomp profile, or
/// `vm.unprivileged_userfaultfd`), EINVAL where it is older than Linux 6.4, EACCES where the daemon
/// is another user's, ENFILE where too many are watched already, EBADF without a connection.
pub fn address_space() -> Result<usize> {
    match call(Request::new(Op::Space, 0, &[]), &[])?.result() {
        Err(error) if error.errno == ENOENT => {}
        opened => return opened,
    }
    let file = uffd::create().map_err(|errno| match errno {
        Errno::EPERM => Error::new(EPERM),
        Errno::ENOSYS => Error::new(EINVAL),
        other => Error::new(other as i32),
    })?;
    let offer = Request::new(Op::OfferSpace, 0, &[]);
    call_with(offer, &[], Some(file.as_fd()))?.result()
}

/// Copies `bytes` of this process's own from `address` on into `memory`, from `offset` on, and maps
/// that in their place, in one step. Whoever writes to them meanwhile waits, and then writes to the
/// copy.
pub(super) fn adopt(
    address: usize,
    bytes: usize,
    memory: &OwnedFd,
    offset: u64,
    protection: i32,
) -> Result<()> {
    let here = ptr::from_ref(&offset).addr();
    if (address..address + bytes).contains(&here) {
        // This thread would wait for itself: its stack is among the pages.
        return Err(Error::new(EFAULT));
    }
    let aside = Aside::map(bytes, memory, offset)?;
    // SAFETY: the caller of mmap says that its memory is at `address`; `aside` is as long, and both
    // are whole pages.
    unsafe { copy(address, aside.address, bytes) };
    // SAFETY: what is mapped aside is known here only.
    let done = unsafe {
        let start = ptr::with_exposed_provenance_mut(aside.address);
        libc::madvise(start, bytes, libc::MADV_DONTFORK) == 0
            && libc::mprotect(start, bytes, protection) == 0
    };
    if !done {
        return Err(Error::new(EINVAL));
    }
    aside.move_to(address)
}

/// Copies whole pages, but for those that are zero: the target is, and need not have memory there.
///
/// # Safety
///
/// Both addresses are page-aligned, `from` is readable and `to` writable for `bytes`, which is a
/// number of whole pages.
unsafe fn copy(from: usize, to: usize, bytes: usize) {
    for page in (0..bytes).step_by(PAGE) {
        let words = (page..page + PAGE).step_by(size_of::<u64>());
        let is_zero = words.clone().all(|at| {
            // SAFETY: by contract.
            unsafe { word(from + at) }.load(Relaxed) == 0
        });
        if is_zero {
            continue;
        }
        for at in words {
            // SAFETY: by contract.
            let value = unsafe { word(from + at) }.load(Relaxed);
            // SAFETY: by contract.
            unsafe { word(to + at) }.store(value, Relaxed);
        }
    }
}

/// A word of memory that other threads may be using.
///
/// # Safety
///
/// The address is aligned and mapped, and stays so while the reference is used.
unsafe fn word<'a>(address: usize) -> &'a AtomicU64 {
    // SAFETY: by contract.
    unsafe { AtomicU64::from_ptr(ptr::with_exposed_provenance_mut(address)) }
}

/// A mapping of the memory file, somewhere.
struct Aside {
    address: usize,
    bytes: usize,
}

impl Aside {
    fn map(bytes: usize, memory: &OwnedFd, offset: u64) -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = memory.as_raw_fd();
        let address = map(0, bytes, protection, libc::MAP_SHARED, fd, offset)?;
        Ok(Self { address, bytes })
    }

    /// Puts it where `address` is, over whatever is there.
    fn move_to(self, address: usize) -> Result<()> {
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the source is this mapping, and nobody uses it; the caller of mmap answers for
        // what is at the target: its copy.
        let moved = unsafe {
            let from = ptr::with_exposed_provenance_mut(self.address);
            let to: *mut libc::c_void = ptr::with_exposed_provenance_mut(address);
            libc::mremap(from, self.bytes, self.bytes, how, to)
        };
        if moved == libc::MAP_FAILED {
            return Err(Error::new(Errno::last_raw()));
        }
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // SAFETY: mapped here, and nobody uses it.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(self.address), self.bytes) };
    }
}
