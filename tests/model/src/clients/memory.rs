//! Memory: buffers are made, said to be needed or not, worked on, and purged.

use std::collections::{BTreeMap, BTreeSet};

use gem::pages::Ticket;
use gem::units::{Handle, PAGE_SIZE, PageCount};
use gem::{Advice, CreateInfo, Device, Error, LedgerError, Pressure};

use super::thing::Thing;
use super::{Call, Run, objects, sized};
use crate::world::{Gpu, Mood, Shared};

impl Run<'_> {
    pub(super) fn create(&mut self, number: usize, size: u64, mood: Mood) {
        let Some((open, user)) = self.who(number) else {
            return;
        };
        let call = Call::Create { open: number, size };
        let result = self.ask(call, mood, sized, |device| {
            device.create(open, size, CreateInfo::default())
        });
        if self.revoked.contains(&number) {
            assert!(result.is_err(), "{result:?}");
            return;
        }
        let pages = size.div_ceil(PAGE_SIZE);
        let count = self.count_of(user, |_| true);
        if size == 0 || size.checked_next_multiple_of(PAGE_SIZE).is_none() {
            assert_eq!(result, Err(Error::ObjectSize(size)));
        } else if pages > self.limits.object.get() {
            let too_large = LedgerError::Object(self.limits.object);
            assert_eq!(result, Err(Error::Limit(too_large)));
        } else if count >= self.limits.objects_per_uid
            || self.is_full(number, user)
            || !self.has_room(user, pages)
        {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else if mood == Mood::Waits {
            assert_eq!(result, Err(Error::NotReady(Ticket(1))));
        } else if mood == Mood::OutOfMemory && self.finds_memory(pages) {
            assert_eq!(result, Err(Error::Unfinished));
        } else if mood == Mood::Scattered {
            let own = self.purgeable(Some(user));
            self.purge(pages, Some(user));
            let expected = if own > 0 {
                Error::Unfinished
            } else {
                Error::Scattered
            };
            assert_eq!(result, Err(expected));
        } else if !matches!(mood, Mood::Fine | Mood::InsertFails) {
            assert_eq!(result, Err(Error::OutOfMemory));
        } else {
            let handle = self.lowest_free(number);
            let expected = (Handle::new(handle).unwrap(), PageCount::new(pages).unwrap());
            assert_eq!(result, Ok(expected));
            let numbers = objects(&self.device).map(|object| object.number);
            self.things.push(Thing {
                number: numbers.max().unwrap(),
                users: vec![user],
                pages,
                handles: BTreeMap::from([((number, handle), ())]),
                ..Thing::default()
            });
        }
    }

    /// Whether the limits on memory allow a new object, once what may be purged for it was.
    fn has_room(&mut self, user: u32, pages: u64) -> bool {
        self.relieve();
        let excess = |run: &Self| {
            let of_user = run.things.iter().filter(|thing| thing.owner() == user);
            let used: u64 = of_user.map(Thing::charge).sum();
            let total: u64 = run.things.iter().map(Thing::charge).sum();
            let own = (used + pages).saturating_sub(run.limits.uid.get());
            (own, (total + pages).saturating_sub(run.limits.total.get()))
        };
        let (own, all) = excess(self);
        if own > self.purgeable(Some(user)) || all > self.purgeable(None) {
            return false;
        }
        self.purge(own, Some(user));
        let (_, all) = excess(self);
        self.purge(all, None);
        true
    }

    /// Whether something was purged for a source that has no memory.
    fn finds_memory(&mut self, pages: u64) -> bool {
        let left = self.world.0.borrow().left;
        let purgeable = self.purgeable(None);
        if left.is_some_and(|left| left + purgeable < pages) {
            return false;
        }
        self.purge(pages, None);
        self.purgeable(None) < purgeable
    }

    pub(super) fn advise(&mut self, number: usize, raw: u32, unneeded: bool) {
        let (Some((open, _)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let advice = if unneeded {
            Advice::DontNeed
        } else {
            Advice::WillNeed
        };
        let call = Call::Advise {
            open: number,
            handle,
            unneeded,
        };
        let result = self.ask(call, Mood::Fine, u64::from, |device| {
            device.advise(open, handle, advice)
        });
        let Some(index) = self.find(number, raw) else {
            assert_eq!(result, Err(Error::NoSuchHandle(handle)));
            return;
        };
        let thing = &mut self.things[index];
        assert_eq!(result, Ok(!thing.purged));
        thing.unneeded = unneeded;
        // Said again, it is the last.
        thing.since = None;
    }

    pub(super) fn begin_use(&mut self, number: usize, raw: u32) {
        let (Some((open, _)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let call = Call::BeginUse {
            open: number,
            handle,
        };
        let begin = |device: &mut Device<Shared, Gpu>| device.begin_use(open, handle);
        let result = self.ask(call, Mood::Fine, |_| 0, begin);
        let Some(index) = self.find(number, raw) else {
            assert_eq!(result, Err(Error::NoSuchHandle(handle)));
            return;
        };
        let thing = &mut self.things[index];
        thing.uses += 1;
        self.uses.push((result.unwrap(), thing.number));
    }

    pub(super) fn end_use(&mut self, work: u8) {
        if self.uses.is_empty() {
            return;
        }
        let work = usize::from(work) % self.uses.len();
        let (object, number) = self.uses.remove(work);
        self.device.end_use(object);
        self.tell(Call::EndUse { work });
        let mut things = self.things.iter_mut();
        let thing = things.find(|thing| thing.number == number).unwrap();
        thing.uses -= 1;
        self.settle();
    }

    /// What may be purged comes to be so with the step that makes it so.
    pub(super) fn date(&mut self) {
        for thing in &mut self.things {
            if !thing.is_purgeable() {
                thing.since = None;
            } else if thing.since.is_none() {
                thing.since = Some(self.time);
                thing.since_of_user = self.time;
            }
        }
    }

    pub(super) fn purgeable(&self, user: Option<u32>) -> u64 {
        let whose = |thing: &&Thing| user.is_none_or(|user| thing.owner() == user);
        let purgeable = self.things.iter().filter(|thing| thing.is_purgeable());
        purgeable.filter(whose).map(|thing| thing.pages).sum()
    }

    /// Loses so many pages, of what is unneeded longest; all or one user's. Of what came to be so
    /// in one step, nobody says which comes first, and so it is as the device had it.
    fn purge(&mut self, mut pages: u64, user: Option<u32>) {
        let really = self.really_purged();
        while pages > 0 {
            let whose = |thing: &&mut Thing| user.is_none_or(|user| thing.owner() == user);
            let candidates = self.things.iter_mut().filter(|thing| thing.is_purgeable());
            let next = candidates.filter(whose).min_by_key(|thing| {
                let since = match user {
                    None => thing.since.unwrap(),
                    Some(_) => thing.since_of_user,
                };
                (since, !really.contains(&thing.number), thing.pages)
            });
            let Some(thing) = next else { break };
            thing.purged = true;
            self.lost += thing.pages;
            pages = pages.saturating_sub(thing.pages);
        }
    }

    fn really_purged(&self) -> BTreeSet<u64> {
        let purged = objects(&self.device).filter(|object| object.is_purged);
        purged.map(|object| object.number).collect()
    }

    /// What the device does where the machine has too little left.
    pub(super) fn relieve(&mut self) {
        let Some(left) = self.world.0.borrow().left else {
            self.pressure = Pressure::Eased;
            return;
        };
        let keep = self.limits.keep_free.get();
        let margin = keep + keep / 8;
        let (low, critical) = match self.pressure {
            Pressure::Eased => (keep, keep / 4),
            Pressure::Low => (margin, keep / 4),
            Pressure::Critical => (margin, keep / 2),
        };
        self.pressure = match left {
            left if left < critical => Pressure::Critical,
            left if left < low => Pressure::Low,
            _ => Pressure::Eased,
        };
        if left < low {
            self.purge(margin.saturating_sub(left), None);
        }
    }
}
