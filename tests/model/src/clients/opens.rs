//! Opens and their ends, and what root does to them.

use gem::units::{Gid, Identity, PAGE_SIZE, PageCount, Pid, Uid};
use gem::{Error, Node, OpenId};

use super::thing::Thing;
use super::{Call, Run};
use crate::world::Mood;

/// The process of a user.
pub(super) fn identity(user: u32) -> Identity {
    Identity {
        uid: Uid(user),
        gid: Gid(user),
        pid: Pid(user.into()),
    }
}

impl Run<'_> {
    pub(super) fn open(&mut self, user: u32) {
        let open = self.device.open(Node::Primary).unwrap();
        let identity = identity(user);
        let mine = self
            .opens
            .iter()
            .flatten()
            .filter(|(_, whose)| *whose == user);
        let full = mine.count() as u32 >= self.limits.opens_per_uid;
        let bound = self.device.bind(open, identity);
        assert_eq!(bound.is_err(), full);
        self.saw(Call::Open { user }, Mood::Fine, bound.map(|()| 0));
        if full {
            self.device.close(open);
        } else {
            assert_eq!(self.device.bind(open, identity), Err(Error::Binding));
            self.opens.push(Some((open, user)));
        }
    }

    pub(super) fn close_open(&mut self, number: usize) {
        let Some((open, _)) = self.opens.get_mut(number).and_then(Option::take) else {
            return;
        };
        self.device.close(open);
        self.device.close(open);
        self.tell(Call::CloseOpen { open: number });
        for thing in &mut self.things {
            thing.handles.retain(|(holder, _), ()| *holder != number);
            thing.prime.remove(&number);
            thing.mapped.remove(&number);
        }
        self.settle();
    }

    /// The kernel unmaps one mapping after the other, and closes then what nobody else has.
    pub(super) fn die(&mut self, number: usize) {
        let Some((open, _)) = self.who(number) else {
            return;
        };
        let mapped = |thing: &Thing| Some((thing.offset?, *thing.mapped.get(&number)?));
        let mapped: Vec<_> = self.things.iter().filter_map(mapped).collect();
        for (offset, pages) in mapped {
            self.unmap_at(number, open, offset.get(), pages);
        }
        for fd in 0..self.fds.len() {
            if self.fds[fd].is_some_and(|fd| fd.maker == number) {
                let all = u64::MAX / PAGE_SIZE;
                self.unmap_fd(fd, all);
                self.close_fd(fd);
            }
        }
        self.close_open(number);
    }

    /// An open has nothing any more but what it maps.
    pub(super) fn revoke(&mut self, number: usize) {
        let Some((open, _)) = self.who(number) else {
            return;
        };
        assert_eq!(self.device.revoke(open), Ok(()));
        assert_eq!(self.device.magic(open), Err(Error::Revoked));
        self.tell(Call::Revoke { open: number });
        self.revoked.insert(number);
        for thing in &mut self.things {
            thing.handles.retain(|(holder, _), ()| *holder != number);
            thing.prime.remove(&number);
        }
        self.settle();
    }

    /// Limits may come to lie far below what is there.
    pub(super) fn limit(&mut self, which: u8, value: u8) {
        let limits = &mut self.limits;
        let value = u32::from(value % 16);
        let pages = PageCount::new(u64::from(value) * 8).unwrap();
        match which % 14 {
            0 => limits.total = pages,
            1 => limits.uid = pages,
            2 => limits.object = pages,
            3 => limits.mapped_per_uid = pages,
            4 => limits.mapped_objects_per_uid = value,
            5 => limits.opens_per_uid = value,
            6 => limits.objects_per_uid = value,
            7 => limits.handles_per_uid = value,
            8 => limits.handles_per_open = value,
            9 => limits.object_fds_per_uid = value,
            10 => limits.names_per_uid = value,
            11 => limits.offsets_per_uid = value,
            12 => limits.object_fds_per_open = value,
            _ => limits.keep_free = PageCount::new(value.into()).unwrap(),
        }
        let limits = *limits;
        self.device.set_limits(limits);
        assert_eq!(self.device.stats().limits, limits);
        self.tell(Call::Limits(limits));
        self.relieve();
    }

    pub(super) fn who(&self, number: usize) -> Option<(OpenId, u32)> {
        self.opens.get(number).copied().flatten()
    }
}
