//! Objects that may lose their pages, in the order in which they became so: the list that purging
//! walks, so that it never looks at an object that it may not take.
//!
//! Each object in it stands in two lists at once, that of all and that of the user who pays for
//! it, because one user's limit may cost only that user's objects. Putting in, taking out and
//! finding the first one of either take constant time. What makes an object one of these is the
//! object's to say ([`crate::object::Object::is_purgeable`]); this module only keeps the order
//! and the sums.

use hashbrown::HashMap;

use crate::ledger::AccountKey;
use crate::shrink;
use crate::slots::{Key, Slots};
use crate::units::PageCount;

/// Where an object stands in the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place(Key);

/// The list.
#[derive(Debug)]
pub(crate) struct Purgeable {
    entries: Slots<Entry>,
    all: List,
    /// Of each user who pays for one; no user without any.
    own: HashMap<AccountKey, List>,
}

#[derive(Debug)]
struct Entry {
    object: Key,
    account: AccountKey,
    pages: PageCount,
    in_all: Links,
    in_own: Links,
}

/// The neighbours of an entry.
#[derive(Clone, Copy, Debug, Default)]
struct Links {
    before: Option<Key>,
    behind: Option<Key>,
}

#[derive(Clone, Copy, Debug, Default)]
struct List {
    first: Option<Key>,
    last: Option<Key>,
    pages: PageCount,
}

/// Which of an entry's two pairs of neighbours.
type Which = fn(&mut Entry) -> &mut Links;

fn in_all(entry: &mut Entry) -> &mut Links {
    &mut entry.in_all
}

fn in_own(entry: &mut Entry) -> &mut Links {
    &mut entry.in_own
}

impl Purgeable {
    pub(crate) fn new() -> Self {
        Self {
            entries: Slots::new(),
            all: List::default(),
            own: HashMap::default(),
        }
    }

    /// The object goes last. `None` where four billion stand there already.
    pub(crate) fn push(
        &mut self,
        object: Key,
        account: AccountKey,
        pages: PageCount,
    ) -> Option<Place> {
        let entry = Entry {
            object,
            account,
            pages,
            in_all: Links::default(),
            in_own: Links::default(),
        };
        let key = self.entries.insert(entry).ok()?;
        self.all.push(&mut self.entries, key, pages, in_all);
        let own = self.own.entry(account).or_default();
        own.push(&mut self.entries, key, pages, in_own);
        Some(Place(key))
    }

    /// What stood there stands nowhere any more.
    pub(crate) fn remove(&mut self, Place(key): Place) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        let Entry { account, pages, .. } = entry;
        self.all
            .unlink(&mut self.entries, entry.in_all, pages, in_all);
        self.leave_own(account, entry.in_own, pages);
    }

    /// Another user pays for the object: it keeps its place among all, and is the last of that
    /// user's.
    pub(crate) fn change_account(&mut self, Place(key): Place, account: AccountKey) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let (before, pages) = (core::mem::replace(&mut entry.account, account), entry.pages);
        let links = core::mem::take(&mut entry.in_own);
        self.leave_own(before, links, pages);
        let own = self.own.entry(account).or_default();
        own.push(&mut self.entries, key, pages, in_own);
    }

    fn leave_own(&mut self, account: AccountKey, links: Links, pages: PageCount) {
        if let Some(own) = self.own.get_mut(&account) {
            own.unlink(&mut self.entries, links, pages, in_own);
            if own.first.is_none() {
                self.own.remove(&account);
                shrink::map(&mut self.own);
            }
        }
    }

    /// The object that has stood there longest.
    pub(crate) fn first(&self) -> Option<Key> {
        self.object(self.all)
    }

    /// The same, among those that this user pays for.
    pub(crate) fn first_of(&self, account: AccountKey) -> Option<Key> {
        self.object(*self.own.get(&account)?)
    }

    fn object(&self, list: List) -> Option<Key> {
        Some(self.entries.get(list.first?)?.object)
    }

    /// How many pages they have together.
    pub(crate) fn pages(&self) -> PageCount {
        self.all.pages
    }

    /// The same, of those that this user pays for.
    pub(crate) fn pages_of(&self, account: AccountKey) -> PageCount {
        self.own.get(&account).copied().unwrap_or_default().pages
    }
}

impl List {
    fn push(&mut self, entries: &mut Slots<Entry>, key: Key, pages: PageCount, which: Which) {
        let before = self.last.replace(key);
        match before.and_then(|before| entries.get_mut(before)) {
            Some(before) => which(before).behind = Some(key),
            None => self.first = Some(key),
        }
        if let Some(entry) = entries.get_mut(key) {
            which(entry).before = before;
        }
        // The ledger's sum bounds this one.
        self.pages = self.pages.checked_add(pages).unwrap_or(PageCount::MAX);
    }

    /// Joins the neighbours of an entry that is gone.
    fn unlink(&mut self, entries: &mut Slots<Entry>, links: Links, pages: PageCount, which: Which) {
        let Links { before, behind } = links;
        match before.and_then(|before| entries.get_mut(before)) {
            Some(before) => which(before).behind = behind,
            None => self.first = behind,
        }
        match behind.and_then(|behind| entries.get_mut(behind)) {
            Some(behind) => which(behind).before = before,
            None => self.last = before,
        }
        self.pages = self.pages.saturating_sub(pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Limits};
    use crate::units::Uid;
    use alloc::vec::Vec;

    fn pages(pages: u64) -> PageCount {
        PageCount::new(pages).unwrap()
    }

    fn keys<const N: usize>() -> [Key; N] {
        let mut slots = Slots::new();
        [(); N].map(|()| slots.insert(()).unwrap())
    }

    fn accounts() -> [AccountKey; 2] {
        let mut ledger = Ledger::new(Limits::for_clients(pages(100)));
        [1, 2].map(|uid| ledger.charge_open(Uid(uid)).unwrap())
    }

    /// Takes all out, the first one first.
    fn drain(
        list: &mut Purgeable,
        places: &[(Key, Place)],
        first: impl Fn(&Purgeable) -> Option<Key>,
    ) -> Vec<Key> {
        let mut order = Vec::new();
        while let Some(object) = first(list) {
            order.push(object);
            let (_, place) = places.iter().find(|(key, _)| *key == object).unwrap();
            list.remove(*place);
        }
        order
    }

    #[test]
    fn who_came_first_is_first_among_all_and_among_its_users() {
        let [one, two] = accounts();
        let objects = keys::<5>();
        let mut list = Purgeable::new();
        let whose = [one, two, one, two, one];
        let places: Vec<_> = objects
            .into_iter()
            .zip(whose)
            .zip(1..)
            .map(|((key, whose), size)| (key, list.push(key, whose, pages(size)).unwrap()))
            .collect();
        assert_eq!((list.pages(), list.pages_of(one)), (pages(15), pages(9)));
        // From the middle.
        list.remove(places[2].1);
        assert_eq!((list.pages(), list.pages_of(one)), (pages(12), pages(6)));
        let twos = drain(&mut list, &places, |list| list.first_of(two));
        assert_eq!(twos, [objects[1], objects[3]]);
        assert_eq!(list.pages_of(two), PageCount::ZERO);
        let rest = drain(&mut list, &places, Purgeable::first);
        assert_eq!(rest, [objects[0], objects[4]]);
        assert_eq!(list.pages(), PageCount::ZERO);
        assert!(list.own.is_empty() && list.entries.len() == 0);
    }

    #[test]
    fn who_changes_users_keeps_its_place_among_all() {
        let [one, two] = accounts();
        let [a, b, c] = keys();
        let mut list = Purgeable::new();
        let first = list.push(a, one, pages(1)).unwrap();
        let second = list.push(b, two, pages(2)).unwrap();
        let third = list.push(c, one, pages(4)).unwrap();
        list.change_account(first, two);
        assert_eq!(list.first(), Some(a));
        assert_eq!(list.first_of(two), Some(b));
        assert_eq!(list.first_of(one), Some(c));
        assert_eq!(
            (list.pages_of(one), list.pages_of(two)),
            (pages(4), pages(3))
        );
        let places = [(a, first), (b, second), (c, third)];
        assert_eq!(drain(&mut list, &places, |list| list.first_of(two)), [b, a]);
    }

    #[test]
    fn a_place_that_is_free_again_is_nobodys() {
        let [one, _] = accounts();
        let [a, b] = keys();
        let mut list = Purgeable::new();
        let place = list.push(a, one, pages(1)).unwrap();
        list.remove(place);
        list.push(b, one, pages(2)).unwrap();
        list.remove(place);
        list.change_account(place, one);
        assert_eq!(list.first(), Some(b));
        assert_eq!(list.pages(), pages(2));
    }
}
