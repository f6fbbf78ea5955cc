//! From the kernel's 64 bytes to a request: everything that a client wrote is checked here, or
//! becomes a type that cannot be wrong.
//!
//! The layout of each operation's words is that of the kernel's `src/scheme/user.rs`. This module
//! decides nothing about who may do what and looks nothing up; it only says what was asked. What
//! no operation of ours is gets its errno here.

use bitflags::bitflags;
use gem::Working;
use gem::units::Pid;
use gem_wire::path::{Export, Path};
use gem_wire::{Malformed, drm, native};
use syscall::error::{EINVAL, ENOENT, EOPNOTSUPP};
use syscall::flag::{EVENT_READ, F_GETFL, F_SETFL, MapFlags, O_NONBLOCK, StdFsCallKind};
use syscall::schemev2::{Opcode, Sqe, SqeFlags};

use crate::answer::Errno;
use crate::fds::FdId;
use crate::payload::Payload;

/// Which request an answer belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Tag(pub u32);

/// What the kernel says.
#[derive(Debug)]
pub enum Message {
    /// Somebody waits for an answer.
    Request(Request),
    /// What was asked is nothing we have: the answer is this errno.
    Refused(Tag, Errno),
    /// The asker of this request would rather not wait any longer.
    Cancel(Tag),
    /// The last fd and the last mapping of this file are gone. Nobody waits for an answer.
    Closed(FdId),
    /// Nothing to do, nobody waits.
    Nothing,
}

/// A request, as far as it can be checked without knowing the file.
#[derive(Debug)]
pub struct Request {
    /// Which answer the asker waits for.
    pub tag: Tag,
    /// The asking process, as the kernel knows it.
    pub caller: Pid,
    /// The file that was asked.
    pub fd: FdId,
    /// What was asked.
    pub operation: Operation,
    /// What the client lent for it.
    pub payload: Payload,
}

bitflags! {
    /// What of `open`'s flags means something to us. The rest is the kernel's or harmless.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct OpenFlags: usize {
        /// The fd is to be written through.
        const WRITE = syscall::flag::O_WRONLY;
        /// Make it, if it is not there.
        const CREATE = syscall::flag::O_CREAT;
        /// Fail, if it is there.
        const EXCLUSIVE = syscall::flag::O_EXCL;
        /// Fail, if it is no directory.
        const DIRECTORY = syscall::flag::O_DIRECTORY;
    }
}

/// One operation on a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Open a path below this file.
    Open(Path, OpenFlags),
    /// An fd on one of this node's objects (dup with a path).
    Export(Export),
    /// Fill the payload.
    Read {
        /// From here on; `None` where the file has no position.
        offset: Option<u64>,
        /// Whether the caller would rather wait than get nothing (no O_NONBLOCK).
        wait: bool,
    },
    /// Take the payload's bytes to `offset`.
    Write(Option<u64>),
    /// How long is it?
    Size,
    /// A `Stat` into the payload.
    Stat,
    /// The path into the payload.
    Fpath,
    /// Wait until it is idle. `since`: what the request has found at work and waits for.
    Sync {
        /// `None` in a request that has not waited yet.
        since: Option<Working>,
    },
    /// Tell the kernel when there is something to read (`read`), and whether there is now.
    Watch {
        /// Whether reading is what the caller waits for, among other things perhaps.
        read: bool,
    },
    /// Directory entries after this opaque id into the payload.
    Entries(u64),
    /// F_GETFL and F_SETFL: the kernel does the work, if we agree.
    StatusFlags,
    /// Map `size` bytes from `offset`.
    Map {
        /// Byte offset, or fake offset, page-aligned.
        offset: u64,
        /// Size in bytes as the client wrote it, not rounded.
        size: u64,
        /// Whether the client will write.
        write: bool,
        /// Whether it is asked for as a fork does.
        again: bool,
    },
    /// `size` bytes from `offset` are mapped no more.
    Unmap {
        /// As in `Map`, or anywhere inside.
        offset: u64,
        /// Size in bytes, whole pages.
        size: u64,
    },
    /// A native call.
    Native(native::Call),
    /// A DRM call.
    Drm(drm::Call),
    /// A handle on the object behind this second file. `packed`: with its size, as the native
    /// call answers; otherwise the bare handle, as the DRM call does.
    Import {
        /// The second file; it may be closed meanwhile.
        object: FdId,
        /// Which form of answer.
        packed: bool,
    },
    /// Fds come with it.
    SendFds {
        /// What the client says of them.
        word: u64,
        /// How many there are.
        count: u64,
    },
    /// From the daemon's own other threads: work is finished.
    Kick,
    /// From the daemon's own other threads: answer everything and leave.
    Shutdown,
}

/// Metadata word of the daemon's own [`Operation::Kick`].
pub const KICK: u64 = u64::MAX;
/// Metadata word of the daemon's own [`Operation::Shutdown`].
pub const SHUTDOWN: u64 = u64::MAX - 1;

/// Longer than any path we have.
const PATH_ROOM: usize = 64;

/// What the kernel says with this SQE.
///
/// # Safety
///
/// The SQE came from the kernel, has not been decoded before, and the request that comes of it is
/// dropped before its answer is written: the payload is mapped only until then.
#[inline]
pub unsafe fn decode(sqe: &Sqe) -> Message {
    let tag = Tag(sqe.tag);
    let fd = FdId::from_raw(sqe.args[0]);
    let opcode = match Opcode::try_from_raw(sqe.opcode) {
        Some(Opcode::Cancel) => return Message::Cancel(tag),
        Some(Opcode::CloseMsg) => return Message::Closed(fd),
        Some(opcode) => opcode,
        None if sqe.sqe_flags.contains(SqeFlags::ONEWAY) => return Message::Nothing,
        None => return Message::Refused(tag, Errno(EOPNOTSUPP)),
    };
    if matches!(opcode, Opcode::Detach | Opcode::Msync | Opcode::RequestMmap) {
        // One-way notices, or (RequestMmap) a request that no CQE can answer.
        return Message::Nothing;
    }
    // SAFETY: as the caller vouches.
    let payload = unsafe { payload(sqe) };
    match operation(opcode, sqe, &payload) {
        Ok(operation) => Message::Request(Request {
            tag,
            caller: Pid(sqe.caller),
            fd,
            operation,
            payload,
        }),
        Err(errno) => Message::Refused(tag, errno),
    }
}

/// What the client has lent for this.
///
/// # Safety
///
/// The SQE came from the kernel, and the payload is dropped before its answer is written.
#[inline]
pub unsafe fn payload(sqe: &Sqe) -> Payload {
    if has_payload(sqe) {
        // SAFETY: args[1] and args[2] of these operations are the payload's address and length;
        // the caller vouches for the rest.
        unsafe { Payload::from_sqe(sqe.args[1], sqe.args[2]) }
    } else {
        Payload::EMPTY
    }
}

/// Whether args 1 and 2 tell of a payload that we look at.
#[inline]
pub fn has_payload(sqe: &Sqe) -> bool {
    matches!(
        Opcode::try_from_raw(sqe.opcode),
        Some(
            Opcode::OpenAt
                | Opcode::Dup
                | Opcode::Read
                | Opcode::Write
                | Opcode::Fpath
                | Opcode::Fstat
                | Opcode::Getdents
                | Opcode::Call
                | Opcode::StdFsCall
        )
    )
}

fn operation(opcode: Opcode, sqe: &Sqe, payload: &Payload) -> Result<Operation, Errno> {
    let two_fds = sqe.sqe_flags.contains(SqeFlags::MULTIPLE_IDS);
    if matches!(opcode, Opcode::Call) {
        return if two_fds {
            two_fd_call(sqe, payload)
        } else {
            call([sqe.args[3], sqe.args[4], sqe.args[5]], payload)
        };
    }
    if matches!(opcode, Opcode::Sendfd) {
        return Ok(Operation::SendFds {
            word: sqe.args[2],
            count: sqe.args[3],
        });
    }
    if two_fds {
        return Err(Errno(EINVAL));
    }
    match opcode {
        Opcode::OpenAt => open(payload, sqe.args[3]),
        Opcode::Dup => export(payload),
        Opcode::Read => Ok(Operation::Read {
            offset: position(sqe.args[3]),
            wait: sqe.args[4] & O_NONBLOCK as u64 == 0,
        }),
        Opcode::Write => Ok(Operation::Write(position(sqe.args[3]))),
        Opcode::Fsize => Ok(Operation::Size),
        Opcode::Fstat => Ok(Operation::Stat),
        Opcode::Fpath => Ok(Operation::Fpath),
        Opcode::Fsync => Ok(Operation::Sync { since: None }),
        // The kernel asks for all that anybody who has the file waits for. What is more than we
        // have is no reason to refuse the rest.
        Opcode::Fevent => Ok(Operation::Watch {
            read: sqe.args[1] & EVENT_READ.bits() as u64 != 0,
        }),
        Opcode::Getdents => Ok(Operation::Entries(sqe.args[4])),
        Opcode::Fcntl => match sqe.args[1] as usize {
            F_GETFL | F_SETFL => Ok(Operation::StatusFlags),
            _ => Err(Errno(EINVAL)),
        },
        Opcode::MmapPrep => map(sqe.args[3], sqe.args[1], sqe.args[2]),
        Opcode::Munmap => Ok(Operation::Unmap {
            offset: sqe.args[3],
            size: sqe.args[1],
        }),
        Opcode::StdFsCall => std_fs_call(sqe.args[3], sqe.args[4]),
        _ => Err(Errno(EOPNOTSUPP)),
    }
}

/// The kernel writes an offset of all ones for a file that has no position of its own.
fn position(offset: u64) -> Option<u64> {
    (offset != u64::MAX).then_some(offset)
}

fn open(payload: &Payload, flags: u64) -> Result<Operation, Errno> {
    let mut buffer = [0; PATH_ROOM];
    let path = payload.head(&mut buffer);
    if payload.len() > PATH_ROOM {
        return Err(Errno(ENOENT));
    }
    if core::str::from_utf8(path).is_err() {
        return Err(Errno(EINVAL));
    }
    let path = Path::parse(path).ok_or(Errno(ENOENT))?;
    Ok(Operation::Open(path, open_flags(flags)?))
}

/// The flags we know, out of all that a client may write; the low 16 bits are the mode of a new
/// file, which nothing here has.
fn open_flags(flags: u64) -> Result<OpenFlags, Errno> {
    use syscall::flag::*;
    /// relibc's O_CLOEXEC: kept by the client, yet sent along.
    const O_CLOEXEC: usize = 0x0100_0000;
    const MODE: usize = 0xffff;
    const KNOWN: usize = MODE
        | O_ACCMODE
        | O_NONBLOCK
        | O_APPEND
        | O_SHLOCK
        | O_EXLOCK
        | O_ASYNC
        | O_FSYNC
        | O_CLOEXEC
        | O_CREAT
        | O_TRUNC
        | O_EXCL
        | O_DIRECTORY
        | O_STAT
        | O_SYMLINK
        | O_NOFOLLOW;
    let flags = usize::try_from(flags).map_err(|_| Errno(EINVAL))?;
    if flags & !KNOWN != 0 {
        return Err(Errno(EINVAL));
    }
    Ok(OpenFlags::from_bits_truncate(flags))
}

fn export(payload: &Payload) -> Result<Operation, Errno> {
    let mut buffer = [0; PATH_ROOM];
    let path = payload.head(&mut buffer);
    if payload.len() > PATH_ROOM {
        return Err(Errno(EINVAL));
    }
    let export = Export::parse(path).ok_or(Errno(EINVAL))?;
    Ok(Operation::Export(export))
}

fn map(offset: u64, size: u64, flags: u64) -> Result<Operation, Errno> {
    let flags = usize::try_from(flags)
        .ok()
        .and_then(MapFlags::from_bits)
        .ok_or(Errno(EINVAL))?;
    // MAP_PRIVATE maps copy-on-write pages whose first write asks the scheme for a page in a way
    // that no CQE can answer: the client would hang for good.
    let shared = flags.contains(MapFlags::MAP_SHARED) && !flags.contains(MapFlags::MAP_PRIVATE);
    if !shared || flags.contains(MapFlags::PROT_EXEC) {
        return Err(Errno(EINVAL));
    }
    Ok(Operation::Map {
        offset,
        size,
        write: flags.contains(MapFlags::PROT_WRITE),
        // relibc's fork maps into the child, at the same addresses, what the parent has mapped.
        again: flags.contains(MapFlags::MAP_FIXED_NOREPLACE),
    })
}

fn call(words: [u64; 3], payload: &Payload) -> Result<Operation, Errno> {
    if words[0] >= native::BASE {
        if !payload.is_empty() {
            return Err(Errno(EINVAL));
        }
        return match native::Call::decode(words) {
            // On one fd there is nothing to import.
            Ok(native::Call::Import) => Err(Errno(EINVAL)),
            Ok(call) => Ok(Operation::Native(call)),
            Err(Malformed::UnknownCall(KICK)) => Ok(Operation::Kick),
            Err(Malformed::UnknownCall(SHUTDOWN)) => Ok(Operation::Shutdown),
            Err(_) => Err(Errno(EINVAL)),
        };
    }
    match drm_call(words, payload)? {
        drm::Call::PrimeFdToHandle => Err(Errno(EINVAL)),
        call => Ok(Operation::Drm(call)),
    }
}

fn two_fd_call(sqe: &Sqe, payload: &Payload) -> Result<Operation, Errno> {
    // Only two metadata words come along; the third slot is the second file.
    let words = [sqe.args[3], sqe.args[4], 0];
    let import = |packed| Operation::Import {
        object: FdId::from_raw(sqe.args[5]),
        packed,
    };
    if !payload.is_empty() {
        return Err(Errno(EINVAL));
    }
    if native::Call::decode(words) == Ok(native::Call::Import) {
        return Ok(import(true));
    }
    match drm_call(words, payload)? {
        drm::Call::PrimeFdToHandle => Ok(import(false)),
        _ => Err(Errno(EINVAL)),
    }
}

fn drm_call(words: [u64; 3], payload: &Payload) -> Result<drm::Call, Errno> {
    if words[1] != 0 || words[2] != 0 || payload.len() > gem_wire::MAX_PAYLOAD {
        return Err(Errno(EINVAL));
    }
    let mut buffer = [0; drm::HEAD];
    drm::Call::decode(words[0], payload.head(&mut buffer), payload.len()).map_err(|_| Errno(EINVAL))
}

/// relibc's form of the file operations: the kind in the low byte of the first metadata word.
fn std_fs_call(kind: u64, first: u64) -> Result<Operation, Errno> {
    match StdFsCallKind::try_from_raw(kind as u8) {
        Some(StdFsCallKind::Fstat) => Ok(Operation::Stat),
        Some(StdFsCallKind::Fsync) => Ok(Operation::Sync { since: None }),
        Some(StdFsCallKind::Getdents) => Ok(Operation::Entries(first)),
        _ => Err(Errno(EOPNOTSUPP)),
    }
}
