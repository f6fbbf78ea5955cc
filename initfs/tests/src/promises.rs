//! Which promises of the scheme the image tests.

use gem_promises::command::Command;
use gem_promises::{
    Promise, Puppet, World, all, exhaustion, forks, kernel, limits, registrars, remaps, restarts,
    signals, soak, userptr,
};

/// All of them.
pub fn gem() -> impl Iterator<Item = &'static Promise> {
    all()
        .chain(forks::PROMISES)
        .chain(forks::MAPPED_AGAIN)
        .chain(kernel::PROMISES)
        .chain(signals::PROMISES)
        .chain(limits::PROMISES)
        .chain(exhaustion::PROMISES)
        .chain(userptr::PROMISES)
        .chain(registrars::PROMISES)
        .chain(registrars::REDOX)
        .chain(remaps::PROMISES)
        .chain(remaps::LOSSES)
        .chain(restarts::PROMISES)
        .chain(soak::PROMISES)
}

/// Promises that nobody can keep, to see that it shows.
pub const BROKEN: &[Promise] = &[
    Promise {
        name: "a_client_that_crashes_goes_on",
        test: crash,
        leaves_nothing: true,
    },
    Promise {
        name: "one_is_two",
        test: |_| assert_eq!(1, 2, "as it should"),
        leaves_nothing: true,
    },
    Promise {
        name: "what_is_kept_is_gone",
        test: |world| core::mem::forget(hold(world)),
        leaves_nothing: true,
    },
];

fn crash(world: &mut dyn World) {
    let nowhere = 1;
    let reply = hold(world).tell(Command::Poke(nowhere, 0));
    assert!(reply.is_ok());
}

/// A client that has something.
fn hold(world: &mut dyn World) -> Puppet {
    let mut puppet = Puppet::new(world);
    let node = puppet.open("renderD128");
    assert!(puppet.create(node, 4096).is_ok());
    puppet
}
