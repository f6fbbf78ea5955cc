//! How much memory one open holds, by what state it is in: the sums that Linux's
//! `drm-usage-stats` asks for.
//!
//! An object counts once for every open that holds it, by handles or mappings, however many. The
//! device adds and takes away as opens come to hold objects and let go of them, and as objects
//! change their state, so that telling the sums never walks over objects. What an object counts
//! as is said in one place, `Object::usage`; this module only adds up.

use crate::units::PageCount;

/// An object that more opens hold than this counts for none of them as active or purgeable, and for
/// all as resident: its state can change with every request, and no request is to touch any number
/// of opens.
pub const FEW_HOLDERS: usize = 8;

/// What one open holds; or what one object adds to that.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// All objects that the open holds.
    pub total: PageCount,
    /// Those of them that another open holds as well.
    pub shared: PageCount,
    /// Those that have pages: purged ones have none, and a client's own may have been taken
    /// back.
    pub resident: PageCount,
    /// Those that a request or the hardware is at work on, of those with [`FEW_HOLDERS`].
    pub active: PageCount,
    /// Those that may be purged, of those with [`FEW_HOLDERS`].
    pub purgeable: PageCount,
}

impl Usage {
    /// The open holds this, too.
    pub(crate) fn add(&mut self, object: Self) {
        // No sum passes what the ledger allows for all clients together.
        let sum = |a: PageCount, b| a.checked_add(b).unwrap_or(PageCount::MAX);
        *self = self.each(object, sum);
    }

    /// The open holds this no more.
    pub(crate) fn remove(&mut self, object: Self) {
        *self = self.each(object, PageCount::saturating_sub);
    }

    fn each(self, object: Self, change: impl Fn(PageCount, PageCount) -> PageCount) -> Self {
        Self {
            total: change(self.total, object.total),
            shared: change(self.shared, object.shared),
            resident: change(self.resident, object.resident),
            active: change(self.active, object.active),
            purgeable: change(self.purgeable, object.purgeable),
        }
    }
}
