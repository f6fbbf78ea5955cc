//! What the kernel says of the memory in a slot of the scratch space, and what it means: whether a
//! client's pages are ordinary memory, and how they go back where they are not.

use alloc::vec::Vec;

use gem::units::PAGE_SIZE;
use gem::user::UserFault;
use syscall::data::{GrantDesc, GrantFlags};
use syscall::flag::MapFlags;

/// Memory of one kind: some of the pages in a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    /// How many pages of the slot come before it.
    pub first: u64,
    /// How many there are.
    pub pages: u64,
    /// What the kernel says of it.
    pub flags: GrantFlags,
}

/// What the daemon may do with pages that it has taken over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    /// The client's alone, but for copy-on-write siblings: a page without a frame of its own gets
    /// one from the kernel when it is needed.
    Private,
    /// Shared with others, or borrowed from another address space, between which the kernel's
    /// flags do not tell. It must not be faulted on, for where it is borrowed the kernel would
    /// look into that other address space. Nor is it unmapped while the daemon's own address space
    /// is locked, for that may take the other one along.
    Shared,
}

impl Piece {
    /// What it is good for.
    ///
    /// # Errors
    ///
    /// [`UserFault::Foreign`] for what belongs to a scheme or a device, or could not be written;
    /// [`UserFault::Hole`] for what nobody can have written: the kernel fills holes with it.
    fn judge(&self) -> Result<Sharing, UserFault> {
        let foreign = GrantFlags::GRANT_SCHEME
            | GrantFlags::GRANT_PHYS
            | GrantFlags::GRANT_PHYS_CONTIGUOUS
            | GrantFlags::GRANT_PINNED
            // It would be executable in the daemon.
            | GrantFlags::GRANT_EXEC;
        let is_shared = self.flags.contains(GrantFlags::GRANT_SHARED);
        match self.flags.contains(GrantFlags::GRANT_WRITE) {
            _ if self.flags.intersects(foreign) => Err(UserFault::Foreign),
            // A client's mapping of it could become writeable on its way through the daemon.
            false if is_shared => Err(UserFault::Foreign),
            false => Err(UserFault::Hole),
            true if is_shared => Ok(Sharing::Shared),
            true => Ok(Sharing::Private),
        }
    }

    /// The protection to give it back with: as it was where a write would not be corrected by the
    /// kernel (a scheme's or a device's memory), else without writing, because its pages may be
    /// the kernel's zero page or a sibling's, which only a fault tells apart.
    pub fn protection(&self) -> MapFlags {
        let mut protection = MapFlags::PROT_READ;
        let is = |flag| self.flags.contains(flag);
        let of_scheme = is(GrantFlags::GRANT_SCHEME | GrantFlags::GRANT_SHARED);
        if of_scheme || is(GrantFlags::GRANT_PHYS) {
            protection.set(MapFlags::PROT_WRITE, is(GrantFlags::GRANT_WRITE));
            protection.set(MapFlags::PROT_EXEC, is(GrantFlags::GRANT_EXEC));
        }
        protection
    }
}

/// The pieces that `pages` pages from `start` on consist of, going by descriptions of grants in
/// order, the first of which may begin earlier; whether the descriptions reach the end.
pub fn add_pieces(pieces: &mut Vec<Piece>, grants: &[GrantDesc], start: u64, pages: u64) -> bool {
    for grant in grants {
        let first = (grant.base as u64 / PAGE_SIZE).max(start);
        let end = (grant.base as u64).saturating_add(grant.size as u64) / PAGE_SIZE;
        let end = end.min(start + pages);
        if grant.base as u64 / PAGE_SIZE >= start + pages {
            return true;
        }
        if first < end {
            pieces.push(Piece {
                first: first - start,
                pages: end - first,
                flags: grant.flags,
            });
        }
    }
    pieces
        .last()
        .is_some_and(|last| last.first + last.pages == pages)
}

/// What all pieces together are good for: `pages` pages of one kind, without a gap.
///
/// # Errors
///
/// That of the first piece that is not ordinary memory; [`UserFault::Foreign`] for both kinds
/// mixed; [`UserFault::Failed`] where pages are missing.
pub fn judge(pieces: &[Piece], pages: u64) -> Result<Sharing, UserFault> {
    let mut all = None;
    let mut next = 0;
    for piece in pieces {
        if piece.first != next {
            return Err(UserFault::Failed);
        }
        next += piece.pages;
        let sharing = piece.judge()?;
        if *all.get_or_insert(sharing) != sharing {
            return Err(UserFault::Foreign);
        }
    }
    all.filter(|_| next == pages).ok_or(UserFault::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW: GrantFlags = GrantFlags::GRANT_READ.union(GrantFlags::GRANT_WRITE);
    const READ: GrantFlags = GrantFlags::GRANT_READ;
    const SHARED: GrantFlags = GrantFlags::GRANT_SHARED;
    const SCHEME: GrantFlags = GrantFlags::GRANT_SCHEME;

    fn grant(first: usize, pages: usize, flags: GrantFlags) -> GrantDesc {
        GrantDesc {
            base: first * PAGE_SIZE as usize,
            size: pages * PAGE_SIZE as usize,
            flags,
            offset: u64::MAX,
        }
    }

    fn verdict(flags: GrantFlags) -> Result<Sharing, UserFault> {
        let piece = Piece {
            first: 0,
            pages: 1,
            flags,
        };
        judge(&[piece], 1)
    }

    #[test]
    fn only_writeable_memory_of_nobody_elses_is_ordinary() {
        assert_eq!(verdict(RW), Ok(Sharing::Private));
        assert_eq!(verdict(RW | SHARED), Ok(Sharing::Shared));
        // What TRANSFER fills a hole with; read-only memory looks the same.
        assert_eq!(verdict(READ), Err(UserFault::Hole));
        for foreign in [
            READ | SHARED,
            RW | SHARED | SCHEME,
            RW | SCHEME,
            RW | SHARED | GrantFlags::GRANT_PHYS,
            RW | GrantFlags::GRANT_PHYS_CONTIGUOUS,
            RW | SHARED | GrantFlags::GRANT_PINNED,
            RW | GrantFlags::GRANT_EXEC,
        ] {
            assert_eq!(verdict(foreign), Err(UserFault::Foreign), "{foreign:?}");
        }
    }

    #[test]
    fn pieces_are_cut_to_the_slot() {
        let mut pieces = Vec::new();
        let grants = [
            grant(8, 1, READ),
            grant(10, 10, RW),
            grant(20, 2, RW | SHARED),
            grant(22, 10, RW),
            grant(40, 1, READ),
        ];
        assert!(add_pieces(&mut pieces, &grants, 16, 8));
        let cut: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.first, piece.pages))
            .collect();
        assert_eq!(cut, [(0, 4), (4, 2), (6, 2)]);
        assert_eq!(judge(&pieces, 8), Err(UserFault::Foreign), "both kinds");
    }

    #[test]
    fn more_descriptions_are_asked_for_until_the_slot_is_covered() {
        let mut pieces = Vec::new();
        assert!(!add_pieces(
            &mut pieces,
            &[grant(16, 3, RW | SHARED)],
            16,
            8
        ));
        assert!(add_pieces(&mut pieces, &[grant(19, 5, RW | SHARED)], 16, 8));
        assert_eq!(judge(&pieces, 8), Ok(Sharing::Shared));
    }

    #[test]
    fn a_gap_is_never_taken_for_memory() {
        let mut pieces = Vec::new();
        assert!(add_pieces(
            &mut pieces,
            &[grant(16, 3, RW), grant(20, 4, RW)],
            16,
            8
        ));
        assert_eq!(judge(&pieces, 8), Err(UserFault::Failed));
        assert_eq!(judge(&[], 1), Err(UserFault::Failed));
    }

    #[test]
    fn ordinary_memory_goes_back_without_write_access_and_a_schemes_with() {
        let protection = |flags| {
            Piece {
                first: 0,
                pages: 1,
                flags,
            }
            .protection()
        };
        for ordinary in [RW, RW | SHARED, RW | SCHEME, READ] {
            assert_eq!(protection(ordinary), MapFlags::PROT_READ);
        }
        let both = MapFlags::PROT_READ | MapFlags::PROT_WRITE;
        assert_eq!(protection(RW | SHARED | SCHEME), both);
        assert_eq!(protection(READ | SHARED | SCHEME), MapFlags::PROT_READ);
        assert_eq!(protection(RW | SHARED | GrantFlags::GRANT_PHYS), both);
    }
}
