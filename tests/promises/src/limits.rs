//! Promises about limits: refused before anything is made, and free again when something goes. For
//! worlds whose server was started with small ones.

use gem_wire::native::Call;
use syscall::error::{EMFILE, ENOMEM};

use crate::puppet::{PAGE, Puppet};
use crate::{ALICE, BOB, World, count, promises};

promises![
    an_open_has_no_more_handles_than_the_limit,
    a_user_maps_no_more_pages_than_the_limit,
    users_do_not_take_each_others_memory,
    all_users_together_have_no_more_than_the_limit,
];

/// A limit, which must be small enough to be reached.
fn limit(world: &mut dyn World, key: &str, most: u64) -> u64 {
    let limit = count(&world.text("stats"), key);
    assert!(
        limit <= most,
        "start the server with a smaller {key} than {limit}"
    );
    limit
}

fn an_open_has_no_more_handles_than_the_limit(world: &mut dyn World) {
    let limit = limit(world, "limit-handles-per-open", 2000);
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, PAGE).unwrap();
    let name = a.flink(card, handle).unwrap();
    for number in 2..=limit {
        assert_eq!(a.open_name(card, name), Ok(number as u32));
    }
    let before = world.text("stats");
    assert_eq!(a.open_name(card, name), Err(EMFILE));
    assert_eq!(
        a.create(card, PAGE),
        Err(EMFILE),
        "no object without a handle"
    );
    assert_eq!(world.text("stats"), before);
    let second = a.open("card0");
    assert_eq!(a.open_name(second, name), Ok(1), "another open has its own");
    a.call(card, Call::Close { handle: 7 }).unwrap();
    assert_eq!(a.open_name(card, name), Ok(7));
}

fn a_user_maps_no_more_pages_than_the_limit(world: &mut dyn World) {
    let limit = limit(world, "limit-mapped-pages-per-uid", 1 << 20);
    let pages = count(&world.text("stats"), "limit-object-pages");
    let mut a = Puppet::of_user(world, ALICE);
    let node = a.open("renderD128");
    let handle = a.create(node, pages * PAGE).unwrap();
    let mut last = 0;
    for _ in 0..limit / pages {
        last = a.map_handle(node, handle, pages * PAGE).unwrap();
    }
    let mapped = limit / pages * pages;
    assert_eq!(count(&world.text("stats"), "mapped-pages"), mapped);
    let more = (limit - mapped + 1) * PAGE;
    assert_eq!(a.map_handle(node, handle, more), Err(EMFILE));
    let other = a.open("renderD128");
    let second = a.create(other, PAGE * (limit - mapped + 1)).unwrap();
    assert_eq!(
        a.map_handle(other, second, more),
        Err(EMFILE),
        "per user, not per open"
    );
    assert_eq!(count(&world.text("stats"), "mapped-pages"), mapped);
    a.unmap(last, pages * PAGE).unwrap();
    assert!(a.map_handle(other, second, more).is_ok());
}

/// Buffers of this user until no more are allowed; returns how many pages they have.
fn fill(a: &mut Puppet, node: u64, object_pages: u64) -> u64 {
    let mut pages = 0;
    for size in [object_pages, 1] {
        loop {
            match a.create(node, size * PAGE) {
                Ok(_) => pages += size,
                Err(errno) => {
                    assert_eq!(errno, ENOMEM);
                    break;
                }
            }
        }
    }
    pages
}

fn users_do_not_take_each_others_memory(world: &mut dyn World) {
    let uid = limit(world, "limit-memory-pages-per-uid", 1 << 16);
    let object = count(&world.text("stats"), "limit-object-pages");
    let (mut a, mut b) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (alices, bobs) = (a.open("renderD128"), b.open("renderD128"));
    assert_eq!(fill(&mut a, alices, object), uid);
    let second = a.open("renderD128");
    assert_eq!(
        a.create(second, PAGE),
        Err(ENOMEM),
        "per user, not per open"
    );
    assert_eq!(fill(&mut b, bobs, object), uid);
    a.close(alices).unwrap();
    assert_eq!(
        fill(&mut a, second, object),
        uid,
        "it comes back with the open"
    );
}

fn all_users_together_have_no_more_than_the_limit(world: &mut dyn World) {
    let total = limit(world, "limit-memory-pages", 1 << 16);
    let object = count(&world.text("stats"), "limit-object-pages");
    let mut used = 0;
    let mut puppets = [ALICE, BOB, BOB + 1].map(|uid| Puppet::of_user(world, uid));
    for puppet in &mut puppets {
        let node = puppet.open("renderD128");
        used += fill(puppet, node, object);
    }
    assert_eq!(used, total);
    assert_eq!(count(&world.text("stats"), "memory-pages"), total);
}
