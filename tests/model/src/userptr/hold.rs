//! Pages are held: mapped by their client, shared, bound for GPUs, and given back.

use gem::pages::Ticket;
use gem::space::{Place, SpaceId};
use gem::units::{GpuAddr, Handle, PAGE_SIZE, Pid};
use gem::{Error, Event, Sequence};

use super::range::State;
use super::{Run, Waiter, pages, pid};
use crate::world::{Mood, SPACE_PAGES};

impl Run {
    pub(super) fn map(&mut self, range: usize, wrong: u8) {
        let range = &mut self.ranges[range];
        let (Some(open), Some(handle), Some((_, offset))) =
            (self.opens[range.open], range.handle, range.claimed)
        else {
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

    /// What another process lets go of may be what it had beside its client.
    pub(super) fn unmap(&mut self, range: usize, skip: u64, count: u64, child: bool) {
        let range = &mut self.ranges[range];
        let (Some(open), Some((claimed, offset))) = (self.opens[range.open], range.claimed) else {
            return;
        };
        let skip = skip.min(range.pages() - 1);
        let count = count.min(range.pages() - skip);
        let at = offset + skip * PAGE_SIZE;
        let by = Some(if child { Pid(1) } else { pid(range.open) });
        self.device.unmap_by(open, at, count * PAGE_SIZE, by);
        range.mapped -= count.min(range.mapped);
        let takes_back = range.state == State::Held && (!child || range.mapped < range.pages());
        if takes_back {
            range.give_back();
        }
        let known = range.handles_of(range.open).any(|own| own == claimed);
        let told = (takes_back && known).then_some(Event::Revoked {
            handle: claimed,
            by,
        });
        if !self.revoked.contains(&range.open) {
            assert_eq!(self.device.next_event(open), Ok(told));
        }
    }

    pub(super) fn fork(&mut self, range: usize, skip: u64, count: u64) {
        let range = &mut self.ranges[range];
        let (Some(open), Some((_, offset))) = (self.opens[range.open], range.claimed) else {
            return;
        };
        // The limit on what is mapped is far away.
        if range.mapped > 3 * range.pages() {
            return;
        }
        let skip = skip.min(range.pages() - 1);
        let (offset, size) = (offset + skip * PAGE_SIZE, count * PAGE_SIZE);
        let expected = if self.revoked.contains(&range.open) {
            Some(Error::Revoked)
        } else if count == 0 {
            Some(Error::Range { offset, size })
        } else if range.mapped == 0 {
            Some(Error::NotAllowed)
        } else if skip + count > range.pages() {
            Some(Error::Range { offset, size })
        } else if range.state != State::Held {
            Some(Error::NotMappable)
        } else {
            None
        };
        let mapped = self.device.map_again(open, offset, size);
        assert_eq!(mapped.err(), expected);
        if expected.is_none() {
            range.mapped += count;
        }
    }

    pub(super) fn close_handle(&mut self, range: usize) {
        let range = &mut self.ranges[range];
        let (Some(open), Some(handle)) = (self.opens[range.open], range.handle) else {
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
                range.handle = Some(handle);
            }
            None => {
                range.give_back();
                range.registrar = false;
                range.handle = None;
            }
        }
    }

    pub(super) fn share(&mut self, range: usize, open: usize) {
        let other = self.id(open).filter(|_| !self.revoked.contains(&open));
        let range = &mut self.ranges[range];
        let (Some(own), Some(handle)) = (self.opens[range.open], range.handle) else {
            return;
        };
        let Some(other) = other else { return };
        let name = self.device.flink(own, handle).unwrap();
        let (theirs, size) = self.device.open_name(other, name).unwrap();
        assert_eq!(size.get(), range.pages());
        range.shares.push((open, theirs));
    }

    pub(super) fn close_share(&mut self, range: usize) {
        let range = &mut self.ranges[range];
        if let Some((open, handle)) = range.shares.pop() {
            self.device
                .close_handle(self.opens[open].unwrap(), handle)
                .unwrap();
        }
    }

    pub(super) fn bind(
        &mut self,
        range: usize,
        handle: Handle,
        space: u32,
        page: u64,
        since: Option<(Option<Sequence>, u64)>,
        mood: Mood,
    ) {
        let state = &self.ranges[range];
        let Some(open) = self.id(state.open) else {
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
                Mood::Waits => Err(Error::NotReady(Ticket(4))),
                _ => Ok(()),
            }
        };
        let sequence = since.and_then(|(sequence, _)| sequence);
        let who = pid(state.open);
        let bound = self.moody(mood, |device| {
            device.vm_bind(open, who, handle, place, sequence)
        });
        assert_eq!(bound, expected);
        if bound.is_ok() {
            self.ranges[range].bindings.push(place);
        }
    }

    pub(super) fn bind_share(&mut self, range: usize) {
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

    pub(super) fn unbind(&mut self, range: usize) {
        let range = &mut self.ranges[range];
        let (Some(open), Some(handle)) = (self.opens[range.open], range.handle) else {
            return;
        };
        if let Some(place) = range.bindings.pop() {
            self.device.vm_unbind(open, handle, place).unwrap();
            let twice = self.device.vm_unbind(open, handle, place);
            assert_eq!(twice, Err(Error::NoSuchPlace));
        }
    }

    pub(super) fn wait(&mut self, range: usize) {
        let range = &self.ranges[range];
        if let (Some(handle), Some(open)) = (range.handle, self.opens[range.open]) {
            self.waiters.push(Waiter {
                open: range.open,
                handle,
                sequence: self.device.sequence(open, handle).unwrap(),
                epoch: range.epoch,
            });
        }
    }

    pub(super) fn wake(&mut self, waiter: u8, page: u64) {
        if self.waiters.is_empty() {
            return;
        }
        let place = usize::from(waiter) % self.waiters.len();
        let Waiter {
            open,
            handle,
            sequence,
            epoch,
        } = self.waiters.swap_remove(place);
        let found = self
            .ranges
            .iter()
            .position(|range| range.open == open && range.handle == Some(handle));
        // Its handle may be another object's by now: the waiter's own business.
        if let Some(range) = found
            && self.ranges[range].epoch >= epoch
        {
            let since = Some((sequence, epoch));
            self.bind(range, handle, 0, page, since, Mood::Fine);
        }
    }
}
