//! The C symbols that the crate `libredox` (0.1.25) declares, and one more of relibc's, over raw
//! system calls.
//!
//! What a scheme daemon or its client needs is here and does what relibc's does; the rest
//! ([`missing`]) answers ENOSYS. Results are as in libredox: a value, or an errno negated.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libredox::data::{Stat, StatVfs, TimeSpec};
use libredox::error::Error as LibredoxError;
use libredox::protocol::ProcCall;
use syscall::data::{Map, StdFsCallMeta};
use syscall::dirent::DirentHeader;
use syscall::error::{EINVAL, EMFILE, Error, Result};
use syscall::flag::{CallFlags, F_DUPFD, MapFlags, O_FCNTL_MASK, StdFsCallKind};
use syscall::{PAGE_SIZE, SYS_CALL, SYS_OPENAT_INTO};

use crate::fd::{self, Owned};
use crate::protocol::{DUP_REGISTER, NAMESPACE_FD, THREAD_FD};
use crate::start;

mod event;
pub mod missing;

type Raw = usize;

/// The process's name space.
static NAMESPACE: AtomicUsize = AtomicUsize::new(NAMESPACE_FD);

fn mux(result: Result<usize>) -> Raw {
    Error::mux(result)
}

fn mux_unit(result: Result<()>) -> Raw {
    Error::mux(result.map(|()| 0))
}

/// Bytes that a caller passes in.
///
/// # Safety
///
/// `base` points to `length` readable bytes for as long as the slice is used, or `length` is 0.
unsafe fn input<'a>(base: *const u8, length: usize) -> &'a [u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: as the caller vouches.
    unsafe { core::slice::from_raw_parts(base, length) }
}

/// Bytes that a caller wants filled.
///
/// # Safety
///
/// `base` points to `length` writeable bytes that nobody else uses, or `length` is 0.
unsafe fn output<'a>(base: *mut u8, length: usize) -> &'a mut [u8] {
    if length == 0 {
        return &mut [];
    }
    // SAFETY: as the caller vouches.
    unsafe { core::slice::from_raw_parts_mut(base, length) }
}

/// Opens relative to an fd. The path goes to the kernel as it is: the kernel checks it.
fn open_at(fd: usize, path: &[u8], flags: usize, fcntl_flags: usize) -> Result<usize> {
    let (base, length) = (path.as_ptr() as usize, path.len());
    fd::open_with(|number| {
        // SAFETY: the kernel reads the path's bytes only.
        unsafe {
            syscall::syscall6(
                SYS_OPENAT_INTO,
                fd,
                base,
                length,
                flags,
                fcntl_flags,
                number,
            )
        }
    })
}

/// # Safety
///
/// As for all of these: pointers are valid for their lengths, as libredox's wrappers see to.
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_open_v1(path: *const u8, length: usize, flags: u32, mode: u16) -> Raw {
    // SAFETY: by contract.
    let path = unsafe { input(path, length) };
    let flags = flags as usize & 0xFFFF_0000 | usize::from(mode);
    mux(open_at(
        NAMESPACE.load(Relaxed),
        path,
        flags,
        flags & O_FCNTL_MASK,
    ))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_openat_v1(
    fd: usize,
    path: *const u8,
    length: usize,
    flags: u32,
    fcntl_flags: u32,
) -> Raw {
    // SAFETY: by contract.
    let path = unsafe { input(path, length) };
    mux(open_at(fd, path, flags as usize, fcntl_flags as usize))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_dup_v1(fd: usize, request: *const u8, length: usize) -> Raw {
    // SAFETY: by contract.
    mux(fd::dup(fd, unsafe { input(request, length) }))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_dup2_v1(
    old: usize,
    new: usize,
    request: *const u8,
    length: usize,
) -> Raw {
    // SAFETY: by contract.
    let request = unsafe { input(request, length) };
    mux(syscall::dup2(old, new, request).inspect(|_| fd::mark_used(new)))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_read_v1(fd: usize, bytes: *mut u8, length: usize) -> Raw {
    // SAFETY: by contract.
    mux(syscall::read(fd, unsafe { output(bytes, length) }))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_write_v1(fd: usize, bytes: *const u8, length: usize) -> Raw {
    // SAFETY: by contract.
    mux(syscall::write(fd, unsafe { input(bytes, length) }))
}

#[unsafe(no_mangle)]
extern "C" fn redox_close_v1(fd: usize) -> Raw {
    mux_unit(fd::close(fd))
}

#[unsafe(no_mangle)]
extern "C" fn redox_fcntl_v0(fd: usize, command: usize, argument: usize) -> Raw {
    if command == F_DUPFD {
        return mux(fd::dup(fd, &[]));
    }
    mux(syscall::fcntl(fd, command, argument))
}

#[unsafe(no_mangle)]
extern "C" fn redox_fsync_v1(fd: usize) -> Raw {
    mux(syscall::fsync(fd))
}

#[unsafe(no_mangle)]
extern "C" fn redox_fdatasync_v1(fd: usize) -> Raw {
    mux(syscall::fsync(fd))
}

#[unsafe(no_mangle)]
extern "C" fn redox_fchown_v1(fd: usize, uid: u32, gid: u32) -> Raw {
    mux(syscall::fchown(fd, uid, gid))
}

#[unsafe(no_mangle)]
extern "C" fn redox_fchmod_v1(fd: usize, mode: u16) -> Raw {
    mux(std_fs(fd, &mut [], StdFsCallKind::Fchmod, mode.into(), 0))
}

#[unsafe(no_mangle)]
extern "C" fn redox_ftruncate_v0(fd: usize, length: usize) -> Raw {
    mux(std_fs(
        fd,
        &mut [],
        StdFsCallKind::Ftruncate,
        length as u64,
        0,
    ))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fpath_v1(fd: usize, path: *mut u8, length: usize) -> Raw {
    // SAFETY: by contract.
    mux(syscall::fpath(fd, unsafe { output(path, length) }))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_getdents_v0(
    fd: usize,
    entries: *mut u8,
    length: usize,
    position: u64,
) -> Raw {
    // SAFETY: by contract.
    let entries = unsafe { output(entries, length) };
    let header = size_of::<DirentHeader>() as u64;
    mux(std_fs(
        fd,
        entries,
        StdFsCallKind::Getdents,
        position,
        header,
    ))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fstat_v1(fd: usize, target: *mut Stat) -> Raw {
    let mut stat = syscall::Stat::default();
    if let Err(error) = syscall::fstat(fd, &mut stat) {
        return mux(Err(error));
    }
    // SAFETY: `Stat` is plain integers; the caller passes room for one.
    unsafe {
        target.write_bytes(0, 1);
        (*target).st_dev = stat.st_dev as _;
        (*target).st_ino = stat.st_ino as _;
        (*target).st_mode = stat.st_mode as _;
        (*target).st_nlink = stat.st_nlink as _;
        (*target).st_uid = stat.st_uid as _;
        (*target).st_gid = stat.st_gid as _;
        (*target).st_size = stat.st_size as _;
        (*target).st_blksize = stat.st_blksize as _;
        (*target).st_blocks = stat.st_blocks as _;
    }
    0
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_fstatvfs_v1(fd: usize, target: *mut StatVfs) -> Raw {
    let mut stat = syscall::StatVfs::default();
    if let Err(error) = std_fs(fd, &mut stat, StdFsCallKind::Fstatvfs, 0, 0) {
        return mux(Err(error));
    }
    // SAFETY: `StatVfs` is plain integers; the caller passes room for one.
    unsafe {
        target.write_bytes(0, 1);
        (*target).f_bsize = stat.f_bsize as _;
        (*target).f_frsize = stat.f_bsize as _;
        (*target).f_blocks = stat.f_blocks as _;
        (*target).f_bfree = stat.f_bfree as _;
        (*target).f_bavail = stat.f_bavail as _;
    }
    0
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_futimens_v1(fd: usize, times: *const TimeSpec) -> Raw {
    // SAFETY: by contract: access and modification time.
    let times = unsafe { times.cast::<[TimeSpec; 2]>().read() };
    let mut bytes = [0; 2 * size_of::<syscall::TimeSpec>()];
    let (targets, _) = bytes.as_chunks_mut::<{ size_of::<syscall::TimeSpec>() }>();
    for (target, time) in targets.iter_mut().zip(&times) {
        target[..8].copy_from_slice(&time.tv_sec.to_ne_bytes());
        target[8..12].copy_from_slice(&(time.tv_nsec as i32).to_ne_bytes());
    }
    let meta = StdFsCallMeta::new(StdFsCallKind::Futimens, 0, 0);
    mux(syscall::call_wo(fd, &bytes, CallFlags::STD_FS, &meta))
}

/// A call of the standard file kind, reading into `payload`.
fn std_fs(fd: usize, payload: &mut [u8], kind: StdFsCallKind, a: u64, b: u64) -> Result<usize> {
    let meta = StdFsCallMeta::new(kind, a, b);
    syscall::call_ro(fd, payload, CallFlags::STD_FS, &meta)
}

/// # Safety
///
/// See [`redox_open_v1`]; and whatever is mapped in the range of a fixed mapping goes.
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_mmap_v1(
    address: *mut (),
    length: usize,
    protection: u32,
    flags: u32,
    fd: usize,
    offset: u64,
) -> Raw {
    let map = Map {
        offset: offset as usize,
        size: length.next_multiple_of(PAGE_SIZE),
        flags: MapFlags::from_bits_retain((protection as usize) << 16 | flags as usize & 0xFFFF),
        address: address as usize,
    };
    // SAFETY: the caller answers for a fixed address; without one nothing is replaced.
    mux(unsafe { syscall::fmap(fd, &map) })
}

/// # Safety
///
/// Nothing uses the range any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_munmap_v1(address: *mut (), length: usize) -> Raw {
    let Some(length) = length.checked_next_multiple_of(PAGE_SIZE) else {
        return mux(Err(Error::new(EINVAL)));
    };
    // SAFETY: by contract.
    mux(unsafe { syscall::funmap(address as usize, length) })
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_sys_call_v0(
    fd: usize,
    payload: *mut u8,
    length: usize,
    flags: usize,
    metadata: *const u64,
    words: usize,
) -> Raw {
    let flags = CallFlags::from_bits_retain(flags);
    // SAFETY: by contract.
    let call = || unsafe {
        syscall::syscall5(
            SYS_CALL,
            fd,
            payload as usize,
            length,
            words | flags.bits(),
            metadata as usize,
        )
    };
    if !flags.contains(CallFlags::FD) {
        return mux(call());
    }
    // SAFETY: by contract the payload is whole words; `u8` pointers may be less aligned, which
    // the copies below allow for.
    let fds = payload.cast::<usize>();
    let count = length / size_of::<usize>();
    if flags.contains(CallFlags::READ) {
        // SAFETY: as above.
        return mux(unsafe { receive(fds, count, call) });
    }
    let sent = call();
    if sent.is_ok() && !flags.contains(CallFlags::FD_CLONE) {
        for index in 0..count {
            // SAFETY: as above.
            fd::release(unsafe { fds.add(index).read_unaligned() });
        }
    }
    mux(sent)
}

/// Has a call fill fds in at numbers of our choice: all numbers, where the first is
/// `usize::MAX`, or those that the caller has written there.
///
/// # Safety
///
/// `fds` points to `count` words, aligned or not.
unsafe fn receive(
    fds: *mut usize,
    count: usize,
    call: impl FnOnce() -> Result<usize>,
) -> Result<usize> {
    // SAFETY: by contract, here and below.
    let ours = count > 0 && unsafe { fds.read_unaligned() } == usize::MAX;
    let mut reserved = 0;
    let result = loop {
        if reserved == count {
            break call();
        }
        // SAFETY: `reserved` is less than `count`.
        let slot = unsafe { fds.add(reserved) };
        if ours {
            match fd::reserve() {
                // SAFETY: as above.
                Ok(number) => unsafe { slot.write_unaligned(number) },
                Err(_) => break Err(Error::new(EMFILE)),
            }
        } else {
            // SAFETY: as above.
            fd::mark_used(unsafe { slot.read_unaligned() });
        }
        reserved += 1;
    };
    if result.is_err() {
        for index in 0..reserved {
            // SAFETY: as above.
            fd::release(unsafe { fds.add(index).read_unaligned() });
        }
    }
    result
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_sys_call_multiple_v0(
    fds: *const usize,
    count: usize,
    payload: *mut u8,
    length: usize,
    flags: usize,
    metadata: *const u64,
    words: usize,
) -> Raw {
    let flags = flags | CallFlags::MULTIPLE_FDS.bits();
    // SAFETY: by contract.
    mux(unsafe {
        syscall::syscall6(
            SYS_CALL,
            fds as usize,
            payload as usize,
            length,
            words | flags,
            metadata as usize,
            count * size_of::<usize>(),
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn redox_get_pid_v1() -> Raw {
    start::pid() as usize
}

#[unsafe(no_mangle)]
extern "C" fn redox_get_euid_v1() -> Raw {
    start::ids().0 as usize
}

#[unsafe(no_mangle)]
extern "C" fn redox_get_ruid_v1() -> Raw {
    redox_get_euid_v1()
}

#[unsafe(no_mangle)]
extern "C" fn redox_get_egid_v1() -> Raw {
    start::ids().1 as usize
}

#[unsafe(no_mangle)]
extern "C" fn redox_get_rgid_v1() -> Raw {
    redox_get_egid_v1()
}

/// Any context of the process will do for what it is used for: its address space and files.
#[unsafe(no_mangle)]
extern "C" fn redox_cur_thrfd_v0() -> usize {
    THREAD_FD
}

/// libredox declares the buffer as a slice, by Rust's layout of it: the same type here.
#[unsafe(no_mangle)]
#[allow(improper_ctypes_definitions)]
extern "C" fn redox_get_proc_credentials_v1(fd: usize, pid: usize, target: &mut [u8]) -> Raw {
    let metadata = [ProcCall::GetProcCredentials as u64, pid as u64];
    mux(syscall::call_ro(fd, target, CallFlags::empty(), &metadata))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_clock_gettime_v1(clock: usize, target: *mut TimeSpec) -> Raw {
    let mut time = syscall::TimeSpec::default();
    if let Err(error) = syscall::clock_gettime(clock, &mut time) {
        return mux(Err(error));
    }
    // SAFETY: by contract.
    unsafe {
        target.write(TimeSpec {
            tv_sec: time.tv_sec as _,
            tv_nsec: time.tv_nsec.into(),
        });
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn redox_get_ns_v0() -> Raw {
    NAMESPACE.load(Relaxed)
}

#[unsafe(no_mangle)]
extern "C" fn redox_setns_v0(fd: usize) -> Raw {
    NAMESPACE.swap(fd, Relaxed)
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_register_scheme_to_ns_v0(
    namespace: usize,
    name: *const u8,
    length: usize,
    root: usize,
) -> Raw {
    // SAFETY: by contract.
    let name = unsafe { input(name, length) };
    let request = [DUP_REGISTER, name].concat();
    let registered = fd::dup(namespace, &request).and_then(|fd| {
        let registration = Owned::new(fd);
        let sent = syscall::call_wo(registration.raw(), &root.to_ne_bytes(), CallFlags::FD, &[])?;
        // The kernel has taken the root out of our table.
        fd::release(root);
        Ok(sent)
    });
    mux(registered.map(|_| 0))
}

/// # Safety
///
/// See [`redox_open_v1`].
#[unsafe(no_mangle)]
unsafe extern "C" fn redox_strerror_v1(target: *mut u8, length: *mut usize, errno: u32) -> Raw {
    let text = syscall::error::STR_ERROR
        .get(errno as usize)
        .copied()
        .unwrap_or("unknown error");
    // SAFETY: by contract: `length` says how much room there is at `target`.
    let target = unsafe { output(target, length.read()) };
    let copied = text.len().min(target.len());
    target[..copied].copy_from_slice(&text.as_bytes()[..copied]);
    // SAFETY: by contract.
    unsafe { length.write(text.len()) };
    LibredoxError::mux(Ok(copied))
}
