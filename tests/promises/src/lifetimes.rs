//! Promises about ends: closing, dying, being killed at any moment.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use gem_wire::native::Call;

use crate::command::Command;
use crate::puppet::{PAGE, Puppet};
use crate::{World, count, promises, wait_until_empty};

promises![
    closing_a_node_gives_back_everything,
    a_duplicate_of_a_node_is_the_same_open,
    killing_a_client_gives_back_everything,
    exiting_without_closing_gives_back_everything,
    a_crash_gives_back_everything,
    what_a_dead_client_shared_lives_on_with_the_others,
    handles_are_numbers_of_one_open,
    many_objects_come_and_go,
    a_client_that_is_killed_amid_its_calls_harms_nobody,
];

fn closing_a_node_gives_back_everything(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    for size in 1..20 {
        let handle = a.create(card, size * PAGE).unwrap();
        a.flink(card, handle).unwrap();
        a.call(card, Call::Map { handle }).unwrap();
    }
    let stats = world.text("stats");
    assert_eq!(count(&stats, "names"), 19);
    assert_eq!(count(&stats, "offsets"), 19);
    assert_eq!(count(&stats, "memory-pages"), 190);
    a.close(card).unwrap();
    wait_until_empty(world);
}

fn a_duplicate_of_a_node_is_the_same_open(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, PAGE).unwrap();
    let second = a.dup(card, "").unwrap();
    assert_ne!(card, second);
    a.close(card).unwrap();
    assert_eq!(a.call(second, Call::Size { handle }), Ok(1));
    assert_eq!(count(&world.text("stats"), "opens"), 1);
}

/// A client that holds some of everything.
fn laden(world: &mut dyn World) -> Puppet {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let mut last = 0;
    for _ in 0..10 {
        last = a.create(card, 4 * PAGE).unwrap();
        a.flink(card, last).unwrap();
        a.map_handle(card, last, 4 * PAGE).unwrap();
    }
    let fd = a.dup(card, &format!("handle/{last}")).unwrap();
    a.map(fd, 0, PAGE, crate::puppet::READ_WRITE).unwrap();
    assert_eq!(count(&world.text("stats"), "mapped-pages"), 41);
    a
}

fn killing_a_client_gives_back_everything(world: &mut dyn World) {
    laden(world).kill();
    wait_until_empty(world);
}

fn exiting_without_closing_gives_back_everything(world: &mut dyn World) {
    laden(world).exit();
    wait_until_empty(world);
}

fn a_crash_gives_back_everything(world: &mut dyn World) {
    laden(world).crash();
    wait_until_empty(world);
}

fn what_a_dead_client_shared_lives_on_with_the_others(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::new(world));
    let (card, other) = (a.open("card0"), b.open("card0"));
    let handle = a.create(card, PAGE).unwrap();
    let at = a.map_handle(card, handle, PAGE).unwrap();
    a.poke(at, 31);
    let name = a.flink(card, handle).unwrap();
    let theirs = b.open_name(other, name).unwrap();
    let lost = a.create(card, PAGE).unwrap();
    let lost = a.flink(card, lost).unwrap();
    a.kill();
    let there = b.map_handle(other, theirs, PAGE).unwrap();
    assert_eq!(b.peek(there), 31);
    assert_eq!(b.flink(other, theirs), Ok(name));
    for _ in 0..2000 {
        if b.open_name(other, lost).is_err() {
            return;
        }
        world.pause();
    }
    panic!("what nobody else held is still there");
}

fn handles_are_numbers_of_one_open(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::new(world));
    let (card, other) = (a.open("card0"), b.open("card0"));
    a.create(card, PAGE).unwrap();
    a.create(card, PAGE).unwrap();
    b.create(other, 3 * PAGE).unwrap();
    assert_eq!(a.call(card, Call::Size { handle: 1 }), Ok(1));
    assert_eq!(b.call(other, Call::Size { handle: 1 }), Ok(3));
    let handle = 2;
    assert_eq!(
        b.call(other, Call::Size { handle }),
        Err(syscall::error::ENOENT)
    );
}

fn many_objects_come_and_go(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handles: Vec<u32> = (0..300).map(|_| a.create(card, PAGE).unwrap()).collect();
    assert_eq!(handles, (1..=300).collect::<Vec<_>>());
    // Past 255: handles are whole numbers, not bytes.
    assert_eq!(a.call(card, Call::Size { handle: 300 }), Ok(1));
    for handle in handles {
        a.call(card, Call::Close { handle }).unwrap();
    }
    assert_eq!(a.create(card, PAGE), Ok(1));
}

fn a_client_that_is_killed_amid_its_calls_harms_nobody(world: &mut dyn World) {
    const ROUNDS: u8 = 12;
    const PAGES: u64 = 256;
    let mut witness = Puppet::new(world);
    let card = witness.open("card0");
    let handle = witness.create(card, PAGE).unwrap();
    let at = witness.map_handle(card, handle, PAGE).unwrap();
    for round in 0..ROUNDS {
        let mut victims: Vec<_> = (0..6).map(|_| Puppet::new(world)).collect();
        for (number, victim) in victims.iter_mut().enumerate() {
            let node = victim.open("card0");
            let handle = victim.create(node, PAGES * PAGE).unwrap();
            let object = victim.dup(node, &format!("handle/{handle}")).unwrap();
            victim.map_handle(node, handle, PAGES * PAGE).unwrap();
            // With payloads of many pages, most of them wait for their turn when they are killed.
            victim.begin(match number % 3 {
                0 => Command::Write(object, vec![5; 8 * PAGE as usize]),
                1 => Command::Read(object, PAGES * PAGE),
                _ => Command::Fpath(object),
            });
        }
        world.pause();
        victims.into_iter().for_each(Puppet::kill);
        witness.poke(at, round);
        assert_eq!(witness.call(card, Call::Size { handle }), Ok(1));
    }
    assert_eq!(witness.peek(at), ROUNDS - 1);
}
