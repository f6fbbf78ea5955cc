//! Promises about events: who is told what, and who is woken for it.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use event::EventFlags;
use gem_wire::event::{Event, RECORD_SIZE, Record};
use gem_wire::limit::Limit;
use gem_wire::native::{Call, Features, Hello, VERSION};
use syscall::error::{EAGAIN, EINTR, EINVAL, EMFILE, ENODEV};
use syscall::flag::O_NONBLOCK;
use zerocopy::FromBytes;

use crate::command::{Command, Reply};
use crate::puppet::{PAGE, Puppet, READ_WRITE};
use crate::{ALICE, BOB, World, count, promises};

promises![
    a_changed_limit_is_told_to_every_open_that_was_there_and_to_nothing_else,
    of_each_limit_the_newest_value_is_told_in_the_order_of_changes,
    a_read_without_room_for_an_event_is_refused,
    a_read_waits_for_an_event_unless_the_file_does_not_block,
    a_signal_ends_a_read_that_waits_and_takes_no_event,
    a_killed_reader_takes_no_event_and_leaves_nothing,
    who_shares_a_file_uses_up_nobody_elses_waiting_on_it,
    a_reader_that_waits_lends_no_whole_pages_and_stops_nobody_when_killed,
    a_revoked_open_wakes_who_reads_it,
    an_event_queue_tells_of_what_is_there_and_of_what_comes,
    an_event_queue_is_told_once_until_somebody_reads,
    an_event_queue_tells_that_an_open_was_revoked,
    a_queue_hears_nothing_of_a_file_that_is_closed,
];

/// What the promises change: nobody here comes near it.
const LIMIT: Limit = Limit::WaitingPerUid;
const OTHER: Limit = Limit::NamesPerUid;
const READ: u32 = EventFlags::READ.bits();

/// A node, and that it is its process's.
fn node(puppet: &mut Puppet, name: &str) -> u64 {
    let node = puppet.open(name);
    let version = VERSION;
    let hello = puppet.call(node, Call::Hello { version }).unwrap();
    assert!(Hello::unpack(hello).features.contains(Features::EVENTS));
    node
}

/// Root, who changes limits.
struct Root {
    puppet: Puppet,
    node: u64,
}

impl Root {
    fn new(world: &mut dyn World) -> Self {
        let mut puppet = Puppet::new(world);
        let node = node(&mut puppet, "renderD128");
        Self { puppet, node }
    }

    fn set(&mut self, limit: Limit, value: u64) {
        let set = Call::SetLimit { limit, value };
        self.puppet.call(self.node, set).unwrap();
    }

    fn revoke(&mut self, client: u64) {
        let revoke = Call::Revoke { client };
        self.puppet.call(self.node, revoke).unwrap();
    }
}

fn changed(limit: Limit, value: u64) -> Event {
    Event::LimitChanged {
        limit: limit.number() as u32,
        value,
    }
}

fn decode(bytes: &[u8]) -> Vec<Event> {
    let records = <[Record]>::ref_from_bytes(bytes).expect("whole records");
    let event = |record: &Record| record.event().expect("a known event");
    records.iter().map(event).collect()
}

fn read(fd: u64, records: usize) -> Command {
    Command::Read(fd, (records * RECORD_SIZE) as u64)
}

/// The events that a read has brought.
fn events(reply: Reply) -> Result<Vec<Event>, i32> {
    let outcome = reply?;
    assert_eq!(outcome.value, outcome.bytes.len() as u64);
    Ok(decode(&outcome.bytes))
}

/// The events that are there, of a file that does not block.
pub(crate) fn drain(puppet: &mut Puppet, fd: u64) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        match events(puppet.tell(read(fd, 10))) {
            Ok(some) => all.extend(some),
            Err(errno) => {
                assert_eq!(errno, EAGAIN);
                return all;
            }
        }
    }
}

/// Does not block from here on.
pub(crate) fn unblock(puppet: &mut Puppet, fd: u64) {
    let flags = O_NONBLOCK as u64;
    puppet.tell(Command::SetFlags(fd, flags)).unwrap();
}

/// Lets a process read, and waits until it waits.
fn wait_in_read(world: &mut dyn World, puppet: &mut Puppet, fd: u64) {
    let before = waiting(world);
    puppet.start(&read(fd, 10));
    wait_until(world, before + 1);
}

fn waiting(world: &mut dyn World) -> u64 {
    count(&world.text("stats"), "waiting")
}

fn wait_until(world: &mut dyn World, wait: u64) {
    for _ in 0..5000 {
        if waiting(world) == wait {
            return;
        }
        world.pause();
    }
    panic!("not {wait} requests wait:\n{}", world.text("stats"));
}

/// A process's queue, which watches a node.
fn queue(puppet: &mut Puppet, node: u64) -> u64 {
    let queue = puppet.tell(Command::NewQueue).unwrap().value;
    watch(puppet, queue, node).unwrap();
    queue
}

fn watch(puppet: &mut Puppet, queue: u64, fd: u64) -> Result<(), i32> {
    let watch = Command::Watch {
        queue,
        fd,
        flags: READ,
        data: 1000 + fd,
    };
    puppet.tell(watch).map(|_| ())
}

/// The next event of a queue is about this file.
fn expect_told(puppet: &mut Puppet, queue: u64, fd: u64) {
    assert_told(puppet.tell(Command::NextEvent(queue)), fd);
}

fn assert_told(reply: Reply, fd: u64) {
    let expected = [fd, 1000 + fd, READ.into()];
    let words: Vec<u8> = expected
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    assert_eq!(reply.unwrap().bytes, words);
}

/// A queue that does not block has nothing.
fn expect_silence(puppet: &mut Puppet, queue: u64) {
    let told = puppet.tell(Command::NextEvent(queue));
    assert_eq!(told.map(|outcome| outcome.bytes), Err(EAGAIN));
}

fn a_changed_limit_is_told_to_every_open_that_was_there_and_to_nothing_else(world: &mut dyn World) {
    let mut root = Root::new(world);
    let (mut a, mut b) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let nodes = ["card0", "renderD128"].map(|name| node(&mut a, name));
    let bobs = node(&mut b, "renderD128");
    root.set(LIMIT, 700);
    let later = node(&mut b, "renderD128");
    for node in nodes {
        unblock(&mut a, node);
        assert_eq!(drain(&mut a, node), [changed(LIMIT, 700)]);
    }
    for (node, told) in [(bobs, 1), (later, 0)] {
        unblock(&mut b, node);
        assert_eq!(drain(&mut b, node).len(), told);
    }
    let own = root.node;
    unblock(&mut root.puppet, own);
    assert_eq!(drain(&mut root.puppet, own), [changed(LIMIT, 700)]);
    root.set(LIMIT, 700);
    assert_eq!(drain(&mut a, nodes[0]), [], "nothing has changed");
    let text = a.text("stats").unwrap();
    assert!(text.starts_with("opens:"), "no event in a text: {text}");
}

fn of_each_limit_the_newest_value_is_told_in_the_order_of_changes(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::of_user(world, ALICE);
    let nodes: Vec<u64> = (0..50).map(|_| node(&mut a, "renderD128")).collect();
    for value in 1..=200 {
        root.set(LIMIT, value);
        root.set(OTHER, 1000 - value);
    }
    root.set(LIMIT, 900);
    for node in nodes {
        unblock(&mut a, node);
        // However much was told to an open that does not read.
        let events = drain(&mut a, node);
        assert_eq!(events, [changed(OTHER, 800), changed(LIMIT, 900)]);
    }
}

fn a_read_without_room_for_an_event_is_refused(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::of_user(world, ALICE);
    let node = node(&mut a, "card0");
    for told in [false, true] {
        for length in [0, 1, RECORD_SIZE as u64 - 1] {
            let refused = a.tell(Command::Read(node, length));
            assert_eq!(refused.map(|_| ()), Err(EINVAL), "{length}, {told}");
        }
        root.set(LIMIT, 500);
        root.set(OTHER, 500);
    }
    let one = Command::Read(node, 2 * RECORD_SIZE as u64 - 1);
    assert_eq!(events(a.tell(one.clone())), Ok(vec![changed(LIMIT, 500)]));
    assert_eq!(events(a.tell(one)), Ok(vec![changed(OTHER, 500)]));
}

fn a_read_waits_for_an_event_unless_the_file_does_not_block(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::of_user(world, ALICE);
    let node = node(&mut a, "card0");
    wait_in_read(world, &mut a, node);
    root.set(LIMIT, 600);
    assert_eq!(events(a.finish()), Ok(vec![changed(LIMIT, 600)]));
    assert_eq!(waiting(world), 0);
    unblock(&mut a, node);
    assert_eq!(events(a.tell(read(node, 1))), Err(EAGAIN));
    a.tell(Command::SetFlags(node, 0)).unwrap();
    wait_in_read(world, &mut a, node);
    root.set(OTHER, 601);
    assert_eq!(events(a.finish()), Ok(vec![changed(OTHER, 601)]));
}

fn a_signal_ends_a_read_that_waits_and_takes_no_event(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::new(world);
    let node = node(&mut a, "card0");
    assert_eq!(events(a.tell_amid_signals(&read(node, 1))), Err(EINTR));
    wait_until(world, 0);
    root.set(LIMIT, 650);
    assert_eq!(events(a.tell(read(node, 1))), Ok(vec![changed(LIMIT, 650)]));
}

fn who_shares_a_file_uses_up_nobody_elses_waiting_on_it(world: &mut dyn World) {
    let mut root = Root::new(world);
    let (mut a, mut b) = (Puppet::of_user(world, ALICE), Puppet::of_user(world, BOB));
    let mut other = Puppet::of_user(world, BOB);
    let card = node(&mut a, "card0");
    let [given, again] = [&mut b, &mut other].map(|puppet| a.give(card, puppet));
    root.set(Limit::WaitingPerOpen, 1);
    assert!(events(a.tell(read(card, 1))).is_ok());
    wait_in_read(world, &mut b, given);
    assert_eq!(events(other.tell(read(again, 1))), Err(EMFILE), "Bob does");
    wait_in_read(world, &mut a, card);
    // Two may wait, and both are told something.
    root.set(LIMIT, 660);
    root.set(OTHER, 661);
    let told = [&mut a, &mut b].map(|puppet| events(puppet.finish()).unwrap());
    let mut told = told.concat();
    told.sort_by_key(|event| *event != changed(LIMIT, 660));
    assert_eq!(told, [changed(LIMIT, 660), changed(OTHER, 661)]);
}

fn a_killed_reader_takes_no_event_and_leaves_nothing(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::of_user(world, ALICE);
    let node = node(&mut a, "card0");
    let mut sharer = Puppet::of_user(world, ALICE);
    let same = a.give(node, &mut sharer);
    wait_in_read(world, &mut sharer, same);
    sharer.kill();
    root.set(LIMIT, 640);
    assert_eq!(events(a.tell(read(node, 1))), Ok(vec![changed(LIMIT, 640)]));
    wait_until(world, 0);
    wait_in_read(world, &mut a, node);
    a.kill();
    wait_until(world, 0);
}

/// A kernel that lends a server whole pages of a client keeps the client's memory until the answer:
/// where the client is dead by then, the server would wait for itself.
fn a_reader_that_waits_lends_no_whole_pages_and_stops_nobody_when_killed(world: &mut dyn World) {
    let mut witness = Puppet::of_user(world, BOB);
    let other = node(&mut witness, "renderD128");
    for _ in 0..3 {
        let mut a = Puppet::of_user(world, ALICE);
        let node = node(&mut a, "renderD128");
        let handle = a.create(node, PAGE).unwrap();
        let object = a.dup(node, &alloc::format!("handle/{handle}")).unwrap();
        let at = a.map(object, 0, PAGE, READ_WRITE).unwrap();
        a.poke(at, 1);
        for pages in [1, 4] {
            let read = Command::Read(node, pages * PAGE);
            assert_eq!(a.tell(read).map(|_| ()), Err(EINVAL));
        }
        a.start(&Command::Read(node, PAGE - 1));
        wait_until(world, 1);
        a.kill();
        wait_until(world, 0);
        witness.create(other, PAGE).unwrap();
    }
    unblock(&mut witness, other);
    let read = Command::Read(other, 4 * PAGE);
    assert_eq!(events(witness.tell(read)), Err(EAGAIN), "it does not wait");
}

/// The number of this process's only open, as root sees it.
fn number(world: &mut dyn World, uid: u32) -> u64 {
    let mut observer = Puppet::new(world);
    let is_users = |text: &str| count(text, "gem-uid") == uid.into();
    let numbers: Vec<String> = observer.entries("clients").unwrap();
    let found = numbers.into_iter().find(|number| {
        let text = observer.text(&alloc::format!("clients/{number}"));
        text.is_ok_and(|text| is_users(&text))
    });
    found.expect("an open").parse().unwrap()
}

fn a_revoked_open_wakes_who_reads_it(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::of_user(world, ALICE);
    let node = node(&mut a, "card0");
    let client = number(world, ALICE);
    wait_in_read(world, &mut a, node);
    root.revoke(client);
    assert_eq!(events(a.finish()), Err(ENODEV));
    assert_eq!(events(a.tell(read(node, 1))), Err(ENODEV));
    assert_eq!(waiting(world), 0);
}

fn an_event_queue_tells_of_what_is_there_and_of_what_comes(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::of_user(world, ALICE);
    let (card, render) = (node(&mut a, "card0"), node(&mut a, "renderD128"));
    let queue = queue(&mut a, card);
    a.start(&Command::NextEvent(queue));
    root.set(LIMIT, 630);
    assert_told(a.finish(), card);
    unblock(&mut a, card);
    assert_eq!(drain(&mut a, card), [changed(LIMIT, 630)]);
    // What is there when it begins to wait.
    watch(&mut a, queue, render).unwrap();
    expect_told(&mut a, queue, render);
    a.start(&Command::NextEvent(queue));
    root.set(LIMIT, 631);
    assert_told(a.finish(), card);
    assert_eq!(drain(&mut a, card), [changed(LIMIT, 631)]);
}

fn an_event_queue_is_told_once_until_somebody_reads(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::of_user(world, ALICE);
    let node = node(&mut a, "card0");
    let queue = queue(&mut a, node);
    for _ in 0..3 {
        for value in 1..=50 {
            root.set(LIMIT, value);
            root.set(OTHER, value);
        }
        unblock(&mut a, queue);
        expect_told(&mut a, queue, node);
        expect_silence(&mut a, queue);
        // A read that leaves something behind is as good as a new event.
        assert_eq!(events(a.tell(read(node, 1))).unwrap().len(), 1);
        expect_told(&mut a, queue, node);
        assert_eq!(events(a.tell(read(node, 1))).unwrap().len(), 1);
        expect_silence(&mut a, queue);
    }
}

fn an_event_queue_tells_that_an_open_was_revoked(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::of_user(world, ALICE);
    let node = node(&mut a, "card0");
    let client = number(world, ALICE);
    let queue = queue(&mut a, node);
    a.start(&Command::NextEvent(queue));
    root.revoke(client);
    assert_told(a.finish(), node);
    assert_eq!(events(a.tell(read(node, 1))), Err(ENODEV));
    assert_eq!(watch(&mut a, queue, node), Err(ENODEV));
}

fn a_queue_hears_nothing_of_a_file_that_is_closed(world: &mut dyn World) {
    let mut root = Root::new(world);
    let mut a = Puppet::of_user(world, ALICE);
    let (first, other) = (node(&mut a, "card0"), node(&mut a, "renderD128"));
    let queue = queue(&mut a, first);
    watch(&mut a, queue, other).unwrap();
    a.close(first).unwrap();
    let again = node(&mut a, "card0");
    assert_eq!(again, first, "the number is used again");
    root.set(LIMIT, 620);
    expect_told(&mut a, queue, other);
    unblock(&mut a, queue);
    expect_silence(&mut a, queue);
    a.close(queue).unwrap();
}
