//! Opening, reading, mapping and calling files, and what a daemon does with its scheme.
//!
//! Each symbol takes libredox's arguments apart, and hands them on as the kernel's: to the kernel
//! in this process where it is a daemon, over the socket where it is a client.

use std::slice;

use libc::c_int;
use syscall::error::{EBUSY, EINVAL, ENAMETOOLONG, ENOSYS, Error, Result};
use syscall::flag::{CallFlags, O_FCNTL_MASK};

use super::{RawResult, bytes, bytes_mut, fill, number, sys_call, sys_call_in};
use crate::client;
use crate::flags::{map_flags, open_flags, status_flags};
use crate::kernel;
use crate::proto::{Op, PATH_MAX, PAYLOAD_MAX};

/// libredox's `SocketCall::GetToken`.
const SOCKET_GET_TOKEN: u64 = 7;

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_open_v1(
    path: *const u8,
    length: usize,
    flags: u32,
    mode: u16,
) -> RawResult {
    // SAFETY: the module's rule.
    let path = unsafe { bytes(path, length) };
    Error::mux(open(path, flags, mode))
}

fn open(path: &[u8], flags: u32, mode: u16) -> Result<usize> {
    if path.len() > PATH_MAX {
        return Err(Error::new(ENAMETOOLONG));
    }
    let flags = open_flags(flags)?;
    let with_mode = flags | usize::from(mode);
    number(
        Op::Open,
        0,
        &[with_mode as u64, (flags & O_FCNTL_MASK) as u64],
        path,
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_openat_v1(
    fd: usize,
    path: *const u8,
    length: usize,
    flags: u32,
    fcntl_flags: u32,
) -> RawResult {
    // SAFETY: the module's rule.
    let path = unsafe { bytes(path, length) };
    Error::mux(openat(fd, path, flags, fcntl_flags))
}

fn openat(fd: usize, path: &[u8], flags: u32, fcntl_flags: u32) -> Result<usize> {
    if path.len() > PATH_MAX {
        return Err(Error::new(ENAMETOOLONG));
    }
    let flags = open_flags(flags)? as u64;
    let fcntl_flags = open_flags(fcntl_flags)? & O_FCNTL_MASK;
    number(Op::OpenAt, fd, &[flags, fcntl_flags as u64], path)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_dup_v1(fd: usize, name: *const u8, length: usize) -> RawResult {
    // SAFETY: the module's rule.
    let name = unsafe { bytes(name, length) };
    Error::mux(number(Op::Dup, fd, &[], name))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_dup2_v1(
    fd: usize,
    new: usize,
    name: *const u8,
    length: usize,
) -> RawResult {
    // SAFETY: the module's rule.
    let name = unsafe { bytes(name, length) };
    Error::mux(number(Op::Dup2, fd, &[new as u64], name))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_read_v1(fd: usize, buffer: *mut u8, length: usize) -> RawResult {
    // SAFETY: the module's rule.
    let buffer = unsafe { bytes_mut(buffer, length) };
    Error::mux(match kernel::installed() {
        Some(kernel) => kernel.read(fd, buffer),
        None => fill(Op::Read, fd, buffer),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_write_v1(fd: usize, buffer: *const u8, length: usize) -> RawResult {
    // SAFETY: the module's rule.
    let buffer = unsafe { bytes(buffer, length) };
    Error::mux(match kernel::installed() {
        Some(kernel) => kernel.write(fd, buffer),
        None => {
            let some = buffer.get(..PAYLOAD_MAX).unwrap_or(buffer);
            number(Op::Write, fd, &[], some)
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_close_v1(fd: usize) -> RawResult {
    Error::mux(number(Op::Close, fd, &[], &[]))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fpath_v1(fd: usize, buffer: *mut u8, length: usize) -> RawResult {
    // SAFETY: the module's rule.
    let buffer = unsafe { bytes_mut(buffer, length) };
    Error::mux(fill(Op::Fpath, fd, buffer))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fcntl_v0(fd: usize, command: usize, argument: usize) -> RawResult {
    let argument = match command {
        syscall::flag::F_SETFL => status_flags(argument),
        _ => argument,
    };
    // Descriptors of schemes never survive exec here.
    let command = match command as c_int {
        libc::F_DUPFD_CLOEXEC => syscall::flag::F_DUPFD,
        _ => command,
    };
    Error::mux(number(
        Op::Fcntl,
        fd,
        &[command as u64, argument as u64],
        &[],
    ))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_mmap_v1(
    address: *mut (),
    size: usize,
    protection: u32,
    flags: u32,
    fd: usize,
    offset: u64,
) -> RawResult {
    let address = address.expose_provenance();
    Error::mux(mmap(address, size, protection, flags, fd, offset))
}

fn mmap(
    address: usize,
    size: usize,
    protection: u32,
    flags: u32,
    fd: usize,
    offset: u64,
) -> Result<usize> {
    if fd == usize::MAX {
        return client::anonymous(address, size, protection as c_int, flags as c_int);
    }
    // The daemon cannot map what it serves itself.
    if kernel::installed().is_some() {
        return Err(Error::new(EBUSY));
    }
    client::mmap(fd, address, size, map_flags(protection, flags)?, offset)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_munmap_v1(address: *mut (), size: usize) -> RawResult {
    Error::mux(client::munmap(address.expose_provenance(), size))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_sys_call_v0(
    fd: usize,
    payload: *mut u8,
    payload_length: usize,
    flags: usize,
    words: *const u64,
    words_length: usize,
) -> RawResult {
    // SAFETY: the module's rule.
    unsafe { call_raw(&[fd], payload, payload_length, flags, words, words_length) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_sys_call_multiple_v0(
    fds: *const usize,
    fds_length: usize,
    payload: *mut u8,
    payload_length: usize,
    flags: usize,
    words: *const u64,
    words_length: usize,
) -> RawResult {
    if fds_length == 0 {
        return Error::mux(Err(Error::new(EINVAL)));
    }
    let flags = flags | CallFlags::MULTIPLE_FDS.bits();
    // SAFETY: the module's rule.
    unsafe {
        let fds = slice::from_raw_parts(fds, fds_length);
        call_raw(fds, payload, payload_length, flags, words, words_length)
    }
}

/// # Safety
///
/// The module's rule; `payload` need not be writeable unless the flags have READ.
unsafe fn call_raw(
    fds: &[usize],
    payload: *mut u8,
    payload_length: usize,
    flags: usize,
    words: *const u64,
    words_length: usize,
) -> RawResult {
    let words = match words_length {
        0 => &[],
        // SAFETY: the caller's promise.
        length => unsafe { slice::from_raw_parts(words, length) },
    };
    let result = if flags & CallFlags::READ.bits() != 0 {
        // SAFETY: the caller's promise.
        let payload = unsafe { bytes_mut(payload, payload_length) };
        sys_call(fds, payload, flags, words)
    } else {
        // SAFETY: the caller's promise.
        let payload = unsafe { bytes(payload, payload_length) };
        sys_call_in(fds, payload, flags, words)
    };
    Error::mux(result)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_get_socket_token_v0(
    fd: usize,
    buffer: *mut u8,
    length: usize,
) -> RawResult {
    // SAFETY: the module's rule.
    let buffer = unsafe { bytes_mut(buffer, length) };
    Error::mux(sys_call(
        &[fd],
        buffer,
        CallFlags::READ.bits(),
        &[SOCKET_GET_TOKEN],
    ))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_register_scheme_to_ns_v0(
    namespace: usize,
    name: *const u8,
    length: usize,
    root: usize,
) -> RawResult {
    // SAFETY: the module's rule.
    let name = unsafe { bytes(name, length) };
    let name = str::from_utf8(name).map_err(|_| Error::new(EINVAL));
    let kernel = kernel::installed().ok_or(Error::new(ENOSYS));
    Error::mux(kernel.and_then(|kernel| kernel.register(namespace, name?, root)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_get_ns_v0() -> RawResult {
    let kernel = kernel::installed().ok_or(Error::new(ENOSYS));
    Error::mux(kernel.and_then(|kernel| kernel.namespace()))
}
