//! A platform and a device that only remember: what was released, what the GPU would find.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use gem::pages::{Extent, Extents, NotReady, PageRequest, PageSet, PageSource, Ticket};
use gem::space::{Access, AddressSpace, SpaceId, UserPages};
use gem::units::{GpuAddr, PAGE_SIZE, PageCount, PhysAddr, Uid, WindowAddr};
use gem::user::UserSet;
use gem::{Driver, ObjectInfo, OpenId};

/// What happened, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deed {
    Insert(SpaceId, u64, Access),
    Clear(SpaceId, u64),
    Flush(SpaceId),
    Release(u64),
}

/// What a call of the source or the driver is to come to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mood {
    #[default]
    Fine,
    WindowWaits,
    LocateWaits,
    InsertFails,
    HandleFails,
    InitFails,
}

#[derive(Default)]
pub struct World {
    pub mood: Mood,
    pub deeds: Vec<Deed>,
    /// User sets that were made and not released, and from whom.
    pub live: BTreeMap<u64, Uid>,
    last_set: u64,
    pub own_sets: BTreeSet<u64>,
    /// Page by page, what the GPU finds: frame and whether it may write.
    pub gpu: [BTreeMap<u64, (u64, Access)>; 2],
    /// Changes since the last flush.
    dirty: [bool; 2],
    pub handles: i64,
    pub objects: i64,
    pub able: Option<UserPages>,
    pub no_read_only: bool,
}

impl World {
    /// As a platform does when it has taken pages over.
    pub fn take(&mut self, owner: Uid, pages: PageCount) -> UserSet {
        self.last_set += 1;
        self.live.insert(self.last_set, owner);
        UserSet::new(self.last_set, pages)
    }

    /// That no GPU finds any page of a set, nor may remember one.
    fn assert_unfound(&self, set: u64) {
        assert_eq!(self.dirty, [false; 2], "given back before the flush");
        let frames = set << 32..(set + 1) << 32;
        for space in &self.gpu {
            let found = space.values().any(|(frame, _)| frames.contains(frame));
            assert!(!found, "given back while a GPU finds it");
        }
    }
}

/// A page's frame: no two pages of any sets have the same.
pub fn frame(set: u64, page: u64) -> u64 {
    (set << 32) + page * 2 * PAGE_SIZE
}

#[derive(Clone, Default)]
pub struct Shared(pub Rc<RefCell<World>>);

impl PageSource for Shared {
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady> {
        let mut world = self.0.borrow_mut();
        world.last_set += 1;
        let key = world.last_set;
        world.own_sets.insert(key);
        let start = PhysAddr::new(key << 32);
        let pages = request.pages;
        Ok(PageSet::new(key, Extents::One(Extent { start, pages })).unwrap())
    }

    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady> {
        Ok(WindowAddr::new((set.key() << 32) as usize).unwrap())
    }

    fn read(&mut self, _: &PageSet, _: u64, _: &mut [u8]) -> Result<(), NotReady> {
        Ok(())
    }

    fn write(&mut self, _: &PageSet, _: u64, _: &[u8]) -> Result<(), NotReady> {
        Ok(())
    }

    fn free(&mut self, _: Uid, set: PageSet) {
        let mut world = self.0.borrow_mut();
        assert!(world.own_sets.remove(&set.key()));
        world.assert_unfound(set.key());
    }

    fn user_window(&mut self, set: &UserSet) -> Result<WindowAddr, NotReady> {
        let world = self.0.borrow();
        assert!(world.live.contains_key(&set.key()));
        if world.mood == Mood::WindowWaits {
            return Err(NotReady::Wait(Ticket(1)));
        }
        Ok(WindowAddr::new((set.key() << 32) as usize).unwrap())
    }

    fn locate_user(&mut self, set: &UserSet) -> Result<Extents, NotReady> {
        let world = self.0.borrow();
        assert!(world.live.contains_key(&set.key()));
        if world.mood == Mood::LocateWaits {
            return Err(NotReady::Wait(Ticket(2)));
        }
        let page = |page| Extent {
            start: PhysAddr::new(frame(set.key(), page)),
            pages: PageCount::new(1).unwrap(),
        };
        Ok(Extents::Many((0..set.pages().get()).map(page).collect()))
    }

    fn release_user(&mut self, owner: Uid, set: UserSet) {
        let mut world = self.0.borrow_mut();
        let released = world.live.remove(&set.key());
        assert_eq!(
            released,
            Some(owner),
            "released twice, or for somebody else"
        );
        world.assert_unfound(set.key());
        world.deeds.push(Deed::Release(set.key()));
    }
}

/// Two address spaces of 64 pages.
pub const SPACE_PAGES: u64 = 64;

pub struct Gpu {
    world: Shared,
    spaces: [Space; 2],
}

struct Space(SpaceId, Shared);

impl Gpu {
    pub fn new(world: &Shared) -> Self {
        Self {
            world: world.clone(),
            spaces: [0, 1].map(|id| Space(SpaceId(id), world.clone())),
        }
    }
}

impl Driver for Gpu {
    fn object_init(&mut self, _: ObjectInfo) -> Result<(), NotReady> {
        let mut world = self.world.0.borrow_mut();
        if world.mood == Mood::InitFails {
            return Err(NotReady::OutOfMemory);
        }
        world.objects += 1;
        Ok(())
    }

    fn object_free(&mut self, _: ObjectInfo) {
        self.world.0.borrow_mut().objects -= 1;
    }

    fn handle_open(&mut self, _: OpenId, _: ObjectInfo) -> Result<(), NotReady> {
        let mut world = self.world.0.borrow_mut();
        if world.mood == Mood::HandleFails {
            return Err(NotReady::OutOfMemory);
        }
        world.handles += 1;
        Ok(())
    }

    fn handle_close(&mut self, _: OpenId, _: ObjectInfo) {
        self.world.0.borrow_mut().handles -= 1;
    }

    fn user_pages(&self) -> UserPages {
        let able = self.world.0.borrow().able;
        able.unwrap_or(UserPages {
            most: PageCount::new(SPACE_PAGES).unwrap(),
            read_only: true,
            coherent: true,
        })
    }

    fn space(&mut self, space: SpaceId) -> Option<&mut dyn AddressSpace> {
        let space = self.spaces.get_mut(space.0 as usize)?;
        Some(space)
    }
}

impl AddressSpace for Space {
    fn size(&self) -> PageCount {
        PageCount::new(SPACE_PAGES).unwrap()
    }

    fn can_read_only(&self) -> bool {
        !self.1.0.borrow().no_read_only
    }

    fn insert(&mut self, at: GpuAddr, extents: &[Extent], access: Access) -> Result<(), NotReady> {
        let mut world = self.1.0.borrow_mut();
        if world.mood == Mood::InsertFails {
            return Err(NotReady::OutOfMemory);
        }
        let id = self.0.0 as usize;
        let pages = extents
            .iter()
            .flat_map(|run| (0..run.pages.get()).map(|page| run.start.get() + page * PAGE_SIZE));
        for (index, frame) in (0..).zip(pages) {
            let old = world.gpu[id].insert(at.get() + index * PAGE_SIZE, (frame, access));
            assert_eq!(old, None, "over something else");
        }
        world.dirty[id] = true;
        world.deeds.push(Deed::Insert(self.0, at.get(), access));
        Ok(())
    }

    fn clear(&mut self, at: GpuAddr, pages: PageCount) {
        let mut world = self.1.0.borrow_mut();
        let id = self.0.0 as usize;
        for page in 0..pages.get() {
            let old = world.gpu[id].remove(&(at.get() + page * PAGE_SIZE));
            assert!(old.is_some(), "cleared what was not there");
        }
        world.dirty[id] = true;
        world.deeds.push(Deed::Clear(self.0, at.get()));
    }

    fn flush(&mut self) {
        let mut world = self.1.0.borrow_mut();
        world.dirty[self.0.0 as usize] = false;
        world.deeds.push(Deed::Flush(self.0));
    }
}
