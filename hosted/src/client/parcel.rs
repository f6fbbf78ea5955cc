//! Files of schemes as Linux file descriptors: to pass to other processes.

use std::os::fd::{AsFd, OwnedFd};

use syscall::error::Result;

use super::{call, call_with, conn};
use crate::proto::{Op, Request};

/// A Linux file descriptor that stands for the scheme file `fd`. It can be sent over any Unix
/// socket or left to a child, and opened as often as wanted with [`from_parcel`]; it keeps the
/// file open until its last copy is closed. On Redox, `fd` itself would be sent.
///
/// # Errors
///
/// EBADF where `fd` is not open, ENFILE where there are too many parcels.
pub fn to_parcel(fd: usize) -> Result<OwnedFd> {
    conn::attached(call(Request::new(Op::Parcel, fd, &[]), &[])?)
}

/// The scheme file that a parcel stands for, as a new file descriptor of this process: the same
/// open file, as after `dup`.
///
/// # Errors
///
/// EBADF where it is no parcel of this daemon, EMFILE where this process has too many files,
/// ENODEV where nobody listens.
pub fn from_parcel(parcel: OwnedFd) -> Result<usize> {
    let request = Request::new(Op::Unparcel, 0, &[]);
    call_with(request, &[], Some(parcel.as_fd()))?.result()
}
