//! The steps on a Redox kernel: an fd of the address space for the server, every page in a second
//! place while it is moved, the pages mapped again over the first.
//!
//! The kernel moves pages out of an address space when somebody takes them; a thread that used them
//! meanwhile would fault. So each page is mapped once more, in a staging range, and is taken from
//! there. Only private memory can be mapped twice like that, which tells at the same time that it
//! is nothing else. The calls that libredox does not have are made directly.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use libredox::call;
use syscall::data::Map;
use syscall::error::{EEXIST, EFAULT, EINVAL, ENODEV, EOPNOTSUPP, EPERM};
use syscall::flag::{CallFlags, MapFlags, MremapFlags};
use syscall::{SYS_MREMAP, syscall5};

use super::staging::{self, release, reserve};
use super::{ACTION, Range};
use crate::PAGE_SIZE;
use crate::error::{Error, Result};

unsafe extern "C" {
    /// The calling thread's own fd: relibc's, unstable as its name says.
    fn redox_cur_thrfd_v0() -> usize;
}

const READ_WRITE: MapFlags = MapFlags::PROT_READ.union(MapFlags::PROT_WRITE);

/// How many places are tried where something unknown is in the way.
const TRIES: usize = 64;

/// From where the pages are taken. Dropped before they are taken, it leaves nothing behind.
pub(super) struct Source {
    address: usize,
    staged: bool,
    /// How many bytes of it are aliases.
    aliased: usize,
}

impl Source {
    /// # Safety
    ///
    /// Nobody maps, unmaps or moves any part of the range meanwhile.
    pub(super) unsafe fn new(range: Range, exclusive: bool) -> Result<Self> {
        if exclusive {
            // SAFETY: by contract.
            unsafe { touch(range) };
            return Ok(Self {
                address: range.address,
                staged: false,
                aliased: 0,
            });
        }
        staging::anchor(map_anchor);
        let mut from = staging::AREA.start;
        for _ in 0..TRIES {
            let place = reserve(from, range.size).ok_or(Error::new(ACTION, EFAULT))?;
            let mut staged = Self {
                address: place,
                staged: true,
                aliased: 0,
            };
            // SAFETY: by contract, and the place is reserved.
            match unsafe { staged.alias(range) } {
                Ok(()) => return Ok(staged),
                Err(EEXIST) => from = place + range.size,
                // Not mapped; or of somebody else's, whoever that is.
                Err(EINVAL | EPERM) => return Err(Error::new(ACTION, EFAULT)),
                Err(errno) => return Err(Error::new(ACTION, errno)),
            }
        }
        Err(Error::new(ACTION, EFAULT))
    }

    pub(super) fn address(&self) -> usize {
        self.address
    }

    /// The server has the pages: nothing is mapped here any more.
    pub(super) fn leave(mut self) {
        if core::mem::take(&mut self.staged) {
            release(self.address);
        }
    }

    /// Maps every page of the range here, too.
    ///
    /// # Safety
    ///
    /// As [`Source::new`], and nobody else uses this place.
    unsafe fn alias(&mut self, range: Range) -> core::result::Result<(), i32> {
        let how = MremapFlags::KEEP_OLD | MremapFlags::FIXED;
        let flags = how.bits() | READ_WRITE.bits();
        for page in (0..range.size).step_by(PAGE_SIZE) {
            let (old, new) = (range.address + page, self.address + page);
            // SAFETY: the old mapping stays; the new one comes where nothing is, or not at all.
            unsafe { syscall5(SYS_MREMAP, old, PAGE_SIZE, new, PAGE_SIZE, flags) }
                .map_err(|error| error.errno)?;
            self.aliased += PAGE_SIZE;
        }
        Ok(())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.staged {
            if self.aliased > 0 {
                // SAFETY: these are aliases. What lies behind them can be anybody's: the kernel
                // takes the smallest gap that will do, also one between places of ours.
                let _ = unsafe { syscall::funmap(self.address, self.aliased) };
            }
            release(self.address);
        }
    }
}

/// Maps a page that nobody uses, at a place where nothing is, or not at all: it only saves time.
fn map_anchor(address: usize) {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE | MapFlags::PROT_READ;
    let map = Map {
        offset: 0,
        size: PAGE_SIZE,
        flags,
        address,
    };
    // SAFETY: it replaces nothing.
    let _ = unsafe { syscall::fmap(!0, &map) };
}

/// Writes to every page without changing it: pages that nobody has written to are none yet.
///
/// # Safety
///
/// The range is mapped and writeable; where it is not, the process faults as it would later.
unsafe fn touch(range: Range) {
    for page in (0..range.size).step_by(PAGE_SIZE) {
        let byte = core::ptr::with_exposed_provenance_mut(range.address + page);
        // SAFETY: by contract.
        let byte = unsafe { AtomicU8::from_ptr(byte) };
        // An addition of nothing the compiler would make a load.
        let value = byte.load(Relaxed);
        let _ = byte.compare_exchange(value, value, Relaxed, Relaxed);
    }
}

/// Sends this process's address space to a node, with a word that says what for; waits until that
/// is done.
pub(super) fn send_space(node: usize, word: u64) -> Result<()> {
    // SAFETY: it only tells a number.
    let thread = unsafe { redox_cur_thrfd_v0() };
    let space = call::dup(thread, "addrspace").map_err(Error::of(ACTION))?;
    let sent = call::call_wo(node, &space.to_ne_bytes(), CallFlags::FD, &[word]);
    sent.map(drop).map_err(|error| {
        // The kernel has taken it out of the table all the same; this tells the libc, which keeps
        // the number back until then.
        let _ = call::close(space);
        match error.errno() {
            EOPNOTSUPP => Error::new(ACTION, ENODEV),
            errno => Error::new(ACTION, errno),
        }
    })
}

/// Maps the pages that the server has taken over where they were.
///
/// # Safety
///
/// What is there is those very pages, or nothing.
pub(super) unsafe fn map_again(node: usize, offset: u64, range: Range) -> Result<()> {
    let map = |offset: u64, flags| Map {
        offset: offset as usize,
        size: range.size,
        flags: READ_WRITE | flags,
        address: range.address,
    };
    let again = map(offset, MapFlags::MAP_SHARED | MapFlags::MAP_FIXED);
    // SAFETY: by contract nothing changes but whose the pages are.
    let mapped = unsafe { syscall::fmap(node, &again) };
    mapped.map(drop).map_err(|error| {
        // Where that has failed and nothing is left, let there be something. It replaces nothing.
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
        // SAFETY: as the comment says.
        let _ = unsafe { syscall::fmap(!0, &map(0, flags)) };
        Error::new(ACTION, error.errno)
    })
}
