//! A client process: what it can do beyond libredox.
//!
//! Nothing of this is needed to use a scheme: libredox's calls connect by themselves when the
//! first file is opened. Here is where to connect to ([`set_socket`]), why it fails in words
//! ([`connect`]), what on Redox is another part of the system (passing files to other processes,
//! fork, dropping privileges), and the kernel's calls for which libredox has no symbol
//! ([`syscalls`]).

mod conn;
mod fork;
mod mmap;
mod parcel;
pub mod syscalls;
mod user;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use syscall::error::{EBADF, EBUSY, Error, Result};

use crate::proto::{Op, Request};
pub(crate) use conn::Answer;
use conn::Connection;
pub use fork::{Fork, fork};
pub(crate) use mmap::{anonymous, mmap, munmap};
pub use parcel::{from_parcel, to_parcel};
pub use user::address_space;

static CONNECTION: RwLock<Option<Arc<Connection>>> = RwLock::new(None);
static SOCKET: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Where this process will look for the daemon, instead of `GEM_SOCKET` and the default. Has no
/// effect on a connection that exists.
pub fn set_socket(path: impl Into<PathBuf>) {
    *SOCKET.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.into());
}

/// Where this process looks for the daemon: what [`set_socket`] said, else the environment's
/// `GEM_SOCKET`, else [`crate::default_socket`].
pub fn socket() -> PathBuf {
    let set = SOCKET
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    set.or_else(|| {
        std::env::var_os("GEM_SOCKET")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    })
    .unwrap_or_else(crate::default_socket)
}

/// Why there is no connection, in words for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectError {
    socket: PathBuf,
    error: Error,
}

impl ConnectError {
    /// The errno: ENODEV where nobody listens, EPROTO where the daemon is of another version,
    /// EMFILE where this process has too many open files, EBADF in a child that was forked
    /// without [`fork()`].
    pub fn errno(&self) -> i32 {
        self.error.errno
    }

    /// Where the daemon was looked for.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = self.socket.display();
        match self.error.errno {
            syscall::error::ENODEV => write!(
                f,
                "nobody serves {socket}: start gemd, or say where it listens \
                 (--socket PATH, or GEM_SOCKET in the environment)"
            ),
            syscall::error::EPROTO => {
                write!(
                    f,
                    "the daemon at {socket} is of another version than this program"
                )
            }
            _ => write!(f, "cannot connect to {socket}: {}", self.error),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Connects now, if this process has no connection yet.
///
/// # Errors
///
/// See [`ConnectError::errno`].
pub fn connect() -> Result<(), ConnectError> {
    let result = connection_or_connect();
    result.map(|_| ()).map_err(|error| ConnectError {
        socket: socket(),
        error,
    })
}

/// Ends the connection: the kernel then closes this process's files and unmaps its mappings, as
/// if it had ended. The next open connects again.
///
/// What the process still has of files and mappings must not be used any more: the numbers may
/// come to mean something else, and mappings become memory without an owner.
pub fn disconnect() {
    let mut connection = CONNECTION.write().unwrap_or_else(PoisonError::into_inner);
    *connection = None;
    fork::watch(None);
}

/// Drops this process's identity for good: it becomes `uid` and `gid`.
///
/// # Errors
///
/// EPERM unless it is root, that is, runs as the daemon's own Linux user and has dropped nothing
/// yet.
pub fn set_identity(uid: u32, gid: u32) -> Result<()> {
    let connection = connection_or_connect()?;
    let request = Request::new(Op::SetIdentity, 0, &[u64::from(uid), u64::from(gid)]);
    connection.call(request, &[], None)?.result()?;
    connection.set_identity(uid, gid);
    Ok(())
}

/// User and group of this process as the kernel has them; connects if need be.
pub(crate) fn identity() -> Result<(u32, u32)> {
    Ok(connection_or_connect()?.identity())
}

/// Makes a request over this process's connection, which opening by path makes if need be.
pub(crate) fn call(request: Request, payload: &[u8]) -> Result<Answer> {
    call_with(request, payload, None)
}

fn call_with(request: Request, payload: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<Answer> {
    let opens = [Op::Open, Op::Unparcel]
        .iter()
        .any(|op| *op as u32 == request.op);
    let connection = match connection() {
        Some(connection) if connection.is_own() => connection,
        None if opens => connection_or_connect()?,
        _ => return Err(Error::new(EBADF)),
    };
    connection.call(request, payload, fd)
}

fn connection() -> Option<Arc<Connection>> {
    CONNECTION
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

fn connection_or_connect() -> Result<Arc<Connection>> {
    if crate::kernel::installed().is_some() {
        return Err(Error::new(EBUSY));
    }
    let mut slot = CONNECTION.write().unwrap_or_else(PoisonError::into_inner);
    match slot.as_ref() {
        Some(connection) if connection.is_own() => Ok(connection.clone()),
        Some(_) => Err(Error::new(EBADF)),
        None => {
            let connection = Arc::new(Connection::open(&socket())?);
            fork::watch(Some(connection.raw()));
            Ok(slot.insert(connection).clone())
        }
    }
}
