//! The books over arenas: which pages are whose, which are free, which are being cleared. No
//! system calls, no clock: what has to be done goes out as [`Job`]s, and comes back as [`Done`].
//!
//! An arena belongs to one user and one kind of memory for as long as it is mapped, so that pages
//! go from one user to another through the kernel only. Pages are handed out clean: fresh ones
//! are, and so is what comes back if nobody could write to it. Of the rest, large pieces are
//! cleared by the worker before they are free again; small ones are kept as they are and cleared
//! by whoever asks for pages next, because to wait for the worker takes longer. An arena of which
//! nothing is used any more goes back to the kernel after a while, or at once where memory is
//! short (`idle`).

mod growth;
mod idle;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use gem::pages::{Caching, Extent, Extents, NotReady, PageRequest, PageSet, PlatformError, Ticket};
use gem::units::{PAGE_SIZE, PageCount, PhysAddr, Uid};
use syscall::error::{EACCES, ENODEV, ENOENT, ENOMEM, EOPNOTSUPP};

use crate::free_map::FreeMap;

/// The fewest pages an arena has, where memory allows: 2 MiB.
pub const ARENA_PAGES: u64 = 512;

/// The most pages that are cleared while the owner of the books waits: 64 KiB.
const CLEARED_AT_ONCE: u64 = 16;

/// Memory that is alike: of one user, cached alike, and in one piece or not.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Class {
    owner: u32,
    kind: Kind,
}

/// A kind of memory.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Kind {
    caching: u8,
    contiguous: bool,
}

/// [`Kind::caching`] of uncached memory.
const UNCACHED: u8 = 2;

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = 6;
    /// Cached memory, in any pieces.
    pub const ORDINARY: Self = Self {
        caching: 0,
        contiguous: false,
    };

    /// A number below [`Kind::COUNT`].
    pub fn index(self) -> usize {
        usize::from(self.caching) * 2 + usize::from(self.contiguous)
    }

    /// Whether each mapping of it is one piece of physical memory.
    pub fn is_contiguous(self) -> bool {
        self.contiguous
    }

    /// The memory scheme's path for it (kernel: `src/scheme/memory.rs`).
    pub fn path(self) -> &'static str {
        [
            "/scheme/memory/zeroed@wb",
            "/scheme/memory/zeroed@wb?phys_contiguous",
            "/scheme/memory/zeroed@wc",
            "/scheme/memory/zeroed@wc?phys_contiguous",
            "/scheme/memory/zeroed@uc",
            "/scheme/memory/zeroed@uc?phys_contiguous",
        ][self.index()]
    }
}

impl Class {
    fn of(request: &PageRequest) -> Self {
        let caching = match request.caching {
            Caching::WriteBack => 0,
            Caching::WriteCombining => 1,
            Caching::Uncached => UNCACHED,
        };
        Self {
            owner: request.owner.0,
            kind: Kind {
                caching,
                contiguous: request.contiguous,
            },
        }
    }

    /// The first of all classes of a user.
    fn first_of(owner: u32) -> Self {
        let kind = Kind {
            caching: 0,
            contiguous: false,
        };
        Self { owner, kind }
    }

    /// The fewest pages that an arena has in which so many can lie.
    fn arena_for(self, pages: u64) -> Option<u64> {
        if self.kind.contiguous {
            // So the kernel would round it, too.
            pages.checked_next_power_of_two()
        } else {
            Some(pages)
        }
    }

    /// The user.
    pub fn owner(self) -> Uid {
        Uid(self.owner)
    }

    /// The kind of memory.
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// Whether so many pages are cleared while the owner of the books waits. Uncached ones never
    /// are: every word of those goes to memory by itself.
    fn is_cleared_at_once(self, pages: u64) -> bool {
        pages <= CLEARED_AT_ONCE && self.kind.caching != UNCACHED
    }
}

/// Pages of the daemon's address space: the first one's number, and how many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// The address of the first byte, divided by the size of a page.
    pub first: u64,
    /// How many; at least one.
    pub pages: u64,
}

impl Span {
    fn end(self) -> u64 {
        self.first + self.pages
    }

    /// The address of the first byte.
    pub fn address(self) -> usize {
        (self.first * PAGE_SIZE) as usize
    }
}

/// Something for the worker to do.
#[derive(Debug, Eq, PartialEq)]
pub enum Job {
    /// Map an arena of `pages` pages (of at least `least`, if there is no more) and find out
    /// where they lie.
    Grow {
        /// For whom, and what.
        class: Class,
        /// How many.
        pages: u64,
        /// How many at least.
        least: u64,
        /// To be reported.
        ticket: Ticket,
    },
    /// Overwrite these pages with zeroes.
    Clear {
        /// Whose they were, and will be.
        owner: Uid,
        /// Which.
        span: Span,
        /// To be reported.
        ticket: Ticket,
    },
    /// Give these pages back to the kernel.
    Unmap(Span),
    /// Report when it is this long after the machine's start.
    WakeAt(Duration),
}

/// Something that the worker has done.
#[derive(Debug)]
pub enum Done {
    /// [`Job::Grow`]: the new arena and the physical address of each run of its pages, or the
    /// errno.
    Grown {
        /// As in the job.
        class: Class,
        /// As in the job.
        least: u64,
        /// As in the job.
        ticket: Ticket,
        /// What came of it.
        arena: Result<NewArena, i32>,
    },
    /// [`Job::Clear`].
    Cleared {
        /// As in the job.
        span: Span,
        /// As in the job.
        ticket: Ticket,
    },
    /// [`Job::WakeAt`].
    Awake,
    /// The machine has so many pages left, besides those that are not to be had.
    Left(u64),
}

/// An arena that has been mapped, every page of it backed, clean, and never moved again.
#[derive(Debug)]
pub struct NewArena {
    /// Where it is.
    pub span: Span,
    /// Where its pages lie, in order.
    pub extents: Vec<Extent>,
}

/// Pages for an object.
#[derive(Debug, Eq, PartialEq)]
#[must_use]
pub enum Found {
    /// They read as zero.
    Clean(PageSet),
    /// They have to be cleared first.
    Dirty(PageSet),
}

struct Arena {
    class: Class,
    span: Span,
    /// (index of the first page in the arena, its physical address, pages), in order.
    runs: Vec<(u64, PhysAddr, u64)>,
    used: u64,
    clearing: u64,
    /// Until then it is kept for who asked for it, used or not.
    awaited_until: Duration,
}

#[derive(Default)]
struct ClassBooks {
    clean: FreeMap,
    /// Free, too, but not cleared.
    dirty: FreeMap,
    /// Arenas in the making: how large.
    growing: BTreeMap<Ticket, u64>,
    /// The last growth failed, where no fewer pages would have done; told once.
    failed: Option<(u64, NotReady)>,
    /// What is being cleared: pages by ticket.
    clearing: BTreeMap<Ticket, u64>,
}

/// The books.
pub struct Books {
    classes: BTreeMap<Class, ClassBooks>,
    arenas: BTreeMap<u64, Arena>,
    /// Arenas of which nothing is used, and since when; `None` since after the worker's last report.
    /// Some of which something is used again are still among them.
    idle: BTreeMap<u64, Option<Duration>>,
    idle_for: Duration,
    /// Arenas of which nothing is used any more, and not all is cleared.
    vacated: BTreeSet<u64>,
    /// Pages in arenas of which nothing is used, cleared or not.
    unused: u64,
    /// By user: pages that are handed out to nobody, of its arenas and of those in the making. None
    /// without any.
    unused_of: BTreeMap<u32, u64>,
    /// Pages that the machine had left when it was last looked at, with what went back since.
    left: Option<u64>,
    /// When the worker is to report.
    alarm: Option<Duration>,
    /// When it did last.
    now: Duration,
    last_ticket: u64,
    jobs: Vec<Job>,
}

impl Books {
    /// Empty books. Unused arenas are given back after `idle_for`.
    pub fn new(idle_for: Duration) -> Self {
        Self {
            classes: BTreeMap::new(),
            arenas: BTreeMap::new(),
            idle: BTreeMap::new(),
            idle_for,
            vacated: BTreeSet::new(),
            unused: 0,
            unused_of: BTreeMap::new(),
            left: None,
            alarm: None,
            now: Duration::ZERO,
            last_ticket: 0,
            jobs: Vec::new(),
        }
    }

    /// How many pages are mapped.
    pub fn mapped(&self) -> u64 {
        self.arenas.values().map(|arena| arena.span.pages).sum()
    }

    /// What there is to do now.
    pub fn take_jobs(&mut self) -> impl Iterator<Item = Job> + '_ {
        self.jobs.drain(..)
    }

    /// Pages, or what to wait for.
    ///
    /// # Errors
    ///
    /// See [`NotReady`].
    pub fn allocate(&mut self, request: &PageRequest) -> Result<Found, NotReady> {
        let class = Class::of(request);
        let pages = request.pages.get();
        let books = self.classes.entry(class).or_default();
        // The shortest range that will do, so that long ones stay long, clean or not.
        let [clean, dirty] = [&books.clean, &books.dirty].map(|free| free.shortest(pages));
        if clean.is_some_and(|clean| dirty.is_none_or(|dirty| clean <= dirty))
            && let Some(first) = books.clean.take(pages)
        {
            return self.hand_out(Span { first, pages }).map(Found::Clean);
        }
        if let Some(first) = books.dirty.take(pages) {
            let span = Span { first, pages };
            if class.is_cleared_at_once(pages) {
                return self.hand_out(span).map(Found::Dirty);
            }
            return Err(NotReady::Wait(self.clear(class, span)));
        }
        if let Some((least, reason)) = books.failed
            && class.arena_for(pages).is_none_or(|needed| needed >= least)
        {
            books.failed = None;
            let out_of_memory = reason == NotReady::OutOfMemory;
            let awaited = out_of_memory.then(|| self.on_its_way(class)).flatten();
            return Err(awaited.map_or(reason, NotReady::Wait));
        }
        // The one range under way that would do; if it does not in the end, the next try grows.
        let enough = |&(_, &cleared): &(&Ticket, &u64)| cleared >= pages;
        if let Some((&ticket, _)) = books.clearing.iter().find(enough) {
            return Err(NotReady::Wait(ticket));
        }
        Err(self.grow(class, pages, request.room.get()))
    }

    fn hand_out(&mut self, span: Span) -> Result<PageSet, NotReady> {
        let failed = NotReady::Refused(PlatformError::Failed);
        let arena = self.arena_of(span.first).ok_or(failed)?;
        let was_unused = arena.used == 0;
        arena.used += span.pages;
        let (class, whole, extents) = (arena.class, arena.span, arena.extents(span));
        self.used_by(class, span.pages);
        if was_unused {
            self.vacated.remove(&whole.first);
            self.unused -= whole.pages;
        }
        PageSet::new(span.first * PAGE_SIZE, extents.ok_or(failed)?).ok_or(failed)
    }

    /// Takes pages back. A set that did not come from here is left alone.
    pub fn free(&mut self, set: &PageSet) {
        let span = span_of(set);
        let Some(arena) = self.arena_of(span.first) else {
            return;
        };
        if span.end() > arena.span.end() || span.pages > arena.used {
            return;
        }
        arena.used -= span.pages;
        let (class, whole) = (arena.class, arena.span);
        let is_unused = arena.used == 0;
        self.unused_by(class, span.pages);
        let books = self.classes.entry(class).or_default();
        let bounds = (whole.first, whole.end());
        if !set.is_exposed() {
            books.clean.put(span.first, span.pages, bounds);
        } else if class.is_cleared_at_once(span.pages) {
            books.dirty.put(span.first, span.pages, bounds);
        } else {
            self.clear(class, span);
        }
        if is_unused {
            self.unused += whole.pages;
            self.note_unused(whole.first);
        }
    }

    /// Has the worker clear all small pieces of this class.
    pub(super) fn clear_dirty(&mut self, class: Class) {
        let dirty = |books: &mut Self| books.classes.get_mut(&class)?.dirty.pop();
        while let Some((first, pages)) = dirty(self) {
            self.clear(class, Span { first, pages });
        }
    }

    /// Has the worker clear pages that are not used; what will be finished then.
    fn clear(&mut self, class: Class, span: Span) -> Ticket {
        if let Some(arena) = self.arena_of(span.first) {
            arena.clearing += span.pages;
            let (start, is_unused) = (arena.span.first, arena.used == 0);
            if is_unused {
                self.note_unused(start);
            }
        }
        let ticket = self.next_ticket();
        let books = self.classes.entry(class).or_default();
        books.clearing.insert(ticket, span.pages);
        self.jobs.push(Job::Clear {
            owner: class.owner(),
            span,
            ticket,
        });
        ticket
    }

    /// A round of [`Done`]s begins: what failed in an earlier one has been told, or nobody asks
    /// any more.
    pub fn begin_round(&mut self) {
        for books in self.classes.values_mut() {
            books.failed = None;
        }
    }

    /// Takes in what the worker has done, at `now` (since the machine's start); the ticket that
    /// is finished by it.
    pub fn finish(&mut self, done: Done, now: Duration) -> Option<Ticket> {
        if now < self.now {
            self.clock_went_back(now);
        }
        self.now = now;
        match done {
            Done::Grown {
                class,
                least,
                ticket,
                arena,
            } => {
                let pages = arena.as_ref().map_or(0, |arena| arena.span.pages);
                self.grown(class, ticket, pages);
                match arena {
                    Ok(arena) => self.add_arena(class, arena, now),
                    Err(errno) => {
                        let books = self.classes.entry(class).or_default();
                        books.failed = Some((least, reason(errno)));
                    }
                }
                Some(ticket)
            }
            Done::Cleared { span, ticket } => {
                self.cleared(span, ticket, now);
                Some(ticket)
            }
            Done::Awake => {
                self.awake(now);
                None
            }
            Done::Left(pages) => {
                self.left = Some(pages);
                None
            }
        }
    }

    fn add_arena(&mut self, class: Class, new: NewArena, now: Duration) {
        let mut runs = Vec::with_capacity(new.extents.len());
        let mut index = 0;
        for extent in &new.extents {
            runs.push((index, extent.start, extent.pages.get()));
            index += extent.pages.get();
        }
        let span = new.span;
        let arena = Arena {
            class,
            span,
            runs,
            used: 0,
            clearing: 0,
            awaited_until: now.saturating_add(idle::PERIOD),
        };
        self.arenas.insert(span.first, arena);
        let books = self.classes.entry(class).or_default();
        let bounds = (span.first, span.end());
        books.clean.put(span.first, span.pages, bounds);
        // Whoever asked may have gone meanwhile.
        self.unused += span.pages;
        self.note_idle(span.first, now);
    }

    fn cleared(&mut self, span: Span, ticket: Ticket, now: Duration) {
        let Some(arena) = self.arena_of(span.first) else {
            return;
        };
        arena.clearing -= span.pages;
        let (class, whole) = (arena.class, arena.span);
        let is_idle = arena.used == 0 && arena.clearing == 0;
        let books = self.classes.entry(class).or_default();
        books.clearing.remove(&ticket);
        let bounds = (whole.first, whole.end());
        books.clean.put(span.first, span.pages, bounds);
        if is_idle {
            self.vacated.remove(&whole.first);
            self.note_idle(whole.first, now);
        }
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn arena_of(&mut self, page: u64) -> Option<&mut Arena> {
        let (_, arena) = self.arenas.range_mut(..=page).next_back()?;
        (page < arena.span.end()).then_some(arena)
    }
}

impl Arena {
    /// Where these pages of the arena lie.
    fn extents(&self, span: Span) -> Option<Extents> {
        let first = span.first - self.span.first;
        let end = first + span.pages;
        let before = self.runs.partition_point(|&(index, ..)| index <= first);
        let runs = self.runs.get(before.checked_sub(1)?..)?;
        let piece = |&(index, start, pages): &(u64, PhysAddr, u64)| {
            let skipped = first.saturating_sub(index);
            let length = (index + pages).min(end) - index - skipped;
            Some(Extent {
                start: start.checked_add(PageCount::new(skipped)?)?,
                pages: PageCount::new(length)?,
            })
        };
        let count = runs.partition_point(|&(index, ..)| index < end);
        match runs.get(..count)? {
            [one] => piece(one).map(Extents::One),
            several => Some(Extents::Many(
                several.iter().map(piece).collect::<Option<_>>()?,
            )),
        }
    }
}

/// The pages of a set that came from here.
pub fn span_of(set: &PageSet) -> Span {
    Span {
        first: set.key() / PAGE_SIZE,
        pages: set.pages().get(),
    }
}

fn reason(errno: i32) -> NotReady {
    match errno {
        ENOMEM => NotReady::OutOfMemory,
        ENOENT | EACCES | EOPNOTSUPP | ENODEV => NotReady::Refused(PlatformError::NoSuchMemory),
        _ => NotReady::Refused(PlatformError::Failed),
    }
}

#[cfg(test)]
mod tests;
