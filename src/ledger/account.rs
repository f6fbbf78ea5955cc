//! What is counted of one uid, and the kinds of things that are counted one by one.

use core::fmt;

use crate::units::{PageCount, Uid};

/// What one uid has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Account {
    /// Whose it is.
    pub uid: Uid,
    /// Opens bound to it.
    pub opens: u32,
    /// Objects charged to it: those that it has held longer than any other user.
    pub objects: u32,
    /// Memory in those objects.
    pub memory: PageCount,
    /// Handles in its opens, and free numbers below them.
    pub handles: u32,
    /// Object fds made by it.
    pub object_fds: u32,
    /// Pages mapped through its opens and object fds.
    pub mapped: PageCount,
    /// Objects mapped through its opens, each open's counted.
    pub mapped_objects: u32,
    /// Objects charged to it that have a global name.
    pub names: u32,
    /// Objects charged to it that have a fake offset.
    pub offsets: u32,
    /// Pages of its clients that are taken over, or still mapped since they were.
    pub user_pages: PageCount,
    /// The ranges that those pages make.
    pub user_ranges: u32,
}

impl Account {
    /// The account of a uid that has nothing.
    pub fn new(uid: Uid) -> Self {
        Self {
            uid,
            opens: 0,
            objects: 0,
            memory: PageCount::ZERO,
            handles: 0,
            object_fds: 0,
            mapped: PageCount::ZERO,
            mapped_objects: 0,
            names: 0,
            offsets: 0,
            user_pages: PageCount::ZERO,
            user_ranges: 0,
        }
    }

    pub(super) fn count(&self, what: Counted) -> u32 {
        match what {
            Counted::Opens => self.opens,
            Counted::Objects => self.objects,
            Counted::Handles => self.handles,
            Counted::ObjectFds => self.object_fds,
            Counted::MappedObjects => self.mapped_objects,
            Counted::Names => self.names,
            Counted::Offsets => self.offsets,
            Counted::UserRanges => self.user_ranges,
        }
    }

    pub(super) fn counter(&mut self, what: Counted) -> &mut u32 {
        match what {
            Counted::Opens => &mut self.opens,
            Counted::Objects => &mut self.objects,
            Counted::Handles => &mut self.handles,
            Counted::ObjectFds => &mut self.object_fds,
            Counted::MappedObjects => &mut self.mapped_objects,
            Counted::Names => &mut self.names,
            Counted::Offsets => &mut self.offsets,
            Counted::UserRanges => &mut self.user_ranges,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::new(self.uid)
    }
}

/// What is counted one by one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counted {
    /// Opens.
    Opens,
    /// Objects.
    Objects,
    /// Handles.
    Handles,
    /// Object fds.
    ObjectFds,
    /// Objects mapped through nodes.
    MappedObjects,
    /// Global names.
    Names,
    /// Fake offsets.
    Offsets,
    /// Ranges of clients' own pages.
    UserRanges,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opens => "opens",
            Self::Objects => "objects",
            Self::Handles => "handles",
            Self::ObjectFds => "object fds",
            Self::MappedObjects => "mapped objects",
            Self::Names => "names",
            Self::Offsets => "offsets",
            Self::UserRanges => "userptr ranges",
        })
    }
}
