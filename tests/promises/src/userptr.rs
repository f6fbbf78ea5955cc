//! Promises about clients' own memory: registered, used by threads all the while, taken back at any
//! moment, and never anybody else's.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use gem_wire::event::{Event, RECORD_SIZE, Record};
use gem_wire::limit::Limit;
use gem_wire::native::{Call, Features};
use gem_wire::userptr::{FIRST_OFFSET, Taking, UserptrFlags};
use libredox::flag::{MAP_PRIVATE, MAP_SHARED, O_RDONLY};
use syscall::error::{
    EACCES, EBADF, EBUSY, EFAULT, EINVAL, EMFILE, ENODEV, ENOENT, ENOMEM, EOPNOTSUPP,
};
use syscall::flag::O_NONBLOCK;
use zerocopy::FromBytes;

use crate::command::{Command, How, Memory};
use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::soak::Dice;
use crate::{ALICE, BOB, World, count, promises, wait_until_empty};

promises![
    registered_memory_is_what_it_was_and_no_memory_of_the_servers,
    threads_that_write_while_memory_is_registered_lose_nothing,
    shared_memory_of_no_file_can_be_registered,
    an_unmapping_takes_all_pages_back_and_tells_who_did_it,
    whatever_is_mapped_over_registered_memory_takes_it_back,
    closing_the_handle_leaves_the_memory_and_its_charge,
    memory_that_was_taken_back_is_registered_again_by_its_handle,
    registered_memory_is_named_and_neither_mapped_nor_exported,
    a_process_that_ends_leaves_no_registration,
    a_revoked_open_keeps_no_pages,
    memory_that_is_not_ordinary_is_refused_and_unharmed,
    what_is_sent_that_is_no_address_space_is_refused,
    who_sends_files_without_end_keeps_nobody_from_registering,
    a_claim_is_for_what_was_taken_over_and_once,
    users_have_so_many_pages_and_ranges_and_no_more,
    six_thousand_pages_are_one_range,
    ten_thousand_ranges_of_one_client_come_and_go,
    a_client_killed_at_any_moment_of_a_registration_leaves_nothing,
];

/// A node that has been greeted, on a server that takes clients' memory.
pub(crate) fn node(puppet: &mut Puppet) -> u64 {
    let node = puppet.open("card0");
    assert!(puppet.features(node).contains(Features::USERPTR));
    node
}

impl Puppet {
    pub(crate) fn allocate_pages(&mut self, pages: u64) -> u64 {
        let (size, flags) = (pages * PAGE, MAP_PRIVATE);
        let address = self.memory(Memory::Allocate { size, flags }).unwrap();
        for page in 0..pages {
            self.poke(address + page * PAGE, page as u8);
        }
        address
    }

    pub(crate) fn register(&mut self, node: u64, address: u64, pages: u64) -> Result<u32, i32> {
        self.register_as(node, address, pages * PAGE, How::default())
    }

    pub(crate) fn register_as(
        &mut self,
        node: u64,
        address: u64,
        size: u64,
        how: How,
    ) -> Result<u32, i32> {
        let register = Memory::Register {
            node,
            address,
            size,
            how,
        };
        self.memory(register).map(|handle| handle as u32)
    }

    pub(crate) fn release(&mut self, handle: u32) {
        assert_eq!(self.memory(Memory::Release(handle)), Ok(0));
    }

    /// That memory is not registered again as long as some of it is a buffer's: the server knows, or
    /// the client library notices.
    pub(crate) fn has_pages_yet(&mut self, handle: u32) {
        let again = self.memory(Memory::RegisterAgain(handle));
        assert!([Err(EBUSY), Err(EFAULT)].contains(&again), "{again:?}");
    }

    /// That the pages hold what [`Puppet::allocate_pages`] wrote.
    pub(crate) fn is_as_allocated(&mut self, address: u64, pages: u64) {
        for page in 0..pages {
            assert_eq!(self.peek(address + page * PAGE), page as u8, "page {page}");
        }
    }

    pub(crate) fn map_over(&mut self, fd: u64, offset: u64, address: u64, size: u64, flags: u32) {
        let map = Command::Map {
            fd,
            offset,
            size,
            prot: READ_WRITE,
            flags,
            fixed: Some(address),
        };
        assert_eq!(self.tell(map).map(|outcome| outcome.value), Ok(address));
    }

    /// The next event of a node, which must not wait.
    pub(crate) fn event(&mut self, node: u64) -> Option<Event> {
        let read = self.tell(Command::Read(node, RECORD_SIZE as u64));
        let bytes = read.ok()?.bytes;
        Record::read_from_bytes(&bytes).unwrap().event()
    }
}

pub(crate) fn ranges(world: &mut dyn World) -> [u64; 2] {
    let stats = world.text("stats");
    ["userptr-ranges", "userptr-pages"].map(|key| count(&stats, key))
}

fn registered_memory_is_what_it_was_and_no_memory_of_the_servers(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    for (pages, read_only) in [(1, false), (5, true), (300, false)] {
        let at = a.allocate_pages(pages);
        let how = How {
            read_only,
            exclusive: read_only,
        };
        let handle = a.register_as(card, at, pages * PAGE, how).unwrap();
        a.is_as_allocated(at, pages);
        let last = at + pages * PAGE - 1;
        a.poke(last, 77);
        assert_eq!(a.peek(last), 77, "its own mapping is writeable");
        assert_eq!(ranges(world), [1, pages]);
        let stats = world.text("stats");
        assert_eq!(count(&stats, "memory-pages"), 0);
        assert_eq!(count(&stats, "mapped-pages"), pages);
        assert_eq!(a.call(card, Call::Size { handle }), Ok(pages));
        a.release(handle);
        a.is_as_allocated(at, pages);
        assert_eq!(a.peek(last), 77);
        a.unmap(at, pages * PAGE).unwrap();
        assert_eq!(ranges(world), [0, 0]);
    }
    // Memory that nobody has written to yet reads as zero, there and in everybody else.
    let (size, flags) = (20 * PAGE, MAP_PRIVATE);
    let at = a.memory(Memory::Allocate { size, flags }).unwrap();
    a.register(card, at, 20).unwrap();
    for page in 0..20 {
        assert_eq!(a.peek(at + page * PAGE), 0);
        a.poke(at + page * PAGE, 9);
    }
    let fresh = a.memory(Memory::Allocate { size, flags }).unwrap();
    assert_eq!(a.peek(fresh + 7 * PAGE), 0);
}

fn threads_that_write_while_memory_is_registered_lose_nothing(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    for round in 0..12 {
        let pages = [1, 16, 64][round % 3];
        let (address, size) = (a.allocate_pages(pages), pages * PAGE);
        let threads = 3;
        a.memory(Memory::Hammer {
            address,
            size,
            threads,
        })
        .unwrap();
        let handle = a.register(card, address, pages).unwrap();
        a.release(handle);
        assert_eq!(a.memory(Memory::Rest), Ok(0), "lost writes");
        a.is_as_allocated(address, pages);
        a.unmap(address, size).unwrap();
    }
    assert_eq!(ranges(world), [0, 0]);
}

fn shared_memory_of_no_file_can_be_registered(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let (size, flags) = (3 * PAGE, MAP_SHARED);
    let at = a.memory(Memory::Allocate { size, flags }).unwrap();
    a.poke(at + PAGE, 8);
    let exclusive = true;
    let how = How {
        exclusive,
        ..How::default()
    };
    let handle = a.register_as(card, at, size, how).unwrap();
    assert_eq!(a.peek(at + PAGE), 8);
    a.poke(at, 1);
    a.release(handle);
    assert_eq!(a.peek(at), 1);
}

fn an_unmapping_takes_all_pages_back_and_tells_who_did_it(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let flags = O_NONBLOCK as u64;
    a.tell(Command::SetFlags(card, flags)).unwrap();
    let pid = world.text("clients/1");
    let pid = count(&pid, "gem-pid");
    for (skip, pages) in [(0, 4), (0, 1), (3, 1), (1, 2)] {
        let at = a.allocate_pages(4);
        let handle = a.register(card, at, 4).unwrap();
        a.unmap(at + skip * PAGE, pages * PAGE).unwrap();
        assert_eq!(a.event(card), Some(Event::Revoked { handle, pid }));
        assert_eq!(a.event(card), None, "once");
        let left = 4 - pages;
        assert_eq!(ranges(world), if left > 0 { [1, 4] } else { [0, 0] });
        for page in (0..4).filter(|page| !(skip..skip + pages).contains(page)) {
            assert_eq!(
                a.peek(at + page * PAGE),
                page as u8,
                "what is left is memory"
            );
        }
        a.unmap(at, 4 * PAGE).unwrap();
        assert_eq!(ranges(world), [0, 0]);
        assert_eq!(a.event(card), None);
        a.release(handle);
    }
}

fn whatever_is_mapped_over_registered_memory_takes_it_back(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let buffer = a.create(card, 2 * PAGE).unwrap();
    let offset = a.call(card, Call::Map { handle: buffer }).unwrap();
    // Memory, a buffer, and other registered memory.
    for over in 0..3 {
        let at = a.allocate_pages(3);
        let handle = a.register(card, at, 3).unwrap();
        let second = at + PAGE;
        match over {
            0 => a.map_over(u64::MAX, 0, second, PAGE, MAP_PRIVATE),
            1 => a.map_over(card, offset, second, PAGE, MAP_SHARED),
            _ => {
                a.map_over(u64::MAX, 0, second, PAGE, MAP_PRIVATE);
                a.poke(second, 5);
                let other = a.register(card, second, 1).unwrap();
                assert_eq!(a.peek(second), 5);
                a.release(other);
            }
        }
        a.poke(second, 6);
        assert_eq!((a.peek(at), a.peek(at + 2 * PAGE)), (0, 2));
        a.has_pages_yet(handle);
        a.release(handle);
        a.unmap(at, 3 * PAGE).unwrap();
        assert_eq!(ranges(world), [0, 0], "{over}");
    }
}

fn closing_the_handle_leaves_the_memory_and_its_charge(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let at = a.allocate_pages(6);
    let handle = a.register(card, at, 6).unwrap();
    a.release(handle);
    assert_eq!(a.call(card, Call::Size { handle }), Err(ENOENT));
    a.is_as_allocated(at, 6);
    assert_eq!(ranges(world), [1, 6]);
    assert_eq!(a.register(card, at, 6), Err(EFAULT), "it is a buffer's yet");
    a.is_as_allocated(at, 6);
    a.unmap(at, 5 * PAGE).unwrap();
    assert_eq!(ranges(world), [1, 6]);
    a.unmap(at + 5 * PAGE, PAGE).unwrap();
    assert_eq!(ranges(world), [0, 0]);
    assert_eq!(count(&world.text("stats"), "objects"), 0);
}

fn memory_that_was_taken_back_is_registered_again_by_its_handle(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let at = a.allocate_pages(4);
    let handle = a.register(card, at, 4).unwrap();
    for round in 0..5 {
        a.has_pages_yet(handle);
        a.unmap(at, 4 * PAGE).unwrap();
        assert_eq!(a.memory(Memory::RegisterAgain(handle)), Err(EFAULT));
        assert_eq!(ranges(world), [0, 0]);
        a.map_over(u64::MAX, 0, at, 4 * PAGE, MAP_PRIVATE);
        a.poke(at + 3 * PAGE, round);
        assert_eq!(a.memory(Memory::RegisterAgain(handle)), Ok(0));
        assert_eq!(a.peek(at + 3 * PAGE), round);
        assert_eq!(ranges(world), [1, 4]);
    }
    // Nobody else can, and nothing else is.
    let mut other = Puppet::of_user(world, ALICE);
    let node = node(&mut other);
    let space = other.memory(Memory::Space).unwrap();
    let address = other.allocate_pages(4);
    let word = Taking::Again { address, handle }.encode().unwrap();
    let fds = vec![space];
    let to = node;
    assert_eq!(other.memory(Memory::Send { to, fds, word }), Err(ENOENT));
    other.is_as_allocated(address, 4);
}

fn registered_memory_is_named_and_neither_mapped_nor_exported(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::new(world));
    let (card, other) = (node(&mut a), node(&mut b));
    let at = a.allocate_pages(2);
    let handle = a.register(card, at, 2).unwrap();
    assert_eq!(a.call(card, Call::Map { handle }), Err(ENODEV));
    for path in ["", "/ro"] {
        let path = alloc::format!("handle/{handle}{path}");
        assert_eq!(a.dup(card, &path), Err(EINVAL));
    }
    let mapped = a.map(card, FIRST_OFFSET, 2 * PAGE, READ_WRITE);
    assert!([Err(ENODEV), Err(EFAULT)].contains(&mapped), "{mapped:?}");
    let name = a.flink(card, handle).unwrap();
    let path = alloc::format!("name/{name}");
    assert_eq!(b.open_at(other, path.as_bytes(), O_RDONLY), Err(EINVAL));
    let theirs = b.open_name(other, name).unwrap();
    assert_eq!(b.call(other, Call::Size { handle: theirs }), Ok(2));
    assert_eq!(b.call(other, Call::Map { handle: theirs }), Err(ENODEV));
    let mapped = b.map(other, FIRST_OFFSET, 2 * PAGE, READ_WRITE);
    assert!([Err(ENODEV), Err(EFAULT)].contains(&mapped), "{mapped:?}");
    // Who has it by name keeps no pages of anybody's.
    a.unmap(at, 2 * PAGE).unwrap();
    a.release(handle);
    assert_eq!(ranges(world), [0, 0]);
    assert_eq!(b.call(other, Call::Size { handle: theirs }), Ok(2));
    assert_eq!(count(&world.text("stats"), "objects"), 1);
}

fn a_process_that_ends_leaves_no_registration(world: &mut dyn World) {
    for by_itself in [false, true] {
        let mut a = Puppet::of_user(world, ALICE);
        let card = node(&mut a);
        let mut handles = Vec::new();
        for pages in [1, 7, 100] {
            let at = a.allocate_pages(pages);
            handles.push(a.register(card, at, pages).unwrap());
        }
        a.release(handles[1]);
        assert_eq!(ranges(world), [3, 108]);
        if by_itself {
            a.begin(Command::Exit);
            wait_until_empty(world);
        }
        a.kill();
        wait_until_empty(world);
    }
}

fn a_revoked_open_keeps_no_pages(world: &mut dyn World) {
    let (mut root, mut a) = (Puppet::new(world), Puppet::of_user(world, ALICE));
    let card = node(&mut a);
    let power = root.open("renderD128");
    let at = a.allocate_pages(3);
    a.register(card, at, 3).unwrap();
    let client = 1;
    assert_eq!(root.call(power, Call::Revoke { client }), Ok(0));
    assert_eq!(count(&world.text("stats"), "handles"), 0);
    a.is_as_allocated(at, 3);
    assert_eq!(ranges(world), [1, 3], "mapped yet");
    let fresh = a.allocate_pages(1);
    assert_eq!(a.register(card, fresh, 1), Err(ENODEV));
    a.is_as_allocated(fresh, 1);
    a.unmap(at, 3 * PAGE).unwrap();
    assert_eq!(ranges(world), [0, 0]);
}

fn memory_that_is_not_ordinary_is_refused_and_unharmed(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let buffer = a.create(card, 2 * PAGE).unwrap();
    let mapped = a.map_handle(card, buffer, 2 * PAGE).unwrap();
    a.poke(mapped, 3);
    let ours = a.allocate_pages(4);
    let hole = a.allocate_pages(3);
    a.unmap(hole + PAGE, PAGE).unwrap();
    let held = a.allocate_pages(2);
    let handle = a.register(card, held, 2).unwrap();
    let end = 1 << 47;
    for (address, size, errno) in [
        (mapped, 2 * PAGE, EFAULT),
        (hole, 3 * PAGE, EFAULT),
        (hole + PAGE, PAGE, EFAULT),
        (held, 2 * PAGE, EFAULT),
        (held + PAGE, PAGE, EFAULT),
        (end, PAGE, EFAULT),
        (!0xfff, 2 * PAGE, EFAULT),
        (0xffff_8000_0000_0000, PAGE, EFAULT),
        (ours + 1, PAGE, EINVAL),
        (ours, PAGE + 1, EINVAL),
        (ours, 0, EINVAL),
    ] {
        for exclusive in [false, true] {
            // Where nothing is, an exclusive registration would fault.
            if exclusive && errno == EFAULT && address != mapped && address != held {
                continue;
            }
            let how = How {
                exclusive,
                ..How::default()
            };
            let refused = a.register_as(card, address, size, how);
            assert_eq!(refused, Err(errno), "{address:#x} {size:#x} {exclusive}");
        }
    }
    a.is_as_allocated(ours, 4);
    a.is_as_allocated(held, 2);
    assert_eq!(
        (a.peek(mapped), a.peek(hole), a.peek(hole + 2 * PAGE)),
        (3, 0, 2)
    );
    assert_eq!(ranges(world), [1, 2]);
    a.release(handle);
    // And with every other kind of number, in the calls' own form.
    for flags in [4, 8, 0x40] {
        let [number, address, rest] = Call::Userptr {
            address: ours,
            pages: 4,
            flags: UserptrFlags::empty(),
        }
        .encode();
        let refused = a.words(&[card], &[number, address, rest | flags]);
        assert_eq!(refused, Err(EINVAL));
    }
    for (address, pages, flags, errno) in [
        (ours, 4, UserptrFlags::UNSYNCHRONIZED, ENODEV),
        (ours, 0, UserptrFlags::empty(), EINVAL),
        (ours + 8, 1, UserptrFlags::empty(), EINVAL),
        (end, 1, UserptrFlags::PROBE, EFAULT),
        (ours, 4, UserptrFlags::PROBE, EBADF),
    ] {
        let call = Call::Userptr {
            address,
            pages,
            flags,
        };
        assert_eq!(a.call(card, call), Err(errno), "{call:?}");
    }
}

fn what_is_sent_that_is_no_address_space_is_refused(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let address = a.allocate_pages(2);
    let (pages, read_only) = (2, false);
    let new = Taking::New {
        address,
        pages,
        read_only,
    };
    let word = new.encode().unwrap();
    let buffer = a.create(card, PAGE).unwrap();
    let object = a.dup(card, &alloc::format!("handle/{buffer}")).unwrap();
    let text = a.open_as("stats", O_RDONLY).unwrap();
    let render = a.open("renderD128");
    let space = a.memory(Memory::Space).unwrap();
    for (to, fds, word, errno) in [
        (card, vec![card], word, EBADF),
        (card, vec![object], word, EBADF),
        (card, vec![text], word, EBADF),
        (card, vec![space, object], word, EINVAL),
        (card, vec![space], 0, EINVAL),
        (render, vec![space], word, EACCES),
        (object, vec![space], word, EOPNOTSUPP),
        (text, vec![space, card], word, EOPNOTSUPP),
    ] {
        let sent = a.memory(Memory::Send { to, fds, word });
        assert_eq!(sent, Err(errno), "to {to}");
        a.is_as_allocated(address, 2);
    }
    assert_eq!(ranges(world), [0, 0]);
    let handle = a.register(card, address, 2).unwrap();
    a.is_as_allocated(address, 2);
    a.release(handle);
}

fn who_sends_files_without_end_keeps_nobody_from_registering(world: &mut dyn World) {
    let (senders, copies) = world.senders();
    let sender = |world: &mut dyn World| {
        let mut sender = Puppet::of_user(world, ALICE);
        let (to, word) = (node(&mut sender), 0);
        let fd = sender.memory(Memory::Space).unwrap();
        let many = Memory::SendMany {
            to,
            fd,
            copies,
            word,
        };
        assert_eq!(sender.memory(many.clone()), Ok(EINVAL as u64));
        sender.begin(Command::Memory(many));
        sender
    };
    let senders: Vec<Puppet> = (0..senders).map(|_| sender(world)).collect();
    let mut b = Puppet::of_user(world, BOB);
    let (node, pages) = (node(&mut b), 1);
    for _ in 0..10 {
        b.memory(Memory::Live { node, pages }).unwrap();
    }
    for sender in senders {
        sender.kill();
    }
}

fn a_claim_is_for_what_was_taken_over_and_once(world: &mut dyn World) {
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let address = a.allocate_pages(2);
    let space = a.memory(Memory::Space).unwrap();
    let (pages, read_only) = (2, false);
    let new = Taking::New {
        address,
        pages,
        read_only,
    };
    let (to, fds, word) = (card, vec![space], new.encode().unwrap());
    a.memory(Memory::Send { to, fds, word }).unwrap();
    assert_eq!(ranges(world), [1, 2]);
    assert_eq!(count(&world.text("stats"), "handles"), 0);
    let claim = |address, pages, flags| Call::Userptr {
        address,
        pages,
        flags,
    };
    let plain = UserptrFlags::empty();
    for wrong in [
        claim(address + PAGE, 1, plain),
        claim(address, 1, plain),
        claim(address, 2, UserptrFlags::READ_ONLY),
    ] {
        assert_eq!(a.call(card, wrong), Err(EBADF));
    }
    assert!(a.call(card, claim(address, 2, plain)).is_ok());
    assert_eq!(a.call(card, claim(address, 2, plain)), Err(EBADF));
    a.close(card).unwrap();
    wait_until_empty(world);
    // Nobody has claimed this.
    let card = node(&mut a);
    let address = a.allocate_pages(2);
    let space = a.memory(Memory::Space).unwrap();
    let new = Taking::New {
        address,
        pages,
        read_only,
    };
    let (to, fds, word) = (card, vec![space], new.encode().unwrap());
    a.memory(Memory::Send { to, fds, word }).unwrap();
    a.close(card).unwrap();
    wait_until_empty(world);
}

fn users_have_so_many_pages_and_ranges_and_no_more(world: &mut dyn World) {
    let mut root = Puppet::new(world);
    let power = node(&mut root);
    let set = |root: &mut Puppet, limit, value| {
        let before = root.call(power, Call::GetLimit { limit }).unwrap();
        root.call(power, Call::SetLimit { limit, value }).unwrap();
        Limit::unpack(before)
    };
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (card, other) = (node(&mut alice), node(&mut bob));
    let pages = set(&mut root, Limit::UserPagesPerUid, 5);
    let ranges_before = set(&mut root, Limit::UserRangesPerUid, 2);
    let at = alice.allocate_pages(6);
    assert_eq!(alice.register(card, at, 6), Err(ENOMEM));
    alice.is_as_allocated(at, 6);
    alice.register(card, at, 2).unwrap();
    alice.register(card, at + 2 * PAGE, 3).unwrap();
    assert_eq!(alice.register(card, at + 5 * PAGE, 1), Err(ENOMEM));
    set(&mut root, Limit::UserPagesPerUid, 100);
    assert_eq!(alice.register(card, at + 5 * PAGE, 1), Err(EMFILE));
    let theirs = bob.allocate_pages(5);
    bob.register(other, theirs, 5).unwrap();
    alice.is_as_allocated(at, 6);
    assert_eq!(ranges(world), [3, 10]);
    // What goes makes room.
    alice.unmap(at, PAGE).unwrap();
    assert_eq!(alice.register(card, at + 5 * PAGE, 1), Err(EMFILE));
    alice.unmap(at + PAGE, PAGE).unwrap();
    alice.register(card, at + 5 * PAGE, 1).unwrap();
    set(&mut root, Limit::UserPagesPerUid, pages);
    set(&mut root, Limit::UserRangesPerUid, ranges_before);
}

fn six_thousand_pages_are_one_range(world: &mut dyn World) {
    const PAGES: u64 = 6000;
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let (size, flags) = (PAGES * PAGE, MAP_PRIVATE);
    let address = a.memory(Memory::Allocate { size, flags }).unwrap();
    let threads = 2;
    a.memory(Memory::Hammer {
        address,
        size,
        threads,
    })
    .unwrap();
    let handle = a.register(card, address, PAGES).unwrap();
    assert_eq!(ranges(world), [1, PAGES]);
    assert_eq!(a.memory(Memory::Rest), Ok(0), "lost writes");
    a.unmap(address + 3000 * PAGE, PAGE).unwrap();
    a.poke(address + 5999 * PAGE, 1);
    a.release(handle);
    a.unmap(address, size).unwrap();
    assert_eq!(ranges(world), [0, 0]);
}

fn ten_thousand_ranges_of_one_client_come_and_go(world: &mut dyn World) {
    const RANGES: u64 = 10_000;
    let mut root = Puppet::new(world);
    let power = node(&mut root);
    let raised = [Limit::HandlesPerOpen, Limit::UserPagesPerUid];
    let before = raised.map(|limit| raise(&mut root, power, limit));
    let mut a = Puppet::of_user(world, ALICE);
    let card = node(&mut a);
    let (size, flags) = (RANGES * PAGE, MAP_PRIVATE);
    let at = a.memory(Memory::Allocate { size, flags }).unwrap();
    for page in 0..RANGES {
        a.register(card, at + page * PAGE, 1).unwrap();
    }
    assert_eq!(ranges(world), [RANGES, RANGES]);
    for page in (0..RANGES).step_by(100) {
        a.poke(at + page * PAGE, 3);
        a.unmap(at + page * PAGE, PAGE).unwrap();
    }
    assert_eq!(ranges(world)[0], RANGES - RANGES / 100);
    a.unmap(at, RANGES * PAGE).unwrap();
    assert_eq!(ranges(world), [0, 0]);
    for (limit, value) in raised.into_iter().zip(before) {
        root.call(power, Call::SetLimit { limit, value }).unwrap();
    }
}

/// As high as it goes; the value before.
pub(crate) fn raise(root: &mut Puppet, power: u64, limit: Limit) -> u64 {
    let before = root.call(power, Call::GetLimit { limit }).unwrap();
    let value = limit.most();
    root.call(power, Call::SetLimit { limit, value }).unwrap();
    Limit::unpack(before)
}

/// The moment is none of those at which a Redox kernel loses a file for good or stops its server
/// (docs/redox-integration.md): the client has opened its node before, what it dups of the server's
/// is nothing, and no call of its lends whole pages.
fn a_client_killed_at_any_moment_of_a_registration_leaves_nothing(world: &mut dyn World) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut files = None;
    for round in 0..world.kills() {
        let mut a = Puppet::of_user(world, ALICE);
        let node = node(&mut a);
        let pages = [1, 3, 40, 300][round as usize % 4];
        a.begin(Command::Memory(Memory::Live { node, pages }));
        world.linger(Duration::from_micros(dice.below(4000) as u64));
        a.kill();
        wait_until_empty(world);
        // By then it has those that it keeps.
        if round <= 10 {
            files = world.servers_files();
        }
    }
    for _ in 0..2000 {
        if world.servers_files() <= files {
            return;
        }
        world.pause();
    }
    assert_eq!(world.servers_files(), files, "the server's files");
}
