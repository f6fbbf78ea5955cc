//! The kernel's system calls for which libredox has no symbol, with the kernel's own numbers.
//!
//! For tests of schemes, and for programs that on Redox would use `redox_syscall`: with these a
//! scheme sees requests that libredox never makes (an old `fstat` with a short buffer, flags
//! that do not exist). All errors are the scheme's or the kernel's: EBADF where `fd` is not open.

use syscall::data::Map;
use syscall::error::{EMSGSIZE, Error, Result};

use super::call;
use crate::proto::{Op, PAYLOAD_MAX, Request};

/// `SYS_OPENAT`: opens `path` below `fd` with Redox's flags.
pub fn openat(fd: usize, path: impl AsRef<[u8]>, flags: usize, fcntl_flags: u32) -> Result<usize> {
    let args = [flags as u64, u64::from(fcntl_flags)];
    with_path(Op::OpenAt, fd, path.as_ref(), &args)
}

/// `SYS_UNLINKAT`.
pub fn unlinkat(fd: usize, path: impl AsRef<[u8]>, flags: usize) -> Result<usize> {
    with_path(Op::Unlinkat, fd, path.as_ref(), &[flags as u64])
}

/// `SYS_FLINK`.
pub fn flink(fd: usize, path: impl AsRef<[u8]>) -> Result<usize> {
    with_path(Op::Flink, fd, path.as_ref(), &[])
}

/// `SYS_FRENAME`.
pub fn frename(fd: usize, path: impl AsRef<[u8]>) -> Result<usize> {
    with_path(Op::Frename, fd, path.as_ref(), &[])
}

/// `SYS_FSTAT`, the old form: any length of buffer reaches the scheme. The kernel writes the
/// scheme's number into the first eight bytes afterwards; EIO where there are fewer.
pub fn fstat(fd: usize, buffer: &mut [u8]) -> Result<usize> {
    fill(Request::new(Op::Fstat, fd, &[buffer.len() as u64]), buffer)
}

/// `SYS_FSYNC`, the old form.
pub fn fsync(fd: usize) -> Result<usize> {
    call(Request::new(Op::Fsync, fd, &[]), &[])?.result()
}

/// The size as the scheme says it (what the kernel asks for to seek from the end).
pub fn fsize(fd: usize) -> Result<usize> {
    call(Request::new(Op::Fsize, fd, &[]), &[])?.result()
}

/// `SYS_FEVENT`: asks the scheme for the given events.
pub fn fevent(fd: usize, events: usize) -> Result<usize> {
    call(Request::new(Op::Fevent, fd, &[events as u64]), &[])?.result()
}

/// `SYS_LSEEK`: `whence` is `SEEK_SET`, `SEEK_CUR` or `SEEK_END`.
pub fn lseek(fd: usize, offset: i64, whence: usize) -> Result<usize> {
    let args = [offset as u64, whence as u64];
    call(Request::new(Op::Lseek, fd, &args), &[])?.result()
}

/// `SYS_READ2`: reads at `offset`, with `flags` instead of the file's own.
pub fn read_at(fd: usize, buffer: &mut [u8], offset: u64, flags: u32) -> Result<usize> {
    let args = [buffer.len() as u64, 1, offset, u64::from(flags)];
    fill(Request::new(Op::Read, fd, &args), buffer)
}

/// `SYS_WRITE2`: writes at `offset`, with `flags` instead of the file's own.
pub fn write_at(fd: usize, bytes: &[u8], offset: u64, flags: u32) -> Result<usize> {
    check(bytes.len())?;
    let args = [0, 1, offset, u64::from(flags)];
    call(Request::new(Op::Write, fd, &args), bytes)?.result()
}

/// `SYS_FMAP`: maps with Redox's flags, whatever they are.
///
/// # Safety
///
/// As for `mmap(2)`: a fixed address must not be in use by anything that relies on it.
pub unsafe fn fmap(fd: usize, map: &Map) -> Result<usize> {
    super::mmap(fd, map.address, map.size, map.flags, map.offset as u64)
}

fn with_path(op: Op, fd: usize, path: &[u8], args: &[u64]) -> Result<usize> {
    check(path.len())?;
    call(Request::new(op, fd, args), path)?.result()
}

fn fill(request: Request, buffer: &mut [u8]) -> Result<usize> {
    check(buffer.len())?;
    let answer = call(request, &[])?;
    buffer
        .iter_mut()
        .zip(&answer.payload)
        .for_each(|(to, from)| *to = *from);
    answer.result()
}

fn check(length: usize) -> Result<()> {
    if length > PAYLOAD_MAX {
        return Err(Error::new(EMSGSIZE));
    }
    Ok(())
}
