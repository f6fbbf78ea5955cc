//! Promises about what is not needed: who says so, who loses it when, and that this is told.

use alloc::format;

use gem_wire::drm::{self, Madvise};
use gem_wire::event::{Event, Pressure};
use gem_wire::limit::Limit;
use gem_wire::native::Advice::{DontNeed, WillNeed};
use gem_wire::native::{Advice, Call, Features, Hello};
use libredox::flag::PROT_READ;
use syscall::error::{EFAULT, EINVAL, ENOENT, ENOMEM};

use crate::command::Command;
use crate::events::{drain, unblock};
use crate::puppet::{PAGE, Puppet};
use crate::{ALICE, BOB, World, count, promises};

promises![
    advice_is_anybodys_to_give_and_answered_with_what_is_still_there,
    advice_that_is_none_is_refused,
    a_short_machine_costs_what_nobody_needs_and_nothing_else,
    every_open_is_told_that_memory_is_short_and_that_it_is_no_longer,
    a_purged_object_is_purged_for_all_who_hold_it,
    what_is_mapped_is_never_purged,
    at_its_limit_a_user_loses_what_it_does_not_need_and_nobody_else_does,
    what_has_no_pages_is_not_charged_for_any,
];

fn advise(puppet: &mut Puppet, node: u64, handle: u32, advice: Advice) -> Result<u64, i32> {
    puppet.call(node, Call::Advise { handle, advice })
}

/// A machine that has never enough left, or always. Whatever the server is to do about the former
/// it has done when this returns, since what it does then is what the test waits for.
fn short(root: &mut Puppet, node: u64, is_short: bool) {
    let limit = Limit::KeepFree;
    let value = if is_short { limit.most() } else { 1 };
    root.call(node, Call::SetLimit { limit, value }).unwrap();
}

/// Waits until so many objects have lost their pages.
fn wait_until_purged(world: &mut dyn World, objects: u64) {
    for _ in 0..5000 {
        if count(&world.text("stats"), "purged-objects") == objects {
            return;
        }
        world.pause();
    }
    panic!("not purged:\n{}", world.text("stats"));
}

/// What `objects` says of the one object of this many pages: its last column.
fn told(world: &mut dyn World, pages: u64) -> alloc::string::String {
    let text = world.text("objects");
    let line = text.lines().find(|line| {
        let column = line.split_whitespace().nth(1);
        column.is_some_and(|column| column.parse() == Ok(pages))
    });
    let line = line.unwrap_or_else(|| panic!("no object of {pages} pages:\n{text}"));
    line.split_whitespace().last().unwrap_or_default().into()
}

fn advice_is_anybodys_to_give_and_answered_with_what_is_still_there(world: &mut dyn World) {
    let mut alice = Puppet::of_user(world, ALICE);
    for node in ["card0", "renderD128"] {
        let node = alice.open(node);
        let hello = alice.call(node, Call::Hello { version: 1 }).unwrap();
        assert!(Hello::unpack(hello).features.contains(Features::ADVICE));
        let handle = alice.create(node, 31 * PAGE).unwrap();
        assert_eq!(told(world, 31), "needed");
        assert_eq!(advise(&mut alice, node, handle, DontNeed), Ok(1));
        assert_eq!(told(world, 31), "unneeded");
        assert_eq!(count(&world.text("stats"), "purgeable-pages"), 31);
        assert_eq!(advise(&mut alice, node, handle, WillNeed), Ok(1));
        assert_eq!(told(world, 31), "needed");
        // The same in Linux's form.
        for (madv, word, pages) in [(1, "unneeded", 31), (0, "needed", 0)] {
            let asked = Madvise {
                handle,
                madv,
                retained: 7,
            };
            let answer = alice.drm(node, drm::I915_GEM_MADVISE, asked);
            assert_eq!(answer.map(|answer| answer.retained), Ok(1));
            assert_eq!(told(world, 31), word);
            assert_eq!(count(&world.text("stats"), "purgeable-pages"), pages);
        }
        alice.call(node, Call::Close { handle }).unwrap();
    }
}

fn advice_that_is_none_is_refused(world: &mut dyn World) {
    let mut alice = Puppet::of_user(world, ALICE);
    let node = alice.open("renderD128");
    let handle = alice.create(node, PAGE).unwrap();
    for none in [0, handle + 1, u32::MAX] {
        for advice in [WillNeed, DontNeed] {
            assert_eq!(advise(&mut alice, node, none, advice), Err(ENOENT));
        }
        let asked = Madvise {
            handle: none,
            ..Madvise::default()
        };
        let answer = alice.drm(node, drm::I915_GEM_MADVISE, asked);
        assert_eq!(answer, Err(ENOENT));
    }
    let advice = WillNeed;
    let [number, first, _] = Call::Advise { handle, advice }.encode();
    for advice in [2, 1 << 32, u64::MAX] {
        let refused = alice.words(&[node], &[number, first, advice]);
        assert_eq!(refused, Err(EINVAL));
    }
    let wide = [number, first | 1 << 32, 1];
    assert_eq!(alice.words(&[node], &wide), Err(EINVAL));
    for madv in [2, u32::MAX] {
        let asked = Madvise {
            handle,
            madv,
            retained: 0,
        };
        let answer = alice.drm(node, drm::I915_GEM_MADVISE, asked);
        assert_eq!(answer, Err(EINVAL), "purged is not said, but found out");
    }
    assert_eq!(count(&world.text("stats"), "purgeable-pages"), 0);
}

fn a_short_machine_costs_what_nobody_needs_and_nothing_else(world: &mut dyn World) {
    let (mut root, mut alice) = (Puppet::new(world), Puppet::of_user(world, ALICE));
    let (control, node) = (root.open("renderD128"), alice.open("renderD128"));
    let [needed, unneeded, rescued] =
        [33, 34, 35].map(|pages| alice.create(node, pages * PAGE).unwrap());
    let at = alice.map_handle(node, needed, PAGE).unwrap();
    alice.poke(at, 5);
    alice.unmap(at, PAGE).unwrap();
    for handle in [unneeded, rescued] {
        assert_eq!(advise(&mut alice, node, handle, DontNeed), Ok(1));
    }
    assert_eq!(advise(&mut alice, node, rescued, WillNeed), Ok(1));
    short(&mut root, control, true);
    wait_until_purged(world, 1);
    let stats = world.text("stats");
    assert_eq!(count(&stats, "memory-pressure"), 2);
    assert_eq!(count(&stats, "purged-pages"), 34);
    assert_eq!(count(&stats, "purgeable-pages"), 0);
    assert_eq!(told(world, 33), "needed");
    assert_eq!(told(world, 34), "purged");
    assert_eq!(advise(&mut alice, node, needed, WillNeed), Ok(1));
    assert_eq!(advise(&mut alice, node, rescued, WillNeed), Ok(1));
    for advice in [WillNeed, DontNeed, WillNeed] {
        assert_eq!(advise(&mut alice, node, unneeded, advice), Ok(0));
    }
    let at = alice.map_handle(node, needed, PAGE).unwrap();
    assert_eq!(alice.peek(at), 5);
    // Short or not, there is memory for what is needed.
    alice.create(node, PAGE).unwrap();
    short(&mut root, control, false);
    for _ in 0..5000 {
        if count(&world.text("stats"), "memory-pressure") == 0 {
            let late = alice.create(node, 36 * PAGE).unwrap();
            assert_eq!(advise(&mut alice, node, late, DontNeed), Ok(1));
            return;
        }
        world.pause();
    }
    panic!("short for good");
}

fn every_open_is_told_that_memory_is_short_and_that_it_is_no_longer(world: &mut dyn World) {
    let (mut root, mut alice) = (Puppet::new(world), Puppet::of_user(world, ALICE));
    let control = root.open("renderD128");
    let nodes = ["card0", "renderD128"].map(|node| alice.open(node));
    for node in nodes {
        // There is nothing to look for while nobody has memory.
        alice.create(node, PAGE).unwrap();
        unblock(&mut alice, node);
    }
    for (is_short, wanted) in [(true, Pressure::Critical), (false, Pressure::Eased)] {
        short(&mut root, control, is_short);
        for node in nodes {
            wait_until_told(world, &mut alice, node, wanted);
        }
    }
}

/// Waits until an open has read that memory is so short.
fn wait_until_told(world: &mut dyn World, puppet: &mut Puppet, node: u64, wanted: Pressure) {
    for _ in 0..5000 {
        let events = drain(puppet, node);
        let is_it =
            |event: &Event| matches!(event, Event::Pressure { level, .. } if *level == wanted);
        if events.iter().any(is_it) {
            return;
        }
        world.pause();
    }
    panic!("nobody says {wanted:?}:\n{}", world.text("stats"));
}

fn a_purged_object_is_purged_for_all_who_hold_it(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let mut root = Puppet::new(world);
    let control = root.open("renderD128");
    let (node, other) = (alice.open("renderD128"), bob.open("renderD128"));
    let handle = alice.create(node, 37 * PAGE).unwrap();
    let offset = alice.call(node, Call::Map { handle }).unwrap();
    let fd = alice.dup(node, &format!("handle/{handle}")).unwrap();
    let given = alice.give(fd, &mut bob);
    let bobs = bob.import(other, given).unwrap();
    alice.tell(Command::Write(fd, b"text".to_vec())).unwrap();
    assert_eq!(advise(&mut bob, other, bobs, DontNeed), Ok(1));
    short(&mut root, control, true);
    wait_until_purged(world, 1);
    assert_eq!(advise(&mut alice, node, handle, WillNeed), Ok(0));
    assert_eq!(advise(&mut bob, other, bobs, WillNeed), Ok(0));
    // What needs no pages works on.
    assert_eq!(alice.call(node, Call::Size { handle }), Ok(37));
    assert_eq!(alice.call(node, Call::Map { handle }), Ok(offset));
    assert_eq!(bob.import(other, given), Ok(bobs));
    let stat = bob.tell(Command::Fstat(given)).unwrap();
    assert_eq!(stat.value, 37 * PAGE);
    // And what does need them says that they are gone.
    assert_eq!(alice.map(node, offset, PAGE, PROT_READ), Err(EFAULT));
    assert_eq!(bob.map(given, 0, PAGE, PROT_READ), Err(EFAULT));
    assert_eq!(bob.map(given, 0, 38 * PAGE, PROT_READ), Err(EINVAL));
    assert_eq!(alice.tell(Command::Read(fd, 4)), Err(EFAULT));
    let more = Command::Write(given, b"more".to_vec());
    assert_eq!(bob.tell(more), Err(EFAULT));
    alice.call(node, Call::Close { handle }).unwrap();
    alice.close(fd).unwrap();
    assert_eq!(told(world, 37), "purged");
    bob.close(given).unwrap();
    bob.call(other, Call::Close { handle: bobs }).unwrap();
    wait_until_purged(world, 0);
}

fn what_is_mapped_is_never_purged(world: &mut dyn World) {
    let (mut root, mut alice) = (Puppet::new(world), Puppet::of_user(world, ALICE));
    let (control, node) = (root.open("renderD128"), alice.open("renderD128"));
    let handle = alice.create(node, 38 * PAGE).unwrap();
    let fd = alice.dup(node, &format!("handle/{handle}")).unwrap();
    let at = alice.map_handle(node, handle, 38 * PAGE).unwrap();
    let seen = alice.map(fd, PAGE, PAGE, PROT_READ).unwrap();
    let bait = alice.create(node, PAGE).unwrap();
    for handle in [handle, bait] {
        assert_eq!(advise(&mut alice, node, handle, DontNeed), Ok(1));
    }
    short(&mut root, control, true);
    wait_until_purged(world, 1);
    alice.poke(at + PAGE, 44);
    assert_eq!(alice.peek(seen), 44);
    // A part is as good as all of it, through whatever fd.
    alice.unmap(at, 30 * PAGE).unwrap();
    alice.call(node, Call::Close { handle: bait }).unwrap();
    assert_eq!(advise(&mut alice, node, handle, DontNeed), Ok(1));
    alice.unmap(at + 30 * PAGE, 8 * PAGE).unwrap();
    assert_eq!(alice.peek(seen), 44);
    assert_eq!(advise(&mut alice, node, handle, DontNeed), Ok(1));
    assert_eq!(told(world, 38), "unneeded");
    alice.unmap(seen, PAGE).unwrap();
    wait_until_purged(world, 1);
    assert_eq!(advise(&mut alice, node, handle, WillNeed), Ok(0));
}

fn at_its_limit_a_user_loses_what_it_does_not_need_and_nobody_else_does(world: &mut dyn World) {
    let (mut root, mut alice) = (Puppet::new(world), Puppet::of_user(world, ALICE));
    let mut bob = Puppet::of_user(world, BOB);
    let (control, node) = (root.open("renderD128"), alice.open("renderD128"));
    let other = bob.open("renderD128");
    for (limit, value) in [(Limit::MemoryPerUid, 100), (Limit::Object, 100)] {
        root.call(control, Call::SetLimit { limit, value }).unwrap();
    }
    let bobs = bob.create(other, 90 * PAGE).unwrap();
    assert_eq!(advise(&mut bob, other, bobs, DontNeed), Ok(1));
    let [first, second, third, needed] =
        [20, 20, 20, 40].map(|pages| alice.create(node, pages * PAGE).unwrap());
    for handle in [first, second, third] {
        assert_eq!(advise(&mut alice, node, handle, DontNeed), Ok(1));
    }
    // The one that was unneeded first is now the last.
    assert_eq!(advise(&mut alice, node, first, DontNeed), Ok(1));
    alice.create(node, 30 * PAGE).unwrap();
    assert_eq!(advise(&mut alice, node, second, WillNeed), Ok(0));
    assert_eq!(advise(&mut alice, node, third, WillNeed), Ok(0));
    // What does not fit whatever goes costs nothing.
    assert_eq!(alice.create(node, 51 * PAGE), Err(ENOMEM));
    assert_eq!(advise(&mut alice, node, first, DontNeed), Ok(1));
    alice.create(node, 30 * PAGE).unwrap();
    assert_eq!(advise(&mut alice, node, first, WillNeed), Ok(0));
    assert_eq!(alice.create(node, PAGE), Err(ENOMEM), "all is needed");
    assert_eq!(advise(&mut alice, node, needed, WillNeed), Ok(1));
    assert_eq!(advise(&mut bob, other, bobs, WillNeed), Ok(1));
    assert_eq!(count(&world.text("stats"), "purged-pages"), 60);
}

fn what_has_no_pages_is_not_charged_for_any(world: &mut dyn World) {
    let (mut root, mut alice) = (Puppet::new(world), Puppet::of_user(world, ALICE));
    let (control, node) = (root.open("renderD128"), alice.open("renderD128"));
    let before = count(&world.text("stats"), "memory-pages");
    for _ in 0..3 {
        let handle = alice.create(node, 50 * PAGE).unwrap();
        assert_eq!(advise(&mut alice, node, handle, DontNeed), Ok(1));
    }
    short(&mut root, control, true);
    wait_until_purged(world, 3);
    let stats = world.text("stats");
    assert_eq!(count(&stats, "memory-pages"), before);
    assert_eq!(count(&stats, "objects"), 3);
    assert_eq!(count(&stats, "purged-pages"), 150);
}
