//! What is not needed, and who loses it when.

use super::*;
use crate::events::{Event as Told, Pressure};
use crate::object::Advice::{DontNeed, WillNeed};

/// A new object that is not needed.
fn unneeded(device: &mut TestDevice, open: OpenId, pages: u64) -> Handle {
    let handle = create(device, open, pages);
    assert_eq!(device.advise(open, handle, DontNeed), Ok(true));
    handle
}

/// Whether the object has its pages still. Asking makes it needed.
fn is_retained(device: &mut TestDevice, open: OpenId, handle: Handle) -> bool {
    device.advise(open, handle, WillNeed).unwrap()
}

/// What might be purged: of the open's user, and of the open.
fn purgeable(device: &TestDevice, open: OpenId) -> (u64, u64) {
    let stats = device.open_stats(open).unwrap();
    (stats.purgeable_of_uid.get(), stats.usage.purgeable.get())
}

/// A machine that is so many pages short of what is to be kept free.
fn short_of(world: &World, device: &TestDevice, missing: u64) {
    let keep = device.limits().keep_free.get();
    let enough = keep + keep / 8;
    world.0.borrow_mut().left = Some(enough.saturating_sub(missing));
}

fn memory(device: &TestDevice, uid: u32) -> (u64, u32) {
    let account = device.accounts().find(|account| account.uid == Uid(uid));
    account.map_or((0, 0), |account| (account.memory.get(), account.objects))
}

#[test]
fn what_is_unneeded_longest_goes_first_and_no_more_than_is_missing() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let needed = create(&mut device, open, 10);
    let [a, b, c, d] = [1, 2, 3, 4].map(|size| unneeded(&mut device, open, size));
    // Said again, it is the last; taken back, it is none.
    device.advise(open, a, DontNeed).unwrap();
    device.advise(open, c, WillNeed).unwrap();
    assert_eq!(device.stats().purgeable, pages(7));
    assert_eq!(purgeable(&device, open), (7, 7));
    // One page below what is to be kept: an eighth more than that is missing, and all of it goes.
    world.0.borrow_mut().left = Some(device.limits().keep_free.get() - 1);
    assert_eq!(device.relieve(), Ok(()));
    assert_eq!(device.pressure(), Pressure::Low);
    for handle in [a, b, d] {
        assert!(!is_retained(&mut device, open, handle));
    }
    for handle in [needed, c] {
        assert!(is_retained(&mut device, open, handle));
    }
    world.0.borrow_mut().left = None;
    // Sixteen are missing again.
    let [e, f, g] = [7, 9, 1].map(|size| unneeded(&mut device, open, size));
    world.0.borrow_mut().left = Some(device.limits().keep_free.get() - 1);
    device.relieve().unwrap();
    assert!(!is_retained(&mut device, open, e));
    assert!(!is_retained(&mut device, open, f), "seven were not enough");
    assert!(is_retained(&mut device, open, g));
    let seen = device.pressure();
    assert_eq!(seen, Pressure::Low, "it was, when last looked at");
    device.relieve().unwrap();
    assert_eq!(device.pressure(), Pressure::Eased);
    assert_eq!(device.stats().purges.pages, 7 + 7 + 9);
    assert_eq!(device.stats().purges.objects, 5);
}

#[test]
fn memory_is_short_from_one_line_down_and_not_before_it_is_above_the_other() {
    use Pressure::{Critical, Eased, Low};
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let mut limits = *device.limits();
    limits.keep_free = pages(400);
    device.set_limits(limits);
    let mut told = Vec::new();
    for (left, level) in [
        (None, Eased),
        (Some(400), Eased),
        (Some(399), Low),
        (Some(449), Low),
        (Some(450), Eased),
        (Some(400), Eased),
        (Some(100), Low),
        (Some(99), Critical),
        (Some(199), Critical),
        (Some(200), Low),
        (Some(0), Critical),
        (Some(450), Eased),
        (Some(0), Critical),
        (None, Eased),
    ] {
        world.0.borrow_mut().left = left;
        device.relieve().unwrap();
        assert_eq!(device.pressure(), level, "{left:?}");
        while let Some(event) = device.next_event(open).unwrap() {
            let free = left.map_or(PageCount::MAX, pages);
            assert_eq!(event, Told::Pressure { level, free });
            told.push(level);
        }
    }
    let changes = [
        Low, Eased, Low, Critical, Low, Critical, Eased, Critical, Eased,
    ];
    assert_eq!(told, changes, "what is no change is not told");
    // More may be to be kept free, as of now.
    let handle = unneeded(&mut device, open, 1);
    world.0.borrow_mut().left = Some(1000);
    limits.keep_free = PageCount::MAX;
    device.set_limits(limits);
    assert_eq!(device.pressure(), Critical);
    assert!(!is_retained(&mut device, open, handle));
}

#[test]
fn what_is_at_work_is_not_purged() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 2);
    let [first, second] = [(); 2].map(|()| device.begin_use(open, handle).unwrap());
    device.advise(open, handle, DontNeed).unwrap();
    short_of(&world, &device, 100);
    for object in [first, second] {
        device.relieve().unwrap();
        assert_eq!(device.stats().purges.objects, 0);
        device.end_use(object);
    }
    // And what may be purged goes to work no more than once it is purged.
    let again = device.begin_use(open, handle).unwrap();
    assert_eq!(purgeable(&device, open), (0, 0));
    device.end_use(again);
    assert_eq!(purgeable(&device, open), (2, 2));
    device.relieve().unwrap();
    assert!(!is_retained(&mut device, open, handle));
}

#[test]
fn what_is_mapped_is_never_purged() {
    let (world, mut device) = device();
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let handle = create(&mut device, a, 2);
    let offset = device.map_offset(a, handle).unwrap().get();
    let name = device.flink(a, handle).unwrap();
    let bobs = device.open_name(b, name).unwrap().0;
    let fd = device.export(b, bobs, WRITE).unwrap();
    device.advise(a, handle, DontNeed).unwrap();
    device.map(a, offset, 4096).unwrap();
    device.map_fd(fd, identity(1), 0, 8192, true).unwrap();
    assert_eq!(device.stats().purgeable, PageCount::ZERO);
    short_of(&world, &device, 100);
    device.relieve().unwrap();
    device.unmap(a, offset, 4096);
    device.relieve().unwrap();
    assert!(device.map(b, offset, 4096).is_ok());
    device.close_object_fd(fd);
    device.relieve().unwrap();
    device.unmap(b, offset, 4096);
    assert_eq!(device.stats().purgeable, pages(2));
    device.relieve().unwrap();
    assert!(!is_retained(&mut device, a, handle));
}

#[test]
fn a_purged_object_is_charged_and_has_a_handle_a_name_and_no_pages() {
    let (world, mut device) = device();
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let handle = create(&mut device, a, 3);
    let offset = device.map_offset(a, handle).unwrap().get();
    let fd = device.export(a, handle, WRITE).unwrap();
    let name = device.flink(a, handle).unwrap();
    let bobs = device.open_name(b, name).unwrap().0;
    // Whoever holds it may say so.
    device.advise(b, bobs, DontNeed).unwrap();
    world.events();
    short_of(&world, &device, 100);
    device.relieve().unwrap();
    assert_eq!(world.events(), [ObjectPurge, Free], "the driver first");
    assert_eq!(memory(&device, 1), (0, 1));
    assert_eq!(device.stats().memory, PageCount::ZERO);
    // For all of them at once.
    assert!(!is_retained(&mut device, a, handle));
    assert!(!is_retained(&mut device, b, bobs));
    assert_eq!(device.advise(b, bobs, DontNeed), Ok(false));
    let mapped = device.map(b, offset, 4096);
    assert_eq!(mapped, Err(Error::Purged));
    assert_eq!(
        device.map_fd(fd, identity(1), 0, 1, false),
        Err(Error::Purged)
    );
    assert_eq!(device.read(fd, 0, &mut [0]), Err(Error::Purged));
    assert_eq!(device.write(fd, 0, &[1]), Err(Error::Purged));
    assert_eq!(device.stats().mapped, PageCount::ZERO);
    assert_eq!(device.size(a, handle), Ok(pages(3)));
    assert_eq!(device.flink(b, bobs), Ok(name));
    assert_eq!(device.map_offset(b, bobs).map(|at| at.get()), Ok(offset));
    assert_eq!(device.import(b, fd).unwrap().1, pages(3));
    // It moves and ends as any other.
    device.close(a);
    device.close_object_fd(fd);
    assert_eq!(memory(&device, 2), (0, 1));
    device.close(b);
    assert_eq!(counts(&device), NOTHING);
    assert_eq!(device.stats().purges.objects, 0);
    assert_eq!(world.events().last(), Some(&ObjectFree), "no pages to free");
}

#[test]
fn a_users_limit_costs_only_its_own() {
    let mut limits = Limits::for_clients(pages(100));
    limits.uid = pages(20);
    let (_, mut device) = device_with(limits);
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let bobs = unneeded(&mut device, b, 20);
    let [first, second, third] = [5, 5, 5].map(|size| unneeded(&mut device, a, size));
    let needed = create(&mut device, a, 5);
    create(&mut device, a, 7);
    assert!(!is_retained(&mut device, a, first));
    assert!(!is_retained(&mut device, a, second), "five were not enough");
    assert_eq!(memory(&device, 1), (17, 5));
    // Where all of hers would not do, none goes.
    let more = device.create(a, 9 * PAGE_SIZE, CreateInfo::default());
    let refused = Error::Limit(LedgerError::Memory(Uid(1), pages(20)));
    assert_eq!(more, Err(refused));
    assert_eq!(device.advise(a, third, DontNeed), Ok(true));
    create(&mut device, a, 8);
    assert!(!is_retained(&mut device, a, third));
    assert!(is_retained(&mut device, a, needed));
    assert!(is_retained(&mut device, b, bobs));
}

#[test]
fn the_limit_on_all_costs_whoever_does_not_need_something_longest() {
    let (_, mut device) = device_with(Limits::for_clients(pages(40)));
    let opens = [1, 2, 3].map(|uid| open(&mut device, uid));
    let [a, b, c] = opens;
    let alices = unneeded(&mut device, a, 20);
    let bobs = unneeded(&mut device, b, 15);
    create(&mut device, b, 5);
    create(&mut device, c, 5);
    assert!(!is_retained(&mut device, a, alices));
    assert!(is_retained(&mut device, b, bobs));
    create(&mut device, c, 15);
    let more = device.create(a, PAGE_SIZE, CreateInfo::default());
    let refused = Error::Limit(LedgerError::Total(pages(40)));
    assert_eq!(more, Err(refused), "nothing is unneeded");
}

#[test]
fn a_charge_that_moves_takes_what_may_be_purged_along() {
    let mut limits = Limits::for_clients(pages(100));
    limits.uid = pages(10);
    let (_, mut device) = device_with(limits);
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let handle = unneeded(&mut device, a, 6);
    let name = device.flink(a, handle).unwrap();
    let bobs = device.open_name(b, name).unwrap().0;
    assert_eq!(purgeable(&device, a), (6, 6));
    device.close(a);
    assert_eq!(purgeable(&device, b), (6, 6));
    create(&mut device, b, 10);
    assert!(!is_retained(&mut device, b, bobs));
}

#[test]
fn nothing_is_purged_for_what_is_refused_anyway() {
    let mut limits = Limits::for_clients(pages(100));
    limits.uid = pages(10);
    limits.handles_per_open = 2;
    let (world, mut device) = device_with(limits);
    let [a, full] = [(); 2].map(|()| open(&mut device, 1));
    let handle = unneeded(&mut device, a, 8);
    create(&mut device, full, 1);
    create(&mut device, full, 1);
    world.events();
    assert!(
        device
            .create(full, 3 * PAGE_SIZE, CreateInfo::default())
            .is_err()
    );
    limits.objects_per_uid = 3;
    limits.handles_per_open = 9;
    device.set_limits(limits);
    assert!(
        device
            .create(a, 3 * PAGE_SIZE, CreateInfo::default())
            .is_err()
    );
    assert_eq!(world.events(), []);
    assert!(is_retained(&mut device, a, handle));
}

#[test]
fn a_machine_without_memory_costs_what_is_unneeded_and_then_the_request() {
    let (world, mut device) = device();
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let bobs = unneeded(&mut device, b, 3);
    let alices = unneeded(&mut device, a, 3);
    world.fail(Allocate, NotReady::OutOfMemory);
    world.events();
    let made = device.create(a, 3 * PAGE_SIZE, CreateInfo::default());
    assert_eq!(made, Err(Error::Unfinished), "it has helped nothing, yet");
    assert_eq!(world.events(), [Allocate, ObjectPurge, Free, Allocate]);
    assert!(
        device.advise(a, alices, DontNeed).unwrap(),
        "as much as is asked"
    );
    assert!(!device.advise(b, bobs, DontNeed).unwrap());
    let made = device.create(a, 3 * PAGE_SIZE, CreateInfo::default());
    assert_eq!(made, Err(Error::Unfinished));
    let made = device.create(a, 3 * PAGE_SIZE, CreateInfo::default());
    assert_eq!(made, Err(Error::OutOfMemory));
    assert_eq!(memory(&device, 1), (0, 1));
    // What nobody uses is given back first, and does.
    let kept = create_when(&world, &mut device, a, 2, None);
    device.advise(a, kept, DontNeed).unwrap();
    let made = create_when(&world, &mut device, a, 2, Some(2));
    assert!(is_retained(&mut device, a, kept));
    assert!(is_retained(&mut device, a, made));
    // And where all together would not do, nothing is taken.
    device.advise(a, kept, DontNeed).unwrap();
    world.0.borrow_mut().left = Some(900);
    world.fail(Allocate, NotReady::OutOfMemory);
    let made = device.create(a, 450 * PAGE_SIZE, CreateInfo::default());
    assert_eq!(made, Err(Error::Unfinished), "902 pages would");
    assert!(!is_retained(&mut device, a, kept));
    world.work();
    let kept = unneeded(&mut device, a, 2);
    world.fail(Allocate, NotReady::OutOfMemory);
    world.0.borrow_mut().left = Some(400);
    let made = device.create(a, 450 * PAGE_SIZE, CreateInfo::default());
    assert_eq!(made, Err(Error::OutOfMemory));
    assert!(is_retained(&mut device, a, kept));
}

/// A new object, where the source has memory (`None`), or once so many idle pages are given back.
fn create_when(
    world: &World,
    device: &mut TestDevice,
    open: OpenId,
    size: u64,
    idle: Option<u64>,
) -> Handle {
    if let Some(idle) = idle {
        world.fail(Allocate, NotReady::OutOfMemory);
        world.0.borrow_mut().idle = idle;
        let made = device.create(open, size * PAGE_SIZE, CreateInfo::default());
        assert_eq!(made, Err(Error::Unfinished));
        assert_eq!(world.0.borrow().idle, 0, "it was given back");
    }
    world.work();
    create(device, open, size)
}

#[test]
fn no_one_call_purges_everything() {
    let mut limits = Limits::for_clients(pages(10_000));
    limits.uid = pages(1000);
    let (world, mut device) = device_with(limits);
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    for _ in 0..1000 {
        unneeded(&mut device, a, 1);
    }
    let size = 900 * PAGE_SIZE;
    let mut calls = 1;
    while device.create(a, size, CreateInfo::default()) == Err(Error::Unfinished) {
        assert!(device.stats().purges.objects <= calls * 256);
        calls += 1;
    }
    assert_eq!(device.stats().purges.objects, 900);
    assert_eq!(calls, 4);
    short_of(&world, &device, 1000);
    assert_eq!(device.relieve(), Ok(()), "a hundred were left");
    assert_eq!(device.stats().purges.objects, 1000);
    world.0.borrow_mut().left = None;
    for _ in 0..300 {
        unneeded(&mut device, b, 1);
    }
    short_of(&world, &device, 1000);
    assert_eq!(device.relieve(), Err(Error::Unfinished));
    assert_eq!(device.stats().purges.objects, 1256);
    assert_eq!(device.relieve(), Ok(()));
    assert_eq!(device.stats().purges.objects, 1300);
}

#[test]
fn what_is_not_the_sources_is_advised_and_never_purged() {
    let (world, mut device) = device();
    let open = open(&mut device, 1);
    let private = device
        .create_private(open, set(9, pages(2)), Caching::Uncached)
        .unwrap();
    assert_eq!(device.advise(open, private, DontNeed), Ok(true));
    assert_eq!(device.stats().purgeable, PageCount::ZERO);
    short_of(&world, &device, 100);
    device.relieve().unwrap();
    assert!(is_retained(&mut device, open, private));
    let none = Handle::new(7).unwrap();
    assert_eq!(
        device.advise(open, none, DontNeed),
        Err(Error::NoSuchHandle(none))
    );
}

#[test]
fn a_user_that_leaves_too_much_unused_loses_only_its_own() {
    let mut limits = Limits::for_clients(pages(100));
    limits.uid = pages(20);
    let (world, mut device) = device_with(limits);
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let bobs = unneeded(&mut device, b, 3);
    let alices = unneeded(&mut device, a, 8);
    assert_eq!(world.0.borrow().room, pages(20 + 5), "and a quarter");
    world.fail(Allocate, NotReady::Scattered);
    for expected in [Error::Unfinished, Error::Scattered] {
        let made = device.create(a, 3 * PAGE_SIZE, CreateInfo::default());
        assert_eq!(made, Err(expected));
    }
    assert!(!is_retained(&mut device, a, alices));
    assert!(is_retained(&mut device, b, bobs));
    world.work();
    create(&mut device, b, 10);
    assert_eq!(world.0.borrow().room, pages(17 + 5));
}
