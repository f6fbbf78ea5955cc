//! Events, and whatever else clients wait for.

use gem::units::Handle;
use gem::{OpenId, Pressure};
use gem_wire::event::{self, Event, RECORD_SIZE};
use gem_wire::limit::Limit;
use gem_wire::native::Call;
use gemd::answer::{Answer, Errno};
use gemd::fds::FdId;
use gemd::sqe::Tag;
use syscall::error::*;
use syscall::flag::{EVENT_READ, EVENT_WRITE, EventFlags, O_NONBLOCK};
use syscall::schemev2::{Opcode, SqeFlags};

use super::rig::{ALICE, ALICE_TOO, BOB, PAGE, ROOT, Rig, decode};
use super::{create, handle};

const LIMIT: Limit = Limit::HandlesPerOpen;

/// Root's open, and one of Alice's that is bound.
fn stage() -> (Rig, FdId, FdId) {
    let mut rig = Rig::new();
    let root = rig.open(ROOT, "renderD128");
    greet(&mut rig, ROOT, root);
    let alices = rig.open(ALICE, "card0");
    greet(&mut rig, ALICE, alices);
    (rig, root, alices)
}

fn greet(rig: &mut Rig, pid: u64, node: FdId) {
    rig.call(pid, node, Call::Hello { version: 1 }).unwrap();
}

fn set_limit(rig: &mut Rig, root: FdId, limit: Limit, value: u64) {
    let set = Call::SetLimit { limit, value };
    assert_eq!(rig.call(ROOT, root, set), Ok(0));
}

fn changed(limit: Limit, value: u64) -> Event {
    Event::LimitChanged {
        limit: limit.number() as u32,
        value,
    }
}

fn open_id(rig: &mut Rig, client: u64) -> OpenId {
    rig.executor
        .with_device(|device| device.client(client))
        .unwrap()
}

/// Tells an open of an eviction, as a driver would.
fn evict(rig: &mut Rig, client: u64, handle: u32) {
    let open = open_id(rig, client);
    let handle = Handle::new(handle).unwrap();
    rig.executor
        .with_device(|device| device.post_evicted(open, handle));
    rig.run();
}

fn errno(errno: i32) -> Option<Answer> {
    Some(Answer::Error(Errno(errno)))
}

#[test]
fn a_read_takes_whole_records_as_many_as_fit() {
    let (mut rig, root, alices) = stage();
    assert_eq!(rig.events(ALICE, alices), Err(EAGAIN));
    for value in 1..=3 {
        evict(&mut rig, 2, value);
    }
    set_limit(&mut rig, root, LIMIT, 5);
    for length in [0, 1, RECORD_SIZE - 1] {
        let mut short = vec![7; length];
        let tag = rig.begin_read(ALICE, alices, &mut short, O_NONBLOCK);
        assert_eq!(rig.answer(tag), errno(EINVAL), "{length}");
        assert!(short.iter().all(|&byte| byte == 7));
    }
    let mut two = [7; 3 * RECORD_SIZE - 1];
    let tag = rig.begin_read(ALICE, alices, &mut two, 0);
    assert_eq!(rig.answer(tag), Some(Answer::Value(2 * 32)));
    let evicted = |handle| Event::Evicted { handle };
    assert_eq!(decode(&two[..64]), [evicted(1), evicted(2)]);
    assert_eq!(two[64..], [7; 31]);
    let rest = rig.events(ALICE, alices);
    assert_eq!(rest, Ok(vec![evicted(3), changed(LIMIT, 5)]));
    assert_eq!(rig.events(ALICE, alices), Err(EAGAIN));
}

#[test]
fn a_read_waits_for_an_event_unless_it_would_rather_not() {
    let (mut rig, root, alices) = stage();
    let mut room = [0; 2 * RECORD_SIZE];
    let tag = rig.begin_read(ALICE, alices, &mut room, 0);
    assert_eq!(rig.answer(tag), None);
    assert!(rig.text(ROOT, "stats").contains("waiting:\t1\n"));
    assert!(!rig.executor.has_ready(), "it waits for the kernel, too");
    set_limit(&mut rig, root, LIMIT, 9);
    assert_eq!(rig.answer(tag), Some(Answer::Value(32)));
    assert_eq!(decode(&room[..32]), [changed(LIMIT, 9)]);
    assert_eq!(rig.executor.waiting(), 0);
    assert!(rig.text(ROOT, "stats").contains("waiting:\t0\n"));
}

#[test]
fn a_cancelled_read_takes_no_event_and_leaves_nothing() {
    let (mut rig, root, alices) = stage();
    let mut room = [0; RECORD_SIZE];
    let tag = rig.begin_read(ALICE, alices, &mut room, 0);
    rig.cancel(tag);
    assert_eq!(rig.answer(tag), errno(ECANCELED));
    set_limit(&mut rig, root, LIMIT, 9);
    assert_eq!(rig.answer(tag), None, "answered once");
    assert_eq!(rig.events(ALICE, alices), Ok(vec![changed(LIMIT, 9)]));
    let tag = rig.begin_read(ALICE, alices, &mut room, 0);
    rig.close(alices);
    assert_eq!(rig.answer(tag), errno(ECANCELED));
    assert_eq!(rig.executor.waiting(), 0);
}

#[test]
fn of_several_readers_one_gets_the_event_and_the_others_wait_on() {
    let (mut rig, root, alices) = stage();
    let mut rooms = [[0; RECORD_SIZE]; 3];
    let [first, second, third] = &mut rooms;
    let tags = [
        rig.begin_read(ALICE, alices, first, 0),
        rig.begin_read(ALICE, alices, second, 0),
        rig.begin_read(ALICE_TOO, alices, third, 0),
    ];
    for (round, left) in [(0, 2), (1, 1), (2, 0)] {
        set_limit(&mut rig, root, LIMIT, 10 + round);
        assert_eq!(rig.executor.waiting(), left);
    }
    for tag in tags {
        assert_eq!(rig.answer(tag), Some(Answer::Value(32)));
    }
}

#[test]
fn a_dead_process_takes_no_event_from_those_who_share_its_file() {
    let (mut rig, root, alices) = stage();
    let mut room = [0; RECORD_SIZE];
    let dead = rig.begin_read(ALICE_TOO, alices, &mut room, 0);
    rig.world.borrow_mut().users.remove(&ALICE_TOO);
    set_limit(&mut rig, root, LIMIT, 9);
    assert!(matches!(rig.answer(dead), Some(Answer::Error(_))));
    assert_eq!(rig.events(ALICE, alices), Ok(vec![changed(LIMIT, 9)]));
    assert_eq!(rig.executor.waiting(), 0);
}

#[test]
fn the_dead_make_room_for_others_who_wait() {
    let (mut rig, root, alices) = stage();
    set_limit(&mut rig, root, Limit::WaitingPerOpen, 2);
    rig.events(ALICE, alices).unwrap();
    let mut room = [0; RECORD_SIZE];
    let dead = [0; 2].map(|_| rig.begin_read(ALICE_TOO, alices, &mut room, 0));
    let refused = rig.begin_read(ALICE, alices, &mut room, 0);
    assert_eq!(rig.answer(refused), errno(EMFILE));
    rig.world.borrow_mut().users.remove(&ALICE_TOO);
    let waits = rig.begin_read(ALICE, alices, &mut room, 0);
    assert_eq!(rig.answer(waits), None);
    assert_eq!(dead.map(|tag| rig.answer(tag)), [errno(ECANCELED); 2]);
    assert_eq!(rig.executor.waiting(), 1);
}

#[test]
fn a_request_too_many_costs_a_few_questions_however_many_wait() {
    let (mut rig, root, alices) = stage();
    set_limit(&mut rig, root, Limit::WaitingPerUid, 2000);
    set_limit(&mut rig, root, Limit::WaitingPerOpen, 1000);
    rig.events(ALICE, alices).unwrap();
    let mut room = [0; RECORD_SIZE];
    for number in 0..1000 {
        // The last ones are of a process that dies.
        let pid = if number < 990 { ALICE } else { ALICE_TOO };
        let tag = rig.begin_read(pid, alices, &mut room, 0);
        assert_eq!(rig.answer(tag), None);
    }
    let before = rig.world.borrow().identities;
    for _ in 0..100 {
        let refused = rig.begin_read(ALICE, alices, &mut room, 0);
        assert_eq!(rig.answer(refused), errno(EMFILE));
    }
    let asked = rig.world.borrow().identities - before;
    assert!(asked <= 100 * 10, "{asked}");
    // They are found in the end.
    rig.world.borrow_mut().users.remove(&ALICE_TOO);
    let waits = (0..1000).any(|_| {
        let tag = rig.begin_read(ALICE, alices, &mut room, 0);
        rig.answer(tag).is_none()
    });
    assert!(waits);
}

#[test]
fn a_limit_that_changes_is_told_to_all_opens_that_were_there() {
    let (mut rig, root, alices) = stage();
    let bobs = rig.open(BOB, "renderD128");
    greet(&mut rig, BOB, bobs);
    set_limit(&mut rig, root, LIMIT, 7);
    set_limit(&mut rig, root, Limit::Memory, 8);
    set_limit(&mut rig, root, LIMIT, 9);
    let later = rig.open(BOB, "renderD128");
    greet(&mut rig, BOB, later);
    // Of each limit the newest value, in the order in which they were set.
    let events = [changed(Limit::Memory, 8), changed(LIMIT, 9)];
    for (pid, node) in [(ROOT, root), (ALICE, alices), (BOB, bobs)] {
        assert_eq!(rig.events(pid, node).unwrap(), events);
    }
    set_limit(&mut rig, root, LIMIT, 9);
    let refused = Call::SetLimit {
        limit: LIMIT,
        value: 1,
    };
    assert_eq!(rig.call(ALICE, alices, refused), Err(EACCES));
    for (pid, node) in [(ROOT, root), (ALICE, alices), (BOB, later)] {
        assert_eq!(rig.events(pid, node), Err(EAGAIN), "nothing has changed");
    }
}

#[test]
fn an_opens_own_events_reach_no_other() {
    let (mut rig, root, alices) = stage();
    let second = rig.open(ALICE, "card0");
    greet(&mut rig, ALICE, second);
    evict(&mut rig, 2, 5);
    assert_eq!(rig.events(ALICE, second), Err(EAGAIN));
    assert_eq!(rig.events(ROOT, root), Err(EAGAIN));
    let evicted = Event::Evicted { handle: 5 };
    assert_eq!(rig.events(ALICE, alices), Ok(vec![evicted]));
}

#[test]
fn events_that_do_not_fit_are_counted() {
    let (mut rig, _, alices) = stage();
    for handle in 1..=100 {
        evict(&mut rig, 2, handle);
    }
    let events = rig.events(ALICE, alices).unwrap();
    assert_eq!(events.len(), 64);
    assert_eq!(events[62], Event::Evicted { handle: 63 });
    assert_eq!(events[63], Event::Lost { count: 37 });
}

#[test]
fn every_kind_of_event_arrives_as_it_was_posted() {
    let (mut rig, _, alices) = stage();
    let open = open_id(&mut rig, 2);
    let seven = Handle::new(7).unwrap();
    rig.executor.with_device(|device| {
        device.post_revoked(open, seven, Some(gem::units::Pid(ALICE)));
        device.post_revoked(open, seven, None);
        device.announce_pressure(Pressure::Critical, gem::units::PageCount::new(3).unwrap());
    });
    let revoked = |pid| Event::Revoked { handle: 7, pid };
    let pressure = Event::Pressure {
        level: event::Pressure::Critical,
        free_pages: 3,
    };
    let events = rig.events(ALICE, alices);
    assert_eq!(events, Ok(vec![revoked(ALICE), revoked(0), pressure]));
}

#[test]
fn the_kernel_is_told_of_events_once_until_somebody_looks() {
    let (mut rig, _, alices) = stage();
    evict(&mut rig, 2, 1);
    assert_eq!(rig.readable(), [], "nobody waits there");
    let read = EVENT_READ.bits() as u64;
    assert_eq!(rig.fevent(ALICE, alices, EVENT_WRITE), Ok(0));
    assert_eq!(
        rig.fevent(ALICE, alices, EVENT_READ | EVENT_WRITE),
        Ok(read)
    );
    evict(&mut rig, 2, 2);
    assert_eq!(rig.readable(), [], "the answer has told it");
    assert_eq!(rig.events(ALICE, alices).map(|events| events.len()), Ok(2));
    assert_eq!(rig.fevent(ALICE, alices, EVENT_READ), Ok(0));
    for handle in 3..100 {
        evict(&mut rig, 2, handle);
    }
    assert_eq!(rig.readable(), [alices], "once");
    // A read that leaves something behind is told at once, or who reads one at a time would wait
    // for what is there.
    let mut one = [0; RECORD_SIZE];
    let tag = rig.begin_read(ALICE, alices, &mut one, 0);
    assert_eq!(rig.answer(tag), Some(Answer::Value(32)));
    assert_eq!(rig.readable(), [alices]);
    rig.events(ALICE, alices).unwrap();
    assert_eq!(rig.readable(), []);
    assert_eq!(rig.fevent(ALICE, alices, EventFlags::empty()), Ok(0));
    evict(&mut rig, 2, 1);
    assert_eq!(
        rig.readable(),
        [alices],
        "one who has gone takes nobody along"
    );
}

#[test]
fn a_watched_node_that_is_revoked_wakes_who_waits() {
    let (mut rig, root, alices) = stage();
    assert_eq!(rig.fevent(ALICE, alices, EVENT_READ), Ok(0));
    evict(&mut rig, 2, 1);
    rig.readable();
    rig.events(ALICE, alices).unwrap();
    let mut room = [0; RECORD_SIZE];
    let tag = rig.begin_read(ALICE, alices, &mut room, 0);
    let revoke = Call::Revoke { client: 2 };
    assert_eq!(rig.call(ROOT, root, revoke), Ok(0));
    assert_eq!(rig.answer(tag), errno(ENODEV));
    assert_eq!(rig.readable(), [alices]);
    assert_eq!(rig.events(ALICE, alices), Err(ENODEV));
    assert_eq!(rig.fevent(ALICE, alices, EVENT_READ), Err(ENODEV));
    set_limit(&mut rig, root, LIMIT, 3);
    assert_eq!(rig.readable(), []);
}

#[test]
fn who_waits_in_the_kernel_hears_that_the_server_leaves() {
    let (mut rig, _, alices) = stage();
    rig.fevent(ALICE, alices, EVENT_READ).unwrap();
    let mut room = [0; RECORD_SIZE];
    let tag = rig.begin_read(ALICE, alices, &mut room, 0);
    let mut answers = Vec::new();
    rig.executor.dismiss_all(&mut answers);
    assert_eq!(answers, [(tag, Answer::Error(Errno(ENODEV)))]);
    assert_eq!(rig.readable(), [alices]);
}

#[test]
fn an_announcement_reaches_many_opens_in_steps_and_each_once() {
    let (mut rig, root, _) = stage();
    let nodes: Vec<FdId> = (0..1000)
        .map(|_| {
            let node = rig.open(BOB, "renderD128");
            greet(&mut rig, BOB, node);
            rig.fevent(BOB, node, EVENT_READ).unwrap();
            node
        })
        .collect();
    let set = Call::SetLimit {
        limit: LIMIT,
        value: 3,
    };
    let tag = rig.begin(ROOT, root, set.encode());
    assert_eq!(rig.answer(tag), Some(Answer::Value(0)));
    let first = rig.readable();
    assert!(first.len() < nodes.len() / 2, "others have their turn");
    // Who has been told reads, and there is another one before the first is passed on.
    let early = first[0];
    assert_eq!(rig.events(BOB, early), Ok(vec![changed(LIMIT, 3)]));
    set_limit(&mut rig, root, Limit::Memory, 4);
    let mut told = first;
    while rig.executor.has_ready() {
        rig.run();
        told.extend(rig.readable());
    }
    told.extend(rig.readable());
    assert_eq!(told.iter().filter(|&&fd| fd == early).count(), 2);
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, nodes);
    assert_eq!(rig.events(BOB, early), Ok(vec![changed(Limit::Memory, 4)]));
}

#[test]
fn a_node_that_nobody_has_used_has_no_events_yet() {
    let (mut rig, root, _) = stage();
    let fresh = rig.open(BOB, "renderD128");
    assert_eq!(rig.events(BOB, fresh), Err(EAGAIN));
    assert_eq!(rig.fevent(BOB, fresh, EVENT_READ), Ok(0));
    let mut room = [0; RECORD_SIZE];
    let tag = rig.begin_read(BOB, fresh, &mut room, 0);
    set_limit(&mut rig, root, LIMIT, 5);
    assert_eq!((rig.answer(tag), rig.readable()), (None, vec![]));
    greet(&mut rig, BOB, fresh);
    set_limit(&mut rig, root, LIMIT, 6);
    assert_eq!(rig.answer(tag), Some(Answer::Value(32)));
    assert_eq!(decode(&room), [changed(LIMIT, 6)]);
    assert_eq!(rig.readable(), [fresh]);
}

#[test]
fn who_waits_for_a_file_that_is_dropped_is_answered() {
    let (mut rig, _, _) = stage();
    let oldest = rig.open(BOB, "renderD128");
    let mut room = [0; RECORD_SIZE];
    let tag = rig.begin_read(BOB, oldest, &mut room, 0);
    for _ in 0..gemd::server::MAX_NOBODYS {
        assert_eq!(rig.answer(tag), None);
        rig.open(BOB, "renderD128");
    }
    assert_eq!(rig.answer(tag), errno(EBADF));
    assert_eq!(rig.executor.waiting(), 0);
}

/// Alice's object fd on an object that something is at work on, and the object.
fn busy() -> (Rig, FdId, gem::ObjectId) {
    let (mut rig, _, alices) = stage();
    let number = handle(rig.call(ALICE, alices, create(PAGE)).unwrap());
    let fd = rig.dup(ALICE, alices, "handle/1").unwrap();
    let object = work(&mut rig, number);
    (rig, fd, object)
}

fn work(rig: &mut Rig, handle: u32) -> gem::ObjectId {
    let open = open_id(rig, 2);
    let handle = Handle::new(handle).unwrap();
    rig.executor
        .with_device(|device| device.begin_use(open, handle))
        .unwrap()
}

fn sync(rig: &mut Rig, fd: FdId) -> Tag {
    let args = [fd.raw(), 0, 0, 0, 0, 0];
    rig.send(ALICE, Opcode::Fsync, SqeFlags::empty(), args)
}

#[test]
fn fsync_waits_until_the_object_is_idle() {
    let (mut rig, fd, object) = busy();
    work(&mut rig, 1);
    let first = sync(&mut rig, fd);
    rig.executor.with_device(|device| device.end_use(object));
    rig.run();
    assert_eq!(rig.answer(first), None, "one is at work still");
    let second = sync(&mut rig, fd);
    rig.cancel(second);
    assert_eq!(rig.answer(second), errno(ECANCELED));
    rig.executor.with_device(|device| device.end_use(object));
    rig.run();
    assert_eq!(rig.answer(first), Some(Answer::DONE));
    let third = sync(&mut rig, fd);
    assert_eq!(rig.answer(third), Some(Answer::DONE));
    assert_eq!(rig.executor.waiting(), 0);
}

#[test]
fn fsync_does_not_wait_for_work_that_came_later() {
    let (mut rig, fd, object) = busy();
    let tag = sync(&mut rig, fd);
    rig.executor.with_device(|device| device.end_use(object));
    work(&mut rig, 1);
    rig.run();
    assert_eq!(rig.answer(tag), Some(Answer::DONE));
}

#[test]
fn an_object_at_work_outlives_its_client_and_no_longer() {
    let (mut rig, fd, object) = busy();
    let tag = sync(&mut rig, fd);
    rig.close(fd);
    assert_eq!(rig.answer(tag), errno(ECANCELED));
    let revoke = Call::Revoke { client: 2 };
    let root = rig.open(ROOT, "renderD128");
    assert_eq!(rig.call(ROOT, root, revoke), Ok(0));
    assert_eq!(rig.world.borrow().live.len(), 1);
    rig.executor.with_device(|device| device.end_use(object));
    assert!(rig.world.borrow().live.is_empty());
}
