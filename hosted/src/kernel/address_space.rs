//! Which parts of a client's address space are mappings of scheme memory.
//!
//! A table of non-overlapping, page-aligned ranges, each with the description it keeps open and
//! its offset in that file. It believes the client about addresses: a client that lies about
//! them gets wrong answers about its own mappings only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::files::Description;
use crate::user::watch::Range;

/// The most mappings of one client.
const MAPPINGS_MAX: usize = 65_536;

/// The end of user addresses: the kernel refuses ranges beyond.
pub(crate) const USER_END: u64 = 1 << 47;

/// One mapping, or a piece of one.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    /// The file, which the mapping keeps open.
    pub(crate) description: Arc<Description>,
    /// Its first byte in the file.
    pub(crate) offset: u64,
    /// Its size in bytes, whole pages and not zero.
    pub(crate) bytes: u64,
    /// Whether the client may write to it.
    pub(crate) writeable: bool,
    /// The range of the client's own that it is.
    pub(crate) range: Option<Arc<Range>>,
}

impl Mapping {
    /// `bytes` of it from `skip` on. The caller keeps this inside the mapping.
    fn slice(&self, skip: u64, bytes: u64) -> Self {
        Self {
            description: self.description.clone(),
            offset: self.offset.wrapping_add(skip),
            bytes,
            writeable: self.writeable,
            range: self.range.clone(),
        }
    }
}

/// The mappings of one client, by address.
#[derive(Debug, Default)]
pub(crate) struct AddressSpace {
    mappings: BTreeMap<u64, Mapping>,
}

impl AddressSpace {
    /// Whether there is room for one more, even if it splits another.
    pub(crate) fn has_room(&self) -> bool {
        self.mappings.len() + 2 <= MAPPINGS_MAX
    }

    /// Whether taking out `bytes` from `address` leaves two parts of one mapping.
    pub(crate) fn would_split(&self, address: u64, bytes: u64) -> bool {
        let end = address.saturating_add(bytes);
        let before = self.mappings.range(..address).next_back();
        before.is_some_and(|(start, mapping)| start + mapping.bytes > end)
    }

    /// Enters a mapping where nothing is.
    pub(crate) fn insert(&mut self, address: u64, mapping: Mapping) {
        self.mappings.insert(address, mapping);
    }

    /// Takes out whatever lies in `bytes` from `address`, by address; what reaches beyond stays.
    pub(crate) fn carve(&mut self, address: u64, bytes: u64) -> VecDeque<Mapping> {
        self.carve_if(address, bytes, |_| true)
    }

    /// The same with what is a mapping of this range of the client's own.
    pub(crate) fn carve_range(
        &mut self,
        range: &Arc<Range>,
        address: u64,
        bytes: u64,
    ) -> VecDeque<Mapping> {
        let is_meant = |mapping: &Mapping| {
            let own = mapping.range.as_ref();
            own.is_some_and(|own| Arc::ptr_eq(own, range))
        };
        self.carve_if(address, bytes, is_meant)
    }

    fn carve_if(
        &mut self,
        address: u64,
        bytes: u64,
        is_meant: impl Fn(&Mapping) -> bool,
    ) -> VecDeque<Mapping> {
        let end = address.saturating_add(bytes);
        let first = self
            .mappings
            .range(..address)
            .next_back()
            .filter(|(start, mapping)| **start + mapping.bytes > address);
        let inside = self.mappings.range(address..end);
        let starts: Vec<u64> = first
            .into_iter()
            .chain(inside)
            .filter(|(_, mapping)| is_meant(mapping))
            .map(|(start, _)| *start)
            .collect();
        let mut pieces = VecDeque::with_capacity(starts.len());
        for start in starts {
            if let Some(mapping) = self.mappings.remove(&start) {
                pieces.push_back(self.split(start, mapping, address, end));
            }
        }
        pieces
    }

    /// Puts back what of `mapping`, at `start`, lies outside of `from..to`; returns the rest.
    fn split(&mut self, start: u64, mapping: Mapping, from: u64, to: u64) -> Mapping {
        let end = start + mapping.bytes;
        let (from, to) = (from.max(start), to.min(end));
        if start < from {
            self.insert(start, mapping.slice(0, from - start));
        }
        if to < end {
            self.insert(to, mapping.slice(to - start, end - to));
        }
        mapping.slice(from - start, to - from)
    }

    /// Takes out everything, by address.
    pub(crate) fn drain(&mut self) -> VecDeque<Mapping> {
        std::mem::take(&mut self.mappings).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EventFd;

    use super::*;
    use crate::kernel::scheme::Scheme;

    const PAGE: u64 = 4096;

    fn mapping(first: u64, pages: u64) -> Mapping {
        let scheme = Arc::new(Scheme::new(20, Arc::new(EventFd::new().unwrap())));
        Mapping {
            description: Arc::new(Description::new(scheme, 7, 0, 0).unwrap()),
            offset: first * PAGE,
            bytes: pages * PAGE,
            writeable: true,
            range: None,
        }
    }

    fn summary(pieces: &VecDeque<Mapping>) -> Vec<(u64, u64)> {
        let pages = pieces.iter();
        pages
            .map(|piece| (piece.offset / PAGE, piece.bytes / PAGE))
            .collect()
    }

    #[test]
    fn carving_the_middle_leaves_both_ends() {
        let mut space = AddressSpace::default();
        space.insert(100 * PAGE, mapping(0, 10));
        assert!(space.would_split(103 * PAGE, 4 * PAGE));
        assert!(!space.would_split(103 * PAGE, 7 * PAGE));
        assert!(!space.would_split(100 * PAGE, 4 * PAGE));
        assert_eq!(summary(&space.carve(103 * PAGE, 4 * PAGE)), [(3, 4)]);
        assert_eq!(summary(&space.drain()), [(0, 3), (7, 3)]);
    }

    #[test]
    fn carving_across_mappings_takes_a_piece_of_each_by_address() {
        let mut space = AddressSpace::default();
        space.insert(20 * PAGE, mapping(0, 4));
        space.insert(10 * PAGE, mapping(50, 4));
        space.insert(30 * PAGE, mapping(70, 4));
        let pieces = space.carve(12 * PAGE, 19 * PAGE);
        assert_eq!(summary(&pieces), [(52, 2), (0, 4), (70, 1)]);
        assert_eq!(summary(&space.drain()), [(50, 2), (71, 3)]);
    }

    #[test]
    fn carving_a_hole_takes_nothing() {
        let mut space = AddressSpace::default();
        space.insert(10 * PAGE, mapping(0, 4));
        assert!(space.carve(0, 10 * PAGE).is_empty());
        assert!(space.carve(14 * PAGE, u64::MAX).is_empty());
        assert_eq!(summary(&space.drain()), [(0, 4)]);
    }
}
