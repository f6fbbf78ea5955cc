//! Promises about what people and tools read: how much everybody has, and who may know.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use gem_wire::native::Call;
use libredox::flag::O_RDONLY;
use syscall::error::ENOENT;

use crate::command::Command;
use crate::puppet::{PAGE, Puppet};
use crate::{ALICE, BOB, World, count, promises};

promises![
    users_see_what_is_theirs,
    of_anothers_open_nobody_learns_whether_there_is_one,
    a_text_tells_whoever_reads_it_not_whoever_opened_it,
    only_root_sees_where_memory_lies,
    an_object_counts_once_for_every_open_that_holds_it,
    every_user_sees_what_it_has_of_its_limits,
];

fn users_see_what_is_theirs(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (node, other) = (alice.open("renderD128"), bob.open("renderD128"));
    alice.create(node, 5 * PAGE).unwrap();
    bob.create(other, 7 * PAGE).unwrap();
    let pages = |text: &str| {
        let lines = text.lines().skip(1);
        let pages = lines.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
        pages.collect::<Vec<_>>()
    };
    assert_eq!(pages(&alice.text("objects").unwrap()), [5]);
    assert_eq!(pages(&bob.text("objects").unwrap()), [7]);
    assert_eq!(pages(&world.text("objects")), [5, 7]);

    let mine = alice.entries("clients").unwrap();
    let his = bob.entries("clients").unwrap();
    assert_eq!((mine.len(), his.len()), (1, 1));
    assert_ne!(mine, his);
    let path = format!("clients/{}", mine[0]);
    let text = alice.text(&path).unwrap();
    assert_eq!(count(&text, "gem-uid"), ALICE.into());
    assert_eq!(count(&text, "gem-handles"), 1);
    assert_eq!(bob.text(&path), Err(ENOENT));
    assert!(bob.text("stats").is_ok(), "totals are everybody's");
    let root = bob.entries("").unwrap();
    assert!(root.iter().any(|name| name == "card0"), "{root:?}");
}

/// The text of the one open of this process's user.
fn own_client(puppet: &mut Puppet) -> String {
    let clients = puppet.entries("clients").unwrap();
    let [client] = clients.as_slice() else {
        panic!("one open: {clients:?}");
    };
    puppet.text(&format!("clients/{client}")).unwrap()
}

fn of_anothers_open_nobody_learns_whether_there_is_one(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (node, other) = (alice.open("renderD128"), bob.open("renderD128"));
    alice.create(node, PAGE).unwrap();
    bob.create(other, PAGE).unwrap();
    let number = |puppet: &mut Puppet| puppet.entries("clients").unwrap()[0].parse::<u64>();
    let [alices, bobs] = [&mut alice, &mut bob].map(|puppet| number(puppet).unwrap());
    // All that an fd says before and after Alice's open is gone.
    let mut look = |number: u64| {
        let fd = bob.open_as(&format!("clients/{number}"), O_RDONLY).unwrap();
        let path = bob.tell(Command::Fpath(fd)).unwrap().bytes;
        let path = String::from_utf8(path).unwrap();
        assert!(path.ends_with(&format!("/clients/{number}")), "{path}");
        assert!(bob.tell(Command::Fstat(fd)).is_ok());
        let read = bob.tell(Command::Read(fd, 4000)).map(|reply| reply.value);
        bob.close(fd).unwrap();
        read
    };
    assert!(look(bobs).unwrap() > 0);
    assert_eq!(look(alices), Err(ENOENT));
    assert_eq!(look(alices + bobs), Err(ENOENT), "there never was one");
    alice.close(node).unwrap();
    assert_eq!(look(alices), Err(ENOENT));
}

/// So many KiB, as Linux's `drm-usage-stats` tells memory.
fn kibibytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|line| line.strip_prefix(":\t")?.strip_suffix(" KiB"));
    let number = value.and_then(|value| value.parse().ok());
    number.unwrap_or_else(|| panic!("no `{key}` in KiB in:\n{text}"))
}

fn a_text_tells_whoever_reads_it_not_whoever_opened_it(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let node = alice.open("renderD128");
    alice.create(node, 5 * PAGE).unwrap();
    let client = &alice.entries("clients").unwrap()[0];
    let mut give = |path: &str| {
        let fd = alice.open_as(path, O_RDONLY).unwrap();
        alice.give(fd, &mut bob)
    };
    let fds = ["stats", "objects", &format!("clients/{client}")].map(&mut give);
    let [stats, objects, client] = fds.map(|fd| bob.tell(Command::Read(fd, 4000)));
    let text = |reply: crate::command::Outcome| String::from_utf8(reply.bytes).unwrap();
    assert_eq!(count(&text(stats.unwrap()), "uid"), BOB.into());
    assert_eq!(text(objects.unwrap()).lines().count(), 1, "no object");
    assert_eq!(client, Err(ENOENT));
}

fn only_root_sees_where_memory_lies(world: &mut dyn World) {
    let mut alice = Puppet::of_user(world, ALICE);
    let node = alice.open("renderD128");
    alice.create(node, 5 * PAGE).unwrap();
    let place = |text: &str| {
        let columns = text.lines().next().unwrap().split(' ');
        let values = text.lines().last().unwrap().split(' ');
        let places = columns.zip(values);
        let mut places = places.filter(|(column, _)| ["extents", "first"].contains(column));
        let [extents, first] = [(); 2].map(|()| String::from(places.next().unwrap().1));
        (extents, first)
    };
    let (extents, first) = place(&alice.text("objects").unwrap());
    assert_eq!((extents.as_str(), first.as_str()), ("-", "-"));
    let (extents, first) = place(&world.text("objects"));
    assert!(extents.parse::<u64>().unwrap() >= 1, "{extents}");
    let number = u64::from_str_radix(first.strip_prefix("0x").unwrap(), 16).unwrap();
    assert!(number > 0 && number.is_multiple_of(PAGE), "{first}");
}

fn an_object_counts_once_for_every_open_that_holds_it(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (node, other) = (alice.open("renderD128"), bob.open("renderD128"));
    let holds = |puppet: &mut Puppet| {
        let text = own_client(puppet);
        ["drm-total-memory", "drm-shared-memory"].map(|key| kibibytes(&text, key))
    };
    let own = alice.create(node, 3 * PAGE).unwrap();
    let lent = alice.create(node, 2 * PAGE).unwrap();
    alice.map_handle(node, own, 3 * PAGE).unwrap();
    assert_eq!(holds(&mut alice), [20, 0]);

    let fd = alice.dup(node, &format!("handle/{lent}")).unwrap();
    let given = alice.give(fd, &mut bob);
    assert_eq!(holds(&mut alice), [20, 0], "an fd is no open");
    bob.call(other, Call::Hello { version: 1 }).unwrap();
    assert_eq!(holds(&mut bob), [0, 0]);
    let imported = bob.import(other, given).unwrap();
    let mapped = bob.map_handle(other, imported, PAGE).unwrap();
    assert_eq!(holds(&mut alice), [20, 8]);
    assert_eq!(holds(&mut bob), [8, 8]);

    bob.call(other, Call::Close { handle: imported }).unwrap();
    assert_eq!(holds(&mut bob), [8, 8], "it is mapped still");
    alice.call(node, Call::Close { handle: lent }).unwrap();
    assert_eq!(holds(&mut alice), [12, 0]);
    assert_eq!(holds(&mut bob), [8, 0]);
    bob.unmap(mapped, PAGE).unwrap();
    assert_eq!(holds(&mut bob), [0, 0]);
}

fn every_user_sees_what_it_has_of_its_limits(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (node, other) = (alice.open("renderD128"), bob.open("renderD128"));
    let handle = alice.create(node, 5 * PAGE).unwrap();
    alice.map_handle(node, handle, 4 * PAGE).unwrap();
    bob.create(other, 7 * PAGE).unwrap();
    let keys = [
        "uid",
        "uid-opens",
        "uid-objects",
        "uid-handles",
        "uid-offsets",
        "uid-memory-pages",
        "uid-mapped-pages",
        "uid-mapped-objects",
        "memory-pages",
    ];
    let numbers = |text: String| keys.map(|key| count(&text, key));
    let alices = numbers(alice.text("stats").unwrap());
    assert_eq!(alices, [ALICE.into(), 1, 1, 1, 1, 5, 4, 1, 12]);
    let bobs = numbers(bob.text("stats").unwrap());
    assert_eq!(bobs, [BOB.into(), 1, 1, 1, 0, 7, 0, 0, 12]);
}
