//! Which object lies where in the GPU's address spaces.
//!
//! A binding is one open's, of one object, at one place; it keeps neither alive. Found by object
//! and open (to clear them all when a handle or the pages go) and by place (so that none lies over
//! another); everything is O(log n) in the number of bindings. The page tables are the driver's.

use alloc::collections::BTreeMap;

use crate::ids::OpenId;
use crate::slots::Key;
use crate::space::{Place, SpaceId};
use crate::units::{GpuAddr, PageCount};

/// Object, open, place: the numbers are never used twice.
type Owned = (u64, u64, Place);

/// All bindings of a device.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    by_owner: BTreeMap<Owned, PageCount>,
    by_place: BTreeMap<Place, PageCount>,
}

const FIRST: Place = place(0, 0);
const LAST: Place = place(u32::MAX, PageCount::MAX.bytes());

const fn place(space: u32, at: u64) -> Place {
    match GpuAddr::new(at) {
        Some(at) => Place {
            space: SpaceId(space),
            at,
        },
        None => panic!("not a page's address"),
    }
}

impl Bindings {
    pub(crate) fn len(&self) -> usize {
        self.by_owner.len()
    }

    /// Whether anything lies in these pages.
    pub(crate) fn overlaps(&self, place: Place, pages: PageCount) -> bool {
        let Some(end) = place.at.checked_add(pages) else {
            return true;
        };
        let end = Place { at: end, ..place };
        let last = self.by_place.range(..end).next_back();
        last.is_some_and(|(before, pages)| {
            before.space == place.space && before.at.checked_add(*pages) > Some(place.at)
        })
    }

    pub(crate) fn insert(&mut self, object: Key, open: OpenId, place: Place, pages: PageCount) {
        self.by_owner
            .insert((object.as_u64(), open.as_u64(), place), pages);
        self.by_place.insert(place, pages);
    }

    /// Takes this open's binding of the object at this place out.
    pub(crate) fn remove(&mut self, object: Key, open: OpenId, place: Place) -> Option<PageCount> {
        let pages = self
            .by_owner
            .remove(&(object.as_u64(), open.as_u64(), place))?;
        self.by_place.remove(&place);
        Some(pages)
    }

    /// Takes one binding of the object out, of this open or of any; `None` where there are no more.
    pub(crate) fn pop(&mut self, object: Key, of: Option<OpenId>) -> Option<(Place, PageCount)> {
        let object = object.as_u64();
        let (first, last) = match of {
            Some(open) => (open.as_u64(), open.as_u64()),
            None => (0, u64::MAX),
        };
        let range = (object, first, FIRST)..=(object, last, LAST);
        let (&owned, &pages) = self.by_owner.range(range).next()?;
        self.by_owner.remove(&owned);
        let (.., place) = owned;
        self.by_place.remove(&place);
        Some((place, pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;

    fn pages(pages: u64) -> PageCount {
        PageCount::new(pages).unwrap()
    }

    #[test]
    fn nothing_lies_over_anything_else() {
        let mut slots = Slots::new();
        let (object, open) = (slots.insert(()).unwrap(), OpenId(slots.insert(()).unwrap()));
        let mut bindings = Bindings::default();
        bindings.insert(object, open, place(1, 0x4000), pages(2));
        for (space, at, size, overlaps) in [
            (1, 0x4000, 1, true),
            (1, 0x5000, 1, true),
            (1, 0x6000, 1, false),
            (1, 0x3000, 1, false),
            (1, 0x3000, 2, true),
            (1, 0, 100, true),
            (0, 0x4000, 2, false),
            (2, 0x4000, 2, false),
            (0, 0x4000, PageCount::MAX.get(), true),
        ] {
            let found = bindings.overlaps(place(space, at), pages(size));
            assert_eq!(found, overlaps, "{space} {at:#x} {size}");
        }
    }

    #[test]
    fn bindings_go_with_their_object_or_with_one_open() {
        let mut slots = Slots::new();
        let [a, b] = [(); 2].map(|()| slots.insert(()).unwrap());
        let [first, second] = [(); 2].map(|()| OpenId(slots.insert(()).unwrap()));
        let mut bindings = Bindings::default();
        for (at, object, open) in [(0, a, first), (1, a, second), (2, b, first), (3, a, first)] {
            bindings.insert(object, open, place(0, at * 0x1000), pages(1));
        }
        assert_eq!(bindings.remove(b, second, place(0, 0x2000)), None);
        assert_eq!(bindings.pop(a, Some(first)), Some((place(0, 0), pages(1))));
        assert_eq!(
            bindings.pop(a, Some(first)),
            Some((place(0, 0x3000), pages(1)))
        );
        assert_eq!(bindings.pop(a, Some(first)), None);
        assert_eq!(bindings.pop(a, None), Some((place(0, 0x1000), pages(1))));
        assert_eq!(bindings.pop(a, None), None);
        assert_eq!(bindings.remove(b, first, place(0, 0x2000)), Some(pages(1)));
        assert_eq!(bindings.len(), 0);
        assert!(!bindings.overlaps(FIRST, PageCount::MAX));
    }
}
