//! Mapping files of schemes into a client process.
//!
//! The client chooses the address, as Linux would, and keeps it taken while the kernel asks the
//! scheme; the kernel answers with a memory file. Unmapping goes the other way: the pages go at
//! once, the address only when the kernel has taken the mapping out of its table, so that no
//! other thread's new mapping can be taken for the old one.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use syscall::error::{EFAULT, EINVAL, EIO, ENOMEM, Error, Result};
use syscall::flag::MapFlags;

use super::{call, user};
use crate::proto::{Op, Request};

const PAGE: usize = gem::units::PAGE_SIZE as usize;

/// Maps `size` bytes of `fd` from `offset` on, at `address` if the flags say so, else anywhere.
pub(crate) fn mmap(
    fd: usize,
    address: usize,
    size: usize,
    flags: MapFlags,
    offset: u64,
) -> Result<usize> {
    if size == 0 || !address.is_multiple_of(PAGE) {
        return Err(Error::new(EINVAL));
    }
    let place = Place::take(address, size, flags)?;
    let args = [
        place.address as u64,
        size as u64,
        flags.bits() as u64,
        offset,
    ];
    let answer = call(Request::new(Op::Mmap, fd, &args), &[])?;
    answer.result()?;
    let memory = answer.attached.ok_or(Error::new(EIO))?;
    let address = place.address;
    let mapped = if answer.adopts {
        place.adopt(&memory, flags, answer.value)
    } else {
        place.fill(&memory, flags, answer.value)
    };
    match mapped {
        Ok(()) => Ok(address),
        Err(error) => {
            let args = [address as u64, size as u64];
            let _ = call(Request::new(Op::Munmap, 0, &args), &[]);
            Err(error)
        }
    }
}

/// Unmaps whatever of schemes or of this process lies in `size` bytes from `address` on.
pub(crate) fn munmap(address: usize, size: usize) -> Result<usize> {
    let bytes = size
        .checked_next_multiple_of(PAGE)
        .ok_or(Error::new(EINVAL))?;
    if bytes == 0 || !address.is_multiple_of(PAGE) {
        return Err(Error::new(EINVAL));
    }
    reserve(address, bytes, libc::MAP_FIXED)?;
    let args = [address as u64, size as u64];
    let answer = call(Request::new(Op::Munmap, 0, &args), &[]);
    release(address, bytes);
    match answer {
        Ok(answer) => answer.result(),
        // Without a kernel there is nobody to be told.
        Err(_) => Ok(0),
    }
}

/// A range of addresses for a mapping to come.
struct Place {
    /// 0 where there is no room.
    address: usize,
    bytes: usize,
    /// Whether it is this process's to give back.
    reserved: bool,
}

impl Place {
    /// A place for `size` bytes. Where there is none, the scheme is asked all the same, and its
    /// errno comes first; the kernel knows by the address 0.
    fn take(address: usize, size: usize, flags: MapFlags) -> Result<Self> {
        let nowhere = Self {
            address: 0,
            bytes: 0,
            reserved: false,
        };
        let Some(bytes) = size.checked_next_multiple_of(PAGE) else {
            return Ok(nowhere);
        };
        let exactly = flags.contains(MapFlags::MAP_FIXED_NOREPLACE);
        if flags.contains(MapFlags::MAP_FIXED) && !exactly {
            // What is there stays until the scheme has agreed.
            let reserved = false;
            return Ok(Self {
                address,
                bytes,
                reserved,
            });
        }
        let how = if exactly {
            libc::MAP_FIXED_NOREPLACE
        } else {
            0
        };
        match reserve(address, bytes, how) {
            Ok(address) => {
                let reserved = true;
                Ok(Self {
                    address,
                    bytes,
                    reserved,
                })
            }
            Err(error) if error.errno == ENOMEM => Ok(nowhere),
            Err(error) => Err(error),
        }
    }

    /// Brings this process's own pages here into `memory` and maps that; the place is used up.
    fn adopt(self, memory: &OwnedFd, flags: MapFlags, offset: u64) -> Result<()> {
        if self.reserved || self.address == 0 {
            // Its own pages are somewhere else.
            return Err(Error::new(EFAULT));
        }
        let protection = protection(flags);
        user::adopt(self.address, self.bytes, memory, offset, protection)
    }

    /// Maps `memory` here; the place is used up.
    fn fill(mut self, memory: &OwnedFd, flags: MapFlags, offset: u64) -> Result<()> {
        let protection = protection(flags);
        let shared = flags.contains(MapFlags::MAP_SHARED);
        let kind = if shared {
            libc::MAP_SHARED
        } else {
            libc::MAP_PRIVATE
        };
        let how = kind | libc::MAP_FIXED;
        map(
            self.address,
            self.bytes,
            protection,
            how,
            memory.as_raw_fd(),
            offset,
        )?;
        self.reserved = false;
        // SAFETY: the range was just mapped; the advice changes nothing for this process.
        unsafe {
            let range = ptr::with_exposed_provenance_mut(self.address);
            libc::madvise(range, self.bytes, libc::MADV_DONTFORK);
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.reserved {
            release(self.address, self.bytes);
        }
    }
}

/// The same in Linux's bits.
fn protection(flags: MapFlags) -> i32 {
    let mut protection = 0;
    for (redox, linux) in [
        (MapFlags::PROT_READ, libc::PROT_READ),
        (MapFlags::PROT_WRITE, libc::PROT_WRITE),
        (MapFlags::PROT_EXEC, libc::PROT_EXEC),
    ] {
        if flags.contains(redox) {
            protection |= linux;
        }
    }
    protection
}

/// Takes a range of addresses without memory.
fn reserve(address: usize, bytes: usize, how: i32) -> Result<usize> {
    let how = how | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    map(address, bytes, libc::PROT_NONE, how, -1, 0)
}

/// Gives a range of addresses back.
fn release(address: usize, bytes: usize) {
    // SAFETY: the range holds nothing but a reservation made here.
    unsafe { libc::munmap(ptr::with_exposed_provenance_mut(address), bytes) };
}

/// Anonymous memory, as `fmap` without a file gives it.
pub(crate) fn anonymous(address: usize, size: usize, protection: i32, flags: i32) -> Result<usize> {
    map(
        address,
        size,
        protection,
        flags | libc::MAP_ANONYMOUS,
        -1,
        0,
    )
}

pub(super) fn map(
    address: usize,
    bytes: usize,
    protection: i32,
    how: i32,
    fd: RawFd,
    offset: u64,
) -> Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| Error::new(EINVAL))?;
    // SAFETY: a new mapping harms nobody, unless `how` has MAP_FIXED: then the range is a
    // reservation of ours, or the caller of mmap or munmap answers for what is there.
    let mapped = unsafe {
        let hint = ptr::with_exposed_provenance_mut(address);
        libc::mmap(hint, bytes, protection, how, fd, offset)
    };
    if mapped == libc::MAP_FAILED {
        return Err(Error::new(Errno::last_raw()));
    }
    Ok(mapped.expose_provenance())
}
