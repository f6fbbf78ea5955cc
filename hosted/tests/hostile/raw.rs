//! Clients without the library: messages byte by byte.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send,
    sendmsg, socket,
};

use super::common;

/// A request as it stands in a message.
pub fn message(op: u32, request: u32, fd: u64, args: [u64; 6], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(op.to_ne_bytes());
    bytes.extend(request.to_ne_bytes());
    bytes.extend(fd.to_ne_bytes());
    args.iter().for_each(|arg| bytes.extend(arg.to_ne_bytes()));
    bytes.extend(payload);
    bytes
}

pub const HELLO: u32 = 1;
pub const OPEN: u32 = 3;
pub const READ: u32 = 8;
pub const CALL: u32 = 10;
pub const FCNTL: u32 = 12;
pub const MMAP: u32 = 22;
pub const UNPARCEL: u32 = 25;
pub const OFFER_SPACE: u32 = 30;

/// What the kernel speaks.
pub const VERSION: u64 = 2;

pub fn hello() -> Vec<u8> {
    let magic = u64::from_le_bytes(*b"gemkern\0");
    message(HELLO, 1, 0, [magic, VERSION, 0, 0, 0, 0], &[])
}

/// A connection without the library.
pub fn raw_connection() -> OwnedFd {
    let path = std::env::var("GEM_SOCKET").unwrap();
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    connect(
        socket.as_raw_fd(),
        &UnixAddr::new(Path::new(&path)).unwrap(),
    )
    .unwrap();
    socket
}

pub fn greeted() -> OwnedFd {
    let connection = raw_connection();
    say(&connection, &hello());
    assert!(hears(&connection).is_some());
    connection
}

pub fn say(connection: &OwnedFd, message: &[u8]) {
    send(connection.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).unwrap();
}

/// The next reply: request number, result, and how long it is; `None` where the daemon hung up.
pub fn hears(connection: &OwnedFd) -> Option<(u32, u64, usize)> {
    let mut buffer = vec![0; 70_000];
    let length = recv(connection.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap_or(0);
    if length == 0 {
        return None;
    }
    let request = u32::from_ne_bytes(buffer[..4].try_into().unwrap());
    let result = u64::from_ne_bytes(buffer[8..16].try_into().unwrap());
    Some((request, result, length))
}

/// A greeted connection that has a file open.
pub fn with_a_file() -> OwnedFd {
    let connection = greeted();
    say(
        &connection,
        &message(OPEN, 5, 0, [0x3_0000, 0, 0, 0, 0, 0], b"/scheme/test/x"),
    );
    assert_eq!(
        hears(&connection).map(|(request, result, _)| (request, result)),
        Some((5, 3))
    );
    connection
}

/// Numbers that are the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Hears that `request` was one too many.
pub fn assert_refused(connection: &OwnedFd, request: u32) {
    let again = (libc::EAGAIN as u64).wrapping_neg();
    let heard = hears(connection).map(|reply| (reply.0, reply.1));
    assert_eq!(heard, Some((request, again)));
    common::tell_daemon("refused");
}

/// How many files this process has open, but for what a thread reads now and then: how much memory
/// the machine has left.
pub fn open_files() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    let looked_at =
        |path: &std::path::PathBuf| path.starts_with("/proc") || path.starts_with("/sys");
    targets.filter(|path| !looked_at(path)).count()
}

/// A new one, of this process.
pub fn userfaultfd() -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the call makes a file, which is then owned here alone.
    unsafe {
        let flags = libc::O_CLOEXEC | 1;
        let made = libc::syscall(libc::SYS_userfaultfd, flags);
        assert!(made >= 0);
        OwnedFd::from_raw_fd(made as i32)
    }
}

/// Offers a file as this process's address space; the answer.
pub fn offer(connection: &OwnedFd, file: &OwnedFd) -> u64 {
    let bytes = message(OFFER_SPACE, 9, 0, [0; 6], &[]);
    let part = [IoSlice::new(&bytes)];
    let fds = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::empty();
    sendmsg::<()>(connection.as_raw_fd(), &part, &rights, flags, None).unwrap();
    let (request, result, _) = hears(connection).expect("an answer");
    assert_eq!(request, 9);
    result
}
