//! The platform and the driver that a device under test has: they do what they are told to, and
//! remember what they were asked.

mod gpu;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use arbitrary::{Arbitrary, Unstructured};
use gem::pages::{Extent, Extents, NotReady, PageRequest, PageSet, PageSource, Ticket};
use gem::space::{Access, SpaceId, UserPages};
use gem::units::{PAGE_SIZE, PageCount, PhysAddr, Uid, WindowAddr};
use gem::user::UserSet;

pub use gpu::{Gpu, SPACE_PAGES};

/// What a call of the source or the driver is to come to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mood {
    /// All succeeds.
    #[default]
    Fine,
    /// Whatever can wait does.
    Waits,
    /// There is no memory for new pages.
    OutOfMemory,
    /// Its owner leaves too much unused.
    Scattered,
    /// The driver has no room for a handle.
    HandleFails,
    /// The driver has no room for an object.
    InitFails,
    /// A GPU has no room for page tables.
    InsertFails,
}

impl Mood {
    /// The moods in which something fails.
    pub const BAD: [Self; 6] = [
        Self::Waits,
        Self::OutOfMemory,
        Self::Scattered,
        Self::HandleFails,
        Self::InitFails,
        Self::InsertFails,
    ];
}

/// Half of them are fine: what fails changes nothing.
impl<'a> Arbitrary<'a> for Mood {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let which = usize::from(u.arbitrary::<u8>()?) % (2 * Self::BAD.len());
        Ok(Self::BAD.get(which).copied().unwrap_or_default())
    }
}

/// What happened to clients' own pages, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deed {
    /// Pages were inserted in a space, from this address on.
    Insert(SpaceId, u64, Access),
    /// What is at this address was cleared.
    Clear(SpaceId, u64),
    /// The GPU was made to forget what it remembered of a space.
    Flush(SpaceId),
    /// A set was given back.
    Release(u64),
}

/// What the device under test has done to its platform and its driver.
#[derive(Debug, Default)]
pub struct World {
    /// What the next calls come to.
    pub mood: Mood,
    /// Pages that the machine has left, if the source knows.
    pub left: Option<u64>,
    /// What became of clients' own pages.
    pub deeds: Vec<Deed>,
    /// Sets that are out, and for whom.
    pub sets: BTreeMap<u64, Uid>,
    /// Clients' own sets that were made and not released, and from whom.
    pub user_sets: BTreeMap<u64, Uid>,
    last_set: u64,
    /// Page by page, what each GPU finds: frame and whether it may write.
    pub gpu: [BTreeMap<u64, (u64, Access)>; 2],
    /// Whether they changed since the last flush.
    dirty: [bool; 2],
    /// Objects initialised and not freed.
    pub objects: BTreeSet<u64>,
    /// Handles opened and not closed.
    pub handles: i64,
    /// What the driver says of clients' own pages, where it is not all.
    pub able: Option<UserPages>,
    /// Whether no space can keep the GPU from writing.
    pub no_read_only: bool,
}

impl World {
    /// As a platform does when it has taken pages over.
    pub fn take(&mut self, owner: Uid, pages: PageCount) -> UserSet {
        self.last_set += 1;
        self.user_sets.insert(self.last_set, owner);
        UserSet::new(self.last_set, pages)
    }

    /// That nothing is left.
    pub fn assert_empty(&self) {
        let sets = self.sets.len() + self.user_sets.len();
        let found = self.gpu.iter().map(BTreeMap::len).sum::<usize>();
        let left = (sets, self.objects.len(), self.handles, found);
        assert_eq!(left, (0, 0, 0, 0), "sets, objects, handles, GPU's pages");
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

/// A page's frame in a client's own set: no two pages of any sets have the same.
pub fn frame(set: u64, page: u64) -> u64 {
    (set << 32) + page * 2 * PAGE_SIZE
}

/// The world as the page source, and as whoever looks at it.
#[derive(Clone, Default)]
pub struct Shared(pub Rc<RefCell<World>>);

impl PageSource for Shared {
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady> {
        let mut world = self.0.borrow_mut();
        match world.mood {
            Mood::Waits => return Err(NotReady::Wait(Ticket(1))),
            Mood::OutOfMemory => return Err(NotReady::OutOfMemory),
            Mood::Scattered => return Err(NotReady::Scattered),
            _ => {}
        }
        world.last_set += 1;
        let key = world.last_set;
        world.sets.insert(key, request.owner);
        let start = PhysAddr::new(key << 32);
        let pages = request.pages;
        Ok(PageSet::new(key, Extents::One(Extent { start, pages })).unwrap())
    }

    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady> {
        let world = self.0.borrow();
        assert!(world.sets.contains_key(&set.key()));
        if world.mood == Mood::Waits {
            return Err(NotReady::Wait(Ticket(2)));
        }
        Ok(WindowAddr::new((set.key() << 32) as usize).unwrap())
    }

    fn read(&mut self, _: &PageSet, _: u64, _: &mut [u8]) -> Result<(), NotReady> {
        Ok(())
    }

    fn write(&mut self, _: &PageSet, _: u64, _: &[u8]) -> Result<(), NotReady> {
        Ok(())
    }

    fn free(&mut self, owner: Uid, set: PageSet) {
        let mut world = self.0.borrow_mut();
        let freed = world.sets.remove(&set.key());
        assert_eq!(freed, Some(owner), "freed twice, or for somebody else");
        world.assert_unfound(set.key());
    }

    fn left(&self) -> Option<PageCount> {
        let left = self.0.borrow().left?;
        Some(PageCount::new(left).unwrap())
    }
    fn user_window(&mut self, set: &UserSet) -> Result<WindowAddr, NotReady> {
        let world = self.0.borrow();
        assert!(world.user_sets.contains_key(&set.key()));
        if world.mood == Mood::Waits {
            return Err(NotReady::Wait(Ticket(3)));
        }
        Ok(WindowAddr::new((set.key() << 32) as usize).unwrap())
    }

    fn locate_user(&mut self, set: &UserSet) -> Result<Extents, NotReady> {
        let world = self.0.borrow();
        assert!(world.user_sets.contains_key(&set.key()));
        if world.mood == Mood::Waits {
            return Err(NotReady::Wait(Ticket(4)));
        }
        let page = |page| Extent {
            start: PhysAddr::new(frame(set.key(), page)),
            pages: PageCount::new(1).unwrap(),
        };
        Ok(Extents::Many((0..set.pages().get()).map(page).collect()))
    }

    fn release_user(&mut self, owner: Uid, set: UserSet) -> Option<Ticket> {
        let mut world = self.0.borrow_mut();
        let released = world.user_sets.remove(&set.key());
        assert_eq!(
            released,
            Some(owner),
            "released twice, or for somebody else"
        );
        world.assert_unfound(set.key());
        world.deeds.push(Deed::Release(set.key()));
        None
    }
}
