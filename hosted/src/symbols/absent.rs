//! What this platform does not have: other name spaces, event queues, the process manager.

use libc::timespec;
use syscall::error::{ENOSYS, Error};

use super::RawResult;

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
