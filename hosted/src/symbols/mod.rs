//! The C symbols of libredox.
//!
//! Each does for libredox what Redox's C library does: it puts the arguments into the kernel's
//! form and makes the system call, in the daemon's process on the kernel there, in every other
//! over the connection. Results are numbers or negated errnos. What has no meaning on Linux
//! answers ENOSYS: namespaces other than the one.
//!
//! Safety, for all of them: pointers are valid for the lengths that come with them, as libredox
//! makes sure of. Who calls them otherwise must do so too.

mod absent;
mod events;
mod files;
mod process;
mod status;

use std::slice;

use syscall::data::StdFsCallMeta;
use syscall::error::{EINVAL, EMSGSIZE, ENOSYS, Error, Result};
use syscall::flag::{CallFlags, StdFsCallKind};

use crate::client;
use crate::kernel;
use crate::proto::{Op, PAYLOAD_MAX, Request, demux};

/// A number, or a negated errno.
type RawResult = usize;

/// What a system call came to: its result, and what the payload became.
struct Done {
    result: usize,
    payload: Vec<u8>,
}

/// Makes a system call on whichever kernel this process has.
fn make(request: Request, payload: &[u8]) -> Result<Done> {
    if payload.len() > PAYLOAD_MAX {
        return Err(Error::new(EMSGSIZE));
    }
    let Some(kernel) = kernel::installed() else {
        let answer = client::call(request, payload)?;
        return Ok(Done {
            result: answer.result,
            payload: answer.payload,
        });
    };
    let op = Op::from_raw(request.op).ok_or(Error::new(ENOSYS))?;
    let answer = match op {
        Op::Open => kernel.open(request, payload),
        Op::Dup => kernel.dup(request, payload),
        Op::Close => kernel.close(request),
        Op::Fcntl => kernel.fcntl(request),
        Op::Call => kernel.call(request, payload),
        _ => kernel.local(op, request, payload),
    }?;
    Ok(Done {
        result: answer.result,
        payload: answer.payload,
    })
}

fn number(op: Op, fd: usize, args: &[u64], payload: &[u8]) -> Result<usize> {
    demux(make(Request::new(op, fd, args), payload)?.result)
}

/// A system call whose payload comes back into `buffer`.
fn fill(op: Op, fd: usize, buffer: &mut [u8]) -> Result<usize> {
    let length = buffer.len().min(PAYLOAD_MAX);
    let done = make(Request::new(op, fd, &[length as u64]), &[])?;
    copy_back(buffer, &done.payload);
    demux(done.result)
}

fn copy_back(buffer: &mut [u8], payload: &[u8]) {
    buffer
        .iter_mut()
        .zip(payload)
        .for_each(|(to, from)| *to = *from);
}

/// `SYS_CALL`. The payload comes back if the flags let the scheme answer in it.
fn sys_call(fds: &[usize], payload: &mut [u8], flags: usize, words: &[u64]) -> Result<usize> {
    let [first, rest @ ..] = fds else {
        return Err(Error::new(EINVAL));
    };
    if fds.len() > 2 {
        return Err(Error::new(EINVAL));
    }
    let back = flags & CallFlags::READ.bits() != 0;
    let done = make(call_request(*first, rest, flags, words), payload)?;
    if back {
        copy_back(payload, &done.payload);
    }
    demux(done.result)
}

/// Without a mutable payload: what the scheme answers in it is lost.
fn sys_call_in(fds: &[usize], payload: &[u8], flags: usize, words: &[u64]) -> Result<usize> {
    let [first, rest @ ..] = fds else {
        return Err(Error::new(EINVAL));
    };
    if fds.len() > 2 {
        return Err(Error::new(EINVAL));
    }
    demux(make(call_request(*first, rest, flags, words), payload)?.result)
}

/// The kernel takes three words; it drops what is more without a word.
fn call_request(first: usize, rest: &[usize], flags: usize, words: &[u64]) -> Request {
    let second = rest.first().copied().unwrap_or(0);
    let mut args = [0; 6];
    let count = words.len().min(3);
    let fds = 1 + rest.len();
    args[..3].copy_from_slice(&[flags as u64, (fds | count << 8) as u64, second as u64]);
    args[3..3 + count].copy_from_slice(&words[..count]);
    Request::new(Op::Call, first, &args)
}

fn std_fs(fd: usize, payload: &mut [u8], flags: CallFlags, meta: &StdFsCallMeta) -> Result<usize> {
    sys_call(&[fd], payload, (flags | CallFlags::STD_FS).bits(), meta)
}

fn std_fs_out(fd: usize, payload: &mut [u8], kind: StdFsCallKind, args: [u64; 2]) -> Result<usize> {
    let [one, two] = args;
    std_fs(
        fd,
        payload,
        CallFlags::READ,
        &StdFsCallMeta::new(kind, one, two),
    )
}

fn std_fs_in(fd: usize, payload: &[u8], kind: StdFsCallKind, argument: u64) -> Result<usize> {
    let flags = CallFlags::STD_FS | CallFlags::WRITE;
    sys_call_in(
        &[fd],
        payload,
        flags.bits(),
        &StdFsCallMeta::new(kind, argument, 0),
    )
}

/// The bytes at `base`, which may be dangling where there are none.
///
/// # Safety
///
/// `base` is valid for reading `length` bytes for as long as the result is used.
unsafe fn bytes<'a>(base: *const u8, length: usize) -> &'a [u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(base, length) }
}

/// The bytes at `base`, to write.
///
/// # Safety
///
/// `base` is valid for reading and writing `length` bytes, and used by nobody else, for as long
/// as the result is used.
unsafe fn bytes_mut<'a>(base: *mut u8, length: usize) -> &'a mut [u8] {
    if length == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts_mut(base, length) }
}
