//! An object, and an fd on one, as the model sees them.

use std::collections::{BTreeMap, BTreeSet};

use gem::ObjectFdId;
use gem::units::{FakeOffset, Name};

/// An object as the model sees it.
#[derive(Clone, Debug, Default)]
pub struct Thing {
    /// Its number for people.
    pub number: u64,
    pub unneeded: bool,
    pub purged: bool,
    /// The step at which it came to be among those that may be purged, if it is; and the step at
    /// which it came to be among those of its user.
    pub since: Option<usize>,
    pub since_of_user: usize,
    /// Who holds it, in the order in which they came: the first one pays.
    pub users: Vec<u32>,
    pub pages: u64,
    pub name: Option<Name>,
    pub offset: Option<FakeOffset>,
    /// Handles, of which opens.
    pub handles: BTreeMap<(usize, u32), ()>,
    pub prime: BTreeMap<usize, u32>,
    pub fds: BTreeSet<usize>,
    /// Mapped pages, by open.
    pub mapped: BTreeMap<usize, u64>,
    /// By object fd: by which users, in the order in which they came.
    pub mapped_by_fd: BTreeMap<usize, Vec<(u32, u64)>>,
    /// How much is at work on it.
    pub uses: u32,
}

impl Thing {
    pub fn owner(&self) -> u32 {
        self.users[0]
    }

    /// Pages it is charged for.
    pub fn charge(&self) -> u64 {
        if self.purged { 0 } else { self.pages }
    }

    pub fn is_purgeable(&self) -> bool {
        self.unneeded && !self.purged && self.mapped_pages() == 0 && self.uses == 0
    }

    pub fn mapped_pages(&self) -> u64 {
        let by_fd = self.mapped_by_fd.values().flatten();
        self.mapped.values().sum::<u64>() + by_fd.map(|(_, pages)| pages).sum::<u64>()
    }

    pub fn is_held(&self) -> bool {
        !self.handles.is_empty() || !self.fds.is_empty() || self.mapped_pages() > 0 || self.uses > 0
    }

    /// Opens that have handles on it, or map it.
    pub fn holders(&self) -> BTreeSet<usize> {
        let handles = self.handles.keys().map(|(open, _)| *open);
        let mapped = self.mapped.iter().filter(|(_, pages)| **pages > 0);
        handles.chain(mapped.map(|(open, _)| *open)).collect()
    }

    pub fn held_by(&self, open: usize) -> bool {
        self.handles.keys().any(|(holder, _)| *holder == open)
    }
}

/// Has it a name?
pub fn named(thing: &Thing) -> bool {
    thing.name.is_some()
}

/// Has it an offset?
pub fn placed(thing: &Thing) -> bool {
    thing.offset.is_some()
}

/// An fd on an object.
#[derive(Clone, Copy)]
pub struct ObjectFile {
    pub id: ObjectFdId,
    pub write: bool,
    /// Through which open it was made, and whose that was.
    pub maker: usize,
    pub user: u32,
}
