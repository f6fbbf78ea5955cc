//! The device's promises one by one; `tests/model` tries them all together.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

mod advice;
mod events;
mod mapping;
mod quotas;
mod sharing;
mod usage;
mod world;

use super::*;
use crate::MAX_OBJECT_PAGES;
use crate::object::Rights;
use crate::pages::{
    Caching, Extent, Extents, NotReady, PageRequest, PageSet, PlatformError, Ticket,
};
use crate::units::{FakeOffset, Gid, Name, PAGE_SIZE, PhysAddr, Pid, WindowAddr};
use world::Event::*;
use world::{World, set};

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
    device.unmap(old, FakeOffset::BASE, u64::MAX);
    device.unmap_fd(fd, u64::MAX, Pid(1));
    assert_eq!(counts(&device), before);
    assert_eq!(device.size(old, handle), Err(Error::NoSuchOpen));
    assert_eq!(device.close_handle(old, handle), Err(Error::NoSuchOpen));
    assert_eq!(device.read(fd, 0, &mut [0]), Err(Error::NoSuchObjectFd));
    assert_eq!(device.import(new, fd), Err(Error::NoSuchObjectFd));
    let mapped = device.map_fd(fd, identity(1), 0, PAGE_SIZE, false);
    assert_eq!(mapped, Err(Error::NoSuchObjectFd));
    assert_eq!(device.identity(old), None);
    assert_eq!(device.node(old), None);
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
            let by = identity(1);
            device.map_fd(fd, by, 0, PAGE_SIZE, true).unwrap();
            device.unmap_fd(fd, PAGE_SIZE, by.pid);
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
fn closing_releases_whatever_is_left() {
    let (_, mut device) = device();
    let open = open(&mut device, 1);
    for size in 1..=40 {
        let handle = create(&mut device, open, size % 3 + 1);
        let offset = device.map_offset(open, handle).unwrap().get();
        for _ in 0..3 {
            device.map(open, offset, 1).unwrap();
        }
        device.unmap(open, offset, 1);
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
        device.map(open, offset, 1).unwrap();
    }
    let (source, _) = device.tear_down();
    assert!(source.0.borrow().bytes.is_empty());
    let frees = world.events().into_iter().filter(|event| *event == Free);
    assert_eq!(frees.count(), 5);
}
