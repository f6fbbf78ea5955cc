//! fork, with the file descriptors of schemes going along.
//!
//! A connection belongs to one process: the kernel tells processes apart by it, and by its end.
//! So a child must have its own. [`fork`] gives it one, with a copy of the parent's file
//! descriptors, which it takes there in a parcel. A child that was forked any other way loses
//! the connection: its copy of the socket is closed at once (else the parent's end would go
//! unnoticed as long as the child lives), and every call answers EBADF.

use std::os::fd::{AsFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, PoisonError};

use syscall::error::{EAGAIN, Error, Result};

use super::conn::{self, Connection};
use super::{CONNECTION, call, socket};
use crate::proto::{Op, Request};

/// Which of the two processes returns from [`fork`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fork {
    /// The one that called, with the child's pid.
    Parent(i32),
    /// The new one, and whether it has got its file descriptors. Where it has not, it has none.
    Child(Result<()>),
}

/// Forks this process. The child has the same file descriptors of schemes, and no mappings.
///
/// # Errors
///
/// EBADF where this process has no connection, ENFILE where there are too many parcels, EAGAIN
/// where Linux does not fork.
///
/// # Safety
///
/// As with `fork(2)`: in a process of several threads the child may do little more than exec.
/// Here it does more, so no other thread may be in a call of a scheme meanwhile.
pub unsafe fn fork() -> Result<Fork> {
    let parcel = conn::attached(call(Request::new(Op::Fork, 0, &[]), &[])?)?;
    // SAFETY: the caller answers for other threads.
    match unsafe { libc::fork() } {
        -1 => Err(Error::new(EAGAIN)),
        0 => Ok(Fork::Child(adopt(parcel.as_fd()))),
        child => Ok(Fork::Parent(child)),
    }
}

fn adopt(parcel: std::os::fd::BorrowedFd<'_>) -> Result<()> {
    let mut slot = CONNECTION.write().unwrap_or_else(PoisonError::into_inner);
    *slot = None;
    let connection = Arc::new(Connection::open(&socket())?);
    watch(Some(connection.raw()));
    let request = Request::new(Op::Adopt, 0, &[]);
    connection.call(request, &[], Some(parcel))?.result()?;
    *slot = Some(connection);
    Ok(())
}

/// The socket that a forked child must let go of; -1 where there is none.
static WATCHED: AtomicI32 = AtomicI32::new(-1);

/// Sets which socket is this process's alone.
pub(super) fn watch(socket: Option<RawFd>) {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    WATCHED.store(socket.unwrap_or(-1), Ordering::Relaxed);
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the handler does system calls only, which a forked child may. Where it cannot
        // be registered a child keeps a copy that it does not use.
        unsafe { libc::pthread_atfork(None, None, Some(let_go)) };
    }
}

/// In a forked child: puts something harmless in the place of the parent's socket, whose number
/// some value here still owns.
extern "C" fn let_go() {
    let watched = WATCHED.swap(-1, Ordering::Relaxed);
    if watched < 0 {
        return;
    }
    // SAFETY: system calls on numbers: a file of our own, and the copy of the parent's socket,
    // which stays open as something else, so that whoever owns the number closes just that.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if null >= 0 {
            libc::dup3(null, watched, libc::O_CLOEXEC);
            libc::close(null);
        }
    }
}
