//! One open's handles: numbers from 1 up, the lowest free one first, found in constant time both
//! ways.
//!
//! Free numbers are bits in a tree of 64-bit words: a set bit says "something is free below", so
//! the lowest free number is one find-first-set per level, and a level covers 64 times as many
//! numbers as the one below. A number is taken in two steps: reserved, and published when
//! everything that can fail has happened; it is free again only after the teardown, so that
//! nobody gets a number whose old meaning still has consequences.

use alloc::vec::Vec;

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
    /// and not visible.
    entries: Vec<Option<Key>>,
    free: FreeNumbers,
    taken: u32,
}

impl HandleTable {
    /// How many numbers are taken.
    pub(crate) fn len(&self) -> u32 {
        self.taken
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

    /// The number is free again.
    pub(crate) fn release(&mut self, reserved: Reserved) {
        self.free.insert(index(reserved.0));
        self.taken -= 1;
    }

    /// Any published handle, lowest first from `from` on; for tearing all of them down.
    pub(crate) fn next_published(&self, from: usize) -> Option<Handle> {
        let rest = self.entries.get(from..)?;
        let position = rest.iter().position(Option::is_some)?;
        Handle::new(u32::try_from(from + position + 1).ok()?)
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
