//! A device with made-up pages, for measurements.

use gem::pages::{Extent, Extents, NotReady, PageRequest, PageSet, PageSource};
use gem::units::{Gid, Identity, PageCount, PhysAddr, Pid, Uid, WindowAddr};
use gem::{Config, CreateInfo, Device, Limits, NameMode, NoDriver, Node, OpenId};

/// Bytes in a page.
pub const PAGE: u64 = gem::units::PAGE_SIZE;

/// Pages that cost nothing.
#[derive(Default)]
pub struct Made(u64);

impl PageSource for Made {
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady> {
        self.0 += 1;
        let start = PhysAddr::new(self.0 << 12);
        let pages = request.pages;
        PageSet::new(self.0, Extents::One(Extent { start, pages })).ok_or(NotReady::OutOfMemory)
    }

    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady> {
        WindowAddr::new((set.key() << 12) as usize).ok_or(NotReady::OutOfMemory)
    }

    fn read(&mut self, _: &PageSet, _: u64, _: &mut [u8]) -> Result<(), NotReady> {
        Ok(())
    }

    fn write(&mut self, _: &PageSet, _: u64, _: &[u8]) -> Result<(), NotReady> {
        Ok(())
    }

    fn free(&mut self, _: Uid, _: PageSet) {}
}

/// A device, an open that holds objects, and another open.
pub struct Ready {
    pub device: Device<Made>,
    pub open: OpenId,
    pub other: OpenId,
}

impl Ready {
    /// A device whose first open holds this many objects of a page each.
    pub fn with_objects(live: u32) -> Self {
        let mut limits = Limits::for_clients(PageCount::new(1 << 30).unwrap());
        limits.handles_per_open = u32::MAX;
        limits.handles_per_uid = u32::MAX;
        limits.objects_per_uid = u32::MAX;
        limits.names_per_uid = u32::MAX;
        limits.mapped_objects_per_uid = u32::MAX;
        let config = Config {
            limits,
            names: NameMode::Random { seed: [1; 16] },
        };
        let mut device = Device::new(config, Made::default(), NoDriver);
        let (open, other) = (open(&mut device, 1), open(&mut device, 2));
        let mut ready = Self {
            device,
            open,
            other,
        };
        for _ in 0..live {
            ready.create();
        }
        ready
    }

    /// One more object of a page.
    pub fn create(&mut self) {
        self.device
            .create(self.open, PAGE, CreateInfo::default())
            .unwrap();
    }
}

/// An open of process `pid`.
pub fn open(device: &mut Device<Made>, pid: u64) -> OpenId {
    let open = device.open(Node::Primary).unwrap();
    let identity = Identity {
        uid: Uid(1),
        gid: Gid(1),
        pid: Pid(pid),
    };
    device.bind(open, identity).unwrap();
    open
}
