//! A file's status, owner, times and entries: mostly standard file-system calls.

use libc::timespec;
use syscall::data::{Stat, StatVfs, StdFsCallMeta, TimeSpec};
use syscall::error::Error;
use syscall::flag::{CallFlags, StdFsCallKind};

use super::{RawResult, bytes_mut, number, std_fs_in, std_fs_out, sys_call};
use crate::proto::{Op, PAYLOAD_MAX};

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
