//! What only Linux has: the socket that stands for the kernel, and fds that can travel.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libredox::Fd;

pub use hosted::client::{ConnectError, connect};

use crate::error::{Error, Result};
use crate::object_fd::ObjectFd;

/// Says which socket to connect to. Has to come before the first call; without it the socket is
/// `$GEM_SOCKET`, or [`default_socket`].
pub fn set_socket(path: &Path) {
    hosted::client::set_socket(path);
}

/// `$XDG_RUNTIME_DIR/gem/gem.sock`, or a directory of one's own in `/tmp`.
pub fn default_socket() -> PathBuf {
    hosted::default_socket()
}

impl ObjectFd {
    /// The fd in a form that another process can be given, over a Unix socket or across exec.
    ///
    /// # Errors
    ///
    /// EMFILE where this process has too many fds.
    pub fn to_owned_fd(&self) -> Result<OwnedFd> {
        hosted::client::to_parcel(self.raw_fd())
            .map_err(|errno| Error::new("pass an object on", errno.errno))
    }

    /// The fd that somebody gave us with [`ObjectFd::to_owned_fd`].
    ///
    /// # Errors
    ///
    /// EBADF where it is something else.
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self> {
        let fd = hosted::client::from_parcel(fd)
            .map_err(|errno| Error::new("take an object that was passed on", errno.errno))?;
        Ok(Self::from_fd(Fd::new(fd)))
    }
}
