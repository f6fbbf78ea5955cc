//! The books over clients' pages: which are being taken over, which the daemon has, and what
//! becomes of them when nobody wants them any more. No system calls: what has to be done goes out
//! as [`Job`]s, and comes back as [`Done`].

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use gem::pages::{Extents, NotReady, PlatformError, Ticket};
use gem::units::{PageCount, Uid};
use gem::user::{Errand, UserAddr, UserFault, UserRange, UserSet};
use syscall::error::ENOMEM;

use super::acquire::Taken;
use super::grants::Sharing;
use super::space::WINDOWS;
use crate::books::Span;
use crate::free_map::FreeMap;

/// As many private pages are unmapped by whoever releases them: a tenth of a millisecond's work.
const AT_ONCE: u64 = 512;

/// Tickets from here on are of these books, those below of the page source's.
const FIRST_TICKET: u64 = 1 << 63;

/// Says to a job under way that nobody wants its result.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Says it.
    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it has been said.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Something for the worker to do.
#[derive(Debug)]
pub enum Job {
    /// Take over pages, unless it is cancelled, and close the fd.
    Acquire {
        /// Whose pages.
        owner: Uid,
        /// The fd on their address space.
        space: usize,
        /// Where they are.
        source: UserAddr,
        /// Where they go, and how many there are.
        window: Span,
        /// Undo it where this is set, also in the midst of it.
        cancel: Cancel,
        /// To be reported.
        ticket: Ticket,
    },
    /// Find out where pages are.
    Locate {
        /// Whose they are.
        owner: Uid,
        /// Which.
        taken: Taken,
        /// Stop where this is set.
        cancel: Cancel,
        /// To be reported.
        ticket: Ticket,
    },
    /// Let go of pages.
    Release {
        /// Whose they are.
        owner: Uid,
        /// Which.
        taken: Taken,
        /// To be reported.
        ticket: Ticket,
    },
    /// Do something else that can take for ever.
    Errand(Uid, Errand),
    /// Report this.
    Report(Uid, Ticket),
}

/// Something that the worker has done.
#[derive(Debug)]
pub enum Done {
    /// [`Job::Acquire`]; the fd is closed.
    Acquired {
        /// As in the job.
        ticket: Ticket,
        /// What came of it.
        outcome: Result<Taken, UserFault>,
    },
    /// [`Job::Locate`].
    Located {
        /// Which, as in the job.
        taken: Taken,
        /// As in the job.
        ticket: Ticket,
        /// Where they are, or the errno. Anything where it was cancelled.
        outcome: Result<Extents, i32>,
    },
    /// [`Job::Release`].
    Released {
        /// As in the job.
        ticket: Ticket,
        /// Where nothing is now; `None` where something had to be left.
        window: Option<Span>,
    },
    /// [`Job::Report`].
    Over(Ticket),
}

struct Acquiring {
    owner: Uid,
    cancel: Cancel,
    pages: PageCount,
    window: Span,
    state: State,
}

enum State {
    Running,
    Over(Result<Taken, UserFault>),
    /// Nobody will ask.
    Abandoned,
}

struct Set {
    owner: Uid,
    sharing: Sharing,
    place: Place,
}

/// What is known of where a set's pages lie.
enum Place {
    Unknown,
    Asked {
        ticket: Ticket,
        cancel: Cancel,
    },
    Known(Extents),
    /// Told once.
    Failed(NotReady),
}

/// How a release goes on.
#[derive(Debug, Eq, PartialEq)]
pub enum Release {
    /// There was nothing to release.
    Nothing,
    /// These pages, which are private and of which the books know nothing any more, are to be unmapped,
    /// and then given to [`Books::unmapped`].
    Unmap(Span),
    /// The worker is at it, and this is reported.
    Wait(Ticket),
}

/// The books.
pub struct Books {
    acquiring: BTreeMap<Ticket, Acquiring>,
    /// By the first page of the daemon's mapping.
    sets: BTreeMap<u64, Set>,
    /// Where nothing is of the daemon's addresses for clients' pages.
    free: FreeMap,
    tickets: u64,
    jobs: Vec<Job>,
}

impl Default for Books {
    fn default() -> Self {
        let mut free = FreeMap::default();
        // Behind the anchor.
        free.put(WINDOWS.first + 1, WINDOWS.pages - 1, ALL);
        Self {
            acquiring: BTreeMap::new(),
            sets: BTreeMap::new(),
            free,
            tickets: 0,
            jobs: Vec::new(),
        }
    }
}

/// Free places are joined wherever they touch.
const ALL: (u64, u64) = (0, u64::MAX);

impl Books {
    /// What there is to do now.
    pub fn take_jobs(&mut self) -> impl Iterator<Item = Job> + '_ {
        self.jobs.drain(..)
    }

    fn new_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(FIRST_TICKET | self.tickets)
    }

    /// Begins to take over pages of the address space behind the fd `space`; `None` where there is no
    /// place for them.
    pub fn acquire(&mut self, owner: Uid, space: usize, range: UserRange) -> Option<Ticket> {
        let pages = range.pages();
        let window = Span {
            first: self.free.take(pages.get())?,
            pages: pages.get(),
        };
        let ticket = self.new_ticket();
        let cancel = Cancel::default();
        self.acquiring.insert(
            ticket,
            Acquiring {
                owner,
                cancel: cancel.clone(),
                pages,
                window,
                state: State::Running,
            },
        );
        self.jobs.push(Job::Acquire {
            owner,
            space,
            source: range.start(),
            window,
            cancel,
            ticket,
        });
        Some(ticket)
    }

    /// What came of it, once.
    pub fn acquired(&mut self, ticket: Ticket) -> Option<Result<UserSet, UserFault>> {
        let over = |acquiring: &Acquiring| matches!(acquiring.state, State::Over(_));
        if !self.acquiring.get(&ticket).is_some_and(over) {
            return None;
        }
        let acquiring = self.acquiring.remove(&ticket)?;
        let State::Over(outcome) = acquiring.state else {
            return None;
        };
        Some(outcome.map(|taken| {
            let set = Set {
                owner: acquiring.owner,
                sharing: taken.sharing,
                place: Place::Unknown,
            };
            self.sets.insert(taken.window.first, set);
            UserSet::new(taken.window.first, acquiring.pages)
        }))
    }

    /// Nobody will ask what came of it. The ticket is reported when nothing of it is left.
    pub fn abandon(&mut self, ticket: Ticket) {
        let Some(acquiring) = self.acquiring.get_mut(&ticket) else {
            return;
        };
        let owner = acquiring.owner;
        match core::mem::replace(&mut acquiring.state, State::Abandoned) {
            State::Running => acquiring.cancel.set(),
            State::Over(outcome) => {
                self.acquiring.remove(&ticket);
                self.jobs.push(undo(owner, outcome, ticket));
            }
            State::Abandoned => {}
        }
    }

    /// Nobody will ask for anything any more: what is under way is undone.
    pub fn abandon_all(&mut self) {
        let tickets: Vec<Ticket> = self.acquiring.keys().copied().collect();
        for ticket in tickets {
            self.abandon(ticket);
        }
    }

    /// Has something done in this user's turn.
    pub fn elsewhere(&mut self, owner: Uid, errand: Errand) {
        self.jobs.push(Job::Errand(owner, errand));
    }

    /// Where the daemon has mapped a set.
    pub fn window(&self, set: &UserSet) -> Option<Span> {
        self.sets.get(&set.key())?;
        Some(span_of(set))
    }

    /// Where its pages lie, or what to wait for.
    ///
    /// # Errors
    ///
    /// See [`NotReady`].
    pub fn locate(&mut self, set: &UserSet) -> Result<Extents, NotReady> {
        let failed = NotReady::Refused(PlatformError::Failed);
        let known = self.sets.get_mut(&set.key()).ok_or(failed)?;
        match &known.place {
            Place::Known(extents) => return Ok(extents.clone()),
            Place::Asked { ticket, .. } => return Err(NotReady::Wait(*ticket)),
            &Place::Failed(reason) => {
                known.place = Place::Unknown;
                return Err(reason);
            }
            Place::Unknown => {}
        }
        self.tickets += 1;
        let ticket = Ticket(FIRST_TICKET | self.tickets);
        let cancel = Cancel::default();
        known.place = Place::Asked {
            ticket,
            cancel: cancel.clone(),
        };
        let taken = Taken {
            window: span_of(set),
            sharing: known.sharing,
        };
        self.jobs.push(Job::Locate {
            owner: known.owner,
            taken,
            cancel,
            ticket,
        });
        Err(NotReady::Wait(ticket))
    }

    /// Lets go of a set. One that did not come from here is left alone. Whoever looks for its pages
    /// yet finds something else or nothing, and is not listened to.
    pub fn release(&mut self, set: &UserSet) -> Release {
        let Some(known) = self.sets.remove(&set.key()) else {
            return Release::Nothing;
        };
        if let Place::Asked { cancel, .. } = &known.place {
            cancel.set();
        }
        let window = span_of(set);
        if known.sharing == Sharing::Private && window.pages <= AT_ONCE {
            return Release::Unmap(window);
        }
        let ticket = self.new_ticket();
        let taken = Taken {
            window,
            sharing: known.sharing,
        };
        self.jobs.push(Job::Release {
            owner: known.owner,
            taken,
            ticket,
        });
        Release::Wait(ticket)
    }

    /// Nothing is there any more.
    pub fn unmapped(&mut self, window: Span) {
        self.free.put(window.first, window.pages, ALL);
    }

    /// Takes in what the worker has done; the ticket that is finished by it.
    pub fn finish(&mut self, done: Done) -> Option<Ticket> {
        match done {
            Done::Acquired { ticket, outcome } => {
                let acquiring = self.acquiring.get_mut(&ticket)?;
                let window = acquiring.window;
                let job = match acquiring.state {
                    State::Abandoned => Some(undo(acquiring.owner, outcome, ticket)),
                    _ => {
                        acquiring.state = State::Over(outcome);
                        None
                    }
                };
                if outcome.is_err() {
                    self.unmapped(window);
                }
                let Some(job) = job else {
                    return Some(ticket);
                };
                self.acquiring.remove(&ticket);
                // A report would come at once.
                if !matches!(job, Job::Report(..)) {
                    self.jobs.push(job);
                    return None;
                }
                Some(ticket)
            }
            Done::Located {
                taken,
                ticket,
                outcome,
            } => {
                let is_asked = |set: &&mut Set| matches!(set.place, Place::Asked { ticket: asked, .. } if asked == ticket);
                let set = self.sets.get_mut(&taken.window.first);
                if let Some(set) = set.filter(is_asked) {
                    set.place = match outcome {
                        Ok(extents) => Place::Known(extents),
                        Err(ENOMEM) => Place::Failed(NotReady::OutOfMemory),
                        Err(_) => Place::Failed(NotReady::Refused(PlatformError::Failed)),
                    };
                }
                Some(ticket)
            }
            Done::Released { ticket, window } => {
                if let Some(window) = window {
                    self.unmapped(window);
                }
                Some(ticket)
            }
            Done::Over(ticket) => Some(ticket),
        }
    }
}

/// What is to be done with what nobody asked for.
fn undo(owner: Uid, outcome: Result<Taken, UserFault>, ticket: Ticket) -> Job {
    match outcome {
        Ok(taken) => Job::Release {
            owner,
            taken,
            ticket,
        },
        Err(_) => Job::Report(owner, ticket),
    }
}

/// The pages of a set.
fn span_of(set: &UserSet) -> Span {
    Span {
        first: set.key(),
        pages: set.pages().get(),
    }
}

#[cfg(test)]
mod tests;
