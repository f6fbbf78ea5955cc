//! What only Redox has: fds of schemes are file descriptors like any other, and travel as they are.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use libredox::Fd;
use syscall::error::EBADF;

use crate::error::{Error, Result};
use crate::object_fd::ObjectFd;

impl ObjectFd {
    /// A copy of the fd that another process can be given, over a Unix socket or across exec.
    ///
    /// # Errors
    ///
    /// EMFILE where this process has too many fds.
    pub fn to_owned_fd(&self) -> Result<OwnedFd> {
        let copy = self.try_clone()?;
        let raw = copy.raw_fd().try_into();
        let raw = raw.map_err(|_| Error::new("pass an object on", EBADF))?;
        core::mem::forget(copy.into_fd());
        // SAFETY: the fd was just made for this, and its only owner has let go of it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    /// The fd that somebody gave us with [`ObjectFd::to_owned_fd`]. That it is an object's shows
    /// when it is used.
    ///
    /// # Errors
    ///
    /// None here; on Linux, EBADF where it is something else.
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self> {
        Ok(Self::from_fd(Fd::new(fd.into_raw_fd() as usize)))
    }
}
