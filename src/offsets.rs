//! Fake mmap offsets: where in a node's file an object seems to lie.
//!
//! One range per object, made on demand, freed with the object. Ranges are handed out best fit,
//! so that a space which many objects come and go in does not fall to pieces; everything is
//! O(log n) in the number of ranges. Objects of a client's own pages have a space of their own,
//! small enough for an offset to be told together with a handle in one word.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::slots::Key;
use crate::units::{FakeOffset, PAGE_SIZE, PageCount};

/// A range of pages of the space, handed out.
#[derive(Clone, Copy, Debug)]
struct Range {
    pages: u64,
    object: Key,
}

/// The fake offsets of a device.
#[derive(Debug)]
pub(crate) struct Offsets {
    ordinary: Space,
    user: Space,
}

impl Offsets {
    /// Room for `size` pages of ordinary objects, and for as many of users', as far as there are
    /// numbers.
    pub(crate) fn new(size: PageCount) -> Self {
        let below_user = (FakeOffset::USER_BASE - FakeOffset::BASE) / PAGE_SIZE;
        let user = FakeOffset::USER_PAGES;
        Self {
            ordinary: Space::new(FakeOffset::BASE, size.get().min(below_user)),
            user: Space::new(FakeOffset::USER_BASE, size.get().min(user)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ordinary.taken.len() + self.user.taken.len()
    }

    /// The smallest free range that holds `pages`, cut to size. `None` where there is none.
    pub(crate) fn allocate(&mut self, pages: PageCount, object: Key) -> Option<FakeOffset> {
        self.ordinary.allocate(pages, object)
    }

    /// As [`Offsets::allocate`], for an object of a client's own pages.
    pub(crate) fn allocate_user(&mut self, pages: PageCount, object: Key) -> Option<FakeOffset> {
        self.user.allocate(pages, object)
    }

    /// Takes a range back and joins it with its free neighbours.
    pub(crate) fn free(&mut self, offset: FakeOffset) {
        if offset.is_user() {
            self.user.free(offset);
        } else {
            self.ordinary.free(offset);
        }
    }

    /// The object whose range begins exactly here.
    pub(crate) fn exact(&self, offset: FakeOffset) -> Option<Key> {
        self.space(offset).exact(offset)
    }

    /// The object whose range holds this offset.
    pub(crate) fn containing(&self, offset: FakeOffset) -> Option<Key> {
        self.space(offset).containing(offset)
    }

    fn space(&self, offset: FakeOffset) -> &Space {
        if offset.is_user() {
            &self.user
        } else {
            &self.ordinary
        }
    }
}

/// A space of fake offsets. Positions are pages from its base.
#[derive(Debug)]
struct Space {
    base: u64,
    taken: BTreeMap<u64, Range>,
    /// Free ranges by position: pages.
    free: BTreeMap<u64, u64>,
    /// Free ranges by size: (pages, position).
    by_size: BTreeSet<(u64, u64)>,
}

impl Space {
    fn new(base: u64, size: u64) -> Self {
        let mut space = Self {
            base,
            taken: BTreeMap::new(),
            free: BTreeMap::new(),
            by_size: BTreeSet::new(),
        };
        space.add_free(0, size);
        space
    }

    fn allocate(&mut self, pages: PageCount, object: Key) -> Option<FakeOffset> {
        let pages = pages.get();
        let &(size, position) = self.by_size.range((pages, 0)..).next()?;
        let offset = self.offset_of(position)?;
        self.remove_free(position, size);
        self.add_free(position + pages, size - pages);
        self.taken.insert(position, Range { pages, object });
        Some(offset)
    }

    fn free(&mut self, offset: FakeOffset) {
        let mut position = self.position_of(offset);
        let Some(Range { mut pages, .. }) = self.taken.remove(&position) else {
            return;
        };
        if let Some(&next) = self.free.get(&(position + pages)) {
            self.remove_free(position + pages, next);
            pages += next;
        }
        if let Some((&before, &size)) = self.free.range(..position).next_back()
            && before + size == position
        {
            self.remove_free(before, size);
            position = before;
            pages += size;
        }
        self.add_free(position, pages);
    }

    fn exact(&self, offset: FakeOffset) -> Option<Key> {
        let range = self.taken.get(&self.position_of(offset))?;
        Some(range.object)
    }

    fn containing(&self, offset: FakeOffset) -> Option<Key> {
        let position = self.position_of(offset);
        let (start, range) = self.taken.range(..=position).next_back()?;
        (position - start < range.pages).then_some(range.object)
    }

    fn add_free(&mut self, position: u64, pages: u64) {
        if pages > 0 {
            self.free.insert(position, pages);
            self.by_size.insert((pages, position));
        }
    }

    fn remove_free(&mut self, position: u64, pages: u64) {
        self.free.remove(&position);
        self.by_size.remove(&(pages, position));
    }

    /// Of an offset that is not below the base.
    fn position_of(&self, offset: FakeOffset) -> u64 {
        offset.get().saturating_sub(self.base) / PAGE_SIZE
    }

    fn offset_of(&self, position: u64) -> Option<FakeOffset> {
        let bytes = position.checked_mul(PAGE_SIZE)?;
        FakeOffset::new(bytes.checked_add(self.base)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn pages(pages: u64) -> PageCount {
        PageCount::new(pages).unwrap()
    }

    #[test]
    fn a_range_is_found_by_its_start_and_by_what_lies_in_it() {
        let mut slots = Slots::new();
        let (a, b) = (slots.insert(()).unwrap(), slots.insert(()).unwrap());
        let mut offsets = Offsets::new(pages(10));
        let first = offsets.allocate(pages(3), a).unwrap();
        let second = offsets.allocate(pages(7), b).unwrap();
        let inside = FakeOffset::new(first.get() + PAGE_SIZE).unwrap();
        assert_eq!(offsets.exact(first), Some(a));
        assert_eq!(offsets.exact(inside), None);
        assert_eq!(offsets.containing(inside), Some(a));
        assert_eq!(offsets.containing(second), Some(b));
        assert_eq!(offsets.allocate(pages(1), a), None, "used up");
        offsets.free(first);
        assert_eq!(offsets.containing(inside), None);
    }

    #[test]
    fn a_space_of_any_size_stays_within_the_numbers_there_are() {
        let mut slots = Slots::new();
        let object = slots.insert(()).unwrap();
        let mut offsets = Offsets::new(PageCount::MAX);
        let all = (FakeOffset::USER_BASE - FakeOffset::BASE) / PAGE_SIZE;
        let ordinary = offsets.allocate(pages(all), object).unwrap();
        let user = offsets.allocate_user(pages(FakeOffset::USER_PAGES), object);
        let user = user.unwrap();
        assert_eq!(ordinary.get(), FakeOffset::BASE);
        assert_eq!(user.get(), FakeOffset::USER_BASE);
        assert_eq!(ordinary.get() + pages(all).bytes(), user.get(), "no gap");
        assert!(i64::try_from(user.get() + pages(FakeOffset::USER_PAGES).bytes()).is_ok());
        for offset in [ordinary, user] {
            assert_eq!(offsets.exact(offset), Some(object));
            offsets.free(offset);
            assert_eq!(offsets.containing(offset), None);
        }
        assert_eq!(offsets.len(), 0);
    }

    /// Best fit, the slow way: the smallest gap between taken ranges, the lowest of those.
    fn best_fit(taken: &[(u64, u64)], space: u64, pages: u64) -> Option<u64> {
        let mut taken = taken.to_vec();
        taken.push((space, 0));
        taken.sort();
        let mut start = 0;
        let mut best = None;
        for (position, size) in taken {
            let gap = (position - start, start);
            if gap.0 >= pages && best.is_none_or(|best| gap < best) {
                best = Some(gap);
            }
            start = position + size;
        }
        best.map(|(_, start)| start)
    }

    proptest! {
        #[test]
        fn ranges_are_handed_out_best_fit_and_grow_together_again(
            steps in proptest::collection::vec((1u64..40, any::<Option<u8>>()), 1..150)
        ) {
            let mut slots = Slots::new();
            let object = slots.insert(()).unwrap();
            let mut offsets = Space::new(FakeOffset::USER_BASE, 300);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (size, gone) in steps {
                match gone {
                    Some(gone) if !taken.is_empty() => {
                        let (position, _) = taken.swap_remove(usize::from(gone) % taken.len());
                        offsets.free(offsets.offset_of(position).unwrap());
                    }
                    _ => {
                        let expected = best_fit(&taken, 300, size);
                        let offset = offsets.allocate(pages(size), object);
                        prop_assert_eq!(offset.map(|offset| offsets.position_of(offset)), expected);
                        taken.extend(expected.map(|position| (position, size)));
                    }
                }
                prop_assert_eq!(offsets.taken.len(), taken.len());
            }
            for (position, _) in taken {
                offsets.free(offsets.offset_of(position).unwrap());
            }
            prop_assert_eq!(offsets.free.len(), 1);
            prop_assert_eq!(offsets.by_size.len(), 1);
        }
    }
}
