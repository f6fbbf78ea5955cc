//! Offsets and mappings, through nodes and through object fds.

use gem::pages::Ticket;
use gem::units::{FakeOffset, Handle, PAGE_SIZE};
use gem::{Error, OpenId};

use super::opens::identity;
use super::thing::{ObjectFile, Thing, placed};
use super::{Call, Run, USERS};
use crate::world::Mood;

impl Run<'_> {
    pub(super) fn offset(&mut self, number: usize, raw: u32) {
        let (Some((open, _)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let call = Call::Offset {
            open: number,
            handle,
        };
        let result = self.ask(call, Mood::Fine, FakeOffset::get, |device| {
            device.map_offset(open, handle)
        });
        let Some(index) = self.find(number, raw) else {
            assert_eq!(result, Err(Error::NoSuchHandle(handle)));
            return;
        };
        if let Some(known) = self.things[index].offset {
            assert_eq!(result, Ok(known));
            return;
        }
        if self.is_at(index, self.limits.offsets_per_uid, placed) {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
            return;
        }
        let expected = self.best_fit(self.things[index].pages);
        assert_eq!(result.ok(), expected, "{result:?}");
        if let Some(offset) = expected {
            self.things[index].offset = Some(offset);
            self.offsets.push(offset);
        } else {
            assert_eq!(result, Err(Error::NoSpace));
        }
    }

    /// The smallest gap that is large enough, the lowest of those.
    fn best_fit(&self, pages: u64) -> Option<FakeOffset> {
        let taken = |thing: &Thing| Some((thing.offset?.get(), thing.pages * PAGE_SIZE));
        let mut taken: Vec<_> = self.things.iter().filter_map(taken).collect();
        taken.push((FakeOffset::BASE + self.limits.offset_space.bytes(), 0));
        taken.sort();
        let mut start = FakeOffset::BASE;
        let mut gaps = Vec::new();
        for (next, size) in taken {
            gaps.push((next - start, start));
            start = next + size;
        }
        gaps.retain(|(size, _)| *size >= pages * PAGE_SIZE);
        gaps.sort();
        FakeOffset::new(gaps.first()?.1)
    }

    pub(super) fn map(&mut self, number: usize, offset: u8, pages: u64, mood: Mood) {
        if let Some(&offset) = self.offsets.iter().rev().nth(offset.into()) {
            self.map_at(number, offset, pages, mood, false);
        }
    }

    fn map_at(&mut self, number: usize, offset: FakeOffset, pages: u64, mood: Mood, again: bool) {
        let Some((open, user)) = self.who(number) else {
            return;
        };
        let size = (pages * PAGE_SIZE).saturating_sub(1);
        let call = Call::Map {
            open: number,
            offset: offset.get(),
            size,
            again,
        };
        let result = self.ask(
            call,
            mood,
            |_| 0,
            |device| device.map(open, offset.get(), size),
        );
        let found = self
            .things
            .iter()
            .position(|thing| thing.offset == Some(offset));
        let Some(index) = found else {
            assert!(result.is_err());
            return;
        };
        let counted = self.mapped_by(user);
        let many = self.mapped_things(user) >= self.limits.mapped_objects_per_uid;
        let thing = &mut self.things[index];
        let another = thing.mapped.get(&number).is_none_or(|pages| *pages == 0);
        if pages == 0 {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if !thing.held_by(number) {
            assert_eq!(result, Err(Error::NotAllowed));
        } else if pages > thing.pages {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if thing.purged {
            assert_eq!(result, Err(Error::Purged));
        } else if counted + pages > self.limits.mapped_per_uid.get() || another && many {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else if mood == Mood::Waits {
            assert_eq!(result, Err(Error::NotReady(Ticket(2))));
        } else {
            assert!(result.is_ok(), "{result:?}");
            *thing.mapped.entry(number).or_default() += pages;
        }
    }

    pub(super) fn map_again(&mut self, number: usize, offset: u8, skip: u64, pages: u64) {
        let (Some((open, user)), Some(start)) = (
            self.who(number),
            self.offsets.iter().rev().nth(offset.into()).copied(),
        ) else {
            return;
        };
        // Servers look first whether it can be mapped as anything is.
        let held = |thing: &Thing| thing.offset == Some(start) && thing.held_by(number);
        if self.witness.is_some() && skip == 0 && self.things.iter().any(held) {
            self.map_at(number, start, pages, Mood::Fine, true);
            return;
        }
        let at = start.get() + skip * PAGE_SIZE;
        let call = Call::Map {
            open: number,
            offset: at,
            size: pages * PAGE_SIZE,
            again: true,
        };
        let result = self.ask(
            call,
            Mood::Fine,
            |_| 0,
            |device| device.map_again(open, at, pages * PAGE_SIZE),
        );
        let counted = self.mapped_by(user);
        let there = |thing: &&mut Thing| {
            thing.offset.is_some_and(|start| {
                (start.get()..start.get() + thing.pages * PAGE_SIZE).contains(&at)
            })
        };
        let Some(thing) = self.things.iter_mut().find(there) else {
            assert!(result.is_err());
            return;
        };
        let skip = (at - thing.offset.unwrap().get()) / PAGE_SIZE;
        let mapped = thing.mapped.get(&number).copied().unwrap_or(0);
        if self.revoked.contains(&number) {
            assert_eq!(result, Err(Error::Revoked));
        } else if pages == 0 {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if mapped == 0 {
            assert_eq!(result, Err(Error::NotAllowed));
        } else if skip + pages > thing.pages {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if counted + pages > self.limits.mapped_per_uid.get() {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else {
            assert!(result.is_ok(), "{result:?}");
            *thing.mapped.entry(number).or_default() += pages;
        }
    }

    pub(super) fn unmap(&mut self, number: usize, offset: u8, skip: u64, pages: u64) {
        let (Some((open, _)), Some(offset)) = (
            self.who(number),
            self.offsets.iter().rev().nth(offset.into()),
        ) else {
            return;
        };
        self.unmap_at(number, open, offset.get() + skip * PAGE_SIZE, pages);
    }

    pub(super) fn unmap_at(&mut self, number: usize, open: OpenId, at: u64, pages: u64) {
        let size = pages * PAGE_SIZE;
        self.device.unmap(open, at, size);
        self.tell(Call::Unmap {
            open: number,
            offset: at,
            size,
        });
        let there = |thing: &&mut Thing| {
            thing.offset.is_some_and(|start| {
                (start.get()..start.get() + thing.pages * PAGE_SIZE).contains(&at)
            })
        };
        if let Some(thing) = self.things.iter_mut().find(there)
            && let Some(mapped) = thing.mapped.get_mut(&number)
        {
            *mapped = mapped.saturating_sub(pages);
        }
        self.settle();
    }

    pub(super) fn map_fd(&mut self, fd: usize, skip: u64, pages: u64, write: bool, mood: Mood) {
        let Some(&Some(ObjectFile {
            id,
            write: writeable,
            user: maker,
            ..
        })) = self.fds.get(fd)
        else {
            return;
        };
        // In whoever's hands it is.
        let user = (maker + skip as u32 + pages as u32) % USERS;
        let (offset, size) = (skip * PAGE_SIZE, pages * PAGE_SIZE);
        let call = Call::MapFd {
            user,
            fd,
            offset,
            size,
            write,
        };
        let result = self.ask(
            call,
            mood,
            |_| 0,
            |device| device.map_fd(id, identity(user), offset, size, write),
        );
        let counted = self.mapped_by(user);
        let thing = self
            .things
            .iter_mut()
            .find(|thing| thing.fds.contains(&fd))
            .unwrap();
        if pages == 0 {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if write && !writeable {
            assert_eq!(result, Err(Error::ReadOnly));
        } else if skip + pages > thing.pages {
            assert!(matches!(result, Err(Error::Range { .. })), "{result:?}");
        } else if thing.purged {
            assert_eq!(result, Err(Error::Purged));
        } else if counted + pages > self.limits.mapped_per_uid.get() {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else if mood == Mood::Waits {
            assert_eq!(result, Err(Error::NotReady(Ticket(2))));
        } else {
            assert_eq!(result.unwrap().get() as u64 % (1 << 32), offset);
            let mapped = thing.mapped_by_fd.entry(fd).or_default();
            match mapped.iter_mut().find(|(of, _)| *of == user) {
                Some((_, sum)) => *sum += pages,
                None => mapped.push((user, pages)),
            }
        }
    }

    pub(super) fn unmap_fd(&mut self, fd: usize, pages: u64) {
        let Some(&Some(ObjectFile { id, user, .. })) = self.fds.get(fd) else {
            return;
        };
        let user = ((u64::from(user) + pages % 7) % u64::from(USERS)) as u32;
        let size = pages * PAGE_SIZE;
        self.device.unmap_fd(id, size, identity(user).pid);
        self.tell(Call::UnmapFd { user, fd, size });
        let thing = self
            .things
            .iter_mut()
            .find(|thing| thing.fds.contains(&fd))
            .unwrap();
        // The user's own, then those of whoever came last.
        let mapped = thing.mapped_by_fd.entry(fd).or_default();
        for _ in 0..pages {
            let own = mapped.iter().position(|(of, _)| *of == user);
            let Some(index) = own.or(mapped.len().checked_sub(1)) else {
                break;
            };
            mapped[index].1 -= 1;
            if mapped[index].1 == 0 {
                mapped.remove(index);
            }
        }
    }

    pub(super) fn mapped_by(&self, user: u32) -> u64 {
        let mut pages = 0;
        for thing in &self.things {
            for (open, mapped) in &thing.mapped {
                if self.who(*open).is_some_and(|(_, whose)| whose == user) {
                    pages += mapped;
                }
            }
            let by_fd = thing.mapped_by_fd.values().flatten();
            pages += by_fd
                .filter(|(of, _)| *of == user)
                .map(|(_, mapped)| mapped)
                .sum::<u64>();
        }
        pages
    }

    /// Mapped things, each of the user's opens counted.
    pub(super) fn mapped_things(&self, user: u32) -> u32 {
        let mapped = self.things.iter().flat_map(|thing| &thing.mapped);
        let mapped = mapped.filter(|(_, pages)| **pages > 0);
        mapped
            .filter(|(open, _)| self.who(**open).is_some_and(|(_, whose)| whose == user))
            .count() as u32
    }
}
