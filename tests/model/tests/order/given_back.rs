//! Every way in which pages go back.

use super::*;

#[test]
fn unmapping_all_or_a_part_gives_all_pages_back() {
    for (skip, count) in [(0, PAGES), (0, 1), (PAGES - 1, 1), (1, 2)] {
        let mut held = held();
        let at = held.offset + skip * PAGE_SIZE;
        held.device.unmap(held.open, at, count * PAGE_SIZE);
        given_back(&held.world);
        let stats = held.device.stats();
        let left = PAGES - count;
        assert_eq!(stats.mapped, pages(left));
        assert_eq!(stats.user_pages, pages(if left > 0 { PAGES } else { 0 }));
        // What is left is the client's own business.
        held.device.unmap(held.open, held.offset, BYTES);
        given_back(&held.world);
        let stats = held.device.stats();
        assert_eq!((stats.user_pages, stats.user_ranges), (pages(0), 0));
        assert_eq!(
            (stats.objects, stats.handles),
            (1, 1),
            "an object without pages"
        );
    }
}

#[test]
fn a_range_counts_as_resident_while_its_pages_are_there() {
    let (world, mut device, open) = empty();
    let counts = |device: &TestDevice| {
        let usage = device.open_stats(open).unwrap().usage;
        (usage.total.get(), usage.resident.get())
    };
    device
        .create(open, PAGE_SIZE, CreateInfo::default())
        .unwrap();
    let acquisition = device.begin_userptr(open, PID, claim(false)).unwrap();
    assert_eq!(counts(&device), (1 + PAGES, 1));
    take(&world, &mut device, acquisition);
    assert_eq!(counts(&device), (1 + PAGES, 1 + PAGES));
    let (handle, offset) = device.claim_userptr(open, PID, claim(false)).unwrap();
    device.map_userptr(open, PID, offset.get(), BYTES).unwrap();
    device.unmap(open, offset.get(), BYTES);
    assert_eq!(counts(&device), (1 + PAGES, 1), "the client has them back");
    device.close_handle(open, handle).unwrap();
    assert_eq!(counts(&device), (1, 1));
}

#[test]
fn the_client_is_told_who_took_its_pages() {
    let mut held = held();
    let (at, by) = (held.offset + PAGE_SIZE, Some(OTHER_PID));
    held.device.unmap_by(held.open, at, PAGE_SIZE, by);
    held.device.unmap_by(held.open, held.offset, BYTES, by);
    let handle = held.handle;
    let told = held.device.next_event(held.open);
    assert_eq!(told, Ok(Some(Event::Revoked { handle, by })));
    assert_eq!(held.device.next_event(held.open), Ok(None), "once");
    // Who closes the handle knows.
    let mut held = self::held();
    held.device.close_handle(held.open, held.handle).unwrap();
    held.device.unmap_by(held.open, held.offset, BYTES, by);
    assert_eq!(held.device.next_event(held.open), Ok(None));
}

#[test]
fn a_child_has_held_pages_as_well_and_lets_go_of_them_alone() {
    let mut held = held();
    let open = held.open;
    let child = Some(OTHER_PID);
    held.device.map_again(open, held.offset, BYTES).unwrap();
    let inside = held.offset + PAGE_SIZE;
    held.device.unmap_by(open, inside, PAGE_SIZE, child);
    held.device
        .unmap_by(open, held.offset, BYTES - PAGE_SIZE, child);
    assert_eq!(held.world.0.borrow().deeds, [], "the parent has them all");
    assert_eq!(held.device.stats().mapped, pages(PAGES));
    // By whomever: now it cannot have them all.
    held.device.unmap_by(open, inside, PAGE_SIZE, child);
    given_back(&held.world);
    let mapped = held.device.map_again(open, held.offset, PAGE_SIZE);
    assert_eq!(mapped, Err(Error::NotMappable), "nothing of ours");

    let mut held = self::held();
    held.device.map_again(open, held.offset, BYTES).unwrap();
    held.device
        .unmap_by(open, held.offset, PAGE_SIZE, Some(PID));
    given_back(&held.world);
    assert_eq!(held.device.stats().user_pages, pages(PAGES));
    held.device.unmap_by(open, held.offset, BYTES, Some(PID));
    held.device.unmap_by(open, held.offset, BYTES, child);
    assert_eq!(held.device.stats().user_pages, pages(0));
}

#[test]
fn mapping_something_over_it_gives_all_pages_back() {
    let mut held = held();
    let info = CreateInfo::default();
    let (other, _) = held.device.create(held.open, 1, info).unwrap();
    let offset = held.device.map_offset(held.open, other).unwrap().get();
    // The kernel asks for the new mapping first, and tells of the old one then.
    held.device.map(held.open, offset, 1).unwrap();
    assert_eq!(held.world.0.borrow().deeds, []);
    held.device
        .unmap(held.open, held.offset + PAGE_SIZE, PAGE_SIZE);
    given_back(&held.world);
}

#[test]
fn the_end_of_the_process_gives_all_pages_back() {
    let mut unmapped_first = held();
    unmapped_first
        .device
        .unmap(unmapped_first.open, unmapped_first.offset, BYTES);
    given_back(&unmapped_first.world);
    unmapped_first.device.close(unmapped_first.open);
    let mut closed = held();
    closed.device.close(closed.open);
    for held in [unmapped_first, closed] {
        given_back(&held.world);
        let stats = held.device.stats();
        assert_eq!((stats.objects, stats.mapped), (0, pages(0)));
        assert_eq!((stats.user_ranges, stats.offsets), (0, 0));
        assert_eq!(held.device.accounts().count(), 0);
    }
}

#[test]
fn closing_the_handle_gives_all_pages_back_and_leaves_the_mapping_charged() {
    let mut held = held();
    held.device.close_handle(held.open, held.handle).unwrap();
    given_back(&held.world);
    let stats = held.device.stats();
    assert_eq!((stats.objects, stats.handles), (1, 0));
    assert_eq!((stats.user_pages, stats.user_ranges), (pages(PAGES), 1));
    held.device.unmap(held.open, held.offset, BYTES - PAGE_SIZE);
    assert_eq!(held.device.stats().user_ranges, 1);
    let last = held.offset + BYTES - PAGE_SIZE;
    held.device.unmap(held.open, last, PAGE_SIZE);
    let stats = held.device.stats();
    assert_eq!((stats.objects, stats.user_ranges), (0, 0));
    assert_eq!(stats.offsets, 0);
    given_back(&held.world);
}

#[test]
fn root_and_the_end_of_the_daemon_give_all_pages_back() {
    let mut held = held();
    held.device.revoke(held.open).unwrap();
    given_back(&held.world);
    assert_eq!(held.device.stats().user_pages, pages(PAGES), "still mapped");
    held.device.close(held.open);
    assert_eq!(held.device.stats().user_pages, pages(0));

    let held = self::held();
    held.device.tear_down();
    given_back(&held.world);
}

#[test]
fn pages_that_are_taken_again_are_others_and_late_work_sees_that() {
    let mut held = held();
    let (open, handle) = (held.open, held.handle);
    let start = UserAddr::new(START + BYTES);
    let begun = held.device.sequence(open, handle).unwrap();
    assert!(begun.is_some());
    let again = held.device.begin_userptr_again(open, PID, handle, start);
    assert_eq!(again.err(), Some(Error::InUse), "there are pages");
    held.device.unmap(open, held.offset, PAGE_SIZE);
    let bound = held.device.vm_bind(open, PID, handle, place(0, 0), None);
    assert_eq!(bound, Err(Error::NotHeld));
    let again = held.device.begin_userptr_again(open, PID, handle, start);
    assert_eq!(
        again.err(),
        Some(Error::InUse),
        "three pages are mapped yet"
    );
    held.device.unmap(open, held.offset, BYTES);
    assert_eq!(
        held.device.map_offset(open, handle),
        Err(Error::NotMappable)
    );

    let again = held.device.begin_userptr_again(open, PID, handle, start);
    let (acquisition, range) = again.unwrap();
    assert_eq!((range.start(), range.pages()), (start, pages(PAGES)));
    let twice = held.device.begin_userptr_again(open, PID, handle, start);
    assert_eq!(twice.err(), Some(Error::InUse));
    take(&held.world, &mut held.device, acquisition);
    let bound = held.device.vm_bind(open, PID, handle, place(0, 0), None);
    assert_eq!(bound, Err(Error::NotHeld), "not mapped yet");
    let offset = held.device.map_offset(open, handle).unwrap().get();
    held.device.map_userptr(open, PID, offset, BYTES).unwrap();
    given_back(&held.world);

    let late = held.device.vm_bind(open, PID, handle, place(0, 0), begun);
    assert_eq!(late, Err(Error::NotHeld));
    let now = held.device.sequence(open, handle).unwrap();
    held.device
        .vm_bind(open, PID, handle, place(0, 0), now)
        .unwrap();
    let world = held.world.0.borrow();
    let found: Vec<u64> = world.gpu[0].values().map(|(frame, _)| *frame).collect();
    let expected: Vec<u64> = (0..PAGES).map(|page| frame(2, page)).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_acquisition_that_nobody_waits_for_is_charged_until_it_is_undone() {
    let (world, mut device, open) = empty();
    let acquisition = device.begin_userptr(open, PID, claim(false)).unwrap();
    let same = device.begin_userptr(open, PID, claim(false));
    assert_eq!(same.err(), Some(Error::InUse));
    device.forget_userptr(acquisition);
    assert!(!device.is_userptr_wanted(acquisition));
    let stats = device.stats();
    assert_eq!((stats.user_pages, stats.objects), (pages(PAGES), 1));
    assert_eq!(world.0.borrow().handles, 0, "nobody has seen it");
    assert_eq!(
        device.claim_userptr(open, PID, claim(false)),
        Err(Error::NothingTaken)
    );
    device.fail_userptr(acquisition);
    let stats = device.stats();
    assert_eq!(
        (stats.user_pages, stats.objects, stats.offsets),
        (pages(0), 0, 0)
    );
    // Its client is gone meanwhile, and the platform still has done it.
    let acquisition = device.begin_userptr(open, PID, claim(false)).unwrap();
    device.close(open);
    assert!(!device.is_userptr_wanted(acquisition));
    assert_eq!(device.stats().user_ranges, 1);
    let set = world.0.borrow_mut().take(ALICE, pages(PAGES));
    device.take_userptr(acquisition, set);
    assert_eq!(device.stats().objects, 0);
    assert_eq!(device.accounts().count(), 0);
    assert!(world.0.borrow().user_sets.is_empty());
    assert_eq!(world.0.borrow().objects.len(), 0);
}

#[test]
fn what_was_taken_and_not_claimed_goes_with_its_open() {
    for revoked in [false, true] {
        let (world, mut device, open) = empty();
        let acquisition = device.begin_userptr(open, PID, claim(true)).unwrap();
        take(&world, &mut device, acquisition);
        for (pid, wrong) in [(OTHER_PID, claim(true)), (PID, claim(false))] {
            let refused = device.claim_userptr(open, pid, wrong);
            assert_eq!(refused, Err(Error::NothingTaken));
        }
        assert_eq!(device.stats().handles, 0);
        if revoked {
            device.revoke(open).unwrap();
        } else {
            device.close(open);
        }
        assert_eq!(world.0.borrow().deeds, [Deed::Release(1)]);
        assert_eq!(device.stats().objects, 0);
        assert_eq!(device.stats().user_ranges, 0);
        assert_eq!(world.0.borrow().handles, 0);
    }
}

#[test]
fn ten_thousand_ranges_come_and_go_in_any_order() {
    let (world, mut device, open) = empty();
    let mut limits = *device.limits();
    limits.user_pages_per_uid = pages(10_000);
    device.set_limits(limits);
    let mut all = Vec::new();
    for number in 0..10_000 {
        let start = UserAddr::new(number * PAGE_SIZE);
        let range = UserRange::new(start, pages(1)).unwrap();
        let claim = Claim {
            range,
            read_only: false,
        };
        let acquisition = device.begin_userptr(open, PID, claim).unwrap();
        let set = world.0.borrow_mut().take(ALICE, pages(1));
        device.take_userptr(acquisition, set);
        let (_, offset) = device.claim_userptr(open, PID, claim).unwrap();
        device
            .map_userptr(open, PID, offset.get(), PAGE_SIZE)
            .unwrap();
        all.push(offset.get());
    }
    assert_eq!(device.stats().user_ranges, 10_000);
    for place in 0..10_000 {
        let offset = all[place * 7919 % 10_000];
        device.unmap(open, offset, PAGE_SIZE);
        let live = world.0.borrow().user_sets.len();
        assert_eq!(live, 9_999 - place, "one at a time");
    }
    device.close(open);
    assert_eq!(device.stats().user_ranges, 0);
}

#[test]
fn what_is_purged_is_unbound_first_and_cannot_be_bound_again() {
    let (world, mut device, open) = empty();
    let new = |device: &mut TestDevice| device.create(open, BYTES, CreateInfo::default());
    let (handle, _) = new(&mut device).unwrap();
    for place in [place(0, 0), place(1, 8)] {
        device.vm_bind(open, PID, handle, place, None).unwrap();
    }
    device.advise(open, handle, Advice::DontNeed).unwrap();
    let mut limits = *device.limits();
    limits.uid = pages(PAGES);
    device.set_limits(limits);
    world.0.borrow_mut().deeds.clear();
    new(&mut device).unwrap();
    assert_eq!(device.stats().purges.objects, 1);
    let [space, other] = [SpaceId(0), SpaceId(1)];
    let expected = [
        Deed::Clear(space, 0),
        Deed::Clear(other, 8 * PAGE_SIZE),
        Deed::Flush(space),
        Deed::Flush(other),
    ];
    assert_eq!(world.0.borrow().deeds, expected);
    assert_eq!(device.stats().bindings, 0);
    let again = device.vm_bind(open, PID, handle, place(0, 0), None);
    assert_eq!(again, Err(Error::Purged));
}

#[test]
fn a_clients_own_pages_are_advised_about_and_never_purged() {
    let mut held = held();
    let advised = held.device.advise(held.open, held.handle, Advice::DontNeed);
    assert_eq!(advised, Ok(true));
    held.device.unmap(held.open, held.offset, PAGE_SIZE);
    assert_eq!(held.device.stats().purgeable, pages(0));
    let advised = held.device.advise(held.open, held.handle, Advice::WillNeed);
    assert_eq!(advised, Ok(true), "revoked is not purged");
}
