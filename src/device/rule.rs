//! What root does: other limits while clients are there, and the end of an open that its client
//! does not close. Who may ask for that is the server's to decide.

use super::Device;
use crate::driver::Driver;
use crate::error::Error;
use crate::ids::OpenId;
use crate::ledger::{Limits, MAX_OBJECT_PAGES};
use crate::open::Open;
use crate::pages::PageSource;
use crate::units::PageCount;

impl<S: PageSource, D: Driver> Device<S, D> {
    /// How much clients may have.
    pub fn limits(&self) -> &Limits {
        self.ledger.limits()
    }

    /// Other limits from now on. What is there already stays, even beyond them; only what is new
    /// is refused. The space of fake offsets is as large as it was, and an object never larger
    /// than fits an answer ([`MAX_OBJECT_PAGES`]).
    pub fn set_limits(&mut self, limits: Limits) {
        let offset_space = self.ledger.limits().offset_space;
        self.ledger.set_limits(Limits {
            offset_space,
            ..possible(limits)
        });
        // More may be to be kept free than there is.
        let _ = self.relieve();
    }

    /// Takes everything from an open but what only its client can give back: its handles are
    /// closed, and with them names and whatever nothing else holds; it is master no more; new
    /// things are refused (ENODEV). What is mapped through it stays mapped, counted and charged
    /// until it is unmapped or the open is closed: the kernel takes no mapping from a client, and
    /// pages that somebody can see must not become somebody else's. Object fds made through it
    /// live on, as they do when an open is closed. It is told nothing more. Revoking again changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOpen`] (EBADF).
    pub fn revoke(&mut self, open: OpenId) -> Result<(), Error> {
        let state = self.opens.get_mut(open.0).ok_or(Error::NoSuchOpen)?;
        state.revoked = true;
        state.authenticated = false;
        state.was_master = false;
        state.inbox.clear(&self.board);
        if let Some(magic) = state.magic.take() {
            self.magics.remove(&magic);
        }
        self.abdicate(open);
        self.close_handles(open);
        Ok(())
    }

    /// Whether the open was revoked.
    pub fn is_revoked(&self, open: OpenId) -> bool {
        self.opens.get(open.0).is_some_and(|state| state.revoked)
    }

    /// The open, if it may still do something.
    pub(super) fn active(&mut self, open: OpenId) -> Result<&mut Open, Error> {
        let state = self.opens.get_mut(open.0).ok_or(Error::NoSuchOpen)?;
        if state.revoked {
            return Err(Error::Revoked);
        }
        Ok(state)
    }
}

/// These limits, where an object is never larger than fits an answer.
pub(super) fn possible(mut limits: Limits) -> Limits {
    let most = PageCount::new(MAX_OBJECT_PAGES).unwrap_or(limits.object);
    limits.object = limits.object.min(most);
    limits
}
