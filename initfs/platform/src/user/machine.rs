//! The steps of an acquisition on the real thing: the address spaces, the memory scheme, and the
//! pages themselves.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use gem::units::{PAGE_SIZE, PhysAddr};
use gem::user::UserFault;
use libredox::error::Result;
use syscall::error::{ENOMEM, ENOSYS};

use super::acquire::Mover;
use super::grants::{self, Sharing};
use super::space::{self, Slot, Spaces};
use crate::books::{Kind, Span};
use crate::memory::{self, Memory};
use crate::worker;

/// What a worker has of the machine.
pub struct Machine {
    spaces: Spaces,
    memory: Memory,
    /// Where the kernel's zero page is, which stands for every page never written to.
    zero: PhysAddr,
    /// The memory worker, which has promised pages that it has not touched yet.
    pages: Arc<worker::Link>,
}

impl Machine {
    /// # Errors
    ///
    /// ENOMEM, EMFILE; ENOSYS where this kernel does not tell an address space from other fds.
    pub fn new(pages: Arc<worker::Link>) -> Result<Self> {
        let spaces = Spaces::new()?;
        let mut memory = Memory::default();
        let untouched = memory.map(Kind::ORDINARY, 1)?;
        let zero = memory.locate(untouched.first);
        // SAFETY: mapped above, and nobody else has heard of it.
        unsafe { memory::unmap(untouched) };
        if !spaces.tells_apart(memory.fd()?) {
            return Err(libredox::error::Error::new(ENOSYS));
        }
        Ok(Self {
            spaces,
            memory,
            zero: zero?,
            pages,
        })
    }

    /// Where a page is that has a frame of its own.
    ///
    /// # Errors
    ///
    /// ENOENT where it has none.
    pub fn locate(&mut self, page: u64) -> Result<Option<PhysAddr>> {
        let place = self.memory.locate(page)?;
        Ok((place != self.zero).then_some(place))
    }

    /// Lets go of what is in a slot; see [`Spaces::discard`] for whom that waits for.
    pub fn discard(&self, slot: Slot) {
        self.spaces.discard(slot);
    }
}

impl Mover for Machine {
    type Slot = Slot;

    fn check(&mut self, space: usize) -> core::result::Result<(), UserFault> {
        self.spaces.check(space)
    }

    fn room(&mut self) -> u64 {
        let promised = self.pages.promised.load(Relaxed);
        self.memory
            .free_pages()
            .map_or(0, |free| free.saturating_sub(promised))
    }

    fn take(
        &mut self,
        space: usize,
        source: u64,
        pages: u64,
    ) -> (Slot, core::result::Result<(), UserFault>) {
        let (slot, taken) = self.spaces.take(space, source, pages);
        (slot, taken.map_err(space::fault_of))
    }

    fn judge(&mut self, slot: Slot) -> core::result::Result<Sharing, UserFault> {
        let pieces = self.spaces.pieces(slot).map_err(|_| UserFault::Failed)?;
        grants::judge(&pieces, slot.pages())
    }

    fn place(&mut self, slot: Slot, window: u64) -> core::result::Result<(), UserFault> {
        self.spaces
            .place(slot, window)
            .map_err(|error| match error.errno() {
                ENOMEM => UserFault::NoMemory,
                _ => UserFault::Failed,
            })
    }

    fn is_backed(&mut self, span: Span) -> bool {
        let mut pages = span.first..span.first + span.pages;
        pages.all(|page| matches!(self.locate(page), Ok(Some(_))))
    }

    fn back(&mut self, span: Span) {
        for page in span.first..span.first + span.pages {
            // SAFETY: the page is mapped, may be written, and is private, so that a fault gives it
            // a frame; its owner may write to it at the same time, which the exchange of a byte
            // for itself does not undo.
            let byte = unsafe { AtomicU8::from_ptr((page * PAGE_SIZE) as *mut u8) };
            let _ = byte.fetch_update(Relaxed, Relaxed, Some);
        }
    }

    fn fetch(&mut self, span: Span) -> Option<Slot> {
        self.spaces.fetch(span).ok()
    }

    fn give_back(&mut self, slot: Slot, space: usize, source: u64) {
        self.spaces.give_back(slot, space, source);
    }
}
