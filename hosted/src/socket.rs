//! Unix seqpacket sockets: the listening one with its file and its lock, and whole messages with
//! at most one file descriptor beside them.
//!
//! Owns no state of the kernel or of a client. The lock file beside the socket decides who
//! serves: whoever holds its lock may replace the socket's file, which may be a stale one.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect,
    listen, sendmsg, socket,
};

/// Why the socket cannot be served.
#[derive(Debug)]
pub enum StartError {
    /// Another daemon serves this socket.
    InUse(PathBuf),
    /// This process runs a stand-in kernel already.
    AlreadyRunning,
    /// Something is in the way of this path.
    Failed(PathBuf, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                f,
                "another daemon serves {}: stop it, or choose another socket",
                path.display()
            ),
            Self::AlreadyRunning => write!(f, "this process runs a stand-in kernel already"),
            Self::Failed(path, error) => {
                write!(f, "cannot serve the socket {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(_, error) => Some(error),
            Self::InUse(_) | Self::AlreadyRunning => None,
        }
    }
}

/// A listening socket. Dropping it removes its file and lets go of the lock.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    lock_path: PathBuf,
    _lock: Flock<File>,
}

impl Listener {
    /// Listens at `path`, in a directory that is made if need be, for this user only.
    pub(crate) fn bind(path: &Path) -> Result<Self, StartError> {
        let failed = |error: io::Error| StartError::Failed(path.to_owned(), error);
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(directory).map_err(failed)?;
        }
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let Some(lock) = lock(&lock_path).map_err(failed)? else {
            return Err(StartError::InUse(path.to_owned()));
        };
        let socket = listen_at(path).map_err(failed)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            lock_path,
            _lock: lock,
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The lock is still held: nobody else's files can be at these paths.
        for path in [&self.path, &self.lock_path] {
            if let Err(error) = fs::remove_file(path) {
                log::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

/// The lock file, locked; `None` where somebody else has it.
fn lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, error)) => return Err(error.into()),
        };
        // The last holder removes the file: what got locked must still be what the path names.
        let named = fs::metadata(path).map(|metadata| metadata.ino());
        if named.is_ok_and(|inode| locked.metadata().is_ok_and(|own| own.ino() == inode)) {
            return Ok(Some(locked));
        }
    }
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of another kind",
            ));
        }
        Err(_) => {}
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket)
}

/// A connection to the daemon at `path`.
pub(crate) fn connect_to(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let address = UnixAddr::new(path)?;
    loop {
        match connect(socket.as_raw_fd(), &address) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(socket),
        }
    }
}

/// Sends one message, whole or not at all.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    head: &[u8],
    payload: &[u8],
    attached: Option<BorrowedFd<'_>>,
    flags: MsgFlags,
) -> nix::Result<()> {
    let parts = [IoSlice::new(head), IoSlice::new(payload)];
    let fds = attached.map(|fd| [fd.as_raw_fd()]);
    let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &parts, rights.as_slice(), flags, None)?;
    Ok(())
}

/// What came with a message.
#[derive(Debug)]
pub(crate) struct Received {
    /// The message's length; 0 at the end of the connection.
    pub(crate) length: usize,
    /// The file descriptors beside it.
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether the message or the file descriptors were more than there was room for.
    pub(crate) cut: bool,
}

/// Receives one message into `buffer`.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: MsgFlags,
) -> nix::Result<Received> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all fields are integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points at one part, which is `buffer`, and at `control`, both with their
    // true lengths and both alive and unaliased for the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags.bits()) };
    let length = Errno::result(length)?;
    let cut = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(Received {
        length: usize::try_from(length).unwrap_or(0),
        fds: take_fds(&message),
        cut,
    })
}

/// Room for eight file descriptors, more than any message may bring: the kernel drops what does
/// not fit and says so.
const CONTROL_WORDS: usize = 6;

/// Takes over every file descriptor beside a message, cut or not, so that none is left open.
fn take_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: `message` was just filled by recvmsg, whose control buffer is alive and aligned;
    // the kernel writes whole headers, with the length of what it wrote, even when it cuts. The
    // macros walk these headers and stop at the buffer's end. The descriptors were put into our
    // table for this message, and nobody else knows them.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(found) = header.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let bytes = found.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                for index in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}
