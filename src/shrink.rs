//! When a collection gives memory back.
//!
//! The ledger counts what collections hold, not what they once held: without this, a client could
//! fill one, empty it and go on to the next, and nothing would count the room left behind.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash};

use hashbrown::{HashMap, HashSet};

/// Up to this, room is not worth giving back: small collections would have to allocate again
/// every few operations.
const KEPT: usize = 16;

/// Whether a collection of `len` with room for `capacity` is to shrink to room for twice `len`.
/// That is far from full and far from shrinking again: either takes as many operations as moving
/// the contents costs steps.
pub(crate) fn is_worthwhile(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 8
}

/// Shrinks a map that has become much smaller than it was.
pub(crate) fn map<K: Eq + Hash, V, H: BuildHasher>(map: &mut HashMap<K, V, H>) {
    // Not `capacity`, which leaves out places that removed entries still block.
    if is_worthwhile(map.len(), map.allocation_size() / size_of::<(K, V)>()) {
        map.shrink_to(map.len() * 2);
    }
}

/// Shrinks a set that has become much smaller than it was.
pub(crate) fn set<K: Eq + Hash, H: BuildHasher>(set: &mut HashSet<K, H>) {
    if is_worthwhile(set.len(), set.allocation_size() / size_of::<K>()) {
        set.shrink_to(set.len() * 2);
    }
}

/// Shrinks a vector that has become much smaller than it was.
pub(crate) fn vec<T>(vec: &mut Vec<T>) {
    if is_worthwhile(vec.len(), vec.capacity()) {
        vec.shrink_to(vec.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_large_gives_its_room_back() {
        let mut many: HashMap<u32, u32> = (0..100_000).map(|n| (n, n)).collect();
        let mut numbers: HashSet<u32> = (0..100_000).collect();
        for number in 3..100_000 {
            many.remove(&number);
            map(&mut many);
            numbers.remove(&number);
            set(&mut numbers);
        }
        assert!(many.allocation_size() < 1000, "{}", many.allocation_size());
        assert!(numbers.allocation_size() < 1000);
        assert!((0..3).all(|number| many.contains_key(&number) && numbers.contains(&number)));
    }

    #[test]
    fn what_goes_up_and_down_a_little_keeps_its_room() {
        let mut many: HashMap<u32, u32> = (0..1000).map(|n| (n, n)).collect();
        let room = many.allocation_size();
        for _ in 0..10 {
            for number in 500..1000 {
                many.remove(&number);
                map(&mut many);
            }
            many.extend((500..1000).map(|n| (n, n)));
            assert_eq!(many.allocation_size(), room);
        }
    }
}
