//! The device's promises one by one; `tests/model.rs` tries them all together.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

mod advice;
mod events;
mod quotas;
mod usage;

use super::*;
use crate::MAX_OBJECT_PAGES;
use crate::object::Rights;
use crate::pages::{
    Caching, Extent, Extents, NotReady, PageRequest, PageSet, PlatformError, Ticket,
};
use crate::units::{FakeOffset, Gid, Name, PAGE_SIZE, PhysAddr, Pid, WindowAddr};

/// What a source and a driver were asked, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Event {
    Allocate,
    Window,
    Free,
    Init,
    ObjectPurge,
    ObjectFree,
    TakeBack,
    HandleOpen,
    HandleClose,
}

use Event::*;

/// A source and a driver that remember, and fail when told to.
#[derive(Clone, Default)]
struct World(Rc<RefCell<Memory>>);

#[derive(Default)]
struct Memory {
    events: Vec<Event>,
    fails: Option<(Event, NotReady)>,
    bytes: BTreeMap<u64, Vec<u8>>,
    made: u64,
    /// Of sets that came back, whether they were exposed.
    exposed: Vec<bool>,
    /// Pages that the machine has left, if it is to be known, and those of them that the source
    /// keeps for whoever asks next.
    left: Option<u64>,
    idle: u64,
    /// What the last allocation's owner might have.
    room: PageCount,
}

impl World {
    fn note(&self, event: Event) -> Result<(), NotReady> {
        let mut memory = self.0.borrow_mut();
        memory.events.push(event);
        match memory.fails {
            Some((fails, how)) if fails == event => Err(how),
            _ => Ok(()),
        }
    }

    fn fail(&self, event: Event, how: NotReady) {
        self.0.borrow_mut().fails = Some((event, how));
    }

    fn work(&self) {
        self.0.borrow_mut().fails = None;
    }

    fn events(&self) -> Vec<Event> {
        take(&mut self.0.borrow_mut().events)
    }
}

fn set(key: u64, pages: PageCount) -> PageSet {
    let start = PhysAddr::new(key << 32);
    PageSet::new(key, Extents::One(Extent { start, pages })).unwrap()
}

impl PageSource for World {
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady> {
        self.0.borrow_mut().room = request.room;
        self.note(Allocate)?;
        let mut memory = self.0.borrow_mut();
        memory.made += 1;
        let key = memory.made;
        let zero = vec![0; request.pages.bytes() as usize];
        memory.bytes.insert(key, zero);
        Ok(set(key, request.pages))
    }

    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady> {
        self.note(Window)?;
        assert!(set.is_exposed());
        Ok(WindowAddr::new((set.key() << 32) as usize).unwrap())
    }

    fn read(&mut self, set: &PageSet, offset: u64, bytes: &mut [u8]) -> Result<(), NotReady> {
        let memory = self.0.borrow();
        let from = offset as usize;
        bytes.copy_from_slice(&memory.bytes[&set.key()][from..from + bytes.len()]);
        Ok(())
    }

    fn write(&mut self, set: &PageSet, offset: u64, bytes: &[u8]) -> Result<(), NotReady> {
        assert!(set.is_exposed());
        let mut memory = self.0.borrow_mut();
        let from = offset as usize;
        let all = memory.bytes.get_mut(&set.key()).unwrap();
        all[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn free(&mut self, _: Uid, set: PageSet) {
        self.note(Free).unwrap();
        let mut memory = self.0.borrow_mut();
        let freed = memory.bytes.remove(&set.key()).expect("freed twice");
        let exposed = set.is_exposed();
        assert!(exposed || freed.iter().all(|&byte| byte == 0));
        memory.exposed.push(exposed);
        memory.left = memory.left.map(|left| left + set.pages().get());
    }

    fn left(&self) -> Option<PageCount> {
        self.0.borrow().left.map(pages)
    }

    fn give_back(&mut self) -> PageCount {
        pages(take(&mut self.0.borrow_mut().idle))
    }
}

impl Driver for World {
    fn object_init(&mut self, _: ObjectInfo) -> Result<(), NotReady> {
        self.note(Init)
    }

    fn object_purge(&mut self, _: ObjectInfo) {
        self.note(ObjectPurge).unwrap();
    }

    fn object_free(&mut self, _: ObjectInfo) {
        self.note(ObjectFree).unwrap();
    }

    fn take_back(&mut self, _: PageSet) {
        self.note(TakeBack).unwrap();
    }

    fn handle_open(&mut self, _: OpenId, _: ObjectInfo) -> Result<(), NotReady> {
        self.note(HandleOpen)
    }

    fn handle_close(&mut self, _: OpenId, _: ObjectInfo) {
        self.note(HandleClose).unwrap();
    }
}

type TestDevice = Device<World, World>;

fn pages(pages: u64) -> PageCount {
    PageCount::new(pages).unwrap()
}

fn device_with(limits: Limits) -> (World, TestDevice) {
    let world = World::default();
    let config = Config {
        limits,
        names: NameMode::Sequential,
    };
    (
        world.clone(),
        Device::new(config, world.clone(), world.clone()),
    )
}

fn device() -> (World, TestDevice) {
    device_with(Limits::for_clients(pages(1000)))
}

fn identity(uid: u32) -> Identity {
    Identity {
        uid: Uid(uid),
        gid: Gid(uid),
        pid: Pid(1),
    }
}

fn open(device: &mut TestDevice, uid: u32) -> OpenId {
    let open = device.open(Node::Primary).unwrap();
    device.bind(open, identity(uid)).unwrap();
    open
}

fn create(device: &mut TestDevice, open: OpenId, pages: u64) -> Handle {
    let size = pages * PAGE_SIZE;
    let (handle, _) = device.create(open, size, CreateInfo::default()).unwrap();
    handle
}

const WRITE: Rights = Rights { write: true };
const READ: Rights = Rights { write: false };

/// Totals, without what every test shares.
fn counts(device: &TestDevice) -> (usize, u64, usize, usize, usize, u64, u64) {
    let stats = device.stats();
    (
        stats.objects,
        stats.handles,
        stats.object_fds,
        stats.names,
        stats.offsets,
        stats.memory.get(),
        stats.mapped.get(),
    )
}

const NOTHING: (usize, u64, usize, usize, usize, u64, u64) = (0, 0, 0, 0, 0, 0, 0);

#[test]
fn an_object_goes_as_it_came_in_reverse() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 1);
    assert_eq!(world.events(), [Allocate, Init, HandleOpen]);
    device.close_handle(open, handle).unwrap();
    assert_eq!(world.events(), [HandleClose, ObjectFree, Free]);
}

#[test]
fn what_fails_undoes_what_was_done_before_it_and_nothing_else() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    for (fails, seen) in [
        (Allocate, vec![Allocate]),
        (Init, vec![Allocate, Init, Free]),
        (
            HandleOpen,
            vec![Allocate, Init, HandleOpen, ObjectFree, Free],
        ),
    ] {
        for (how, error) in [
            (NotReady::OutOfMemory, Error::OutOfMemory),
            (NotReady::Wait(Ticket(7)), Error::NotReady(Ticket(7))),
            (
                NotReady::Refused(PlatformError::NoSuchMemory),
                Error::Platform(PlatformError::NoSuchMemory),
            ),
        ] {
            world.fail(fails, how);
            let made = device.create(open, 1, CreateInfo::default());
            assert_eq!(made, Err(error));
            assert_eq!(world.events(), seen);
            assert_eq!(counts(&device), NOTHING);
            let account = device.open_stats(open).unwrap().account.unwrap();
            assert_eq!((account.objects, account.handles), (0, 0));
        }
    }
    world.work();
    assert_eq!(create(&mut device, open, 1).get(), 1, "the number is free");
}

#[test]
fn a_second_handle_that_fails_leaves_the_first_as_it_was() {
    let (world, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 1);
    let name = device.flink(a, handle).unwrap();
    let fd = device.export(a, handle, WRITE).unwrap();
    let before = counts(&device);
    world.events();
    world.fail(HandleOpen, NotReady::OutOfMemory);
    assert_eq!(device.open_name(b, name), Err(Error::OutOfMemory));
    assert_eq!(device.import(b, fd), Err(Error::OutOfMemory));
    assert_eq!(world.events(), [HandleOpen, HandleOpen]);
    assert_eq!(counts(&device), before);
    world.work();
    assert_eq!(device.import(b, fd).unwrap().0.get(), 1);
}

#[test]
fn a_private_object_is_shared_and_never_mapped_and_goes_back_to_the_driver() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let set_of_two = set(9, pages(2));
    let handle = device
        .create_private(open, set_of_two, Caching::Uncached)
        .unwrap();
    assert_eq!(world.events(), [Init, HandleOpen]);
    assert_eq!(device.size(open, handle), Ok(pages(2)));
    assert_eq!(device.stats().memory, pages(2));
    let offset = device.map_offset(open, handle).unwrap().get();
    let mapped = device.map(Mapper::Node(open), offset, PAGE_SIZE, false);
    assert_eq!(mapped, Err(Error::NotMappable));
    let fd = device.export(open, handle, WRITE).unwrap();
    assert_eq!(device.read(fd, 0, &mut [0]), Err(Error::NotMappable));
    assert_eq!(device.write(fd, 0, &[0]), Err(Error::NotMappable));
    device.close(open);
    world.events();
    device.close_object_fd(fd);
    assert_eq!(world.events(), [ObjectFree, TakeBack]);
    assert_eq!(counts(&device), NOTHING);
}

#[test]
fn private_pages_go_back_to_the_driver_whatever_fails() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let stranger = device.open(Node::Render).unwrap();
    let make = |device: &mut TestDevice, open, size| {
        let made = device.create_private(open, set(9, pages(size)), Caching::WriteBack);
        (made.map(Handle::get), world.events())
    };
    let unbound = make(&mut device, stranger, 1);
    assert_eq!(unbound, (Err(Error::Binding), vec![TakeBack]));
    let (refused, events) = make(&mut device, open, 501);
    assert!(matches!(refused, Err(Error::Limit(_))));
    assert_eq!(events, [TakeBack]);
    world.fail(HandleOpen, NotReady::OutOfMemory);
    let failed = make(&mut device, open, 1);
    assert_eq!(failed.1, [Init, HandleOpen, ObjectFree, TakeBack]);
    assert_eq!(counts(&device), NOTHING);
}

#[test]
fn each_limit_is_checked_before_the_page_source_is_asked() {
    let set: [fn(&mut Limits); 5] = [
        |limits| limits.handles_per_open = 2,
        |limits| limits.handles_per_uid = 2,
        |limits| limits.objects_per_uid = 2,
        |limits| limits.uid = pages(9),
        |limits| limits.total = pages(9),
    ];
    for set in set {
        let mut limits = Limits::for_clients(pages(1000));
        set(&mut limits);
        let (world, mut device) = device_with(limits);
        let open = open(&mut device, 1);
        create(&mut device, open, 4);
        let last = create(&mut device, open, 4);
        world.events();
        let before = counts(&device);
        let made = device.create(open, 4 * PAGE_SIZE, CreateInfo::default());
        assert!(matches!(made, Err(Error::Limit(_))), "{made:?} {limits:?}");
        assert_eq!(world.events(), []);
        assert_eq!(counts(&device), before);
        device.close_handle(open, last).unwrap();
        create(&mut device, open, 4);
    }
}

#[test]
fn mapped_pages_are_checked_before_the_page_source_is_asked() {
    let mut limits = Limits::for_clients(pages(1000));
    limits.mapped_per_uid = pages(5);
    let (world, mut device) = device_with(limits);
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 4);
    let offset = device.map_offset(open, handle).unwrap().get();
    let node = Mapper::Node(open);
    device.map(node, offset, 4 * PAGE_SIZE, true).unwrap();
    world.events();
    let more = device.map(node, offset, 2 * PAGE_SIZE, true);
    assert!(matches!(more, Err(Error::Limit(_))));
    assert_eq!(world.events(), []);
    assert!(device.map(node, offset, PAGE_SIZE, true).is_ok());
}

#[test]
fn an_object_fd_is_charged_to_the_open_that_made_it_until_it_is_closed() {
    let mut limits = Limits::for_clients(pages(1000));
    limits.object_fds_per_open = 1;
    limits.object_fds_per_uid = 2;
    let (_, mut device) = device_with(limits);
    let opens = [
        open(&mut device, 1),
        open(&mut device, 1),
        open(&mut device, 1),
    ];
    let handles = opens.map(|open| create(&mut device, open, 1));
    let export = |device: &mut TestDevice, n: usize| device.export(opens[n], handles[n], READ);
    let first = export(&mut device, 0).unwrap();
    let refused = LedgerError::OpenCount(Counted::ObjectFds, 1).into();
    assert_eq!(export(&mut device, 0), Err(refused));
    export(&mut device, 1).unwrap();
    let refused = LedgerError::Count(Uid(1), Counted::ObjectFds, 2).into();
    assert_eq!(export(&mut device, 2), Err(refused));
    device.close_object_fd(first);
    assert_eq!(device.open_stats(opens[0]).unwrap().object_fds, 0);
    export(&mut device, 0).unwrap();
}

#[test]
fn what_an_open_no_longer_maps_takes_no_room() {
    let (_, mut device) = device_with(Limits::for_clients(pages(100_000)));
    let open = open(&mut device, 1);
    let node = Mapper::Node(open);
    let map = |device: &mut TestDevice| {
        let handle = create(device, open, 1);
        let offset = device.map_offset(open, handle).unwrap().get();
        device.map(node, offset, 1, true).unwrap();
        offset
    };
    let offsets: Vec<_> = (0..5000).map(|_| map(&mut device)).collect();
    for offset in &offsets[2..] {
        device.unmap(node, *offset, 1);
    }
    let state = device.opens.get(open.0).unwrap();
    assert_eq!(state.mapped.len(), 2);
    assert!(state.mapped.allocation_size() < 1000);
}

#[test]
fn a_mapping_that_the_source_refuses_is_not_charged() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 4);
    let offset = device.map_offset(open, handle).unwrap().get();
    let fd = device.export(open, handle, WRITE).unwrap();
    world.fail(Window, NotReady::Wait(Ticket(3)));
    for (mapper, offset) in [(Mapper::Node(open), offset), (Mapper::Object(fd), 0)] {
        let mapped = device.map(mapper, offset, PAGE_SIZE, true);
        assert_eq!(mapped, Err(Error::NotReady(Ticket(3))));
    }
    assert_eq!(device.stats().mapped, PageCount::ZERO);
    let account = device.open_stats(open).unwrap().account.unwrap();
    assert_eq!(account.mapped, PageCount::ZERO);
}

#[test]
fn an_open_that_is_nobodys_can_do_nothing_that_is_charged() {
    let (_, mut device) = device();
    let (stranger, known) = (device.open(Node::Primary).unwrap(), open(&mut device, 1));
    let handle = create(&mut device, known, 1);
    let name = device.flink(known, handle).unwrap();
    let fd = device.export(known, handle, WRITE).unwrap();
    let info = CreateInfo::default();
    assert_eq!(device.create(stranger, 1, info), Err(Error::Binding));
    assert_eq!(device.create_dumb(stranger, 1, 1, 32), Err(Error::Binding));
    assert_eq!(device.open_name(stranger, name), Err(Error::Binding));
    assert_eq!(device.import(stranger, fd), Err(Error::Binding));
    let exported = device.export_name(stranger, name, READ);
    assert_eq!(exported, Err(Error::Binding));
    assert_eq!(device.identity(stranger), None);
    device.bind(stranger, identity(2)).unwrap();
    assert_eq!(device.bind(stranger, identity(3)), Err(Error::Binding));
    assert_eq!(device.identity(stranger), Some(identity(2)));
    assert!(device.open_name(stranger, name).is_ok());
}

#[test]
fn a_closed_open_and_a_closed_fd_are_never_anything_again() {
    let (_, mut device) = device();
    let old = open(&mut device, 1);
    let handle = create(&mut device, old, 1);
    let fd = device.export(old, handle, WRITE).unwrap();
    device.close(old);
    device.close_object_fd(fd);
    assert_eq!(counts(&device), NOTHING);
    let new = open(&mut device, 2);
    let handle = create(&mut device, new, 1);
    let new_fd = device.export(new, handle, WRITE).unwrap();
    assert_ne!((old, fd), (new, new_fd));
    let before = counts(&device);
    device.close(old);
    device.close_object_fd(fd);
    device.unmap(Mapper::Node(old), FakeOffset::BASE, u64::MAX);
    device.unmap(Mapper::Object(fd), 0, u64::MAX);
    assert_eq!(counts(&device), before);
    assert_eq!(device.size(old, handle), Err(Error::NoSuchOpen));
    assert_eq!(device.close_handle(old, handle), Err(Error::NoSuchOpen));
    assert_eq!(device.read(fd, 0, &mut [0]), Err(Error::NoSuchObjectFd));
    assert_eq!(device.import(new, fd), Err(Error::NoSuchObjectFd));
    let mapped = device.map(Mapper::Object(fd), 0, PAGE_SIZE, false);
    assert_eq!(mapped, Err(Error::NoSuchObjectFd));
    assert_eq!(device.identity(old), None);
    assert_eq!(device.node(old), None);
}

#[test]
fn a_name_dies_with_the_last_handle() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 3);
    let name = device.flink(a, handle).unwrap();
    assert_eq!(device.flink(a, handle), Ok(name));
    let fd = device.export_name(b, name, READ).unwrap();
    let (second, size) = device.open_name(b, name).unwrap();
    assert_eq!(size, pages(3));
    device.close_handle(a, handle).unwrap();
    let (third, _) = device.open_name(b, name).unwrap();
    assert_ne!(third, second, "always a new handle");
    device.close(b);
    assert_eq!(device.open_name(a, name), Err(Error::NoSuchName(name)));
    assert_eq!(device.object_fd(fd).unwrap().pages, pages(3));
    assert_eq!(device.stats().names, 0);
    device.close_object_fd(fd);
    assert_eq!(counts(&device), NOTHING);
    assert_eq!(Name::new(1), Some(name));
}

#[test]
fn import_gives_the_same_handle_until_that_is_closed() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 1);
    let fd = device.export(a, handle, WRITE).unwrap();
    assert_eq!(device.import(a, fd).unwrap().0, handle, "its own export");
    let name = device.flink(a, handle).unwrap();
    device.open_name(b, name).unwrap();
    let (first, _) = device.import(b, fd).unwrap();
    let (another, _) = device.open_name(b, name).unwrap();
    device.export(b, another, WRITE).unwrap();
    assert_eq!(device.import(b, fd).unwrap().0, first);
    device.close_handle(b, first).unwrap();
    create(&mut device, b, 1);
    let (again, _) = device.import(b, fd).unwrap();
    assert_ne!(again, first, "that number is another object's now");
    assert_eq!(device.import(b, fd).unwrap().0, again);
}

#[test]
fn a_read_only_fd_gives_no_way_to_write() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 1);
    let fd = device.export(a, handle, READ).unwrap();
    let map = |device: &mut TestDevice, write| device.map(Mapper::Object(fd), 0, 1, write);
    assert_eq!(device.write(fd, 0, &[1]), Err(Error::ReadOnly));
    assert_eq!(map(&mut device, true), Err(Error::ReadOnly));
    assert_eq!(device.import(b, fd), Err(Error::ReadOnly));
    assert!(map(&mut device, false).is_ok());
    assert_eq!(device.read(fd, 0, &mut [9]), Ok(1));
}

#[test]
fn bytes_are_read_and_written_up_to_the_end_of_the_object() {
    let (_, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 1);
    let fd = device.export(open, handle, WRITE).unwrap();
    let end = PAGE_SIZE;
    assert_eq!(device.write(fd, end - 2, b"abc"), Ok(2));
    let mut bytes = [9; 4];
    assert_eq!(device.read(fd, end - 3, &mut bytes), Ok(3));
    assert_eq!(&bytes, b"\0ab\x09");
    for past in [end, end + 1, u64::MAX] {
        assert_eq!(device.read(fd, past, &mut bytes), Ok(0));
        assert_eq!(device.write(fd, past, b"x"), Err(Error::NoSpace));
        assert_eq!(device.write(fd, past, b""), Ok(0));
    }
}

#[test]
fn pages_that_nobody_could_write_to_come_back_as_such() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let uses: [fn(&mut TestDevice, OpenId, Handle, ObjectFdId); 5] = [
        |_, _, _, _| {},
        |device, open, handle, _| {
            device.map_offset(open, handle).unwrap();
            device.flink(open, handle).unwrap();
        },
        |device, _, _, fd| {
            assert_eq!(device.read(fd, 0, &mut [1; 8]), Ok(8));
        },
        |device, _, _, fd| {
            assert_eq!(device.write(fd, 0, &[1; 8]), Ok(8));
        },
        |device, _, _, fd| {
            let mapper = Mapper::Object(fd);
            device.map(mapper, 0, PAGE_SIZE, false).unwrap();
            device.unmap(mapper, 0, PAGE_SIZE);
        },
    ];
    for what in uses {
        let handle = create(&mut device, open, 1);
        let rights = Rights { write: true };
        let fd = device.export(open, handle, rights).unwrap();
        what(&mut device, open, handle, fd);
        device.close_object_fd(fd);
        device.close_handle(open, handle).unwrap();
    }
    let exposed = take(&mut world.0.borrow_mut().exposed);
    assert_eq!(exposed, [false, false, false, true, true]);
}

#[test]
fn a_mapping_through_a_node_begins_where_the_object_does() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 4);
    let offset = device.map_offset(a, handle).unwrap().get();
    let map = |device: &mut TestDevice, open, offset, size| {
        device.map(Mapper::Node(open), offset, size, true).map(drop)
    };
    for wrong in [0, offset - 1, offset + 1, offset + PAGE_SIZE, u64::MAX] {
        let error = Err(Error::NoSuchOffset(wrong));
        assert_eq!(map(&mut device, a, wrong, PAGE_SIZE), error);
    }
    for size in [0, 4 * PAGE_SIZE + 1, u64::MAX] {
        let error = Err(Error::Range { offset, size });
        assert_eq!(map(&mut device, a, offset, size), error);
    }
    assert_eq!(
        map(&mut device, b, offset, PAGE_SIZE),
        Err(Error::NotAllowed)
    );
    assert_eq!(map(&mut device, a, offset, 1), Ok(()));
    assert_eq!(map(&mut device, a, offset, 4 * PAGE_SIZE), Ok(()));
    assert_eq!(device.stats().mapped, pages(5));
}

#[test]
fn what_is_mapped_outlives_its_handles_and_keeps_its_offset() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 4);
    let offset = device.map_offset(open, handle).unwrap().get();
    let node = Mapper::Node(open);
    device.map(node, offset, 4 * PAGE_SIZE, true).unwrap();
    device.close_handle(open, handle).unwrap();
    let again = device.map(node, offset, PAGE_SIZE, true);
    assert_eq!(again, Err(Error::NotAllowed), "a handle is what allows it");
    world.events();
    device.unmap(node, offset + PAGE_SIZE, 2 * PAGE_SIZE);
    assert_eq!(device.stats().mapped, pages(2));
    assert_eq!(device.stats().offsets, 1);
    device.unmap(node, offset, PAGE_SIZE);
    assert_eq!(world.events(), []);
    device.unmap(node, offset + 3 * PAGE_SIZE, PAGE_SIZE);
    assert_eq!(world.events(), [ObjectFree, Free]);
    assert_eq!(counts(&device), NOTHING);
}

#[test]
fn what_an_open_has_mapped_it_maps_again_in_any_part() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 4);
    let name = device.flink(a, handle).unwrap();
    device.open_name(b, name).unwrap();
    let offset = device.map_offset(a, handle).unwrap().get();
    let inside = offset + 3 * PAGE_SIZE;
    assert_eq!(device.map_again(a, offset, 1), Err(Error::NotAllowed));
    let node = Mapper::Node(a);
    device.map(node, offset, 2 * PAGE_SIZE, true).unwrap();
    device.close_handle(a, handle).unwrap();
    let whole = device.map_again(a, offset, 4 * PAGE_SIZE).unwrap();
    let last = device.map_again(a, inside, PAGE_SIZE).unwrap();
    assert_eq!(last.get(), whole.get() + 3 * PAGE_SIZE as usize);
    assert_eq!(device.stats().mapped, pages(7));
    for size in [0, PAGE_SIZE + 1, u64::MAX] {
        let offset = inside;
        let error = Err(Error::Range { offset, size });
        assert_eq!(device.map_again(a, inside, size), error);
    }
    for wrong in [0, offset - PAGE_SIZE, inside + 1, inside + PAGE_SIZE] {
        let error = Err(Error::NoSuchOffset(wrong));
        assert_eq!(device.map_again(a, wrong, PAGE_SIZE), error);
    }
    assert_eq!(device.map_again(b, offset, 1), Err(Error::NotAllowed));
    device.unmap(node, offset, 7 * PAGE_SIZE);
    assert_eq!(device.map_again(a, offset, 1), Err(Error::NotAllowed));
    device.map(Mapper::Node(b), offset, 1, true).unwrap();
    device.revoke(b).unwrap();
    assert_eq!(device.map_again(b, offset, 1), Err(Error::Revoked));
}

#[test]
fn unmapping_never_uncounts_what_others_have_mapped() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 4);
    let name = device.flink(a, handle).unwrap();
    device.open_name(b, name).unwrap();
    let offset = device.map_offset(a, handle).unwrap().get();
    let fd = device.export(a, handle, WRITE).unwrap();
    device
        .map(Mapper::Node(a), offset, PAGE_SIZE, true)
        .unwrap();
    for (mapper, at) in [
        (Mapper::Node(b), offset),
        (Mapper::Object(fd), 0),
        (Mapper::Node(a), 0),
        (Mapper::Node(a), offset + 1),
        (Mapper::Node(a), offset + 4 * PAGE_SIZE),
        (Mapper::Node(a), u64::MAX),
    ] {
        for size in [PAGE_SIZE, u64::MAX] {
            device.unmap(mapper, at, size);
            assert_eq!(device.stats().mapped, pages(1), "{mapper:?} {at:#x}");
        }
    }
    device.unmap(Mapper::Node(a), offset, 1 << 60);
    assert_eq!(device.stats().mapped, PageCount::ZERO);
}

#[test]
fn closing_releases_whatever_is_left() {
    let (_, mut device) = device();
    let open = open(&mut device, 1);
    for size in 1..=40 {
        let handle = create(&mut device, open, size % 3 + 1);
        let offset = device.map_offset(open, handle).unwrap().get();
        for _ in 0..3 {
            device.map(Mapper::Node(open), offset, 1, true).unwrap();
        }
        device.unmap(Mapper::Node(open), offset, 1);
        device.flink(open, handle).unwrap();
    }
    device.magic(open).unwrap();
    device.set_master(open).unwrap();
    assert_eq!(device.open_stats(open).unwrap().mapped_objects, 40);
    device.close(open);
    assert_eq!(counts(&device), NOTHING);
    assert_eq!(device.stats().opens, 0);
    assert_eq!(device.accounts().count(), 0);
    assert!(!device.has_master());
    assert!(device.magics.is_empty());
}

#[test]
fn an_object_fd_keeps_an_object_alive_and_its_maker_paying() {
    let (_, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 2);
    let fd = device.export(open, handle, WRITE).unwrap();
    device
        .map(Mapper::Object(fd), PAGE_SIZE, PAGE_SIZE, true)
        .unwrap();
    device.close(open);
    let account = *device.accounts().next().unwrap();
    assert_eq!((account.uid, account.opens), (Uid(1), 0));
    assert_eq!((account.memory, account.mapped), (pages(2), pages(1)));
    assert_eq!((account.objects, account.object_fds), (1, 1));
    device.close_object_fd(fd);
    assert_eq!(device.accounts().count(), 0);
    assert_eq!(counts(&device), NOTHING);
}

#[test]
fn a_dumb_buffer_is_an_object_of_its_pixels_size() {
    let (_, mut device) = device();
    let open = open(&mut device, 1);
    let dumb = device.create_dumb(open, 100, 50, 24).unwrap();
    assert_eq!((dumb.pitch, dumb.size), (320, 4 * PAGE_SIZE));
    assert_eq!(device.size(open, dumb.handle), Ok(pages(4)));
    assert_eq!(device.create_dumb(open, 0, 50, 24), Err(Error::Dumb));
    let large = device.create_dumb(open, 1 << 20, 1 << 10, 32);
    assert!(matches!(large, Err(Error::Limit(LedgerError::Object(_)))));
}

#[test]
fn an_object_is_never_larger_than_fits_an_answer() {
    let mut limits = Limits::for_clients(PageCount::MAX);
    limits.object = PageCount::MAX;
    let (_, mut device) = device_with(limits);
    let open = open(&mut device, 1);
    let size = (MAX_OBJECT_PAGES + 1) * PAGE_SIZE;
    let made = device.create(open, size, CreateInfo::default());
    assert_eq!(
        made,
        Err(LedgerError::Object(pages(MAX_OBJECT_PAGES)).into())
    );
}

#[test]
fn opens_are_limited_for_one_uid_and_for_all() {
    let mut limits = Limits::for_clients(pages(10));
    limits.opens = 3;
    limits.opens_per_uid = 1;
    let (_, mut device) = device_with(limits);
    let first = open(&mut device, 1);
    let second = device.open(Node::Render).unwrap();
    assert!(matches!(
        device.bind(second, identity(1)),
        Err(Error::Limit(_))
    ));
    device.bind(second, identity(2)).unwrap();
    device.open(Node::Render).unwrap();
    assert_eq!(
        device.open(Node::Primary),
        Err(LedgerError::Opens(3).into())
    );
    device.close(first);
    open(&mut device, 1);
}

#[test]
fn one_open_at_a_time_is_master_and_it_vouches_for_others() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    device.set_master(a).unwrap();
    assert_eq!(device.set_master(a), Ok(()));
    assert_eq!(device.set_master(b), Err(Error::MasterElsewhere));
    assert_eq!(device.drop_master(b), Err(Error::NotMaster));
    let magic = device.magic(b).unwrap();
    assert_eq!(device.magic(b), Ok(magic));
    assert!(!device.is_authenticated(b));
    device.authenticate(magic).unwrap();
    assert!(device.is_authenticated(b) && !device.was_master(b));
    assert_eq!(device.authenticate(magic), Err(Error::NoSuchMagic));
    device.drop_master(a).unwrap();
    assert!(device.was_master(a) && !device.is_master(a));
    device.set_master(b).unwrap();
    device.close(b);
    assert_eq!(device.set_master(a), Ok(()));
}

#[test]
fn magic_numbers_that_come_again_are_nobody_elses() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let first = device.magic(a).unwrap();
    device.last_magic = Magic::MAX;
    let second = device.magic(b).unwrap();
    assert_eq!((first.get(), second.get()), (1, 2));
}

#[test]
fn tearing_down_ends_everything() {
    let (world, mut device) = device();
    for uid in 0..5 {
        let open = open(&mut device, uid);
        let handle = create(&mut device, open, 1);
        device.export(open, handle, WRITE).unwrap();
        let offset = device.map_offset(open, handle).unwrap().get();
        device.map(Mapper::Node(open), offset, 1, true).unwrap();
    }
    let (source, _) = device.tear_down();
    assert!(source.0.borrow().bytes.is_empty());
    let frees = world.events().into_iter().filter(|event| *event == Free);
    assert_eq!(frees.count(), 5);
}
