//! Promises about processes that come of one another: an open node belongs to all that have it.

use alloc::format;

use gem_wire::native::Call;
use syscall::error::ENOENT;

use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::{World, count, promises};

promises![
    a_forked_child_has_its_parents_open_and_none_of_its_mappings,
    a_childs_files_outlive_its_parent,
    a_node_opened_after_a_fork_is_ones_own,
];

/// A number of the server's, once everything that has ended is known to it.
fn wait_for(world: &mut dyn World, key: &str, value: u64) {
    for _ in 0..2000 {
        if count(&world.text("stats"), key) == value {
            return;
        }
        world.pause();
    }
    panic!("{key} is not {value}:\n{}", world.text("stats"));
}

fn a_forked_child_has_its_parents_open_and_none_of_its_mappings(world: &mut dyn World) {
    let mut parent = Puppet::new(world);
    let card = parent.open("card0");
    let handle = parent.create(card, 2 * PAGE).unwrap();
    let at = parent.map_handle(card, handle, 2 * PAGE).unwrap();
    parent.poke(at, 5);

    let mut child = parent.fork();
    assert_eq!(count(&world.text("stats"), "opens"), 1);
    assert_eq!(count(&world.text("stats"), "mapped-pages"), 2);
    assert_eq!(child.call(card, Call::Size { handle }), Ok(2));
    let mapped = child.map_handle(card, handle, PAGE).unwrap();
    assert_eq!(child.peek(mapped), 5);
    child.poke(mapped, 6);
    assert_eq!(parent.peek(at), 6);
    assert_eq!(count(&world.text("stats"), "mapped-pages"), 3);

    child.call(card, Call::Close { handle }).unwrap();
    assert_eq!(
        parent.call(card, Call::Size { handle }),
        Err(ENOENT),
        "one table for both"
    );
    child.kill();
    wait_for(world, "mapped-pages", 2);
    assert_eq!(parent.peek(at), 6);
    let next = parent.create(card, PAGE).unwrap();
    assert_eq!(next, handle, "the open has not closed");
}

fn a_childs_files_outlive_its_parent(world: &mut dyn World) {
    let mut parent = Puppet::new(world);
    let card = parent.open("card0");
    let handle = parent.create(card, PAGE).unwrap();
    let object = parent.dup(card, &format!("handle/{handle}")).unwrap();
    let at = parent.map(object, 0, PAGE, READ_WRITE).unwrap();
    parent.poke(at, 9);
    let name = parent.flink(card, handle).unwrap();
    let mut child = parent.fork();
    parent.kill();
    wait_for(world, "mapped-pages", 0);
    assert_eq!(count(&world.text("stats"), "opens"), 1);
    let at = child.map(object, 0, PAGE, READ_WRITE).unwrap();
    assert_eq!(child.peek(at), 9);
    assert_eq!(
        child.flink(card, handle),
        Ok(name),
        "still what the parent was: authenticated"
    );
    child.close(card).unwrap();
    wait_for(world, "opens", 0);
    assert_eq!(child.peek(at), 9, "the object fd is not the node's");
}

fn a_node_opened_after_a_fork_is_ones_own(world: &mut dyn World) {
    let mut parent = Puppet::new(world);
    let card = parent.open("card0");
    let handle = parent.create(card, PAGE).unwrap();
    let mut child = parent.fork();
    let own = child.open("card0");
    assert_eq!(child.call(own, Call::Size { handle }), Err(ENOENT));
    assert_eq!(child.create(own, PAGE), Ok(1));
    assert_eq!(count(&world.text("stats"), "opens"), 2);
    child.close(own).unwrap();
    wait_for(world, "objects", 1);
}
