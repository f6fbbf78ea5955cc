//! What the daemon needs of the machine it runs on.

use alloc::vec::Vec;

use gem::pages::{PageSource, Ticket};
use gem::units::{Identity, Pid};
use gem::user::UserSource;

/// The machine under the server: pages, and who is who. Implemented once for Linux (by the
/// program, over `hosted`) and once for Redox. Called from the socket's thread only; nothing in it
/// may block on a client.
pub trait Platform {
    /// Where pages come from, those of clients themselves included.
    type Pages: PageSource + UserSource;

    /// The credentials of process `pid`, or `None` where it is gone.
    fn identity(&mut self, pid: Pid) -> Option<Identity>;

    /// Adds to `tickets` what `pages` has finished since the last call. The platform promises a
    /// [`crate::sqe::KICK`] call after each time there is something to fetch, and every now and
    /// then while clients have memory, so that the server looks how much the machine has left.
    fn finished(&mut self, pages: &mut Self::Pages, tickets: &mut Vec<Ticket>);
}
