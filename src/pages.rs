//! Where pages come from: the border between the memory manager and a platform.
//!
//! A [`PageSet`] is the pages of one object: how many, where they lie in physical memory, and
//! under which key the platform knows them. It has one owner at a time (an object), is made by
//! [`PageSource::allocate`] and ends in [`PageSource::free`]. This module does no allocation of
//! its own and never touches the memory.
//!
//! Pages read as zero when they are handed out, and still do when they come back if nobody was
//! ever told where they are. The set remembers that, so that pages which nobody had need not be
//! cleared: [`PageSet::is_exposed`].

use alloc::boxed::Box;
use core::cell::Cell;

use crate::units::{PAGE_SIZE, PageCount, PhysAddr, Uid, WindowAddr};
use crate::user::UserSet;

/// How the CPU caches an object's pages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Caching {
    /// Ordinary cached memory.
    #[default]
    WriteBack,
    /// Uncached, with stores gathered: what a scan-out buffer wants.
    WriteCombining,
    /// Uncached.
    Uncached,
}

/// What an allocation asks for.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// Whose pages they will be. Memory goes from one uid to another only through the kernel.
    pub owner: Uid,
    /// How many; at least one.
    pub pages: PageCount,
    /// How the CPU caches them.
    pub caching: Caching,
    /// Whether they must lie in one piece in physical memory.
    pub contiguous: bool,
    /// How many pages the owner may have beside those that it uses, these among them. A source
    /// that keeps pages for an owner keeps no more of them unused, but for a few: otherwise the
    /// owner could have the machine's memory in pieces that it does not pay for.
    pub room: PageCount,
}

/// A run of physically contiguous pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// The first byte, page-aligned.
    pub start: PhysAddr,
    /// How many pages follow one another from there; at least one.
    pub pages: PageCount,
}

/// Physical pages as runs. Most sets are one run, which needs no heap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Extents {
    /// All pages in one piece.
    One(Extent),
    /// Several pieces, in the order in which the pages follow one another in the object.
    Many(Box<[Extent]>),
}

impl Extents {
    /// The runs, in order.
    pub fn as_slice(&self) -> &[Extent] {
        match self {
            Self::One(extent) => core::slice::from_ref(extent),
            Self::Many(extents) => extents,
        }
    }
}

/// The pages of one object.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a page set that is dropped is lost: give it back with PageSource::free"]
pub struct PageSet {
    key: u64,
    /// No object is larger.
    pages: u32,
    exposed: Cell<bool>,
    extents: Extents,
}

impl PageSet {
    /// A set of the pages in `extents`, which its source knows as `key`. `None` where there are
    /// no pages, a run is empty or misaligned, or the runs are more than 2^32 − 1 pages.
    pub fn new(key: u64, extents: Extents) -> Option<Self> {
        let mut pages = PageCount::ZERO;
        for extent in extents.as_slice() {
            if extent.pages.is_zero() || !extent.start.get().is_multiple_of(PAGE_SIZE) {
                return None;
            }
            extent.start.checked_add(extent.pages)?;
            pages = pages.checked_add(extent.pages)?;
        }
        let pages = u32::try_from(pages.get()).ok()?;
        (pages != 0).then_some(Self {
            key,
            pages,
            exposed: Cell::new(false),
            extents,
        })
    }

    /// What the source knows this set by.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// How many pages.
    pub fn pages(&self) -> PageCount {
        self.pages.into()
    }

    /// Where they lie. Whoever asks may have a device write there, so this exposes them.
    pub fn extents(&self) -> &[Extent] {
        self.expose();
        self.extents.as_slice()
    }

    /// Somebody is about to be able to write to the pages.
    pub fn expose(&self) {
        self.exposed.set(true);
    }

    /// Whether anybody was ever able to write to the pages. While nobody was, they read as zero.
    pub fn is_exposed(&self) -> bool {
        self.exposed.get()
    }
}

/// Work that a platform has begun and will report as finished. Ask again then.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// Why a page source has nothing to give at this moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotReady {
    /// There is no memory left (ENOMEM).
    OutOfMemory,
    /// There is memory, but the owner has left too much unused, in pieces too small for this
    /// (ENOMEM). Only what is the owner's own helps.
    Scattered,
    /// The platform cannot do it here: too many files, no such memory type (the errno says).
    Refused(PlatformError),
    /// It is being done elsewhere: repeat the call when this work is finished. The repeated call
    /// may answer with another ticket.
    Wait(Ticket),
}

/// What a platform refuses, in terms that a client can act on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlatformError {
    /// The daemon's table of open files is full (ENFILE).
    FileTableFull,
    /// This machine has no memory of the kind asked for (ENODEV).
    NoSuchMemory,
    /// The platform failed in a way it should not (EIO).
    Failed,
}

/// Where pages come from. Implemented by a platform, called with the device's state borrowed: no
/// method may block or call back.
pub trait PageSource {
    /// Pages that read as zero, for one object.
    fn allocate(&mut self, request: PageRequest) -> Result<PageSet, NotReady>;

    /// The daemon's own mapping of the set: every page of it backed, so that the kernel may be
    /// told to map it into a client. Exposes the set.
    fn window(&mut self, set: &PageSet) -> Result<WindowAddr, NotReady>;

    /// Copies bytes of the set, from byte `offset`, into `bytes`. The caller has checked that the
    /// range lies inside the set.
    fn read(&mut self, set: &PageSet, offset: u64, bytes: &mut [u8]) -> Result<(), NotReady>;

    /// Copies `bytes` into the set, from byte `offset`. The caller has checked the range. Exposes the
    /// set.
    fn write(&mut self, set: &PageSet, offset: u64, bytes: &[u8]) -> Result<(), NotReady>;

    /// Takes the pages back. `owner` is who they were allocated for. Cannot fail: what it cannot
    /// reuse it keeps out of use.
    fn free(&mut self, owner: Uid, set: PageSet);

    /// How many pages the machine has left for anybody, with those that are on their way back to
    /// it; `None` where the source does not know. A platform sees to it that the device is asked
    /// to look at this every now and then ([`crate::Device::relieve`]).
    fn left(&self) -> Option<PageCount> {
        None
    }

    /// Gives back to the machine at once what is kept for whoever asks next; how many pages.
    fn give_back(&mut self) -> PageCount {
        PageCount::ZERO
    }

    // The next three are about pages of clients' that the platform has taken over. A source whose
    // platform takes none over never sees a user set, and needs none of them.

    /// The daemon's mapping of a user set: what the mapping is answered with by which the client
    /// makes the pages its own again.
    fn user_window(&mut self, set: &UserSet) -> Result<WindowAddr, NotReady> {
        let _ = set;
        Err(NotReady::Refused(PlatformError::NoSuchMemory))
    }

    /// Where the pages of a user set lie, asked only when a device is to use them. From the answer
    /// on, each page has a frame of its own (written to, so neither the zero frame nor one that a
    /// copy-on-write sibling shares), and the same one until the set is released.
    fn locate_user(&mut self, set: &UserSet) -> Result<Extents, NotReady> {
        let _ = set;
        Err(NotReady::Refused(PlatformError::NoSuchMemory))
    }

    /// Ends the daemon's own access to the pages of a user set. Where there is none when this
    /// returns, `None`; else a ticket that is reported as finished when there is none, and nobody
    /// may be told before that the pages went back. Whoever else maps them keeps them. `owner` is
    /// who they were taken over from. Cannot fail: what the source cannot let go of it keeps out of
    /// everybody's reach.
    fn release_user(&mut self, owner: Uid, set: UserSet) -> Option<Ticket> {
        let _ = (owner, set);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn run(start: u64, pages: u64) -> Extent {
        Extent {
            start: PhysAddr::new(start),
            pages: PageCount::new(pages).unwrap(),
        }
    }

    #[test]
    fn a_page_set_counts_its_runs() {
        let runs = vec![run(0x1000, 2), run(0x8000, 3)].into_boxed_slice();
        let set = PageSet::new(7, Extents::Many(runs)).unwrap();
        assert_eq!(set.pages().get(), 5);
        assert_eq!(set.key(), 7);
        assert!(!set.is_exposed());
        assert_eq!(set.extents().len(), 2);
        assert!(set.is_exposed(), "a device may have been told");
    }

    #[test]
    fn a_page_set_without_pages_or_off_its_page_is_refused() {
        assert!(PageSet::new(0, Extents::Many(Box::new([]))).is_none());
        assert!(PageSet::new(0, Extents::One(run(0x1000, 0))).is_none());
        assert!(PageSet::new(0, Extents::One(run(0x1001, 1))).is_none());
        assert!(PageSet::new(0, Extents::One(run(!0xfff, 1))).is_none());
        assert!(PageSet::new(0, Extents::One(run(0x1000, 1 << 32))).is_none());
    }
}
