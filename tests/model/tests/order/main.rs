//! Whoever takes its pages back has an answer only after the GPU finds them nowhere, was flushed,
//! and the daemon let go of them: on every path.

mod given_back;
mod refused;

use gem::space::{Access, Place, SpaceId, UserPages};
use gem::units::{Gid, GpuAddr, Handle, Identity, PAGE_SIZE, PageCount, Pid, Uid};
use gem::user::{UserAddr, UserRange};
use gem::{
    Acquisition, Advice, Claim, Config, CreateInfo, Device, Error, Event, Limits, NameMode, Node,
    OpenId, Rights,
};

use gem_model::world::{Deed, Gpu, Mood, SPACE_PAGES, Shared, frame};

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
    assert!(!world.user_sets.contains_key(&1));
}
