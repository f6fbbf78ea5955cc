//! Ranges of a client's address space, sets of pages taken over, and what can go wrong between.

use core::fmt;

use crate::units::{PAGE_SIZE, PageCount};

/// The end of user space: nothing a client can map lies beyond (`USER_END_OFFSET` of the Redox
/// kernel, `TASK_SIZE` of Linux without five-level page tables).
const USER_END: u64 = 1 << 47;

/// An address in some client's address space, in bytes. Only the platform can make use of it, and
/// only together with that address space.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UserAddr(u64);

impl UserAddr {
    /// The address of byte `address`.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Whole pages of a client's address space: at least one, and all of them below the end of user
/// space. Whether anything is mapped there, nobody has looked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UserRange {
    start: UserAddr,
    pages: PageCount,
}

impl UserRange {
    /// The range of `pages` pages from `start` on.
    ///
    /// # Errors
    ///
    /// [`RangeError::Shape`] where it is empty or does not begin on a page,
    /// [`RangeError::Outside`] where it wraps or leaves user space.
    pub const fn new(start: UserAddr, pages: PageCount) -> Result<Self, RangeError> {
        if pages.is_zero() || !start.0.is_multiple_of(PAGE_SIZE) {
            return Err(RangeError::Shape);
        }
        match start.0.checked_add(pages.bytes()) {
            Some(end) if end <= USER_END => Ok(Self { start, pages }),
            _ => Err(RangeError::Outside),
        }
    }

    /// The first byte, page-aligned.
    pub const fn start(self) -> UserAddr {
        self.start
    }

    /// How many pages; at least one.
    pub const fn pages(self) -> PageCount {
        self.pages
    }
}

/// Why numbers are no range of a client's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RangeError {
    /// Empty, or not whole pages (EINVAL).
    Shape,
    /// It wraps, or leaves user space (EFAULT).
    Outside,
}

/// Pages of a client's that the platform has taken over, and the daemon's mapping of them.
///
/// One owner at a time (an object), made by the platform, ended by
/// [`PageSource::release_user`](crate::pages::PageSource::release_user). It says nothing about
/// where the pages lie: that is found out when a device needs to know.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a user set that is dropped keeps the daemon's access: end it with PageSource::release_user"]
pub struct UserSet {
    key: u64,
    pages: PageCount,
}

impl UserSet {
    /// The set of `pages` pages, at least one, which the platform knows as `key`. For platforms.
    pub const fn new(key: u64, pages: PageCount) -> Self {
        Self { key, pages }
    }

    /// What the platform knows it by.
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// How many pages.
    pub const fn pages(&self) -> PageCount {
        self.pages
    }
}

/// Why pages of a client's could not be taken over. The client's memory is as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UserFault {
    /// A part of the range is not mapped (EFAULT).
    Hole,
    /// A part of the range is no ordinary memory: a GEM mapping, another scheme's, a device's; or
    /// it changed while it was taken over (EFAULT).
    Foreign,
    /// The fd is no address space (EBADF).
    NotASpace,
    /// There is no memory left for it (ENOMEM).
    NoMemory,
    /// This machine cannot take over pages, or not these (ENODEV).
    Unsupported,
    /// Too much of this user's is being taken over already (EAGAIN).
    Busy,
    /// The platform failed in a way it should not (EIO).
    Failed,
}

impl fmt::Display for UserFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hole => "a part of the range is not mapped",
            Self::Foreign => "a part of the range is no ordinary memory",
            Self::NotASpace => "the file is no address space",
            Self::NoMemory => "no memory is left to take the range over",
            Self::Unsupported => "this machine cannot take over a client's pages",
            Self::Busy => "too many ranges are being taken over",
            Self::Failed => "the platform failed to take the range over",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, pages: u64) -> Result<UserRange, RangeError> {
        UserRange::new(UserAddr::new(start), PageCount::new(pages).unwrap())
    }

    #[test]
    fn a_range_is_whole_pages_below_the_end_of_user_space() {
        let whole = range(0x1000, 3).unwrap();
        assert_eq!((whole.start().get(), whole.pages().get()), (0x1000, 3));
        assert!(range(0, 1 << 35).is_ok(), "all of it");
        assert!(range(USER_END - PAGE_SIZE, 1).is_ok(), "its last page");
        for start in [0x1001, 0xfff, USER_END - 1] {
            assert_eq!(range(start, 1), Err(RangeError::Shape));
        }
        assert_eq!(range(0x1000, 0), Err(RangeError::Shape));
        for (start, pages) in [
            (USER_END, 1),
            (USER_END - PAGE_SIZE, 2),
            (0x1000, 1 << 35),
            (!0xfff, 1),
            (!0xfff, PageCount::MAX.get()),
            (0xffff_8000_0000_0000, 1),
        ] {
            assert_eq!(range(start, pages), Err(RangeError::Outside));
        }
    }
}
