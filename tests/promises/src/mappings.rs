//! Promises about mappings: where, how much, and what unmapping gives back.

use alloc::format;

use gem_wire::native::Call;
use libredox::flag::{MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ};
use syscall::error::{EACCES, EINVAL};

use crate::command::Command;
use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::{BOB, World, count, promises};

promises![
    a_fake_offset_is_exact_at_its_start_and_bounded_at_its_end,
    only_who_has_a_handle_maps_through_a_node,
    private_and_executable_mappings_are_refused,
    unmapping_a_part_gives_back_that_part,
    mapping_over_a_mapping_gives_back_the_old_one,
    a_mapping_outlives_its_fd_and_its_handle,
    an_object_fd_is_mapped_at_byte_offsets,
    a_new_buffer_reads_as_zero_where_another_one_was,
];

fn mapped(world: &mut dyn World) -> u64 {
    count(&world.text("stats"), "mapped-pages")
}

fn a_fake_offset_is_exact_at_its_start_and_bounded_at_its_end(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, 3 * PAGE).unwrap();
    let offset = a.call(card, Call::Map { handle }).unwrap();
    assert_eq!(a.call(card, Call::Map { handle }), Ok(offset));
    assert!(offset >= 1 << 32, "it cannot be taken for a byte offset");
    for (at, size) in [
        (offset + PAGE, PAGE),
        (offset, 4 * PAGE),
        (offset, 3 * PAGE + 1),
        (0, PAGE),
        (offset - PAGE, PAGE),
        (1 << 60, PAGE),
        (offset, 0),
    ] {
        assert_eq!(
            a.map(card, at, size, READ_WRITE),
            Err(EINVAL),
            "{at:#x} {size:#x}"
        );
    }
    a.map(card, offset, PAGE, READ_WRITE).unwrap();
    a.map(card, offset, 2 * PAGE + 1, PROT_READ).unwrap();
    assert_eq!(mapped(world), 4);
}

fn only_who_has_a_handle_maps_through_a_node(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::of_user(world, BOB));
    let (card, other) = (a.open("card0"), b.open("card0"));
    let handle = a.create(card, PAGE).unwrap();
    let offset = a.call(card, Call::Map { handle }).unwrap();
    assert_eq!(b.map(other, offset, PAGE, READ_WRITE), Err(EACCES));
    a.call(card, Call::Close { handle }).unwrap();
    assert_eq!(
        a.map(card, offset, PAGE, READ_WRITE),
        Err(EINVAL),
        "it is gone"
    );
}

fn private_and_executable_mappings_are_refused(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, PAGE).unwrap();
    let offset = a.call(card, Call::Map { handle }).unwrap();
    for (prot, flags) in [
        (PROT_READ, MAP_PRIVATE),
        (READ_WRITE, MAP_PRIVATE),
        (READ_WRITE | PROT_EXEC, MAP_SHARED),
    ] {
        let map = Command::Map {
            fd: card,
            offset,
            size: PAGE,
            prot,
            flags,
            fixed: None,
        };
        assert_eq!(a.tell(map).map(|_| ()), Err(EINVAL), "{prot:#x} {flags:#x}");
    }
    assert_eq!(mapped(world), 0);
}

fn unmapping_a_part_gives_back_that_part(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, 8 * PAGE).unwrap();
    let at = a.map_handle(card, handle, 8 * PAGE).unwrap();
    a.poke(at + 7 * PAGE, 3);
    a.unmap(at + 2 * PAGE, 3 * PAGE).unwrap();
    assert_eq!(mapped(world), 5);
    assert_eq!(a.peek(at + 7 * PAGE), 3);
    a.unmap(at, 2 * PAGE).unwrap();
    assert_eq!(mapped(world), 3);
    a.call(card, Call::Close { handle }).unwrap();
    assert_eq!(count(&world.text("stats"), "objects"), 1, "still mapped");
    a.unmap(at + 5 * PAGE, 3 * PAGE).unwrap();
    assert_eq!(count(&world.text("stats"), "objects"), 0);
}

fn mapping_over_a_mapping_gives_back_the_old_one(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let (old, new) = (
        a.create(card, 4 * PAGE).unwrap(),
        a.create(card, PAGE).unwrap(),
    );
    let at = a.map_handle(card, old, 4 * PAGE).unwrap();
    a.poke(at + PAGE, 11);
    let offset = a.call(card, Call::Map { handle: new }).unwrap();
    let over = Command::Map {
        fd: card,
        offset,
        size: PAGE,
        prot: READ_WRITE,
        flags: MAP_SHARED,
        fixed: Some(at + PAGE),
    };
    assert_eq!(a.tell(over).unwrap().value, at + PAGE);
    assert_eq!(a.peek(at + PAGE), 0, "the new one");
    assert_eq!(mapped(world), 4, "three of the old, one of the new");
    a.poke(at, 12);
    a.unmap(at, 4 * PAGE).unwrap();
    assert_eq!(mapped(world), 0);
}

fn a_mapping_outlives_its_fd_and_its_handle(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, PAGE).unwrap();
    let at = a.map_handle(card, handle, PAGE).unwrap();
    a.poke(at, 77);
    a.call(card, Call::Close { handle }).unwrap();
    a.close(card).unwrap();
    assert_eq!(a.peek(at), 77);
    assert_eq!(count(&world.text("stats"), "objects"), 1);
    a.unmap(at, PAGE).unwrap();
    crate::wait_until_empty(world);
}

fn an_object_fd_is_mapped_at_byte_offsets(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, 4 * PAGE).unwrap();
    let whole = a.map_handle(card, handle, 4 * PAGE).unwrap();
    a.poke(whole + 3 * PAGE, 8);
    let fd = a.dup(card, &format!("handle/{handle}")).unwrap();
    let part = a.map(fd, 3 * PAGE, PAGE, READ_WRITE).unwrap();
    assert_eq!(a.peek(part), 8);
    for (offset, size) in [(3 * PAGE, 2 * PAGE), (4 * PAGE, PAGE), (1 << 32, PAGE)] {
        assert_eq!(a.map(fd, offset, size, READ_WRITE), Err(EINVAL));
    }
    assert_eq!(mapped(world), 5);
    a.unmap(part, PAGE).unwrap();
    assert_eq!(mapped(world), 4);
}

fn a_new_buffer_reads_as_zero_where_another_one_was(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    for _ in 0..20 {
        let handle = a.create(card, 2 * PAGE).unwrap();
        let at = a.map_handle(card, handle, 2 * PAGE).unwrap();
        assert_eq!((a.peek(at), a.peek(at + PAGE + 99)), (0, 0));
        a.poke(at, 255);
        a.poke(at + PAGE + 99, 255);
        a.unmap(at, 2 * PAGE).unwrap();
        a.call(card, Call::Close { handle }).unwrap();
    }
}
