//! Everything that can be counted, on both sides.

use gem::units::Uid;
use gem::{Advice, FEW_HOLDERS, ObjectCursor};

use super::thing::{Thing, named, placed};
use super::{Run, USERS};

impl Run<'_> {
    /// Everything that can be counted, on both sides.
    pub(super) fn compare(&self) {
        let stats = self.device.stats();
        let things = &self.things;
        let handles: usize = things.iter().map(|thing| thing.handles.len()).sum();
        assert_eq!(stats.opens, self.opens.iter().flatten().count());
        assert_eq!(stats.objects, things.len());
        assert_eq!(stats.handles, handles as u64);
        assert_eq!(stats.object_fds, self.fds.iter().flatten().count());
        assert_eq!(
            stats.names,
            things.iter().filter(|t| t.name.is_some()).count()
        );
        assert_eq!(
            stats.offsets,
            things.iter().filter(|t| t.offset.is_some()).count()
        );
        assert_eq!(
            stats.memory.get(),
            things.iter().map(Thing::charge).sum::<u64>()
        );
        assert_eq!(stats.purgeable.get(), self.purgeable(None));
        let purged = things.iter().filter(|thing| thing.purged).count();
        assert_eq!(stats.purges.objects, purged);
        assert_eq!(stats.purges.pages, self.lost);
        assert_eq!(stats.pressure, self.pressure);
        assert_eq!(
            stats.mapped.get(),
            things.iter().map(Thing::mapped_pages).sum::<u64>()
        );
        let world = self.world.0.borrow();
        assert_eq!(world.sets.len(), things.len() - purged);
        assert_eq!(world.objects.len(), things.len());
        assert_eq!(world.handles, handles as i64);
        self.compare_objects();
        self.compare_accounts();
        self.compare_clients();
        self.compare_usage();
    }

    fn compare_objects(&self) {
        let mut cursor = ObjectCursor::default();
        let mut seen = Vec::new();
        let mut expected: Vec<_> = self
            .things
            .iter()
            .map(|thing| {
                (
                    (thing.number, thing.owner(), thing.pages),
                    (thing.unneeded, thing.purged, thing.is_purgeable()),
                    thing.handles.len() as u32,
                    thing.holders().len(),
                    thing.fds.len() as u32,
                    thing.mapped_pages(),
                    thing.name,
                    thing.offset,
                )
            })
            .collect();
        // In steps of two slots, as a server would walk a long table.
        loop {
            let mut slots = 2;
            while let Some(object) = self.device.next_object(&mut cursor, &mut slots) {
                let unneeded = object.advice == Advice::DontNeed;
                seen.push((
                    (object.number, object.owner.0, object.pages.get()),
                    (unneeded, object.is_purged, object.is_purgeable),
                    object.handles,
                    object.holders,
                    object.fds,
                    object.mapped.get(),
                    object.name,
                    object.offset,
                ));
            }
            if slots > 0 {
                break;
            }
        }
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected);
    }

    /// The lists of opens: everybody's, and each user's own.
    fn compare_clients(&self) {
        let opens = || self.opens.iter().flatten();
        let listed = |of| self.device.clients(of, 0).map(|(_, open)| open);
        let all: Vec<_> = opens().map(|(open, _)| *open).collect();
        assert_eq!(listed(None).collect::<Vec<_>>(), all);
        for user in 0..USERS {
            let mine = opens().filter(|(_, whose)| *whose == user);
            let mine: Vec<_> = mine.map(|(open, _)| *open).collect();
            assert_eq!(listed(Some(Uid(user))).collect::<Vec<_>>(), mine);
        }
        let mut after = 0;
        for (number, open) in self.device.clients(None, 0) {
            assert!(number > after, "in order");
            assert_eq!(
                self.device.clients(None, after).next(),
                Some((number, open))
            );
            assert_eq!(self.device.client(number), Some(open));
            after = number;
        }
    }

    /// What each open holds: every object once, whatever it has of it.
    fn compare_usage(&self) {
        for (number, open) in self.opens.iter().enumerate() {
            let Some((open, _)) = *open else { continue };
            let sum = |least: usize| {
                let held = self.things.iter().map(|thing| (thing, thing.holders()));
                held.filter(|(_, holders)| holders.contains(&number) && holders.len() >= least)
                    .map(|(thing, _)| thing.pages)
                    .sum::<u64>()
            };
            let usage = self.device.open_stats(open).unwrap().usage;
            assert_eq!(usage.total.get(), sum(1));
            assert_eq!(usage.shared.get(), sum(2));
            let held = || {
                let things = self.things.iter();
                things.filter(|thing| thing.holders().contains(&number))
            };
            let few = |thing: &&Thing| thing.holders().len() <= FEW_HOLDERS;
            let purgeable: u64 = held()
                .filter(few)
                .filter(|thing| thing.is_purgeable())
                .map(|thing| thing.pages)
                .sum();
            assert_eq!(usage.purgeable.get(), purgeable);
            let active: u64 = held()
                .filter(few)
                .filter(|thing| thing.uses > 0)
                .map(|thing| thing.pages)
                .sum();
            assert_eq!(usage.active.get(), active);
            let resident: u64 = held()
                .filter(|thing| !thing.purged || !few(thing))
                .map(|thing| thing.pages)
                .sum();
            assert_eq!(usage.resident.get(), resident);
        }
    }

    fn compare_accounts(&self) {
        for account in self.device.accounts() {
            let user = account.uid.0;
            let mine = |thing: &&Thing| thing.owner() == user;
            let opens = self
                .opens
                .iter()
                .flatten()
                .filter(|(_, whose)| *whose == user);
            let fds = self.fds.iter().flatten().filter(|fd| fd.user == user);
            assert_eq!(account.opens as usize, opens.count());
            assert_eq!(
                account.objects as usize,
                self.things.iter().filter(mine).count()
            );
            assert_eq!(
                account.memory.get(),
                self.things
                    .iter()
                    .filter(mine)
                    .map(Thing::charge)
                    .sum::<u64>()
            );
            assert_eq!(account.handles, self.places_of(user));
            assert_eq!(account.object_fds as usize, fds.count());
            assert_eq!(account.mapped.get(), self.mapped_by(user));
            assert_eq!(account.mapped_objects, self.mapped_things(user));
            assert_eq!(account.names, self.count_of(user, named));
            assert_eq!(account.offsets, self.count_of(user, placed));
        }
        for &(open, user) in self.opens.iter().flatten() {
            let stats = self.device.open_stats(open).unwrap();
            assert_eq!(stats.purgeable_of_uid.get(), self.purgeable(Some(user)));
        }
    }

    pub(super) fn end(self) {
        let world = self.world.clone();
        self.device.tear_down();
        world.0.borrow().assert_empty();
    }
}
