//! Ranges of clients that a scheme has taken over, and what tells of their end.
//!
//! A [`Watch`] is a userfaultfd of one client and the ranges that are watched through it, at most
//! [`RANGES_MAX`]: each time it tells something, all of them are looked at, so what a client has in
//! other watches costs nothing. The ranges' pages lie one behind the other in one memory file, which
//! no other client ever gets. A [`Range`] lives as long as the scheme's set or one of the client's
//! mappings refers to it; then its part of the memory file is emptied, unless the client has moved some
//! of it: where to, nobody says, nor when that ends, so that it goes with the client.
//!
//! The life of a range, see [`Phase`]: taken (its writers wait), being mapped (the client copies it
//! and maps the copy in its place), held, lost. Linux does not say what is held; `/proc` does, and
//! it is asked before an event is read, because until then whoever unmapped something waits.
//!
//! A userfaultfd does not say whose it is: one that a client has of another process is found out when
//! it makes writers wait, and not the client's.
//!
//! Calls on the userfaultfd wait for changes of the client's address space that are under way, not
//! for anything that a client could keep from ending.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gem::units::{PageCount, Uid};
use gem::user::{UserFault, UserRange};
use nix::errno::Errno;

use super::maps::{Maps, Vma, is_held};
use super::sets::Job;
use super::uffd::{Event, Span, Uffd};
use crate::kernel::ClientId;
use crate::memfd::Memfd;
use crate::work::Work;

/// The most ranges that are watched through one userfaultfd.
const RANGES_MAX: usize = 64;

/// One client's userfaultfd.
#[derive(Debug)]
pub(crate) struct Watch {
    client: ClientId,
    pid: u64,
    uffd: Uffd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    maps: Maps,
    /// Made for the first range.
    memory: Option<Arc<Memfd>>,
    /// The end of the last range's part of it, in bytes.
    end: u64,
    ranges: Vec<Weak<Range>>,
    /// Those that have lost something which the events that are not read yet tell of.
    unread: Vec<Arc<Range>>,
    /// Whether the userfaultfd is known to be the client's own.
    is_own: bool,
}

/// A range that was taken over.
#[derive(Debug)]
pub(crate) struct Range {
    watch: Arc<Watch>,
    span: Span,
    memory: Arc<Memfd>,
    /// Where in the memory file it begins, in bytes.
    offset: u64,
    phase: Mutex<Phase>,
    /// Whether the client has moved some of it elsewhere.
    is_moved: AtomicBool,
    /// Who empties its part of the memory file, and in whose turn.
    reaper: (Arc<Work<Job>>, Uid),
}

/// How far a range has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Whoever writes to it waits. The pages are still the client's.
    Taken,
    /// The scheme has agreed to the mapping that replaces them.
    Mapping,
    /// The client maps the memory file there, and what unmaps any of it waits for us.
    Held,
    /// Something was unmapped before it was held, or nobody wants it any more.
    Lost,
}

/// What of a held range is mapped no more.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) range: Arc<Range>,
    pub(crate) span: Span,
}

impl Watch {
    /// Watches `client`, process `pid`, which sent `file`.
    ///
    /// # Errors
    ///
    /// EINVAL where the file is not a fresh userfaultfd, or Linux is too old; EACCES where the
    /// process is another user's.
    pub(crate) fn new(client: ClientId, pid: u64, file: OwnedFd) -> nix::Result<Self> {
        let uffd = Uffd::adopt(file)?;
        let maps = Maps::open(pid).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            Errno::from_raw(errno)
        })?;
        Ok(Self {
            client,
            pid,
            uffd,
            state: Mutex::new(State {
                maps,
                memory: None,
                end: 0,
                ranges: Vec::new(),
                unread: Vec::new(),
                is_own: false,
            }),
        })
    }

    /// Whose address space it is.
    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    /// Whether one more range can be watched.
    pub(crate) fn has_room(&self) -> bool {
        self.state().live().len() < RANGES_MAX
    }

    /// Takes `span` over: from now on its writers wait. It must be all the client's own memory.
    ///
    /// This can take as long as Linux needs for so many pages.
    pub(crate) fn take(
        self: &Arc<Self>,
        span: Span,
        reaper: (Arc<Work<Job>>, Uid),
    ) -> Result<Arc<Range>, UserFault> {
        let range = self.enter(span, reaper)?;
        let held = self
            .uffd
            .register(span)
            .and_then(|()| self.uffd.hold_writers(span).inspect_err(|_| range.let_go()));
        let held = held.map_err(|errno| match errno {
            Errno::ENOMEM => UserFault::NoMemory,
            _ => UserFault::Foreign,
        });
        let held = held.and_then(|()| self.check_whose(span).inspect_err(|_| range.let_go()));
        match held {
            Ok(()) => Ok(range),
            Err(fault) => {
                range.set(Phase::Lost);
                Err(fault)
            }
        }
    }

    /// Whether what the userfaultfd holds is held in the client. Its address space is one for good,
    /// so that it is enough to have seen it once.
    fn check_whose(&self, held: Span) -> Result<(), UserFault> {
        if self.state().is_own {
            return Ok(());
        }
        match is_held(self.pid, held.start) {
            Ok(true) => {
                self.state().is_own = true;
                Ok(())
            }
            Ok(false) => Err(UserFault::Foreign),
            Err(_) => Err(UserFault::Failed),
        }
    }

    /// A range with a place in the memory file. It counts as taken at once, so that it is told of
    /// what happens meanwhile.
    fn enter(
        self: &Arc<Self>,
        span: Span,
        reaper: (Arc<Work<Job>>, Uid),
    ) -> Result<Arc<Range>, UserFault> {
        let mut state = self.state();
        let live = state.live();
        if live.len() >= RANGES_MAX {
            return Err(UserFault::Busy);
        }
        // What is held shows in the maps, and what of it was unmapped is the client's to use.
        let overlaps =
            |range: &Arc<Range>| range.is_under_way() && range.span.overlap(span).is_some();
        if live.iter().any(overlaps) {
            return Err(UserFault::Foreign);
        }
        let mut foreign = false;
        let all = state.maps.all_covered(span, |vma| {
            foreign |= !is_ordinary(&vma);
            !foreign
        });
        match (all, foreign) {
            (_, true) => return Err(UserFault::Foreign),
            (false, _) => return Err(UserFault::Hole),
            (true, false) => {}
        }
        let (memory, offset) = state.room(span.end - span.start)?;
        let range = Arc::new(Range {
            watch: self.clone(),
            span,
            memory,
            offset,
            phase: Mutex::new(Phase::Taken),
            is_moved: AtomicBool::new(false),
            reaper,
        });
        state.ranges.push(Arc::downgrade(&range));
        Ok(range)
    }

    /// Looks at all ranges, before an event is read: which have come to be held, and what of those
    /// that are is gone.
    pub(crate) fn look(&self) -> Vec<Gone> {
        let mut state = self.state();
        let mut gone = Vec::new();
        for range in state.live() {
            range.come_to_be_held(&mut state.maps);
            if range.is_held() {
                let missing = range.missing(&mut state.maps);
                let is_known = |other: &Arc<Range>| Arc::ptr_eq(other, &range);
                if !missing.is_empty() && !state.unread.iter().any(is_known) {
                    state.unread.push(range);
                }
                gone.extend(missing);
            }
        }
        gone
    }

    /// Reads an event, whereupon whoever caused it goes on. `None` where there was none; else the
    /// ranges that are lost by it, although the scheme believes that they are mapped.
    pub(crate) fn read(&self) -> Option<Vec<Gone>> {
        let Some(event) = self.uffd.read() else {
            self.end();
            return None;
        };
        let (span, is_moved) = match event {
            Event::Gone(span) => (span, false),
            Event::Moved(span) => (span, true),
            Event::Other => return Some(Vec::new()),
        };
        let mut state = self.state();
        let mut lost = Vec::new();
        for range in state.live() {
            if range.span.overlap(span).is_none() {
                continue;
            }
            if is_moved {
                range.is_moved.store(true, Relaxed);
            }
            // It may have come to be mapped since anybody looked, and this event tell of that.
            if range.come_to_be_held(&mut state.maps) {
                lost.extend(range.missing(&mut state.maps));
            } else {
                lost.extend(range.touched());
            }
        }
        if !self.uffd.has_more() {
            state.unread.clear();
        }
        Some(lost)
    }

    /// There are no events to be read, or nobody reads them any more.
    pub(crate) fn end(&self) {
        self.state().unread.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }
}

impl State {
    /// The ranges that still are.
    fn live(&mut self) -> Vec<Arc<Range>> {
        self.ranges.retain(|range| range.strong_count() > 0);
        self.ranges.iter().filter_map(Weak::upgrade).collect()
    }

    /// So many bytes of the memory file that nobody had before.
    fn room(&mut self, bytes: u64) -> Result<(Arc<Memfd>, u64), UserFault> {
        let memory = match &self.memory {
            Some(memory) => memory.clone(),
            None => {
                let new = Memfd::growing().map_err(|errno| match errno {
                    Errno::EMFILE | Errno::ENFILE => UserFault::Busy,
                    _ => UserFault::NoMemory,
                })?;
                self.memory.insert(Arc::new(new)).clone()
            }
        };
        let offset = self.end;
        let end = offset.checked_add(bytes).ok_or(UserFault::NoMemory)?;
        memory.grow(end).map_err(|_| UserFault::NoMemory)?;
        self.end = end;
        Ok((memory, offset))
    }
}

/// Whether this is memory of the process's own: private or shared, without a file, readable and
/// writable.
fn is_ordinary(vma: &Vma) -> bool {
    vma.readable && vma.writable && (vma.file.is_none() || vma.shared_anonymous)
}

impl Range {
    /// How many pages.
    pub(crate) fn pages(&self) -> PageCount {
        PageCount::covering(self.bytes()).unwrap_or(PageCount::ZERO)
    }

    /// The same in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.span.end - self.span.start
    }

    /// Whose it is.
    pub(crate) fn owner(&self) -> Uid {
        self.reaper.1
    }

    /// Where its pages are to be.
    pub(crate) fn memory(&self) -> (Arc<Memfd>, u64) {
        (self.memory.clone(), self.offset)
    }

    /// Whether `client` may now map it at `address`, which it can do once.
    pub(crate) fn begin_to_map(&self, client: ClientId, address: Option<u64>, bytes: u64) -> bool {
        let is_meant = self.watch.client == client
            && address == Some(self.span.start)
            && bytes == self.bytes();
        let mut phase = self.phase();
        let may = is_meant && *phase == Phase::Taken;
        if may {
            *phase = Phase::Mapping;
        }
        may
    }

    /// Nobody wants it any more: where it is not held, the client has its pages back as they were.
    pub(crate) fn give_up(&self) {
        let mut phase = self.phase();
        if *phase != Phase::Held {
            *phase = Phase::Lost;
            drop(phase);
            self.let_go();
        }
    }

    /// Its writers go on.
    fn let_go(&self) {
        // It fails where some of it is unmapped. Either way those who wait do not hear of it.
        let _ = self.watch.uffd.unregister(self.span);
        self.watch.uffd.wake(self.span);
    }

    /// Notes that the client maps the memory file in its place, if it was about to and does;
    /// whether it did. What is unmapped from here on is told, what was before can be seen.
    fn come_to_be_held(&self, maps: &mut Maps) -> bool {
        let is_due = *self.phase() == Phase::Mapping;
        if !is_due || !maps.all_covered(self.span, |vma| self.is_at(&vma)) {
            return false;
        }
        // It fails where some of it is gone again.
        let _ = self.watch.uffd.register(self.span);
        self.set(Phase::Held);
        // Those who have waited for the old pages find the new ones.
        self.watch.uffd.wake(self.span);
        true
    }

    /// Which parts of it the client does not map any more.
    fn missing(self: &Arc<Self>, maps: &mut Maps) -> Vec<Gone> {
        let mut missing = Vec::new();
        let mut next = self.span.start;
        while next < self.span.end {
            let vma = maps.at_or_behind(next);
            let here = vma.filter(|vma| self.is_at(vma) && vma.span.start <= next);
            let end = match (here, vma) {
                (Some(here), _) => {
                    next = here.span.end;
                    continue;
                }
                // Another mapping, or nothing up to the next one.
                (None, Some(vma)) if vma.span.start <= next => vma.span.end,
                (None, Some(vma)) => vma.span.start,
                (None, None) => self.span.end,
            };
            let end = end.min(self.span.end);
            missing.push(Gone {
                range: self.clone(),
                span: Span { start: next, end },
            });
            next = end;
        }
        missing
    }

    /// An event tells of some of it: what is not held yet is lost.
    fn touched(self: &Arc<Self>) -> Option<Gone> {
        let mut phase = self.phase();
        let was = *phase;
        if !matches!(was, Phase::Taken | Phase::Mapping) {
            return None;
        }
        *phase = Phase::Lost;
        drop(phase);
        self.let_go();
        (was == Phase::Mapping).then(|| self.whole())
    }

    fn whole(self: &Arc<Self>) -> Gone {
        Gone {
            range: self.clone(),
            span: self.span,
        }
    }

    /// Whether this mapping is of just these pages, as far as it goes.
    fn is_at(&self, vma: &Vma) -> bool {
        let place = vma.offset.wrapping_sub(vma.span.start);
        vma.file == Some(self.memory.id()) && place == self.offset.wrapping_sub(self.span.start)
    }

    fn is_under_way(&self) -> bool {
        matches!(*self.phase(), Phase::Taken | Phase::Mapping)
    }

    fn is_held(&self) -> bool {
        *self.phase() == Phase::Held
    }

    fn set(&self, phase: Phase) {
        *self.phase() = phase;
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Range {
    /// Empties its part of the memory file, elsewhere: that takes as long as it has pages.
    fn drop(&mut self) {
        if *self.is_moved.get_mut() {
            return;
        }
        let (work, owner) = &self.reaper;
        let job = Job::Empty {
            memory: self.memory.clone(),
            offset: self.offset,
            bytes: self.bytes(),
        };
        work.push(*owner, job);
    }
}

impl From<UserRange> for Span {
    fn from(range: UserRange) -> Self {
        let start = range.start().get();
        Self {
            start,
            end: start + range.pages().bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
