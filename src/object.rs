//! Objects, and who holds them.
//!
//! An object knows its pages, its counts and its holders; it does not know how to count or to
//! end: the device does both, in one place each. An object lives while any of its counts
//! (handles, object fds, mapped pages) is above zero, while its pages are being taken over, or
//! something is at work on it.

use alloc::boxed::Box;

use hashbrown::HashMap;

use crate::fd_mappings::FdMappings;
use crate::ids::OpenId;
use crate::ledger::{AccountKey, Load};
use crate::pages::{Caching, Extent, PageSet};
use crate::purgeable::Place;
use crate::sharers::Sharers;
use crate::shrink;
use crate::slots::Key;
use crate::units::{FakeOffset, Handle, Name, PageCount, Uid};
use crate::usage::{FEW_HOLDERS, Usage};
use crate::user::User;

/// Where an object's pages come from.
#[derive(Debug)]
pub(crate) enum Backing {
    /// From the page source; given back to it when the object ends.
    Own(PageSet),
    /// From the driver, which has them back when the object ends. Not mappable by clients.
    Private(PageSet),
    /// A client's own, as long as it lets us have them. Boxed, because objects are many and these
    /// are few of them.
    User(Box<User>),
    /// None any more: so many were purged, and the object never has pages again.
    Purged(PageCount),
}

impl Backing {
    pub(crate) fn pages(&self) -> PageCount {
        match self {
            Self::Own(set) | Self::Private(set) => set.pages(),
            Self::User(user) => user.pages,
            Self::Purged(pages) => *pages,
        }
    }

    pub(crate) fn extents(&self) -> &[Extent] {
        match self {
            Self::Own(set) | Self::Private(set) => set.extents(),
            // Nobody knows before a device needs them.
            Self::User(_) => &[],
            Self::Purged(_) => &[],
        }
    }
}

/// What its users say of an object: are its contents worth keeping?
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Advice {
    /// They are, as of every new object.
    #[default]
    WillNeed,
    /// Where memory runs short, they may be lost.
    DontNeed,
}

/// What an fd on an object allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rights {
    /// Writing: mapping writeable, `write`, importing.
    pub write: bool,
}

/// One buffer object.
#[derive(Debug)]
pub(crate) struct Object {
    /// Its number for people: counts up, never used again.
    pub(crate) number: u64,
    pub(crate) backing: Backing,
    pub(crate) caching: Caching,
    pub(crate) advice: Advice,
    /// Where it stands among the objects that may be purged, if it is one.
    pub(crate) place: Option<Place>,
    /// Whose the page source takes the pages to be, whoever pays for them.
    pub(crate) allocated_for: Uid,
    /// Who pays for it: the user that has held it longest.
    pub(crate) owner: AccountKey,
    /// The other users that hold it.
    pub(crate) sharers: Sharers,
    pub(crate) name: Option<Name>,
    pub(crate) offset: Option<FakeOffset>,
    /// Handles, of all opens.
    pub(crate) handles: u32,
    /// Object fds.
    pub(crate) fds: u32,
    /// Mapped pages, of all opens and object fds.
    pub(crate) mapped: PageCount,
    /// Whether a request or the hardware is at work on it.
    pub(crate) is_at_work: bool,
    pub(crate) holders: Holders,
}

impl Object {
    /// How large it is, purged or not.
    pub(crate) fn pages(&self) -> PageCount {
        self.backing.pages()
    }

    pub(crate) fn is_purged(&self) -> bool {
        matches!(self.backing, Backing::Purged(_))
    }

    /// Whether its pages may be taken from it: nobody needs them, nothing is at work on them, and
    /// nobody has them mapped, for a mapping can be taken from nobody. Pages that are not the page source's (a device's, a
    /// client's own) are never taken, as on Linux, which purges what is made of shmem only.
    pub(crate) fn is_purgeable(&self) -> bool {
        self.advice == Advice::DontNeed
            && self.mapped.is_zero()
            && !self.is_at_work
            && matches!(self.backing, Backing::Own(_))
    }

    /// What its payer is charged for.
    pub(crate) fn load(&self) -> Load {
        Load {
            pages: match self.backing {
                // No memory of ours; it is charged apart, and not to sharers.
                Backing::User(_) | Backing::Purged(_) => PageCount::ZERO,
                Backing::Own(_) | Backing::Private(_) => self.pages(),
            },
            has_name: self.name.is_some(),
            has_offset: self.offset.is_some(),
        }
    }

    /// What it counts as for each open that holds it.
    pub(crate) fn usage(&self) -> Usage {
        let holders = self.holders.len();
        let if_so = |is: bool| if is { self.pages() } else { PageCount::ZERO };
        Usage {
            total: self.pages(),
            shared: if_so(holders > 1),
            resident: if_so(self.has_pages() || holders > FEW_HOLDERS),
            active: if_so(self.is_at_work && holders <= FEW_HOLDERS),
            purgeable: if_so(self.place.is_some() && holders <= FEW_HOLDERS),
        }
    }

    /// Whether there are pages behind it.
    fn has_pages(&self) -> bool {
        match &self.backing {
            Backing::Own(_) | Backing::Private(_) => true,
            Backing::User(user) => user.has_pages(),
            Backing::Purged(_) => false,
        }
    }

    /// Whether nobody holds it.
    pub(crate) fn is_unused(&self) -> bool {
        self.handles == 0 && self.fds == 0 && self.mapped.is_zero() && !self.is_acquiring()
    }

    /// Whether the platform is at its pages.
    fn is_acquiring(&self) -> bool {
        matches!(&self.backing, Backing::User(user) if user.is_acquiring())
    }

    /// An open or an object fd of this user holds the object, and did not before.
    pub(crate) fn join(&mut self, account: AccountKey) {
        if account != self.owner {
            self.sharers.add(account);
        }
    }

    /// An open or an object fd of this user holds the object no more. Where that was the payer's
    /// last one and others hold it, the oldest of them pays from now on: who paid, and who does.
    pub(crate) fn leave(&mut self, account: AccountKey) -> Option<(AccountKey, AccountKey)> {
        if account != self.owner {
            self.sharers.remove(account);
            return None;
        }
        if self.holders.len() + self.fds as usize > self.sharers.holds() {
            return None;
        }
        let next = self.sharers.take_oldest()?;
        Some((core::mem::replace(&mut self.owner, next), next))
    }
}

/// What one open has of an object.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Holder {
    /// Its handles on the object: with one or more it may map.
    pub(crate) handles: u32,
    /// The handle that PRIME import gives again.
    pub(crate) prime: Option<Handle>,
    /// Pages it has mapped through its node.
    pub(crate) mapped: PageCount,
}

impl Holder {
    fn is_empty(&self) -> bool {
        self.handles == 0 && self.mapped.is_zero()
    }
}

/// The opens that hold an object. Most objects have one or two, who makes it and who shows it,
/// and those need no heap.
#[derive(Debug)]
pub(crate) enum Holders {
    Few([Option<(OpenId, Holder)>; FEW]),
    Many(Box<HashMap<OpenId, Holder>>),
}

const FEW: usize = 2;

impl Holders {
    pub(crate) const NONE: Self = Self::Few([None; FEW]);

    pub(crate) fn get(&self, open: OpenId) -> Holder {
        match self {
            Self::Few(holders) => holders
                .iter()
                .flatten()
                .find(|(holder, _)| *holder == open)
                .map(|(_, holder)| *holder)
                .unwrap_or_default(),
            Self::Many(holders) => holders.get(&open).copied().unwrap_or_default(),
        }
    }

    /// Changes what an open has; an open that has nothing afterwards is forgotten.
    pub(crate) fn update(&mut self, open: OpenId, change: impl FnOnce(&mut Holder)) {
        let mut holder = self.get(open);
        change(&mut holder);
        if holder.is_empty() {
            self.forget(open);
        } else {
            self.set(open, holder);
        }
    }

    /// How many opens hold the object.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(holders) => holders.iter().flatten().count(),
            Self::Many(holders) => holders.len(),
        }
    }

    /// Does this for each open that holds the object.
    pub(crate) fn for_each(&self, mut act: impl FnMut(OpenId)) {
        match self {
            Self::Few(few) => few.iter().flatten().for_each(|(open, _)| act(*open)),
            Self::Many(holders) => holders.keys().for_each(|&open| act(open)),
        }
    }

    fn set(&mut self, open: OpenId, holder: Holder) {
        match self {
            Self::Few(few) => {
                let is = |place: &&mut Option<(OpenId, Holder)>| {
                    place.is_some_and(|(present, _)| present == open)
                };
                // Its own place, or else an empty one.
                if let Some(place) = few.iter_mut().find(is) {
                    *place = Some((open, holder));
                } else if let Some(place) = few.iter_mut().find(|place| place.is_none()) {
                    *place = Some((open, holder));
                } else {
                    let all = few.iter().flatten().copied().chain([(open, holder)]);
                    *self = Self::Many(Box::new(all.collect()));
                }
            }
            Self::Many(holders) => {
                holders.insert(open, holder);
            }
        }
    }

    fn forget(&mut self, open: OpenId) {
        match self {
            Self::Few(few) => {
                for place in few {
                    *place = place.filter(|(present, _)| *present != open);
                }
            }
            Self::Many(holders) => {
                holders.remove(&open);
                // Not as soon as they fit: one more and one less must not allocate each time.
                if holders.len() < FEW {
                    let mut rest = holders.iter().map(|(&open, &holder)| (open, holder));
                    *self = Self::Few([rest.next(), rest.next()]);
                } else {
                    shrink::map(holders);
                }
            }
        }
    }
}

/// An fd on an object: keeps it alive, with or without handles.
#[derive(Debug)]
pub(crate) struct ObjectFd {
    pub(crate) object: Key,
    pub(crate) rights: Rights,
    /// What is mapped through this fd.
    pub(crate) mapped: FdMappings,
    /// Through which open it was made; that open may be gone.
    pub(crate) maker: OpenId,
    /// Who pays for it.
    pub(crate) account: AccountKey,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;
    use alloc::vec::Vec;

    fn opens(count: usize) -> Vec<OpenId> {
        let mut slots = Slots::new();
        (0..count)
            .map(|_| OpenId(slots.insert(()).unwrap()))
            .collect()
    }

    #[test]
    fn any_number_of_opens_can_hold_an_object() {
        let opens = opens(100);
        let mut holders = Holders::NONE;
        for (number, &open) in (1..).zip(&opens) {
            holders.update(open, |holder| holder.handles = number);
            assert_eq!(holders.len(), number as usize);
        }
        for (number, &open) in (1..).zip(&opens) {
            assert_eq!(holders.get(open).handles, number);
        }
        for (gone, &open) in opens.iter().enumerate() {
            holders.update(open, |holder| holder.handles = 0);
            assert_eq!(holders.get(open), Holder::default());
            assert_eq!(holders.len(), opens.len() - gone - 1);
        }
        assert!(matches!(holders, Holders::Few([None, None])));
    }

    #[test]
    fn an_open_holds_an_object_by_a_handle_or_by_a_mapping() {
        let open = opens(1)[0];
        let mut holders = Holders::NONE;
        holders.update(open, |holder| {
            holder.handles = 1;
            holder.mapped = PageCount::MAX;
        });
        holders.update(open, |holder| holder.handles = 0);
        assert_eq!(holders.len(), 1);
        holders.update(open, |holder| holder.mapped = PageCount::ZERO);
        assert_eq!(holders.len(), 0);
    }

    #[test]
    fn holders_stay_in_a_map_until_one_is_left() {
        let opens = opens(3);
        let mut holders = Holders::NONE;
        for &open in &opens {
            holders.update(open, |holder| holder.handles = 1);
        }
        holders.update(opens[2], |holder| holder.handles = 0);
        assert!(
            matches!(holders, Holders::Many(_)),
            "the third may come again"
        );
        holders.update(opens[0], |holder| holder.handles = 0);
        assert!(matches!(holders, Holders::Few(_)));
        assert_eq!(holders.get(opens[1]).handles, 1);
    }

    #[test]
    fn a_map_of_holders_gives_its_room_back() {
        let opens = opens(10_000);
        let mut holders = Holders::NONE;
        for &open in &opens {
            holders.update(open, |holder| holder.handles = 1);
        }
        for &open in &opens[2..] {
            holders.update(open, |holder| holder.handles = 0);
        }
        let Holders::Many(many) = &holders else {
            panic!("two of many are still in a map");
        };
        assert!(many.allocation_size() < 2000, "{}", many.allocation_size());
    }
}
