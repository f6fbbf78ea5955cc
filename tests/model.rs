//! The memory manager against a reference model: random operations by several opens of several
//! users, every count compared after each step, every page given back exactly once at the end.
//!
//! The model is a list of objects with the names of their holders written out. It knows nothing
//! of slots, bitmaps, lists or ledgers, and is slow on purpose.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use gem::pages::{Extent, Extents, NotReady, PageRequest, PageSet, PageSource, Ticket};
use gem::units::{
    FakeOffset, Gid, Handle, Identity, Name, PAGE_SIZE, PageCount, PhysAddr, Pid, Uid, WindowAddr,
};
use gem::{
    Advice, Config, CreateInfo, Device, Driver, Error, LedgerError, Limits, Mapper, NameMode, Node,
    ObjectCursor, ObjectFdId, ObjectInfo, OpenId, Pressure, Rights,
};
use proptest::prelude::*;

/// What a call of the page source or the driver is to come to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Mood {
    #[default]
    Fine,
    Waits,
    OutOfMemory,
    Scattered,
    DriverFails,
    InitFails,
}

#[derive(Debug, Default)]
struct World {
    mood: Mood,
    /// Pages that the machine has left, if the source knows.
    left: Option<u64>,
    /// Sets that are out, and for whom.
    live: BTreeMap<u64, Uid>,
    last_key: u64,
    /// Hooks seen: objects initialised and not freed, handles opened and not closed.
    objects: BTreeSet<u64>,
    handles: i64,
}

struct Pages(Rc<RefCell<World>>);

impl PageSource for Pages {
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady> {
        let mut world = self.0.borrow_mut();
        match world.mood {
            Mood::Waits => return Err(NotReady::Wait(Ticket(1))),
            Mood::OutOfMemory => return Err(NotReady::OutOfMemory),
            Mood::Scattered => return Err(NotReady::Scattered),
            _ => {}
        }
        world.last_key += 1;
        let key = world.last_key;
        world.live.insert(key, request.owner);
        let extent = Extent {
            start: PhysAddr::new(key << 32),
            pages: request.pages,
        };
        Ok(PageSet::new(key, Extents::One(extent)).unwrap())
    }

    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady> {
        if self.0.borrow().mood == Mood::Waits {
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
        let freed = self.0.borrow_mut().live.remove(&set.key());
        assert_eq!(freed, Some(owner), "freed twice, or for somebody else");
    }

    fn left(&self) -> Option<PageCount> {
        self.0
            .borrow()
            .left
            .map(|left| PageCount::new(left).unwrap())
    }
}

struct Hooks(Rc<RefCell<World>>);

impl Driver for Hooks {
    fn object_init(&mut self, object: ObjectInfo) -> Result<(), NotReady> {
        let mut world = self.0.borrow_mut();
        if world.mood == Mood::InitFails {
            return Err(NotReady::OutOfMemory);
        }
        assert!(world.objects.insert(object.id.as_u64()));
        Ok(())
    }

    fn object_purge(&mut self, object: ObjectInfo) {
        assert!(self.0.borrow().objects.contains(&object.id.as_u64()));
    }

    fn object_free(&mut self, object: ObjectInfo) {
        assert!(self.0.borrow_mut().objects.remove(&object.id.as_u64()));
    }

    fn handle_open(&mut self, _: OpenId, _: ObjectInfo) -> Result<(), NotReady> {
        let mut world = self.0.borrow_mut();
        if world.mood == Mood::DriverFails {
            return Err(NotReady::OutOfMemory);
        }
        world.handles += 1;
        Ok(())
    }

    fn handle_close(&mut self, _: OpenId, _: ObjectInfo) {
        self.0.borrow_mut().handles -= 1;
    }
}

/// The place of the nth of what is still there, counted round and round.
fn nth<T>(places: &[Option<T>], n: usize) -> usize {
    let there = || (0..places.len()).filter(|&place| places[place].is_some());
    there()
        .nth(n % there().count().max(1))
        .unwrap_or(usize::MAX)
}

#[derive(Clone, Debug)]
enum Step {
    Open {
        user: u32,
    },
    CloseOpen {
        open: usize,
    },
    Create {
        open: usize,
        size: u64,
        mood: u8,
    },
    Close {
        open: usize,
        handle: u32,
    },
    Flink {
        open: usize,
        handle: u32,
    },
    OpenName {
        open: usize,
        name: usize,
        mood: u8,
    },
    Export {
        open: usize,
        handle: u32,
        write: bool,
    },
    ExportName {
        open: usize,
        name: usize,
        write: bool,
    },
    Import {
        open: usize,
        fd: usize,
    },
    CloseFd {
        fd: usize,
    },
    Offset {
        open: usize,
        handle: u32,
    },
    Map {
        open: usize,
        offset: usize,
        pages: u64,
        mood: u8,
    },
    MapAgain {
        open: usize,
        offset: usize,
        skip: u64,
        pages: u64,
    },
    Unmap {
        open: usize,
        offset: usize,
        skip: u64,
        pages: u64,
    },
    MapFd {
        fd: usize,
        skip: u64,
        pages: u64,
        write: bool,
    },
    UnmapFd {
        fd: usize,
        pages: u64,
    },
    Revoke {
        open: usize,
    },
    Advise {
        open: usize,
        handle: u32,
        unneeded: bool,
    },
    Left {
        pages: Option<u64>,
    },
    Limit {
        which: u8,
        value: u32,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let open = 0usize..6;
    // Most handles are small numbers.
    let handle = prop_oneof![3 => 1u32..3, 1 => 0u32..8];
    let index = 0usize..8;
    let size = prop_oneof![Just(0), 1u64..40_000, Just(1 << 20), Just(u64::MAX)];
    let mood = 0u8..12;
    let step = prop_oneof![
        2 => (0u32..3).prop_map(|user| Step::Open { user }),
        1 => open.clone().prop_map(|open| Step::CloseOpen { open }),
        8 => (open.clone(), size, mood.clone())
            .prop_map(|(open, size, mood)| Step::Create { open, size, mood }),
        4 => (open.clone(), handle.clone())
            .prop_map(|(open, handle)| Step::Close { open, handle }),
        9 => (open.clone(), handle.clone(), prop::bool::weighted(0.8))
            .prop_map(|(open, handle, unneeded)| Step::Advise { open, handle, unneeded }),
        3 => prop::option::of(0u64..30).prop_map(|pages| Step::Left { pages }),
        3 => (open.clone(), handle.clone())
            .prop_map(|(open, handle)| Step::Flink { open, handle }),
        4 => (open.clone(), index.clone(), mood.clone())
            .prop_map(|(open, name, mood)| Step::OpenName { open, name, mood }),
        4 => (open.clone(), handle.clone(), any::<bool>())
            .prop_map(|(open, handle, write)| Step::Export { open, handle, write }),
        2 => (open.clone(), index.clone(), any::<bool>())
            .prop_map(|(open, name, write)| Step::ExportName { open, name, write }),
        4 => (open.clone(), index.clone()).prop_map(|(open, fd)| Step::Import { open, fd }),
        3 => index.clone().prop_map(|fd| Step::CloseFd { fd }),
        3 => (open.clone(), handle).prop_map(|(open, handle)| Step::Offset { open, handle }),
        4 => (open.clone(), index.clone(), 0u64..12, mood)
            .prop_map(|(open, offset, pages, mood)| Step::Map { open, offset, pages, mood }),
        2 => (open.clone(), index.clone(), 0u64..6, 0u64..12)
            .prop_map(|(open, offset, skip, pages)| Step::MapAgain { open, offset, skip, pages }),
        4 => (open.clone(), index.clone(), 0u64..12, 0u64..12)
            .prop_map(|(open, offset, skip, pages)| Step::Unmap { open, offset, skip, pages }),
        3 => (index.clone(), 0u64..6, 0u64..12, any::<bool>())
            .prop_map(|(fd, skip, pages, write)| Step::MapFd { fd, skip, pages, write }),
        3 => (index, 0u64..12).prop_map(|(fd, pages)| Step::UnmapFd { fd, pages }),
        1 => open.prop_map(|open| Step::Revoke { open }),
        2 => (0u8..13, 1u32..9).prop_map(|(which, value)| Step::Limit { which, value }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// An object as the model sees it.
#[derive(Clone, Debug, Default)]
struct Thing {
    /// Its number for people.
    number: u64,
    unneeded: bool,
    purged: bool,
    /// The step at which it came to be among those that may be purged, if it is; and the step at
    /// which it came to be among those of its user.
    since: Option<usize>,
    since_of_user: usize,
    /// Who holds it, in the order in which they came: the first one pays.
    users: Vec<u32>,
    pages: u64,
    name: Option<Name>,
    offset: Option<FakeOffset>,
    /// Handles, of which opens.
    handles: BTreeMap<(usize, u32), ()>,
    prime: BTreeMap<usize, u32>,
    fds: BTreeSet<usize>,
    /// Mapped pages, by open.
    mapped: BTreeMap<usize, u64>,
    mapped_by_fd: BTreeMap<usize, u64>,
}

impl Thing {
    fn owner(&self) -> u32 {
        self.users[0]
    }

    /// Pages it is charged for.
    fn charge(&self) -> u64 {
        if self.purged { 0 } else { self.pages }
    }

    fn is_purgeable(&self) -> bool {
        self.unneeded && !self.purged && self.mapped_pages() == 0
    }

    fn mapped_pages(&self) -> u64 {
        self.mapped.values().sum::<u64>() + self.mapped_by_fd.values().sum::<u64>()
    }

    fn is_held(&self) -> bool {
        !self.handles.is_empty() || !self.fds.is_empty() || self.mapped_pages() > 0
    }

    /// Opens that have handles on it, or map it.
    fn holders(&self) -> BTreeSet<usize> {
        let handles = self.handles.keys().map(|(open, _)| *open);
        let mapped = self.mapped.iter().filter(|(_, pages)| **pages > 0);
        handles.chain(mapped.map(|(open, _)| *open)).collect()
    }

    fn held_by(&self, open: usize) -> bool {
        self.handles.keys().any(|(holder, _)| *holder == open)
    }
}

fn named(thing: &Thing) -> bool {
    thing.name.is_some()
}

fn placed(thing: &Thing) -> bool {
    thing.offset.is_some()
}

/// An fd on an object.
#[derive(Clone, Copy)]
struct ObjectFile {
    id: ObjectFdId,
    write: bool,
    /// Through which open it was made, and whose that was.
    maker: usize,
    user: u32,
}

struct Run {
    world: Rc<RefCell<World>>,
    device: Device<Pages, Hooks>,
    limits: Limits,
    /// By the model's number; `None` where closed.
    opens: Vec<Option<(OpenId, u32)>>,
    revoked: BTreeSet<usize>,
    fds: Vec<Option<ObjectFile>>,
    things: Vec<Thing>,
    names: Vec<Name>,
    offsets: Vec<FakeOffset>,
    /// How many steps there were.
    time: usize,
    /// How short memory is.
    pressure: Pressure,
    /// Pages purged so far.
    lost: u64,
}

impl Run {
    fn new() -> Self {
        let world = Rc::new(RefCell::new(World::default()));
        let mut limits = Limits::for_clients(PageCount::new(40).unwrap());
        limits.handles_per_open = 5;
        limits.handles_per_uid = 8;
        limits.objects_per_uid = 6;
        limits.opens_per_uid = 3;
        limits.object_fds_per_uid = 4;
        limits.object_fds_per_open = 3;
        limits.mapped_per_uid = PageCount::new(40).unwrap();
        limits.mapped_objects_per_uid = 3;
        limits.names_per_uid = 3;
        limits.offsets_per_uid = 3;
        limits.offset_space = PageCount::new(30).unwrap();
        limits.keep_free = PageCount::new(16).unwrap();
        let config = Config {
            limits,
            names: NameMode::Random { seed: [3; 16] },
        };
        Self {
            device: Device::new(config, Pages(world.clone()), Hooks(world.clone())),
            world,
            limits,
            opens: Vec::new(),
            revoked: BTreeSet::new(),
            fds: Vec::new(),
            things: Vec::new(),
            names: Vec::new(),
            offsets: Vec::new(),
            time: 0,
            pressure: Pressure::Eased,
            lost: 0,
        }
    }

    // Steps count among what is open at the time, so that a late step meets something too.

    fn nth_open(&self, n: usize) -> usize {
        nth(&self.opens, n)
    }

    fn nth_fd(&self, n: usize) -> usize {
        nth(&self.fds, n)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Open { user } => self.open(user),
            Step::CloseOpen { open } => self.close_open(self.nth_open(open)),
            Step::Create { open, size, mood } => self.create(self.nth_open(open), size, mood),
            Step::Close { open, handle } => self.close(self.nth_open(open), handle),
            Step::Flink { open, handle } => self.flink(self.nth_open(open), handle),
            Step::OpenName { open, name, mood } => self.open_name(self.nth_open(open), name, mood),
            Step::Export {
                open,
                handle,
                write,
            } => self.export(self.nth_open(open), handle, write),
            Step::ExportName { open, name, write } => {
                self.export_name(self.nth_open(open), name, write)
            }
            Step::Import { open, fd } => self.import(self.nth_open(open), self.nth_fd(fd)),
            Step::CloseFd { fd } => self.close_fd(self.nth_fd(fd)),
            Step::Offset { open, handle } => self.offset(self.nth_open(open), handle),
            Step::Map {
                open,
                offset,
                pages,
                mood,
            } => self.map(self.nth_open(open), offset, pages, mood),
            Step::MapAgain {
                open,
                offset,
                skip,
                pages,
            } => self.map_again(open, offset, skip, pages),
            Step::Unmap {
                open,
                offset,
                skip,
                pages,
            } => self.unmap(self.nth_open(open), offset, skip, pages),
            Step::MapFd {
                fd,
                skip,
                pages,
                write,
            } => self.map_fd(self.nth_fd(fd), skip, pages, write),
            Step::UnmapFd { fd, pages } => self.unmap_fd(self.nth_fd(fd), pages),
            Step::Revoke { open } => self.revoke(self.nth_open(open)),
            Step::Advise {
                open,
                handle,
                unneeded,
            } => self.advise(self.nth_open(open), handle, unneeded),
            Step::Left { pages } => {
                self.world.borrow_mut().left = pages;
                assert_eq!(self.device.relieve(), Ok(()));
                self.relieve();
            }
            Step::Limit { which, value } => self.limit(which, value),
        }
    }

    fn mood(&mut self, mood: u8) -> Mood {
        let mood = match mood {
            0 => Mood::Waits,
            1 => Mood::OutOfMemory,
            2 => Mood::DriverFails,
            3 => Mood::InitFails,
            4 => Mood::Scattered,
            _ => Mood::Fine,
        };
        self.world.borrow_mut().mood = mood;
        mood
    }

    fn open(&mut self, user: u32) {
        let open = self.device.open(Node::Primary).unwrap();
        let identity = Identity {
            uid: Uid(user),
            gid: Gid(user),
            pid: Pid(user.into()),
        };
        let mine = self
            .opens
            .iter()
            .flatten()
            .filter(|(_, whose)| *whose == user);
        let full = mine.count() as u32 >= self.limits.opens_per_uid;
        let bound = self.device.bind(open, identity);
        assert_eq!(bound.is_err(), full);
        if full {
            self.device.close(open);
        } else {
            assert_eq!(self.device.bind(open, identity), Err(Error::Binding));
            self.opens.push(Some((open, user)));
        }
    }

    fn close_open(&mut self, number: usize) {
        let Some((open, _)) = self.opens.get_mut(number).and_then(Option::take) else {
            return;
        };
        self.device.close(open);
        self.device.close(open);
        for thing in &mut self.things {
            thing.handles.retain(|(holder, _), ()| *holder != number);
            thing.prime.remove(&number);
            thing.mapped.remove(&number);
        }
        self.settle();
    }

    /// An open has nothing any more but what it maps.
    fn revoke(&mut self, number: usize) {
        let Some((open, _)) = self.who(number) else {
            return;
        };
        assert_eq!(self.device.revoke(open), Ok(()));
        assert_eq!(self.device.magic(open), Err(Error::Revoked));
        self.revoked.insert(number);
        for thing in &mut self.things {
            thing.handles.retain(|(holder, _), ()| *holder != number);
            thing.prime.remove(&number);
        }
        self.settle();
    }

    /// Limits may come to lie far below what is there.
    fn limit(&mut self, which: u8, value: u32) {
        let limits = &mut self.limits;
        let pages = PageCount::new(u64::from(value) * 8).unwrap();
        match which {
            0 => limits.total = pages,
            1 => limits.uid = pages,
            2 => limits.object = pages,
            3 => limits.mapped_per_uid = pages,
            4 => limits.mapped_objects_per_uid = value,
            5 => limits.opens_per_uid = value,
            6 => limits.objects_per_uid = value,
            7 => limits.handles_per_uid = value,
            8 => limits.handles_per_open = value,
            9 => limits.object_fds_per_uid = value,
            10 => limits.names_per_uid = value,
            11 => limits.offsets_per_uid = value,
            _ => limits.keep_free = PageCount::new(value.into()).unwrap(),
        }
        self.device.set_limits(*limits);
        assert_eq!(self.device.stats().limits, *limits);
        self.relieve();
    }

    fn advise(&mut self, number: usize, raw: u32, unneeded: bool) {
        let (Some((open, _)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let advice = if unneeded {
            Advice::DontNeed
        } else {
            Advice::WillNeed
        };
        let result = self.device.advise(open, handle, advice);
        let Some(index) = self.find(number, raw) else {
            assert_eq!(result, Err(Error::NoSuchHandle(handle)));
            return;
        };
        let thing = &mut self.things[index];
        assert_eq!(result, Ok(!thing.purged));
        thing.unneeded = unneeded;
        // Said again, it is the last.
        thing.since = None;
    }

    /// What may be purged comes to be so with the step that makes it so.
    fn date(&mut self) {
        for thing in &mut self.things {
            if !thing.is_purgeable() {
                thing.since = None;
            } else if thing.since.is_none() {
                thing.since = Some(self.time);
                thing.since_of_user = self.time;
            }
        }
    }

    fn purgeable(&self, user: Option<u32>) -> u64 {
        let whose = |thing: &&Thing| user.is_none_or(|user| thing.owner() == user);
        let purgeable = self.things.iter().filter(|thing| thing.is_purgeable());
        purgeable.filter(whose).map(|thing| thing.pages).sum()
    }

    /// Loses so many pages, of what is unneeded longest; all or one user's. Of what came to be so
    /// in one step, nobody says which comes first, and so it is as the device had it.
    fn purge(&mut self, mut pages: u64, user: Option<u32>) {
        let really = self.really_purged();
        while pages > 0 {
            let whose = |thing: &&mut Thing| user.is_none_or(|user| thing.owner() == user);
            let candidates = self.things.iter_mut().filter(|thing| thing.is_purgeable());
            let next = candidates.filter(whose).min_by_key(|thing| {
                let since = match user {
                    None => thing.since.unwrap(),
                    Some(_) => thing.since_of_user,
                };
                (since, !really.contains(&thing.number), thing.pages)
            });
            let Some(thing) = next else { break };
            thing.purged = true;
            self.lost += thing.pages;
            pages = pages.saturating_sub(thing.pages);
        }
    }

    fn really_purged(&self) -> BTreeSet<u64> {
        let (mut cursor, mut slots) = (ObjectCursor::default(), usize::MAX);
        let objects = std::iter::from_fn(|| self.device.next_object(&mut cursor, &mut slots));
        let purged = objects.filter(|object| object.is_purged);
        purged.map(|object| object.number).collect()
    }

    /// What the device does where the machine has too little left.
    fn relieve(&mut self) {
        let Some(left) = self.world.borrow().left else {
            self.pressure = Pressure::Eased;
            return;
        };
        let keep = self.limits.keep_free.get();
        let margin = keep + keep / 8;
        let (low, critical) = match self.pressure {
            Pressure::Eased => (keep, keep / 4),
            Pressure::Low => (margin, keep / 4),
            Pressure::Critical => (margin, keep / 2),
        };
        self.pressure = match left {
            left if left < critical => Pressure::Critical,
            left if left < low => Pressure::Low,
            _ => Pressure::Eased,
        };
        if left < low {
            self.purge(margin.saturating_sub(left), None);
        }
    }

    /// Names go with the last handle, objects with whatever held them last.
    fn settle(&mut self) {
        for thing in &mut self.things {
            if thing.handles.is_empty() {
                thing.name = None;
            }
        }
        self.things.retain(Thing::is_held);
    }

    /// Who has let go of a thing is not among its users any more; who has come is the last one.
    fn recount_users(&mut self) {
        let of_open = |open: &usize| self.opens[*open].map(|(_, user)| user);
        for thing in &mut self.things {
            let handles = thing.handles.keys().map(|(open, _)| open);
            let mapped = thing.mapped.iter().filter(|(_, pages)| **pages > 0);
            let mapped = mapped.map(|(open, _)| open);
            let by_open = handles.chain(mapped).filter_map(of_open);
            let by_fd = thing.fds.iter().filter_map(|fd| Some(self.fds[*fd]?.user));
            let holding: BTreeSet<u32> = by_open.chain(by_fd).collect();
            let payer = thing.owner();
            thing.users.retain(|user| holding.contains(user));
            for user in holding {
                if !thing.users.contains(&user) {
                    thing.users.push(user);
                }
            }
            if thing.owner() != payer {
                thing.since_of_user = self.time;
            }
        }
    }

    fn who(&self, number: usize) -> Option<(OpenId, u32)> {
        self.opens.get(number).copied().flatten()
    }

    fn find(&self, open: usize, handle: u32) -> Option<usize> {
        self.things
            .iter()
            .position(|thing| thing.handles.contains_key(&(open, handle)))
    }

    fn lowest_free(&self, open: usize) -> u32 {
        (1..)
            .find(|&handle| self.find(open, handle).is_none())
            .unwrap()
    }

    fn handles_of(&self, open: usize) -> u32 {
        let handles = self.things.iter().flat_map(|thing| thing.handles.keys());
        handles.filter(|(holder, _)| *holder == open).count() as u32
    }

    /// The highest handle of an open: what its table is long.
    fn highest(&self, open: usize) -> u32 {
        let handles = self.things.iter().flat_map(|thing| thing.handles.keys());
        let mine = handles.filter(|(holder, _)| *holder == open);
        mine.map(|(_, handle)| *handle).max().unwrap_or(0)
    }

    fn places_of(&self, user: u32) -> u32 {
        let numbers = 0..self.opens.len();
        let mine = numbers.filter(|&open| self.who(open).is_some_and(|(_, whose)| whose == user));
        mine.map(|open| self.highest(open)).sum()
    }

    /// Whether one more handle is too many: in this open, or in a table that had to grow for it.
    fn is_full(&self, open: usize, user: u32) -> bool {
        let handles = self.handles_of(open);
        let grows = handles == self.highest(open);
        handles >= self.limits.handles_per_open
            || grows && self.places_of(user) >= self.limits.handles_per_uid
    }

    fn create(&mut self, number: usize, size: u64, mood: u8) {
        let Some((open, user)) = self.who(number) else {
            return;
        };
        let mood = self.mood(mood);
        let result = self.device.create(open, size, CreateInfo::default());
        self.world.borrow_mut().mood = Mood::Fine;
        if self.revoked.contains(&number) {
            assert!(result.is_err(), "{result:?}");
            return;
        }
        let pages = size.div_ceil(PAGE_SIZE);
        let objects = self.count_of(user, |_| true);
        if size == 0 || size.checked_next_multiple_of(PAGE_SIZE).is_none() {
            assert_eq!(result, Err(Error::ObjectSize(size)));
        } else if pages > self.limits.object.get() {
            let too_large = LedgerError::Object(self.limits.object);
            assert_eq!(result, Err(Error::Limit(too_large)));
        } else if objects >= self.limits.objects_per_uid
            || self.is_full(number, user)
            || !self.has_room(user, pages)
        {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else if mood == Mood::Waits {
            assert_eq!(result, Err(Error::NotReady(Ticket(1))));
        } else if mood == Mood::OutOfMemory && self.finds_memory(pages) {
            assert_eq!(result, Err(Error::Unfinished));
        } else if mood == Mood::Scattered {
            let own = self.purgeable(Some(user));
            self.purge(pages, Some(user));
            let expected = if own > 0 {
                Error::Unfinished
            } else {
                Error::Scattered
            };
            assert_eq!(result, Err(expected));
        } else if mood != Mood::Fine {
            assert_eq!(result, Err(Error::OutOfMemory));
        } else {
            let handle = self.lowest_free(number);
            let expected = (Handle::new(handle).unwrap(), PageCount::new(pages).unwrap());
            assert_eq!(result, Ok(expected));
            let (mut cursor, mut slots) = (ObjectCursor::default(), usize::MAX);
            let objects = std::iter::from_fn(|| self.device.next_object(&mut cursor, &mut slots));
            self.things.push(Thing {
                number: objects.map(|object| object.number).max().unwrap(),
                users: vec![user],
                pages,
                handles: BTreeMap::from([((number, handle), ())]),
                ..Thing::default()
            });
        }
    }

    /// Whether the limits on memory allow a new object, once what may be purged for it was.
    fn has_room(&mut self, user: u32, pages: u64) -> bool {
        self.relieve();
        let excess = |run: &Self| {
            let of_user = run.things.iter().filter(|thing| thing.owner() == user);
            let used: u64 = of_user.map(Thing::charge).sum();
            let total: u64 = run.things.iter().map(Thing::charge).sum();
            let own = (used + pages).saturating_sub(run.limits.uid.get());
            (own, (total + pages).saturating_sub(run.limits.total.get()))
        };
        let (own, all) = excess(self);
        if own > self.purgeable(Some(user)) || all > self.purgeable(None) {
            return false;
        }
        self.purge(own, Some(user));
        let (_, all) = excess(self);
        self.purge(all, None);
        true
    }

    /// Whether something was purged for a source that has no memory.
    fn finds_memory(&mut self, pages: u64) -> bool {
        let left = self.world.borrow().left;
        let purgeable = self.purgeable(None);
        if left.is_some_and(|left| left + purgeable < pages) {
            return false;
        }
        self.purge(pages, None);
        self.purgeable(None) < purgeable
    }

    fn close(&mut self, number: usize, raw: u32) {
        let (Some((open, _)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let result = self.device.close_handle(open, handle);
        match self.find(number, raw) {
            None => assert_eq!(result, Err(Error::NotClosable(handle))),
            Some(index) => {
                assert_eq!(result, Ok(()));
                let thing = &mut self.things[index];
                thing.handles.remove(&(number, raw));
                if thing.prime.get(&number) == Some(&raw) {
                    thing.prime.remove(&number);
                }
                self.settle();
            }
        }
    }

    fn flink(&mut self, number: usize, raw: u32) {
        let (Some((open, _)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let result = self.device.flink(open, handle);
        match self.find(number, raw) {
            None => assert_eq!(result, Err(Error::NoSuchHandle(handle))),
            Some(index)
                if self.things[index].name.is_none()
                    && self.is_at(index, self.limits.names_per_uid, named) =>
            {
                assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
            }
            Some(index) => {
                let name = result.unwrap();
                let others = self
                    .things
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != index);
                for (_, other) in others {
                    assert_ne!(other.name, Some(name), "one name, two objects");
                }
                let known = self.things[index].name.get_or_insert(name);
                assert_eq!(*known, name, "a second name");
                if self.names.last() != Some(&name) {
                    self.names.push(name);
                }
            }
        }
    }

    fn open_name(&mut self, number: usize, name: usize, mood: u8) {
        let (Some((open, user)), Some(&name)) =
            (self.who(number), self.names.iter().rev().nth(name))
        else {
            return;
        };
        let mood = self.mood(mood);
        let result = self.device.open_name(open, name);
        self.world.borrow_mut().mood = Mood::Fine;
        let found = self
            .things
            .iter()
            .position(|thing| thing.name == Some(name));
        let Some(index) = found else {
            assert_eq!(result, Err(Error::NoSuchName(name)));
            return;
        };
        if self.revoked.contains(&number) {
            assert_eq!(result, Err(Error::Revoked));
        } else if self.is_full(number, user) {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else if mood == Mood::DriverFails {
            assert_eq!(result, Err(Error::OutOfMemory));
        } else {
            let handle = self.lowest_free(number);
            assert_eq!(result.unwrap().0.get(), handle);
            self.things[index].handles.insert((number, handle), ());
        }
    }

    fn export(&mut self, number: usize, raw: u32, write: bool) {
        let (Some((open, user)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let result = self.device.export(open, handle, Rights { write });
        let Some(index) = self.find(number, raw) else {
            assert_eq!(result, Err(Error::NoSuchHandle(handle)));
            return;
        };
        if let Some(fd) = self.made_fd(number, user, write, result) {
            let thing = &mut self.things[index];
            thing.fds.insert(fd);
            thing.prime.entry(number).or_insert(raw);
        }
    }

    fn export_name(&mut self, number: usize, name: usize, write: bool) {
        let (Some((open, user)), Some(&name)) =
            (self.who(number), self.names.iter().rev().nth(name))
        else {
            return;
        };
        let result = self.device.export_name(open, name, Rights { write });
        let found = self
            .things
            .iter()
            .position(|thing| thing.name == Some(name));
        let Some(index) = found else {
            assert_eq!(result, Err(Error::NoSuchName(name)));
            return;
        };
        if let Some(fd) = self.made_fd(number, user, write, result) {
            self.things[index].fds.insert(fd);
        }
    }

    /// Keeps a new object fd, if there may be one more, and returns its number.
    fn made_fd(
        &mut self,
        maker: usize,
        user: u32,
        write: bool,
        result: Result<ObjectFdId, Error>,
    ) -> Option<usize> {
        if self.revoked.contains(&maker) {
            assert_eq!(result, Err(Error::Revoked));
            return None;
        }
        let fds = || self.fds.iter().flatten();
        let of_open = fds().filter(|fd| fd.maker == maker).count() as u32;
        let of_user = fds().filter(|fd| fd.user == user).count() as u32;
        if of_open >= self.limits.object_fds_per_open || of_user >= self.limits.object_fds_per_uid {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
            return None;
        }
        let id = result.unwrap();
        self.fds.push(Some(ObjectFile {
            id,
            write,
            maker,
            user,
        }));
        Some(self.fds.len() - 1)
    }

    fn import(&mut self, number: usize, fd: usize) {
        let (Some((open, user)), Some(&Some(ObjectFile { id, write, .. }))) =
            (self.who(number), self.fds.get(fd))
        else {
            return;
        };
        let result = self.device.import(open, id);
        let index = self
            .things
            .iter()
            .position(|thing| thing.fds.contains(&fd))
            .unwrap();
        if !write {
            assert_eq!(result, Err(Error::ReadOnly));
        } else if let Some(&handle) = self.things[index].prime.get(&number) {
            assert_eq!(result.unwrap().0.get(), handle, "the same handle again");
        } else if self.revoked.contains(&number) {
            assert_eq!(result, Err(Error::Revoked));
        } else if self.is_full(number, user) {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else {
            let handle = self.lowest_free(number);
            assert_eq!(result.unwrap().0.get(), handle);
            let thing = &mut self.things[index];
            thing.handles.insert((number, handle), ());
            thing.prime.insert(number, handle);
        }
    }

    fn close_fd(&mut self, fd: usize) {
        let Some(ObjectFile { id, .. }) = self.fds.get_mut(fd).and_then(Option::take) else {
            return;
        };
        self.device.close_object_fd(id);
        self.device.close_object_fd(id);
        assert_eq!(self.device.object_fd(id), Err(Error::NoSuchObjectFd));
        for thing in &mut self.things {
            thing.fds.remove(&fd);
            thing.mapped_by_fd.remove(&fd);
        }
        self.settle();
    }

    fn offset(&mut self, number: usize, raw: u32) {
        let (Some((open, _)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let result = self.device.map_offset(open, handle);
        let Some(index) = self.find(number, raw) else {
            assert_eq!(result, Err(Error::NoSuchHandle(handle)));
            return;
        };
        if let Some(known) = self.things[index].offset {
            assert_eq!(result, Ok(known));
            return;
        }
        if self.is_at(index, self.limits.offsets_per_uid, placed) {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
            return;
        }
        let expected = self.best_fit(self.things[index].pages);
        assert_eq!(result.ok(), expected, "{result:?}");
        if let Some(offset) = expected {
            self.things[index].offset = Some(offset);
            self.offsets.push(offset);
        } else {
            assert_eq!(result, Err(Error::NoSpace));
        }
    }

    /// Whether the payer of a thing has so many such things.
    fn is_at(&self, index: usize, limit: u32, such: fn(&Thing) -> bool) -> bool {
        let payer = self.things[index].owner();
        self.count_of(payer, such) >= limit
    }

    fn count_of(&self, payer: u32, such: fn(&Thing) -> bool) -> u32 {
        let of_payer = self.things.iter().filter(|thing| thing.owner() == payer);
        of_payer.filter(|thing| such(thing)).count() as u32
    }

    /// Mapped things, each of the user's opens counted.
    fn mapped_things(&self, user: u32) -> u32 {
        let mapped = self.things.iter().flat_map(|thing| &thing.mapped);
        let mapped = mapped.filter(|(_, pages)| **pages > 0);
        mapped
            .filter(|(open, _)| self.who(**open).is_some_and(|(_, whose)| whose == user))
            .count() as u32
    }

    /// The smallest gap that is large enough, the lowest of those.
    fn best_fit(&self, pages: u64) -> Option<FakeOffset> {
        let taken = |thing: &Thing| Some((thing.offset?.get(), thing.pages * PAGE_SIZE));
        let mut taken: Vec<_> = self.things.iter().filter_map(taken).collect();
        taken.push((FakeOffset::BASE + self.limits.offset_space.bytes(), 0));
        taken.sort();
        let mut start = FakeOffset::BASE;
        let mut gaps = Vec::new();
        for (next, size) in taken {
            gaps.push((next - start, start));
            start = next + size;
        }
        gaps.retain(|(size, _)| *size >= pages * PAGE_SIZE);
        gaps.sort();
        FakeOffset::new(gaps.first()?.1)
    }

    fn mapped_by(&self, user: u32) -> u64 {
        let mut pages = 0;
        for thing in &self.things {
            for (open, mapped) in &thing.mapped {
                if self.who(*open).is_some_and(|(_, whose)| whose == user) {
                    pages += mapped;
                }
            }
            for (fd, mapped) in &thing.mapped_by_fd {
                if self.fds[*fd].is_some_and(|fd| fd.user == user) {
                    pages += mapped;
                }
            }
        }
        pages
    }

    fn map(&mut self, number: usize, offset: usize, pages: u64, mood: u8) {
        let (Some((open, user)), Some(&offset)) =
            (self.who(number), self.offsets.iter().rev().nth(offset))
        else {
            return;
        };
        let mood = self.mood(mood);
        let size = (pages * PAGE_SIZE).saturating_sub(1);
        let result = self
            .device
            .map(Mapper::Node(open), offset.get(), size, true);
        self.world.borrow_mut().mood = Mood::Fine;
        let found = self
            .things
            .iter()
            .position(|thing| thing.offset == Some(offset));
        let Some(index) = found else {
            assert!(result.is_err());
            return;
        };
        let counted = self.mapped_by(user);
        let many = self.mapped_things(user) >= self.limits.mapped_objects_per_uid;
        let thing = &mut self.things[index];
        let another = thing.mapped.get(&number).is_none_or(|pages| *pages == 0);
        if pages == 0 {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if !thing.held_by(number) {
            assert_eq!(result, Err(Error::NotAllowed));
        } else if pages > thing.pages {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if thing.purged {
            assert_eq!(result, Err(Error::Purged));
        } else if counted + pages > self.limits.mapped_per_uid.get() || another && many {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else if mood == Mood::Waits {
            assert_eq!(result, Err(Error::NotReady(Ticket(2))));
        } else {
            assert!(result.is_ok(), "{result:?}");
            *thing.mapped.entry(number).or_default() += pages;
        }
    }

    fn map_again(&mut self, number: usize, offset: usize, skip: u64, pages: u64) {
        let (Some((open, user)), Some(start)) = (
            self.who(number),
            self.offsets.iter().rev().nth(offset).copied(),
        ) else {
            return;
        };
        let at = start.get() + skip * PAGE_SIZE;
        let result = self.device.map_again(open, at, pages * PAGE_SIZE);
        let counted = self.mapped_by(user);
        let there = |thing: &&mut Thing| {
            thing.offset.is_some_and(|start| {
                (start.get()..start.get() + thing.pages * PAGE_SIZE).contains(&at)
            })
        };
        let Some(thing) = self.things.iter_mut().find(there) else {
            assert!(result.is_err());
            return;
        };
        let skip = (at - thing.offset.unwrap().get()) / PAGE_SIZE;
        let mapped = thing.mapped.get(&number).copied().unwrap_or(0);
        if self.revoked.contains(&number) {
            assert_eq!(result, Err(Error::Revoked));
        } else if pages == 0 {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if mapped == 0 {
            assert_eq!(result, Err(Error::NotAllowed));
        } else if skip + pages > thing.pages {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if counted + pages > self.limits.mapped_per_uid.get() {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else {
            assert!(result.is_ok(), "{result:?}");
            *thing.mapped.entry(number).or_default() += pages;
        }
    }

    fn unmap(&mut self, number: usize, offset: usize, skip: u64, pages: u64) {
        let (Some((open, _)), Some(offset)) =
            (self.who(number), self.offsets.iter().rev().nth(offset))
        else {
            return;
        };
        let at = offset.get() + skip * PAGE_SIZE;
        self.device.unmap(Mapper::Node(open), at, pages * PAGE_SIZE);
        let there = |thing: &&mut Thing| {
            thing.offset.is_some_and(|start| {
                (start.get()..start.get() + thing.pages * PAGE_SIZE).contains(&at)
            })
        };
        if let Some(thing) = self.things.iter_mut().find(there)
            && let Some(mapped) = thing.mapped.get_mut(&number)
        {
            *mapped = mapped.saturating_sub(pages);
        }
        self.settle();
    }

    fn map_fd(&mut self, fd: usize, skip: u64, pages: u64, write: bool) {
        let Some(&Some(ObjectFile {
            id,
            write: writeable,
            user,
            ..
        })) = self.fds.get(fd)
        else {
            return;
        };
        let (offset, size) = (skip * PAGE_SIZE, pages * PAGE_SIZE);
        let result = self.device.map(Mapper::Object(id), offset, size, write);
        let counted = self.mapped_by(user);
        let thing = self
            .things
            .iter_mut()
            .find(|thing| thing.fds.contains(&fd))
            .unwrap();
        if pages == 0 {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if write && !writeable {
            assert_eq!(result, Err(Error::ReadOnly));
        } else if skip + pages > thing.pages {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if thing.purged {
            assert_eq!(result, Err(Error::Purged));
        } else if counted + pages > self.limits.mapped_per_uid.get() {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else {
            assert_eq!(result.unwrap().get() as u64 % (1 << 32), offset);
            *thing.mapped_by_fd.entry(fd).or_default() += pages;
        }
    }

    fn unmap_fd(&mut self, fd: usize, pages: u64) {
        let Some(&Some(ObjectFile { id, .. })) = self.fds.get(fd) else {
            return;
        };
        self.device.unmap(Mapper::Object(id), 0, pages * PAGE_SIZE);
        let thing = self
            .things
            .iter_mut()
            .find(|thing| thing.fds.contains(&fd))
            .unwrap();
        if let Some(mapped) = thing.mapped_by_fd.get_mut(&fd) {
            *mapped = mapped.saturating_sub(pages);
        }
    }

    /// Everything that can be counted, on both sides.
    fn compare(&self) {
        let stats = self.device.stats();
        let things = &self.things;
        let handles: usize = things.iter().map(|thing| thing.handles.len()).sum();
        assert_eq!(stats.opens, self.opens.iter().flatten().count());
        assert_eq!(stats.objects, things.len());
        assert_eq!(stats.handles, handles as u64);
        assert_eq!(stats.object_fds, self.fds.iter().flatten().count());
        assert_eq!(
            stats.names,
            things.iter().filter(|t| t.name.is_some()).count()
        );
        assert_eq!(
            stats.offsets,
            things.iter().filter(|t| t.offset.is_some()).count()
        );
        assert_eq!(
            stats.memory.get(),
            things.iter().map(Thing::charge).sum::<u64>()
        );
        assert_eq!(stats.purgeable.get(), self.purgeable(None));
        let purged = things.iter().filter(|thing| thing.purged).count();
        assert_eq!(stats.purges.objects, purged);
        assert_eq!(stats.purges.pages, self.lost);
        assert_eq!(stats.pressure, self.pressure);
        assert_eq!(
            stats.mapped.get(),
            things.iter().map(Thing::mapped_pages).sum::<u64>()
        );
        let world = self.world.borrow();
        assert_eq!(world.live.len(), things.len() - purged);
        assert_eq!(world.objects.len(), things.len());
        assert_eq!(world.handles, handles as i64);
        self.compare_objects();
        self.compare_accounts();
        self.compare_clients();
        self.compare_usage();
    }

    fn compare_objects(&self) {
        let mut cursor = ObjectCursor::default();
        let mut seen = Vec::new();
        let mut expected: Vec<_> = self
            .things
            .iter()
            .map(|thing| {
                (
                    (thing.number, thing.owner(), thing.pages),
                    (thing.unneeded, thing.purged, thing.is_purgeable()),
                    thing.handles.len() as u32,
                    thing.holders().len(),
                    thing.fds.len() as u32,
                    thing.mapped_pages(),
                    thing.name,
                    thing.offset,
                )
            })
            .collect();
        // In steps of two slots, as a server would walk a long table.
        loop {
            let mut slots = 2;
            while let Some(object) = self.device.next_object(&mut cursor, &mut slots) {
                let unneeded = object.advice == Advice::DontNeed;
                seen.push((
                    (object.number, object.owner.0, object.pages.get()),
                    (unneeded, object.is_purged, object.is_purgeable),
                    object.handles,
                    object.holders,
                    object.fds,
                    object.mapped.get(),
                    object.name,
                    object.offset,
                ));
            }
            if slots > 0 {
                break;
            }
        }
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected);
    }

    /// The lists of opens: everybody's, and each user's own.
    fn compare_clients(&self) {
        let opens = || self.opens.iter().flatten();
        let listed = |of| self.device.clients(of, 0).map(|(_, open)| open);
        let all: Vec<_> = opens().map(|(open, _)| *open).collect();
        assert_eq!(listed(None).collect::<Vec<_>>(), all);
        for user in 0..3 {
            let mine = opens().filter(|(_, whose)| *whose == user);
            let mine: Vec<_> = mine.map(|(open, _)| *open).collect();
            assert_eq!(listed(Some(Uid(user))).collect::<Vec<_>>(), mine);
        }
        let mut after = 0;
        for (number, open) in self.device.clients(None, 0) {
            assert!(number > after, "in order");
            assert_eq!(
                self.device.clients(None, after).next(),
                Some((number, open))
            );
            assert_eq!(self.device.client(number), Some(open));
            after = number;
        }
    }

    /// What each open holds: every object once, whatever it has of it.
    fn compare_usage(&self) {
        for (number, open) in self.opens.iter().enumerate() {
            let Some((open, _)) = *open else { continue };
            let sum = |least: usize| {
                let held = self.things.iter().map(|thing| (thing, thing.holders()));
                held.filter(|(_, holders)| holders.contains(&number) && holders.len() >= least)
                    .map(|(thing, _)| thing.pages)
                    .sum::<u64>()
            };
            let usage = self.device.open_stats(open).unwrap().usage;
            assert_eq!(usage.total.get(), sum(1));
            assert_eq!(usage.shared.get(), sum(2));
            let held = || {
                let things = self.things.iter();
                things.filter(|thing| thing.holders().contains(&number))
            };
            let purgeable: u64 = held()
                .filter(|thing| thing.is_purgeable())
                .map(|thing| thing.pages)
                .sum();
            assert_eq!(usage.purgeable.get(), purgeable);
            let resident: u64 = held().map(Thing::charge).sum();
            assert_eq!(usage.resident.get(), resident);
        }
    }

    fn compare_accounts(&self) {
        for account in self.device.accounts() {
            let user = account.uid.0;
            let mine = |thing: &&Thing| thing.owner() == user;
            let opens = self
                .opens
                .iter()
                .flatten()
                .filter(|(_, whose)| *whose == user);
            let fds = self.fds.iter().flatten().filter(|fd| fd.user == user);
            assert_eq!(account.opens as usize, opens.count());
            assert_eq!(
                account.objects as usize,
                self.things.iter().filter(mine).count()
            );
            assert_eq!(
                account.memory.get(),
                self.things
                    .iter()
                    .filter(mine)
                    .map(Thing::charge)
                    .sum::<u64>()
            );
            assert_eq!(account.handles, self.places_of(user));
            assert_eq!(account.object_fds as usize, fds.count());
            assert_eq!(account.mapped.get(), self.mapped_by(user));
            assert_eq!(account.mapped_objects, self.mapped_things(user));
            assert_eq!(account.names, self.count_of(user, named));
            assert_eq!(account.offsets, self.count_of(user, placed));
        }
        for &(open, user) in self.opens.iter().flatten() {
            let stats = self.device.open_stats(open).unwrap();
            assert_eq!(stats.purgeable_of_uid.get(), self.purgeable(Some(user)));
        }
    }

    fn end(self) {
        let world = self.world.clone();
        let (_, _) = self.device.tear_down();
        let world = world.borrow();
        assert!(
            world.live.is_empty() && world.objects.is_empty(),
            "something is left"
        );
        assert_eq!(world.handles, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn the_manager_does_what_the_model_does(steps in steps()) {
        let mut run = Run::new();
        for user in 0..3 {
            run.open(user);
        }
        for step in &steps {
            run.time += 1;
            run.step(step);
            run.recount_users();
            run.date();
            run.compare();
        }
        run.end();
    }
}
