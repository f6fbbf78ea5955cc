//! A GPU's address space, as the memory manager needs it: the border to a driver.
//!
//! The driver owns its page tables and knows how to write them; which object lies where, and for
//! how long, is decided here (`bindings`). Nothing of it blocks or calls back.

use crate::pages::{Extent, NotReady};
use crate::units::{GpuAddr, PageCount};

/// Which of a driver's address spaces. What the numbers mean is the driver's to say.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SpaceId(pub u32);

/// Where something begins in some address space.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// In which.
    pub space: SpaceId,
    /// Where.
    pub at: GpuAddr,
}

/// What a GPU may do with pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Look at them.
    ReadOnly,
    /// Change them, too.
    ReadWrite,
}

/// What a driver's devices can do with pages that are a client's own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UserPages {
    /// As many as the largest address space holds.
    pub most: PageCount,
    /// A GPU can be kept from writing to them.
    pub read_only: bool,
    /// A GPU sees what the CPU writes, and the other way round, without being told (LLC, or
    /// snooping). Without that there are none: the client writes to them whenever it likes.
    pub coherent: bool,
}

impl UserPages {
    /// Where there is no device, nothing stands in the way.
    pub const WITHOUT_DEVICE: Self = Self {
        most: PageCount::MAX,
        read_only: true,
        coherent: true,
    };
}

/// One address space of a GPU.
pub trait AddressSpace {
    /// How many pages it has, from address 0 on.
    fn size(&self) -> PageCount;

    /// Whether the GPU can be kept from writing.
    fn can_read_only(&self) -> bool;

    /// From the next flush on these pages are found from `at` on, one after the other. The caller
    /// has checked that the range lies inside and that nothing is there. On failure nothing is.
    fn insert(&mut self, at: GpuAddr, extents: &[Extent], access: Access) -> Result<(), NotReady>;

    /// From the next flush on the GPU finds the scratch page in this range. Cannot fail.
    fn clear(&mut self, at: GpuAddr, pages: PageCount);

    /// When this returns, the GPU no longer uses what it found before the changes that were made
    /// since the last flush. Once for many changes.
    fn flush(&mut self);
}
