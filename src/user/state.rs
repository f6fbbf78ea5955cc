//! The life of an object of a client's own pages, as a state machine.
//!
//! ```text
//!              pages are there          the client maps them
//!   Acquiring ────────────────▶ Taken ────────────────────▶ Held
//!    │     ▲                      │                           │
//!    │     │ registered again     │ given up                  │ unmapped, given up
//!    │     └──────────────────────┼───────────────┐           │
//!    │ came to nothing            ▼               │           │
//!    └────────────────────────▶ Revoked ◀─────────┼───────────┘
//!                                 └───────────────┘
//! ```
//!
//! This module owns the state, the user set that goes with it, and the sequence number, which
//! changes whenever pages begin to be taken over and whenever they are given back: whoever began
//! something with the object compares it afterwards, so that what comes late does nothing. It
//! calls nobody: clearing bindings, releasing pages and paying for them is the device's.

use super::{UserAddr, UserSet};
use crate::ids::OpenId;
use crate::ledger::AccountKey;
use crate::units::{Handle, PageCount, Pid};

/// Who registered a range, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Registrar {
    /// Through which open. Without a handle of this open on it, the object has no pages.
    pub(crate) open: OpenId,
    /// Which process: no other maps or binds the pages.
    pub(crate) pid: Pid,
    /// Who pays while there are pages.
    pub(crate) account: AccountKey,
}

/// Where the pages are in their life.
#[derive(Debug)]
enum State {
    /// The platform is at it, or is undoing it.
    Acquiring,
    /// The daemon has them, the client has not mapped them again.
    Taken(UserSet),
    /// The client maps them, and devices may use them.
    Held(UserSet),
    /// They are the client's alone.
    Revoked,
}

/// An object's own pages' counterpart: pages of a client's.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) registrar: Registrar,
    pub(crate) pages: PageCount,
    /// Devices may only read them. The client itself may write, as on Linux.
    pub(crate) read_only: bool,
    /// The registrar's handle; `None` before it is published.
    pub(crate) handle: Option<Handle>,
    /// By what the range is to be claimed, as long as it has not been.
    pub(crate) unclaimed: Option<UserAddr>,
    /// Whether the registrar is charged for the pages.
    pub(crate) charged: bool,
    sequence: u64,
    state: State,
}

impl User {
    /// A range that begins to be taken over, and is charged for.
    pub(crate) fn new(
        registrar: Registrar,
        start: UserAddr,
        pages: PageCount,
        read_only: bool,
    ) -> Self {
        Self {
            registrar,
            pages,
            read_only,
            handle: None,
            unclaimed: Some(start),
            charged: true,
            sequence: 1,
            state: State::Acquiring,
        }
    }

    /// Changes with every acquisition and every revocation.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether the platform is at it.
    pub(crate) fn is_acquiring(&self) -> bool {
        matches!(self.state, State::Acquiring)
    }

    /// Whether the platform is at this very acquisition.
    pub(crate) fn is_acquiring_as(&self, sequence: u64) -> bool {
        self.is_acquiring() && self.sequence == sequence
    }

    /// The pages that wait for the client to map them again.
    pub(crate) fn taken(&self) -> Option<&UserSet> {
        match &self.state {
            State::Taken(set) => Some(set),
            _ => None,
        }
    }

    /// The pages that devices may use.
    pub(crate) fn held(&self) -> Option<&UserSet> {
        match &self.state {
            State::Held(set) => Some(set),
            _ => None,
        }
    }

    /// Whether there is anything to give back.
    pub(crate) fn has_pages(&self) -> bool {
        matches!(self.state, State::Taken(_) | State::Held(_))
    }

    /// Whether the pages are the client's alone.
    pub(crate) fn is_revoked(&self) -> bool {
        matches!(self.state, State::Revoked)
    }

    /// Revoked → Acquiring. `false`, and no change, in any other state.
    pub(crate) fn acquire_again(&mut self) -> bool {
        if !self.is_revoked() {
            return false;
        }
        self.sequence += 1;
        self.state = State::Acquiring;
        true
    }

    /// Acquiring → Taken, for the acquisition of this number; otherwise the set comes back.
    pub(crate) fn take(&mut self, sequence: u64, set: UserSet) -> Result<(), UserSet> {
        if !self.is_acquiring_as(sequence) || set.pages() != self.pages {
            return Err(set);
        }
        self.state = State::Taken(set);
        Ok(())
    }

    /// Acquiring → Revoked, for the acquisition of this number. Whether it was that one.
    pub(crate) fn fail(&mut self, sequence: u64) -> bool {
        let fails = self.is_acquiring_as(sequence);
        if fails {
            self.sequence += 1;
            self.state = State::Revoked;
        }
        fails
    }

    /// Taken → Held. Any other state stays.
    pub(crate) fn hold(&mut self) {
        self.state = match core::mem::replace(&mut self.state, State::Revoked) {
            State::Taken(set) => State::Held(set),
            other => other,
        };
    }

    /// Taken, Held → Revoked, with what is to be released. Any other state stays.
    pub(crate) fn revoke(&mut self) -> Option<UserSet> {
        match core::mem::replace(&mut self.state, State::Revoked) {
            State::Taken(set) | State::Held(set) => {
                self.sequence += 1;
                Some(set)
            }
            other => {
                self.state = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Limits};
    use crate::slots::Slots;
    use crate::units::Uid;

    const PAGES: PageCount = match PageCount::new(3) {
        Some(pages) => pages,
        None => PageCount::ZERO,
    };

    fn user() -> User {
        let mut ledger = Ledger::new(Limits::for_memory(PageCount::MAX));
        let registrar = Registrar {
            open: OpenId(Slots::new().insert(()).unwrap()),
            pid: Pid(7),
            account: ledger.charge_open(Uid(1)).unwrap(),
        };
        User::new(registrar, UserAddr::new(0x1000), PAGES, false)
    }

    fn set(key: u64) -> UserSet {
        UserSet::new(key, PAGES)
    }

    #[test]
    fn pages_come_are_held_and_go_back() {
        let mut user = user();
        assert!(user.is_acquiring() && user.taken().is_none() && user.held().is_none());
        user.hold();
        assert!(user.is_acquiring(), "there is nothing to hold yet");
        assert_eq!(user.revoke(), None, "nor to give back");
        user.take(1, set(5)).unwrap();
        assert_eq!(user.taken(), Some(&set(5)));
        assert!(!user.acquire_again());
        user.hold();
        assert_eq!((user.taken(), user.held()), (None, Some(&set(5))));
        assert_eq!(user.sequence(), 1);
        assert_eq!(user.revoke(), Some(set(5)));
        assert!(user.is_revoked() && user.held().is_none());
        assert_eq!(user.revoke(), None);
        assert_eq!(user.sequence(), 2);
        assert!(user.acquire_again());
        assert!(user.is_acquiring_as(3));
        user.take(3, set(6)).unwrap();
        assert_eq!(user.revoke(), Some(set(6)), "before it was mapped");
    }

    #[test]
    fn what_comes_late_does_nothing() {
        let mut user = user();
        assert!(!user.fail(0));
        assert!(user.fail(1));
        assert!(user.is_revoked());
        assert_eq!(user.take(1, set(1)), Err(set(1)));
        assert!(user.acquire_again());
        assert!(!user.acquire_again());
        assert_eq!(user.take(1, set(1)), Err(set(1)));
        assert!(!user.fail(1));
        let odd = UserSet::new(9, PageCount::ZERO);
        assert_eq!(
            user.take(user.sequence(), odd).map_err(|set| set.key()),
            Err(9)
        );
        assert!(user.is_acquiring());
    }
}
