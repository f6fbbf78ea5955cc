//! A program that takes long to load: a large part that is read, and a larger one that is written to.

#![no_std]
#![no_main]

use core::hint::black_box;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

rt::entry!(main);

const MIB: usize = 1 << 20;

static READ: [u8; MIB] = [0; MIB];
static WRITTEN: [AtomicU8; 2 * MIB] = [const { AtomicU8::new(0) }; 2 * MIB];

fn main() -> u8 {
    let last = black_box(&WRITTEN).len() - 1;
    WRITTEN[last].store(1, Relaxed);
    black_box(&READ)[MIB - 1] + WRITTEN[last].load(Relaxed) - 1
}
