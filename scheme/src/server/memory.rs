//! Mappings, and object fds read and written like files.

use gem::{Mapper, ObjectFdId};
use syscall::error::EINVAL;

use super::{Reply, Server};
use crate::answer::{Answer, Errno};
use crate::payload::Payload;
use crate::platform::Platform;

impl<P: Platform> Server<P> {
    /// Where in the daemon's address space the kernel finds the pages to map. Counted when
    /// answered; the kernel tells of every unmapping, and at the latest closes the file.
    pub(super) fn map(&mut self, mapper: Mapper, offset: u64, size: u64, write: bool) -> Reply {
        let window = self.device.map(mapper, offset, size, write)?;
        Ok(Answer::Value(window.get() as u64))
    }

    /// Never refused: the kernel has unmapped already and only tells.
    pub(super) fn unmap(&mut self, mapper: Mapper, offset: u64, size: u64) -> Reply {
        self.device.unmap(mapper, offset, size);
        Ok(Answer::DONE)
    }

    pub(super) fn read_object(
        &mut self,
        object: ObjectFdId,
        offset: Option<u64>,
        payload: &mut Payload,
    ) -> Reply {
        let offset = offset.ok_or(Errno(EINVAL))?;
        let length = self.device.read(object, offset, payload.bytes())?;
        Ok(Answer::Value(length as u64))
    }

    pub(super) fn write_object(
        &mut self,
        object: ObjectFdId,
        offset: Option<u64>,
        payload: &mut Payload,
    ) -> Reply {
        let offset = offset.ok_or(Errno(EINVAL))?;
        let length = self.device.write(object, offset, payload.bytes())?;
        Ok(Answer::Value(length as u64))
    }
}
