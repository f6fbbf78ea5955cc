//! A table of things by number, where a number is never taken for a later thing.
//!
//! A [`Key`] is a slot and that slot's generation. Removing counts the generation up, so a key
//! that somebody still holds finds nothing. A slot whose generations are used up is retired.

use alloc::vec::Vec;
use core::num::NonZeroU32;

/// A slot and its generation.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    index: u32,
    /// Not zero, so that an `Option<Key>` is no larger than a key.
    generation: NonZeroU32,
}

impl Key {
    /// As one number, unique over the table's life.
    pub(crate) fn as_u64(self) -> u64 {
        u64::from(self.index) | u64::from(self.generation.get()) << 32
    }
}

/// No further free slot.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Content<T> {
    Free { next: u32 },
    Used(T),
}

#[derive(Debug)]
struct Slot<T> {
    generation: NonZeroU32,
    content: Content<T>,
}

/// A table of `T` by [`Key`].
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    len: usize,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many slots there are, used or not.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Puts `value` into a free slot; gives it back where all four billion are in use.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        let index = self.free;
        let key = match self.slots.get_mut(index as usize) {
            Some(slot) => {
                if let Content::Free { next } = slot.content {
                    self.free = next;
                }
                slot.content = Content::Used(value);
                Key {
                    index,
                    generation: slot.generation,
                }
            }
            None => {
                let index = match u32::try_from(self.slots.len()) {
                    Ok(NONE) | Err(_) => return Err(value),
                    Ok(index) => index,
                };
                let generation = NonZeroU32::MIN;
                self.slots.push(Slot {
                    generation,
                    content: Content::Used(value),
                });
                Key { index, generation }
            }
        };
        self.len += 1;
        Ok(key)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot {
                generation,
                content: Content::Used(value),
            }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot {
                generation,
                content: Content::Used(value),
            }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let slot = self.slots.get_mut(key.index as usize)?;
        let Content::Used(value) =
            core::mem::replace(&mut slot.content, Content::Free { next: self.free })
        else {
            return None;
        };
        self.len -= 1;
        match slot.generation.checked_add(1) {
            Some(generation) => {
                slot.generation = generation;
                self.free = key.index;
            }
            // Retired: no key of this slot will ever be valid again.
            None => slot.content = Content::Free { next: NONE },
        }
        Some(value)
    }

    /// What is in slot `index`, if it is used.
    pub(crate) fn at(&self, index: u32) -> Option<(Key, &T)> {
        match self.slots.get(index as usize) {
            Some(Slot {
                generation,
                content: Content::Used(value),
            }) => Some((
                Key {
                    index,
                    generation: *generation,
                },
                value,
            )),
            _ => None,
        }
    }

    /// The key of what is in slot `index`, if it is used.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        Some(self.at(index)?.0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..self.slots()).filter_map(|index| self.at(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_finds_what_came_later() {
        let mut slots = Slots::new();
        let old = slots.insert('a').unwrap();
        assert_eq!(slots.remove(old), Some('a'));
        let new = slots.insert('b').unwrap();
        assert_eq!(new.index, old.index, "the slot is used again");
        assert_eq!(slots.get(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(new), Some(&'b'));
        assert_eq!(slots.len(), 1);
        assert_ne!(new.as_u64(), old.as_u64());
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_retired() {
        let mut slots = Slots::new();
        let key = slots.insert(()).unwrap();
        slots.slots[0].generation = NonZeroU32::MAX;
        let last = Key {
            generation: NonZeroU32::MAX,
            ..key
        };
        slots.remove(last).unwrap();
        assert_ne!(slots.insert(()).unwrap().index, key.index);
    }
}
