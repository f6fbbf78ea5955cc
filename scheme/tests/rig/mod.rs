//! The server without a kernel: SQEs made by hand, answers looked at, a platform that does what
//! the test says. What needs real processes and real mappings is tested elsewhere.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use gem::pages::{
    Extent, Extents, NotReady, PageRequest, PageSet, PageSource, PlatformError, Ticket,
};
use gem::units::{Gid, Identity, PAGE_SIZE, PageCount, PhysAddr, Pid, Uid, WindowAddr};
use gem::user::{SpaceFd, UserFault, UserRange, UserSet, UserSource};
use gem::{Config, Limits, NameMode};
use gem_wire::event::{Event, RECORD_SIZE, Record};
use gemd::answer::Answer;
use gemd::executor::{Answers, Executor};
use gemd::fds::FdId;
use gemd::platform::Platform;
use gemd::server::Server;
use gemd::sqe::{self, Tag};
use syscall::flag::{EventFlags, MapFlags};
use syscall::schemev2::{Opcode, Sqe, SqeFlags};
use zerocopy::FromBytes;

/// What the test and the platform share.
#[derive(Default)]
pub struct World {
    /// Sets that were allocated and not freed.
    pub live: BTreeSet<u64>,
    next_key: u64,
    /// How many more allocations have to wait before one succeeds.
    pub waits: usize,
    /// Tickets given out and not finished.
    pub begun: Vec<Ticket>,
    finished: Vec<Ticket>,
    next_ticket: u64,
    /// Processes that exist.
    pub users: HashMap<u64, u32>,
    /// Whether clients' own pages can be taken over.
    pub takes_user_pages: bool,
    /// Fds that were obtained and not closed.
    pub fds: BTreeSet<usize>,
    pub last_fd: usize,
    /// How often it was asked whose a process is.
    pub identities: usize,
    /// What is being taken over, and what came of it.
    pub taking: BTreeMap<Ticket, Taking>,
    /// User sets that were handed out and not released.
    pub user_sets: BTreeMap<u64, Uid>,
    /// Whether it takes a worker to end the daemon's access to one.
    pub releases_wait: bool,
    /// After how many more calls that can fail one does, and how.
    pub fails: Option<(usize, Failure)>,
    /// How every call fails that gives new pages, and where it is `Later` every one that says where
    /// pages are.
    pub mood: Option<Failure>,
    /// Pages that the machine has left, if the source knows.
    pub left: Option<u64>,
}

/// How the platform fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// There is no memory, or nobody of that pid, or no more room for whatever it is.
    Exhausted,
    /// Its user leaves too much unused.
    Scattered,
    /// It fails in a way it should not.
    Broken,
    /// It has to be asked again later.
    Later,
}

/// What the platform knows of an acquisition.
pub struct Taking {
    pub owner: Uid,
    pub range: UserRange,
    outcome: Option<Result<UserSet, UserFault>>,
    pub abandoned: bool,
}

impl World {
    /// Finishes everything that was begun; the next kick tells the server.
    pub fn finish_all(&mut self) {
        self.finished.append(&mut self.begun);
    }

    /// The failure of this call, if it is its turn.
    fn failure(&mut self) -> Option<Failure> {
        let (before, failure) = self.fails.as_mut()?;
        if let Some(less) = before.checked_sub(1) {
            *before = less;
            return None;
        }
        let failure = *failure;
        self.fails = None;
        Some(failure)
    }

    /// What a call says that gives new pages, or makes them a client's.
    fn not_ready(&mut self) -> Option<NotReady> {
        match self.wait() {
            Some(ticket) => Some(NotReady::Wait(ticket)),
            None => self.failing(),
        }
    }

    /// What a call says that gives access to pages.
    fn failing(&mut self) -> Option<NotReady> {
        let failure = self.failure()?;
        Some(self.fail(failure))
    }

    fn fail(&mut self, failure: Failure) -> NotReady {
        match failure {
            Failure::Exhausted => NotReady::OutOfMemory,
            Failure::Scattered => NotReady::Scattered,
            Failure::Broken => NotReady::Refused(PlatformError::Failed),
            Failure::Later => {
                let ticket = self.ticket();
                self.begun.push(ticket);
                NotReady::Wait(ticket)
            }
        }
    }

    fn wait(&mut self) -> Option<Ticket> {
        self.waits = self.waits.checked_sub(1)?;
        let ticket = self.ticket();
        self.begun.push(ticket);
        Some(ticket)
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Whether the worker has something to take over, or to undo.
    pub fn is_taking(&self) -> bool {
        self.taking.values().any(|taking| taking.outcome.is_none())
    }

    /// The worker has taken the oldest range over, or has not been able to; or, where nobody wants
    /// it, has undone it.
    pub fn finish_taking(&mut self, fault: Option<UserFault>) {
        let mut all = self.taking.iter_mut();
        let (&ticket, taking) = all.find(|(_, taking)| taking.outcome.is_none()).unwrap();
        if taking.abandoned {
            self.taking.remove(&ticket);
        } else {
            self.next_key += 1;
            let set = UserSet::new(self.next_key, taking.range.pages());
            taking.outcome = Some(fault.map_or(Ok(set), Err));
        }
        self.finished.push(ticket);
    }
}

pub struct Pages(Rc<RefCell<World>>);

impl PageSource for Pages {
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady> {
        let mut world = self.0.borrow_mut();
        if let Some(mood) = world.mood {
            return Err(world.fail(mood));
        }
        if let Some(not_ready) = world.not_ready() {
            return Err(not_ready);
        }
        world.next_key += 1;
        let key = world.next_key;
        world.live.insert(key);
        let start = PhysAddr::new(key << 40);
        let pages = request.pages;
        Ok(PageSet::new(key, Extents::One(Extent { start, pages })).unwrap())
    }

    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady> {
        let mut world = self.0.borrow_mut();
        if world.mood == Some(Failure::Later) {
            return Err(world.fail(Failure::Later));
        }
        if let Some(not_ready) = world.failing() {
            return Err(not_ready);
        }
        Ok(WindowAddr::new((set.key() as usize) << 40).unwrap())
    }

    fn read(&mut self, _: &PageSet, _: u64, bytes: &mut [u8]) -> Result<(), NotReady> {
        if let Some(not_ready) = self.0.borrow_mut().failing() {
            return Err(not_ready);
        }
        bytes.fill(0);
        Ok(())
    }

    fn write(&mut self, _: &PageSet, _: u64, _: &[u8]) -> Result<(), NotReady> {
        self.0.borrow_mut().failing().map_or(Ok(()), Err)
    }

    fn free(&mut self, _: Uid, set: PageSet) {
        assert!(self.0.borrow_mut().live.remove(&set.key()), "freed twice");
    }

    fn left(&self) -> Option<PageCount> {
        let left = self.0.borrow().left?;
        Some(PageCount::new(left).unwrap())
    }

    fn user_window(&mut self, set: &UserSet) -> Result<WindowAddr, NotReady> {
        let mut world = self.0.borrow_mut();
        if let Some(not_ready) = world.not_ready() {
            return Err(not_ready);
        }
        assert!(world.user_sets.contains_key(&set.key()));
        Ok(WindowAddr::new((set.key() as usize) << 40).unwrap())
    }

    fn release_user(&mut self, owner: Uid, set: UserSet) -> Option<Ticket> {
        let mut world = self.0.borrow_mut();
        let released = world.user_sets.remove(&set.key());
        assert_eq!(
            released,
            Some(owner),
            "released twice, or for somebody else"
        );
        world.releases_wait.then(|| {
            let ticket = world.ticket();
            world.begun.push(ticket);
            ticket
        })
    }
}

impl UserSource for Pages {
    fn takes_user_pages(&self) -> bool {
        self.0.borrow().takes_user_pages
    }

    fn acquire(
        &mut self,
        owner: Uid,
        space: SpaceFd,
        range: UserRange,
    ) -> Result<Ticket, UserFault> {
        let mut world = self.0.borrow_mut();
        assert!(world.fds.remove(&space.into_raw()), "closed twice");
        if world.taking.len() >= 3 || world.failure().is_some() {
            return Err(UserFault::Busy);
        }
        let ticket = world.ticket();
        let taking = Taking {
            owner,
            range,
            outcome: None,
            abandoned: false,
        };
        world.taking.insert(ticket, taking);
        Ok(ticket)
    }

    fn acquired(&mut self, ticket: Ticket) -> Option<Result<UserSet, UserFault>> {
        let mut world = self.0.borrow_mut();
        world.taking.get(&ticket)?.outcome.as_ref()?;
        let Taking { owner, outcome, .. } = world.taking.remove(&ticket)?;
        if let Some(Ok(set)) = &outcome {
            world.user_sets.insert(set.key(), owner);
        }
        outcome
    }

    fn abandon(&mut self, ticket: Ticket) {
        let mut world = self.0.borrow_mut();
        let taking = world.taking.get_mut(&ticket).expect("something to abandon");
        assert!(!taking.abandoned, "abandoned twice");
        taking.abandoned = true;
        taking.outcome = None;
        world.finished.retain(|&finished| finished != ticket);
    }
}

pub struct Machine(Rc<RefCell<World>>);

impl Platform for Machine {
    type Pages = Pages;

    fn identity(&mut self, pid: Pid) -> Option<Identity> {
        self.0.borrow_mut().identities += 1;
        if self.0.borrow_mut().failure().is_some() {
            return None;
        }
        let uid = *self.0.borrow().users.get(&pid.0)?;
        Some(Identity {
            uid: Uid(uid),
            gid: Gid(uid),
            pid,
        })
    }

    fn finished(&mut self, _: &mut Pages, tickets: &mut Vec<Ticket>) {
        tickets.append(&mut self.0.borrow_mut().finished);
    }
}

/// Pids that exist, and whose they are.
pub const ROOT: u64 = 10;
pub const ALICE: u64 = 20;
pub const ALICE_TOO: u64 = 21;
pub const BOB: u64 = 30;

/// A server, and the words to talk to it.
pub struct Rig {
    pub executor: Executor<Machine>,
    pub world: Rc<RefCell<World>>,
    pub root: FdId,
    pub control: FdId,
    next_tag: u32,
    pub answers: Answers,
}

impl Rig {
    pub fn new() -> Self {
        Self::with_limits(Limits::for_memory(PageCount::new(1 << 20).unwrap()))
    }

    pub fn with_limits(limits: Limits) -> Self {
        Self::with_config(Config {
            limits,
            names: NameMode::Sequential,
        })
    }

    pub fn with_config(config: Config) -> Self {
        let world = Rc::new(RefCell::new(World::default()));
        for (pid, uid) in [(ROOT, 0), (ALICE, 1000), (ALICE_TOO, 1000), (BOB, 1001)] {
            world.borrow_mut().users.insert(pid, uid);
        }
        let mut server = Server::new(config, Machine(world.clone()), Pages(world.clone()));
        let root = server.root().unwrap();
        let control = server.control().unwrap();
        let to_obtain = world.clone();
        server.set_obtain(Box::new(move |_, numbers| {
            let mut world = to_obtain.borrow_mut();
            for number in numbers {
                world.last_fd += 1;
                *number = world.last_fd;
                let fd = world.last_fd;
                world.fds.insert(fd);
            }
            Ok(())
        }));
        Self {
            executor: Executor::new(server),
            world,
            root,
            control,
            next_tag: 0,
            answers: Answers::new(),
        }
    }

    /// Sends one SQE; answers that are due collect in `answers`.
    pub fn send(&mut self, pid: u64, opcode: Opcode, flags: SqeFlags, args: [u64; 6]) -> Tag {
        let tag = self.post(pid, opcode, flags, args);
        self.run();
        tag
    }

    /// Sends one SQE that gets one attempt.
    pub fn post(&mut self, pid: u64, opcode: Opcode, flags: SqeFlags, args: [u64; 6]) -> Tag {
        self.next_tag += 1;
        let sqe = Sqe {
            opcode: opcode as u8,
            sqe_flags: flags,
            _rsvd: 0,
            tag: self.next_tag,
            args,
            caller: pid,
        };
        // SAFETY: payloads of these tests are the test's own memory, which outlives the request.
        let message = unsafe { sqe::decode(&sqe) };
        self.executor.message(message, &mut self.answers);
        Tag(sqe.tag)
    }

    /// A turn without anything from the kernel.
    pub fn run(&mut self) {
        self.executor.run_ready(&mut self.answers);
    }

    /// Files that the kernel was told of since this was last asked.
    pub fn readable(&mut self) -> Vec<FdId> {
        core::iter::from_fn(|| self.executor.next_readable()).collect()
    }

    /// The answer to this request, if there is one by now.
    pub fn answer(&mut self, tag: Tag) -> Option<Answer> {
        let index = self
            .answers
            .iter()
            .position(|(answered, _)| *answered == tag)?;
        Some(self.answers.swap_remove(index).1)
    }

    pub fn now(&mut self, tag: Tag) -> Result<u64, i32> {
        match self.answer(tag).expect("an answer at once") {
            Answer::Value(value) => Ok(value),
            Answer::File { id, .. } => Ok(id.raw()),
            Answer::Error(errno) | Answer::Unwanted(errno, _) => Err(errno.0),
        }
    }

    pub fn open_at(&mut self, pid: u64, at: FdId, path: &str, flags: usize) -> Result<FdId, i32> {
        let args = [
            at.raw(),
            path.as_ptr() as u64,
            path.len() as u64,
            flags as u64,
            0,
            0,
        ];
        let tag = self.send(pid, Opcode::OpenAt, SqeFlags::empty(), args);
        self.now(tag).map(FdId::from_raw)
    }

    pub fn open(&mut self, pid: u64, path: &str) -> FdId {
        self.open_at(pid, self.root, path, syscall::flag::O_RDWR)
            .unwrap()
    }

    /// A native call whose answer may take its time.
    pub fn begin(&mut self, pid: u64, fd: FdId, words: [u64; 3]) -> Tag {
        let [number, first, second] = words;
        let args = [fd.raw(), 1 << 62, 0, number, first, second];
        self.send(pid, Opcode::Call, SqeFlags::empty(), args)
    }

    pub fn call(&mut self, pid: u64, fd: FdId, call: gem_wire::native::Call) -> Result<u64, i32> {
        let tag = self.begin(pid, fd, call.encode());
        self.now(tag)
    }

    pub fn words(&mut self, pid: u64, fd: FdId, words: [u64; 3]) -> Result<u64, i32> {
        let tag = self.begin(pid, fd, words);
        self.now(tag)
    }

    pub fn drm(&mut self, pid: u64, fd: FdId, number: u64, payload: &mut [u8]) -> Result<u64, i32> {
        let address = payload.as_mut_ptr() as u64;
        let args = [fd.raw(), address, payload.len() as u64, number, 0, 0];
        let tag = self.send(pid, Opcode::Call, SqeFlags::empty(), args);
        self.now(tag)
    }

    /// Sends fds to a file; the answer may take its time.
    pub fn send_fds(&mut self, pid: u64, fd: FdId, word: u64, count: u64) -> Tag {
        let args = [fd.raw(), 0, word, count, 0, 0];
        self.send(pid, Opcode::Sendfd, SqeFlags::empty(), args)
    }

    pub fn import(&mut self, pid: u64, node: FdId, object: FdId) -> Result<u64, i32> {
        let [number, ..] = gem_wire::native::Call::Import.encode();
        let args = [node.raw(), 1 << 62, 0, number, 0, object.raw()];
        let tag = self.send(pid, Opcode::Call, SqeFlags::MULTIPLE_IDS, args);
        self.now(tag)
    }

    pub fn dup(&mut self, pid: u64, fd: FdId, path: &str) -> Result<FdId, i32> {
        let args = [fd.raw(), path.as_ptr() as u64, path.len() as u64, 0, 0, 0];
        let tag = self.send(pid, Opcode::Dup, SqeFlags::empty(), args);
        self.now(tag).map(FdId::from_raw)
    }

    pub fn map(
        &mut self,
        pid: u64,
        fd: FdId,
        offset: u64,
        size: u64,
        flags: MapFlags,
    ) -> Result<u64, i32> {
        let args = [fd.raw(), size, flags.bits() as u64, offset, 0, 0];
        let tag = self.send(pid, Opcode::MmapPrep, SqeFlags::empty(), args);
        self.now(tag)
    }

    pub fn unmap(&mut self, pid: u64, fd: FdId, offset: u64, size: u64) {
        let args = [fd.raw(), size, 0, offset, 0, 0];
        let tag = self.send(pid, Opcode::Munmap, SqeFlags::empty(), args);
        assert_eq!(self.now(tag), Ok(0));
    }

    pub fn read(&mut self, pid: u64, fd: FdId, offset: u64, bytes: &mut [u8]) -> Result<u64, i32> {
        let args = [
            fd.raw(),
            bytes.as_mut_ptr() as u64,
            bytes.len() as u64,
            offset,
            0,
            0,
        ];
        let tag = self.send(pid, Opcode::Read, SqeFlags::empty(), args);
        self.now(tag)
    }

    /// A read of events whose answer may take its time. The bytes must live until then.
    pub fn begin_read(&mut self, pid: u64, fd: FdId, bytes: &mut [u8], flags: usize) -> Tag {
        let (address, length) = (bytes.as_mut_ptr() as u64, bytes.len() as u64);
        let args = [fd.raw(), address, length, u64::MAX, flags as u64, 0];
        self.send(pid, Opcode::Read, SqeFlags::empty(), args)
    }

    /// The events that are there, as this process reads them.
    pub fn events(&mut self, pid: u64, fd: FdId) -> Result<Vec<Event>, i32> {
        let mut bytes = [0; 100 * RECORD_SIZE];
        let tag = self.begin_read(pid, fd, &mut bytes, syscall::flag::O_NONBLOCK);
        let length = self.now(tag)? as usize;
        Ok(decode(&bytes[..length]))
    }

    /// What the kernel asks when somebody begins to wait.
    pub fn fevent(&mut self, pid: u64, fd: FdId, events: EventFlags) -> Result<u64, i32> {
        let args = [fd.raw(), events.bits() as u64, 0, 0, 0, 0];
        let tag = self.send(pid, Opcode::Fevent, SqeFlags::empty(), args);
        self.now(tag)
    }

    /// A whole text file, as this process sees it.
    pub fn text(&mut self, pid: u64, path: &str) -> String {
        let flags = syscall::flag::O_RDONLY;
        let fd = self.open_at(pid, self.root, path, flags).unwrap();
        let mut text = Vec::new();
        let mut buffer = [0; 100];
        loop {
            let length = self.read(pid, fd, text.len() as u64, &mut buffer).unwrap() as usize;
            if length == 0 {
                break;
            }
            text.extend_from_slice(&buffer[..length]);
        }
        self.close(fd);
        String::from_utf8(text).unwrap()
    }

    pub fn close(&mut self, fd: FdId) {
        let args = [fd.raw(), 0, 0, 0, 0, 0];
        self.send(0, Opcode::CloseMsg, SqeFlags::empty(), args);
    }

    pub fn cancel(&mut self, tag: Tag) {
        let sqe = Sqe {
            opcode: Opcode::Cancel as u8,
            sqe_flags: SqeFlags::ONEWAY,
            tag: tag.0,
            ..Sqe::default()
        };
        // SAFETY: a Cancel has no payload.
        let message = unsafe { sqe::decode(&sqe) };
        self.executor.message(message, &mut self.answers);
    }

    /// The platform's worker says that it has finished something.
    pub fn kick(&mut self) {
        let control = self.control;
        assert_eq!(self.words(0, control, [sqe::KICK, 0, 0]), Ok(0));
    }
}

/// The events in these bytes.
pub fn decode(bytes: &[u8]) -> Vec<Event> {
    let records = <[Record]>::ref_from_bytes(bytes).expect("whole records");
    let event = |record: &Record| record.event().expect("a known event");
    records.iter().map(event).collect()
}

/// `SIZE` of a page as the calls take it.
pub const PAGE: u64 = PAGE_SIZE;
