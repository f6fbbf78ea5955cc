//! Whoever takes its pages back has an answer only after the GPU finds them nowhere, was flushed,
//! and the daemon let go of them: on every path.

use gem::space::{Access, Place, SpaceId, UserPages};
use gem::units::{Gid, GpuAddr, Handle, Identity, PAGE_SIZE, PageCount, Pid, Uid};
use gem::user::{UserAddr, UserRange};
use gem::{
    Acquisition, Advice, Claim, Config, CreateInfo, Device, Error, Event, Limits, Mapper, NameMode,
    Node, OpenId, Rights,
};

use crate::world::{Deed, Gpu, Mood, SPACE_PAGES, Shared, frame};

const PID: Pid = Pid(7);
const OTHER_PID: Pid = Pid(8);
const ALICE: Uid = Uid(1);
const PAGES: u64 = 4;
const START: u64 = 0x10_0000;
const BYTES: u64 = PAGES * PAGE_SIZE;

type TestDevice = Device<Shared, Gpu>;

fn pages(pages: u64) -> PageCount {
    PageCount::new(pages).unwrap()
}

fn place(space: u32, page: u64) -> Place {
    Place {
        space: SpaceId(space),
        at: GpuAddr::new(page * PAGE_SIZE).unwrap(),
    }
}

fn claim(read_only: bool) -> Claim {
    let range = UserRange::new(UserAddr::new(START), pages(PAGES)).unwrap();
    Claim { range, read_only }
}

fn new_open(device: &mut TestDevice, pid: Pid, uid: Uid) -> OpenId {
    let open = device.open(Node::Primary).unwrap();
    let identity = Identity {
        uid,
        gid: Gid(uid.0),
        pid,
    };
    device.bind(open, identity).unwrap();
    open
}

fn empty() -> (Shared, TestDevice, OpenId) {
    let world = Shared::default();
    let config = Config {
        limits: Limits::for_clients(pages(1000)),
        names: NameMode::Sequential,
    };
    let mut device = Device::new(config, world.clone(), Gpu::new(&world));
    let open = new_open(&mut device, PID, ALICE);
    (world, device, open)
}

/// A range that is held, bound at two places in one address space and at one in another.
struct Held {
    world: Shared,
    device: TestDevice,
    open: OpenId,
    handle: Handle,
    offset: u64,
}

fn hold(world: &Shared, device: &mut TestDevice, open: OpenId, read_only: bool) -> (Handle, u64) {
    let acquisition = device.begin_userptr(open, PID, claim(read_only)).unwrap();
    take(world, device, acquisition);
    let (handle, offset) = device.claim_userptr(open, PID, claim(read_only)).unwrap();
    device.map_userptr(open, PID, offset.get(), BYTES).unwrap();
    (handle, offset.get())
}

fn take(world: &Shared, device: &mut TestDevice, acquisition: Acquisition) {
    assert!(device.is_userptr_wanted(acquisition));
    let set = world.0.borrow_mut().take(ALICE, pages(PAGES));
    device.take_userptr(acquisition, set);
}

fn held() -> Held {
    let (world, mut device, open) = empty();
    let (handle, offset) = hold(&world, &mut device, open, false);
    for place in [place(0, 0), place(0, 32), place(1, 60)] {
        device.vm_bind(open, PID, handle, place, None).unwrap();
    }
    world.0.borrow_mut().deeds.clear();
    Held {
        world,
        device,
        open,
        handle,
        offset,
    }
}

/// That all was given back in order, and by now.
fn given_back(world: &Shared) {
    let world = world.0.borrow();
    let [space, other] = [SpaceId(0), SpaceId(1)];
    let expected = [
        Deed::Clear(space, 0),
        Deed::Clear(space, 32 * PAGE_SIZE),
        Deed::Clear(other, 60 * PAGE_SIZE),
        Deed::Flush(space),
        Deed::Flush(other),
        Deed::Release(1),
    ];
    assert_eq!(world.deeds, expected);
    assert!(!world.live.contains_key(&1));
}

#[test]
fn unmapping_all_or_a_part_gives_all_pages_back() {
    for (skip, count) in [(0, PAGES), (0, 1), (PAGES - 1, 1), (1, 2)] {
        let mut held = held();
        let mapper = Mapper::Node(held.open);
        let at = held.offset + skip * PAGE_SIZE;
        held.device.unmap(mapper, at, count * PAGE_SIZE);
        given_back(&held.world);
        let stats = held.device.stats();
        let left = PAGES - count;
        assert_eq!(stats.mapped, pages(left));
        assert_eq!(stats.user_pages, pages(if left > 0 { PAGES } else { 0 }));
        // What is left is the client's own business.
        held.device.unmap(mapper, held.offset, BYTES);
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
    device.unmap(Mapper::Node(open), offset.get(), BYTES);
    assert_eq!(counts(&device), (1 + PAGES, 1), "the client has them back");
    device.close_handle(open, handle).unwrap();
    assert_eq!(counts(&device), (1, 1));
}

#[test]
fn the_client_is_told_who_took_its_pages() {
    let mut held = held();
    let mapper = Mapper::Node(held.open);
    let (at, by) = (held.offset + PAGE_SIZE, Some(OTHER_PID));
    held.device.unmap_by(mapper, at, PAGE_SIZE, by);
    held.device.unmap_by(mapper, held.offset, BYTES, by);
    let handle = held.handle;
    let told = held.device.next_event(held.open);
    assert_eq!(told, Ok(Some(Event::Revoked { handle, by })));
    assert_eq!(held.device.next_event(held.open), Ok(None), "once");
    // Who closes the handle knows.
    let mut held = self::held();
    held.device.close_handle(held.open, held.handle).unwrap();
    held.device.unmap_by(mapper, held.offset, BYTES, by);
    assert_eq!(held.device.next_event(held.open), Ok(None));
}

#[test]
fn a_child_has_held_pages_as_well_and_lets_go_of_them_alone() {
    let mut held = held();
    let (open, mapper) = (held.open, Mapper::Node(held.open));
    let child = Some(OTHER_PID);
    held.device.map_again(open, held.offset, BYTES).unwrap();
    let inside = held.offset + PAGE_SIZE;
    held.device.unmap_by(mapper, inside, PAGE_SIZE, child);
    held.device
        .unmap_by(mapper, held.offset, BYTES - PAGE_SIZE, child);
    assert_eq!(held.world.0.borrow().deeds, [], "the parent has them all");
    assert_eq!(held.device.stats().mapped, pages(PAGES));
    // By whomever: now it cannot have them all.
    held.device.unmap_by(mapper, inside, PAGE_SIZE, child);
    given_back(&held.world);
    let mapped = held.device.map_again(open, held.offset, PAGE_SIZE);
    assert_eq!(mapped, Err(Error::NotMappable), "nothing of ours");

    let mut held = self::held();
    held.device.map_again(open, held.offset, BYTES).unwrap();
    held.device
        .unmap_by(mapper, held.offset, PAGE_SIZE, Some(PID));
    given_back(&held.world);
    assert_eq!(held.device.stats().user_pages, pages(PAGES));
    held.device.unmap_by(mapper, held.offset, BYTES, Some(PID));
    held.device.unmap_by(mapper, held.offset, BYTES, child);
    assert_eq!(held.device.stats().user_pages, pages(0));
}

#[test]
fn mapping_something_over_it_gives_all_pages_back() {
    let mut held = held();
    let info = CreateInfo::default();
    let (other, _) = held.device.create(held.open, 1, info).unwrap();
    let offset = held.device.map_offset(held.open, other).unwrap().get();
    let mapper = Mapper::Node(held.open);
    // The kernel asks for the new mapping first, and tells of the old one then.
    held.device.map(mapper, offset, 1, true).unwrap();
    assert_eq!(held.world.0.borrow().deeds, []);
    held.device
        .unmap(mapper, held.offset + PAGE_SIZE, PAGE_SIZE);
    given_back(&held.world);
}

#[test]
fn the_end_of_the_process_gives_all_pages_back() {
    let mut unmapped_first = held();
    let mapper = Mapper::Node(unmapped_first.open);
    unmapped_first
        .device
        .unmap(mapper, unmapped_first.offset, BYTES);
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
    let mapper = Mapper::Node(held.open);
    held.device.unmap(mapper, held.offset, BYTES - PAGE_SIZE);
    assert_eq!(held.device.stats().user_ranges, 1);
    let last = held.offset + BYTES - PAGE_SIZE;
    held.device.unmap(mapper, last, PAGE_SIZE);
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
    let mapper = Mapper::Node(open);
    held.device.unmap(mapper, held.offset, PAGE_SIZE);
    let bound = held.device.vm_bind(open, PID, handle, place(0, 0), None);
    assert_eq!(bound, Err(Error::NotHeld));
    let again = held.device.begin_userptr_again(open, PID, handle, start);
    assert_eq!(
        again.err(),
        Some(Error::InUse),
        "three pages are mapped yet"
    );
    held.device.unmap(mapper, held.offset, BYTES);
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
    assert!(world.0.borrow().live.is_empty());
    assert_eq!(world.0.borrow().objects, 0);
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
        assert_eq!(world.0.borrow().objects, 0);
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
    let mapped = device.map(Mapper::Node(stranger), held.offset, BYTES, false);
    assert_eq!(mapped, Err(Error::NotMappable));
    let rights = Rights { write: false };
    assert_eq!(
        device.export(open, handle, rights),
        Err(Error::NotExportable)
    );
    let exported = device.export_name(stranger, name, rights);
    assert_eq!(exported, Err(Error::NotExportable));
    // A stranger's unmapping is none, and a stranger's handle keeps no pages.
    device.unmap(Mapper::Node(stranger), held.offset, BYTES);
    assert_eq!(held.world.0.borrow().deeds, []);
    device.close_handle(open, handle).unwrap();
    given_back(&held.world);
    device.unmap(Mapper::Node(open), held.offset, BYTES);
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
    world.0.borrow_mut().mood = Mood::WindowWaits;
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
        device.unmap(Mapper::Node(open), offset, PAGE_SIZE);
        let live = world.0.borrow().live.len();
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
    held.device
        .unmap(Mapper::Node(held.open), held.offset, PAGE_SIZE);
    assert_eq!(held.device.stats().purgeable, pages(0));
    let advised = held.device.advise(held.open, held.handle, Advice::WillNeed);
    assert_eq!(advised, Ok(true), "revoked is not purged");
}
