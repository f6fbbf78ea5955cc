//! Everything that can go wrong, and the one table of errno.
//!
//! An error says what the client did or what there is too little of, in terms of this crate; an
//! operation that returns one has changed nothing. No number of an errno stands anywhere else in
//! this crate.

use core::fmt;

use crate::ledger::LedgerError;
use crate::pages::{NotReady, PlatformError, Ticket};
use crate::units::{Handle, Name, PageCount};
use crate::user::{RangeError, UserFault};

/// An error number as a client sees it, positive. The values are those of Linux, which Redox
/// shares (`redox_syscall`, `src/error.rs`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Errno(i32);

impl Errno {
    const ENOENT: Self = Self(2);
    const EIO: Self = Self(5);
    const E2BIG: Self = Self(7);
    const EBADF: Self = Self(9);
    const EAGAIN: Self = Self(11);
    const ENOMEM: Self = Self(12);
    const EACCES: Self = Self(13);
    const EFAULT: Self = Self(14);
    const EBUSY: Self = Self(16);
    const ENODEV: Self = Self(19);
    const EINVAL: Self = Self(22);
    const ENFILE: Self = Self(23);
    const EMFILE: Self = Self(24);
    const ENOSPC: Self = Self(28);

    /// The number, positive.
    pub fn get(self) -> i32 {
        self.0
    }

    fn of_fault(fault: UserFault) -> Self {
        match fault {
            UserFault::Hole | UserFault::Foreign => Self::EFAULT,
            UserFault::NotASpace => Self::EBADF,
            UserFault::NoMemory => Self::ENOMEM,
            UserFault::Unsupported => Self::ENODEV,
            UserFault::Busy => Self::EAGAIN,
            UserFault::Failed => Self::EIO,
        }
    }
}

/// Why an operation did not happen. Nothing has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error {
    /// The platform is at work: repeat the operation when this is finished.
    NotReady(Ticket),
    /// Part of the work is done, and it was enough for now: repeat the operation after others have
    /// had their turn.
    Unfinished,
    /// The machine has no memory left.
    OutOfMemory,
    /// The user leaves too much memory unused, in pieces too small for this.
    Scattered,
    /// The platform refuses.
    Platform(PlatformError),
    /// A limit stands in the way.
    Limit(LedgerError),
    /// There is no such open.
    NoSuchOpen,
    /// The open was revoked.
    Revoked,
    /// There is no such object fd.
    NoSuchObjectFd,
    /// The open is nobody's yet, or somebody's already.
    Binding,
    /// This open has no such handle.
    NoSuchHandle(Handle),
    /// This open has no such handle to close.
    NotClosable(Handle),
    /// Nothing has this name.
    NoSuchName(Name),
    /// An object of no bytes, or of so many that they overflow a page count.
    ObjectSize(u64),
    /// No such pixels: a side of 0, a depth that is not 1 to 32, or a product too large.
    Dumb,
    /// No object begins at this offset.
    NoSuchOffset(u64),
    /// This open has no handle on the object there.
    NotAllowed,
    /// The range is empty, misaligned, or ends outside the object.
    Range {
        /// First byte.
        offset: u64,
        /// Bytes.
        size: u64,
    },
    /// The fd does not allow writing.
    ReadOnly,
    /// The object's pages are a device's own, or a client's.
    NotMappable,
    /// A client's own pages are not shared by fd.
    NotExportable,
    /// The object is not one of a client's own pages.
    NotUser,
    /// These numbers are no range of a client's.
    UserRange(RangeError),
    /// The pages could not be taken over.
    Taking(UserFault),
    /// No device here sees what the CPU writes to a client's own pages.
    Incoherent,
    /// No device here can be kept from writing.
    NoReadOnly,
    /// More pages than fit a GPU's address space, or a place beyond its end.
    BeyondGpu(PageCount),
    /// Something is there, or in use, already.
    InUse,
    /// Nothing was taken over from there, or it was something else.
    NothingTaken,
    /// The pages are their client's alone.
    NotHeld,
    /// The pages are another process's.
    NotOwner,
    /// There is no such address space of a GPU, or nothing bound there.
    NoSuchPlace,
    /// The object was purged: its users had said that they do not need it.
    Purged,
    /// No room for another offset, or for what is written past the end.
    NoSpace,
    /// No such magic number.
    NoSuchMagic,
    /// Somebody else is master.
    MasterElsewhere,
    /// This open is not master.
    NotMaster,
}

impl Error {
    /// What the client sees.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotReady(_) | Self::Unfinished => Errno::EAGAIN,
            Self::OutOfMemory | Self::Scattered => Errno::ENOMEM,
            Self::Platform(PlatformError::FileTableFull) => Errno::ENFILE,
            Self::Platform(PlatformError::NoSuchMemory) => Errno::ENODEV,
            Self::Platform(PlatformError::Failed) => Errno::EIO,
            Self::Limit(
                LedgerError::Total(_)
                | LedgerError::Memory(..)
                | LedgerError::Object(_)
                | LedgerError::UserPages(..),
            ) => Errno::ENOMEM,
            Self::Limit(_) => Errno::EMFILE,
            Self::NoSuchOpen | Self::NoSuchObjectFd => Errno::EBADF,
            Self::Binding => Errno::EACCES,
            Self::NoSuchHandle(_) | Self::NoSuchName(_) => Errno::ENOENT,
            Self::NotClosable(_) => Errno::EINVAL,
            Self::ObjectSize(_) | Self::Dumb => Errno::EINVAL,
            Self::NoSuchOffset(_) | Self::Range { .. } => Errno::EINVAL,
            Self::NotAllowed | Self::ReadOnly => Errno::EACCES,
            Self::NotMappable | Self::Revoked => Errno::ENODEV,
            Self::NotExportable | Self::NotUser | Self::NoSuchPlace => Errno::EINVAL,
            Self::UserRange(RangeError::Shape) => Errno::EINVAL,
            Self::UserRange(RangeError::Outside) => Errno::EFAULT,
            Self::Taking(fault) => Errno::of_fault(*fault),
            Self::Incoherent | Self::NoReadOnly => Errno::ENODEV,
            Self::BeyondGpu(_) => Errno::E2BIG,
            Self::InUse => Errno::EBUSY,
            Self::NothingTaken => Errno::EBADF,
            Self::NotHeld | Self::NotOwner => Errno::EFAULT,
            Self::Purged => Errno::EFAULT,
            Self::NoSpace => Errno::ENOSPC,
            Self::NoSuchMagic | Self::NotMaster => Errno::EINVAL,
            Self::MasterElsewhere => Errno::EBUSY,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady(Ticket(ticket)) => write!(f, "waits for work {ticket}"),
            Self::Unfinished => f.write_str("goes on after others have had their turn"),
            Self::OutOfMemory => f.write_str("the machine has no memory left"),
            Self::Scattered => f.write_str(
                "the user's buffers leave gaps that are too small for this one, and too large in all",
            ),
            Self::Platform(PlatformError::FileTableFull) => {
                f.write_str("the daemon cannot open more files: raise its limit (ulimit -n)")
            }
            Self::Platform(PlatformError::NoSuchMemory) => {
                f.write_str("this machine has no memory of that kind")
            }
            Self::Platform(PlatformError::Failed) => f.write_str("the platform failed"),
            Self::Limit(error) => error.fmt(f),
            Self::NoSuchOpen => f.write_str("no such open"),
            Self::Revoked => f.write_str("the open was revoked"),
            Self::NoSuchObjectFd => f.write_str("the file is not an object"),
            Self::Binding => f.write_str("the open is not this process's"),
            Self::NoSuchHandle(handle) | Self::NotClosable(handle) => {
                write!(f, "no handle {handle} in this open")
            }
            Self::NoSuchName(name) => write!(f, "nothing has the name {name}"),
            Self::ObjectSize(size) => write!(f, "no object can have {size} bytes"),
            Self::Dumb => f.write_str("no such pixels: 1 to 32 bits each, and not too many"),
            Self::NoSuchOffset(offset) => write!(f, "no object begins at offset {offset:#x}"),
            Self::NotAllowed => f.write_str("the open has no handle on the object there"),
            Self::Range { offset, size } => {
                write!(f, "{size} bytes from {offset:#x} are not inside the object")
            }
            Self::ReadOnly => f.write_str("the file is read-only"),
            Self::NotMappable => f.write_str("the object's pages are a device's or a client's own"),
            Self::NotExportable => f.write_str("a client's own pages are not shared by fd"),
            Self::NotUser => f.write_str("the object's pages are not a client's own"),
            Self::UserRange(RangeError::Shape) => f.write_str("the range is not whole pages"),
            Self::UserRange(RangeError::Outside) => f.write_str("the range leaves user space"),
            Self::Taking(fault) => fault.fmt(f),
            Self::Incoherent => f.write_str("no device sees what the CPU writes to such pages"),
            Self::NoReadOnly => f.write_str("no device can be kept from writing"),
            Self::BeyondGpu(pages) => write!(f, "the GPU's address space has {pages} pages"),
            Self::InUse => f.write_str("it is in use already"),
            Self::NothingTaken => f.write_str("no such range was taken over through this open"),
            Self::NotHeld => f.write_str("the pages are their client's alone"),
            Self::NotOwner => f.write_str("the pages are another process's"),
            Self::NoSuchPlace => f.write_str("nothing is bound there"),
            Self::Purged => f.write_str("the object has lost its pages: nobody needed them"),
            Self::NoSpace => f.write_str("no space left"),
            Self::NoSuchMagic => f.write_str("no open has this magic number"),
            Self::MasterElsewhere => f.write_str("another open is master"),
            Self::NotMaster => f.write_str("this open is not master"),
        }
    }
}

impl core::error::Error for Error {}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        Self::Limit(error)
    }
}

impl From<RangeError> for Error {
    fn from(error: RangeError) -> Self {
        Self::UserRange(error)
    }
}

impl From<UserFault> for Error {
    fn from(fault: UserFault) -> Self {
        Self::Taking(fault)
    }
}

impl From<NotReady> for Error {
    fn from(not_ready: NotReady) -> Self {
        match not_ready {
            NotReady::OutOfMemory => Self::OutOfMemory,
            NotReady::Scattered => Self::Scattered,
            NotReady::Refused(error) => Self::Platform(error),
            NotReady::Wait(ticket) => Self::NotReady(ticket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Counted;
    use crate::units::{PageCount, Uid};
    use alloc::string::ToString;

    #[test]
    fn every_error_has_the_errno_that_a_client_expects() {
        let handle = Handle::new(1).unwrap();
        let name = Name::new(5).unwrap();
        let pages = PageCount::new(9).unwrap();
        let range = Error::Range { offset: 1, size: 2 };
        for (error, errno) in [
            (Error::NoSuchHandle(handle), 2),
            (Error::NoSuchName(name), 2),
            (Error::Platform(PlatformError::Failed), 5),
            (Error::NoSuchOpen, 9),
            (Error::NoSuchObjectFd, 9),
            (Error::BeyondGpu(pages), 7),
            (Error::NothingTaken, 9),
            (UserFault::NotASpace.into(), 9),
            (UserFault::Failed.into(), 5),
            (UserFault::Busy.into(), 11),
            (UserFault::NoMemory.into(), 12),
            (LedgerError::UserPages(Uid(1), pages).into(), 12),
            (UserFault::Hole.into(), 14),
            (UserFault::Foreign.into(), 14),
            (RangeError::Outside.into(), 14),
            (Error::NotHeld, 14),
            (Error::NotOwner, 14),
            (Error::InUse, 16),
            (UserFault::Unsupported.into(), 19),
            (Error::Incoherent, 19),
            (Error::NoReadOnly, 19),
            (Error::NotExportable, 22),
            (Error::NotUser, 22),
            (Error::NoSuchPlace, 22),
            (RangeError::Shape.into(), 22),
            (Error::NotReady(Ticket(1)), 11),
            (Error::Unfinished, 11),
            (Error::OutOfMemory, 12),
            (Error::Scattered, 12),
            (LedgerError::Total(pages).into(), 12),
            (LedgerError::Memory(Uid(1), pages).into(), 12),
            (LedgerError::Object(pages).into(), 12),
            (Error::Binding, 13),
            (Error::NotAllowed, 13),
            (Error::ReadOnly, 13),
            (Error::Purged, 14),
            (Error::MasterElsewhere, 16),
            (Error::NotMappable, 19),
            (Error::Revoked, 19),
            (Error::Platform(PlatformError::NoSuchMemory), 19),
            (Error::NotClosable(handle), 22),
            (Error::ObjectSize(0), 22),
            (Error::Dumb, 22),
            (Error::NoSuchOffset(1), 22),
            (range, 22),
            (Error::NoSuchMagic, 22),
            (Error::NotMaster, 22),
            (Error::Platform(PlatformError::FileTableFull), 23),
            (LedgerError::Opens(3).into(), 24),
            (LedgerError::Mapped(Uid(1), pages).into(), 24),
            (LedgerError::Count(Uid(1), Counted::Handles, 3).into(), 24),
            (LedgerError::OpenCount(Counted::ObjectFds, 3).into(), 24),
            (Error::NoSpace, 28),
        ] {
            assert_eq!(error.errno().get(), errno, "{error}");
        }
    }

    #[test]
    fn a_message_names_what_was_wrong() {
        for (error, text) in [
            (
                Error::NoSuchHandle(Handle::new(7).unwrap()),
                "no handle 7 in this open",
            ),
            (
                LedgerError::Count(Uid(1000), Counted::Objects, 5).into(),
                "uid 1000 may have 5 objects",
            ),
            (
                Error::Range {
                    offset: 0x1000,
                    size: 5,
                },
                "5 bytes from 0x1000 are not inside the object",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
