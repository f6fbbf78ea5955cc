//! Where clients' own pages come from: the part of the border with a platform that takes them over.

use super::{UserFault, UserRange, UserSet};
use crate::pages::Ticket;
use crate::units::Uid;

/// An fd of the daemon's own that a client has sent as its address space. It can be anything: to
/// find out is the platform's business, and so is closing it, which may block or, on the socket's
/// thread, wait for that very thread. Given to [`UserSource::acquire`] or [`UserSource::discard`].
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a space that is dropped stays open: give it to UserSource::discard"]
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
        let _ = range;
        self.discard(owner, space);
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

    /// Closes a space that nothing was acquired from, or any other fd that a client has sent: off
    /// the socket's thread, and in its sender's turn, for it can take for ever.
    fn discard(&mut self, owner: Uid, space: SpaceFd) {
        let _ = (owner, space);
    }
}
