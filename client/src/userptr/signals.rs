//! No signal handler runs on this thread for a while.
//!
//! A handler could touch memory that is on its way to the server, and wait for the very thread
//! that it interrupts.

/// The value of `SIG_SETMASK`, on Linux and with relibc.
const SIG_SETMASK: u32 = 2;

unsafe extern "C" {
    // libredox has it, too, with another type for the sets on each system.
    fn redox_sigprocmask_v1(how: u32, new: *const u64, old: *mut u64) -> usize;
}

/// Blocks all signals until it is dropped, on the thread that made it.
pub(super) struct Blocked {
    /// The mask before; `None` where there are no signals.
    before: Option<u64>,
    /// It belongs to the thread.
    _here: core::marker::PhantomData<*const ()>,
}

impl Blocked {
    pub(super) fn new() -> Self {
        let mut before = 0;
        // SAFETY: both sets are words, as the call expects.
        let blocked = unsafe { redox_sigprocmask_v1(SIG_SETMASK, &u64::MAX, &mut before) };
        Self {
            before: (blocked == 0).then_some(before),
            _here: core::marker::PhantomData,
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: as above; no old set is asked for.
            unsafe { redox_sigprocmask_v1(SIG_SETMASK, &before, core::ptr::null_mut()) };
        }
    }
}
