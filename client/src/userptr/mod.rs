//! Memory of this process as a buffer: devices find it, the process keeps it.
//!
//! [`Card::userptr_new`] and [`Card::with_userptr`] are for memory that nobody else uses meanwhile,
//! [`Card::userptr`] for any. While a [`Userptr`] lives, other threads and devices may write to
//! the memory, so it is accessed as a [`Mapping`] is. Whoever unmaps a part of the memory takes all of
//! it back, before the unmapping returns: the buffer then has no pages until it is registered
//! again, and an event tells so.
//!
//! What happens on the way is the same on every platform: the pages are taken over by the server
//! (`steps`), claimed, and mapped again where they were. Signals are blocked meanwhile. If it fails,
//! the memory is what it was.

#[cfg(any(not(feature = "std"), target_os = "redox"))]
mod redox;
#[cfg(any(not(feature = "std"), target_os = "redox"))]
use redox as steps;
#[cfg(all(feature = "std", not(target_os = "redox")))]
mod linux;
#[cfg(all(feature = "std", not(target_os = "redox")))]
use linux as steps;
mod signals;
#[cfg(any(test, not(feature = "std"), target_os = "redox"))]
#[cfg_attr(
    all(test, feature = "std", not(target_os = "redox")),
    allow(dead_code, reason = "only tested here")
)]
mod staging;

use alloc::sync::Arc;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use gem_wire::drm;
use gem_wire::native::Call;
use gem_wire::userptr::{Claimed, MAX_PAGES, Taking, UserptrFlags};
use syscall::error::{E2BIG, EFAULT, EINTR, EINVAL};

use crate::PAGE_SIZE;
use crate::buffer::Buffer;
use crate::card::{Card, OpenNode};
use crate::error::{Error, Result};
use crate::mapping::Mapping;

const ACTION: &str = "register memory";

/// How memory is registered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Register {
    read_only: bool,
    exclusive: bool,
}

impl Register {
    /// Devices may read and write, and other threads may use the memory all the while.
    pub fn new() -> Self {
        Self::default()
    }

    /// Devices may only read. This process still may write.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// No other thread uses the memory while it is registered. On Redox that spares the work of
    /// having every page in two places for a moment, and memory that is shared with other
    /// processes (MAP_SHARED without a file) can be registered in no other way. Should the server
    /// end in the middle, the contents are lost: then the memory reads as zero.
    ///
    /// # Safety
    ///
    /// As long as a call that registers with this has not returned, no other thread accesses the
    /// memory: it may not be there.
    pub unsafe fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }
}

/// A buffer whose pages are this process's own memory. Dropping it ends that: devices find the
/// pages no more, and they are what they were before.
pub struct Userptr {
    // Before the memory: devices let go of it first.
    buffer: Buffer,
    memory: Memory,
    how: Register,
}

/// Whose the memory is.
enum Memory {
    /// Goes with the buffer.
    Own(Mapping),
    /// Stays where it is.
    Lent(ManuallyDrop<Mapping>),
}

impl fmt::Debug for Userptr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Userptr")
            .field("buffer", &self.buffer)
            .field("memory", &self.memory().as_ptr())
            .finish()
    }
}

impl Card {
    /// New memory that reads as zero, `size` bytes (whole pages), registered.
    ///
    /// # Errors
    ///
    /// As [`Card::userptr`].
    pub fn userptr_new(&self, size: usize, how: Register) -> Result<Userptr> {
        let memory = Mapping::anonymous(size)?;
        let range = Range::new(memory.as_ptr().addr(), size)?;
        // SAFETY: nobody else knows this memory.
        let buffer = unsafe { range.register(&self.node, how)? };
        Ok(Userptr {
            buffer,
            memory: Memory::Own(memory),
            how,
        })
    }

    /// Registers memory (whole pages) for as long as `turn` takes. Its bytes are there as before,
    /// and afterwards they are what devices and `turn` have made of them.
    ///
    /// # Errors
    ///
    /// As [`Card::userptr`]; `turn` has not run then.
    pub fn with_userptr<T>(
        &self,
        memory: &mut [u8],
        how: Register,
        turn: impl FnOnce(&Userptr) -> T,
    ) -> Result<T> {
        // SAFETY: the borrow is exclusive; what is registered ends before it does, because the
        // buffer stays here, whatever `turn` does.
        let userptr = unsafe { self.userptr(NonNull::from(memory), how)? };
        Ok(turn(&userptr))
    }

    /// Registers memory of this process: whole pages, readable and writeable, private or shared
    /// memory that is of no file, device or scheme.
    ///
    /// Threads that read and write it all the while notice nothing and lose no write. A forked child
    /// does not have it on Linux; on Redox it shares it with its parent.
    ///
    /// # Errors
    ///
    /// EINVAL for what is not whole pages; EFAULT where a part is not mapped, or no such memory, or
    /// the stack of the calling thread; E2BIG; ENOMEM, EMFILE at the limits; ENODEV where this
    /// machine cannot, or not read-only; EPERM where it forbids it (on Linux); ENODEV, EACCES as for
    /// any buffer.
    ///
    /// # Safety
    ///
    /// The memory is the caller's to lend: until the buffer is dropped no reference to it promises
    /// that its bytes do not change. Until this returns nobody maps, unmaps or moves any part of it.
    /// As long as the buffer's [`Userptr::memory`] is used, it stays mapped.
    pub unsafe fn userptr(&self, memory: NonNull<[u8]>, how: Register) -> Result<Userptr> {
        let base = memory.cast::<u8>();
        let range = Range::new(base.addr().get(), memory.len())?;
        // SAFETY: by contract.
        let buffer = unsafe { range.register(&self.node, how)? };
        // SAFETY: by contract it stays mapped, and page-aligned it is (`Range::new`).
        let memory = unsafe { Mapping::from_parts(base, memory.len()) };
        Ok(Userptr {
            buffer,
            memory: Memory::Lent(ManuallyDrop::new(memory)),
            how,
        })
    }
}

impl Userptr {
    /// The buffer: it can be named, and bound by devices. Mapping and exporting it is refused.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The memory.
    pub fn memory(&self) -> &Mapping {
        match &self.memory {
            Memory::Own(memory) => memory,
            Memory::Lent(memory) => memory,
        }
    }

    /// Registers the memory once more, after its pages went back to this process: all of it has to
    /// be ordinary memory again, none of it what was registered before.
    ///
    /// # Errors
    ///
    /// As [`Card::userptr`]; EBUSY or EFAULT where there are pages, or some of the last ones are mapped
    /// yet.
    ///
    /// # Safety
    ///
    /// As [`Card::userptr`].
    pub unsafe fn register_again(&self) -> Result<()> {
        let memory = self.memory();
        let range = Range::new(memory.as_ptr().addr(), memory.len())?;
        // SAFETY: by contract.
        unsafe { range.register_again(&self.buffer, self.how) }
    }

    /// Ends the registration, and says whether that worked.
    ///
    /// # Errors
    ///
    /// ENODEV where the server is gone.
    pub fn release(self) -> Result<()> {
        self.buffer.close()
    }
}

/// The DRM call with the steps around it. What it would refuse it is asked without them, so that the
/// answer is its own.
///
/// # Safety
///
/// As [`Card::userptr`].
pub(crate) unsafe fn register_as_asked(card: &Card, asked: drm::Userptr) -> Result<drm::Userptr> {
    let number = drm::I915_GEM_USERPTR;
    let known = UserptrFlags::from_drm(asked.flags)
        .filter(|flags| !flags.contains(UserptrFlags::UNSYNCHRONIZED));
    let range = Range::new(asked.user_ptr as usize, asked.user_size as usize);
    let (Some(flags), Ok(range)) = (known, range) else {
        return crate::drm::call(card, ACTION, number, asked);
    };
    let read_only = flags.contains(UserptrFlags::READ_ONLY);
    let how = Register {
        read_only,
        exclusive: false,
    };
    let _blocked = signals::Blocked::new();
    let pages = (range.size / PAGE_SIZE) as u64;
    let new = |address| Taking::New {
        address,
        pages,
        read_only,
    };
    // SAFETY: by contract.
    let user_ptr = unsafe { range.hand_over(&card.node, how, new)? };
    let taken = drm::Userptr { user_ptr, ..asked };
    let handle = crate::drm::call(card, ACTION, number, taken)?.handle;
    let mapped = card.node.call(ACTION, Call::Map { handle });
    let mapped = mapped.and_then(|offset| {
        // SAFETY: by contract, and what is there is the same pages.
        unsafe { steps::map_again(card.node.fd(), offset, range) }
    });
    match mapped {
        Ok(()) => Ok(drm::Userptr { handle, ..asked }),
        Err(error) => {
            let _ = card.node.call(ACTION, Call::Close { handle });
            Err(error)
        }
    }
}

/// Whole pages of this process.
#[derive(Clone, Copy, Debug)]
struct Range {
    address: usize,
    size: usize,
}

impl Range {
    /// EINVAL, E2BIG, and EFAULT where the calling thread's stack is among it: it would wait for
    /// itself.
    fn new(address: usize, size: usize) -> Result<Self> {
        let pages = size / PAGE_SIZE;
        if pages == 0 || !size.is_multiple_of(PAGE_SIZE) || !address.is_multiple_of(PAGE_SIZE) {
            return Err(Error::new(ACTION, EINVAL));
        }
        if pages as u64 > MAX_PAGES {
            return Err(Error::new(ACTION, E2BIG));
        }
        let here = core::ptr::from_ref(&pages).addr();
        let end = address.checked_add(size);
        match end {
            Some(end) if !(address..end).contains(&here) => Ok(Self { address, size }),
            _ => Err(Error::new(ACTION, EFAULT)),
        }
    }

    /// # Safety
    ///
    /// As [`Card::userptr`].
    unsafe fn register(self, node: &Arc<OpenNode>, how: Register) -> Result<Buffer> {
        let _blocked = signals::Blocked::new();
        let pages = (self.size / PAGE_SIZE) as u64;
        let read_only = how.read_only;
        // SAFETY: by contract.
        let source = unsafe {
            self.hand_over(node, how, |address| Taking::New {
                address,
                pages,
                read_only,
            })?
        };
        let mut flags = UserptrFlags::PROBE;
        flags.set(UserptrFlags::READ_ONLY, read_only);
        let call = Call::Userptr {
            address: source,
            pages,
            flags,
        };
        let claimed = Claimed::unpack(node.call(ACTION, call)?);
        let buffer = Buffer::of_call(node, claimed.handle, pages as u32);
        // SAFETY: by contract, and what is there is the same pages.
        unsafe { steps::map_again(node.fd(), claimed.offset, self)? };
        Ok(buffer)
    }

    /// # Safety
    ///
    /// As [`Card::userptr`].
    unsafe fn register_again(self, buffer: &Buffer, how: Register) -> Result<()> {
        let _blocked = signals::Blocked::new();
        let (node, handle) = (buffer.node(), buffer.handle());
        // SAFETY: by contract.
        unsafe { self.hand_over(node, how, |address| Taking::Again { address, handle })? };
        let offset = buffer.map_offset()?;
        // SAFETY: by contract, and what is there is the same pages.
        unsafe { steps::map_again(node.fd(), offset, self) }
    }

    /// Has the server take the pages over; the address that it knows them by.
    ///
    /// # Safety
    ///
    /// As [`Card::userptr`].
    unsafe fn hand_over(
        self,
        node: &OpenNode,
        how: Register,
        taking: impl Fn(u64) -> Taking,
    ) -> Result<u64> {
        loop {
            // SAFETY: by contract.
            let source = unsafe { steps::Source::new(self, how.exclusive)? };
            let address = source.address() as u64;
            let word = taking(address).encode();
            let word = word.ok_or(Error::new(ACTION, EFAULT))?;
            match steps::send_space(node.fd(), word) {
                Ok(()) => {
                    source.leave();
                    return Ok(address);
                }
                // Everything is where it was.
                Err(error) if error.errno() == EINTR => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_whole_pages_and_not_the_stack() {
        let errno = |address, size| Range::new(address, size).map_err(|error| error.errno());
        assert!(errno(0x10000, PAGE_SIZE).is_ok());
        for (address, size) in [(0x10000, 0), (0x10001, PAGE_SIZE), (0x10000, PAGE_SIZE + 1)] {
            assert_eq!(errno(address, size).err(), Some(EINVAL));
        }
        assert_eq!(errno(0, usize::MAX & !0xfff).err(), Some(E2BIG));
        let top = usize::MAX & !0xfff;
        assert_eq!(errno(top, 2 * PAGE_SIZE).err(), Some(EFAULT));
        let local = 0u8;
        let here = core::ptr::from_ref(&local).addr() & !(PAGE_SIZE - 1);
        let below = here - 16 * PAGE_SIZE;
        assert_eq!(errno(below, 17 * PAGE_SIZE).err(), Some(EFAULT));
    }
}
