//! Promises about who pays, and about limits that root sets while clients are there.

use alloc::format;
use alloc::vec::Vec;

use gem_wire::limit::Limit;
use gem_wire::native::Call;
use libredox::flag::O_RDONLY;
use syscall::error::{EACCES, EBADF, EINVAL, EMFILE, ENODEV, ENOENT};

use crate::command::Command;
use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::{ALICE, BOB, World, count, promises};

promises![
    who_holds_an_object_longest_pays_for_it,
    limits_are_roots_to_set_and_everybodys_to_read,
    a_limit_that_cannot_be_is_refused,
    a_lower_limit_takes_nothing_away_and_stops_what_is_new,
    a_revoked_open_is_of_no_use_and_harms_nobody,
    revoking_is_roots_and_needs_an_open_that_exists,
    what_a_revoked_open_maps_is_there_until_it_is_unmapped,
    whoever_maps_through_an_object_fd_pays_for_it,
    who_opens_without_using_loses_its_own_files_and_nobody_elses,
];

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

fn value(puppet: &mut Puppet, node: u64, limit: Limit) -> u64 {
    let word = puppet.call(node, Call::GetLimit { limit });
    Limit::unpack(word.unwrap())
}

fn set(puppet: &mut Puppet, node: u64, limit: Limit, value: u64) -> Result<u64, i32> {
    puppet.call(node, Call::SetLimit { limit, value })
}

fn limits_are_roots_to_set_and_everybodys_to_read(world: &mut dyn World) {
    let (mut root, mut alice) = (Puppet::new(world), Puppet::of_user(world, ALICE));
    let card = alice.open("card0");
    let node = root.open("renderD128");
    for &limit in Limit::ALL {
        let before = value(&mut alice, card, limit);
        assert_eq!(
            set(&mut alice, card, limit, 1),
            Err(EACCES),
            "master or not"
        );
        let key = format!("limit-{limit}");
        assert_eq!(count(&world.text("stats"), &key), before);
        assert_eq!(set(&mut root, node, limit, limit.most()), Ok(0));
        assert_eq!(value(&mut alice, card, limit), limit.most());
        assert_eq!(count(&world.text("stats"), &key), limit.most());
        assert_eq!(set(&mut root, node, limit, before), Ok(0));
    }
}

fn a_limit_that_cannot_be_is_refused(world: &mut dyn World) {
    let mut root = Puppet::new(world);
    let node = root.open("renderD128");
    let before = world.text("stats");
    let [number, ..] = Call::SetLimit {
        limit: Limit::Memory,
        value: 1,
    }
    .encode();
    for &limit in Limit::ALL {
        for value in [0, limit.most() + 1, u64::MAX, -5_i64 as u64, 1 << 63] {
            let words = [number, limit.number(), value];
            assert_eq!(root.words(&[node], &words), Err(EINVAL), "{limit} {value}");
        }
    }
    for which in [0, Limit::ALL.len() as u64 + 1, u64::MAX] {
        assert_eq!(root.words(&[node], &[number, which, 1]), Err(EINVAL));
    }
    assert_eq!(world.text("stats"), before);
}

fn a_lower_limit_takes_nothing_away_and_stops_what_is_new(world: &mut dyn World) {
    let (mut root, mut alice) = (Puppet::new(world), Puppet::of_user(world, ALICE));
    let (node, card) = (root.open("renderD128"), alice.open("card0"));
    let handles = [(); 3].map(|()| alice.create(card, PAGE).unwrap());
    let at = alice.map_handle(card, handles[0], PAGE).unwrap();
    alice.flink(card, handles[0]).unwrap();
    for (limit, most) in [
        (Limit::HandlesPerOpen, 1),
        (Limit::NamesPerUid, 1),
        (Limit::OffsetsPerUid, 1),
        (Limit::ObjectFdsPerOpen, 1),
    ] {
        set(&mut root, node, limit, most).unwrap();
    }
    alice.poke(at, 5);
    assert_eq!(alice.peek(at), 5);
    assert_eq!(alice.create(card, PAGE), Err(EMFILE));
    let [_, second, third] = handles;
    assert_eq!(alice.call(card, Call::Size { handle: third }), Ok(1));
    assert_eq!(alice.flink(card, second), Err(EMFILE));
    let place = alice.call(card, Call::Map { handle: second });
    assert_eq!(place, Err(EMFILE));
    let path = format!("handle/{second}");
    let fd = alice.dup(card, &path).unwrap();
    assert_eq!(alice.dup(card, &path), Err(EMFILE));
    alice.close(fd).unwrap();
    alice.dup(card, &path).unwrap();
    // With the first one gone, so are its name and its offset.
    alice.unmap(at, PAGE).unwrap();
    let handle = handles[0];
    alice.call(card, Call::Close { handle }).unwrap();
    alice.flink(card, second).unwrap();
    alice.map_handle(card, second, PAGE).unwrap();
    assert_eq!(alice.create(card, PAGE), Err(EMFILE), "two are left");
}

/// The number of this user's one open.
fn client(world: &mut dyn World, uid: u32) -> u64 {
    for number in 1.. {
        let text = world.text(&format!("clients/{number}"));
        if count(&text, "gem-uid") == u64::from(uid) {
            return number;
        }
    }
    unreachable!("reading a client that does not exist panics")
}

fn a_revoked_open_is_of_no_use_and_harms_nobody(world: &mut dyn World) {
    let mut alice = Puppet::of_user(world, ALICE);
    let card = alice.open("card0");
    let (mut root, mut bob) = (Puppet::new(world), Puppet::of_user(world, BOB));
    let (node, other) = (root.open("card0"), bob.open("renderD128"));
    let [shared, lost] = [5, 7].map(|pages| alice.create(card, pages * PAGE).unwrap());
    let name = alice.flink(card, shared).unwrap();
    let theirs = root.open_name(node, name).unwrap();
    let fd = alice.dup(card, &format!("handle/{shared}")).unwrap();
    let given = alice.give(fd, &mut bob);
    let gone = alice.flink(card, lost).unwrap();

    // She was the first to ask for anything.
    assert_eq!(root.call(node, Call::Revoke { client: 1 }), Ok(0));
    assert_eq!(alice.call(card, Call::Size { handle: shared }), Err(ENODEV));
    assert_eq!(alice.create(card, PAGE), Err(ENODEV));
    assert_eq!(alice.dup(card, "handle/1"), Err(ENODEV));
    assert_eq!(alice.import(card, fd), Err(ENODEV));
    let hello = Call::Hello { version: 1 };
    assert_eq!(alice.call(card, hello), Err(ENODEV));
    assert_eq!(root.open_name(node, gone), Err(ENOENT));
    assert_eq!(root.call(node, Call::Size { handle: theirs }), Ok(5));
    let bobs = bob.import(other, given).unwrap();
    assert!(bob.map_handle(other, bobs, PAGE).is_ok());
    let second = alice.open("card0");
    assert_eq!(alice.create(second, PAGE), Ok(1), "an open, not its user");
}

fn revoking_is_roots_and_needs_an_open_that_exists(world: &mut dyn World) {
    let mut alice = Puppet::of_user(world, ALICE);
    let card = alice.open("card0");
    alice.create(card, PAGE).unwrap();
    let mut root = Puppet::new(world);
    let node = root.open("renderD128");
    for client in [1, 99] {
        assert_eq!(alice.call(card, Call::Revoke { client }), Err(EACCES));
    }
    for client in [0, 99, u64::MAX] {
        assert_eq!(root.call(node, Call::Revoke { client }), Err(ENOENT));
    }
    assert_eq!(alice.create(card, PAGE), Ok(2));
    let client = client(world, ALICE);
    root.call(node, Call::Revoke { client }).unwrap();
    assert_eq!(root.call(node, Call::Revoke { client }), Ok(0), "again");
    alice.close(card).unwrap();
    for _ in 0..2000 {
        if root.call(node, Call::Revoke { client }) == Err(ENOENT) {
            return;
        }
        world.pause();
    }
    panic!("a closed open can be revoked");
}

fn what_a_revoked_open_maps_is_there_until_it_is_unmapped(world: &mut dyn World) {
    let mut alice = Puppet::of_user(world, ALICE);
    let card = alice.open("card0");
    let handle = alice.create(card, 29 * PAGE).unwrap();
    let at = alice.map_handle(card, handle, 29 * PAGE).unwrap();
    let mut root = Puppet::new(world);
    let node = root.open("renderD128");
    let client = client(world, ALICE);
    root.call(node, Call::Revoke { client }).unwrap();
    alice.poke(at, 77);
    assert_eq!(alice.peek(at), 77, "no kernel takes a mapping away");
    assert_eq!(payer(world, 29), Some(ALICE));
    let offset = 0;
    let more = alice.map(card, offset, PAGE, READ_WRITE);
    assert_eq!(more, Err(ENODEV));
    alice.unmap(at, 29 * PAGE).unwrap();
    for _ in 0..2000 {
        if payer(world, 29).is_none() {
            return;
        }
        world.pause();
    }
    panic!("what is unmapped is there still");
}

fn whoever_maps_through_an_object_fd_pays_for_it(world: &mut dyn World) {
    let mut root = Puppet::new(world);
    let rule = root.open("renderD128");
    set(&mut root, rule, Limit::MappedPerUid, 40).unwrap();
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let card = alice.open("card0");
    let handle = alice.create(card, 20 * PAGE).unwrap();
    let fd = alice.dup(card, &format!("handle/{handle}")).unwrap();
    // Bob maps it until he may no more, and has nothing else of this server.
    let theirs = alice.give(fd, &mut bob);
    let size = 20 * PAGE;
    let [first, _] = [0, 0].map(|offset| bob.map(theirs, offset, size, READ_WRITE).unwrap());
    assert_eq!(bob.map(theirs, 0, PAGE, READ_WRITE), Err(EMFILE));
    // To Alice it is nothing, through her node or the same fd.
    alice.map_handle(card, handle, size).unwrap();
    let at = alice.map(fd, 0, size, READ_WRITE).unwrap();
    assert_eq!(alice.map(fd, 0, PAGE, READ_WRITE), Err(EMFILE));
    // Each has room for what each unmaps.
    alice.unmap(at, PAGE).unwrap();
    assert_eq!(bob.map(theirs, 0, PAGE, READ_WRITE), Err(EMFILE));
    alice.map(fd, 0, PAGE, READ_WRITE).unwrap();
    bob.unmap(first, 2 * PAGE).unwrap();
    assert_eq!(alice.map(fd, 0, PAGE, READ_WRITE), Err(EMFILE));
    bob.map(theirs, 0, 2 * PAGE, READ_WRITE).unwrap();
    // And who is gone has nothing.
    bob.kill();
    let mut other = Puppet::of_user(world, BOB);
    let theirs = alice.give(fd, &mut other);
    for _ in 0..2000 {
        if other.map(theirs, 0, size, READ_WRITE).is_ok() {
            return;
        }
        world.pause();
    }
    panic!("a dead process pays for what it had mapped");
}

/// More files than a server keeps of those that nobody has used.
const UNUSED: usize = 1100;

fn who_opens_without_using_loses_its_own_files_and_nobody_elses(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let card = bob.open("renderD128");
    bob.create(card, PAGE).unwrap();
    let text = bob.open_as("stats", O_RDONLY).unwrap();
    bob.tell(Command::Read(text, 100)).unwrap();
    let nodes: Vec<u64> = (0..UNUSED).map(|_| alice.open("renderD128")).collect();
    assert_eq!(bob.create(card, PAGE), Ok(2), "what is used stays");
    bob.tell(Command::Read(text, 100)).unwrap();
    let fresh = bob.open("renderD128");
    assert_eq!(bob.create(fresh, PAGE), Ok(1), "and there is room for more");
    assert_eq!(alice.create(nodes[0], PAGE), Err(EBADF), "the oldest went");
    assert_eq!(alice.create(nodes[UNUSED - 1], PAGE), Ok(1));
    for node in nodes {
        alice.close(node).unwrap();
    }
    assert!(count(&world.text("stats"), "files") < 100);
}
