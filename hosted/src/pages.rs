//! Pages as memory files: the page source of a daemon that runs on the stand-in kernel.
//!
//! An object's pages are a memory file of its own, made when it is first mapped or written: an
//! object that nobody touched needs neither memory nor a file descriptor, and reads as zero.
//! Making and sizing the file is work for a thread, fair between users, so that no method blocks;
//! the source says [`NotReady::Wait`] meanwhile. A user may have as many files as are left for
//! others. Physical addresses and windows are made up: they are never used
//! twice, and the kernel (the stand-in) is the only one who can make something of a window. All
//! kinds of caching and contiguity are accepted, and mean nothing. Clients' own pages that are
//! taken over are in memory files, too (`user`).
//!
//! A daemon asks [`MemfdPages::finished`] what is done, and can be told when to ask
//! ([`MemfdPages::set_notify`]). While there are sets, it is also told every now and then to look
//! how much memory the machine has left.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use gem::pages::{
    Extent, Extents, NotReady, PageRequest, PageSet, PageSource, PlatformError, Ticket,
};
use gem::units::{PageCount, PhysAddr, Uid, WindowAddr};
use gem::user::{SpaceFd, UserFault, UserRange, UserSet, UserSource};
use nix::errno::Errno;
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{SysconfVar, sysconf};

use crate::left::Watch;
use crate::memfd::{self, FdBudget, Memfd, Window};
use crate::user::sets::UserSets;
use crate::work::Work;

/// Where made-up physical memory begins: above anything that a PC could have there.
const PHYSICAL_BASE: u64 = 1 << 52;
/// Where windows begin: beyond all user addresses.
const WINDOW_BASE: u64 = 1 << 48;
/// How many pages are ever handed out. None is used twice.
const ADDRESSES: u64 = 1 << 48;

/// What the source calls when it has finished something.
pub(crate) type Notify = Box<dyn Fn() + Send>;

/// Pages as memory files. One a process, since the files are found by address.
pub struct MemfdPages {
    sets: HashMap<u64, Set>,
    /// The first page that was never handed out.
    next_page: u64,
    next_ticket: u64,
    capacity: PageCount,
    memfds_max: usize,
    /// How many memory files each user's sets have, or will have; no user without any.
    files: HashMap<Uid, usize>,
    jobs: Arc<Work<Job>>,
    done: Receiver<Done>,
    notify: Arc<Mutex<Option<Notify>>>,
    user: UserSets,
    /// Why clients' own pages cannot be taken over.
    no_user_pages: Option<&'static str>,
    watch: Watch,
    /// Pages that the machine has left: what was seen last, and what was given back since.
    left: Option<PageCount>,
}

/// A live page set.
struct Set {
    owner: Uid,
    window: WindowAddr,
    state: SetState,
}

enum SetState {
    /// Never touched: all zero.
    Untouched,
    /// Its memory file is being made.
    Making(Ticket),
    /// It has its memory file.
    Ready(Arc<Memfd>),
    /// Its memory file could not be made; who asks next is told, once.
    Failed(Errno),
}

struct Job {
    key: u64,
    pages: PageCount,
    ticket: Ticket,
}

struct Done {
    key: u64,
    ticket: Ticket,
    memfd: nix::Result<Memfd>,
}

impl MemfdPages {
    /// A source as large as the machine's memory. Raises this process's limit on open files to
    /// what its user is allowed, and uses them but for a share that the stand-in kernel needs.
    ///
    /// # Errors
    ///
    /// The machine's memory or limits cannot be found out, or no thread can be started.
    pub fn new() -> io::Result<Self> {
        let pages = sysconf(SysconfVar::_PHYS_PAGES)?.and_then(|pages| u64::try_from(pages).ok());
        let capacity = pages.and_then(PageCount::new);
        let capacity = capacity.ok_or_else(|| io::Error::other("unknown amount of memory"))?;
        let jobs = Arc::new(Work::new());
        let to_do = jobs.clone();
        let (finished, done) = channel();
        let notify = Arc::new(Mutex::new(None));
        let worker_notify = notify.clone();
        thread::Builder::new()
            .name("memory files".to_owned())
            .spawn(move || work(&to_do, &finished, &worker_notify))?;
        let watch_notify = notify.clone();
        let watch = Watch::start(move || tell(&watch_notify))?;
        Ok(Self {
            sets: HashMap::new(),
            next_page: 0,
            next_ticket: 0,
            capacity,
            memfds_max: FdBudget::claim()?.memfds,
            files: HashMap::new(),
            jobs,
            done,
            user: UserSets::new(notify.clone())?,
            no_user_pages: crate::no_user_pages(),
            notify,
            watch,
            left: None,
        })
    }

    /// How much memory the machine has.
    pub fn capacity(&self) -> PageCount {
        self.capacity
    }

    /// How many page sets are live.
    pub fn live_sets(&self) -> usize {
        self.sets.len()
    }

    /// How many memory files are open in this process, including those that are only still on
    /// their way to a client.
    pub fn open_files(&self) -> usize {
        memfd::open_count()
    }

    /// How many memory files may be open: beyond, mapping fails with ENFILE.
    pub fn open_files_max(&self) -> usize {
        self.memfds_max
    }

    /// Has `notify` called, from another thread, after each piece of work that is finished.
    pub fn set_notify(&mut self, notify: Notify) {
        *self.notify.lock().unwrap_or_else(PoisonError::into_inner) = Some(notify);
    }

    /// Adds to `tickets` what was finished since the last call.
    pub fn finished(&mut self, tickets: &mut Vec<Ticket>) {
        self.user.finished(tickets);
        if let Some(left) = self.watch.take() {
            self.left = Some(left);
        }
        while let Ok(done) = self.done.try_recv() {
            tickets.push(done.ticket);
            // A set that was freed meanwhile has no use for its file.
            let Some(set) = self.sets.get_mut(&done.key) else {
                continue;
            };
            match done.memfd {
                Ok(memfd) => {
                    let memfd = Arc::new(memfd);
                    memfd::publish(set.window, Window::Object(memfd.clone()));
                    set.state = SetState::Ready(memfd);
                }
                Err(errno) => {
                    set.state = SetState::Failed(errno);
                    let owner = set.owner;
                    self.one_file_less(owner);
                }
            }
        }
    }

    /// The set's memory file, once it has one.
    fn memfd(&mut self, set: &PageSet) -> Result<Arc<Memfd>, NotReady> {
        let failed = NotReady::Refused(PlatformError::Failed);
        let entry = self.sets.get_mut(&set.key()).ok_or(failed)?;
        match &entry.state {
            SetState::Ready(memfd) => return Ok(memfd.clone()),
            SetState::Making(ticket) => return Err(NotReady::Wait(*ticket)),
            SetState::Failed(errno) => {
                let reason = refusal(*errno);
                entry.state = SetState::Untouched;
                return Err(reason);
            }
            SetState::Untouched => {}
        }
        let owner = entry.owner;
        // Nobody has more than are left for others, so that nobody can have them all.
        let left = self.memfds_max.saturating_sub(memfd::open_count());
        let own = self.files.get(&owner).copied().unwrap_or(0);
        if own >= left {
            return Err(NotReady::Refused(PlatformError::FileTableFull));
        }
        self.files.insert(owner, own + 1);
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let job = Job {
            key: set.key(),
            pages: set.pages(),
            ticket,
        };
        self.jobs.push(owner, job);
        entry.state = SetState::Making(ticket);
        Err(NotReady::Wait(ticket))
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Addresses that nobody had before, and their number among all.
    fn addresses(&mut self, pages: PageCount) -> Option<(u64, PhysAddr, WindowAddr)> {
        let first = self.next_page;
        let next = first.checked_add(pages.get());
        let next = next.filter(|next| *next <= ADDRESSES)?;
        let skip = PageCount::new(first)?;
        let start = PhysAddr::new(PHYSICAL_BASE).checked_add(skip)?;
        let window = WindowAddr::new(WINDOW_BASE as usize)?.checked_add(skip)?;
        self.next_page = next;
        Some((first, start, window))
    }

    /// What [`no_user_pages`](crate::no_user_pages) said when this source was made.
    pub fn no_user_pages(&self) -> Option<&'static str> {
        self.no_user_pages
    }

    fn one_file_less(&mut self, owner: Uid) {
        if let Some(files) = self.files.get_mut(&owner) {
            *files -= 1;
            if *files == 0 {
                self.files.remove(&owner);
            }
        }
    }
}

impl UserSource for MemfdPages {
    fn takes_user_pages(&self) -> bool {
        self.no_user_pages.is_none()
    }

    fn acquire(
        &mut self,
        owner: Uid,
        space: SpaceFd,
        range: UserRange,
    ) -> Result<Ticket, UserFault> {
        let ticket = self.ticket();
        self.user.acquire(owner, space.into_raw(), range, ticket)?;
        Ok(ticket)
    }

    fn acquired(&mut self, ticket: Ticket) -> Option<Result<UserSet, UserFault>> {
        let range = match self.user.acquired(ticket)? {
            Ok(range) => range,
            Err(fault) => return Some(Err(fault)),
        };
        let pages = range.pages();
        let Some((key, _, window)) = self.addresses(pages) else {
            self.user.refuse(range);
            return Some(Err(UserFault::NoMemory));
        };
        self.user.publish(key, window, range);
        Some(Ok(UserSet::new(key, pages)))
    }

    fn abandon(&mut self, ticket: Ticket) {
        self.user.abandon(ticket);
    }
}

impl PageSource for MemfdPages {
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady> {
        if request.pages > self.capacity {
            return Err(NotReady::OutOfMemory);
        }
        let (first, start, window) = self.addresses(request.pages).ok_or(NotReady::OutOfMemory)?;
        let extent = Extent {
            start,
            pages: request.pages,
        };
        let set = PageSet::new(first, Extents::One(extent)).ok_or(NotReady::OutOfMemory)?;
        let state = SetState::Untouched;
        let owner = request.owner;
        let made = Set {
            owner,
            window,
            state,
        };
        if self.sets.is_empty() {
            self.watch.watch(true);
        }
        self.sets.insert(first, made);
        Ok(set)
    }

    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady> {
        self.memfd(set)?;
        let entry = self.sets.get(&set.key());
        let entry = entry.ok_or(NotReady::Refused(PlatformError::Failed))?;
        Ok(entry.window)
    }

    fn read(&mut self, set: &PageSet, offset: u64, bytes: &mut [u8]) -> Result<(), NotReady> {
        if let Some(Set {
            state: SetState::Untouched,
            ..
        }) = self.sets.get(&set.key())
        {
            bytes.fill(0);
            return Ok(());
        }
        let memfd = self.memfd(set)?;
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            done += transferred(pread(memfd.as_fd(), rest, position(offset, done)?))?;
        }
        Ok(())
    }

    fn write(&mut self, set: &PageSet, offset: u64, bytes: &[u8]) -> Result<(), NotReady> {
        let memfd = self.memfd(set)?;
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            done += transferred(pwrite(memfd.as_fd(), rest, position(offset, done)?))?;
        }
        Ok(())
    }

    fn free(&mut self, _owner: Uid, set: PageSet) {
        let Some(freed) = self.sets.remove(&set.key()) else {
            return;
        };
        if self.sets.is_empty() {
            self.watch.watch(false);
            self.left = None;
        }
        match freed.state {
            SetState::Ready(_) => {
                memfd::withdraw(freed.window);
                let more = |left: PageCount| left.checked_add(set.pages());
                self.left = self.left.and_then(more);
            }
            SetState::Making(_) => {}
            SetState::Untouched | SetState::Failed(_) => return,
        }
        self.one_file_less(freed.owner);
    }

    fn left(&self) -> Option<PageCount> {
        self.left
    }

    fn user_window(&mut self, set: &UserSet) -> Result<WindowAddr, NotReady> {
        let window = self.user.window(set.key());
        window.ok_or(NotReady::Refused(PlatformError::Failed))
    }

    fn locate_user(&mut self, set: &UserSet) -> Result<Extents, NotReady> {
        let skip = PageCount::new(set.key());
        let start = skip.and_then(|skip| PhysAddr::new(PHYSICAL_BASE).checked_add(skip));
        let start = start.ok_or(NotReady::Refused(PlatformError::Failed))?;
        let pages = set.pages();
        Ok(Extents::One(Extent { start, pages }))
    }

    fn release_user(&mut self, owner: Uid, set: UserSet) -> Option<Ticket> {
        self.user.release(owner, set.key());
        None
    }
}

impl Drop for MemfdPages {
    fn drop(&mut self) {
        self.jobs.close();
        for set in self.sets.values() {
            memfd::withdraw(set.window);
        }
    }
}

fn position(offset: u64, done: usize) -> Result<i64, NotReady> {
    let position = offset.checked_add(done as u64);
    position
        .and_then(|position| i64::try_from(position).ok())
        .ok_or(NotReady::Refused(PlatformError::Failed))
}

/// The bytes that a read or write of a memory file moved: not none, for the range lies inside.
fn transferred(result: nix::Result<usize>) -> Result<usize, NotReady> {
    match result {
        Ok(0) => Err(NotReady::Refused(PlatformError::Failed)),
        Ok(count) => Ok(count),
        Err(Errno::EINTR) => Ok(0),
        Err(errno) => Err(refusal(errno)),
    }
}

fn refusal(errno: Errno) -> NotReady {
    match errno {
        Errno::ENOMEM | Errno::ENOSPC => NotReady::OutOfMemory,
        Errno::EMFILE | Errno::ENFILE => NotReady::Refused(PlatformError::FileTableFull),
        _ => NotReady::Refused(PlatformError::Failed),
    }
}

/// Makes memory files until the source is gone.
fn work(to_do: &Work<Job>, finished: &Sender<Done>, notify: &Mutex<Option<Notify>>) {
    while let Some(job) = to_do.pop() {
        let done = Done {
            key: job.key,
            ticket: job.ticket,
            memfd: Memfd::new(job.pages),
        };
        if finished.send(done).is_err() {
            return;
        }
        tell(notify);
    }
}

fn tell(notify: &Mutex<Option<Notify>>) {
    let notify = notify.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(notify) = notify.as_ref() {
        notify();
    }
}
