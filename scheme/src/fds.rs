//! The numbers by which the kernel knows our open files.
//!
//! A scheme gives every open file description a number and gets it back with every request. The
//! kernel does not hold on to the *second* fd of a two-fd call while the call is under way, so a
//! request can name a number that has been closed meanwhile. Were numbers reused, it could then
//! mean somebody else's file. They are not: a number is a slot and that slot's generation, and a
//! slot whose generations are used up is never used again.

use alloc::vec::Vec;

/// A scheme-local file number: `slot | generation << 32`, never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FdId(u64);

impl FdId {
    /// The number as the kernel sent it; it may be stale or have never existed.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number as the kernel gets it: positive as a signed word, so never an errno.
    pub const fn raw(self) -> u64 {
        self.0
    }

    fn slot(self) -> usize {
        self.0 as u32 as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The last generation of a slot: keeps [`FdId::raw`] positive.
const LAST_GENERATION: u32 = i32::MAX as u32 - 1;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    file: Option<T>,
}

/// Open files by number.
#[derive(Debug)]
pub struct Fds<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
}

/// The table has as many files as it may have.
#[derive(Debug, Eq, PartialEq)]
pub struct Full;

impl<T> Fds<T> {
    /// An empty table for at most `limit` files at a time.
    pub fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            limit: limit.min(u32::MAX as usize),
        }
    }

    /// How many files are open.
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many more files there is room for.
    pub fn left(&self) -> usize {
        self.limit - self.count()
    }

    /// Gives `file` a number.
    pub fn insert(&mut self, file: T) -> Result<FdId, Full> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.limit => {
                self.slots.push(Slot {
                    generation: 0,
                    file: None,
                });
                (self.slots.len() - 1) as u32
            }
            None => return Err(Full),
        };
        let slot = self.slots.get_mut(index as usize).ok_or(Full)?;
        slot.file = Some(file);
        Ok(FdId(u64::from(index) | u64::from(slot.generation) << 32))
    }

    /// The file of this number.
    pub fn get_mut(&mut self, id: FdId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.slot())?;
        if slot.generation == id.generation() {
            slot.file.as_mut()
        } else {
            None
        }
    }

    /// Takes the file out; its number means nothing from then on.
    pub fn remove(&mut self, id: FdId) -> Option<T> {
        let file = {
            let slot = self.slots.get_mut(id.slot())?;
            if slot.generation != id.generation() {
                return None;
            }
            let file = slot.file.take()?;
            slot.generation += 1;
            file
        };
        if id.generation() < LAST_GENERATION {
            self.free.push(id.slot() as u32);
        }
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_number_never_means_another_file() {
        let mut fds = Fds::new(8);
        let old = fds.insert("mine").unwrap();
        assert_eq!(fds.remove(old), Some("mine"));
        let new = fds.insert("yours").unwrap();
        assert_ne!(old, new);
        assert_eq!(fds.get_mut(old), None);
        assert_eq!(fds.remove(old), None);
        assert_eq!(fds.get_mut(new), Some(&mut "yours"));
    }

    #[test]
    fn numbers_from_nowhere_find_nothing() {
        let mut fds = Fds::new(8);
        fds.insert(()).unwrap();
        for raw in [1, 1 << 32, u64::MAX, u64::MAX - 4095, 1 << 63] {
            assert_eq!(fds.get_mut(FdId::from_raw(raw)), None);
            assert_eq!(fds.remove(FdId::from_raw(raw)), None);
        }
    }

    #[test]
    fn the_table_is_full_at_its_limit_and_not_before() {
        let mut fds = Fds::new(2);
        let first = fds.insert(1).unwrap();
        fds.insert(2).unwrap();
        assert_eq!(fds.insert(3), Err(Full));
        fds.remove(first);
        assert!(fds.insert(3).is_ok());
        assert_eq!(fds.count(), 2);
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_never_used_again() {
        let mut fds = Fds::new(1);
        fds.insert(()).unwrap();
        fds.slots[0].generation = LAST_GENERATION;
        let last = FdId(u64::from(LAST_GENERATION) << 32);
        assert!(i64::try_from(last.raw()).is_ok());
        assert_eq!(fds.remove(last), Some(()));
        assert_eq!(fds.insert(()), Err(Full));
    }
}
