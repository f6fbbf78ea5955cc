//! Which promises of the scheme the image tests.

use gem_promises::{Promise, all, kernel, limits, remaps, signals};

/// All of them.
pub fn gem() -> impl Iterator<Item = &'static Promise> {
    all()
        .chain(kernel::PROMISES)
        .chain(signals::PROMISES)
        .chain(limits::PROMISES)
        .chain(remaps::PROMISES)
        .chain(remaps::LOSSES)
}
