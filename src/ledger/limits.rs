//! How much clients may have, what it is at first, and what is said where it is too much.

use core::fmt;

use super::account::Counted;
use crate::units::{PageCount, Uid};

/// How much clients may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Memory in objects, all clients together.
    pub total: PageCount,
    /// Memory in objects of one uid.
    pub uid: PageCount,
    /// Memory in one object.
    pub object: PageCount,
    /// Memory that is to be left to the machine: below, what nobody needs is purged.
    pub keep_free: PageCount,
    /// Pages mapped by one uid, each mapping counted: what the kernel's page tables cost.
    pub mapped_per_uid: PageCount,
    /// Objects mapped by the opens of one uid, each open's counted: what the server keeps of them.
    pub mapped_objects_per_uid: u32,
    /// Opens, of all clients together.
    pub opens: u32,
    /// Opens of one uid.
    pub opens_per_uid: u32,
    /// Objects of one uid.
    pub objects_per_uid: u32,
    /// Handles of one uid, and free numbers below them: a table is as long as its highest number.
    pub handles_per_uid: u32,
    /// Handles of one open.
    pub handles_per_open: u32,
    /// Object fds made by one uid.
    pub object_fds_per_uid: u32,
    /// Object fds made through one open.
    pub object_fds_per_open: u32,
    /// Objects of one uid that have a global name: few of the two billion, so that guessing one
    /// stays hopeless.
    pub names_per_uid: u32,
    /// Objects of one uid that have a fake offset.
    pub offsets_per_uid: u32,
    /// Pages of clients of one uid that are taken over, or still mapped since they were.
    pub user_pages_per_uid: PageCount,
    /// Ranges of clients of one uid whose pages those are.
    pub user_ranges_per_uid: u32,
    /// Requests of one uid that wait at a time. Counted by the server.
    pub waiting_per_uid: u32,
    /// Requests of one user on one open file that wait at a time. Counted by the server.
    pub waiting_per_open: u32,
    /// The space of fake offsets, for all.
    pub offset_space: PageCount,
}

impl Limits {
    /// The limits on a machine with this much memory: half of it for all clients, and a sixteenth
    /// is to be left.
    pub fn for_memory(memory: PageCount) -> Self {
        Self::for_clients(half(memory))
    }

    /// The limits where clients may have this much memory: one uid may have half of it, and of
    /// each thing that costs the server a part of a page no more than it may have pages.
    pub fn for_clients(total: PageCount) -> Self {
        let uid = half(total);
        let most = PageCount::new(MAX_OBJECT_PAGES).unwrap_or(uid);
        // Not every object has pages: a purged one has lost them, and a client's own are its own.
        // What the server keeps of those must not be more than their user may have.
        let as_pages = |most: u32| {
            let pages = u32::try_from(uid.get()).unwrap_or(u32::MAX);
            pages.max(FEW).min(most)
        };
        Self {
            total,
            uid,
            object: uid.min(most),
            keep_free: PageCount::new((total.get() / 8).max(1)).unwrap_or(total),
            // Mapping costs the kernel page tables, one eight-byte entry a page.
            mapped_per_uid: PageCount::new(total.get().saturating_mul(16)).unwrap_or(total),
            mapped_objects_per_uid: as_pages(AT_ONCE),
            opens: 1 << 20,
            opens_per_uid: 1 << 14,
            objects_per_uid: as_pages(1 << 20),
            handles_per_uid: as_pages(1 << 20) * 2,
            handles_per_open: AT_ONCE,
            object_fds_per_uid: as_pages(1 << 17),
            object_fds_per_open: 1 << 16,
            names_per_uid: 1 << 16,
            offsets_per_uid: 1 << 20,
            // Not memory of ours, but memory that its owner's process cannot be rid of alone.
            user_pages_per_uid: uid,
            user_ranges_per_uid: 1 << 14,
            waiting_per_uid: 1 << 10,
            waiting_per_open: 1 << 6,
            offset_space: OFFSET_SPACE,
        }
    }
}

/// What may go when an open ends: that is one step, in which nobody else is served. A handle takes
/// up to a fifth of a microsecond (docs/performance.md), so this many less than a frame's time on a
/// screen.
const AT_ONCE: u32 = 1 << 16;

/// What is cheap enough for one uid to have as many of on any machine.
const FEW: u32 = 1 << 14;

/// The most pages an object can have: a signed 32-bit number, so that a handle and a size fit one
/// word below the errno range.
pub const MAX_OBJECT_PAGES: u64 = i32::MAX as u64;

/// 2^62 bytes of addresses: a million objects of one uid, however they lie, leave gaps of 4 TiB
/// between them, so that nobody can break the space into pieces too small for others. Not more,
/// so that an offset stays a positive signed number.
const OFFSET_SPACE: PageCount = match PageCount::new(1 << 50) {
    Some(pages) => pages,
    None => PageCount::ZERO,
};

fn half(pages: PageCount) -> PageCount {
    PageCount::new((pages.get() / 2).max(1)).unwrap_or(pages)
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LedgerError {
    /// All clients together would have more memory than this.
    Total(PageCount),
    /// One object would have more memory than this.
    Object(PageCount),
    /// All clients together would have more opens than this.
    Opens(u32),
    /// This uid would have more memory than this.
    Memory(Uid, PageCount),
    /// This uid would have more pages mapped than this.
    Mapped(Uid, PageCount),
    /// More pages of this uid's clients would be taken over than this.
    UserPages(Uid, PageCount),
    /// This uid would have more of these than this.
    Count(Uid, Counted, u32),
    /// An open would have more of these than this.
    OpenCount(Counted, u32),
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total(limit) => write!(f, "all clients together may have {limit} pages"),
            Self::Object(limit) => write!(f, "one object may have {limit} pages"),
            Self::Opens(limit) => write!(f, "all clients together may have {limit} opens"),
            Self::Memory(uid, limit) => write!(f, "uid {uid} may have {limit} pages"),
            Self::Mapped(uid, limit) => write!(f, "uid {uid} may map {limit} pages"),
            Self::UserPages(uid, limit) => {
                write!(f, "uid {uid} may have {limit} pages of its own taken over")
            }
            Self::Count(uid, what, limit) => write!(f, "uid {uid} may have {limit} {what}"),
            Self::OpenCount(what, limit) => write!(f, "one open may have {limit} {what}"),
        }
    }
}
