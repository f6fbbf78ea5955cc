//! The server's promises that need no kernel: waiting, cancelling, stale numbers, rights.

#[path = "server/events.rs"]
mod events;
mod rig;

use gem_wire::drm;
use gem_wire::limit::Limit;
use gem_wire::native::{Call, CreateFlags, Sized};
use gemd::answer::{Answer, Errno};
use rig::{ALICE, ALICE_TOO, BOB, PAGE, ROOT, Rig};
use syscall::error::*;
use syscall::flag::{MapFlags, O_NONBLOCK, O_RDONLY, O_RDWR};
use syscall::schemev2::{Opcode, SqeFlags};
use zerocopy::{FromBytes, IntoBytes};

const SHARED: MapFlags = MapFlags::MAP_SHARED
    .union(MapFlags::PROT_READ)
    .union(MapFlags::PROT_WRITE);

fn create(size: u64) -> Call {
    Call::Create {
        size,
        flags: CreateFlags::empty(),
    }
}

fn handle(value: u64) -> u32 {
    Sized::unpack(value).handle
}

/// What anybody may know.
fn limit(rig: &mut Rig, limit: Limit) -> u64 {
    let node = rig.open(BOB, "renderD128");
    let word = rig.call(BOB, node, Call::GetLimit { limit }).unwrap();
    rig.close(node);
    Limit::unpack(word)
}

#[test]
fn a_request_that_waits_is_done_when_the_platform_says_so() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    rig.world.borrow_mut().waits = 2;
    let tag = rig.begin(ALICE, card, create(PAGE).encode());
    assert_eq!(rig.answer(tag), None);
    rig.kick();
    assert_eq!(rig.answer(tag), None, "nothing is finished yet");
    rig.world.borrow_mut().finish_all();
    rig.kick();
    assert_eq!(rig.answer(tag), None, "the second attempt waits again");
    rig.world.borrow_mut().finish_all();
    rig.kick();
    let sized = Sized {
        handle: 1,
        pages: 1,
    };
    let value = Sized::pack(sized.handle, sized.pages.into()).unwrap();
    assert_eq!(rig.answer(tag), Some(Answer::Value(value)));
    assert_eq!(rig.executor.waiting(), 0);
}

#[test]
fn cancelling_a_waiting_request_answers_it_and_leaves_no_trace() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    rig.world.borrow_mut().waits = 1;
    let tag = rig.begin(ALICE, card, create(PAGE).encode());
    rig.cancel(tag);
    assert_eq!(rig.answer(tag), Some(Answer::Error(Errno(ECANCELED))));
    rig.world.borrow_mut().finish_all();
    rig.kick();
    assert_eq!(rig.answer(tag), None, "answered once");
    assert_eq!(rig.executor.waiting(), 0);
    assert!(rig.world.borrow().live.is_empty());
    // The handle that it would have got is still free.
    assert_eq!(rig.call(ALICE, card, create(PAGE)).map(handle), Ok(1));
}

#[test]
fn closing_a_file_answers_what_waits_on_it_and_nothing_else() {
    let mut rig = Rig::new();
    let (mine, yours) = (rig.open(ALICE, "card0"), rig.open(BOB, "renderD128"));
    rig.world.borrow_mut().waits = 2;
    let dying = rig.begin(ALICE, mine, create(PAGE).encode());
    let living = rig.begin(BOB, yours, create(PAGE).encode());
    rig.close(mine);
    assert_eq!(rig.answer(dying), Some(Answer::Error(Errno(ECANCELED))));
    rig.world.borrow_mut().finish_all();
    rig.kick();
    assert!(matches!(rig.answer(living), Some(Answer::Value(_))));
    assert_eq!(rig.answer(dying), None);
    rig.close(yours);
    assert!(rig.world.borrow().live.is_empty());
}

#[test]
fn one_file_cannot_have_more_than_its_share_of_waiting_requests() {
    let mut rig = Rig::new();
    let (mine, yours) = (rig.open(ALICE, "card0"), rig.open(BOB, "renderD128"));
    rig.world.borrow_mut().waits = usize::MAX;
    let most = limit(&mut rig, Limit::WaitingPerOpen);
    for _ in 0..most {
        let tag = rig.begin(ALICE, mine, create(PAGE).encode());
        assert_eq!(rig.answer(tag), None);
    }
    let refused = rig.begin(ALICE, mine, create(PAGE).encode());
    assert_eq!(rig.answer(refused), Some(Answer::Error(Errno(EMFILE))));
    let other = rig.begin(BOB, yours, create(PAGE).encode());
    assert_eq!(rig.answer(other), None, "others still may wait");
    let mut answers = Vec::new();
    rig.executor.dismiss_all(&mut answers);
    assert_eq!(answers.len(), most as usize + 1);
}

#[test]
fn a_number_that_was_closed_never_reaches_somebody_elses_object() {
    let mut rig = Rig::new();
    let (mine, yours) = (rig.open(ALICE, "card0"), rig.open(BOB, "renderD128"));
    rig.call(ALICE, mine, create(PAGE)).unwrap();
    let stale = rig.dup(ALICE, mine, "handle/1").unwrap();
    rig.close(stale);
    rig.call(BOB, yours, create(PAGE)).unwrap();
    let secret = rig.dup(BOB, yours, "handle/1").unwrap();
    // The kernel does not hold the second fd of a two-fd call: its number can arrive stale.
    assert_eq!(rig.import(ALICE, mine, stale), Err(EBADF));
    assert_ne!(stale, secret);
    assert!(
        rig.import(ALICE, mine, secret).is_ok(),
        "the fd itself is the authority"
    );
}

#[test]
fn a_process_that_is_gone_gets_nothing() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    assert_eq!(rig.call(999, card, create(PAGE)), Err(EACCES));
    // The open is still nobody's: its first living user gets it.
    assert_eq!(rig.call(ALICE, card, create(PAGE)).map(handle), Ok(1));
}

#[test]
fn an_open_belongs_to_who_first_uses_it() {
    let mut rig = Rig::new();
    let card = rig.open(ROOT, "card0");
    rig.call(ALICE, card, create(PAGE)).unwrap();
    // Root used it later, but it is Alice's: her text shows it, Bob's directory does not.
    rig.call(ROOT, card, create(PAGE)).unwrap();
    assert!(rig.text(ALICE, "objects").lines().count() > rig.text(BOB, "objects").lines().count());
}

#[test]
fn only_the_daemons_own_file_takes_its_own_calls() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    for number in [gemd::sqe::KICK, gemd::sqe::SHUTDOWN] {
        assert_eq!(rig.words(ALICE, card, [number, 0, 0]), Err(EINVAL));
    }
    assert!(!rig.executor.is_leaving());
}

#[test]
fn names_need_authentication_and_a_primary_node() {
    let mut rig = Rig::new();
    let master = rig.open(ALICE, "card0");
    rig.call(ALICE, master, create(PAGE)).unwrap();
    let name = rig.call(ALICE, master, Call::Flink { handle: 1 }).unwrap() as u32;
    let stranger = rig.open(BOB, "card0");
    assert_eq!(rig.call(BOB, stranger, Call::Open { name }), Err(EACCES));
    assert_eq!(
        rig.open_at(BOB, stranger, &format!("name/{name}"), O_RDWR),
        Err(EACCES)
    );
    let render = rig.open(ALICE_TOO, "renderD128");
    assert_eq!(
        rig.call(ALICE_TOO, render, Call::Open { name }),
        Err(EACCES)
    );
    assert_eq!(rig.call(ALICE_TOO, render, Call::GetMagic), Err(EACCES));

    let magic = rig.call(BOB, stranger, Call::GetMagic).unwrap() as u32;
    assert_eq!(
        rig.call(BOB, stranger, Call::AuthMagic { magic }),
        Err(EACCES)
    );
    rig.call(ALICE, master, Call::AuthMagic { magic }).unwrap();
    assert_eq!(
        rig.call(BOB, stranger, Call::Open { name }).map(handle),
        Ok(1)
    );
    let object = rig
        .open_at(BOB, stranger, &format!("name/{name}"), O_RDONLY)
        .unwrap();
    assert_eq!(rig.map(BOB, object, 0, PAGE, SHARED), Err(EACCES));
    let root = rig.root;
    assert_eq!(
        rig.open_at(BOB, root, &format!("name/{name}"), O_RDWR),
        Err(EACCES)
    );
}

#[test]
fn root_may_use_names_without_the_master() {
    let mut rig = Rig::new();
    let master = rig.open(ALICE, "card0");
    rig.call(ALICE, master, create(PAGE)).unwrap();
    let name = rig.call(ALICE, master, Call::Flink { handle: 1 }).unwrap() as u32;
    let root = rig.open(ROOT, "card0");
    assert_eq!(rig.call(ROOT, root, Call::Open { name }).map(handle), Ok(1));
}

#[test]
fn mappings_that_can_hang_or_reach_too_far_are_refused() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    rig.call(ALICE, card, create(3 * PAGE)).unwrap();
    let offset = rig.call(ALICE, card, Call::Map { handle: 1 }).unwrap();
    let read = MapFlags::PROT_READ;
    for flags in [
        MapFlags::MAP_PRIVATE | read,
        MapFlags::MAP_PRIVATE | MapFlags::MAP_SHARED | read,
        read,
        MapFlags::MAP_SHARED | MapFlags::PROT_EXEC,
        MapFlags::from_bits_retain(1 << 30) | SHARED,
    ] {
        assert_eq!(
            rig.map(ALICE, card, offset, PAGE, flags),
            Err(EINVAL),
            "{flags:?}"
        );
    }
    for (at, size) in [
        (offset, 0),
        (offset, 3 * PAGE + 1),
        (offset, u64::MAX),
        (offset + PAGE, PAGE),
        (offset + 1, PAGE),
        (0, PAGE),
        (!0xfff, PAGE),
    ] {
        assert_eq!(
            rig.map(ALICE, card, at, size, SHARED),
            Err(EINVAL),
            "{at:#x} {size:#x}"
        );
    }
    let stranger = rig.open(BOB, "card0");
    assert_eq!(rig.map(BOB, stranger, offset, PAGE, SHARED), Err(EACCES));
    rig.map(ALICE, card, offset, 2 * PAGE + 1, SHARED).unwrap();
    rig.call(ALICE, card, Call::Close { handle: 1 }).unwrap();
    assert_eq!(rig.world.borrow().live.len(), 1, "mapped objects live");
    rig.unmap(ALICE, card, offset + PAGE, 2 * PAGE);
    assert_eq!(rig.world.borrow().live.len(), 1);
    rig.unmap(ALICE, card, offset, PAGE);
    assert!(rig.world.borrow().live.is_empty());
}

#[test]
fn every_operation_on_every_kind_of_file_is_answered() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    rig.call(ALICE, card, create(PAGE)).unwrap();
    let object = rig.dup(ALICE, card, "handle/1").unwrap();
    let root = rig.root;
    let mut files = vec![card, object, root];
    for path in ["renderD128", "stats", "objects", "clients", ""] {
        files.push(rig.open_at(ALICE, root, path, O_RDONLY).unwrap());
    }
    let mut memory = [0u8; 256];
    for fd in files {
        for raw in 0..=u8::MAX {
            let Some(opcode) = Opcode::try_from_raw(raw) else {
                continue;
            };
            if matches!(
                opcode,
                Opcode::Cancel
                    | Opcode::CloseMsg
                    | Opcode::Detach
                    | Opcode::Msync
                    | Opcode::RequestMmap
            ) {
                continue;
            }
            for flags in [SqeFlags::empty(), SqeFlags::MULTIPLE_IDS] {
                for length in [0, 1, 17, 256] {
                    let address = memory.as_mut_ptr() as u64;
                    // Not blocking: there is nothing to read on a node.
                    let args = [fd.raw(), address, length, 4, O_NONBLOCK as u64 | 5, 6];
                    let tag = rig.send(ALICE, opcode, flags, args);
                    assert!(rig.answer(tag).is_some(), "{opcode:?} {flags:?} {length}");
                }
            }
        }
    }
}

#[test]
fn an_fstat_buffer_of_one_byte_is_refused() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    let mut byte = [7u8];
    let address = byte.as_mut_ptr() as u64;
    for (opcode, kind) in [(Opcode::Fstat, 0), (Opcode::StdFsCall, 4)] {
        let args = [card.raw(), address, 1, kind, 0, 0];
        let tag = rig.send(ALICE, opcode, SqeFlags::empty(), args);
        assert_eq!(rig.answer(tag), Some(Answer::Error(Errno(EINVAL))));
    }
    assert_eq!(byte, [7]);
}

#[test]
fn a_payload_is_changed_only_by_a_call_that_succeeds() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    let asked = drm::CreateDumb {
        width: 16,
        height: 16,
        bpp: 99,
        ..drm::CreateDumb::default()
    };
    let mut payload = asked.as_bytes().to_vec();
    let number = drm::MODE_CREATE_DUMB;
    assert_eq!(rig.drm(ALICE, card, number, &mut payload), Err(EINVAL));
    assert_eq!(payload, asked.as_bytes());

    let asked = drm::CreateDumb { bpp: 32, ..asked };
    let mut payload = asked.as_bytes().to_vec();
    assert_eq!(rig.drm(ALICE, card, number, &mut payload), Ok(0));
    let answer = drm::CreateDumb::read_from_bytes(&payload).unwrap();
    assert_eq!((answer.handle, answer.pitch, answer.size), (1, 64, PAGE));
}

#[test]
fn a_user_has_no_more_requests_waiting_than_the_limit_on_however_many_opens() {
    let mut rig = Rig::new();
    let root = rig.open(ROOT, "renderD128");
    let limit = Limit::WaitingPerUid;
    rig.call(ROOT, root, Call::SetLimit { limit, value: 3 })
        .unwrap();
    let nodes = [0; 4].map(|_| rig.open(ALICE, "renderD128"));
    let yours = rig.open(BOB, "renderD128");
    rig.world.borrow_mut().waits = usize::MAX;
    let waiting = nodes.map(|node| rig.begin(ALICE, node, create(PAGE).encode()));
    let [first, second, third, fourth] = waiting.map(|tag| rig.answer(tag));
    assert_eq!([first, second, third], [None; 3]);
    assert_eq!(fourth, Some(Answer::Error(Errno(EMFILE))));
    let other = rig.begin(BOB, yours, create(PAGE).encode());
    assert_eq!(rig.answer(other), None, "others still may wait");
    rig.cancel(waiting[0]);
    let next = rig.begin(ALICE_TOO, nodes[3], create(PAGE).encode());
    assert_eq!(rig.answer(next), None, "one has gone, one may come");
}

#[test]
fn limits_are_roots_to_set_and_everybodys_to_read() {
    let mut rig = Rig::new();
    let (root, card) = (rig.open(ROOT, "renderD128"), rig.open(ALICE, "card0"));
    let which = Limit::HandlesPerOpen;
    let set = |value| Call::SetLimit {
        limit: which,
        value,
    };
    rig.call(ALICE, card, create(PAGE)).unwrap();
    assert_eq!(rig.call(ALICE, card, set(5)), Err(EACCES), "even as master");
    assert_eq!(rig.call(ROOT, root, set(1)), Ok(0));
    assert_eq!(limit(&mut rig, which), 1);
    assert_eq!(rig.call(ALICE, card, create(PAGE)), Err(EMFILE));
    let mut words = set(1).encode();
    for value in [0, u64::MAX, which.most() + 1] {
        words[2] = value;
        assert_eq!(rig.words(ROOT, root, words), Err(EINVAL));
    }
    words[1] = 0;
    assert_eq!(rig.words(ROOT, root, words), Err(EINVAL), "no such limit");
    assert_eq!(limit(&mut rig, which), 1);
    assert_eq!(rig.call(ROOT, root, set(2)), Ok(0));
    assert!(rig.call(ALICE, card, create(PAGE)).is_ok());
}

#[test]
fn a_revoked_open_answers_enodev_also_to_what_waits_on_it() {
    let mut rig = Rig::new();
    let (root, card) = (rig.open(ROOT, "renderD128"), rig.open(ALICE, "card0"));
    rig.call(ROOT, root, create(PAGE)).unwrap();
    let mine = rig.call(ALICE, card, create(PAGE)).map(handle).unwrap();
    let offset = rig.call(ALICE, card, Call::Map { handle: mine }).unwrap();
    rig.map(ALICE, card, offset, PAGE, SHARED).unwrap();
    let clients = rig.text(ROOT, "clients/2");
    assert!(clients.contains("gem-uid:\t1000"), "{clients}");
    rig.world.borrow_mut().waits = 1;
    let waiting = rig.begin(ALICE, card, create(PAGE).encode());
    assert_eq!(rig.answer(waiting), None);

    let revoke = Call::Revoke { client: 2 };
    assert_eq!(rig.call(ALICE, card, revoke), Err(EACCES));
    let nobody = Call::Revoke { client: 99 };
    assert_eq!(rig.call(ROOT, root, nobody), Err(ENOENT));
    assert_eq!(rig.call(ROOT, root, revoke), Ok(0));
    assert_eq!(rig.answer(waiting), Some(Answer::Error(Errno(ENODEV))));
    assert_eq!(rig.call(ALICE, card, create(PAGE)), Err(ENODEV));
    assert_eq!(rig.dup(ALICE, card, "handle/1"), Err(ENODEV));
    let again = rig.map(ALICE, card, offset, PAGE, SHARED);
    assert_eq!(again, Err(ENODEV));
    assert!(rig.text(ROOT, "clients/2").contains("gem-revoked:\t1"));
    assert_eq!(rig.world.borrow().live.len(), 2, "what is mapped stays");
    rig.unmap(ALICE, card, offset, PAGE);
    assert_eq!(rig.world.borrow().live.len(), 1);
    rig.close(card);
    assert_eq!(rig.call(ROOT, root, revoke), Err(ENOENT));
    rig.world.borrow_mut().finish_all();
    rig.kick();
    assert_eq!(rig.answer(waiting), None, "answered once");
}

#[test]
fn root_can_revoke_the_open_that_it_asks_through() {
    let mut rig = Rig::new();
    let root = rig.open(ROOT, "card0");
    let revoke = Call::Revoke { client: 1 };
    assert_eq!(rig.call(ROOT, root, revoke), Ok(0));
    assert_eq!(rig.call(ROOT, root, revoke), Err(ENODEV));
}

#[test]
fn a_node_does_not_become_the_users_who_only_look_at_it() {
    let mut rig = Rig::new();
    // The master, so that the node below is not.
    let master = rig.open(ALICE, "card0");
    let made = rig.call(ALICE, master, create(PAGE)).unwrap();
    let handle = handle(made);
    let name = rig.call(ALICE, master, Call::Flink { handle }).unwrap() as u32;
    let offset = rig.call(ALICE, master, Call::Map { handle }).unwrap();

    // Bob gives root a fresh node as if it were a buffer, and root looks at what it was given.
    let node = rig.open(BOB, "card0");
    let roots = rig.open(ROOT, "renderD128");
    assert!(rig.import(ROOT, roots, node).is_err());
    for opcode in [
        Opcode::Fstat,
        Opcode::Fpath,
        Opcode::Read,
        Opcode::Write,
        Opcode::Getdents,
        Opcode::Fsync,
        Opcode::Fsize,
        Opcode::Fcntl,
        Opcode::Fevent,
        Opcode::Munmap,
    ] {
        let mut room = [0u8; 256];
        let (address, length) = (room.as_mut_ptr() as u64, room.len() as u64);
        let args = [node.raw(), address, length, 0, O_NONBLOCK as u64, 0];
        let tag = rig.send(ROOT, opcode, SqeFlags::empty(), args);
        assert!(rig.answer(tag).is_some());
    }
    assert_eq!(rig.map(ROOT, node, offset, PAGE, SHARED), Err(EACCES));
    assert!(!rig.text(ROOT, "stats").contains("opens:\t3"));

    // It is Bob's, who may do no more than before.
    assert_eq!(rig.call(BOB, node, Call::Open { name }), Err(EACCES));
    assert!(rig.text(ROOT, "stats").contains("opens:\t3"));
}

#[test]
fn a_list_that_somebody_began_to_read_is_not_read_on_by_another_user() {
    let mut rig = Rig::new();
    let card = rig.open(ALICE, "card0");
    rig.call(ALICE, card, create(PAGE)).unwrap();
    let list = rig.open_at(ROOT, rig.root, "objects", O_RDONLY).unwrap();
    // Just behind the header, where the line of Alice's object begins.
    let header = rig.text(BOB, "objects").len();
    let mut room = vec![0; header + 1];
    let read = rig.read(ROOT, list, 0, &mut room);
    assert_eq!(read, Ok(header as u64 + 1));
    assert_eq!(
        rig.read(BOB, list, header as u64 + 1, &mut room),
        Err(EINVAL)
    );
    assert_eq!(rig.read(BOB, list, 0, &mut room), Ok(header as u64));
    assert_eq!(rig.read(BOB, list, header as u64, &mut room), Ok(0));
}
