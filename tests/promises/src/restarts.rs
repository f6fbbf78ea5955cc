//! Promises about the server's own end: what clients have stays theirs, and a new server finds
//! nothing of it in its way. For worlds whose server can end without the kernel.
//!
//! The kernel answers calls on files of a server that is gone with ENODEV. A call that waits at the
//! moment when the server is killed waits for good; its process can be killed. So a server that can
//! still choose answers everything before it goes.

use alloc::format;
use alloc::vec;

use gem_wire::native::{Call, CreateFlags};
use syscall::error::{ENODEV, ENOENT};

use crate::command::Command;
use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::{BOB, World, count, promises};

promises![
    what_a_dead_servers_clients_have_mapped_stays_theirs,
    a_new_server_knows_nothing_of_the_old_one,
    a_client_that_waits_for_a_dead_server_can_be_killed,
    a_server_that_is_told_to_leave_answers_what_waits,
    a_server_leaves_amid_its_own_work,
    servers_come_and_go_amid_calls,
];

/// Has the process make a buffer as large as may be, for which it has to wait, and does not wait.
fn start_large(puppet: &mut Puppet, node: u64, world: &mut dyn World) {
    let size = count(&world.text("stats"), "limit-object-pages") * PAGE;
    let flags = CreateFlags::empty();
    puppet.start(&Command::Call {
        fds: vec![node],
        flags: 0,
        words: Call::Create { size, flags }.encode().to_vec(),
        payload: vec![],
    });
}

fn what_a_dead_servers_clients_have_mapped_stays_theirs(world: &mut dyn World) {
    world.start_server();
    let (mut a, mut b) = (Puppet::new(world), Puppet::of_user(world, BOB));
    let (card, node) = (a.open("card0"), b.open("renderD128"));
    let handle = a.create(card, 3 * PAGE).unwrap();
    let offset = a.call(card, Call::Map { handle }).unwrap();
    let here = a.map(card, offset, 3 * PAGE, READ_WRITE).unwrap();
    let path = format!("handle/{handle}");
    let object = a.dup(card, &path).unwrap();
    let given = a.give(object, &mut b);
    let there = b.map(given, 0, 3 * PAGE, READ_WRITE).unwrap();
    a.poke(here, 1);

    world.kill_server();
    assert_eq!(b.peek(there), 1);
    b.poke(there + 2 * PAGE, 2);
    assert_eq!(a.peek(here + 2 * PAGE), 2, "still shared");
    assert_eq!(a.call(card, Call::Size { handle }), Err(ENODEV));
    assert_eq!(a.create(card, PAGE), Err(ENODEV));
    assert_eq!(a.map(card, offset, PAGE, READ_WRITE), Err(ENODEV));
    assert_eq!(a.dup(card, &path), Err(ENODEV));
    assert_eq!(a.import(card, object), Err(ENODEV));
    assert_eq!(
        a.open_at(card, b"name/1", libredox::flag::O_RDWR),
        Err(ENODEV)
    );
    assert_eq!(a.open_as("card0", libredox::flag::O_RDWR), Err(ENODEV));
    assert_eq!(b.create(node, PAGE), Err(ENODEV));
    assert_eq!(b.map(given, 0, PAGE, READ_WRITE), Err(ENODEV));
    assert_eq!(b.tell(Command::Fstat(given)).map(|_| ()), Err(ENODEV));
    // There is nobody to tell. What the kernel answers is not of interest; that the page is gone is.
    let _ = a.unmap(here, PAGE);
    assert_eq!(a.peek(here + 2 * PAGE), 2);
    for fd in [card, object] {
        let _ = a.close(fd);
    }
    assert_eq!(b.peek(there), 1);
    world.start_server();
}

fn a_new_server_knows_nothing_of_the_old_one(world: &mut dyn World) {
    world.start_server();
    let mut a = Puppet::new(world);
    let card = a.open("card0");
    let handle = a.create(card, 2 * PAGE).unwrap();
    let at = a.map_handle(card, handle, 2 * PAGE).unwrap();
    a.poke(at, 1);
    let name = a.flink(card, handle).unwrap();
    world.kill_server();
    world.start_server();

    assert_eq!(count(&world.text("stats"), "opens"), 0);
    let fresh = a.open("card0");
    assert_eq!(a.open_name(fresh, name), Err(ENOENT));
    assert_eq!(
        a.call(card, Call::Size { handle }),
        Err(ENODEV),
        "the old file"
    );
    for number in 1..20 {
        let handle = a.create(fresh, 2 * PAGE).unwrap();
        assert_eq!(handle, number);
        let there = a.map_handle(fresh, handle, 2 * PAGE).unwrap();
        assert_eq!(a.peek(there), 0, "other memory");
        a.poke(there, 2);
    }
    assert_eq!(a.peek(at), 1, "and the old memory is not used again");
    assert_eq!(
        a.words(&[fresh, card], &Call::Import.encode()[..2])
            .map(|_| ()),
        Err(syscall::error::EXDEV)
    );
    let _ = a.close(card);
    let _ = a.unmap(at, 2 * PAGE);
    assert_eq!(count(&world.text("stats"), "mapped-pages"), 38);
}

fn a_client_that_waits_for_a_dead_server_can_be_killed(world: &mut dyn World) {
    world.start_server();
    let clients = [(); 3].map(|()| {
        let mut client = Puppet::new(world);
        let node = client.open("renderD128");
        start_large(&mut client, node, world);
        client
    });
    world.kill_server();
    clients.into_iter().for_each(Puppet::kill);
    world.start_server();
    let mut last = Puppet::new(world);
    let node = last.open("renderD128");
    assert_eq!(last.create(node, PAGE), Ok(1));
}

fn a_server_that_is_told_to_leave_answers_what_waits(world: &mut dyn World) {
    world.start_server();
    let clients = [(); 3].map(|()| {
        let mut client = Puppet::new(world);
        let node = client.open("renderD128");
        assert_eq!(client.create(node, PAGE), Ok(1));
        (client, node)
    });
    let mut clients = clients.map(|(mut client, node)| {
        start_large(&mut client, node, world);
        (client, node)
    });
    world.pause();
    assert!(world.dismiss_server(), "it does not exit as it should");
    let mut dismissed = 0;
    for (client, node) in &mut clients {
        match client.finish() {
            Ok(_) => {}
            Err(errno) => {
                assert_eq!(errno, ENODEV);
                dismissed += 1;
            }
        }
        assert_eq!(client.create(*node, PAGE), Err(ENODEV));
    }
    assert!(dismissed > 0, "making large buffers takes no time");
    world.start_server();
    let fresh = clients[0].0.open("renderD128");
    assert_eq!(clients[0].0.create(fresh, PAGE), Ok(1));
}

fn a_server_leaves_amid_its_own_work(world: &mut dyn World) {
    const ROUNDS: u8 = 10;
    for _ in 0..ROUNDS {
        world.start_server();
        let mut client = Puppet::new(world);
        let node = client.open("renderD128");
        for _ in 0..500 {
            client.create(node, PAGE).unwrap();
        }
        // The pages of each are cleared, one after the other.
        client.close(node).unwrap();
        assert!(world.dismiss_server(), "it does not exit as it should");
    }
    world.start_server();
}

fn servers_come_and_go_amid_calls(world: &mut dyn World) {
    const ROUNDS: u8 = 5;
    const PAGES: u64 = 64;
    for _ in 0..ROUNDS {
        world.start_server();
        let mut clients = [(); 4].map(|()| Puppet::new(world));
        for (number, client) in clients.iter_mut().enumerate() {
            let node = client.open("card0");
            let handle = client.create(node, PAGES * PAGE).unwrap();
            let object = client.dup(node, &format!("handle/{handle}")).unwrap();
            client.map_handle(node, handle, PAGES * PAGE).unwrap();
            client.begin(match number {
                0 => Command::Write(object, vec![5; 8 * PAGE as usize]),
                1 => Command::Read(object, PAGES * PAGE),
                2 => Command::Fpath(object),
                // Nobody opens: the name space manager would wait for good in the client's place.
                _ => Command::Fstat(object),
            });
        }
        world.pause();
        world.kill_server();
        clients.into_iter().for_each(Puppet::kill);
    }
    world.start_server();
}
