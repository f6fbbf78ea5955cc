//! Promises about mappings that the client itself moves, shrinks and replaces with mremap.
//!
//! The Redox kernel tells the server nothing of that: neither that a part is gone, nor, where the
//! fd had been closed before, that the file is. So what is counted may be more than what is mapped,
//! never less, and whoever did it pays.

use gem_wire::native::Call;
use libredox::flag::PROT_READ;
use syscall::error::EPERM;
use syscall::flag::{MapFlags, MremapFlags};

use crate::command::KernelCall;
use crate::puppet::{PAGE, Puppet};
use crate::{ALICE, BOB, Promise, World, count, promises, wait_until_empty};

promises![
    a_mapping_that_moves_is_the_same_mapping,
    a_mapping_that_shrinks_stays_counted_until_its_file_closes,
    a_mapping_that_is_replaced_stays_counted_until_its_file_closes,
    a_mapping_that_grows_gets_memory_of_its_own,
    a_read_only_mapping_does_not_become_writeable_by_moving,
];

/// The promises about what the kernel never tells: what is left after them stays.
pub const LOSSES: &[Promise] = &[Promise {
    name: "a_file_that_the_kernel_forgets_is_charged_and_revocable",
    test: a_file_that_the_kernel_forgets_is_charged_and_revocable,
    leaves_nothing: false,
}];

const WRITEABLE: usize = MapFlags::PROT_READ.bits() | MapFlags::PROT_WRITE.bits();

impl Puppet {
    /// Moves a mapping to where the kernel finds room, with another size.
    pub(crate) fn remap(&mut self, at: u64, size: u64, new_size: u64) -> u64 {
        let flags = WRITEABLE as u64;
        let remap = KernelCall::Remap(at, size, 0, new_size, flags);
        self.kernel(remap).unwrap()
    }

    /// Moves a mapping over another one.
    pub(crate) fn remap_over(&mut self, at: u64, size: u64, target: u64) {
        let flags = WRITEABLE | MremapFlags::FIXED_REPLACE.bits();
        let remap = KernelCall::Remap(at, size, target, size, flags as u64);
        assert_eq!(self.kernel(remap), Ok(target));
    }

    /// Memory of its own.
    fn allocate(&mut self, size: u64) -> u64 {
        let flags = (WRITEABLE | MapFlags::MAP_PRIVATE.bits()) as u64;
        let nowhere = u64::MAX;
        self.kernel(KernelCall::Fmap(nowhere, 0, size, flags, 0))
            .unwrap()
    }
}

fn mapped(world: &mut dyn World) -> u64 {
    count(&world.text("stats"), "mapped-pages")
}

fn a_mapping_that_moves_is_the_same_mapping(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::new(world));
    let (card, other) = (a.open("card0"), b.open("card0"));
    let handle = a.create(card, 4 * PAGE).unwrap();
    let name = a.flink(card, handle).unwrap();
    let theirs = b.open_name(other, name).unwrap();
    let at = a.map_handle(card, handle, 4 * PAGE).unwrap();
    let there = b.map_handle(other, theirs, 4 * PAGE).unwrap();
    a.poke(at + 3 * PAGE, 41);
    let moved = a.remap(at, 4 * PAGE, 4 * PAGE);
    assert_ne!(moved, at);
    assert_eq!(a.peek(moved + 3 * PAGE), 41);
    b.poke(there, 42);
    assert_eq!(a.peek(moved), 42, "still shared");
    assert_eq!(mapped(world), 8);
    // Two halves, apart from each other.
    let tail = a.remap(moved + 2 * PAGE, 2 * PAGE, 2 * PAGE);
    assert_eq!((a.peek(moved), a.peek(tail + PAGE)), (42, 41));
    assert_eq!(mapped(world), 8);
    a.unmap(tail, 2 * PAGE).unwrap();
    assert_eq!(mapped(world), 6);
    a.unmap(moved, 2 * PAGE).unwrap();
    assert_eq!(mapped(world), 4);
    assert_eq!(b.peek(there + 3 * PAGE), 41);
}

fn a_mapping_that_shrinks_stays_counted_until_its_file_closes(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = a.open("renderD128");
    let handle = a.create(card, 4 * PAGE).unwrap();
    let at = a.map_handle(card, handle, 4 * PAGE).unwrap();
    a.poke(at, 7);
    let less = a.remap(at, 4 * PAGE, PAGE);
    assert_eq!(a.peek(less), 7);
    assert_eq!(mapped(world), 4, "nobody has told the server");
    a.unmap(less, PAGE).unwrap();
    assert_eq!(mapped(world), 3);
    a.call(card, Call::Close { handle }).unwrap();
    let stats = world.text("stats");
    assert_eq!(count(&stats, "objects"), 1, "as far as the server knows");
    assert_eq!(count(&stats, "memory-pages"), 4, "charged");
    let mut b = Puppet::of_user(world, BOB);
    let other = b.open("renderD128");
    let fresh = b.create(other, 4 * PAGE).unwrap();
    let there = b.map_handle(other, fresh, 4 * PAGE).unwrap();
    assert_eq!(b.peek(there), 0, "other memory");
    b.kill();
    a.close(card).unwrap();
    wait_until_empty(world);
}

fn a_mapping_that_is_replaced_stays_counted_until_its_file_closes(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = a.open("renderD128");
    let [first, second] = [3, 1].map(|pages| a.create(card, pages * PAGE).unwrap());
    let at = a.map_handle(card, first, 3 * PAGE).unwrap();
    let over = a.map_handle(card, second, PAGE).unwrap();
    a.poke(at + PAGE, 1);
    a.poke(over, 2);
    a.remap_over(over, PAGE, at + PAGE);
    assert_eq!(a.peek(at + PAGE), 2, "the other object");
    let own = a.allocate(PAGE);
    a.poke(own, 3);
    a.remap_over(own, PAGE, at);
    assert_eq!(a.peek(at), 3, "no object at all");
    assert_eq!(mapped(world), 4, "nobody has told the server");
    a.unmap(at, 3 * PAGE).unwrap();
    assert_eq!(
        mapped(world),
        2,
        "it was told of the last page and the other object"
    );
    a.close(card).unwrap();
    wait_until_empty(world);
}

fn a_mapping_that_grows_gets_memory_of_its_own(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::new(world));
    let (card, other) = (a.open("card0"), b.open("card0"));
    // Neighbours in the server's memory.
    let handles = [(); 3].map(|()| a.create(card, PAGE).unwrap());
    let names = handles.map(|handle| a.flink(card, handle).unwrap());
    let at = a.map_handle(card, handles[1], PAGE).unwrap();
    a.poke(at, 5);
    let grown = a.remap(at, PAGE, 3 * PAGE);
    assert_eq!(a.peek(grown), 5);
    for page in [1, 2] {
        assert_eq!(a.peek(grown + page * PAGE), 0);
        a.poke(grown + page * PAGE, 9);
    }
    for (name, byte) in names.into_iter().zip([0, 5, 0]) {
        let theirs = b.open_name(other, name).unwrap();
        let there = b.map_handle(other, theirs, PAGE).unwrap();
        assert_eq!(b.peek(there), byte);
    }
    assert_eq!(mapped(world), 4);
    a.unmap(grown, 3 * PAGE).unwrap();
    assert_eq!(mapped(world), 3);
}

fn a_read_only_mapping_does_not_become_writeable_by_moving(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, PAGE).unwrap();
    let fd = a.dup(card, &alloc::format!("handle/{handle}/ro")).unwrap();
    let at = a.map(fd, 0, PAGE, PROT_READ).unwrap();
    let remap = KernelCall::Remap(at, PAGE, 0, PAGE, WRITEABLE as u64);
    assert_eq!(a.kernel(remap), Err(EPERM));
    assert_eq!(a.peek(at), 0, "it is still there");
    assert_eq!(mapped(world), 1);
    a.unmap(at, PAGE).unwrap();
    assert_eq!(mapped(world), 0);
}

/// The number of Alice's one open.
fn alices(world: &mut dyn World) -> u64 {
    let mut numbers = 1..100;
    let found = numbers.find(|number| {
        let text = world.text(&alloc::format!("clients/{number}"));
        count(&text, "gem-uid") == u64::from(ALICE)
    });
    found.expect("an open of Alice's")
}

fn a_file_that_the_kernel_forgets_is_charged_and_revocable(world: &mut dyn World) {
    let mut alice = Puppet::of_user(world, ALICE);
    let node = alice.open("renderD128");
    let handle = alice.create(node, 8 * PAGE).unwrap();
    let at = alice.map_handle(node, handle, 8 * PAGE).unwrap();
    alice.poke(at, 66);
    alice.close(node).unwrap();
    let own = alice.allocate(8 * PAGE);
    alice.remap_over(own, 8 * PAGE, at);
    assert_eq!(alice.peek(at), 0, "the mapping is gone");
    alice.kill();
    let client = alices(world);
    let text = world.text(&alloc::format!("clients/{client}"));
    assert_eq!(count(&text, "gem-uid-mapped-pages"), 8, "{text}");

    let (mut root, mut bob) = (Puppet::new(world), Puppet::of_user(world, BOB));
    let (card, other) = (root.open("card0"), bob.open("renderD128"));
    assert_eq!(root.call(card, Call::Revoke { client }), Ok(0));
    let stats = world.text("stats");
    assert_eq!(count(&stats, "handles"), 0);
    assert_eq!(count(&stats, "memory-pages"), 8, "still Alice's");
    for _ in 0..10 {
        let handle = bob.create(other, 8 * PAGE).unwrap();
        let at = bob.map_handle(other, handle, 8 * PAGE).unwrap();
        assert_eq!(bob.peek(at), 0);
        bob.poke(at, 67);
    }
    // She can go on with another open, and has that much less.
    let mut alice = Puppet::of_user(world, ALICE);
    let node = alice.open("renderD128");
    let handle = alice.create(node, PAGE).unwrap();
    let at = alice.map_handle(node, handle, PAGE).unwrap();
    assert_eq!(alice.peek(at), 0);
}
