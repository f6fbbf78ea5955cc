//! A client of `smoke-daemon` that does one thing, named by its first argument.

#![no_std]
#![no_main]

use libredox::Fd;
use libredox::flag::O_RDWR;
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

fn crash() -> u8 {
    // SAFETY: none: this is the crash that the test wants, a page fault.
    unsafe { core::arch::asm!("mov byte ptr [0], 1") };
    KEPT
}
