//! Moving pages between address spaces: the system calls, one step each (kernel:
//! `src/scheme/proc.rs`, `src/context/memory.rs`).
//!
//! Pages never go straight from a client to the daemon or back. The kernel moves with both address
//! spaces locked, the source first; and whenever a client maps something of the daemon's, or passes
//! it whole pages in a call, the kernel locks the daemon's, then the client's. Two CPUs that do one
//! of each at once wait for each other for ever. So there is a *scratch space* in between, which
//! nobody else knows: client, then scratch; scratch, then daemon; and the reverse, each of which no
//! other order contradicts. It also is where the pages can be looked at while nobody can change
//! what they are.
//!
//! Nothing here waits for anybody but the kernel, except [`Spaces::discard`] and closing a
//! client's address space: where that is the last reference, the kernel tells the schemes that were
//! mapped there, and waits for their answers.

use alloc::vec::Vec;

use gem::units::PAGE_SIZE;
use gem::user::UserFault;
use libredox::Fd;
use libredox::error::{Error, Result};
use syscall::data::GrantDesc;
use syscall::error::{EBADF, EBUSY, EEXIST, EINVAL, EIO, ENOMEM, EXDEV};
use syscall::flag::{
    ADDRSPACE_OP_MMAP, ADDRSPACE_OP_MUNMAP, ADDRSPACE_OP_TRANSFER, CallFlags, MapFlags,
};

use super::grants::{self, Piece};
use crate::books::Span;

/// The most pages that are moved in one step, with address spaces locked.
pub const STEP: u64 = 256;

/// Where the slots of the scratch space are, one of which is used at a time. Each is in the upper
/// half of what one page table covers; the table's first page, the *anchor*, is always mapped: the
/// kernel looks for a mapped page from the table's beginning on whenever it unmaps one.
/// There are two because the kernel refuses to move pages to where they are, whichever address
/// spaces the two addresses are in. No daemon has anything up there.
const ANCHORS: [u64; 2] = [0x7e00_0000_0000, 0x7e00_4000_0000];
const SLOT: u64 = STEP * PAGE_SIZE;
const _: () = assert!(2 * SLOT == 512 * PAGE_SIZE);

/// Where clients' pages are in the daemon's own address space. The first page of it is an anchor, too:
/// with it the tables above are there to stay.
pub const WINDOWS: Span = Span {
    first: 0x6000_0000_0000 / PAGE_SIZE,
    pages: (1 << 40) / PAGE_SIZE,
};
/// From here on the kernel maps in the daemon's address space what has no address, a client's
/// payload at any time. It takes the smallest gap that will do, and that may be one between windows.
const OTHERS: usize = 0x7000_0000_0000;
const _: () = assert!((WINDOWS.first + WINDOWS.pages) * PAGE_SIZE <= OTHERS as u64);

/// The first page that anything is taken from. The only other file of the kernel's proc scheme that
/// can be mapped, a context's signal handlers, has something at the two pages before it.
pub const LOWEST: u64 = 2;

unsafe extern "C" {
    /// The calling thread's context (relibc, and the image's runtime).
    safe fn redox_cur_thrfd_v0() -> usize;
}

/// The daemon's own address space and the scratch space.
pub struct Spaces {
    own: Fd,
    scratch: Fd,
}

/// Pages in the scratch space.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    index: usize,
    pages: u64,
}

impl Slot {
    /// How many pages it is for.
    pub fn pages(self) -> u64 {
        self.pages
    }

    fn address(self) -> u64 {
        ANCHORS[self.index] + SLOT
    }
}

impl Spaces {
    /// # Errors
    ///
    /// ENOMEM, EMFILE; ENOSYS where this kernel does not tell whose an fd is.
    pub fn new() -> Result<Self> {
        let thread = redox_cur_thrfd_v0();
        let own = Fd::new(libredox::call::dup(thread, "addrspace")?);
        let scratch = Fd::new(own.dup(b"empty")?);
        for place in ANCHORS {
            anchor(&scratch, place)?;
        }
        write(&Fd::new(own.dup(b"mmap-min-addr")?), &[OTHERS])?;
        match anchor(&own, WINDOWS.first * PAGE_SIZE) {
            // Another thread's.
            Err(error) if error.errno() == EEXIST => {}
            anchored => anchored?,
        }
        Ok(Self { own, scratch })
    }

    /// Finds out, without asking anybody but the kernel, whether `space` is somebody else's
    /// address space. Only then anything else here may be done with it.
    ///
    /// # Errors
    ///
    /// [`UserFault::NotASpace`]; [`UserFault::Foreign`] for the daemon's own.
    pub fn check(&self, space: usize) -> core::result::Result<(), UserFault> {
        // A call on fds of two schemes is refused by the kernel, one on two fds of the kernel's
        // own scheme by that scheme.
        let pair = [self.own.raw(), space];
        match libredox::call::call_ro(&pair[..], &mut [], CallFlags::empty(), &[]) {
            Err(error) if error.errno() == EINVAL => {}
            _ => return Err(UserFault::NotASpace),
        }
        // Who they are is looked at before what is to be moved.
        let nowhere = MapFlags::PROT_READ;
        match self.transfer(self.own.raw(), space, 1, 0, 1, nowhere) {
            Err(error) if error.errno() == EBUSY => Err(UserFault::Foreign),
            Err(error) if error.errno() == EINVAL => Ok(()),
            _ => Err(UserFault::NotASpace),
        }
    }

    /// Whether [`Spaces::check`] sees what it should, on this kernel: for an fd of the scheme of
    /// `other`, which is not the kernel's proc scheme.
    pub fn tells_apart(&self, other: usize) -> bool {
        let pair = [self.own.raw(), other];
        let foreign = libredox::call::call_ro(&pair[..], &mut [], CallFlags::empty(), &[]);
        let foreign = foreign.is_err_and(|error| error.errno() == EXDEV);
        foreign
            && self.check(self.own.raw()) == Err(UserFault::Foreign)
            && self.check(redox_cur_thrfd_v0()) == Err(UserFault::NotASpace)
            && self.check(self.scratch.raw()) == Ok(())
    }

    /// Takes pages out of `space` at page `source`, at most [`STEP`]. What went wrong has moved
    /// nothing, or a part of it into the slot.
    pub fn take(&self, space: usize, source: u64, pages: u64) -> (Slot, Result<()>) {
        let slot = slot_beside(source, pages);
        let moved = self.transfer(
            self.scratch.raw(),
            space,
            source * PAGE_SIZE,
            slot.address(),
            pages,
            MapFlags::PROT_READ | MapFlags::MAP_FIXED_NOREPLACE,
        );
        (slot, moved.map(drop))
    }

    /// What a slot's pages are.
    ///
    /// # Errors
    ///
    /// None but of a failing kernel.
    pub fn pieces(&self, slot: Slot) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        // The anchors up to the slot's own come first.
        let mut index = slot.index + 1;
        let mut grants = [GrantDesc::default(); 16];
        loop {
            let read = self.read_grants(index, &mut grants)?;
            let (start, grants) = (slot.address() / PAGE_SIZE, &grants[..read]);
            if grants::add_pieces(&mut pieces, grants, start, slot.pages) || read == 0 {
                return Ok(pieces);
            }
            index += read;
        }
    }

    /// Moves a slot's pages into the daemon's address space, to page `window`. Where it fails they
    /// stay in the slot.
    ///
    /// # Errors
    ///
    /// ENOMEM; EEXIST where something is.
    pub fn place(&self, slot: Slot, window: u64) -> Result<()> {
        self.transfer(
            self.own.raw(),
            self.scratch.raw(),
            slot.address(),
            window * PAGE_SIZE,
            slot.pages,
            MapFlags::PROT_READ | MapFlags::MAP_FIXED_NOREPLACE,
        )
        .map(drop)
    }

    /// Moves pages out of the daemon's address space, at most [`STEP`], into a slot.
    ///
    /// # Errors
    ///
    /// None but of a failing kernel: the pages stay where they are.
    pub fn fetch(&self, span: Span) -> Result<Slot> {
        let slot = slot_beside(span.first, span.pages);
        self.transfer(
            self.scratch.raw(),
            self.own.raw(),
            span.address() as u64,
            slot.address(),
            slot.pages,
            MapFlags::PROT_READ | MapFlags::MAP_FIXED_NOREPLACE,
        )?;
        Ok(slot)
    }

    /// Moves whatever is in a slot back into `space`, from page `source` on. What does not go
    /// there, because something else is there by now, is gone.
    pub fn give_back(&self, slot: Slot, space: usize, source: u64) {
        // Without knowing what it is, nothing can be given back.
        for piece in self.pieces(slot).unwrap_or_default() {
            let _ = self.transfer(
                space,
                self.scratch.raw(),
                slot.address() + piece.first * PAGE_SIZE,
                (source + piece.first) * PAGE_SIZE,
                piece.pages,
                piece.protection() | MapFlags::MAP_FIXED_NOREPLACE,
            );
        }
        self.discard(slot);
    }

    /// Lets go of what is in a slot. It may wait for schemes, see above.
    pub fn discard(&self, slot: Slot) {
        let words = [ADDRSPACE_OP_MUNMAP, slot.address() as usize, SLOT as usize];
        // Nothing can be pinned there, so that it cannot fail.
        let _ = write(&self.scratch, &words);
    }

    /// Moves `pages` pages at byte `source` of one space to byte `target` of another, or anywhere
    /// where that is 0 and not fixed; where they are.
    fn transfer(
        &self,
        to: usize,
        from: usize,
        source: u64,
        target: u64,
        pages: u64,
        flags: MapFlags,
    ) -> Result<usize> {
        let words = [
            ADDRSPACE_OP_TRANSFER,
            from,
            source as usize,
            target as usize,
            (pages * PAGE_SIZE) as usize,
            flags.bits(),
        ];
        libredox::call::write(to, bytes_of(&words))
    }

    /// Reads grants of the scratch space from number `index` on; how many.
    fn read_grants(&self, index: usize, grants: &mut [GrantDesc]) -> Result<usize> {
        let length = size_of_val(grants);
        // SAFETY: the kernel fills whole descriptions of plain integers, of which all bits are
        // values, within the length.
        let read = unsafe {
            syscall::syscall5(
                syscall::SYS_READ2,
                self.scratch.raw(),
                grants.as_mut_ptr() as usize,
                length,
                index * size_of::<GrantDesc>(),
                0,
            )
        };
        match read {
            Ok(bytes) if bytes <= length => Ok(bytes / size_of::<GrantDesc>()),
            Ok(_) => Err(Error::new(EIO)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Maps a page, which takes no memory but that of its page tables, where nothing is.
fn anchor(space: &Fd, place: u64) -> Result<()> {
    let flags = MapFlags::PROT_READ | MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
    let words = [
        ADDRSPACE_OP_MMAP,
        usize::MAX,
        0,
        place as usize,
        PAGE_SIZE as usize,
        flags.bits(),
    ];
    write(space, &words).map(drop)
}

/// A slot whose addresses are not those of `pages` pages from page `first` on.
fn slot_beside(first: u64, pages: u64) -> Slot {
    let (start, end) = (first * PAGE_SIZE, (first + pages) * PAGE_SIZE);
    let apart = |anchor: &u64| end <= *anchor || anchor + 2 * SLOT <= start;
    let index = ANCHORS.iter().position(apart).unwrap_or(0);
    Slot { index, pages }
}

/// What an errno of [`Spaces::take`] says about a client's range.
pub fn fault_of(error: Error) -> UserFault {
    match error.errno() {
        ENOMEM => UserFault::NoMemory,
        // Pinned: whole pages that are lent to a scheme for a call, and the like.
        EBUSY => UserFault::Foreign,
        EBADF | EINVAL => UserFault::NotASpace,
        _ => UserFault::Failed,
    }
}

fn write(space: &Fd, words: &[usize]) -> Result<usize> {
    space.write(bytes_of(words))
}

fn bytes_of(words: &[usize]) -> &[u8] {
    // SAFETY: any words are bytes, as long as they are borrowed.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_never_has_the_addresses_of_what_is_moved() {
        let overlaps = |first: u64, pages: u64| {
            let slot = slot_beside(first, pages);
            let (start, end) = (slot.address(), slot.address() + SLOT);
            first * PAGE_SIZE < end && start < (first + pages) * PAGE_SIZE
        };
        for anchor in ANCHORS {
            let page = anchor / PAGE_SIZE;
            for first in page - 2 * STEP..page + 3 * STEP {
                assert!(!overlaps(first, 1));
                assert!(!overlaps(first, STEP));
            }
        }
        assert!(!overlaps(2, STEP));
    }
}
