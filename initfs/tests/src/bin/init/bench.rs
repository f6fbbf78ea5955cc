//! Measurements, in time stamp counter ticks: under QEMU's `-icount shift=0,sleep=off` these are
//! guest instructions.

use alloc::vec::Vec;
use core::arch::x86_64::_rdtsc;

use rt::say;

use crate::smoke::{self, Daemon};

const ROUNDS: usize = 201;

/// Prints a line a measurement; 0 where all could be taken.
pub fn run() -> u8 {
    let Ok(daemon) = Daemon::start() else {
        return 1;
    };
    report("null call", || smoke::echo(&daemon));
    0
}

fn report(name: &str, mut operation: impl FnMut()) {
    let mut counts: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let before = ticks();
            operation();
            ticks() - before
        })
        .collect();
    counts.sort_unstable();
    say!("bench {name}: {}", counts[ROUNDS / 2]);
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and the kernel leaves it to user space.
    unsafe { _rdtsc() }
}
