//! Promises about a machine whose memory runs out. For worlds where making a buffer takes memory,
//! whose machine is small, and whose server's limits let its clients have all of it.

use alloc::vec::Vec;

use gem_wire::event::{Event, Pressure};
use gem_wire::limit::Limit;
use gem_wire::native::{Advice, Call, CreateFlags, Sized};
use syscall::error::ENOMEM;

use crate::events::{drain, unblock};
use crate::puppet::{PAGE, Puppet};
use crate::{ALICE, BOB, World, count, promises};

promises![
    memory_that_runs_out_costs_what_nobody_needs_and_then_the_request,
    what_a_user_leaves_unused_takes_nobodys_memory,
];

/// Pages in each buffer: 8 MiB.
const PAGES: u64 = 2048;
/// Bytes in a small one.
const SMALL: u64 = 16 * PAGE;

/// Until an open has been told so: what it was told on the way there.
fn wait_until_told(
    world: &mut dyn World,
    puppet: &mut Puppet,
    node: u64,
    wanted: Pressure,
) -> Vec<Pressure> {
    let mut told = Vec::new();
    for _ in 0..5000 {
        for event in drain(puppet, node) {
            match event {
                Event::Pressure { level, .. } => told.push(level),
                other => panic!("{other:?}"),
            }
        }
        if told.last() == Some(&wanted) {
            return told;
        }
        world.pause();
    }
    panic!("told {told:?}, not {wanted:?}:\n{}", world.text("stats"));
}

fn memory_that_runs_out_costs_what_nobody_needs_and_then_the_request(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (card, node) = (alice.open("renderD128"), bob.open("renderD128"));
    let size = PAGES * PAGE;
    let [needed, mapped] = [(); 2].map(|()| alice.create(card, size).unwrap());
    let at = alice.map_handle(card, mapped, size).unwrap();
    alice.poke(at + size - 1, 7);
    let unneeded: Vec<u32> = (0..5).map(|_| alice.create(card, size).unwrap()).collect();
    let mut advise = |handle, advice| alice.call(card, Call::Advise { handle, advice });
    for &handle in unneeded.iter().chain([&mapped]) {
        assert_eq!(advise(handle, Advice::DontNeed), Ok(1));
    }
    unblock(&mut bob, node);

    let mut bobs = Vec::new();
    let refused = loop {
        match bob.create(node, size) {
            Ok(handle) => bobs.push(handle),
            Err(errno) => break errno,
        }
    };
    assert_eq!(refused, ENOMEM);
    assert!(bobs.len() > 10, "{}", bobs.len());
    // What nobody needed went before anybody was refused; what is needed or mapped is there.
    let stats = world.text("stats");
    assert_eq!(count(&stats, "purged-pages"), 5 * PAGES);
    for &handle in &unneeded {
        assert_eq!(advise(handle, Advice::WillNeed), Ok(0));
    }
    for handle in [needed, mapped] {
        assert_eq!(advise(handle, Advice::WillNeed), Ok(1));
    }
    assert_eq!(alice.peek(at + size - 1), 7);
    wait_until_told(world, &mut bob, node, Pressure::Critical);

    // The server lives, refuses the next one, too, and serves what takes no memory. What is too
    // little for a large one it gives away in small ones.
    assert_eq!(bob.create(node, size), Err(ENOMEM));
    let mut small = Vec::new();
    let refused = loop {
        match bob.create(node, SMALL) {
            Ok(handle) => small.push(handle),
            Err(errno) => break errno,
        }
    };
    assert_eq!(refused, ENOMEM);
    let in_one_piece = create(&mut bob, node, CreateFlags::CONTIGUOUS, PAGES / 2 + 1);
    assert_eq!(in_one_piece, Err(ENOMEM));
    let [first, .., last] = bobs[..] else {
        panic!("there were more than ten");
    };
    assert_eq!(bob.call(node, Call::Size { handle: last }), Ok(PAGES));
    let there = bob.map_handle(node, first, PAGE).unwrap();
    assert_eq!(bob.peek(there), 0);
    bob.unmap(there, PAGE).unwrap();

    // What is given back can be had again, by others as well.
    for handle in bobs.drain(..4) {
        bob.call(node, Call::Close { handle }).unwrap();
    }
    let late = alice.create(card, size).unwrap();
    alice.call(card, Call::Close { handle: late }).unwrap();
    for handle in bobs.into_iter().chain(small) {
        bob.call(node, Call::Close { handle }).unwrap();
    }
    wait_until_told(world, &mut bob, node, Pressure::Eased);
    assert_eq!(count(&world.text("stats"), "memory-pressure"), 0);
}

/// What each user may have: a fifth of the machine.
const SHARE: u64 = 12 * PAGES;
/// Pages that a server takes from the kernel at a time, where nobody asks for more.
const ARENA: u64 = 512;

fn create(puppet: &mut Puppet, node: u64, flags: CreateFlags, pages: u64) -> Result<u32, i32> {
    let size = pages * PAGE;
    let made = puppet.call(node, Call::Create { size, flags })?;
    Ok(Sized::unpack(made).handle)
}

fn what_a_user_leaves_unused_takes_nobodys_memory(world: &mut dyn World) {
    let mut root = Puppet::new(world);
    let control = root.open("renderD128");
    let (limit, value) = (Limit::MemoryPerUid, SHARE);
    root.call(control, Call::SetLimit { limit, value }).unwrap();
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (card, node) = (alice.open("renderD128"), bob.open("renderD128"));
    let kinds = [
        CreateFlags::empty(),
        CreateFlags::WRITE_COMBINING,
        CreateFlags::UNCACHED,
    ];
    let kinds = kinds.map(|kind| [kind, kind | CreateFlags::CONTIGUOUS]);
    let mut held = 0;
    for kind in kinds.into_iter().flatten() {
        // A page of whatever the server takes from the kernel, and not the rest of it.
        let mut rest = Vec::new();
        while create(&mut alice, card, kind, 1).is_ok() {
            held += 1;
            let Ok(handle) = create(&mut alice, card, kind, ARENA - 1) else {
                break;
            };
            rest.push(handle);
        }
        for handle in rest {
            alice.call(card, Call::Close { handle }).unwrap();
        }
    }
    assert_eq!(count(&world.text("stats"), "memory-pages"), held);
    // Bob has his share of the machine nevertheless.
    for _ in 0..SHARE / PAGES {
        bob.create(node, PAGES * PAGE).unwrap();
    }
}
