//! Promises about processes that have registered memory and fork, become other programs, move what
//! they have registered, or let others have their address space; and about others' address spaces.

use alloc::vec;

use gem_wire::limit::Limit;
use gem_wire::native::Call;
use gem_wire::userptr::{Claimed, Taking, UserptrFlags};
use libredox::flag::MAP_PRIVATE;
use syscall::error::{EFAULT, ENODEV};
use syscall::flag::{MapFlags, MremapFlags, O_NONBLOCK};

use crate::command::{Command, How, KernelCall, Memory};
use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::userptr::{node, raise, ranges};
use crate::{ALICE, BOB, World, count, promises, wait_until_empty};

promises![a_forked_childs_copy_is_not_what_its_parent_registers];

promises! {
    /// Promises for a Redox kernel: what comes of a fork is shared, nobody tells of mremap, and nobody
    /// whose address space an fd is.
    REDOX:
    a_forked_child_shares_what_its_parent_has_registered,
    a_program_that_becomes_another_gives_back_what_it_has_registered,
    registered_memory_that_moves_is_the_same_and_is_told_of_when_it_is_unmapped,
    registered_memory_that_mremap_replaces_is_charged_until_its_file_closes,
    an_address_space_in_other_hands_gives_what_is_asked_for_and_nothing_else,
}

promises! {
    /// Promises for Linux, which tells all of that, and has room for more.
    LINUX:
    a_forked_child_has_not_what_its_parent_has_registered,
    registered_memory_that_moves_is_taken_back,
    another_processs_address_space_is_refused,
    four_gibibytes_less_a_page_are_one_range,
}

/// The flags of an mremap that puts pages at a certain address.
const FIXED: usize = MapFlags::PROT_READ.bits() | MapFlags::PROT_WRITE.bits();

fn mapped(world: &mut dyn World) -> u64 {
    count(&world.text("stats"), "mapped-pages")
}

/// Waits until the server has heard of what has just ended.
fn wait_for_ranges(world: &mut dyn World, wanted: [u64; 2]) {
    for _ in 0..2000 {
        if ranges(world) == wanted {
            return;
        }
        world.pause();
    }
    panic!("not {wanted:?} ranges and pages:\n{}", world.text("stats"));
}

fn quiet_node(puppet: &mut Puppet) -> u64 {
    let card = node(puppet);
    let flags = O_NONBLOCK as u64;
    puppet.tell(Command::SetFlags(card, flags)).unwrap();
    card
}

fn a_forked_childs_copy_is_not_what_its_parent_registers(world: &mut dyn World) {
    for exclusive in [false, true] {
        let mut parent = Puppet::of_user(world, ALICE);
        let card = node(&mut parent);
        let at = parent.allocate_pages(20);
        // Each has all pages, and so far they are the same ones.
        let mut child = parent.fork();
        let how = How {
            exclusive,
            ..How::default()
        };
        let handle = parent.register_as(card, at, 20 * PAGE, how).unwrap();
        for page in 0..20 {
            parent.poke(at + page * PAGE, 99);
        }
        child.is_as_allocated(at, 20);
        child.poke(at + 3 * PAGE, 50);
        assert_eq!(parent.peek(at + 3 * PAGE), 99);
        // The child's own are the child's to register.
        let own = child.register(card, at, 20).unwrap();
        assert_ne!(own, handle);
        assert_eq!(ranges(world), [2, 40]);
        assert_eq!((child.peek(at), child.peek(at + 3 * PAGE)), (0, 50));
        child.kill();
        wait_for_ranges(world, [1, 20]);
        assert_eq!(parent.peek(at + 19 * PAGE), 99);
        parent.has_pages_yet(handle);
    }
}

fn a_forked_child_shares_what_its_parent_has_registered(world: &mut dyn World) {
    let mut parent = Puppet::of_user(world, ALICE);
    let card = quiet_node(&mut parent);
    let at = parent.allocate_pages(4);
    let handle = parent.register(card, at, 4).unwrap();
    let mut child = parent.fork();
    assert_eq!(mapped(world), 8);
    child.is_as_allocated(at, 4);
    child.poke(at + PAGE, 77);
    assert_eq!(parent.peek(at + PAGE), 77);
    assert_eq!(child.register(card, at, 4), Err(EFAULT), "it is a buffer's");
    // What the child does with its mapping is no loss of the parent's.
    child.unmap(at, 4 * PAGE).unwrap();
    assert_eq!(mapped(world), 4);
    child.kill();
    let second = parent.fork();
    second.kill();
    for _ in 0..2000 {
        if mapped(world) == 4 {
            break;
        }
        world.pause();
    }
    assert_eq!(ranges(world), [1, 4]);
    assert_eq!(parent.event(card), None);
    parent.has_pages_yet(handle);
    // What the parent unmaps is gone for both, but for the memory.
    let mut third = parent.fork();
    parent.unmap(at, PAGE).unwrap();
    assert!(parent.event(card).is_some());
    assert_eq!((third.peek(at), third.peek(at + PAGE)), (0, 77));
    parent.unmap(at + PAGE, 3 * PAGE).unwrap();
    assert_eq!(ranges(world), [1, 4], "the child maps it");
    third.kill();
    wait_for_ranges(world, [0, 0]);
    parent.release(handle);
}

fn a_program_that_becomes_another_gives_back_what_it_has_registered(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = quiet_node(&mut a);
    let at = a.allocate_pages(4);
    let handle = a.register(card, at, 4).unwrap();
    let other = a.allocate_pages(2);
    let closed = a.register(card, other, 2).unwrap();
    a.release(closed);
    assert_eq!(ranges(world), [2, 6]);
    a.exec();
    wait_for_ranges(world, [0, 0]);
    // The file is the new program's, the handle with it, and the news.
    assert!(a.event(card).is_some());
    assert_eq!(a.event(card), None);
    assert_eq!(a.call(card, Call::Size { handle }), Ok(4));
    assert_eq!(a.call(card, Call::Map { handle }), Err(ENODEV));
    let fresh = a.allocate_pages(4);
    let space = a.memory(Memory::Space).unwrap();
    let address = fresh;
    let word = Taking::Again { address, handle }.encode().unwrap();
    let fds = vec![space];
    let to = card;
    a.memory(Memory::Send { to, fds, word }).unwrap();
    a.close(space).unwrap();
    let offset = a.call(card, Call::Map { handle }).unwrap();
    let again = a.map(card, offset, 4 * PAGE, READ_WRITE).unwrap();
    a.is_as_allocated(again, 4);
}

fn registered_memory_that_moves_is_the_same_and_is_told_of_when_it_is_unmapped(
    world: &mut dyn World,
) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::of_user(world, BOB));
    let (card, other) = (quiet_node(&mut a), node(&mut b));
    let at = a.allocate_pages(4);
    let handle = a.register(card, at, 4).unwrap();
    let moved = a.remap(at, 4 * PAGE, 4 * PAGE);
    assert_ne!(moved, at);
    a.is_as_allocated(moved, 4);
    assert_eq!((ranges(world), a.event(card)), ([1, 4], None));
    a.has_pages_yet(handle);
    // Where it was anything can be, and is nothing of the buffer's.
    a.map_over(u64::MAX, 0, at, 4 * PAGE, MAP_PRIVATE);
    a.poke(at, 200);
    assert_eq!((ranges(world), a.event(card)), ([1, 4], None));
    a.is_as_allocated(moved, 4);
    nobody_else_has_it(world, &mut b, other);
    a.unmap(moved + PAGE, PAGE).unwrap();
    assert!(a.event(card).is_some());
    assert_eq!(ranges(world), [1, 4]);
    a.unmap(moved, 4 * PAGE).unwrap();
    assert_eq!(ranges(world), [0, 0]);
    a.release(handle);
}

fn registered_memory_that_mremap_replaces_is_charged_until_its_file_closes(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (card, other) = (quiet_node(&mut a), node(&mut b));
    let at = a.allocate_pages(4);
    for page in 0..4 {
        a.poke(at + page * PAGE + 9, 231);
    }
    let handle = a.register(card, at, 4).unwrap();
    let own = a.allocate_pages(1);
    a.remap_over(own, PAGE, at + PAGE);
    assert_eq!((a.peek(at + PAGE), a.peek(at + PAGE + 9)), (0, 0));
    // And the last page falls off.
    let less = a.remap(at + 2 * PAGE, 2 * PAGE, PAGE);
    assert_eq!(a.peek(less + 9), 231);
    assert_eq!((ranges(world), a.event(card)), ([1, 4], None));
    a.has_pages_yet(handle);
    nobody_else_has_it(world, &mut b, other);
    a.unmap(at, PAGE).unwrap();
    assert!(a.event(card).is_some());
    a.unmap(at + PAGE, PAGE).unwrap();
    a.unmap(less, PAGE).unwrap();
    a.release(handle);
    assert_eq!(
        ranges(world),
        [1, 4],
        "two pages are mapped, as far as the server knows"
    );
    nobody_else_has_it(world, &mut b, other);
    a.close(card).unwrap();
    wait_for_ranges(world, [0, 0]);
}

/// That new buffers and new memory of Bob's are zero, however often he asks.
fn nobody_else_has_it(_: &mut dyn World, bob: &mut Puppet, node: u64) {
    for _ in 0..5 {
        let buffer = bob.create(node, 16 * PAGE).unwrap();
        let size = 16 * PAGE;
        let flags = MAP_PRIVATE;
        let places = [
            bob.map_handle(node, buffer, size).unwrap(),
            bob.memory(Memory::Allocate { size, flags }).unwrap(),
        ];
        for at in places {
            for page in 0..16 {
                let bytes = (bob.peek(at + page * PAGE), bob.peek(at + page * PAGE + 9));
                assert_eq!(bytes, (0, 0));
                bob.poke(at + page * PAGE, 66);
            }
            bob.unmap(at, size).unwrap();
        }
        bob.call(node, Call::Close { handle: buffer }).unwrap();
    }
}

/// Where the owner of an address space maps its pages a second time, for somebody else to take.
const ASIDE: u64 = 0x6200_0000_0000;

fn an_address_space_in_other_hands_gives_what_is_asked_for_and_nothing_else(world: &mut dyn World) {
    let mut owner = Puppet::of_user(world, BOB);
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let address = owner.allocate_pages(4);
    let hole = owner.allocate_pages(3);
    owner.unmap(hole + PAGE, PAGE).unwrap();
    let space = owner.memory(Memory::Space).unwrap();
    let space = owner.give(space, &mut a);
    // What is refused is where it was, in the address space that it was taken from.
    for (at, pages) in [(hole, 3), (hole, 2)] {
        assert_eq!(a.send_space(card, space, at, pages), Err(EFAULT));
        assert_eq!((owner.peek(hole), owner.peek(hole + 2 * PAGE)), (0, 2));
        owner.is_as_allocated(address, 4);
        assert_eq!(ranges(world), [0, 0]);
    }
    // What its owner has twice it keeps, whatever becomes of the other.
    for is_claimed in [true, false] {
        for page in 0..4 {
            let flags = FIXED | (MremapFlags::KEEP_OLD | MremapFlags::FIXED).bits();
            let (from, to) = (address + page * PAGE, ASIDE + page * PAGE);
            let remap = KernelCall::Remap(from, PAGE, to, PAGE, flags as u64);
            assert_eq!(owner.kernel(remap), Ok(to));
        }
        a.send_space(card, space, ASIDE, 4).unwrap();
        assert_eq!(ranges(world), [1, 4], "the sender pays");
        owner.is_as_allocated(address, 4);
        if is_claimed {
            let (pages, flags) = (4, UserptrFlags::empty());
            let address = ASIDE;
            let claim = Call::Userptr {
                address,
                pages,
                flags,
            };
            let claimed = Claimed::unpack(a.call(card, claim).unwrap());
            let at = a.map(card, claimed.offset, 4 * PAGE, READ_WRITE).unwrap();
            a.is_as_allocated(at, 4);
            a.unmap(at, 4 * PAGE).unwrap();
            let handle = claimed.handle;
            a.call(card, Call::Close { handle }).unwrap();
        } else {
            a.close(card).unwrap();
        }
        wait_for_ranges(world, [0, 0]);
        owner.is_as_allocated(address, 4);
        owner.poke(address + 3 * PAGE, 3);
    }
    // Else its end would tell nobody.
    a.close(space).unwrap();
}

impl Puppet {
    fn send_space(&mut self, to: u64, space: u64, address: u64, pages: u64) -> Result<u64, i32> {
        let read_only = false;
        let new = Taking::New {
            address,
            pages,
            read_only,
        };
        let (fds, word) = (vec![space], new.encode().unwrap());
        self.memory(Memory::Send { to, fds, word })
    }
}

fn a_forked_child_has_not_what_its_parent_has_registered(world: &mut dyn World) {
    let mut parent = Puppet::of_user(world, ALICE);
    let card = quiet_node(&mut parent);
    let at = parent.allocate_pages(4);
    let handle = parent.register(card, at, 4).unwrap();
    let mut child = parent.fork();
    assert_eq!(mapped(world), 4);
    assert_eq!(child.register(card, at, 4), Err(EFAULT));
    child.dies_of(&Command::Peek(at));
    assert_eq!((ranges(world), parent.event(card)), ([1, 4], None));
    parent.is_as_allocated(at, 4);
    parent.has_pages_yet(handle);
}

fn registered_memory_that_moves_is_taken_back(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = quiet_node(&mut a);
    for (first, pages) in [(0, 4), (1, 1), (2, 2)] {
        let at = a.allocate_pages(4);
        let handle = a.register(card, at, 4).unwrap();
        let target = a.allocate_pages(4);
        a.remap_over(at + first * PAGE, pages * PAGE, target);
        assert!(a.event(card).is_some(), "before it goes on");
        for page in 0..pages {
            assert_eq!(a.peek(target + page * PAGE), (first + page) as u8);
        }
        assert_eq!(a.register(card, target, pages), Err(EFAULT), "not its own");
        let left = if pages < 4 { [1, 4] } else { [0, 0] };
        assert_eq!(ranges(world), left);
        a.unmap(at, 4 * PAGE).unwrap();
        assert_eq!(ranges(world), [0, 0]);
        for page in 0..pages {
            assert_eq!(a.peek(target + page * PAGE), (first + page) as u8);
        }
        a.unmap(target, 4 * PAGE).unwrap();
        a.release(handle);
        // And what is moved over it.
        let at = a.allocate_pages(4);
        let handle = a.register(card, at, 4).unwrap();
        let source = a.allocate_pages(4);
        a.poke(source, 111);
        a.remap_over(source, pages * PAGE, at + first * PAGE);
        assert!(a.event(card).is_some(), "before it goes on");
        assert_eq!(a.peek(at + first * PAGE), 111);
        assert_eq!(ranges(world), left);
        a.unmap(at, 4 * PAGE).unwrap();
        assert_eq!(ranges(world), [0, 0]);
        a.release(handle);
    }
}

fn another_processs_address_space_is_refused(world: &mut dyn World) {
    let mut owner = Puppet::of_user(world, ALICE);
    let mut a = Puppet::of_user(world, ALICE);
    let (card, own) = (node(&mut a), node(&mut owner));
    let address = owner.allocate_pages(4);
    let space = owner.memory(Memory::Space).unwrap();
    let given = owner.give(space, &mut a);
    // Also where the sender has memory there.
    for at in [address, a.allocate_pages(4)] {
        assert_eq!(a.send_space(card, given, at, 4), Err(EFAULT));
        owner.is_as_allocated(address, 4);
        owner.poke(address, 0);
        assert_eq!(ranges(world), [0, 0]);
    }
    // Whoever has a file of it, it is its process's to send.
    owner.send_space(own, space, address, 4).unwrap();
    owner.close(own).unwrap();
    wait_for_ranges(world, [0, 0]);
    owner.kill();
    let fresh = a.allocate_pages(2);
    assert_eq!(a.send_space(card, given, fresh, 2), Err(EFAULT));
    a.register(card, fresh, 2).unwrap();
    a.kill();
    wait_until_empty(world);
}

fn four_gibibytes_less_a_page_are_one_range(world: &mut dyn World) {
    const PAGES: u64 = (1 << 20) - 1;
    let mut root = Puppet::new(world);
    let power = node(&mut root);
    raise(&mut root, power, Limit::UserPagesPerUid);
    let mut a = Puppet::of_user(world, ALICE);
    let card = quiet_node(&mut a);
    let (size, flags) = (PAGES * PAGE, MAP_PRIVATE);
    let at = a.memory(Memory::Allocate { size, flags }).unwrap();
    a.poke(at + size - 1, 5);
    let handle = a.register(card, at, PAGES).unwrap();
    assert_eq!(ranges(world), [1, PAGES]);
    assert_eq!(a.call(card, Call::Size { handle }), Ok(PAGES));
    assert_eq!((a.peek(at), a.peek(at + size - 1)), (0, 5));
    a.poke(at + PAGES / 2 * PAGE, 6);
    a.unmap(at + PAGES / 2 * PAGE, PAGE).unwrap();
    assert!(a.event(card).is_some());
    assert_eq!(a.peek(at + size - 1), 5);
    a.release(handle);
    a.unmap(at, size).unwrap();
    assert_eq!(ranges(world), [0, 0]);
}
