//! Taking over a client's pages, a step at a time, and giving them back where that cannot be
//! finished. What a step does is a [`Mover`]'s business; here is only which comes next.
//!
//! Until the address space's fd is closed (by whoever runs this, when it is over) everything can be
//! undone, and is: after an error nothing of the client's is in the daemon, and each page that was
//! taken is back where it was.

use gem::user::UserFault;

use super::grants::Sharing;
use super::space::{LOWEST, STEP};
use crate::books::Span;

/// What the steps are made of.
pub trait Mover {
    /// Pages on their way.
    type Slot: Copy;

    /// Whether this is an address space from which pages can be taken.
    fn check(&mut self, space: usize) -> Result<(), UserFault>;

    /// How many pages of memory are left for everybody.
    fn room(&mut self) -> u64;

    /// Takes pages out of the client's address space. Also where it fails, the slot has what has
    /// been taken.
    fn take(
        &mut self,
        space: usize,
        source: u64,
        pages: u64,
    ) -> (Self::Slot, Result<(), UserFault>);

    /// What the pages in a slot are.
    fn judge(&mut self, slot: Self::Slot) -> Result<Sharing, UserFault>;

    /// Moves them to page `window` of the daemon's, where nothing is. Where it fails they stay in
    /// the slot.
    fn place(&mut self, slot: Self::Slot, window: u64) -> Result<(), UserFault>;

    /// Whether each page has a frame of its own. Does not fault on them.
    fn is_backed(&mut self, span: Span) -> bool;

    /// Gives each page, which is private, a frame of its own.
    fn back(&mut self, span: Span);

    /// Moves pages of the daemon's into a slot; `None` where that cannot be.
    fn fetch(&mut self, span: Span) -> Option<Self::Slot>;

    /// Gives what is in a slot back to where it was.
    fn give_back(&mut self, slot: Self::Slot, space: usize, source: u64);
}

/// Pages that are the daemon's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Taken {
    /// Where they are.
    pub window: Span,
    /// What may be done with them.
    pub sharing: Sharing,
}

/// An acquisition under way.
#[derive(Debug)]
pub struct Acquisition {
    space: usize,
    /// The first page of the client's.
    source: u64,
    /// Where the pages go.
    window: Span,
    /// How many are there: the last ones.
    moved: u64,
    sharing: Sharing,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    New,
    Taking,
    Taken,
    Undoing(UserFault),
}

impl Acquisition {
    /// Of as many pages from page `source` on as there are in `window`, where nothing is. Nothing
    /// has been done yet.
    pub fn new(space: usize, source: u64, window: Span) -> Self {
        Self {
            space,
            source,
            window,
            moved: 0,
            sharing: Sharing::Private,
            stage: Stage::New,
        }
    }

    /// The fd that it takes from.
    pub fn space(&self) -> usize {
        self.space
    }

    /// Does the next step; `None` where it is not the last. After the last, the fd is to be closed.
    pub fn turn(&mut self, mover: &mut impl Mover) -> Option<Result<Taken, UserFault>> {
        let next = match self.stage {
            Stage::New => self.begin(mover),
            Stage::Taking => self.take(mover),
            Stage::Taken => Ok(Stage::Taken),
            Stage::Undoing(fault) => {
                if self.moved == 0 {
                    return Some(Err(fault));
                }
                self.undo_step(mover);
                return None;
            }
        };
        match next {
            Ok(Stage::Taken) => {
                self.stage = Stage::Taken;
                return Some(Ok(Taken {
                    window: self.window,
                    sharing: self.sharing,
                }));
            }
            Ok(stage) => self.stage = stage,
            Err(fault) => self.fail(fault),
        }
        None
    }

    /// Undoes it from now on, in turns, whatever has been done, and ends with `fault`.
    pub fn fail(&mut self, fault: UserFault) {
        if !matches!(self.stage, Stage::Undoing(_)) {
            self.stage = Stage::Undoing(fault);
        }
    }

    fn begin(&mut self, mover: &mut impl Mover) -> Result<Stage, UserFault> {
        mover.check(self.space)?;
        if self.source < LOWEST {
            return Err(UserFault::Foreign);
        }
        self.take(mover)
    }

    /// Takes the next pages, from the end on (see [`last_step`]), and sees to it that each has a frame of its own before the client maps
    /// it. The kernel would give it one then as well, but lose up to 16 copied frames each time
    /// (`Grant::borrow_fmap`: what is to be freed is queued, and the end of the queue forgotten);
    /// and where memory ran out it would leave pages mapped that nothing knows of.
    fn take(&mut self, mover: &mut impl Mover) -> Result<Stage, UserFault> {
        let left = self.window.pages - self.moved;
        let pages = last_step(self.source, left);
        let source = self.source + left - pages;
        // For frames of their own, and for page tables, without which the kernel panics.
        if mover.room() < pages {
            return Err(UserFault::NoMemory);
        }
        let (slot, taken) = mover.take(self.space, source, pages);
        let first = self.window.first + left - pages;
        let placed = taken.and_then(|()| mover.judge(slot)).and_then(|sharing| {
            mover.place(slot, first)?;
            Ok(sharing)
        });
        let sharing = match placed {
            Ok(sharing) => sharing,
            Err(fault) => {
                mover.give_back(slot, self.space, source);
                return Err(fault);
            }
        };
        if self.moved == 0 {
            self.sharing = sharing;
        }
        self.moved += pages;
        let span = Span { first, pages };
        match self.sharing {
            // One range, one way to treat it.
            other if other != sharing => return Err(UserFault::Foreign),
            Sharing::Private => mover.back(span),
            Sharing::Shared if mover.is_backed(span) => {}
            Sharing::Shared => return Err(UserFault::Foreign),
        }
        Ok(if self.moved < self.window.pages {
            Stage::Taking
        } else {
            Stage::Taken
        })
    }

    fn undo_step(&mut self, mover: &mut impl Mover) {
        let pages = self.moved.min(STEP);
        let before = self.window.pages - self.moved;
        self.moved -= pages;
        let first = self.window.first + before;
        if let Some(slot) = mover.fetch(Span { first, pages }) {
            mover.give_back(slot, self.space, self.source + before);
        }
    }
}

/// How many of `pages` pages from page `first` on to unmap or move at once, at most [`STEP`], from the
/// end on.
///
/// For every page that the kernel takes out of a page table it looks through the table from its
/// beginning until it finds one that is there (`unmap_phys_inner`): in a full table, and going up
/// from the beginning, 256 entries for each on average. So the end of a table goes first, while its
/// beginning is there, and what is left at last is little.
pub fn last_step(first: u64, pages: u64) -> u64 {
    /// Pages to a page table.
    const TABLE: u64 = 512;
    /// How many are left for the last step in a table. Looking for those costs as much as a step.
    const LITTLE: u64 = 64;
    let last = first + pages - 1;
    let in_table = pages.min(last % TABLE + 1);
    if in_table > STEP + LITTLE {
        STEP
    } else if in_table > 2 * LITTLE {
        in_table - LITTLE
    } else {
        in_table
    }
}

#[cfg(test)]
mod tests;
