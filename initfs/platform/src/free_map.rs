//! Free pages as ranges, found by length and by place in logarithmic time.

use alloc::collections::{BTreeMap, BTreeSet};

/// Ranges of pages that do not overlap, joined where they touch and may be joined.
#[derive(Debug, Default)]
pub struct FreeMap {
    /// Length by first page.
    by_start: BTreeMap<u64, u64>,
    /// (length, first page).
    by_length: BTreeSet<(u64, u64)>,
}

impl FreeMap {
    /// How long the shortest range is that has `pages` pages.
    pub fn shortest(&self, pages: u64) -> Option<u64> {
        let &(length, _) = self.by_length.range((pages, 0)..).next()?;
        Some(length)
    }

    /// Takes `pages` pages out of the shortest range that has as many.
    pub fn take(&mut self, pages: u64) -> Option<u64> {
        let &(length, start) = self.by_length.range((pages, 0)..).next()?;
        if length > pages {
            self.replace((start, length), (start + pages, length - pages));
        } else {
            self.remove(start, length);
        }
        Some(start)
    }

    /// Puts `pages` pages from `start` on back, joined with what touches them inside `bounds`
    /// (first page, and the one behind the last).
    pub fn put(&mut self, start: u64, pages: u64, bounds: (u64, u64)) {
        let left = self.by_start.range(..start).next_back();
        let left = left.map(|(&start, &length)| (start, length));
        let left = left.filter(|&(left, length)| left + length == start && left >= bounds.0);
        let right = start + pages;
        let length = self.by_start.get(&right).copied();
        let right = length.map(|length| (right, length));
        let right = right.filter(|&(right, _)| right < bounds.1);
        match (left, right) {
            (None, None) => self.add(start, pages),
            (Some(left), None) => self.replace(left, (left.0, left.1 + pages)),
            (None, Some(right)) => self.replace(right, (start, pages + right.1)),
            (Some(left), Some(right)) => {
                self.remove(right.0, right.1);
                self.replace(left, (left.0, left.1 + pages + right.1));
            }
        }
    }

    /// Takes a range out, whole: its first page and its length.
    pub fn pop(&mut self) -> Option<(u64, u64)> {
        let (start, length) = self.by_start.pop_first()?;
        self.by_length.remove(&(length, start));
        Some((start, length))
    }

    /// Takes out all ranges that begin inside `bounds`; how many pages.
    pub fn take_within(&mut self, bounds: (u64, u64)) -> u64 {
        let mut pages = 0;
        while let Some((&start, &length)) = self.by_start.range(bounds.0..bounds.1).next() {
            self.remove(start, length);
            pages += length;
        }
        pages
    }

    /// Another range in the place of one. It goes in first: a tree that is never empty keeps its
    /// memory.
    fn replace(&mut self, old: (u64, u64), new: (u64, u64)) {
        self.add(new.0, new.1);
        if old.0 != new.0 {
            self.by_start.remove(&old.0);
        }
        self.by_length.remove(&(old.1, old.0));
    }

    fn add(&mut self, start: u64, pages: u64) {
        self.by_start.insert(start, pages);
        self.by_length.insert((pages, start));
    }

    fn remove(&mut self, start: u64, pages: u64) {
        self.by_start.remove(&start);
        self.by_length.remove(&(pages, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: (u64, u64) = (0, u64::MAX);

    #[test]
    fn the_shortest_range_that_fits_is_used() {
        let mut map = FreeMap::default();
        map.put(100, 50, ALL);
        map.put(200, 5, ALL);
        map.put(300, 8, ALL);
        assert_eq!(map.take(6), Some(300));
        assert_eq!(map.take(5), Some(200));
        assert_eq!(map.take(2), Some(306));
        assert_eq!(map.take(51), None);
    }

    #[test]
    fn what_touches_is_joined() {
        let mut map = FreeMap::default();
        map.put(10, 5, ALL);
        map.put(20, 5, ALL);
        map.put(15, 5, ALL);
        assert_eq!(map.take(15), Some(10));
        map.put(35, 5, ALL);
        map.put(30, 5, ALL);
        map.put(40, 5, ALL);
        assert_eq!(map.pop(), Some((30, 15)));
        assert_eq!(map.pop(), None);
        assert!(map.by_start.is_empty() && map.by_length.is_empty());
    }

    #[test]
    fn nothing_is_joined_across_a_bound() {
        let mut map = FreeMap::default();
        map.put(10, 5, (10, 15));
        map.put(15, 5, (15, 20));
        assert_eq!(map.take(6), None);
        assert_eq!(map.take_within((15, 20)), 5);
        assert_eq!(map.pop(), Some((10, 5)));
    }

    #[test]
    fn all_ranges_of_a_piece_go_together() {
        let mut map = FreeMap::default();
        for start in [5, 10, 16, 20] {
            map.put(start, 3, ALL);
        }
        assert_eq!(map.take_within((10, 20)), 6);
        assert_eq!(map.shortest(1), Some(3));
        assert_eq!([map.pop(), map.pop()], [Some((5, 3)), Some((20, 3))]);
        assert_eq!(map.shortest(1), None);
    }
}
