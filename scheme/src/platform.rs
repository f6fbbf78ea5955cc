//! What the daemon needs of the machine it runs on.

use alloc::vec::Vec;

use gem::pages::{PageSource, Ticket};
use gem::units::{Identity, Pid, Uid};
use gem::user::{UserFault, UserRange, UserSet};

/// An fd of the daemon's own that a client has sent as its address space. It can be anything: to
/// find out is the platform's business, and so is closing it, which may block or, on the socket's
/// thread, wait for that very thread. Given to [`Platform::acquire`] or [`Platform::discard`].
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a space that is dropped stays open: give it to Platform::discard"]
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

/// The machine under the server: pages, and who is who. Implemented once for Linux (by the
/// program, over `hosted`) and once for Redox. Called from the socket's thread only; nothing in it
/// may block on a client.
pub trait Platform {
    /// Where pages come from.
    type Pages: PageSource;

    /// The credentials of process `pid`, or `None` where it is gone.
    fn identity(&mut self, pid: Pid) -> Option<Identity>;

    /// Adds to `tickets` what `pages` has finished since the last call. The platform promises a
    /// [`crate::sqe::KICK`] call after each time there is something to fetch, and every now and
    /// then while clients have memory, so that the server looks how much the machine has left.
    fn finished(&mut self, pages: &mut Self::Pages, tickets: &mut Vec<Ticket>);

    // What follows is about clients' own pages. A platform that does not take them over needs
    // none of it, and no client can register a range.

    /// Whether clients' pages can be taken over on this machine. Does not change.
    fn takes_user_pages(&self) -> bool {
        false
    }

    /// Begins to take over the pages of `range` in the address space behind `space`. The ticket is
    /// reported as finished when [`Platform::acquired`] has the outcome. The space is the
    /// platform's from here on, also where this refuses; it is closed before the outcome is there.
    ///
    /// # Errors
    ///
    /// What can be said at once.
    fn acquire(
        &mut self,
        pages: &mut Self::Pages,
        owner: Uid,
        space: SpaceFd,
        range: UserRange,
    ) -> Result<Ticket, UserFault> {
        let _ = range;
        self.discard(pages, owner, space);
        Err(UserFault::Unsupported)
    }

    /// The outcome of an acquisition, given once; `None` while it is not there. An error has left
    /// the client's memory as it was.
    fn acquired(
        &mut self,
        pages: &mut Self::Pages,
        ticket: Ticket,
    ) -> Option<Result<UserSet, UserFault>> {
        let _ = (pages, ticket);
        None
    }

    /// Nobody will ask for this acquisition's outcome. Whatever comes of it is undone, and before
    /// the address space's fd is closed the pages are back where they were. When nothing of it is
    /// left the ticket is reported as finished, once more where it had been already; until then
    /// the owner is charged, and where a worker hangs, for good.
    fn abandon(&mut self, pages: &mut Self::Pages, ticket: Ticket) {
        let _ = (pages, ticket);
    }

    /// Closes a space that nothing was acquired from, or any other fd that a client has sent: off
    /// the socket's thread, and in its sender's turn, for it can take for ever.
    fn discard(&mut self, pages: &mut Self::Pages, owner: Uid, space: SpaceFd) {
        let _ = (pages, owner, space);
    }
}
