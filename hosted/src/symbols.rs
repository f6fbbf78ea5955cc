//! The C symbols of libredox.
//!
//! Each does for libredox what Redox's C library does: it puts the arguments into the kernel's
//! form and makes the system call, in the daemon's process on the kernel there, in every other
//! over the connection. Results are numbers or negated errnos. What has no meaning on Linux
//! answers ENOSYS: namespaces other than the one, event queues.
//!
//! Safety, for all of them: pointers are valid for the lengths that come with them, as libredox
//! makes sure of. Who calls them otherwise must do so too.

use std::ptr;
use std::slice;

use libc::{c_int, timespec};
use syscall::data::{Stat, StatVfs, StdFsCallMeta, TimeSpec};
use syscall::error::{EBUSY, EINVAL, EMSGSIZE, ENAMETOOLONG, ENOSYS, Error, Result, STR_ERROR};
use syscall::flag::{CallFlags, O_FCNTL_MASK, StdFsCallKind};

use crate::client;
use crate::flags::{map_flags, open_flags, status_flags};
use crate::kernel;
use crate::proto::{Op, PATH_MAX, PAYLOAD_MAX, Request};

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
    Error::demux(make(Request::new(op, fd, args), payload)?.result)
}

/// A system call whose payload comes back into `buffer`.
fn fill(op: Op, fd: usize, buffer: &mut [u8]) -> Result<usize> {
    let length = buffer.len().min(PAYLOAD_MAX);
    let done = make(Request::new(op, fd, &[length as u64]), &[])?;
    copy_back(buffer, &done.payload);
    Error::demux(done.result)
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
    Error::demux(done.result)
}

/// Without a mutable payload: what the scheme answers in it is lost.
fn sys_call_in(fds: &[usize], payload: &[u8], flags: usize, words: &[u64]) -> Result<usize> {
    let [first, rest @ ..] = fds else {
        return Err(Error::new(EINVAL));
    };
    if fds.len() > 2 {
        return Err(Error::new(EINVAL));
    }
    Error::demux(make(call_request(*first, rest, flags, words), payload)?.result)
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
unsafe extern "C" fn redox_fchmod_v1(fd: usize, mode: u16) -> RawResult {
    Error::mux(std_fs_in(fd, &[], StdFsCallKind::Fchmod, mode.into()).map(|_| 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fchown_v1(fd: usize, uid: u32, gid: u32) -> RawResult {
    Error::mux(number(Op::Fchown, fd, &[uid.into(), gid.into()], &[]))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_getdents_v0(
    fd: usize,
    buffer: *mut u8,
    length: usize,
    opaque: u64,
) -> RawResult {
    // SAFETY: the module's rule.
    let buffer = unsafe { bytes_mut(buffer, length.min(PAYLOAD_MAX)) };
    let header = size_of::<syscall::dirent::DirentHeader>() as u64;
    Error::mux(std_fs_out(
        fd,
        buffer,
        StdFsCallKind::Getdents,
        [opaque, header],
    ))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fstat_v1(fd: usize, to: *mut libc::stat) -> RawResult {
    let mut redox = Stat::default();
    let result = std_fs_out(fd, &mut redox, StdFsCallKind::Fstat, [0, 0]);
    if result.is_ok() && !to.is_null() {
        // SAFETY: the module's rule; a `stat` of zeroes is valid.
        unsafe { to.write(linux_stat(&redox)) };
    }
    Error::mux(result.map(|_| 0))
}

fn linux_stat(redox: &Stat) -> libc::stat {
    // SAFETY: `stat` is integers only.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    stat.st_dev = redox.st_dev;
    stat.st_ino = redox.st_ino;
    stat.st_mode = redox.st_mode.into();
    stat.st_nlink = redox.st_nlink as libc::nlink_t;
    stat.st_uid = redox.st_uid;
    stat.st_gid = redox.st_gid;
    stat.st_size = redox.st_size as libc::off_t;
    stat.st_blksize = redox.st_blksize as libc::blksize_t;
    stat.st_blocks = redox.st_blocks as libc::blkcnt_t;
    stat.st_atime = redox.st_atime as libc::time_t;
    stat.st_atime_nsec = redox.st_atime_nsec.into();
    stat.st_mtime = redox.st_mtime as libc::time_t;
    stat.st_mtime_nsec = redox.st_mtime_nsec.into();
    stat.st_ctime = redox.st_ctime as libc::time_t;
    stat.st_ctime_nsec = redox.st_ctime_nsec.into();
    stat
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fstatvfs_v1(fd: usize, to: *mut libc::statvfs) -> RawResult {
    let mut redox = StatVfs::default();
    let result = std_fs_out(fd, &mut redox, StdFsCallKind::Fstatvfs, [0, 0]);
    if result.is_ok() && !to.is_null() {
        // SAFETY: the module's rule; `statvfs` is integers only.
        unsafe {
            let mut linux: libc::statvfs = std::mem::zeroed();
            linux.f_bsize = redox.f_bsize.into();
            linux.f_frsize = redox.f_bsize.into();
            linux.f_blocks = redox.f_blocks;
            linux.f_bfree = redox.f_bfree;
            linux.f_bavail = redox.f_bavail;
            to.write(linux);
        }
    }
    Error::mux(result.map(|_| 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fsync_v1(fd: usize) -> RawResult {
    Error::mux(std_fs_in(fd, &[], StdFsCallKind::Fsync, 0).map(|_| 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fdatasync_v1(fd: usize) -> RawResult {
    Error::mux(std_fs_in(fd, &[], StdFsCallKind::Fsync, 0).map(|_| 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_ftruncate_v0(fd: usize, length: usize) -> RawResult {
    Error::mux(std_fs_in(fd, &[], StdFsCallKind::Ftruncate, length as u64).map(|_| 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_futimens_v1(fd: usize, times: *const timespec) -> RawResult {
    let now = timespec {
        tv_sec: 0,
        tv_nsec: libc::UTIME_NOW,
    };
    let times = if times.is_null() {
        [now, now]
    } else {
        // SAFETY: the module's rule: there are two.
        unsafe { times.cast::<[timespec; 2]>().read() }
    };
    let mut payload = Vec::with_capacity(2 * size_of::<TimeSpec>());
    for time in times {
        payload.extend_from_slice(&TimeSpec {
            tv_sec: time.tv_sec,
            tv_nsec: time.tv_nsec as i32,
        });
    }
    Error::mux(std_fs_in(fd, &payload, StdFsCallKind::Futimens, 0).map(|_| 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fpath_v1(fd: usize, buffer: *mut u8, length: usize) -> RawResult {
    // SAFETY: the module's rule.
    let buffer = unsafe { bytes_mut(buffer, length) };
    Error::mux(fill(Op::Fpath, fd, buffer))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn redox_relpathat_v0(
    directory: usize,
    fd: usize,
    buffer: *mut u8,
    length: usize,
) -> RawResult {
    // SAFETY: the module's rule.
    let buffer = unsafe { bytes_mut(buffer, length.min(PAYLOAD_MAX)) };
    let flags = CallFlags::READ | CallFlags::STD_FS;
    let meta = StdFsCallMeta::new(StdFsCallKind::Relpathat, 0, 0);
    Error::mux(sys_call(&[directory, fd], buffer, flags.bits(), &meta))
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
    let token = libredox_socket_call_get_token();
    Error::mux(sys_call(&[fd], buffer, CallFlags::READ.bits(), &[token]))
}

/// libredox's `SocketCall::GetToken`.
const fn libredox_socket_call_get_token() -> u64 {
    7
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
unsafe extern "C" fn redox_get_ns_v0() -> RawResult {
    let kernel = kernel::installed().ok_or(Error::new(ENOSYS));
    Error::mux(kernel.and_then(|kernel| kernel.namespace()))
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

#[expect(improper_ctypes_definitions, reason = "libredox declares it so")]
#[unsafe(no_mangle)]
extern "C" fn redox_get_proc_credentials_v1(
    _capability: usize,
    _pid: usize,
    _buffer: &mut [u8],
) -> RawResult {
    absent()
}

/// What this platform does not have.
fn absent() -> RawResult {
    Error::mux(Err(Error::new(ENOSYS)))
}

#[unsafe(no_mangle)]
extern "C" fn redox_get_ens_v0() -> RawResult {
    absent()
}

#[unsafe(no_mangle)]
extern "C" fn redox_setns_v0(_namespace: usize) -> RawResult {
    absent()
}

#[unsafe(no_mangle)]
extern "C" fn redox_setrens_v1(_real: usize, _effective: usize) -> RawResult {
    absent()
}

#[unsafe(no_mangle)]
extern "C" fn redox_mkns_v1(_names: *const libc::iovec, _count: usize, _flags: u32) -> RawResult {
    absent()
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_create_v1(_flags: u32) -> RawResult {
    absent()
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_destroy_v1(_queue: usize) -> RawResult {
    absent()
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_ctl_v1(
    _queue: usize,
    _fd: usize,
    _flags: u32,
    _data: usize,
) -> RawResult {
    absent()
}

#[unsafe(no_mangle)]
extern "C" fn redox_event_queue_get_events_v1(
    _queue: usize,
    _events: *mut core::ffi::c_void,
    _count: usize,
    _flags: u32,
    _timeout: *const timespec,
    _signals: *const u64,
) -> RawResult {
    absent()
}
