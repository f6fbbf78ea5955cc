//! Units and identities: the newtypes that keep a page count from being taken for a size, and a
//! physical address from being taken for anything else.
//!
//! None of them has arithmetic operators: every sum that a client's number takes part in goes
//! through a `checked_` method.

use core::fmt;
use core::num::NonZeroU32;

/// Bytes in a page, on every machine that Redox runs on.
pub const PAGE_SIZE: u64 = 4096;

/// A number of whole pages.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PageCount(u64);

impl PageCount {
    /// No pages.
    pub const ZERO: Self = Self(0);
    /// The most pages whose size in bytes still fits a `u64`.
    pub const MAX: Self = Self(u64::MAX / PAGE_SIZE);

    /// `pages` pages, or `None` beyond [`PageCount::MAX`].
    pub const fn new(pages: u64) -> Option<Self> {
        if pages <= Self::MAX.0 {
            Some(Self(pages))
        } else {
            None
        }
    }

    /// The fewest pages that hold `bytes` bytes, or `None` beyond [`PageCount::MAX`].
    pub const fn covering(bytes: u64) -> Option<Self> {
        Self::new(bytes.div_ceil(PAGE_SIZE))
    }

    /// `bytes` as whole pages, or `None` where `bytes` is not a multiple of [`PAGE_SIZE`].
    pub const fn exact(bytes: u64) -> Option<Self> {
        if bytes.is_multiple_of(PAGE_SIZE) {
            Some(Self(bytes / PAGE_SIZE))
        } else {
            None
        }
    }

    /// The number of pages.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The size in bytes; fits by construction.
    pub const fn bytes(self) -> u64 {
        self.0 * PAGE_SIZE
    }

    /// Whether there are none.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` beyond [`PageCount::MAX`].
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(pages) => Self::new(pages),
            None => None,
        }
    }

    /// The difference, or `None` below zero.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(pages) => Some(Self(pages)),
            None => None,
        }
    }

    /// The difference, not below zero.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl From<u32> for PageCount {
    fn from(pages: u32) -> Self {
        Self(pages.into())
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A physical address in bytes. For the books and for devices; never shown to a client that is
/// not root.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// The address of byte `address`.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address `pages` pages further on, or `None` where the address space ends.
    pub const fn checked_add(self, pages: PageCount) -> Option<Self> {
        match self.0.checked_add(pages.bytes()) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }
}

/// An address in the daemon's own address space, page-aligned. It goes into answers to the
/// kernel and is never dereferenced by this crate.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WindowAddr(usize);

impl WindowAddr {
    /// `address`, or `None` where it is not page-aligned.
    pub const fn new(address: usize) -> Option<Self> {
        if (address as u64).is_multiple_of(PAGE_SIZE) {
            Some(Self(address))
        } else {
            None
        }
    }

    /// The address as a number.
    pub const fn get(self) -> usize {
        self.0
    }

    /// The address `pages` pages further on, or `None` where the address space ends.
    pub fn checked_add(self, pages: PageCount) -> Option<Self> {
        let bytes = usize::try_from(pages.bytes()).ok()?;
        self.0.checked_add(bytes).map(Self)
    }
}

/// A user id as the kernel knows it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uid(pub u32);

impl Uid {
    /// The superuser.
    pub const ROOT: Self = Self(0);
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A group id as the kernel knows it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Gid(pub u32);

/// A process id as the kernel knows it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Pid(pub u64);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who stands behind an open: what the kernel says of its process, never what a client says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Effective user id.
    pub uid: Uid,
    /// Effective group id.
    pub gid: Gid,
    /// Process id.
    pub pid: Pid,
}

/// A handle: one open's number for one object, from 1 up. Zero is never valid.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Handle(NonZeroU32);

impl Handle {
    /// The lowest one, which a fresh open gives out first.
    pub const MIN: Self = Self(NonZeroU32::MIN);

    /// The handle with number `raw`, or `None` for zero.
    pub const fn new(raw: u32) -> Option<Self> {
        match NonZeroU32::new(raw) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The number, 1 or more.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A global ("flink") name: a device-wide number for an object, 1 to 2^31 - 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(NonZeroU32);

impl Name {
    /// The largest name: names are 31-bit, so that they survive a signed integer.
    pub const MAX: u32 = i32::MAX as u32;

    /// The name with number `raw`, or `None` for zero and beyond [`Name::MAX`].
    pub const fn new(raw: u32) -> Option<Self> {
        match NonZeroU32::new(raw) {
            Some(valid) if raw <= Self::MAX => Some(Self(valid)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A fake mmap offset in bytes: where a client maps an object through its node fd. Page-aligned
/// and never below 4 GiB, so that it cannot be taken for a byte offset into an object.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FakeOffset(u64);

impl FakeOffset {
    /// The lowest fake offset: 4 GiB.
    pub const BASE: u64 = 1 << 32;
    /// The lowest fake offset of an object of a client's own pages.
    pub const USER_BASE: u64 = 0x6000_0000_0000_0000;
    /// How many pages of offsets such objects have together: a number of 38 bits, so that it fits
    /// one positive word with a handle of 24.
    pub const USER_PAGES: u64 = 1 << 38;

    /// The fake offset at `bytes`, or `None` where no fake offset can be.
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes >= Self::BASE && bytes.is_multiple_of(PAGE_SIZE) {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The offset in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether it is one of an object of a client's own pages.
    pub const fn is_user(self) -> bool {
        self.0 >= Self::USER_BASE
    }
}

/// An address in a GPU's address space, in bytes, page-aligned.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GpuAddr(u64);

impl GpuAddr {
    /// The address of byte `address`, or `None` where no page begins.
    pub const fn new(address: u64) -> Option<Self> {
        if address.is_multiple_of(PAGE_SIZE) {
            Some(Self(address))
        } else {
            None
        }
    }

    /// The address as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address `pages` pages further on, or `None` where the numbers end.
    pub const fn checked_add(self, pages: PageCount) -> Option<Self> {
        match self.0.checked_add(pages.bytes()) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_count_never_overflows_its_bytes() {
        assert_eq!(PageCount::MAX.bytes(), u64::MAX - (PAGE_SIZE - 1));
        assert_eq!(PageCount::new(PageCount::MAX.get() + 1), None);
        assert_eq!(PageCount::MAX.checked_add(PageCount(1)), None);
        assert_eq!(PageCount::covering(u64::MAX), None);
        assert_eq!(PageCount::covering(1), Some(PageCount(1)));
        assert_eq!(PageCount::exact(PAGE_SIZE + 1), None);
    }

    #[test]
    fn zero_is_neither_handle_nor_name() {
        assert_eq!(Handle::new(0), None);
        assert_eq!(Name::new(0), None);
        assert_eq!(Name::new(1 << 31), None);
    }

    #[test]
    fn a_fake_offset_is_aligned_and_never_looks_like_a_byte_offset() {
        assert_eq!(FakeOffset::new(FakeOffset::BASE - PAGE_SIZE), None);
        assert_eq!(FakeOffset::new(FakeOffset::BASE + 1), None);
        assert!(FakeOffset::new(FakeOffset::BASE).is_some());
    }
}
