//! The symbols of libredox for what the image's programs do not have: each answers ENOSYS.

use libredox::data::SigAction;
use syscall::error::{ENOSYS, Error};

/// Defines symbols that answer ENOSYS whatever they are passed.
macro_rules! missing {
    ($($name:ident($($type:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($(_: $type),*) -> usize {
                Error::mux(Err(Error::new(ENOSYS)))
            }
        )*
    };
}

missing! {
    redox_relpathat_v0(usize, usize, *mut u8, usize);
    redox_get_ens_v0();
    redox_setrens_v1(usize, usize);
    redox_mkns_v1(*const libc::iovec, usize, u32);
    redox_kill_v1(usize, u32);
    redox_waitpid_v1(usize, *mut i32, u32);
    redox_sigprocmask_v1(u32, *const u64, *mut u64);
    redox_sigaction_v1(u32, *const SigAction, *mut SigAction);
    redox_get_socket_token_v0(usize, *mut u8, usize);
}
