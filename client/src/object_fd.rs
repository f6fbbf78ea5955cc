//! Object fds: a capability on one object, to keep or to give away.
//!
//! An [`ObjectFd`] owns its fd and needs no node: whoever has it may do what its rights say. How
//! it travels between processes is the platform's (`linux`, `redox`).

use libredox::Fd;
use libredox::flag::{O_CLOEXEC, O_RDONLY, O_RDWR};

use crate::error::{Error, Result};
use crate::mapping::Mapping;

/// What an object fd, or a mapping, allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rights {
    /// Reading.
    ReadOnly,
    /// Reading, writing, and importing into a node.
    ReadWrite,
}

impl Rights {
    pub(crate) fn open_flags(self) -> i32 {
        O_CLOEXEC
            | match self {
                Self::ReadOnly => O_RDONLY,
                Self::ReadWrite => O_RDWR,
            }
    }
}

/// An fd on an object. It keeps the object alive without any handle.
///
/// With the feature `std` it can be given to another process: `to_owned_fd` here and
/// `from_owned_fd` there. In between it is an ordinary file descriptor: send it over a Unix
/// socket, or leave it to a child.
pub struct ObjectFd {
    fd: Fd,
}

impl core::fmt::Debug for ObjectFd {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("ObjectFd").field(&self.raw_fd()).finish()
    }
}

impl ObjectFd {
    /// An object's fd that came some other way.
    pub fn from_fd(fd: Fd) -> Self {
        Self { fd }
    }

    /// The fd, for raw calls.
    pub fn raw_fd(&self) -> usize {
        self.fd.raw()
    }

    /// The fd, no longer an object's.
    pub fn into_fd(self) -> Fd {
        self.fd
    }

    /// The object's size in bytes; 0 where the fd is a node's.
    ///
    /// # Errors
    ///
    /// EBADF where the fd is closed.
    pub fn size(&self) -> Result<usize> {
        let stat = self.fd.stat();
        let stat = stat.map_err(Error::of("ask for an object's size"))?;
        Ok(stat.st_size as usize)
    }

    /// Which object this is: the same number for every fd on it.
    ///
    /// # Errors
    ///
    /// EBADF where the fd is closed.
    pub fn id(&self) -> Result<u64> {
        let stat = self.fd.stat();
        let stat = stat.map_err(Error::of("ask which object it is"))?;
        Ok(stat.st_ino)
    }

    /// Maps the whole object.
    ///
    /// # Errors
    ///
    /// EACCES for writing through a read-only fd; ENOMEM, EMFILE at the limits.
    pub fn map(&self, rights: Rights) -> Result<Mapping> {
        self.map_range(0, self.size()?, rights)
    }

    /// Maps `size` bytes from `offset` on; both whole pages.
    ///
    /// # Errors
    ///
    /// As [`ObjectFd::map`], and EINVAL where the range is not inside the object.
    pub fn map_range(&self, offset: u64, size: usize, rights: Rights) -> Result<Mapping> {
        Mapping::new(self.raw_fd(), offset, size, rights)
    }

    /// Reads from where the fd's position is, and moves it on; 0 at the end. Clones share one
    /// position. To read anywhere, map the object: libredox has no read at an offset.
    ///
    /// # Errors
    ///
    /// EBADF where the fd is closed, EINVAL where it is a node's.
    pub fn read(&self, bytes: &mut [u8]) -> Result<usize> {
        self.fd.read(bytes).map_err(Error::of("read an object"))
    }

    /// Writes where the fd's position is, and moves it on.
    ///
    /// # Errors
    ///
    /// EACCES for a read-only fd, ENOSPC at the end of the object.
    pub fn write(&self, bytes: &[u8]) -> Result<usize> {
        self.fd.write(bytes).map_err(Error::of("write an object"))
    }

    /// A second fd on the same open object.
    ///
    /// # Errors
    ///
    /// EMFILE where this process has too many fds.
    pub fn try_clone(&self) -> Result<Self> {
        let copy = self.fd.dup(&[]).map_err(Error::of("duplicate an fd"))?;
        Ok(Self::from_fd(Fd::new(copy)))
    }
}
