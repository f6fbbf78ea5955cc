//! The library against a real gemd: what each type promises, seen from the caller and in the
//! server's own numbers.

mod daemon;

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use daemon::Daemon;
use event::{EventFlags, EventQueue};
use gem_client::{
    Card, Create, Error, Event, Features, Limit, Name, Node, ObjectFd, PAGE_SIZE, Rights, drm, text,
};
use libredox::Fd;
use libredox::flag::O_RDWR;
use syscall::error::{EACCES, EAGAIN, EBADF, EBUSY, EINVAL, ENODEV, ENOENT, ENOSPC, EOPNOTSUPP};

const PAGE: u64 = PAGE_SIZE as u64;
const ALICE: u32 = 1000;

/// A gemd of the test's own. A process has one connection, so tests take turns.
struct Here {
    daemon: Daemon,
    turn: MutexGuard<'static, ()>,
}

impl Here {
    fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = Daemon::start(&["--max-memory", "64"]);
        hosted::client::disconnect();
        gem_client::linux::set_socket(&daemon.socket());
        Self { daemon, turn }
    }
}

fn errno<T>(result: Result<T, Error>) -> i32 {
    result.map(|_| ()).unwrap_err().errno()
}

fn count(key: &str) -> u64 {
    text::stat(key).unwrap()
}

fn assert_nothing_is_left() {
    for key in [
        "objects",
        "handles",
        "object-fds",
        "names",
        "memory-pages",
        "mapped-pages",
    ] {
        assert_eq!(count(key), 0, "{key}");
    }
}

#[test]
fn a_card_is_the_openers_from_the_start() {
    let _here = Here::new();
    let card = Card::open(Node::Render).unwrap();
    // The server drops files that nobody uses, the oldest first, where there are many.
    let path = Node::Render.path();
    let unused: Vec<Fd> = (0..1100)
        .map(|_| Fd::open(path, O_RDWR, 0).unwrap())
        .collect();
    card.create(PAGE).unwrap().close().unwrap();
    drop(unused);
    let nothing = Card::open_at("/scheme/gem/stats").map(|_| ());
    assert_eq!(errno(nothing), EACCES);
}

#[test]
fn a_buffer_goes_with_its_last_owner() {
    let _here = Here::new();
    let card = Card::open(Node::Primary).unwrap();
    let buffer = card.create(3 * PAGE - 1).unwrap();
    assert_eq!(buffer.size(), 3 * PAGE_SIZE);
    let mapping = buffer.map().unwrap();
    drop(buffer);
    assert_eq!((count("handles"), count("objects")), (0, 1), "still mapped");
    let mut bytes = vec![1; mapping.len()];
    mapping.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, vec![0; 3 * PAGE_SIZE]);
    drop(mapping);
    assert_nothing_is_left();
    let buffer = card.create(1).unwrap();
    buffer.close().unwrap();
    assert_nothing_is_left();
}

#[test]
fn a_buffer_outlives_its_card() {
    let _here = Here::new();
    let card = Card::open(Node::Render).unwrap();
    let buffer = card.create(PAGE).unwrap();
    drop(card.clone());
    drop(card);
    buffer.map().unwrap().fill(7).unwrap();
    assert_eq!(count("opens"), 1);
    drop(buffer);
    assert_eq!(count("opens"), 0);
}

#[test]
fn two_buffers_with_one_handle_close_it_once() {
    let _here = Here::new();
    let card = Card::open(Node::Render).unwrap();
    let buffer = card.create(PAGE).unwrap();
    let fd = buffer.export(Rights::ReadWrite).unwrap();
    let again = card.import(&fd).unwrap();
    assert_eq!(again.handle(), buffer.handle());
    drop(buffer);
    assert_eq!(count("handles"), 1);
    again.map().unwrap().fill(1).unwrap();
    drop(again);
    assert_eq!(count("handles"), 0);
    let again = card.import(&fd).unwrap();
    let mut byte = [0];
    again.map().unwrap().read_at(9, &mut byte).unwrap();
    assert_eq!(byte, [1], "the fd kept the object");
}

#[test]
fn an_object_fd_is_read_written_and_mapped_as_its_rights_say() {
    let _here = Here::new();
    let card = Card::open(Node::Render).unwrap();
    let buffer = card.create(2 * PAGE).unwrap();
    let fd = buffer.export(Rights::ReadWrite).unwrap();
    let looker = buffer.export(Rights::ReadOnly).unwrap();
    drop(buffer);
    assert_eq!(fd.size().unwrap(), 2 * PAGE_SIZE);
    assert_eq!(fd.id().unwrap(), looker.id().unwrap());

    assert_eq!(fd.write(b"hello").unwrap(), 5);
    let clone = fd.try_clone().unwrap();
    assert_eq!(
        clone.write(b" you").unwrap(),
        4,
        "clones share the position"
    );
    let mut bytes = [0; 9];
    assert_eq!(looker.read(&mut bytes).unwrap(), 9);
    assert_eq!(&bytes, b"hello you");
    assert_eq!(errno(looker.write(b"x")), EACCES);

    let mapping = looker.map(Rights::ReadOnly).unwrap();
    assert_eq!(errno(mapping.write_at(0, b"x")), EACCES);
    assert_eq!(errno(looker.map(Rights::ReadWrite)), EACCES);
    assert_eq!(errno(card.import(&looker)), EACCES);
    let tail = fd.map_range(PAGE, PAGE_SIZE, Rights::ReadWrite).unwrap();
    tail.write_at(PAGE_SIZE - 1, &[9]).unwrap();
    let mut last = [0];
    mapping.read_at(2 * PAGE_SIZE - 1, &mut last).unwrap();
    assert_eq!(last, [9]);
    assert_eq!(
        errno(fd.map_range(PAGE, 2 * PAGE_SIZE, Rights::ReadWrite)),
        EINVAL
    );

    let end = vec![1; 2 * PAGE_SIZE];
    assert_eq!(fd.write(&end).unwrap(), 2 * PAGE_SIZE - 9, "cut at the end");
    assert_eq!(errno(fd.write(b"x")), ENOSPC);
    assert_eq!(fd.read(&mut bytes).unwrap(), 0);
    drop((fd, clone, looker, mapping, tail));
    assert_nothing_is_left();
}

#[test]
fn an_object_fd_travels_as_a_file_descriptor() {
    let _here = Here::new();
    let card = Card::open(Node::Render).unwrap();
    let fd = card
        .create(PAGE)
        .unwrap()
        .export(Rights::ReadWrite)
        .unwrap();
    let id = fd.id().unwrap();
    let parcel = fd.to_owned_fd().unwrap();
    let copy = parcel.try_clone().unwrap();
    drop(fd);
    let received = ObjectFd::from_owned_fd(parcel).unwrap();
    assert_eq!(received.id().unwrap(), id);
    drop(received);
    assert_eq!(count("objects"), 1, "a copy is still on its way");
    assert_eq!(ObjectFd::from_owned_fd(copy).unwrap().id().unwrap(), id);
    let file = File::open("/dev/null").unwrap();
    assert_eq!(errno(ObjectFd::from_owned_fd(file.into())), EBADF);
}

#[test]
fn names_are_for_those_whom_the_master_vouches_for() {
    let _here = Here::new();
    let master = Card::open(Node::Primary).unwrap();
    let buffer = master.create(PAGE).unwrap();
    let name = buffer.flink().unwrap();
    assert_eq!(buffer.flink().unwrap(), name);
    assert_eq!(
        errno(Card::open(Node::Render).unwrap().open_name(name)),
        EACCES
    );

    hosted::client::set_identity(ALICE, ALICE).unwrap();
    let alice = Card::open(Node::Primary).unwrap();
    assert_eq!(errno(alice.open_name(name)), EACCES);
    assert_eq!(errno(alice.open_name_fd(name, Rights::ReadOnly)), EACCES);
    assert_eq!(errno(alice.authenticate(alice.magic().unwrap())), EACCES);
    assert_eq!(drm::client(&alice).unwrap().auth, 0);
    master.authenticate(alice.magic().unwrap()).unwrap();
    assert_eq!(drm::client(&alice).unwrap().auth, 1);
    let opened = alice.open_name(name).unwrap();
    assert_eq!(opened.size(), PAGE_SIZE);
    let fd = alice.open_name_fd(name, Rights::ReadOnly).unwrap();
    assert_eq!(fd.size().unwrap(), PAGE_SIZE);
    assert_eq!(errno(master.authenticate(gem_client::Magic(999))), EINVAL);

    drop((opened, buffer));
    assert_eq!(
        errno(alice.open_name(name)),
        ENOENT,
        "gone with the last handle"
    );
    assert_eq!(count("objects"), 1, "the fd keeps the object, not the name");
    assert_eq!(Name::new(0), None);
    assert_eq!(Name::new(1 << 31), None);
}

#[test]
fn one_open_is_master_at_a_time() {
    let _here = Here::new();
    let (first, second) = (
        Card::open(Node::Primary).unwrap(),
        Card::open(Node::Primary).unwrap(),
    );
    first.features().unwrap();
    assert_eq!(errno(drm::set_master(&second)), EBUSY);
    assert_eq!(errno(drm::drop_master(&second)), EINVAL);
    drm::drop_master(&first).unwrap();
    drm::set_master(&second).unwrap();
    drop(second);
    drm::set_master(&first).unwrap();
}

#[test]
fn dumb_buffers_have_room_for_their_pixels() {
    let _here = Here::new();
    let card = Card::open(Node::Primary).unwrap();
    let dumb = card.create_dumb(65, 10, 24).unwrap();
    assert_eq!(dumb.pitch, 256, "65 x 3 bytes, rounded up to 64");
    assert_eq!(dumb.buffer.size(), PAGE_SIZE, "2560 bytes, in pages");
    drop(dumb);
    assert_nothing_is_left();
    assert_eq!(errno(card.create_dumb(0, 1, 32)), EINVAL);
    let render = Card::open(Node::Render).unwrap();
    assert_eq!(errno(render.create_dumb(1, 1, 32)), EACCES);
    assert_eq!(drm::capability(&card, drm::cap::PRIME).unwrap(), 3);
    assert_eq!(errno(drm::capability(&card, 2)), EOPNOTSUPP);
    assert_eq!(errno(drm::capability(&card, 999)), EINVAL);
}

#[test]
fn a_payload_never_reaches_a_page() {
    let _here = Here::new();
    let card = Card::open(Node::Primary).unwrap();
    let page = drm::call(&card, "try a page", drm::cap::PRIME, [0u8; PAGE_SIZE]);
    assert_eq!(errno(page), EINVAL);
}

#[test]
fn what_a_server_can_do_is_asked() {
    let _here = Here::new();
    let card = Card::open(Node::Render).unwrap();
    let features = card.features().unwrap();
    assert!(features.contains(Features::BUFFERS | Features::NAMES | Features::PRIME));
    assert!(features.contains(Features::EVENTS));
    for create in [
        Create::new().write_combining(),
        Create::new().uncached(),
        Create::new().contiguous(),
    ] {
        card.create_with(PAGE, create).unwrap();
    }
    let both = Create::new().write_combining().uncached();
    assert_eq!(errno(card.create_with(PAGE, both)), EINVAL);
}

#[test]
fn threads_share_a_card() {
    let _here = Here::new();
    let card = Card::open(Node::Render).unwrap();
    let shared = card.create(PAGE).unwrap();
    let fd = shared.export(Rights::ReadWrite).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (card, fd) = (&card, &fd);
            scope.spawn(move || {
                for round in 0..200usize {
                    let own = card.create(PAGE).unwrap();
                    let mapping = own.map().unwrap();
                    mapping.fill(thread).unwrap();
                    // The same handle for all, closed and brought again all the time.
                    let import = card.import(fd).unwrap();
                    let at = round * 4 + usize::from(thread);
                    import.map().unwrap().write_at(at, &[thread]).unwrap();
                    let mut byte = [255];
                    mapping.read_at(round, &mut byte).unwrap();
                    assert_eq!(byte, [thread]);
                }
            });
        }
    });
    let mut bytes = vec![0; 800];
    shared.map().unwrap().read_at(0, &mut bytes).unwrap();
    let expected: Vec<u8> = (0..800).map(|n| n as u8 % 4).collect();
    assert_eq!(bytes, expected);
    drop((shared, fd));
    assert_nothing_is_left();
}

#[test]
fn texts_tell_what_a_card_holds() {
    let _here = Here::new();
    let card = Card::open(Node::Render).unwrap();
    let buffers: Vec<_> = (0..300).map(|_| card.create(PAGE).unwrap()).collect();
    let objects = text::objects().unwrap();
    assert_eq!(objects.len(), 300);
    assert!(
        objects
            .iter()
            .all(|object| object.get("pages") == Some("1"))
    );
    assert_eq!(objects[0].get("no such column"), None);
    let [number] = text::clients().unwrap()[..] else {
        panic!("one open");
    };
    let client = text::client(number).unwrap();
    assert_eq!(client["gem-handles"], "300");
    assert_eq!(client["gem-pid"], std::process::id().to_string());
    drop((buffers, card));
    assert_eq!(errno(text::client(number)), ENOENT);
    assert_eq!(text::clients().unwrap(), []);
    assert_eq!(errno(text::stat("no such number")), ENOENT);
}

fn changed(limit: Limit, value: u64) -> Event {
    Event::LimitChanged {
        limit: limit.number() as u32,
        value,
    }
}

#[test]
fn a_card_reads_its_events_one_by_one_in_order() {
    let _here = Here::new();
    let cards = [0; 2].map(|_| Card::open(Node::Render).unwrap());
    let [mut first, mut second] = cards.each_ref().map(Card::events);
    // Fewer than one read takes.
    let limits = &Limit::ALL[..10];
    for limit in limits {
        cards[0].set_limit(*limit, 999).unwrap();
    }
    for limit in limits {
        assert_eq!(first.wait(), Ok(changed(*limit, 999)));
    }
    cards[0].set_nonblocking(true).unwrap();
    assert_eq!(first.try_next(), Ok(None));
    assert_eq!(errno(first.wait()), EAGAIN);
    assert_eq!(second.wait(), Ok(changed(limits[0], 999)));
    cards[0].set_nonblocking(false).unwrap();
    // What one reader has taken another does not get.
    let mut third = cards[1].events();
    cards[1].set_nonblocking(true).unwrap();
    assert_eq!(third.try_next(), Ok(None));
    assert!(second.try_next().unwrap().is_some());
}

#[test]
fn an_event_queue_wakes_who_waits_for_a_card() {
    let _here = Here::new();
    let card = Card::open(Node::Primary).unwrap();
    card.set_nonblocking(true).unwrap();
    let queue = EventQueue::<usize>::new().unwrap();
    queue.subscribe(card.raw_fd(), 7, EventFlags::READ).unwrap();
    let mut events = card.events();
    for value in 1..=3 {
        std::thread::scope(|scope| {
            let told = scope.spawn(|| queue.next_event().unwrap().user_data);
            card.set_limit(Limit::Object, value).unwrap();
            assert_eq!(told.join().unwrap(), 7);
        });
        let event = changed(Limit::Object, value);
        assert_eq!(events.try_next(), Ok(Some(event)));
        assert_eq!(events.try_next(), Ok(None));
    }
}

#[test]
fn a_server_that_leaves_wakes_who_waits_for_events() {
    let Here {
        daemon,
        turn: _turn,
    } = Here::new();
    let [reads, watches] = [0; 2].map(|_| Card::open(Node::Render).unwrap());
    let queue = EventQueue::<usize>::new().unwrap();
    queue
        .subscribe(watches.raw_fd(), 7, EventFlags::READ)
        .unwrap();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| reads.events().wait());
        let told = scope.spawn(|| queue.next_event().map(|event| event.user_data));
        while count("waiting") == 0 {
            std::thread::yield_now();
        }
        daemon.signal("TERM");
        assert_eq!(errno(read.join().unwrap()), ENODEV);
        assert_eq!(told.join().unwrap().unwrap(), 7);
    });
    assert_eq!(errno(watches.events().wait()), ENODEV);
}

#[test]
fn calls_on_a_server_that_is_gone_say_so() {
    let Here {
        daemon,
        turn: _turn,
    } = Here::new();
    let card = Card::open(Node::Primary).unwrap();
    let buffer = card.create(PAGE).unwrap();
    let mapping = buffer.map().unwrap();
    mapping.fill(3).unwrap();
    drop(daemon);
    assert_eq!(errno(card.create(PAGE)), ENODEV);
    assert_eq!(errno(buffer.close()), ENODEV);
    let mut byte = [0];
    mapping.read_at(0, &mut byte).unwrap();
    assert_eq!(byte, [3], "mappings live on");
}
