//! Where clients' own pages come from: the part of the border with a platform that takes them over.

use alloc::boxed::Box;
use core::fmt;

use super::{UserFault, UserRange, UserSet};
use crate::pages::Ticket;
use crate::units::Uid;

/// An fd of the daemon's own that a client has sent as its address space. It can be anything: to
/// find out is the platform's business, and so is closing it, which may block or, on the socket's
/// thread, wait for that very thread. Given to [`UserSource::acquire`].
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a space that is dropped stays open: give it to UserSource::acquire"]
pub struct SpaceFd(usize);

impl SpaceFd {
    /// The fd of this number, which nobody else uses.
    pub const fn new(number: usize) -> Self {
        Self(number)
    }

    /// The fd's number, for the platform to use and to close.
    pub const fn into_raw(self) -> usize {
        self.0
    }
}

/// Something to be done off the socket's thread, because it can take for ever or wait for that
/// very thread.
pub struct Errand(Box<dyn FnOnce() + Send>);

impl Errand {
    /// Does this.
    pub fn new(act: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(act))
    }

    /// Does it now.
    pub fn run(self) {
        (self.0)();
    }
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errand")
    }
}

/// What takes clients' own pages over. Implemented by a platform's page source, called from the
/// socket's thread only: no method may block on a client. A source that takes none over needs none
/// of the methods, and no client can register a range.
pub trait UserSource {
    /// Whether clients' pages can be taken over on this machine. Does not change.
    fn takes_user_pages(&self) -> bool {
        false
    }

    /// Begins to take over the pages of `range` in the address space behind `space`. The ticket is
    /// reported as finished when [`UserSource::acquired`] has the outcome. The space is the
    /// platform's from here on, also where this refuses; it is closed before the outcome is there.
    ///
    /// # Errors
    ///
    /// What can be said at once.
    fn acquire(
        &mut self,
        owner: Uid,
        space: SpaceFd,
        range: UserRange,
    ) -> Result<Ticket, UserFault> {
        let _ = (owner, space, range);
        Err(UserFault::Unsupported)
    }

    /// The outcome of an acquisition, given once; `None` while it is not there. An error has left
    /// the client's memory as it was.
    fn acquired(&mut self, ticket: Ticket) -> Option<Result<UserSet, UserFault>> {
        let _ = ticket;
        None
    }

    /// Nobody will ask for this acquisition's outcome. Whatever comes of it is undone, and before
    /// the address space's fd is closed the pages are back where they were. When nothing of it is
    /// left the ticket is reported as finished, once more where it had been already; until then
    /// the owner is charged, and where a worker hangs, for good.
    fn abandon(&mut self, ticket: Ticket) {
        let _ = ticket;
    }

    /// Has this done by another thread, in this user's turn. A platform on which nothing can wait
    /// for the socket's thread may do it at once.
    fn elsewhere(&mut self, owner: Uid, errand: Errand) {
        let _ = owner;
        errand.run();
    }
}
