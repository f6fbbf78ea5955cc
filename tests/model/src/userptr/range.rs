//! A range as the model sees it.

use gem::space::Place;
use gem::units::Handle;
use gem::{Acquisition, Claim};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Acquiring,
    Taken,
    Held,
    Revoked,
}

/// A range as the model sees it.
pub struct Range {
    pub open: usize,
    pub claim: Claim,
    pub state: State,
    pub epoch: u64,
    pub acquisition: Acquisition,
    pub forgotten: bool,
    /// The registrar has a handle, visible or not.
    pub registrar: bool,
    /// The visible one.
    pub handle: Option<Handle>,
    /// The handle that it was claimed with, for as long as events tell of it; and the offset.
    pub claimed: Option<(Handle, u64)>,
    pub shares: Vec<(usize, Handle)>,
    pub set: u64,
    pub mapped: u64,
    pub bindings: Vec<Place>,
}

impl Range {
    pub fn pages(&self) -> u64 {
        self.claim.range.pages().get()
    }

    /// The visible handles that an open has.
    pub fn handles_of(&self, open: usize) -> impl Iterator<Item = Handle> {
        let own = self.handle.filter(|_| open == self.open);
        let shares = self
            .shares
            .iter()
            .filter(move |(sharer, _)| *sharer == open);
        own.into_iter().chain(shares.map(|(_, handle)| *handle))
    }

    pub fn is_charged(&self) -> bool {
        self.state != State::Revoked || self.mapped > 0
    }

    pub fn exists(&self) -> bool {
        self.registrar
            || !self.shares.is_empty()
            || self.mapped > 0
            || self.state == State::Acquiring
    }

    pub fn give_back(&mut self) {
        if matches!(self.state, State::Taken | State::Held) {
            self.state = State::Revoked;
            self.epoch += 1;
            self.bindings.clear();
        }
    }
}
