//! Promises about processes that come of one another, or become others: an open node belongs to all
//! that have it.

use alloc::format;

use gem_wire::native::Call;
use syscall::error::ENOENT;

use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::{World, count, promises};

promises![
    a_forked_child_has_its_parents_open,
    a_childs_files_outlive_its_parent,
    a_node_opened_after_a_fork_is_ones_own,
];

promises! {
    /// Promises for worlds where a fork maps again, in the child, what the parent has mapped, and
    /// where a program can become another one. Redox is such a world: relibc does both.
    MAPPED_AGAIN:
    a_forked_child_has_its_parents_mappings,
    a_process_forks_whatever_it_has_mapped,
    a_program_that_becomes_another_keeps_its_files_and_loses_its_mappings,
}

fn number(world: &mut dyn World, key: &str) -> u64 {
    count(&world.text("stats"), key)
}

/// A number of the server's, once everything that has ended is known to it.
fn wait_for(world: &mut dyn World, key: &str, value: u64) {
    for _ in 0..2000 {
        if number(world, key) == value {
            return;
        }
        world.pause();
    }
    panic!("{key} is not {value}:\n{}", world.text("stats"));
}

fn a_forked_child_has_its_parents_open(world: &mut dyn World) {
    let mut parent = Puppet::new(world);
    let card = parent.open("card0");
    let handle = parent.create(card, 2 * PAGE).unwrap();
    let at = parent.map_handle(card, handle, 2 * PAGE).unwrap();
    parent.poke(at, 5);

    let mut child = parent.fork();
    assert_eq!(number(world, "opens"), 1);
    let mapped = number(world, "mapped-pages");
    assert_eq!(child.call(card, Call::Size { handle }), Ok(2));
    let there = child.map_handle(card, handle, PAGE).unwrap();
    assert_eq!(child.peek(there), 5);
    child.poke(there, 6);
    assert_eq!(parent.peek(at), 6);
    assert_eq!(number(world, "mapped-pages"), mapped + 1);

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
    parent.unmap(at, PAGE).unwrap();
    let name = parent.flink(card, handle).unwrap();
    let mut child = parent.fork();
    parent.kill();
    assert_eq!(number(world, "opens"), 1);
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
    assert_eq!(number(world, "opens"), 2);
    child.close(own).unwrap();
    wait_for(world, "objects", 1);
}

fn a_forked_child_has_its_parents_mappings(world: &mut dyn World) {
    let mut parent = Puppet::new(world);
    let card = parent.open("card0");
    let handle = parent.create(card, 3 * PAGE).unwrap();
    let at = parent.map_handle(card, handle, 3 * PAGE).unwrap();
    parent.poke(at, 5);
    let mut child = parent.fork();
    assert_eq!(number(world, "mapped-pages"), 6);
    assert_eq!(child.peek(at), 5);
    child.poke(at + 2 * PAGE, 6);
    assert_eq!(parent.peek(at + 2 * PAGE), 6, "shared, not copied");
    parent.unmap(at, 3 * PAGE).unwrap();
    assert_eq!(number(world, "mapped-pages"), 3);
    assert_eq!(child.peek(at), 5);
    let mut grandchild = child.fork();
    assert_eq!(grandchild.peek(at + 2 * PAGE), 6);
    child.kill();
    wait_for(world, "mapped-pages", 3);
    grandchild.unmap(at, PAGE).unwrap();
    assert_eq!(number(world, "mapped-pages"), 2);
}

fn a_process_forks_whatever_it_has_mapped(world: &mut dyn World) {
    let mut parent = Puppet::new(world);
    let card = parent.open("card0");
    let node = parent.open("renderD128");
    // A part of a mapping, without its beginning, and without a handle.
    let handle = parent.create(card, 5 * PAGE).unwrap();
    let part = parent.map_handle(card, handle, 5 * PAGE).unwrap() + 2 * PAGE;
    parent.unmap(part - 2 * PAGE, 2 * PAGE).unwrap();
    parent.call(card, Call::Close { handle }).unwrap();
    // A mapping without its fd.
    let handle = parent.create(node, PAGE).unwrap();
    let lone = parent.map_handle(node, handle, PAGE).unwrap();
    parent.close(node).unwrap();
    // The same for an object's fd, read-only.
    let handle = parent.create(card, 2 * PAGE).unwrap();
    let whole = parent.map_handle(card, handle, 2 * PAGE).unwrap();
    let object = parent.dup(card, &format!("handle/{handle}/ro")).unwrap();
    let second = parent
        .map(object, PAGE, PAGE, libredox::flag::PROT_READ)
        .unwrap();
    parent.close(object).unwrap();
    for (at, byte) in [(part, 1), (lone, 2), (whole + PAGE, 3)] {
        parent.poke(at, byte);
    }
    assert_eq!(number(world, "mapped-pages"), 7);

    let mut child = parent.fork();
    assert_eq!(number(world, "mapped-pages"), 14);
    for (at, byte) in [(part, 1), (lone, 2), (whole + PAGE, 3), (second, 3)] {
        assert_eq!(child.peek(at), byte);
    }
    parent.kill();
    wait_for(world, "mapped-pages", 7);
    for (at, byte) in [(part, 1), (lone, 2), (whole + PAGE, 3), (second, 3)] {
        assert_eq!(child.peek(at), byte);
    }
    assert_eq!(number(world, "objects"), 3);
    child.unmap(lone, PAGE).unwrap();
    child.unmap(part, 3 * PAGE).unwrap();
    wait_for(world, "objects", 1);
}

fn a_program_that_becomes_another_keeps_its_files_and_loses_its_mappings(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, 2 * PAGE).unwrap();
    let object = a.dup(card, &format!("handle/{handle}")).unwrap();
    let name = a.flink(card, handle).unwrap();
    let at = a.map_handle(card, handle, 2 * PAGE).unwrap();
    a.map(object, 0, PAGE, READ_WRITE).unwrap();
    a.poke(at, 8);
    a.exec();
    let there = a.map(object, 0, PAGE, READ_WRITE).unwrap();
    assert_eq!(a.peek(there), 8);
    wait_for(world, "mapped-pages", 1);
    assert_eq!(number(world, "opens"), 1);
    assert_eq!(a.open_name(card, name), Ok(handle + 1), "as it was");
    let own = a.open("card0");
    assert_ne!(own, card);
    assert_eq!(a.create(own, PAGE), Ok(1), "a new file is a new one");

    // What usually comes after a fork.
    let mut child = a.fork();
    child.exec();
    assert_eq!(child.call(card, Call::Size { handle }), Ok(2));
    wait_for(world, "mapped-pages", 1);
    assert_eq!(a.peek(there), 8);
}
