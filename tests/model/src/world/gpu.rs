//! A driver with two GPUs' address spaces, and what the GPUs find there.

use gem::pages::{Extent, NotReady};
use gem::space::{Access, AddressSpace, SpaceId, UserPages};
use gem::units::{GpuAddr, PAGE_SIZE, PageCount};
use gem::{Driver, ObjectInfo, OpenId};

use super::{Deed, Mood, Shared};

/// Pages of each address space.
pub const SPACE_PAGES: u64 = 64;

/// The driver.
pub struct Gpu {
    world: Shared,
    spaces: [Space; 2],
}

struct Space(SpaceId, Shared);

impl Gpu {
    /// Of this world.
    pub fn new(world: &Shared) -> Self {
        Self {
            world: world.clone(),
            spaces: [0, 1].map(|id| Space(SpaceId(id), world.clone())),
        }
    }
}

impl Driver for Gpu {
    fn object_init(&mut self, object: ObjectInfo) -> Result<(), NotReady> {
        let mut world = self.world.0.borrow_mut();
        if world.mood == Mood::InitFails {
            return Err(NotReady::OutOfMemory);
        }
        assert!(world.objects.insert(object.id.as_u64()));
        Ok(())
    }

    fn object_purge(&mut self, object: ObjectInfo) {
        let world = self.world.0.borrow();
        assert!(world.objects.contains(&object.id.as_u64()));
    }

    fn object_free(&mut self, object: ObjectInfo) {
        let mut world = self.world.0.borrow_mut();
        assert!(world.objects.remove(&object.id.as_u64()));
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
