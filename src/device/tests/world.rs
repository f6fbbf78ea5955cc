//! A page source and a driver that remember what they were asked, and fail when told to.

use super::*;

/// What a source and a driver were asked, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    Allocate,
    Window,
    Free,
    Init,
    ObjectPurge,
    ObjectFree,
    TakeBack,
    HandleOpen,
    HandleClose,
}

/// A source and a driver that remember, and fail when told to.
#[derive(Clone, Default)]
pub(super) struct World(pub(super) Rc<RefCell<Memory>>);

#[derive(Default)]
pub(super) struct Memory {
    pub(super) events: Vec<Event>,
    pub(super) fails: Option<(Event, NotReady)>,
    pub(super) bytes: BTreeMap<u64, Vec<u8>>,
    pub(super) made: u64,
    /// Of sets that came back, whether they were exposed.
    pub(super) exposed: Vec<bool>,
    /// Pages that the machine has left, if it is to be known, and those of them that the source
    /// keeps for whoever asks next.
    pub(super) left: Option<u64>,
    pub(super) idle: u64,
    /// What the last allocation's owner might have.
    pub(super) room: PageCount,
}

impl World {
    fn note(&self, event: Event) -> Result<(), NotReady> {
        let mut memory = self.0.borrow_mut();
        memory.events.push(event);
        match memory.fails {
            Some((fails, how)) if fails == event => Err(how),
            _ => Ok(()),
        }
    }

    pub(super) fn fail(&self, event: Event, how: NotReady) {
        self.0.borrow_mut().fails = Some((event, how));
    }

    pub(super) fn work(&self) {
        self.0.borrow_mut().fails = None;
    }

    pub(super) fn events(&self) -> Vec<Event> {
        take(&mut self.0.borrow_mut().events)
    }
}

pub(super) fn set(key: u64, pages: PageCount) -> PageSet {
    let start = PhysAddr::new(key << 32);
    PageSet::new(key, Extents::One(Extent { start, pages })).unwrap()
}

impl PageSource for World {
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady> {
        self.0.borrow_mut().room = request.room;
        self.note(Allocate)?;
        let mut memory = self.0.borrow_mut();
        memory.made += 1;
        let key = memory.made;
        let zero = vec![0; request.pages.bytes() as usize];
        memory.bytes.insert(key, zero);
        Ok(set(key, request.pages))
    }

    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady> {
        self.note(Window)?;
        assert!(set.is_exposed());
        Ok(WindowAddr::new((set.key() << 32) as usize).unwrap())
    }

    fn read(&mut self, set: &PageSet, offset: u64, bytes: &mut [u8]) -> Result<(), NotReady> {
        let memory = self.0.borrow();
        let from = offset as usize;
        bytes.copy_from_slice(&memory.bytes[&set.key()][from..from + bytes.len()]);
        Ok(())
    }

    fn write(&mut self, set: &PageSet, offset: u64, bytes: &[u8]) -> Result<(), NotReady> {
        assert!(set.is_exposed());
        let mut memory = self.0.borrow_mut();
        let from = offset as usize;
        let all = memory.bytes.get_mut(&set.key()).unwrap();
        all[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn free(&mut self, _: Uid, set: PageSet) {
        self.note(Free).unwrap();
        let mut memory = self.0.borrow_mut();
        let freed = memory.bytes.remove(&set.key()).expect("freed twice");
        let exposed = set.is_exposed();
        assert!(exposed || freed.iter().all(|&byte| byte == 0));
        memory.exposed.push(exposed);
        memory.left = memory.left.map(|left| left + set.pages().get());
    }

    fn left(&self) -> Option<PageCount> {
        self.0.borrow().left.map(pages)
    }

    fn give_back(&mut self) -> PageCount {
        pages(take(&mut self.0.borrow_mut().idle))
    }
}

impl Driver for World {
    fn object_init(&mut self, _: ObjectInfo) -> Result<(), NotReady> {
        self.note(Init)
    }

    fn object_purge(&mut self, _: ObjectInfo) {
        self.note(ObjectPurge).unwrap();
    }

    fn object_free(&mut self, _: ObjectInfo) {
        self.note(ObjectFree).unwrap();
    }

    fn take_back(&mut self, _: PageSet) {
        self.note(TakeBack).unwrap();
    }

    fn handle_open(&mut self, _: OpenId, _: ObjectInfo) -> Result<(), NotReady> {
        self.note(HandleOpen)
    }

    fn handle_close(&mut self, _: OpenId, _: ObjectInfo) {
        self.note(HandleClose).unwrap();
    }
}
