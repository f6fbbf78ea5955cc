//! Where pages lie a second time while they are taken over: places far from where a kernel puts what
//! has no address of its own, handed out one after the other.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use spin::Mutex;

/// A page that is always mapped, before the area that places are handed out from. For each page that
/// the kernel takes out of a page table it looks for another one from the table's beginning on;
/// and with one the tables stay for the next time.
pub(super) const ANCHOR: usize = 0x6000_0000_0000;

/// The area that places are handed out from.
pub(super) const AREA: core::ops::Range<usize> = ANCHOR + crate::PAGE_SIZE..0x7000_0000_0000;

static IS_ANCHORED: AtomicBool = AtomicBool::new(false);

/// Places in use, in order: address and size.
static IN_USE: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Has `map` map the anchor, where that has not been done.
pub(super) fn anchor(map: impl FnOnce(usize)) {
    if !IS_ANCHORED.swap(true, Relaxed) {
        map(ANCHOR);
    }
}

/// Reserves the lowest free place from `from` on.
pub(super) fn reserve(from: usize, size: usize) -> Option<usize> {
    let mut in_use = IN_USE.lock();
    let place = lowest_gap(&in_use, from, size)?;
    let index = in_use.partition_point(|&(start, _)| start < place);
    in_use.insert(index, (place, size));
    Some(place)
}

/// The place is free again.
pub(super) fn release(place: usize) {
    IN_USE.lock().retain(|&(start, _)| start != place);
}

/// Where in the staging area there is room from `from` on, between what is in use, in order.
fn lowest_gap(in_use: &[(usize, usize)], from: usize, size: usize) -> Option<usize> {
    let mut place = from;
    for &(start, length) in in_use {
        if place.checked_add(size)? <= start {
            break;
        }
        place = place.max(start + length);
    }
    (place.checked_add(size)? <= AREA.end).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staging_range_lies_in_the_lowest_gap() {
        let base = AREA.start;
        let at = |places: &[(usize, usize)], from, size| {
            let places: Vec<_> = places.iter().map(|&(at, size)| (base + at, size)).collect();
            lowest_gap(&places, base + from, size).map(|place| place - base)
        };
        assert_eq!(at(&[], 0, 5), Some(0));
        assert_eq!(at(&[(0, 5)], 0, 5), Some(5));
        assert_eq!(at(&[(0, 5), (8, 2)], 0, 3), Some(5));
        assert_eq!(at(&[(0, 5), (8, 2)], 0, 4), Some(10));
        assert_eq!(at(&[(0, 5), (8, 2)], 6, 3), Some(10));
        assert_eq!(at(&[(0, 5), (8, 2)], 20, 3), Some(20));
        let all = AREA.end - AREA.start;
        assert_eq!(at(&[], 0, all), Some(0));
        assert_eq!(at(&[], 1, all), None);
        assert_eq!(at(&[(0, 1)], 0, usize::MAX), None);
    }
}
