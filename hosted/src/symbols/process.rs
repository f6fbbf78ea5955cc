//! The process itself: who it is, signals, the clock, and errnos in words.

use std::ptr;

use libc::{c_int, timespec};
use syscall::error::{EINVAL, Error, Result, STR_ERROR};

use super::RawResult;
use crate::client;
use crate::kernel;

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_get_pid_v1() -> RawResult {
    std::process::id() as usize
}

fn identity() -> Result<(u32, u32)> {
    match kernel::installed() {
        Some(_) => Ok((0, 0)),
        None => client::identity(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_get_euid_v1() -> RawResult {
    Error::mux(identity().map(|(uid, _)| uid as usize))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_get_ruid_v1() -> RawResult {
    Error::mux(identity().map(|(uid, _)| uid as usize))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_get_egid_v1() -> RawResult {
    Error::mux(identity().map(|(_, gid)| gid as usize))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_get_rgid_v1() -> RawResult {
    Error::mux(identity().map(|(_, gid)| gid as usize))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_clock_gettime_v1(clock: usize, to: *mut timespec) -> RawResult {
    // SAFETY: the module's rule; Linux checks the clock's number.
    linux(unsafe { libc::clock_gettime(clock as c_int, to) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_kill_v1(pid: usize, signal: u32) -> RawResult {
    // SAFETY: Linux checks both numbers.
    linux(unsafe { libc::kill(pid as c_int, signal as c_int) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_waitpid_v1(pid: usize, status: *mut i32, options: u32) -> RawResult {
    // SAFETY: the module's rule.
    linux(unsafe { libc::waitpid(pid as c_int, status, options as c_int) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_sigprocmask_v1(how: u32, new: *const u64, old: *mut u64) -> RawResult {
    // Linux's own call takes masks of 64 bits, as libredox has them.
    let size = size_of::<u64>();
    // SAFETY: the module's rule; both masks are of the size that is given.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, old, size) };
    linux(result as c_int)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_sigaction_v1(
    signal: u32,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> RawResult {
    // SAFETY: the module's rule.
    linux(unsafe { libc::sigaction(signal as c_int, new, old) })
}

/// The result of a Linux call in libredox's form.
fn linux(result: c_int) -> RawResult {
    match result {
        -1 => Error::mux(Err(Error::new(nix::errno::Errno::last_raw()))),
        value => value as usize,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_strerror_v1(to: *mut u8, length: *mut usize, error: u32) -> RawResult {
    let Some(text) = STR_ERROR.get(error as usize) else {
        return Error::mux(Err(Error::new(EINVAL)));
    };
    // SAFETY: the module's rule. The texts are ASCII, so that any part of one is UTF-8.
    unsafe {
        let count = length.read().min(text.len());
        ptr::copy_nonoverlapping(text.as_ptr(), to, count);
        length.write(text.len());
        count
    }
}
