//! Object fds, and handles made of them.

use gem::units::Handle;
use gem::{Error, ObjectFdId, Rights};

use super::thing::ObjectFile;
use super::{Call, Run, sized};
use crate::world::Mood;

impl Run<'_> {
    pub(super) fn export(&mut self, number: usize, raw: u32, write: bool) {
        let (Some((open, user)), Some(handle)) = (self.who(number), Handle::new(raw)) else {
            return;
        };
        let call = Call::Export {
            open: number,
            handle,
            write,
        };
        let result = self.ask(
            call,
            Mood::Fine,
            |_| 0,
            |device| device.export(open, handle, Rights { write }),
        );
        let Some(index) = self.find(number, raw) else {
            assert_eq!(result, Err(Error::NoSuchHandle(handle)));
            return;
        };
        if let Some(fd) = self.made_fd(number, user, write, result) {
            let thing = &mut self.things[index];
            thing.fds.insert(fd);
            thing.prime.entry(number).or_insert(raw);
        }
    }

    pub(super) fn export_name(&mut self, number: usize, name: u8, write: bool) {
        let (Some((open, user)), Some(&name)) =
            (self.who(number), self.names.iter().rev().nth(name.into()))
        else {
            return;
        };
        let call = Call::ExportName {
            open: number,
            name,
            write,
        };
        let result = self.ask(
            call,
            Mood::Fine,
            |_| 0,
            |device| device.export_name(open, name, Rights { write }),
        );
        let found = self
            .things
            .iter()
            .position(|thing| thing.name == Some(name));
        let Some(index) = found else {
            assert_eq!(result, Err(Error::NoSuchName(name)));
            return;
        };
        if let Some(fd) = self.made_fd(number, user, write, result) {
            self.things[index].fds.insert(fd);
        }
    }

    /// Keeps a new object fd, if there may be one more, and returns its number.
    fn made_fd(
        &mut self,
        maker: usize,
        user: u32,
        write: bool,
        result: Result<ObjectFdId, Error>,
    ) -> Option<usize> {
        if self.revoked.contains(&maker) {
            assert_eq!(result, Err(Error::Revoked));
            return None;
        }
        let fds = || self.fds.iter().flatten();
        let of_open = fds().filter(|fd| fd.maker == maker).count() as u32;
        let of_user = fds().filter(|fd| fd.user == user).count() as u32;
        if of_open >= self.limits.object_fds_per_open || of_user >= self.limits.object_fds_per_uid {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
            return None;
        }
        let id = result.unwrap();
        self.fds.push(Some(ObjectFile {
            id,
            write,
            maker,
            user,
        }));
        Some(self.fds.len() - 1)
    }

    pub(super) fn import(&mut self, number: usize, fd: usize, mood: Mood) {
        let (Some((open, user)), Some(&Some(ObjectFile { id, write, .. }))) =
            (self.who(number), self.fds.get(fd))
        else {
            return;
        };
        let call = Call::Import { open: number, fd };
        let result = self.ask(call, mood, sized, |device| device.import(open, id));
        let index = self
            .things
            .iter()
            .position(|thing| thing.fds.contains(&fd))
            .unwrap();
        if !write {
            assert_eq!(result, Err(Error::ReadOnly));
        } else if let Some(&handle) = self.things[index].prime.get(&number) {
            assert_eq!(result.unwrap().0.get(), handle, "the same handle again");
        } else if self.revoked.contains(&number) {
            assert_eq!(result, Err(Error::Revoked));
        } else if self.is_full(number, user) {
            assert!(matches!(result, Err(Error::Limit(_))), "{result:?}");
        } else if mood == Mood::HandleFails {
            assert_eq!(result, Err(Error::OutOfMemory));
        } else {
            let handle = self.lowest_free(number);
            assert_eq!(result.unwrap().0.get(), handle);
            let thing = &mut self.things[index];
            thing.handles.insert((number, handle), ());
            thing.prime.insert(number, handle);
        }
    }

    pub(super) fn close_fd(&mut self, fd: usize) {
        let Some(ObjectFile { id, .. }) = self.fds.get_mut(fd).and_then(Option::take) else {
            return;
        };
        self.device.close_object_fd(id);
        self.device.close_object_fd(id);
        assert_eq!(self.device.object_fd(id), Err(Error::NoSuchObjectFd));
        self.tell(Call::CloseFd { fd });
        for thing in &mut self.things {
            thing.fds.remove(&fd);
            thing.mapped_by_fd.remove(&fd);
        }
        self.settle();
    }
}
