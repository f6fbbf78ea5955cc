//! The state machine against a reference model: random registrations, mappings, unmappings, shares,
//! bindings, waiters and cancellations; after each step every count, every set that is out and
//! every page that a GPU finds are what the model says.

use std::collections::{BTreeMap, BTreeSet};

use gem::space::{Access, Place, SpaceId};
use gem::units::{Gid, GpuAddr, Handle, Identity, PAGE_SIZE, PageCount, Pid, Uid};
use gem::user::{UserAddr, UserRange};
use gem::{
    Acquisition, Claim, Config, Device, Error, LedgerError, Limits, Mapper, NameMode, Node, OpenId,
    Sequence,
};
use proptest::prelude::*;

use crate::world::{Gpu, Mood, SPACE_PAGES, Shared, frame};

const OPENS: usize = 4;
const MOST_PAGES: u64 = 20;
const MOST_RANGES: u32 = 4;

#[derive(Clone, Debug)]
enum Step {
    CloseOpen(usize),
    RevokeOpen(usize),
    Begin {
        open: usize,
        start: u64,
        pages: u64,
        read_only: bool,
        mood: u8,
    },
    Finish {
        range: usize,
        fine: bool,
    },
    Forget {
        range: usize,
    },
    Claim {
        range: usize,
        wrong: bool,
    },
    Map {
        range: usize,
        wrong: u8,
    },
    Unmap {
        range: usize,
        skip: u64,
        pages: u64,
    },
    CloseHandle {
        range: usize,
    },
    Share {
        range: usize,
        open: usize,
    },
    CloseShare {
        range: usize,
    },
    Again {
        range: usize,
        stranger: bool,
    },
    Bind {
        range: usize,
        space: u32,
        page: u64,
        mood: u8,
    },
    BindShare {
        range: usize,
    },
    Unbind {
        range: usize,
    },
    Wait {
        range: usize,
    },
    Wake {
        waiter: usize,
        page: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (open, range) = (0..OPENS, 0usize..6);
    let step = prop_oneof![
        1 => open.clone().prop_map(Step::CloseOpen),
        1 => open.clone().prop_map(Step::RevokeOpen),
        8 => (open.clone(), 0u64..4, 1u64..8, any::<bool>(), 0u8..10).prop_map(
            |(open, start, pages, read_only, mood)| Step::Begin { open, start, pages, read_only, mood }),
        9 => (range.clone(), prop::bool::weighted(0.8))
            .prop_map(|(range, fine)| Step::Finish { range, fine }),
        1 => range.clone().prop_map(|range| Step::Forget { range }),
        9 => (range.clone(), prop::bool::weighted(0.1))
            .prop_map(|(range, wrong)| Step::Claim { range, wrong }),
        9 => (range.clone(), 0u8..12).prop_map(|(range, wrong)| Step::Map { range, wrong }),
        5 => (range.clone(), 0u64..4, 1u64..9)
            .prop_map(|(range, skip, pages)| Step::Unmap { range, skip, pages }),
        2 => range.clone().prop_map(|range| Step::CloseHandle { range }),
        2 => (range.clone(), open).prop_map(|(range, open)| Step::Share { range, open }),
        1 => range.clone().prop_map(|range| Step::CloseShare { range }),
        4 => (range.clone(), prop::bool::weighted(0.1))
            .prop_map(|(range, stranger)| Step::Again { range, stranger }),
        6 => (range.clone(), 0u32..3, 0u64..66, 0u8..10)
            .prop_map(|(range, space, page, mood)| Step::Bind { range, space, page, mood }),
        1 => range.clone().prop_map(|range| Step::BindShare { range }),
        2 => range.clone().prop_map(|range| Step::Unbind { range }),
        3 => range.prop_map(|range| Step::Wait { range }),
        3 => (0usize..8, 0u64..60).prop_map(|(waiter, page)| Step::Wake { waiter, page }),
    ];
    proptest::collection::vec(step, 1..200)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Acquiring,
    Taken,
    Held,
    Revoked,
}

/// A range as the model sees it.
struct Range {
    open: usize,
    claim: Claim,
    state: State,
    epoch: u64,
    acquisition: Acquisition,
    forgotten: bool,
    /// The registrar has a handle, visible or not.
    registrar: bool,
    /// The visible one, and the offset.
    handle: Option<(Handle, u64)>,
    shares: Vec<(usize, Handle)>,
    set: u64,
    mapped: u64,
    bindings: Vec<Place>,
}

impl Range {
    fn pages(&self) -> u64 {
        self.claim.range.pages().get()
    }

    fn is_charged(&self) -> bool {
        self.state != State::Revoked || self.mapped > 0
    }

    fn exists(&self) -> bool {
        self.registrar
            || !self.shares.is_empty()
            || self.mapped > 0
            || self.state == State::Acquiring
    }

    fn give_back(&mut self) {
        if matches!(self.state, State::Taken | State::Held) {
            self.state = State::Revoked;
            self.epoch += 1;
            self.bindings.clear();
        }
    }
}

struct Run {
    world: Shared,
    device: Device<Shared, Gpu>,
    opens: Vec<Option<OpenId>>,
    revoked: BTreeSet<usize>,
    ranges: Vec<Range>,
    waiters: Vec<(Acquisition, usize, Handle, Option<Sequence>, u64)>,
}

fn pages(pages: u64) -> PageCount {
    PageCount::new(pages).unwrap()
}

fn pid(open: usize) -> Pid {
    Pid(100 + open as u64)
}

fn uid(open: usize) -> Uid {
    Uid(open as u32 % 2)
}

impl Run {
    fn new() -> Self {
        let world = Shared::default();
        let mut limits = Limits::for_clients(pages(1000));
        limits.user_pages_per_uid = pages(MOST_PAGES);
        limits.user_ranges_per_uid = MOST_RANGES;
        let names = NameMode::Sequential;
        let mut device = Device::new(Config { limits, names }, world.clone(), Gpu::new(&world));
        let opens = (0..OPENS).map(|open| {
            let id = device.open(Node::Primary).unwrap();
            let (uid, gid, pid) = (uid(open), Gid(0), pid(open));
            device.bind(id, Identity { uid, gid, pid }).unwrap();
            Some(id)
        });
        let opens = opens.collect();
        Self {
            world,
            device,
            opens,
            revoked: BTreeSet::new(),
            ranges: Vec::new(),
            waiters: Vec::new(),
        }
    }

    fn nth(&self, range: usize) -> Option<usize> {
        (!self.ranges.is_empty()).then(|| range % self.ranges.len())
    }

    fn open(&self, open: usize) -> Option<OpenId> {
        self.opens[open]
    }

    fn mood(&self, mood: Mood) {
        self.world.0.borrow_mut().mood = mood;
    }

    /// What becomes of ranges when an open has no handles any more.
    fn drop_handles(&mut self, open: usize, mapped_too: bool) {
        for range in &mut self.ranges {
            range.shares.retain(|(sharer, _)| *sharer != open);
            if range.open == open {
                range.give_back();
                range.registrar = false;
                range.handle = None;
                if mapped_too {
                    range.mapped = 0;
                }
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::CloseOpen(open) => {
                if let Some(id) = self.opens[open].take() {
                    self.device.close(id);
                    self.drop_handles(open, true);
                }
            }
            Step::RevokeOpen(open) => {
                if let Some(id) = self.open(open) {
                    self.device.revoke(id).unwrap();
                    self.revoked.insert(open);
                    self.drop_handles(open, false);
                }
            }
            Step::Begin {
                open,
                start,
                pages,
                read_only,
                mood,
            } => {
                self.begin(open, start, pages, read_only, mood);
            }
            Step::Finish { range, fine } => self.finish(range, fine),
            Step::Forget { range } => self.forget(range),
            Step::Claim { range, wrong } => self.claim(range, wrong),
            Step::Map { range, wrong } => self.map(range, wrong),
            Step::Unmap { range, skip, pages } => self.unmap(range, skip, pages),
            Step::CloseHandle { range } => self.close_handle(range),
            Step::Share { range, open } => self.share(range, open),
            Step::CloseShare { range } => self.close_share(range),
            Step::Again { range, stranger } => self.again(range, stranger),
            Step::Bind {
                range,
                space,
                page,
                mood,
            } => {
                let mood = match mood {
                    0 => Mood::LocateWaits,
                    1 => Mood::InsertFails,
                    _ => Mood::Fine,
                };
                self.mood(mood);
                if let Some(range) = self.nth(range)
                    && let Some((handle, _)) = self.ranges[range].handle
                {
                    self.bind(range, handle, space, page, None, mood);
                }
                self.mood(Mood::Fine);
            }
            Step::BindShare { range } => self.bind_share(range),
            Step::Unbind { range } => self.unbind(range),
            Step::Wait { range } => {
                if let Some(range) = self.nth(range)
                    && let range = &self.ranges[range]
                    && let (Some((handle, _)), Some(open)) = (range.handle, self.open(range.open))
                {
                    let sequence = self.device.sequence(open, handle).unwrap();
                    let waiter = (range.acquisition, range.open, handle, sequence, range.epoch);
                    self.waiters.push(waiter);
                }
            }
            Step::Wake { waiter, page } => {
                if self.waiters.is_empty() {
                    return;
                }
                let waiter = self.waiters.swap_remove(waiter % self.waiters.len());
                let (_, open, handle, sequence, epoch) = waiter;
                let found = self.ranges.iter().position(|range| {
                    range.open == open && range.handle.is_some_and(|(own, _)| own == handle)
                });
                // Its handle may be another object's by now: the waiter's own business.
                if let Some(range) = found
                    && self.ranges[range].epoch >= epoch
                {
                    self.bind(range, handle, 0, page, Some((sequence, epoch)), Mood::Fine);
                }
            }
        }
    }

    fn charged(&self, of: Uid) -> (u64, u32) {
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
            let what = gem::Counted::UserRanges;
            Some(LedgerError::Count(uid, what, MOST_RANGES).into())
        } else {
            None
        }
    }

    fn begin(&mut self, open: usize, start: u64, count: u64, read_only: bool, mood: u8) {
        let Some(id) = self.open(open) else { return };
        let start = UserAddr::new(start << 20);
        let range = UserRange::new(start, pages(count)).unwrap();
        let claim = Claim { range, read_only };
        let twice = self.ranges.iter().any(|range| {
            let unclaimed = range.registrar && range.handle.is_none();
            range.open == open && unclaimed && range.claim.range.start() == start
        });
        let mood = [Mood::HandleFails, Mood::InitFails]
            .get(usize::from(mood))
            .copied();
        let expected = if self.revoked.contains(&open) {
            Some(Error::Revoked)
        } else if twice {
            Some(Error::InUse)
        } else {
            self.over_limit(open, count)
                .or(mood.map(|_| Error::OutOfMemory))
        };
        self.mood(mood.unwrap_or_default());
        let begun = self.device.begin_userptr(id, pid(open), claim);
        self.mood(Mood::Fine);
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
                    shares: Vec::new(),
                    set: 0,
                    mapped: 0,
                    bindings: Vec::new(),
                });
            }
        }
    }

    fn finish(&mut self, range: usize, fine: bool) {
        let Some(range) = self.nth(range) else { return };
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

    fn forget(&mut self, range: usize) {
        let Some(range) = self.nth(range) else { return };
        let range = &mut self.ranges[range];
        self.device.forget_userptr(range.acquisition);
        if range.state == State::Acquiring {
            range.forgotten = true;
            if range.handle.is_none() {
                range.registrar = false;
            }
        }
    }

    fn claim(&mut self, range: usize, wrong: bool) {
        let Some(range) = self.nth(range) else { return };
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
                range.handle = Some((handle, offset.get()));
            }
            Err(error) => assert!(wrong && error == Error::NothingTaken),
        }
    }

    fn map(&mut self, range: usize, wrong: u8) {
        let Some(range) = self.nth(range) else { return };
        let range = &mut self.ranges[range];
        let (Some(open), Some((handle, offset))) = (self.opens[range.open], range.handle) else {
            return;
        };
        let size = range.pages() * PAGE_SIZE;
        let taken = range.state == State::Taken;
        let told = self
            .device
            .map_offset(open, handle)
            .map(|offset| offset.get());
        assert_eq!(
            told,
            if taken {
                Ok(offset)
            } else {
                Err(Error::NotMappable)
            }
        );
        let (who, size) = match wrong {
            0 => (Pid(1), size),
            1 => (pid(range.open), size + 1),
            _ => (pid(range.open), size),
        };
        let expected = match wrong {
            _ if !taken => Some(Error::NotMappable),
            0 => Some(Error::NotMappable),
            1 => Some(Error::Range { offset, size }),
            _ => None,
        };
        let mapped = self.device.map_userptr(open, who, offset, size);
        assert_eq!(mapped.err(), expected);
        if expected.is_none() {
            range.state = State::Held;
            range.mapped = range.pages();
        }
    }

    fn unmap(&mut self, range: usize, skip: u64, count: u64) {
        let Some(range) = self.nth(range) else { return };
        let range = &mut self.ranges[range];
        let (Some(open), Some((_, offset))) = (self.opens[range.open], range.handle) else {
            return;
        };
        let skip = skip.min(range.pages() - 1);
        let count = count.min(range.pages() - skip);
        let at = offset + skip * PAGE_SIZE;
        let by = Some(pid(range.open));
        self.device
            .unmap_by(Mapper::Node(open), at, count * PAGE_SIZE, by);
        if range.state == State::Held {
            range.give_back();
        }
        range.mapped -= count.min(range.mapped);
    }

    fn close_handle(&mut self, range: usize) {
        let Some(range) = self.nth(range) else { return };
        let range = &mut self.ranges[range];
        let (Some(open), Some((handle, _))) = (self.opens[range.open], range.handle) else {
            return;
        };
        // One handle of two leaves the pages where they are.
        let others = range
            .shares
            .iter()
            .position(|(sharer, _)| *sharer == range.open);
        self.device.close_handle(open, handle).unwrap();
        match others {
            Some(other) => {
                let (_, handle) = range.shares.remove(other);
                let offset = range.handle.map_or(0, |(_, offset)| offset);
                range.handle = Some((handle, offset));
            }
            None => {
                range.give_back();
                range.registrar = false;
                range.handle = None;
            }
        }
    }

    fn share(&mut self, range: usize, open: usize) {
        let Some(range) = self.nth(range) else { return };
        let range = &mut self.ranges[range];
        let (Some(own), Some((handle, _))) = (self.opens[range.open], range.handle) else {
            return;
        };
        let Some(other) = self.opens[open].filter(|_| !self.revoked.contains(&open)) else {
            return;
        };
        let name = self.device.flink(own, handle).unwrap();
        let (theirs, size) = self.device.open_name(other, name).unwrap();
        assert_eq!(size.get(), range.pages());
        range.shares.push((open, theirs));
    }

    fn close_share(&mut self, range: usize) {
        let Some(range) = self.nth(range) else { return };
        let range = &mut self.ranges[range];
        if let Some((open, handle)) = range.shares.pop() {
            self.device
                .close_handle(self.opens[open].unwrap(), handle)
                .unwrap();
        }
    }

    fn again(&mut self, range: usize, stranger: bool) {
        let Some(range) = self.nth(range) else { return };
        let state = &self.ranges[range];
        let (Some(open), Some((handle, _))) = (self.opens[state.open], state.handle) else {
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

    fn bind(
        &mut self,
        range: usize,
        handle: Handle,
        space: u32,
        page: u64,
        since: Option<(Option<Sequence>, u64)>,
        mood: Mood,
    ) {
        let state = &self.ranges[range];
        let Some(open) = self.opens[state.open] else {
            return;
        };
        let place = Place {
            space: SpaceId(space),
            at: GpuAddr::new(page * PAGE_SIZE).unwrap(),
        };
        let end = page + state.pages();
        let overlaps = self.ranges.iter().any(|other| {
            other.bindings.iter().any(|bound| {
                let first = bound.at.get() / PAGE_SIZE;
                bound.space == place.space && first < end && page < first + other.pages()
            })
        });
        let late = since.is_some_and(|(_, epoch)| epoch != state.epoch);
        let expected = if state.state != State::Held || late {
            Err(Error::NotHeld)
        } else if space > 1 {
            Err(Error::NoSuchPlace)
        } else if end > SPACE_PAGES {
            Err(Error::BeyondGpu(pages(SPACE_PAGES)))
        } else if overlaps {
            Err(Error::InUse)
        } else {
            match mood {
                Mood::InsertFails => Err(Error::OutOfMemory),
                Mood::LocateWaits => Err(Error::NotReady(gem::pages::Ticket(2))),
                _ => Ok(()),
            }
        };
        let sequence = since.and_then(|(sequence, _)| sequence);
        let bound = self
            .device
            .vm_bind(open, pid(state.open), handle, place, sequence);
        assert_eq!(bound, expected);
        if bound.is_ok() {
            self.ranges[range].bindings.push(place);
        }
    }

    fn bind_share(&mut self, range: usize) {
        let Some(range) = self.nth(range) else { return };
        if let Some(&(open, handle)) = self.ranges[range].shares.last()
            && open != self.ranges[range].open
        {
            let at = GpuAddr::new(0).unwrap();
            let space = SpaceId(0);
            let place = Place { space, at };
            let id = self.opens[open].unwrap();
            let bound = self.device.vm_bind(id, pid(open), handle, place, None);
            assert_eq!(bound, Err(Error::NotOwner));
        }
    }

    fn unbind(&mut self, range: usize) {
        let Some(range) = self.nth(range) else { return };
        let range = &mut self.ranges[range];
        let (Some(open), Some((handle, _))) = (self.opens[range.open], range.handle) else {
            return;
        };
        if let Some(place) = range.bindings.pop() {
            self.device.vm_unbind(open, handle, place).unwrap();
            let twice = self.device.vm_unbind(open, handle, place);
            assert_eq!(twice, Err(Error::NoSuchPlace));
        }
    }

    fn check(&mut self) {
        self.ranges.retain(Range::exists);
        let stats = self.device.stats();
        let count = |test: &dyn Fn(&Range) -> u64| self.ranges.iter().map(test).sum::<u64>();
        let charged = count(&|range| if range.is_charged() { range.pages() } else { 0 });
        assert_eq!(stats.user_pages.get(), charged);
        assert_eq!(
            u64::from(stats.user_ranges),
            count(&|range| range.is_charged().into())
        );
        assert_eq!(stats.objects, self.ranges.len());
        assert_eq!(stats.offsets, self.ranges.len());
        let visible = count(&|range| range.shares.len() as u64 + u64::from(range.handle.is_some()));
        assert_eq!(stats.handles, visible);
        assert_eq!(stats.mapped.get(), count(&|range| range.mapped));
        assert_eq!(
            stats.bindings as u64,
            count(&|range| range.bindings.len() as u64)
        );
        assert_eq!(stats.memory, PageCount::ZERO);
        for user in [Uid(0), Uid(1)] {
            let account = self.device.accounts().find(|account| account.uid == user);
            let has = account.map_or((0, 0), |it| (it.user_pages.get(), it.user_ranges));
            assert_eq!(has, self.charged(user), "{user:?}");
        }
        let world = self.world.0.borrow();
        let reserved = count(&|range| (range.registrar && range.handle.is_none()).into());
        assert_eq!(world.handles, (visible + reserved) as i64);
        assert_eq!(world.objects, self.ranges.len() as i64);
        let out = self
            .ranges
            .iter()
            .filter(|range| matches!(range.state, State::Taken | State::Held));
        let out: BTreeMap<u64, Uid> = out.map(|range| (range.set, uid(range.open))).collect();
        assert_eq!(world.live, out);
        for (id, found) in world.gpu.iter().enumerate() {
            let mut expected = BTreeMap::new();
            for range in &self.ranges {
                let access = if range.claim.read_only {
                    Access::ReadOnly
                } else {
                    Access::ReadWrite
                };
                let places = range.bindings.iter().filter(|it| it.space.0 as usize == id);
                for place in places {
                    expected.extend((0..range.pages()).map(|page| {
                        (
                            place.at.get() + page * PAGE_SIZE,
                            (frame(range.set, page), access),
                        )
                    }));
                }
            }
            assert_eq!(*found, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn clients_own_pages_are_as_the_model_says(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
            run.check();
        }
        for open in 0..OPENS {
            run.step(&Step::CloseOpen(open));
            run.check();
        }
        for range in 0..run.ranges.len() {
            run.step(&Step::Finish { range, fine: range % 2 == 0 });
        }
        run.check();
        prop_assert_eq!(run.device.stats().objects, 0);
        prop_assert_eq!(run.device.accounts().count(), 0);
    }
}
