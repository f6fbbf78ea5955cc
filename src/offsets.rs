//! Fake mmap offsets: where in a node's file an object seems to lie.
//!
//! One range per object, made on demand, freed with the object. Ranges are handed out best fit,
//! so that a space which many objects come and go in does not fall to pieces; everything is
//! O(log n) in the number of ranges.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::slots::Key;
use crate::units::{FakeOffset, PAGE_SIZE, PageCount};

/// A range of pages of the space, handed out.
#[derive(Clone, Copy, Debug)]
struct Range {
    pages: u64,
    object: Key,
}

/// The space of fake offsets of a device. Positions are pages from [`FakeOffset::BASE`].
#[derive(Debug)]
pub(crate) struct Offsets {
    taken: BTreeMap<u64, Range>,
    /// Free ranges by position: pages.
    free: BTreeMap<u64, u64>,
    /// Free ranges by size: (pages, position).
    by_size: BTreeSet<(u64, u64)>,
}

impl Offsets {
    /// A space of `size` pages.
    pub(crate) fn new(size: PageCount) -> Self {
        let end = (u64::MAX - FakeOffset::BASE) / PAGE_SIZE;
        let mut offsets = Self {
            taken: BTreeMap::new(),
            free: BTreeMap::new(),
            by_size: BTreeSet::new(),
        };
        offsets.add_free(0, size.get().min(end));
        offsets
    }

    pub(crate) fn len(&self) -> usize {
        self.taken.len()
    }

    /// The smallest free range that holds `pages`, cut to size. `None` where there is none.
    pub(crate) fn allocate(&mut self, pages: PageCount, object: Key) -> Option<FakeOffset> {
        let pages = pages.get();
        let &(size, position) = self.by_size.range((pages, 0)..).next()?;
        let offset = offset_of(position)?;
        self.remove_free(position, size);
        self.add_free(position + pages, size - pages);
        self.taken.insert(position, Range { pages, object });
        Some(offset)
    }

    /// Takes a range back and joins it with its free neighbours.
    pub(crate) fn free(&mut self, offset: FakeOffset) {
        let mut position = position_of(offset);
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

    /// The object whose range begins exactly here.
    pub(crate) fn exact(&self, offset: FakeOffset) -> Option<Key> {
        let range = self.taken.get(&position_of(offset))?;
        Some(range.object)
    }

    /// The object whose range holds this offset.
    pub(crate) fn containing(&self, offset: FakeOffset) -> Option<Key> {
        let position = position_of(offset);
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
}

fn position_of(offset: FakeOffset) -> u64 {
    (offset.get() - FakeOffset::BASE) / PAGE_SIZE
}

fn offset_of(position: u64) -> Option<FakeOffset> {
    let bytes = position.checked_mul(PAGE_SIZE)?;
    FakeOffset::new(bytes.checked_add(FakeOffset::BASE)?)
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
        let all = (u64::MAX - FakeOffset::BASE) / PAGE_SIZE;
        assert!(offsets.allocate(pages(all), object).is_some());
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
            let mut offsets = Offsets::new(pages(300));
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (size, gone) in steps {
                match gone {
                    Some(gone) if !taken.is_empty() => {
                        let (position, _) = taken.swap_remove(usize::from(gone) % taken.len());
                        offsets.free(offset_of(position).unwrap());
                    }
                    _ => {
                        let expected = best_fit(&taken, 300, size);
                        let offset = offsets.allocate(pages(size), object);
                        prop_assert_eq!(offset.map(position_of), expected);
                        taken.extend(expected.map(|position| (position, size)));
                    }
                }
                prop_assert_eq!(offsets.len(), taken.len());
            }
            for (position, _) in taken {
                offsets.free(offset_of(position).unwrap());
            }
            prop_assert_eq!(offsets.free.len(), 1);
            prop_assert_eq!(offsets.by_size.len(), 1);
        }
    }
}
