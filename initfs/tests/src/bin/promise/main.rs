//! Tests one promise of `gem-promises`, named by its argument. A broken one is a panic, and with
//! this process all its puppets end.

#![no_std]
#![no_main]

extern crate alloc;

mod link;
mod world;

use initfs_tests::promises::{BROKEN, gem};

use crate::world::Here;

rt::entry!(main);

fn main() -> u8 {
    let name = rt::start::arguments().nth(1).unwrap_or_default();
    let promise = gem().chain(BROKEN).find(|promise| promise.name == name);
    let promise = promise.unwrap_or_else(|| panic!("there is no promise {name}"));
    let mut world = Here::new().expect("a scheme for links");
    gem_promises::check(promise, &mut world);
    0
}
