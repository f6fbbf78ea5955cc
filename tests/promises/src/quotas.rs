//! Promises about who pays, and about limits that root sets while clients are there.

use alloc::format;

use gem_wire::native::Call;

use crate::puppet::{PAGE, Puppet};
use crate::{ALICE, BOB, World, promises};

promises![who_holds_an_object_longest_pays_for_it];

/// Who pays for the one object of this many pages.
fn payer(world: &mut dyn World, pages: u64) -> Option<u32> {
    let text = world.text("objects");
    text.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let found = columns.next()?.parse() == Ok(pages);
        found.then(|| columns.next()?.parse().ok())?
    })
}

fn who_holds_an_object_longest_pays_for_it(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (node, other) = (alice.open("renderD128"), bob.open("renderD128"));
    let handle = alice.create(node, 23 * PAGE).unwrap();
    let fd = alice.dup(node, &format!("handle/{handle}")).unwrap();
    let theirs = alice.give(fd, &mut bob);
    bob.import(other, theirs).unwrap();
    bob.close(theirs).unwrap();
    alice.call(node, Call::Close { handle }).unwrap();
    assert_eq!(payer(world, 23), Some(ALICE), "her fd holds it still");
    alice.close(fd).unwrap();
    for _ in 0..2000 {
        if payer(world, 23) == Some(BOB) {
            // From here on it is Bob's alone: that Alice ends changes nothing.
            alice.kill();
            assert_eq!(payer(world, 23), Some(BOB));
            return;
        }
        world.pause();
    }
    panic!("Bob holds it and does not pay");
}
