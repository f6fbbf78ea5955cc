//! What this platform does not have: other name spaces, the process manager.

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
