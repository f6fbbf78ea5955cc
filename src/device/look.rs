//! What is shown to people: totals, one open, one object after the other.
//!
//! Looking changes nothing, and costs the same however much there is: totals and sums are kept up
//! where things change, and the table of objects is walked in steps that the caller bounds. Who
//! may see what is the server's to decide; physical addresses are among what is shown here.

use super::{Device, Purges};
use crate::driver::Driver;
use crate::error::Error;
use crate::events::Pressure;
use crate::ids::OpenId;
use crate::ledger::{Account, Limits};
use crate::object::Advice;
use crate::open::Node;
use crate::pages::{Caching, Extent, PageSource};
use crate::units::{FakeOffset, Identity, Name, PageCount, Uid};
use crate::usage::Usage;

/// Totals of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stats {
    /// Opens, bound or not.
    pub opens: usize,
    /// Objects.
    pub objects: usize,
    /// Handles, of all opens.
    pub handles: u64,
    /// Object fds.
    pub object_fds: usize,
    /// Global names.
    pub names: usize,
    /// Fake offsets handed out.
    pub offsets: usize,
    /// Memory in objects.
    pub memory: PageCount,
    /// Pages mapped, each mapping counted.
    pub mapped: PageCount,
    /// Pages of clients' own that are taken over, or mapped since they were.
    pub user_pages: PageCount,
    /// The ranges that those pages make.
    pub user_ranges: u32,
    /// Bindings in GPU address spaces.
    pub bindings: usize,
    /// Memory in objects that may be purged.
    pub purgeable: PageCount,
    /// What was purged.
    pub purges: Purges,
    /// How short the machine's memory is.
    pub pressure: Pressure,
    /// How much clients may have.
    pub limits: Limits,
}

/// What one open has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpenStats {
    /// Its number for people.
    pub client: u64,
    /// Which node.
    pub node: Node,
    /// Whose it is.
    pub identity: Option<Identity>,
    /// Its handles.
    pub handles: u32,
    /// Object fds made through it.
    pub object_fds: u32,
    /// Objects it has mapped through its node.
    pub mapped_objects: usize,
    /// How much memory it holds.
    pub usage: Usage,
    /// Whether it was revoked.
    pub revoked: bool,
    /// What its uid has altogether.
    pub account: Option<Account>,
    /// Memory that might be purged of the objects which that uid pays for.
    pub purgeable_of_uid: PageCount,
}

/// One object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObjectView {
    /// Its number for people: counts up, never used again.
    pub number: u64,
    /// Who pays for it.
    pub owner: Uid,
    /// Its size.
    pub pages: PageCount,
    /// How the CPU caches it.
    pub caching: Caching,
    /// Whether its contents are needed.
    pub advice: Advice,
    /// Whether it has lost its pages.
    pub is_purged: bool,
    /// Whether it may lose them now.
    pub is_purgeable: bool,
    /// Handles on it, of all opens.
    pub handles: u32,
    /// Opens that hold or map it.
    pub holders: usize,
    /// Fds on it.
    pub fds: u32,
    /// Pages mapped, each mapping counted.
    pub mapped: PageCount,
    /// Its global name.
    pub name: Option<Name>,
    /// Its fake offset.
    pub offset: Option<FakeOffset>,
    /// In how many pieces of physical memory it lies.
    pub extents: usize,
    /// The first of them. For root's eyes only.
    pub first: Option<Extent>,
}

/// How far a walk over the objects has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ObjectCursor(u32);

impl<S: PageSource, D: Driver> Device<S, D> {
    /// Totals.
    pub fn stats(&self) -> Stats {
        Stats {
            opens: self.opens.len(),
            objects: self.objects.len(),
            handles: self.handles,
            object_fds: self.object_fds.len(),
            names: self.names.len(),
            offsets: self.offsets.len(),
            memory: self.ledger.memory(),
            mapped: self.ledger.mapped(),
            user_pages: self.ledger.user_pages(),
            user_ranges: self.ledger.user_ranges(),
            bindings: self.bindings.len(),
            purgeable: self.purgeable.pages(),
            purges: self.purges,
            pressure: self.pressure,
            limits: *self.ledger.limits(),
        }
    }

    /// What each uid has.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.ledger.accounts()
    }

    /// What this uid has; `None` where that is nothing.
    pub fn account_of(&self, uid: Uid) -> Option<&Account> {
        self.ledger.account_of(uid)
    }

    /// What one open has.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOpen`] (EBADF).
    pub fn open_stats(&self, open: OpenId) -> Result<OpenStats, Error> {
        let state = self.opens.get(open.0).ok_or(Error::NoSuchOpen)?;
        let account = state.owner.map(|owner| owner.account);
        let purgeable = account.map(|account| self.purgeable.pages_of(account));
        Ok(OpenStats {
            client: state.client,
            node: state.node,
            identity: state.owner.map(|owner| owner.identity),
            handles: state.handles.len(),
            object_fds: state.object_fds,
            mapped_objects: state.mapped.len(),
            usage: state.usage,
            revoked: state.revoked,
            account: account.and_then(|account| self.ledger.account(account).copied()),
            purgeable_of_uid: purgeable.unwrap_or_default(),
        })
    }

    /// The open with this number for people.
    pub fn client(&self, number: u64) -> Option<OpenId> {
        self.clients.get(&number).copied()
    }

    /// Opens with numbers above `after`, in order: all, or those of one uid.
    pub fn clients(
        &self,
        of: Option<Uid>,
        after: u64,
    ) -> impl Iterator<Item = (u64, OpenId)> + use<'_, S, D> {
        let after = after.saturating_add(1);
        let (all, own) = match of {
            None => (Some(self.clients.range(after..)), None),
            Some(uid) => {
                let range = (uid, after)..=(uid, u64::MAX);
                (None, Some(self.clients_by_uid.range(range)))
            }
        };
        let all = all.into_iter().flatten();
        let own = own.into_iter().flatten();
        all.map(|(&number, &open)| (number, open))
            .chain(own.map(|(&(_, number), &open)| (number, open)))
    }

    /// The next object from the cursor on, looking at no more than `slots` places. `slots` counts
    /// down; `None` with some left over means that there are no more objects.
    pub fn next_object(&self, cursor: &mut ObjectCursor, slots: &mut usize) -> Option<ObjectView> {
        while *slots > 0 && cursor.0 < self.objects.slots() {
            *slots -= 1;
            let found = self.objects.at(cursor.0);
            cursor.0 += 1;
            if let Some((_, object)) = found {
                return Some(ObjectView {
                    number: object.number,
                    owner: self.ledger.uid(object.owner),
                    pages: object.pages(),
                    caching: object.caching,
                    advice: object.advice,
                    is_purged: object.is_purged(),
                    is_purgeable: object.place.is_some(),
                    handles: object.handles,
                    holders: object.holders.len(),
                    fds: object.fds,
                    mapped: object.mapped,
                    name: object.name,
                    offset: object.offset,
                    extents: object.backing.extents().len(),
                    first: object.backing.extents().first().copied(),
                });
            }
        }
        None
    }
}
