//! Who pays, and for how long.

use super::*;
use crate::object::Advice;

/// Pages and objects charged to a user.
fn charged(device: &TestDevice, uid: u32) -> (u64, u32) {
    let account = device.accounts().find(|account| account.uid == Uid(uid));
    account.map_or((0, 0), |account| (account.memory.get(), account.objects))
}

#[test]
fn when_the_payer_lets_go_the_oldest_other_holder_pays() {
    let (_, mut device) = device();
    let [a, b, c] = [1, 2, 3].map(|uid| open(&mut device, uid));
    let handle = create(&mut device, a, 5);
    let name = device.flink(a, handle).unwrap();
    let bobs = device.open_name(b, name).unwrap().0;
    let carols = device.open_name(c, name).unwrap().0;
    let again = open(&mut device, 1);
    let alices = device.open_name(again, name).unwrap().0;
    device.close_handle(a, handle).unwrap();
    assert_eq!(charged(&device, 1), (5, 1), "another open of hers holds it");
    device.close_handle(again, alices).unwrap();
    assert_eq!(charged(&device, 1), (0, 0));
    assert_eq!(charged(&device, 2), (5, 1));
    // Who comes back is the youngest.
    device.open_name(a, name).unwrap();
    device.close_handle(b, bobs).unwrap();
    assert_eq!(charged(&device, 3), (5, 1));
    device.close_handle(c, carols).unwrap();
    assert_eq!(charged(&device, 1), (5, 1));
    device.close(a);
    assert_eq!(device.stats().memory, PageCount::ZERO);
    assert!(device.accounts().all(|account| account.objects == 0));
}

#[test]
fn an_object_fd_and_a_mapping_hold_as_a_handle_does() {
    let (_, mut device) = device();
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let handle = create(&mut device, a, 4);
    let name = device.flink(a, handle).unwrap();
    let offset = device.map_offset(a, handle).unwrap().get();
    let bobs = device.open_name(b, name).unwrap().0;
    let fd = device.export(a, handle, Rights { write: true }).unwrap();
    device.map(a, offset, 4096).unwrap();
    device.close_handle(a, handle).unwrap();
    assert_eq!(charged(&device, 1), (4, 1));
    device.close_object_fd(fd);
    assert_eq!(charged(&device, 1), (4, 1), "she maps it still");
    device.unmap(a, offset, 4096);
    assert_eq!(charged(&device, 2), (4, 1));
    device.close_handle(b, bobs).unwrap();
    assert_eq!(device.stats().objects, 0);
}

#[test]
fn a_charge_moves_even_beyond_the_limit_and_stops_only_what_is_new() {
    let mut limits = Limits::for_clients(pages(100));
    limits.uid = pages(10);
    let (_, mut device) = device_with(limits);
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let own = create(&mut device, b, 8);
    let handle = create(&mut device, a, 8);
    let name = device.flink(a, handle).unwrap();
    device.open_name(b, name).unwrap();
    device.close_handle(a, handle).unwrap();
    assert_eq!(charged(&device, 2), (16, 2));
    let more = device.create(b, 4096, CreateInfo::default());
    let refused = Error::Limit(LedgerError::Memory(Uid(2), pages(10)));
    assert_eq!(more, Err(refused));
    assert!(device.open_name(b, name).is_ok(), "holding costs nothing");
    device.close_handle(b, own).unwrap();
    create(&mut device, b, 2);
    assert_eq!(charged(&device, 2), (10, 2));
}

#[test]
fn nobody_pays_for_what_it_never_held() {
    let (world, mut device) = device();
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    let handle = create(&mut device, a, 8);
    let name = device.flink(a, handle).unwrap();
    // Bob's handle fails at the last moment.
    world.fail(HandleOpen, NotReady::OutOfMemory);
    assert_eq!(device.open_name(b, name), Err(Error::OutOfMemory));
    world.work();
    device.close(a);
    assert_eq!(charged(&device, 2), (0, 0));
    assert_eq!(device.stats().objects, 0);
}

#[test]
fn an_object_costs_the_server_no_more_than_200_bytes() {
    // Eight of them are its slot's.
    assert!(size_of::<Object>() <= 192, "{}", size_of::<Object>());
}

#[test]
fn a_revoked_open_has_nothing_but_what_it_maps() {
    let (_, mut device) = device();
    let [a, b] = [1, 2].map(|uid| open(&mut device, uid));
    device.set_master(a).unwrap();
    let magic = device.magic(a).unwrap();
    let [mapped, shared, gone] = [2, 3, 4].map(|size| create(&mut device, a, size));
    let offset = device.map_offset(a, mapped).unwrap().get();
    device.map(a, offset, 8192).unwrap();
    let name = device.flink(a, shared).unwrap();
    device.open_name(b, name).unwrap();
    let lost = device.flink(a, gone).unwrap();
    let fd = device.export(a, mapped, Rights { write: true }).unwrap();
    device.revoke(a).unwrap();
    assert!(device.is_revoked(a) && !device.has_master() && !device.is_authenticated(a));
    assert_eq!(device.open_name(b, lost), Err(Error::NoSuchName(lost)));
    assert_eq!(device.authenticate(magic), Err(Error::NoSuchMagic));
    assert_eq!(charged(&device, 1), (2, 1), "what is mapped is charged");
    assert_eq!(charged(&device, 2), (3, 1), "what others hold is theirs");
    let new = device.create(a, 4096, CreateInfo::default());
    assert_eq!(new, Err(Error::Revoked));
    assert_eq!(device.open_name(a, name), Err(Error::Revoked));
    assert_eq!(device.import(a, fd), Err(Error::Revoked));
    assert_eq!(device.magic(a), Err(Error::Revoked));
    assert_eq!(device.set_master(a), Err(Error::Revoked));
    let rights = Rights { write: false };
    assert_eq!(device.export_name(a, name, rights), Err(Error::Revoked));
    let again = device.map(a, offset, 4096);
    assert_eq!(again, Err(Error::NotAllowed));
    assert!(device.object_fd(fd).is_ok(), "fds are whose they are now");
    device.revoke(a).unwrap();
    device.close_object_fd(fd);
    device.unmap(a, offset, 8192);
    assert_eq!(charged(&device, 1), (0, 0));
    device.close(a);
    assert_eq!(device.revoke(a), Err(Error::NoSuchOpen));
}

#[test]
fn lower_limits_take_nothing_away() {
    let (_, mut device) = device();
    let a = open(&mut device, 1);
    let handles = [5, 5].map(|size| create(&mut device, a, size));
    let rights = Rights { write: true };
    device.export(a, handles[0], rights).unwrap();
    let mut limits = *device.limits();
    limits.uid = pages(1);
    limits.handles_per_open = 1;
    limits.objects_per_uid = 1;
    limits.object_fds_per_uid = 1;
    limits.names_per_uid = 1;
    limits.offsets_per_uid = 1;
    limits.mapped_objects_per_uid = 1;
    limits.object = PageCount::MAX;
    device.set_limits(limits);
    assert_eq!(device.limits().object.get(), MAX_OBJECT_PAGES);
    assert_eq!(charged(&device, 1), (10, 2));
    let is_refused = |error| matches!(error, Some(Error::Limit(_)));
    let new = device.create(a, 4096, CreateInfo::default());
    assert!(is_refused(new.err()));
    let second = device.export(a, handles[1], rights);
    assert!(is_refused(second.err()));
    device.flink(a, handles[0]).unwrap();
    assert!(is_refused(device.flink(a, handles[1]).err()));
    let [first, second] = handles.map(|handle| device.map_offset(a, handle));
    assert!(is_refused(second.err()));
    let first = first.unwrap().get();
    device.map(a, first, 4096).unwrap();
    let more = device.map(a, first, 4096);
    assert!(more.is_ok(), "the same object is none more");
    limits.offsets_per_uid = 2;
    device.set_limits(limits);
    let second = device.map_offset(a, handles[1]).unwrap().get();
    let refused = device.map(a, second, 4096);
    assert!(is_refused(refused.err()));
}

#[test]
fn objects_without_pages_are_no_more_than_the_pages_that_a_user_may_have() {
    let (world, mut device) = device_with(Limits::for_clients(pages(40_000)));
    // The machine has nothing left, so that what is not needed is purged by whatever is made next.
    world.0.borrow_mut().left = Some(0);
    let alice = open(&mut device, 1);
    let refused = (0..1 << 17).find_map(|_| {
        let made = device.create(alice, PAGE_SIZE, CreateInfo::default());
        let advise = |(handle, _)| device.advise(alice, handle, Advice::DontNeed);
        made.and_then(advise).err()
    });
    let limit = LedgerError::Count(Uid(1), Counted::Objects, 20_000);
    assert_eq!(refused, Some(limit.into()));
    assert_eq!(device.stats().objects, 20_000);
    assert!(device.stats().purges.objects > 0);
}

#[test]
fn what_the_server_keeps_of_a_user_is_a_small_part_of_what_the_user_may_have() {
    for mebibytes in [256, 1024, 8192, 1 << 20] {
        let limits = Limits::for_memory(pages(mebibytes * 256));
        // With what each costs in tables, by name, by offset, by object and open.
        let object = size_of::<Object>() + 128;
        let bytes = limits.objects_per_uid as usize * object
            + limits.handles_per_uid as usize * 72
            + limits.mapped_objects_per_uid as usize * 32
            + limits.object_fds_per_uid as usize * 192;
        let most = limits.uid.bytes() / 5;
        assert!(bytes as u64 <= most, "{mebibytes} MiB: {bytes} of {most}");
    }
}

#[test]
fn whoever_maps_through_an_object_fd_pays_for_it() {
    let mut limits = Limits::for_clients(pages(100));
    limits.mapped_per_uid = pages(4);
    let (world, mut device) = device_with(limits);
    let a = open(&mut device, 1);
    let handle = create(&mut device, a, 2);
    let offset = device.map_offset(a, handle).unwrap().get();
    let fd = device.export(a, handle, WRITE).unwrap();
    let by = |uid| Identity {
        pid: Pid(uid),
        ..identity(uid as u32)
    };
    let size = 2 * PAGE_SIZE;
    let mapped = |device: &TestDevice, uid: u32| {
        let account = device.accounts().find(|account| account.uid == Uid(uid));
        account.map(|account| account.mapped.get())
    };
    // Bob, who has nothing else here, maps until he may no more; that is nothing to Alice.
    for _ in 0..2 {
        device.map_fd(fd, by(2), 0, size, true).unwrap();
    }
    let more = device.map_fd(fd, by(2), 0, size, true);
    assert!(matches!(more, Err(Error::Limit(_))), "{more:?}");
    assert_eq!((mapped(&device, 1), mapped(&device, 2)), (Some(0), Some(4)));
    device.map(a, offset, size).unwrap();
    device.map_fd(fd, by(1), 0, size, false).unwrap();
    // Who is refused or fails has no account for it.
    limits.mapped_per_uid = pages(1);
    device.set_limits(limits);
    assert!(device.map_fd(fd, by(3), 0, size, true).is_err());
    world.fail(Window, NotReady::OutOfMemory);
    assert!(device.map_fd(fd, by(3), 0, PAGE_SIZE, true).is_err());
    world.work();
    assert_eq!(mapped(&device, 3), None);
    // Bob's end at the hands of somebody unknown.
    device.unmap_fd(fd, size, Pid(2));
    device.unmap_fd(fd, PAGE_SIZE, Pid(99));
    assert_eq!(device.stats().mapped, pages(5));
    device.close_object_fd(fd);
    assert_eq!((mapped(&device, 1), mapped(&device, 2)), (Some(2), None));
}
