//! What a thread for clients' pages does: jobs in turns of a few hundred pages each. Who gets the
//! next turn, and what if one takes for ever, is [`super::link`]'s business.

use alloc::sync::Arc;
use alloc::vec::Vec;

use gem::pages::{Extent, Extents, Ticket};
use gem::units::{PAGE_SIZE, Uid};
use gem::user::{Errand, UserFault};
use syscall::error::EIO;

use super::acquire::{Acquisition, Mover, Taken, last_step};
use super::books::{Cancel, Done, Job};
use super::grants::Sharing;
use super::link::Link;
use super::machine::Machine;
use crate::books::Span;
use crate::memory;
use crate::worker::{append, next_turn};

/// A job under way.
pub enum Task {
    Acquire {
        acquisition: Acquisition,
        cancel: Cancel,
        ticket: Ticket,
    },
    Locate {
        taken: Taken,
        located: u64,
        extents: Vec<Extent>,
        cancel: Cancel,
        ticket: Ticket,
    },
    Release {
        taken: Taken,
        /// How many pages are left, the first ones.
        left: u64,
        is_whole: bool,
        ticket: Ticket,
    },
    Errand(Errand),
    Report(Ticket),
}

impl Task {
    /// A job's, and whose.
    pub fn new(job: Job) -> (Uid, Self) {
        match job {
            Job::Acquire {
                owner,
                space,
                source,
                window,
                cancel,
                ticket,
            } => {
                let task = Self::Acquire {
                    acquisition: Acquisition::new(space, source.get() / PAGE_SIZE, window),
                    cancel,
                    ticket,
                };
                (owner, task)
            }
            Job::Locate {
                owner,
                taken,
                cancel,
                ticket,
            } => {
                let task = Self::Locate {
                    taken,
                    located: 0,
                    extents: Vec::new(),
                    cancel,
                    ticket,
                };
                (owner, task)
            }
            Job::Release {
                owner,
                taken,
                ticket,
            } => {
                let task = Self::Release {
                    taken,
                    left: taken.window.pages,
                    is_whole: true,
                    ticket,
                };
                (owner, task)
            }
            Job::Errand(owner, errand) => (owner, Self::Errand(errand)),
            Job::Report(owner, ticket) => (owner, Self::Report(ticket)),
        }
    }
}

/// One thread.
pub struct Worker {
    /// Where its work comes from.
    pub link: Arc<Link>,
    /// Which it is of those that there have been.
    pub number: u64,
    /// What it works with.
    pub machine: Machine,
}

impl Worker {
    /// Works until it is not needed any more.
    pub fn run(mut self) {
        while let Some((owner, task)) = self.link.next(self.number) {
            if let Some(rest) = self.turn(owner, task) {
                self.link.put_back(owner, rest);
            }
        }
    }

    /// Does a step that may take for ever.
    fn carefully(&mut self, owner: Uid, step: impl FnOnce(&mut Machine)) {
        self.link.begin_step(owner);
        step(&mut self.machine);
        self.link.end_step(owner, self.number);
    }

    /// Does a part of a task; the rest of it.
    fn turn(&mut self, owner: Uid, task: Task) -> Option<Task> {
        match task {
            Task::Acquire {
                mut acquisition,
                cancel,
                ticket,
            } => {
                if cancel.is_set() {
                    acquisition.fail(UserFault::Busy);
                }
                let outcome = acquisition.turn(&mut self.machine);
                let over = match outcome {
                    Some(Ok(_)) => !cancel.is_set(),
                    Some(Err(_)) => true,
                    None => false,
                };
                let Some(outcome) = outcome.filter(|_| over) else {
                    return Some(Task::Acquire {
                        acquisition,
                        cancel,
                        ticket,
                    });
                };
                let space = acquisition.space();
                self.carefully(owner, |_| close(space));
                self.link.report(Done::Acquired { ticket, outcome });
                None
            }
            Task::Locate {
                taken,
                mut located,
                mut extents,
                cancel,
                ticket,
            } => {
                let looked = self.locate(taken, &mut located, &mut extents);
                let outcome = match looked {
                    Err(errno) => Err(errno),
                    _ if cancel.is_set() => Err(EIO),
                    Ok(()) if located < taken.window.pages => {
                        return Some(Task::Locate {
                            taken,
                            located,
                            extents,
                            cancel,
                            ticket,
                        });
                    }
                    Ok(()) => Ok(match extents.as_slice() {
                        [one] => Extents::One(*one),
                        _ => Extents::Many(extents.into_boxed_slice()),
                    }),
                };
                self.link.report(Done::Located {
                    taken,
                    ticket,
                    outcome,
                });
                None
            }
            Task::Release {
                taken,
                mut left,
                mut is_whole,
                ticket,
            } => {
                let pages = last_step(taken.window.first, left);
                left -= pages;
                let first = taken.window.first + left;
                let now = Span { first, pages };
                let slot = match taken.sharing {
                    Sharing::Private => {
                        // SAFETY: the books have forgotten these pages.
                        unsafe { memory::unmap(now) };
                        None
                    }
                    Sharing::Shared => {
                        let slot = self.machine.fetch(now);
                        // What cannot be moved is never used again, nor is its place.
                        is_whole &= slot.is_some();
                        slot
                    }
                };
                // Before what may take for ever: the pages are not the daemon's any more.
                if left == 0 {
                    let window = is_whole.then_some(taken.window);
                    self.link.report(Done::Released { ticket, window });
                }
                if let Some(slot) = slot {
                    self.carefully(owner, |machine| machine.discard(slot));
                }
                (left > 0).then_some(Task::Release {
                    taken,
                    left,
                    is_whole,
                    ticket,
                })
            }
            Task::Errand(errand) => {
                self.carefully(owner, |_| errand.run());
                None
            }
            Task::Report(ticket) => {
                self.link.report(Done::Over(ticket));
                None
            }
        }
    }

    /// Finds out where the next pages lie.
    fn locate(
        &mut self,
        taken: Taken,
        located: &mut u64,
        extents: &mut Vec<Extent>,
    ) -> Result<(), i32> {
        let mut left = Span {
            first: taken.window.first + *located,
            pages: taken.window.pages - *located,
        };
        let now = next_turn(&mut left);
        for page in now.first..now.first + now.pages {
            let place = self.machine.locate(page).map_err(|error| error.errno())?;
            append(extents, place.ok_or(EIO)?).ok_or(EIO)?;
        }
        *located += now.pages;
        Ok(())
    }
}

fn close(fd: usize) {
    // Whatever it was, it is not ours any more.
    let _ = libredox::call::close(fd);
}
