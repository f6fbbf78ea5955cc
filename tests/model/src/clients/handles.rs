//! Handles: closed, given names, and opened by name.

use gem::Error;
use gem::units::{Handle, Name};

use super::thing::named;
use super::{Call, Run, sized};
use crate::world::Mood;

impl Run<'_> {
    pub(super) fn close(&mut self, number: usize, raw: u32) {
        let (Some((open, _)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let call = Call::Close {
            open: number,
            handle,
        };
        let result = self.ask(
            call,
            Mood::Fine,
            |()| 0,
            |device| device.close_handle(open, handle),
        );
        match self.find(number, raw) {
            None => assert_eq!(result, Err(Error::NotClosable(handle))),
            Some(index) => {
                assert_eq!(result, Ok(()));
                let thing = &mut self.things[index];
                thing.handles.remove(&(number, raw));
                if thing.prime.get(&number) == Some(&raw) {
                    thing.prime.remove(&number);
                }
                self.settle();
            }
        }
    }

    pub(super) fn flink(&mut self, number: usize, raw: u32) {
        let (Some((open, _)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let call = Call::Flink {
            open: number,
            handle,
        };
        let result = self.ask(
            call,
            Mood::Fine,
            |name: Name| name.get().into(),
            |device| device.flink(open, handle),
        );
        match self.find(number, raw) {
            None => assert_eq!(result, Err(Error::NoSuchHandle(handle))),
            Some(index)
                if self.things[index].name.is_none()
                    && self.is_at(index, self.limits.names_per_uid, named) =>
            {
                assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
            }
            Some(index) => {
                let name = result.unwrap();
                let others = self
                    .things
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != index);
                for (_, other) in others {
                    assert_ne!(other.name, Some(name), "one name, two objects");
                }
                let known = self.things[index].name.get_or_insert(name);
                assert_eq!(*known, name, "a second name");
                if self.names.last() != Some(&name) {
                    self.names.push(name);
                }
            }
        }
    }

    pub(super) fn open_name(&mut self, number: usize, name: u8, mood: Mood) {
        let (Some((open, user)), Some(&name)) =
            (self.who(number), self.names.iter().rev().nth(name.into()))
        else {
            return;
        };
        let call = Call::OpenName { open: number, name };
        let result = self.ask(call, mood, sized, |device| device.open_name(open, name));
        let found = self
            .things
            .iter()
            .position(|thing| thing.name == Some(name));
        let Some(index) = found else {
            assert_eq!(result, Err(Error::NoSuchName(name)));
            return;
        };
        if self.revoked.contains(&number) {
            assert_eq!(result, Err(Error::Revoked));
        } else if self.is_full(number, user) {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else if mood == Mood::HandleFails {
            assert_eq!(result, Err(Error::OutOfMemory));
        } else {
            let handle = self.lowest_free(number);
            assert_eq!(result.unwrap().0.get(), handle);
            self.things[index].handles.insert((number, handle), ());
        }
    }

    pub(super) fn find(&self, open: usize, handle: u32) -> Option<usize> {
        self.things
            .iter()
            .position(|thing| thing.handles.contains_key(&(open, handle)))
    }

    pub(super) fn lowest_free(&self, open: usize) -> u32 {
        (1..)
            .find(|&handle| self.find(open, handle).is_none())
            .unwrap()
    }

    fn handles_of(&self, open: usize) -> u32 {
        let handles = self.things.iter().flat_map(|thing| thing.handles.keys());
        handles.filter(|(holder, _)| *holder == open).count() as u32
    }

    /// The highest handle of an open: what its table is long.
    fn highest(&self, open: usize) -> u32 {
        let handles = self.things.iter().flat_map(|thing| thing.handles.keys());
        let mine = handles.filter(|(holder, _)| *holder == open);
        mine.map(|(_, handle)| *handle).max().unwrap_or(0)
    }

    pub(super) fn places_of(&self, user: u32) -> u32 {
        let numbers = 0..self.opens.len();
        let mine = numbers.filter(|&open| self.who(open).is_some_and(|(_, whose)| whose == user));
        mine.map(|open| self.highest(open)).sum()
    }

    /// Whether one more handle is too many: in this open, or in a table that had to grow for it.
    pub(super) fn is_full(&self, open: usize, user: u32) -> bool {
        let handles = self.handles_of(open);
        let grows = handles == self.highest(open);
        handles >= self.limits.handles_per_open
            || grows && self.places_of(user) >= self.limits.handles_per_uid
    }
}
