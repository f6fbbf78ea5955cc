//! Mapping and unmapping, and what is counted of it.

use super::*;

/// Two users' opens with an object of four pages between them; the first one's handle, and where
/// it is mapped.
fn shared(device: &mut TestDevice) -> (OpenId, OpenId, Handle, u64) {
    let [a, b] = [1, 2].map(|uid| open(device, uid));
    let handle = create(device, a, 4);
    let name = device.flink(a, handle).unwrap();
    device.open_name(b, name).unwrap();
    let offset = device.map_offset(a, handle).unwrap().get();
    (a, b, handle, offset)
}

#[test]
fn mapped_pages_are_checked_before_the_page_source_is_asked() {
    let mut limits = Limits::for_clients(pages(1000));
    limits.mapped_per_uid = pages(5);
    let (world, mut device) = device_with(limits);
    let open = open(&mut device, 1);
    let handle = create(&mut device, open, 4);
    let offset = device.map_offset(open, handle).unwrap().get();
    device.map(open, offset, 4 * PAGE_SIZE).unwrap();
    world.events();
    let more = device.map(open, offset, 2 * PAGE_SIZE);
    assert!(matches!(more, Err(Error::Limit(_))));
    assert_eq!(world.events(), []);
    assert!(device.map(open, offset, PAGE_SIZE).is_ok());
}

#[test]
fn what_an_open_no_longer_maps_takes_no_room() {
    let (_, mut device) = device_with(Limits::for_clients(pages(100_000)));
    let open = open(&mut device, 1);
    let map = |device: &mut TestDevice| {
        let handle = create(device, open, 1);
        let offset = device.map_offset(open, handle).unwrap().get();
        device.map(open, offset, 1).unwrap();
        offset
    };
    let offsets: Vec<_> = (0..5000).map(|_| map(&mut device)).collect();
    for offset in &offsets[2..] {
        device.unmap(open, *offset, 1);
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
    let waits = Err(Error::NotReady(Ticket(3)));
    assert_eq!(device.map(open, offset, PAGE_SIZE), waits);
    for user in [1, 2] {
        let mapped = device.map_fd(fd, identity(user), 0, PAGE_SIZE, true);
        assert_eq!(mapped, waits);
    }
    assert_eq!(device.accounts().count(), 1);
    assert_eq!(device.stats().mapped, PageCount::ZERO);
    let account = device.open_stats(open).unwrap().account.unwrap();
    assert_eq!(account.mapped, PageCount::ZERO);
}

#[test]
fn a_mapping_through_a_node_begins_where_the_object_does() {
    let (_, mut device) = device();
    let (a, b) = (open(&mut device, 1), open(&mut device, 2));
    let handle = create(&mut device, a, 4);
    let offset = device.map_offset(a, handle).unwrap().get();
    let map =
        |device: &mut TestDevice, open, offset, size| device.map(open, offset, size).map(drop);
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
    device.map(open, offset, 4 * PAGE_SIZE).unwrap();
    device.close_handle(open, handle).unwrap();
    let again = device.map(open, offset, PAGE_SIZE);
    assert_eq!(again, Err(Error::NotAllowed), "a handle is what allows it");
    world.events();
    device.unmap(open, offset + PAGE_SIZE, 2 * PAGE_SIZE);
    assert_eq!(device.stats().mapped, pages(2));
    assert_eq!(device.stats().offsets, 1);
    device.unmap(open, offset, PAGE_SIZE);
    assert_eq!(world.events(), []);
    device.unmap(open, offset + 3 * PAGE_SIZE, PAGE_SIZE);
    assert_eq!(world.events(), [ObjectFree, Free]);
    assert_eq!(counts(&device), NOTHING);
}

#[test]
fn what_an_open_has_mapped_it_maps_again_in_any_part() {
    let (_, mut device) = device();
    let (a, b, handle, offset) = shared(&mut device);
    let inside = offset + 3 * PAGE_SIZE;
    assert_eq!(device.map_again(a, offset, 1), Err(Error::NotAllowed));
    device.map(a, offset, 2 * PAGE_SIZE).unwrap();
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
    device.unmap(a, offset, 7 * PAGE_SIZE);
    assert_eq!(device.map_again(a, offset, 1), Err(Error::NotAllowed));
    device.map(b, offset, 1).unwrap();
    device.revoke(b).unwrap();
    assert_eq!(device.map_again(b, offset, 1), Err(Error::Revoked));
}

#[test]
fn unmapping_never_uncounts_what_others_have_mapped() {
    let (_, mut device) = device();
    let (a, b, handle, offset) = shared(&mut device);
    let fd = device.export(a, handle, WRITE).unwrap();
    device.map(a, offset, PAGE_SIZE).unwrap();
    for (open, at) in [
        (b, offset),
        (a, 0),
        (a, offset + 1),
        (a, offset + 4 * PAGE_SIZE),
        (a, u64::MAX),
    ] {
        for size in [PAGE_SIZE, u64::MAX] {
            device.unmap(open, at, size);
            device.unmap_fd(fd, size, Pid(1));
            assert_eq!(device.stats().mapped, pages(1), "{open:?} {at:#x}");
        }
    }
    device.unmap(a, offset, 1 << 60);
    assert_eq!(device.stats().mapped, PageCount::ZERO);
}
