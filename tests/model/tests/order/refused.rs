//! What is refused, and what can be done only once or by one.

use super::*;

#[test]
fn a_registration_that_cannot_be_finished_is_refused_before_it_begins() {
    let able = |most, read_only, coherent| UserPages {
        most: pages(most),
        read_only,
        coherent,
    };
    for (able, error) in [
        (able(SPACE_PAGES, true, false), Error::Incoherent),
        (
            able(PAGES - 1, true, true),
            Error::BeyondGpu(pages(PAGES - 1)),
        ),
        (able(SPACE_PAGES, false, true), Error::NoReadOnly),
    ] {
        let (world, mut device, open) = empty();
        world.0.borrow_mut().able = Some(able);
        let refused = device.begin_userptr(open, PID, claim(true));
        assert_eq!(refused.err(), Some(error));
        assert_eq!(device.stats().user_ranges, 0);
    }
    for mood in [Mood::HandleFails, Mood::InitFails] {
        let (world, mut device, open) = empty();
        world.0.borrow_mut().mood = mood;
        let refused = device.begin_userptr(open, PID, claim(true));
        assert_eq!(refused.err(), Some(Error::OutOfMemory));
        assert_eq!(world.0.borrow().objects.len(), 0);
        assert_eq!(device.stats().user_ranges, 0);
        assert_eq!(device.stats().objects, 0);
    }
    let (_, mut device, open) = empty();
    let mut limits = *device.limits();
    limits.offsets_per_uid = 0;
    device.set_limits(limits);
    assert!(device.begin_userptr(open, PID, claim(true)).is_err());
    assert_eq!(device.stats().user_ranges, 0);
    assert_eq!(device.open_stats(open).unwrap().handles, 0);
}

#[test]
fn nobody_but_the_registrar_maps_or_binds_and_nobody_exports() {
    let mut held = held();
    let (device, open, handle) = (&mut held.device, held.open, held.handle);
    let name = device.flink(open, handle).unwrap();
    let stranger = new_open(device, OTHER_PID, Uid(2));
    let (theirs, size) = device.open_name(stranger, name).unwrap();
    assert_eq!(size, pages(PAGES));
    let at = place(0, 8);
    let bound = device.vm_bind(stranger, OTHER_PID, theirs, at, None);
    assert_eq!(bound, Err(Error::NotOwner));
    assert_eq!(device.map_offset(stranger, theirs), Err(Error::NotMappable));
    let mapped = device.map_userptr(stranger, OTHER_PID, held.offset, BYTES);
    assert_eq!(mapped, Err(Error::NotMappable));
    let mapped = device.map(stranger, held.offset, BYTES);
    assert_eq!(mapped, Err(Error::NotMappable));
    let rights = Rights { write: false };
    assert_eq!(
        device.export(open, handle, rights),
        Err(Error::NotExportable)
    );
    let exported = device.export_name(stranger, name, rights);
    assert_eq!(exported, Err(Error::NotExportable));
    // A stranger's unmapping is none, and a stranger's handle keeps no pages.
    device.unmap(stranger, held.offset, BYTES);
    assert_eq!(held.world.0.borrow().deeds, []);
    device.close_handle(open, handle).unwrap();
    given_back(&held.world);
    device.unmap(open, held.offset, BYTES);
    let stats = device.stats();
    assert_eq!((stats.objects, stats.user_ranges), (1, 0));
    device.close_handle(stranger, theirs).unwrap();
    assert_eq!(device.stats().objects, 0);
}

#[test]
fn only_the_whole_range_is_mapped_again_and_once() {
    let (world, mut device, open) = empty();
    let acquisition = device.begin_userptr(open, PID, claim(false)).unwrap();
    take(&world, &mut device, acquisition);
    let (handle, offset) = device.claim_userptr(open, PID, claim(false)).unwrap();
    let offset = offset.get();
    assert_eq!(
        device.map_offset(open, handle).map(|at| at.get()),
        Ok(offset)
    );
    for (at, size) in [
        (offset, BYTES - PAGE_SIZE),
        (offset, BYTES + 1),
        (offset, 0),
    ] {
        let mapped = device.map_userptr(open, PID, at, size);
        assert_eq!(mapped, Err(Error::Range { offset: at, size }));
    }
    let inside = offset + PAGE_SIZE;
    let mapped = device.map_userptr(open, PID, inside, BYTES);
    assert_eq!(mapped, Err(Error::NoSuchOffset(inside)));
    let mapped = device.map_userptr(open, OTHER_PID, offset, BYTES);
    assert_eq!(mapped, Err(Error::NotMappable));
    world.0.borrow_mut().mood = Mood::Waits;
    let mapped = device.map_userptr(open, PID, offset, BYTES);
    assert!(matches!(mapped, Err(Error::NotReady(_))));
    assert_eq!(device.stats().mapped, pages(0));
    world.0.borrow_mut().mood = Mood::Fine;
    device.map_userptr(open, PID, offset, BYTES).unwrap();
    let twice = device.map_userptr(open, PID, offset, BYTES);
    assert_eq!(twice, Err(Error::NotMappable));
    assert_eq!(device.map_offset(open, handle), Err(Error::NotMappable));
}

#[test]
fn read_only_pages_are_bound_read_only_or_not_at_all() {
    let (world, mut device, open) = empty();
    let (handle, _) = hold(&world, &mut device, open, true);
    device
        .vm_bind(open, PID, handle, place(0, 0), None)
        .unwrap();
    let insert = Deed::Insert(SpaceId(0), 0, Access::ReadOnly);
    assert_eq!(world.0.borrow().deeds, [insert, Deed::Flush(SpaceId(0))]);
    world.0.borrow_mut().no_read_only = true;
    let bound = device.vm_bind(open, PID, handle, place(1, 0), None);
    assert_eq!(bound, Err(Error::NoReadOnly));
    let (own, _) = device.create(open, 1, CreateInfo::default()).unwrap();
    device.vm_bind(open, PID, own, place(1, 0), None).unwrap();
}

#[test]
fn a_place_is_free_inside_the_space_and_given_back_by_who_bound_it() {
    let mut held = held();
    let (device, open, handle) = (&mut held.device, held.open, held.handle);
    let stranger = new_open(device, OTHER_PID, Uid(2));
    let (own, _) = device.create(stranger, 1, CreateInfo::default()).unwrap();
    let mut bind = |place| device.vm_bind(stranger, OTHER_PID, own, place, None);
    assert_eq!(bind(place(0, 3)), Err(Error::InUse));
    assert_eq!(bind(place(2, 0)), Err(Error::NoSuchPlace));
    let beyond = Err(Error::BeyondGpu(pages(SPACE_PAGES)));
    assert_eq!(bind(place(0, SPACE_PAGES)), beyond);
    assert_eq!(bind(place(0, PageCount::MAX.get())), beyond);
    held.world.0.borrow_mut().mood = Mood::InsertFails;
    assert_eq!(bind(place(0, 4)), Err(Error::OutOfMemory));
    held.world.0.borrow_mut().mood = Mood::Fine;
    bind(place(0, 4)).unwrap();
    let unbound = device.vm_unbind(stranger, own, place(0, 32));
    assert_eq!(unbound, Err(Error::NoSuchPlace), "not bound there");
    held.world.0.borrow_mut().deeds.clear();
    device.vm_unbind(open, handle, place(0, 32)).unwrap();
    device.close_handle(stranger, own).unwrap();
    let space = SpaceId(0);
    let deeds = [
        Deed::Clear(space, 32 * PAGE_SIZE),
        Deed::Flush(space),
        Deed::Clear(space, 4 * PAGE_SIZE),
        Deed::Flush(space),
    ];
    assert_eq!(held.world.0.borrow().deeds, deeds);
    assert_eq!(device.stats().bindings, 2);
}
