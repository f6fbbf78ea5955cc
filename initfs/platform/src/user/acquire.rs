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

    /// Reserves addresses for so many pages; the first page.
    fn reserve(&mut self, pages: u64) -> Result<u64, UserFault>;

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

    /// Moves them to page `window`, which is reserved, or anywhere; where they are. Where it fails
    /// they stay in the slot.
    fn place(&mut self, slot: Self::Slot, window: Option<u64>) -> Result<u64, UserFault>;

    /// Whether each page has a frame of its own. Does not fault on them.
    fn is_backed(&mut self, span: Span) -> bool;

    /// Gives each page, which is private, a frame of its own.
    fn back(&mut self, span: Span);

    /// Moves pages of the daemon's into a slot; `None` where that cannot be.
    fn fetch(&mut self, span: Span) -> Option<Self::Slot>;

    /// Gives what is in a slot back to where it was.
    fn give_back(&mut self, slot: Self::Slot, space: usize, source: u64);

    /// Gives up reserved addresses.
    fn unreserve(&mut self, span: Span);
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
    /// The first page of the client's, and how many.
    source: u64,
    pages: u64,
    /// The first page of the daemon's, once it is known.
    window: u64,
    /// How many are there.
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
    /// Of `pages` pages from page `source` on. Nothing has been done yet.
    pub fn new(space: usize, source: u64, pages: u64) -> Self {
        Self {
            space,
            source,
            pages,
            window: 0,
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
                let window = Span {
                    first: self.window,
                    pages: self.pages,
                };
                return Some(Ok(Taken {
                    window,
                    sharing: self.sharing,
                }));
            }
            Ok(stage) => self.stage = stage,
            Err(fault) => self.fail(mover, fault),
        }
        None
    }

    /// Undoes it from now on, in turns, whatever has been done, and ends with `fault`.
    pub fn fail(&mut self, mover: &mut impl Mover, fault: UserFault) {
        if let Stage::Undoing(_) = self.stage {
            return;
        }
        // Before what lies beside it goes, and others may come there.
        if self.is_reserved() && self.window != 0 && self.moved < self.pages {
            mover.unreserve(Span {
                first: self.window + self.moved,
                pages: self.pages - self.moved,
            });
        }
        self.stage = Stage::Undoing(fault);
    }

    /// Whether the window was there before the first pages were. For a single step the kernel finds
    /// a place for what there is.
    fn is_reserved(&self) -> bool {
        self.pages > STEP
    }

    fn begin(&mut self, mover: &mut impl Mover) -> Result<Stage, UserFault> {
        mover.check(self.space)?;
        if self.source < LOWEST {
            return Err(UserFault::Foreign);
        }
        if self.is_reserved() {
            self.window = mover.reserve(self.pages)?;
            return Ok(Stage::Taking);
        }
        self.take(mover)
    }

    /// Takes the next pages, and sees to it that each has a frame of its own before the client maps
    /// it. The kernel would give it one then as well, but lose up to 16 copied frames each time
    /// (`Grant::borrow_fmap`: what is to be freed is queued, and the end of the queue forgotten);
    /// and where memory ran out it would leave pages mapped that nothing knows of.
    fn take(&mut self, mover: &mut impl Mover) -> Result<Stage, UserFault> {
        let source = self.source + self.moved;
        let pages = (self.pages - self.moved).min(STEP);
        // For frames of their own, and for page tables, without which the kernel panics.
        if mover.room() < pages {
            return Err(UserFault::NoMemory);
        }
        let (slot, taken) = mover.take(self.space, source, pages);
        let window = self.is_reserved().then_some(self.window + self.moved);
        let placed = taken
            .and_then(|()| mover.judge(slot))
            .and_then(|sharing| Ok((sharing, mover.place(slot, window)?)));
        let (sharing, first) = match placed {
            Ok(placed) => placed,
            Err(fault) => {
                mover.give_back(slot, self.space, source);
                return Err(fault);
            }
        };
        if self.moved == 0 {
            self.window = first;
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
        Ok(if self.moved < self.pages {
            Stage::Taking
        } else {
            Stage::Taken
        })
    }

    fn undo_step(&mut self, mover: &mut impl Mover) {
        let pages = match self.moved % STEP {
            0 => STEP,
            rest => rest,
        };
        self.moved -= pages;
        let span = Span {
            first: self.window + self.moved,
            pages,
        };
        if let Some(slot) = mover.fetch(span) {
            mover.give_back(slot, self.space, self.source + self.moved);
        }
    }
}

#[cfg(test)]
mod tests;
