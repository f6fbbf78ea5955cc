//! Global names: device-wide numbers for objects, 31 bits, one per object.
//!
//! A name holds nothing alive. It is made on first use and goes with the object's last handle.
//! Names are drawn with SipHash, keyed with the platform's randomness, over a counter: a client
//! that has seen any number of names learns nothing about the others, so that guessing finds an
//! object only by trying a good part of two billion numbers.

use core::hash::Hasher;

use hashbrown::{DefaultHashBuilder, HashMap};
use siphasher::sip::SipHasher24;

use crate::slots::Key;
use crate::units::Name;

/// How names are chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameMode {
    /// At random, from this seed: 128 bits that no client may know.
    Random {
        /// The seed.
        seed: [u8; 16],
    },
    /// 1, 2, 3 …: reproducible, and easy to guess. For tests.
    Sequential,
}

/// All names of a device.
#[derive(Debug)]
pub(crate) struct Names {
    objects: HashMap<Name, Key, DefaultHashBuilder>,
    mode: NameMode,
    drawn: u64,
}

impl Names {
    pub(crate) fn new(mode: NameMode) -> Self {
        Self {
            objects: HashMap::default(),
            mode,
            drawn: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn get(&self, name: Name) -> Option<Key> {
        self.objects.get(&name).copied()
    }

    /// Gives the object a name that nothing else has. The ledger keeps the number of names far
    /// below the two billion there are, so a draw or two finds a free one; `None` otherwise.
    pub(crate) fn insert(&mut self, object: Key) -> Option<Name> {
        for _ in 0..64 {
            let Some(name) = self.draw() else {
                continue;
            };
            if !self.objects.contains_key(&name) {
                self.objects.insert(name, object);
                return Some(name);
            }
        }
        None
    }

    pub(crate) fn remove(&mut self, name: Name) {
        self.objects.remove(&name);
    }

    fn draw(&mut self) -> Option<Name> {
        self.drawn = self.drawn.wrapping_add(1);
        let raw = match self.mode {
            NameMode::Sequential => self.drawn,
            NameMode::Random { seed } => {
                let mut hasher = SipHasher24::new_with_key(&seed);
                hasher.write_u64(self.drawn);
                hasher.finish()
            }
        };
        Name::new(raw as u32 & Name::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;

    #[test]
    fn names_do_not_follow_from_one_another() {
        let mut slots = Slots::new();
        let mut names = Names::new(NameMode::Random { seed: [7; 16] });
        let mut last = 0i64;
        let mut steps = hashbrown::HashSet::new();
        for _ in 0..1000 {
            let name = names.insert(slots.insert(()).unwrap()).unwrap();
            assert!(
                steps.insert(i64::from(name.get()) - last),
                "a step comes again"
            );
            last = name.get().into();
        }
        assert_eq!(names.len(), 1000);
    }

    #[test]
    fn a_number_that_is_drawn_twice_names_one_object() {
        let mut slots = Slots::new();
        for mode in [NameMode::Sequential, NameMode::Random { seed: [7; 16] }] {
            let mut names = Names::new(mode);
            let (first, second) = (slots.insert(()).unwrap(), slots.insert(()).unwrap());
            let name = names.insert(first).unwrap();
            names.drawn = 0;
            assert_ne!(names.insert(second), Some(name));
            assert_eq!(names.get(name), Some(first));
            assert_eq!(names.len(), 2);
        }
    }

    #[test]
    fn sequential_names_count_from_one() {
        let mut slots = Slots::new();
        let mut names = Names::new(NameMode::Sequential);
        for expected in 1..10 {
            let object = slots.insert(()).unwrap();
            let name = names.insert(object).unwrap();
            assert_eq!(name.get(), expected);
            assert_eq!(names.get(name), Some(object));
        }
        names.remove(Name::new(3).unwrap());
        assert_eq!(names.get(Name::new(3).unwrap()), None);
    }
}
