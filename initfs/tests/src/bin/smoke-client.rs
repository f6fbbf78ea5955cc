//! A client of `smoke-daemon` that does one thing, named by its first argument.

#![no_std]
#![no_main]

use libredox::Fd;
use libredox::call::MmapArgs;
use libredox::flag::{MAP_SHARED, O_RDWR, PROT_READ, PROT_WRITE};
use rt::protocol::FIRST_HANDED_FD;
use syscall::CallFlags;

rt::entry!(main);

/// Exit codes: as promised, and not.
const KEPT: u8 = 0;
const BROKEN: u8 = 1;

fn main() -> u8 {
    match rt::start::arguments().nth(1) {
        Some("never") => check(|file| ask(file, &[1]), 0),
        Some("uid") => check(|file| ask(file, &[4]), 1000),
        Some("handed") => verdict(ask(FIRST_HANDED_FD, &[0, 42]), 42),
        Some("space") => leave_space(),
        Some("idle") => KEPT,
        Some("crash") => crash(),
        Some("panic") => panic!("as it should"),
        _ => BROKEN,
    }
}

fn check(ask: impl Fn(usize) -> Option<usize>, expected: usize) -> u8 {
    let Ok(file) = Fd::open("/scheme/smoke/file", O_RDWR, 0) else {
        return BROKEN;
    };
    verdict(ask(file.raw()), expected)
}

fn verdict(answer: Option<usize>, expected: usize) -> u8 {
    if answer == Some(expected) {
        KEPT
    } else {
        BROKEN
    }
}

fn ask(file: usize, words: &[u64]) -> Option<usize> {
    libredox::call::call_rw(file, &mut [], CallFlags::empty(), words).ok()
}

/// Maps a page of the daemon's, and sends its address space to the file that it was handed.
fn leave_space() -> u8 {
    let Ok(file) = Fd::open("/scheme/smoke/file", O_RDWR, 0) else {
        return BROKEN;
    };
    let args = MmapArgs {
        addr: core::ptr::null_mut(),
        length: 4096,
        prot: PROT_READ | PROT_WRITE,
        flags: MAP_SHARED,
        fd: file.raw(),
        offset: 0,
    };
    // SAFETY: nothing is at a null address that the kernel could replace.
    if unsafe { libredox::call::mmap(args) }.is_err() {
        return BROKEN;
    }
    let sent = rt::fd::dup(rt::protocol::THREAD_FD, b"addrspace").and_then(|space| {
        syscall::call_wo(FIRST_HANDED_FD, &space.to_ne_bytes(), CallFlags::FD, &[0])
    });
    u8::from(sent.is_err())
}

fn crash() -> u8 {
    // SAFETY: none: this is the crash that the test wants, a page fault.
    unsafe { core::arch::asm!("mov byte ptr [0], 1") };
    KEPT
}
