//! Tests one promise of `gem-promises`, named by its first argument. The second one says how long a
//! soak is. A broken promise is a panic, and with this process all its puppets end.

#![no_std]
#![no_main]

extern crate alloc;

mod link;
mod world;

use initfs_tests::promises::{BROKEN, gem};

use crate::world::Here;

rt::entry!(main);

fn main() -> u8 {
    let mut arguments = rt::start::arguments().skip(1);
    let name = arguments.next().unwrap_or_default();
    let soak = arguments.next().unwrap_or_default();
    let promise = gem().chain(BROKEN).find(|promise| promise.name == name);
    let promise = promise.unwrap_or_else(|| panic!("there is no promise {name}"));
    let mut world = Here::new(soak).expect("a scheme for links");
    gem_promises::check(promise, &mut world);
    0
}
