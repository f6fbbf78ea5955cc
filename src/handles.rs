//! One open's handles: numbers from 1 up, the lowest free one first, found in constant time both
//! ways.
//!
//! Free numbers are bits in a tree of 64-bit words: a set bit says "something is free below", so
//! the lowest free number is one find-first-set per level, and a level covers 64 times as many
//! numbers as the one below. A number is taken in two steps: reserved, and published when
//! everything that can fail has happened; it is free again only after the teardown, so that
//! nobody gets a number whose old meaning still has consequences.
//!
//! A table is as long as its highest number and gives memory back when that falls, so that the
//! ledger bounds the heap by counting places: one high number costs as much as all below it.

use alloc::vec::Vec;

use crate::shrink;
use crate::slots::Key;
use crate::units::Handle;

/// A handle that is taken and not visible. It has to end in [`HandleTable::publish`] or
/// [`HandleTable::release`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Reserved(Handle);

impl Reserved {
    pub(crate) fn handle(&self) -> Handle {
        self.0
    }
}

/// One open's handles.
#[derive(Debug, Default)]
pub(crate) struct HandleTable {
    /// By number − 1: the object of a published handle. `None` is free (and in `free`), or taken
    /// and not visible. The last one is taken.
    entries: Vec<Option<Key>>,
    free: FreeNumbers,
    taken: u32,
}

impl HandleTable {
    /// How many numbers are taken.
    pub(crate) fn len(&self) -> u32 {
        self.taken
    }

    /// Whether the next number needs a place more.
    pub(crate) fn is_full(&self) -> bool {
        self.taken as usize == self.entries.len()
    }

    /// Takes the lowest free number. The ledger has seen that it is not beyond the limit.
    pub(crate) fn reserve(&mut self) -> Option<Reserved> {
        let index = match self.free.lowest() {
            Some(index) => {
                self.free.remove(index);
                index
            }
            None => {
                self.entries.push(None);
                self.entries.len() - 1
            }
        };
        let handle = Handle::new(u32::try_from(index + 1).ok()?)?;
        self.taken += 1;
        Some(Reserved(handle))
    }

    /// From now on the handle means this object.
    pub(crate) fn publish(&mut self, reserved: Reserved, object: Key) -> Handle {
        if let Some(entry) = self.entries.get_mut(index(reserved.0)) {
            *entry = Some(object);
        }
        reserved.0
    }

    /// The object behind a handle.
    pub(crate) fn get(&self, handle: Handle) -> Option<Key> {
        *self.entries.get(index(handle))?
    }

    /// From now on the handle means nothing; its number is still taken.
    pub(crate) fn unpublish(&mut self, handle: Handle) -> Option<(Reserved, Key)> {
        let object = self.entries.get_mut(index(handle))?.take()?;
        Some((Reserved(handle), object))
    }

    /// The number is free again. Returns how many places the table has become shorter.
    pub(crate) fn release(&mut self, reserved: Reserved) -> u32 {
        self.free.insert(index(reserved.0));
        self.taken -= 1;
        let mut places = 0;
        while let Some(last) = self.entries.len().checked_sub(1)
            && self.free.contains(last)
        {
            self.free.remove(last);
            self.entries.pop();
            places += 1;
        }
        if shrink::is_worthwhile(self.entries.len(), self.entries.capacity()) {
            self.entries.shrink_to(self.entries.len() * 2);
            self.free.shrink_to(self.entries.len());
        }
        places
    }

    /// The highest published handle; for tearing all of them down without the table having to
    /// remember which numbers are free meanwhile.
    pub(crate) fn highest(&self) -> Option<Handle> {
        let position = self.entries.iter().rposition(Option::is_some)?;
        Handle::new(u32::try_from(position + 1).ok()?)
    }
}

/// Where a handle stands in the table.
fn index(handle: Handle) -> usize {
    handle.get() as usize - 1
}

/// A set of small numbers with a fast minimum.
#[derive(Debug, Default)]
struct FreeNumbers {
    /// `levels[0]` has a bit per number, `levels[n + 1]` a bit per word of `levels[n]`.
    levels: Vec<Vec<u64>>,
}

impl FreeNumbers {
    fn lowest(&self) -> Option<usize> {
        let mut index = 0;
        for level in self.levels.iter().rev() {
            let word = *level.get(index)?;
            if word == 0 {
                return None;
            }
            index = index * 64 + word.trailing_zeros() as usize;
        }
        (!self.levels.is_empty()).then_some(index)
    }

    fn insert(&mut self, number: usize) {
        let mut index = number;
        let mut depth = 0;
        loop {
            if self.levels.len() == depth {
                self.add_level();
            }
            let Some(level) = self.levels.get_mut(depth) else {
                return;
            };
            let word = index / 64;
            if level.len() <= word {
                level.resize(word + 1, 0);
            }
            if let Some(bits) = level.get_mut(word) {
                *bits |= 1 << (index % 64);
            }
            depth += 1;
            index = word;
            // The top level is one word.
            if depth == self.levels.len() && index == 0 {
                return;
            }
        }
    }

    /// A level above the others, which knows about what stands below it already.
    fn add_level(&mut self) {
        let below_has_some = self
            .levels
            .last()
            .and_then(|level| level.first())
            .is_some_and(|&word| word != 0);
        self.levels.push(Vec::from([u64::from(below_has_some)]));
    }

    fn contains(&self, number: usize) -> bool {
        let words = self.levels.first();
        let word = words.and_then(|words| words.get(number / 64));
        word.is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    /// Gives back what only numbers from `end` on need; none of those is in the set.
    fn shrink_to(&mut self, end: usize) {
        if end == 0 {
            self.levels.clear();
        }
        let mut words = end;
        for level in &mut self.levels {
            words = words.div_ceil(64);
            level.truncate(words);
            level.shrink_to_fit();
        }
    }

    fn remove(&mut self, number: usize) {
        let mut index = number;
        for level in &mut self.levels {
            let Some(bits) = level.get_mut(index / 64) else {
                return;
            };
            *bits &= !(1 << (index % 64));
            if *bits != 0 {
                return;
            }
            index /= 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn object() -> Key {
        Slots::new().insert(()).unwrap()
    }

    #[test]
    fn the_lowest_free_number_comes_first() {
        let mut table = HandleTable::default();
        for expected in 1..=5000 {
            let reserved = table.reserve().unwrap();
            assert_eq!(table.publish(reserved, object()).get(), expected);
        }
        for freed in [4999, 3, 70] {
            let (reserved, _) = table.unpublish(Handle::new(freed).unwrap()).unwrap();
            table.release(reserved);
        }
        for expected in [3, 70, 4999, 5001] {
            assert_eq!(table.reserve().unwrap().handle().get(), expected);
        }
    }

    #[test]
    fn a_number_is_free_only_after_its_teardown() {
        let mut table = HandleTable::default();
        let reserved = table.reserve().unwrap();
        assert_eq!(table.get(reserved.handle()), None, "not visible yet");
        let handle = table.publish(reserved, object());
        let (dying, _) = table.unpublish(handle).unwrap();
        assert_eq!(table.get(handle), None);
        assert!(table.unpublish(handle).is_none());
        assert_ne!(table.reserve().unwrap().handle(), handle);
        table.release(dying);
        assert_eq!(table.reserve().unwrap().handle(), handle);
    }

    #[test]
    fn a_table_is_as_long_as_its_highest_number() {
        let mut table = HandleTable::default();
        let close = |table: &mut HandleTable, handle| {
            let (reserved, _) = table.unpublish(Handle::new(handle).unwrap()).unwrap();
            table.release(reserved)
        };
        for _ in 0..100_000 {
            assert!(table.is_full());
            let reserved = table.reserve().unwrap();
            table.publish(reserved, object());
        }
        for handle in 2..100_000 {
            assert_eq!(close(&mut table, handle), 0, "the highest is still there");
        }
        assert!(!table.is_full());
        assert_eq!(table.highest(), Handle::new(100_000));
        assert_eq!(close(&mut table, 100_000), 99_999);
        assert!(table.entries.capacity() <= 64);
        assert!(table.free.levels.iter().all(|level| level.capacity() <= 1));
        assert_eq!(table.reserve().unwrap().handle().get(), 2);
        assert_eq!(close(&mut table, 1), 0);
        assert_eq!(table.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn a_table_numbers_as_a_set_would(
            operations in proptest::collection::vec((1u32..200, 1u32..600), 1..12)
        ) {
            let mut table = HandleTable::default();
            let mut model = BTreeSet::new();
            for (more, from) in operations {
                for _ in 0..more {
                    let reserved = table.reserve().unwrap();
                    let lowest = (1..).find(|number| !model.contains(number)).unwrap();
                    prop_assert_eq!(reserved.handle().get(), lowest);
                    table.publish(reserved, object());
                    model.insert(lowest);
                }
                // Some of those from there on are closed, with gaps between them.
                let gone: Vec<u32> = model.range(from..).copied().filter(|n| n % 7 > 2).collect();
                for number in gone {
                    model.remove(&number);
                    let (reserved, _) = table.unpublish(Handle::new(number).unwrap()).unwrap();
                    table.release(reserved);
                }
                let highest = model.last().copied();
                prop_assert_eq!(table.highest().map(Handle::get), highest);
                prop_assert_eq!(table.entries.len() as u32, highest.unwrap_or(0));
                prop_assert_eq!(table.len() as usize, model.len());
            }
        }
    }

    proptest! {
        #[test]
        fn the_tree_of_bits_is_a_set_with_a_minimum(
            operations in proptest::collection::vec((any::<bool>(), 0usize..300_000), 1..200)
        ) {
            let mut tree = FreeNumbers::default();
            let mut model = BTreeSet::new();
            for (insert, number) in operations {
                if insert {
                    tree.insert(number);
                    model.insert(number);
                } else if let Some(&lowest) = model.iter().next() {
                    tree.remove(lowest);
                    model.remove(&lowest);
                }
                prop_assert_eq!(tree.lowest(), model.iter().next().copied());
            }
        }
    }
}
