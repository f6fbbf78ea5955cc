//! How a program begins and ends.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use syscall::CallFlags;
use syscall::flag::ContextVerb;

use crate::fd;
use crate::protocol::{Call, PROCESS_FD, StartInfo, THREAD_FD};

/// Makes `$main` (a `fn() -> u8`, the exit code) the program's entry point.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Where the bootstrap process starts the program: an aligned stack, the start
        /// information's address in rsi.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        extern "C" fn _start() -> ! {
            ::core::arch::naked_asm!(
                "xor ebp, ebp",
                "mov rdi, rsi",
                "call {run}",
                "ud2",
                run = sym __run_main,
            )
        }

        extern "C" fn __run_main(info: *mut $crate::protocol::StartInfo) -> ! {
            // SAFETY: only `_start` calls this, once, with what the bootstrap process passed.
            unsafe { $crate::start::run(info, $main) }
        }
    };
}

static INFO: AtomicPtr<StartInfo> = AtomicPtr::new(core::ptr::null_mut());

/// Runs a program; called by [`entry!`].
///
/// # Safety
///
/// `start` is what the bootstrap process passed, and this is called once, first.
pub unsafe fn run(start: *mut StartInfo, main: fn() -> u8) -> ! {
    INFO.store(start, Ordering::Release);
    if let Some(info) = info() {
        set_ids(info.uid, info.gid);
        PID.store(info.pid, Ordering::Relaxed);
    }
    fd::find_inherited();
    exit(main())
}

/// What the program was started with; `None` in the bootstrap process itself.
pub fn info() -> Option<&'static StartInfo> {
    let info = NonNull::new(INFO.load(Ordering::Acquire))?;
    // SAFETY: `run` stored the address of a page that stays mapped and that nobody writes to.
    Some(unsafe { info.as_ref() })
}

/// That of the bootstrap process, which nobody tells.
static PID: AtomicU32 = AtomicU32::new(1);

/// The process's number.
pub fn pid() -> u32 {
    PID.load(Ordering::Relaxed)
}

/// Asks for the process's number, which is another one after a fork.
pub(crate) fn find_own_number() {
    let asked = syscall::call_wo(PROCESS_FD, &[], CallFlags::empty(), &[Call::Pid as u64]);
    if let Ok(pid) = asked {
        PID.store(pid as u32, Ordering::Relaxed);
    }
}

static UID: AtomicU32 = AtomicU32::new(0);
static GID: AtomicU32 = AtomicU32::new(0);

/// Remembers who the process is.
pub(crate) fn set_ids(uid: u32, gid: u32) {
    UID.store(uid, Ordering::Relaxed);
    GID.store(gid, Ordering::Relaxed);
}

/// The process's effective user and group.
pub fn ids() -> (u32, u32) {
    (UID.load(Ordering::Relaxed), GID.load(Ordering::Relaxed))
}

/// The program's name and its arguments.
pub fn arguments() -> impl Iterator<Item = &'static str> {
    let bytes = info().map_or(&[][..], |info| {
        let start = core::ptr::from_ref(info).cast::<u8>();
        // SAFETY: the bootstrap process put the arguments right behind the structure.
        unsafe {
            core::slice::from_raw_parts(
                start.add(StartInfo::ARGUMENTS),
                info.argument_bytes as usize,
            )
        }
    });
    bytes
        .split_inclusive(|&byte| byte == 0)
        .map(|argument| core::str::from_utf8(&argument[..argument.len() - 1]).unwrap_or(""))
}

/// Ends the process, all its threads included.
pub fn exit(code: u8) -> ! {
    let metadata = [Call::Exit as u64, code.into()];
    // The bootstrap process ends this context before it answers; without one (in the bootstrap
    // process itself) the context ends itself.
    let _ = syscall::call_wo(PROCESS_FD, &[], CallFlags::empty(), &metadata);
    loop {
        let _ = syscall::write(THREAD_FD, &(ContextVerb::ForceKill as usize).to_ne_bytes());
    }
}

/// The exit code of a program that panicked.
pub const PANICKED: u8 = 101;

#[cfg(feature = "program")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    let name = arguments().next().unwrap_or("bootstrap");
    let message = info.message();
    match info.location() {
        Some(at) => crate::say!("# {name} panicked at {at}: {message}"),
        None => crate::say!("# {name} panicked: {message}"),
    }
    exit(PANICKED)
}
