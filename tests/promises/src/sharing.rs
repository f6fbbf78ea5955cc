//! Promises about sharing: names, fds, masters, render nodes.

use alloc::format;

use gem_wire::drm::{self, Auth, Cap, Client, CreateDumb, GemClose, GemFlink, GemOpen, MapDumb};
use gem_wire::native::{Call, Features, Hello};
use libredox::flag::{O_RDONLY, O_RDWR, PROT_READ};
use syscall::error::{EACCES, EBUSY, EINVAL, ENOENT, EOPNOTSUPP};

use crate::command::Command;
use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::{ALICE, BOB, World, promises};

promises![
    two_processes_write_into_one_buffer,
    a_name_works_for_root_and_master_and_whoever_the_master_vouches_for,
    a_name_dies_with_the_last_handle,
    a_name_is_the_same_every_time_and_gives_a_new_handle_every_time,
    a_render_node_shares_by_fd_and_knows_no_names,
    importing_gives_the_same_handle_again,
    an_object_fd_needs_no_handle_and_no_node,
    a_read_only_fd_is_read_only,
    a_node_opened_read_only_maps_read_only,
    an_object_is_opened_by_name_relative_to_a_card_and_from_nowhere_else,
    only_one_open_is_master,
    the_drm_calls_do_what_linux_says,
    the_server_says_what_it_can_do,
];

fn two_processes_write_into_one_buffer(world: &mut dyn World) {
    let (mut producer, mut consumer) = (Puppet::new(world), Puppet::new(world));
    let card = producer.open("card0");
    let handle = producer.create(card, 3 * PAGE).unwrap();
    let name = producer.flink(card, handle).unwrap();
    let here = producer.map_handle(card, handle, 3 * PAGE).unwrap();
    producer.poke(here + 2 * PAGE, 42);

    let other = consumer.open("card0");
    let handle = consumer.open_name(other, name).unwrap();
    let there = consumer.map_handle(other, handle, 3 * PAGE).unwrap();
    assert_eq!(consumer.peek(there + 2 * PAGE), 42);
    assert_eq!(consumer.peek(there), 0, "a new buffer reads as zero");
    consumer.poke(there + PAGE, 7);
    assert_eq!(producer.peek(here + PAGE), 7);
}

fn a_name_works_for_root_and_master_and_whoever_the_master_vouches_for(world: &mut dyn World) {
    let mut alice = Puppet::of_user(world, ALICE);
    let master = alice.open("card0");
    let handle = alice.create(master, PAGE).unwrap();
    let name = alice
        .flink(master, handle)
        .expect("the first open is master");

    let mut bob = Puppet::of_user(world, BOB);
    let card = bob.open("card0");
    assert_eq!(bob.open_name(card, name), Err(EACCES));
    let own = bob.create(card, PAGE).unwrap();
    assert_eq!(bob.flink(card, own), Err(EACCES));

    let mut root = Puppet::new(world);
    let node = root.open("card0");
    assert!(root.open_name(node, name).is_ok());

    let magic = bob.call(card, Call::GetMagic).unwrap() as u32;
    assert_eq!(bob.call(card, Call::AuthMagic { magic }), Err(EACCES));
    assert_eq!(
        alice.call(master, Call::AuthMagic { magic: magic + 1 }),
        Err(EINVAL)
    );
    alice.call(master, Call::AuthMagic { magic }).unwrap();
    assert!(bob.open_name(card, name).is_ok());
    assert!(bob.flink(card, own).is_ok());
    // Only this open: another one of Bob's is a stranger again.
    let second = bob.open("card0");
    assert_eq!(bob.open_name(second, name), Err(EACCES));
}

fn a_name_dies_with_the_last_handle(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::new(world));
    let (card, other) = (a.open("card0"), b.open("card0"));
    let handle = a.create(card, PAGE).unwrap();
    let name = a.flink(card, handle).unwrap();
    let second = b.open_name(other, name).unwrap();
    let fd = b.dup(other, &format!("handle/{second}")).unwrap();
    a.call(card, Call::Close { handle }).unwrap();
    assert!(a.open_name(card, name).is_ok(), "the other handle holds it");
    a.close(card).unwrap();
    b.call(other, Call::Close { handle: second }).unwrap();
    // The object lives on behind its fd; the name does not.
    assert_eq!(b.open_name(other, name), Err(ENOENT));
    let again = b.import(other, fd).unwrap();
    assert_ne!(b.flink(other, again), Ok(name));
    assert_eq!(b.open_name(other, 0), Err(ENOENT));
    assert_eq!(b.open_name(other, u32::MAX), Err(ENOENT));
}

fn a_name_is_the_same_every_time_and_gives_a_new_handle_every_time(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, PAGE).unwrap();
    let name = a.flink(card, handle).unwrap();
    assert_eq!(a.flink(card, handle), Ok(name));
    assert_eq!(a.open_name(card, name), Ok(handle + 1));
    assert_eq!(a.open_name(card, name), Ok(handle + 2));
    assert_eq!(a.flink(card, handle + 2), Ok(name));
    a.call(card, Call::Close { handle }).unwrap();
    assert_eq!(
        a.open_name(card, name),
        Ok(handle),
        "the lowest free number"
    );
}

fn a_render_node_shares_by_fd_and_knows_no_names(world: &mut dyn World) {
    let (mut alice, mut bob) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let (node, other) = (alice.open("renderD128"), bob.open("renderD128"));
    let handle = alice.create(node, PAGE).unwrap();
    assert_eq!(alice.flink(node, handle), Err(EACCES));
    assert_eq!(alice.open_name(node, 1), Err(EACCES));
    assert_eq!(alice.call(node, Call::GetMagic), Err(EACCES));
    assert_eq!(alice.words(&[node], &[drm::SET_MASTER]), Err(EACCES));
    let dumb = alice.drm(node, drm::MODE_CREATE_DUMB, CreateDumb::default());
    assert_eq!(dumb, Err(EACCES));

    let fd = alice.dup(node, &format!("handle/{handle}")).unwrap();
    let fd = alice.give(fd, &mut bob);
    let imported = bob.import(other, fd).unwrap();
    let here = alice.map_handle(node, handle, PAGE).unwrap();
    let there = bob.map_handle(other, imported, PAGE).unwrap();
    bob.poke(there, 9);
    assert_eq!(alice.peek(here), 9);
}

fn importing_gives_the_same_handle_again(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let (card, other) = (a.open("card0"), a.open("renderD128"));
    let handle = a.create(card, PAGE).unwrap();
    let fd = a.dup(card, &format!("handle/{handle}")).unwrap();
    assert_eq!(a.import(card, fd), Ok(handle), "its own");
    let imported = a.import(other, fd).unwrap();
    assert_eq!(a.import(other, fd), Ok(imported));
    let second = a.dup(card, &format!("handle/{handle}")).unwrap();
    assert_eq!(
        a.import(other, second),
        Ok(imported),
        "another fd on the same object"
    );
    assert_eq!(
        a.words(&[other, fd], &[drm::PRIME_FD_TO_HANDLE]),
        Ok(imported.into()),
        "in its DRM form"
    );
    a.call(other, Call::Close { handle: imported }).unwrap();
    assert!(a.import(other, fd).is_ok(), "a new one after the close");
    assert_eq!(a.import(other, card), Err(EINVAL), "a node is no object");
    assert_eq!(
        a.words(&[fd, card], &Call::Import.encode()[..2]),
        Err(EOPNOTSUPP)
    );
}

fn an_object_fd_needs_no_handle_and_no_node(world: &mut dyn World) {
    let (mut a, mut b) = (Puppet::new(world), Puppet::of_user(world, BOB));
    let card = a.open("card0");
    let handle = a.create(card, 2 * PAGE).unwrap();
    let fd = a.dup(card, &format!("handle/{handle}")).unwrap();
    let given = a.give(fd, &mut b);
    a.kill();
    // Whoever made it is gone; whoever has the fd has the object.
    let stat = b.tell(Command::Fstat(given)).unwrap();
    assert_eq!(stat.value, 2 * PAGE);
    assert_eq!(
        b.tell(Command::Write(given, b"hello".to_vec()))
            .unwrap()
            .value,
        5
    );
    let at = b.map(given, 0, PAGE, READ_WRITE).unwrap();
    assert_eq!(b.peek(at + 4), b'o');
    assert_eq!(b.tell(Command::Fsync(given)).unwrap().value, 0);
    let path = b.tell(Command::Fpath(given)).unwrap().bytes;
    assert!(path.starts_with(b"/scheme/gem/object/"));
}

fn a_read_only_fd_is_read_only(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, PAGE).unwrap();
    let here = a.map_handle(card, handle, PAGE).unwrap();
    a.poke(here, 5);
    let fd = a.dup(card, &format!("handle/{handle}/ro")).unwrap();
    assert_eq!(a.map(fd, 0, PAGE, READ_WRITE), Err(EACCES));
    assert_eq!(a.import(card, fd), Err(EACCES));
    assert_eq!(a.tell(Command::Write(fd, b"x".to_vec())), Err(EACCES));
    let there = a.map(fd, 0, PAGE, PROT_READ).unwrap();
    assert_eq!(a.peek(there), 5);
    assert_eq!(a.tell(Command::Read(fd, 1)).unwrap().bytes, [5]);
}

fn a_node_opened_read_only_maps_read_only(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let node = a.open_as("renderD128", O_RDONLY).unwrap();
    let handle = a.create(node, PAGE).unwrap();
    let offset = a.call(node, Call::Map { handle }).unwrap();
    assert_eq!(a.map(node, offset, PAGE, READ_WRITE), Err(EACCES));
    let mapped = a.map(node, offset, PAGE, PROT_READ).unwrap();
    assert_eq!(a.peek(mapped), 0);
}

fn an_object_is_opened_by_name_relative_to_a_card_and_from_nowhere_else(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, PAGE).unwrap();
    let name = a.flink(card, handle).unwrap();
    let path = format!("name/{name}");
    let fd = a.open_at(card, path.as_bytes(), O_RDWR).unwrap();
    assert_eq!(a.import(card, fd).map(|_| ()), Ok(()));
    let reader = a.open_at(card, path.as_bytes(), O_RDONLY).unwrap();
    assert_eq!(a.map(reader, 0, PAGE, READ_WRITE), Err(EACCES));
    assert_eq!(
        a.open_as(&path, O_RDWR),
        Err(EACCES),
        "the fd is the authority"
    );
    let render = a.open("renderD128");
    assert_eq!(a.open_at(render, path.as_bytes(), O_RDWR), Err(EACCES));
    assert_eq!(a.open_at(card, b"name/0", O_RDWR), Err(ENOENT));
}

fn only_one_open_is_master(world: &mut dyn World) {
    let mut alice = Puppet::of_user(world, ALICE);
    let master = alice.open("card0");
    alice.call(master, Call::GetMagic).unwrap();
    let mut bob = Puppet::of_user(world, BOB);
    let card = bob.open("card0");
    assert_eq!(
        bob.words(&[card], &[drm::SET_MASTER]),
        Err(EACCES),
        "it never was"
    );
    let mut root = Puppet::new(world);
    let node = root.open("card0");
    assert_eq!(root.words(&[node], &[drm::SET_MASTER]), Err(EBUSY));
    alice.words(&[master], &[drm::DROP_MASTER]).unwrap();
    assert_eq!(alice.words(&[master], &[drm::DROP_MASTER]), Err(EINVAL));
    root.words(&[node], &[drm::SET_MASTER]).unwrap();
    assert_eq!(alice.words(&[master], &[drm::SET_MASTER]), Err(EBUSY));
    root.close(node).unwrap();
    alice.words(&[master], &[drm::SET_MASTER]).unwrap();
}

fn the_drm_calls_do_what_linux_says(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let asked = CreateDumb {
        width: 100,
        height: 50,
        bpp: 32,
        ..CreateDumb::default()
    };
    let dumb = a.drm(card, drm::MODE_CREATE_DUMB, asked).unwrap();
    assert_eq!((dumb.pitch, dumb.size, dumb.handle), (448, 6 * PAGE, 1));
    let handle = dumb.handle;
    let map = MapDumb {
        handle,
        ..MapDumb::default()
    };
    let map = a.drm(card, drm::MODE_MAP_DUMB, map).unwrap();
    let at = a.map(card, map.offset, dumb.size, READ_WRITE).unwrap();
    a.poke(at + dumb.size - 1, 1);

    let flink = a
        .drm(card, drm::GEM_FLINK, GemFlink { handle, name: 0 })
        .unwrap();
    let open = GemOpen {
        name: flink.name,
        ..GemOpen::default()
    };
    let open = a.drm(card, drm::GEM_OPEN, open).unwrap();
    assert_eq!((open.handle, open.size), (2, 6 * PAGE));
    for handle in [1, 2] {
        a.drm(card, drm::GEM_CLOSE, GemClose { handle, pad: 0 })
            .unwrap();
    }
    let close = GemClose { handle: 1, pad: 0 };
    assert_eq!(a.drm(card, drm::GEM_CLOSE, close), Err(EINVAL));

    let mut capability = |capability| {
        let asked = Cap {
            capability,
            value: 0,
        };
        a.drm(card, drm::GET_CAP, asked).map(|cap| cap.value)
    };
    assert_eq!(capability(drm::cap::DUMB_BUFFER), Ok(1));
    assert_eq!(capability(drm::cap::PRIME), Ok(3));
    assert_eq!(
        capability(drm::cap::SYNCOBJ),
        Ok(0),
        "no error, as on Linux"
    );
    assert_eq!(capability(drm::cap::SYNCOBJ_TIMELINE), Ok(0));
    assert_eq!(capability(0), Err(EINVAL));
    assert_eq!(capability(1000), Err(EINVAL));

    let client = a.drm(card, drm::GET_CLIENT, Client::default()).unwrap();
    assert_eq!((client.auth, client.uid), (1, 0));
    let magic = a.drm(card, drm::GET_MAGIC, Auth::default()).unwrap();
    a.drm(card, drm::AUTH_MAGIC, magic).unwrap();
    assert_eq!(
        a.drm(card, drm::AUTH_MAGIC, magic),
        Err(EINVAL),
        "it works once"
    );
}

fn the_server_says_what_it_can_do(world: &mut dyn World) {
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let hello = Hello::unpack(a.call(card, Call::Hello { version: 1 }).unwrap());
    assert_eq!(hello.version, 1);
    assert!(
        hello
            .features
            .contains(Features::BUFFERS | Features::NAMES | Features::PRIME)
    );
    assert_eq!(a.call(card, Call::Hello { version: 0 }), Err(EINVAL));
}
