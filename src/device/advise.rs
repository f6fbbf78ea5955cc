//! What its users do not need, and memory that runs short.
//!
//! An object that is not needed, that nobody has mapped and nothing is at work on stands in a list ([`Purgeable`]), the
//! longest unneeded in front, and is purged from there: its pages go back where they came from, it
//! is charged no more for them, and it lives on without any. That never turns back. Purging is
//! for three that want memory: a user whose limit a new object would pass (its own objects only),
//! the limit on all users together, and the machine. No one call purges more than a few hundred
//! objects.
//!
//! Whether an object may be purged changes with its advice, its mappings and the work on it;
//! [`Device::reconsider`] is called after each.
//!
//! [`Purgeable`]: crate::purgeable::Purgeable

use super::Device;
use crate::driver::Driver;
use crate::error::Error;
use crate::events::Pressure;
use crate::ids::OpenId;
use crate::ledger::AccountKey;
use crate::object::{Advice, Backing};
use crate::pages::{NotReady, PageRequest, PageSet, PageSource};
use crate::purgeable::Place;
use crate::slots::Key;
use crate::units::{Handle, PageCount};

/// The most objects that are purged before others have their turn.
const AT_A_TIME: usize = 256;

/// What was purged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Purges {
    /// Objects there are that have lost their pages.
    pub objects: usize,
    /// Pages purged since the device was made.
    pub pages: u64,
}

impl<S: PageSource, D: Driver> Device<S, D> {
    /// Says whether an object's contents are worth keeping, for all who hold it: whoever spoke
    /// last is heard. Whether they have been kept: an object that was purged has no pages any
    /// more, whatever is said.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT).
    pub fn advise(&mut self, open: OpenId, handle: Handle, advice: Advice) -> Result<bool, Error> {
        let key = self.object_of(open, handle)?;
        let object = self.objects.get_mut(key);
        let object = object.ok_or(Error::NoSuchHandle(handle))?;
        object.advice = advice;
        let retained = !object.is_purged();
        // Said again, it is the last of those that are unneeded.
        self.take_off(key);
        self.reconsider(key);
        Ok(retained)
    }

    /// Looks how much memory the machine has left, and where that is less than is to be kept free
    /// gives back what is unused and purges what is unneeded, until there is an eighth more than
    /// that or nothing to purge.
    ///
    /// # Errors
    ///
    /// [`Error::Unfinished`]: there is more to purge.
    pub fn relieve(&mut self) -> Result<(), Error> {
        let left = self.source.left();
        let keep = self.ledger.limits().keep_free;
        let level = left.map_or(Pressure::Eased, |left| weigh(self.pressure, keep, left));
        self.note_pressure(level, left.unwrap_or(PageCount::MAX));
        let (Some(left), Pressure::Low | Pressure::Critical) = (left, level) else {
            return Ok(());
        };
        // What is given back has been counted as left.
        self.source.give_back();
        self.purge_oldest(margin(keep).saturating_sub(left))
    }

    /// The one place where memory begins and ceases to be short.
    fn note_pressure(&mut self, level: Pressure, left: PageCount) {
        if level != self.pressure {
            self.pressure = level;
            self.announce_pressure(level, left);
        }
    }

    /// How short the machine's memory was, when it was last looked at.
    pub fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// Pages from the source, where there is not enough memory with the help of what is unneeded:
    /// by anybody, or where the user itself is in the way, by that user.
    pub(super) fn allocate(
        &mut self,
        account: AccountKey,
        request: PageRequest,
    ) -> Result<PageSet, Error> {
        match self.source.allocate(request) {
            Err(NotReady::OutOfMemory) if self.make_free(request.pages) => {}
            Err(NotReady::Scattered) if self.purge_own(account, request.pages) => {}
            result => return Ok(result?),
        }
        match self.source.allocate(request) {
            Err(NotReady::OutOfMemory | NotReady::Scattered) => Err(Error::Unfinished),
            result => Ok(result?),
        }
    }

    /// Gives memory back to the machine, so many pages if there are as many; whether there were
    /// any. Nothing is purged where all of it would not do.
    fn make_free(&mut self, pages: PageCount) -> bool {
        let given = self.source.give_back();
        let there = self.source.left().unwrap_or(PageCount::MAX);
        let in_all = there.checked_add(self.purgeable.pages());
        if given >= pages || in_all.is_some_and(|in_all| in_all < pages) {
            return !given.is_zero();
        }
        let before = self.purges.pages;
        // Where that was not all, the source will say again that there is nothing.
        let _ = self.purge_oldest(pages.saturating_sub(given));
        !given.is_zero() || self.purges.pages > before
    }

    /// Makes room for a new object of so many pages where limits on memory stand in the way and
    /// purging helps: the user's own objects to its limit, anybody's to that of all. What is
    /// still in the way then, charging says.
    ///
    /// # Errors
    ///
    /// [`Error::Unfinished`]: there is more to purge.
    pub(super) fn make_room(&mut self, account: AccountKey, pages: PageCount) -> Result<(), Error> {
        let excess = self.ledger.excess(account, pages);
        let of_user = self.purgeable.pages_of(account);
        if excess.own > of_user || excess.all > self.purgeable.pages() {
            return Ok(());
        }
        for _ in 0..AT_A_TIME {
            let excess = self.ledger.excess(account, pages);
            let next = if !excess.own.is_zero() {
                self.purgeable.first_of(account)
            } else if !excess.all.is_zero() {
                self.purgeable.first()
            } else {
                return Ok(());
            };
            let Some(key) = next else { return Ok(()) };
            self.purge(key);
        }
        Err(Error::Unfinished)
    }

    /// Purges so many pages of what this user pays for, if there are as many; whether there were
    /// any.
    fn purge_own(&mut self, account: AccountKey, pages: PageCount) -> bool {
        let mut left = pages;
        for _ in 0..AT_A_TIME {
            let first = self.purgeable.first_of(account);
            let Some(key) = first.filter(|_| !left.is_zero()) else {
                break;
            };
            left = left.saturating_sub(self.purge(key));
        }
        left < pages
    }

    /// Purges what has been unneeded longest, at least so many pages if there are as many.
    fn purge_oldest(&mut self, mut pages: PageCount) -> Result<(), Error> {
        for _ in 0..AT_A_TIME {
            let first = self.purgeable.first().filter(|_| !pages.is_zero());
            let Some(key) = first else { return Ok(()) };
            pages = pages.saturating_sub(self.purge(key));
        }
        Err(Error::Unfinished)
    }

    /// The one place where objects lose their pages; how many. All who hold it lose them at once,
    /// devices first.
    fn purge(&mut self, key: Key) -> PageCount {
        let info = self.info(key);
        self.take_off(key);
        self.clear_bindings(key, None);
        let Some(object) = self.objects.get_mut(key) else {
            return PageCount::ZERO;
        };
        let (pages, counted) = (object.pages(), object.usage());
        let backing = core::mem::replace(&mut object.backing, Backing::Purged(pages));
        let Backing::Own(set) = backing else {
            // Never stands in the list.
            object.backing = backing;
            return PageCount::ZERO;
        };
        if let Some(info) = info {
            self.driver.object_purge(info);
        }
        self.source.free(object.allocated_for, set);
        self.ledger.refund_pages(object.owner, pages);
        self.recount(key, counted);
        self.purges.objects += 1;
        self.purges.pages = self.purges.pages.saturating_add(pages.get());
        pages
    }

    /// Whether the object may be purged has changed, perhaps.
    pub(super) fn reconsider(&mut self, key: Key) {
        let Some(object) = self.objects.get(key) else {
            return;
        };
        if !object.is_purgeable() {
            self.take_off(key);
        } else if object.place.is_none() {
            let place = self.purgeable.push(key, object.owner, object.pages());
            self.set_place(key, place);
        }
    }

    /// It stands in the list no more, if it did.
    fn take_off(&mut self, key: Key) {
        if let Some(place) = self.objects.get(key).and_then(|object| object.place) {
            self.set_place(key, None);
            self.purgeable.remove(place);
        }
    }

    fn set_place(&mut self, key: Key, place: Option<Place>) {
        if let Some(object) = self.objects.get_mut(key) {
            let counted = object.usage();
            object.place = place;
            self.recount(key, counted);
        }
    }
}

/// How short memory is with so much left, where it was as short as `before`.
fn weigh(before: Pressure, keep: PageCount, left: PageCount) -> Pressure {
    let low = match before {
        Pressure::Eased => keep,
        Pressure::Low | Pressure::Critical => margin(keep),
    };
    let critical = match before {
        Pressure::Critical => keep.get() / 2,
        Pressure::Eased | Pressure::Low => keep.get() / 4,
    };
    if left.get() < critical {
        Pressure::Critical
    } else if left < low {
        Pressure::Low
    } else {
        Pressure::Eased
    }
}

/// How much is left where memory is no longer short, once it was: more than what makes it short,
/// so that it is not short again with the next page.
fn margin(keep: PageCount) -> PageCount {
    PageCount::new(keep.get() / 8)
        .and_then(|eighth| keep.checked_add(eighth))
        .unwrap_or(PageCount::MAX)
}
