//! Pages are registered: taken over by the platform, claimed by their client, and taken again.

use gem::units::{Pid, Uid};
use gem::user::{UserAddr, UserRange};
use gem::{Claim, Counted, Error, LedgerError};

use super::range::{Range, State};
use super::{MOST_PAGES, MOST_RANGES, Run, pages, pid, uid};
use crate::world::Mood;

impl Run {
    pub(super) fn charged(&self, of: Uid) -> (u64, u32) {
        let own = self
            .ranges
            .iter()
            .filter(|range| range.is_charged() && uid(range.open) == of);
        own.fold((0, 0), |(pages, count), range| {
            (pages + range.pages(), count + 1)
        })
    }

    fn over_limit(&self, open: usize, more: u64) -> Option<Error> {
        let uid = uid(open);
        let (have, count) = self.charged(uid);
        if have + more > MOST_PAGES {
            Some(LedgerError::UserPages(uid, pages(MOST_PAGES)).into())
        } else if count >= MOST_RANGES {
            let what = Counted::UserRanges;
            Some(LedgerError::Count(uid, what, MOST_RANGES).into())
        } else {
            None
        }
    }

    pub(super) fn begin(
        &mut self,
        open: usize,
        start: u64,
        count: u64,
        read_only: bool,
        mood: Mood,
    ) {
        let Some(id) = self.id(open) else { return };
        let start = UserAddr::new(start << 20);
        let range = UserRange::new(start, pages(count)).unwrap();
        let claim = Claim { range, read_only };
        let twice = self.ranges.iter().any(|range| {
            let unclaimed = range.registrar && range.handle.is_none();
            range.open == open && unclaimed && range.claim.range.start() == start
        });
        let fails = matches!(mood, Mood::HandleFails | Mood::InitFails);
        let expected = if self.revoked.contains(&open) {
            Some(Error::Revoked)
        } else if twice {
            Some(Error::InUse)
        } else {
            self.over_limit(open, count)
                .or(fails.then_some(Error::OutOfMemory))
        };
        let begun = self.moody(mood, |device| device.begin_userptr(id, pid(open), claim));
        match begun {
            Err(error) => assert_eq!(Some(error), expected),
            Ok(acquisition) => {
                assert_eq!(expected, None);
                self.ranges.push(Range {
                    open,
                    claim,
                    state: State::Acquiring,
                    epoch: 0,
                    acquisition,
                    forgotten: false,
                    registrar: true,
                    handle: None,
                    claimed: None,
                    shares: Vec::new(),
                    set: 0,
                    mapped: 0,
                    bindings: Vec::new(),
                });
            }
        }
    }

    pub(super) fn finish(&mut self, range: usize, fine: bool) {
        let range = &mut self.ranges[range];
        if range.state != State::Acquiring {
            assert!(!self.device.is_userptr_wanted(range.acquisition));
            // Late news change nothing.
            self.device.fail_userptr(range.acquisition);
            return;
        }
        let wanted = self.device.is_userptr_wanted(range.acquisition);
        assert_eq!(wanted, range.registrar);
        if fine && !range.forgotten {
            let (owner, pages) = (uid(range.open), range.claim.range.pages());
            let set = self.world.0.borrow_mut().take(owner, pages);
            range.set = set.key();
            if !wanted {
                // The account may be gone with the last open; the set comes back all the same.
                self.device.take_userptr(range.acquisition, set);
                range.state = State::Revoked;
                return;
            }
            self.device.take_userptr(range.acquisition, set);
            range.state = State::Taken;
            return;
        }
        self.device.fail_userptr(range.acquisition);
        range.state = State::Revoked;
        range.epoch += 1;
        if range.handle.is_none() {
            range.registrar = false;
        }
    }

    pub(super) fn forget(&mut self, range: usize) {
        let range = &mut self.ranges[range];
        self.device.forget_userptr(range.acquisition);
        if range.state == State::Acquiring {
            range.forgotten = true;
            if range.handle.is_none() {
                range.registrar = false;
            }
        }
    }

    pub(super) fn claim(&mut self, range: usize, wrong: bool) {
        let range = &mut self.ranges[range];
        let Some(open) = self.opens[range.open] else {
            return;
        };
        let ready = range.registrar && range.handle.is_none() && range.state == State::Taken;
        if !ready {
            return;
        }
        let who = if wrong { Pid(1) } else { pid(range.open) };
        match self.device.claim_userptr(open, who, range.claim) {
            Ok((handle, offset)) => {
                assert!(!wrong);
                range.handle = Some(handle);
                range.claimed = Some((handle, offset.get()));
            }
            Err(error) => assert!(wrong && error == Error::NothingTaken),
        }
    }

    pub(super) fn again(&mut self, range: usize, stranger: bool) {
        let state = &self.ranges[range];
        let (Some(open), Some(handle)) = (self.id(state.open), state.handle) else {
            return;
        };
        let who = if stranger { Pid(1) } else { pid(state.open) };
        let expected = if stranger {
            Some(Error::NotOwner)
        } else if state.is_charged() {
            Some(Error::InUse)
        } else {
            self.over_limit(state.open, state.pages())
        };
        let start = UserAddr::new(0x7000_0000);
        let begun = self.device.begin_userptr_again(open, who, handle, start);
        let range = &mut self.ranges[range];
        match begun {
            Err(error) => assert_eq!(Some(error), expected),
            Ok((acquisition, taken)) => {
                assert_eq!(expected, None);
                assert_eq!(taken.pages().get(), range.pages());
                range.acquisition = acquisition;
                range.forgotten = false;
                range.state = State::Acquiring;
                range.epoch += 1;
            }
        }
    }
}
