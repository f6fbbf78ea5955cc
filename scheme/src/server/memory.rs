//! Mappings, and object fds read and written like files.
//!
//! The kernel maps and copies; this answers where the pages are, and counts. Rights were looked
//! at by whoever called (a node's) or are the object fd's own (in the device).

use gem::units::{FakeOffset, Pid};
use gem::{Error, ObjectFdId, OpenId};
use syscall::error::EINVAL;

use super::{Reply, Server};
use crate::answer::{Answer, Errno};
use crate::payload::Payload;
use crate::platform::Platform;

/// The most bytes that one `read` or `write` of an object copies, in bytes: others wait meanwhile.
/// Callers get a short count, as they may from any file.
const COPY: usize = 1 << 20;

impl<P: Platform> Server<P> {
    /// Through an object fd, for whoever maps it. Where in the daemon's address space the kernel
    /// finds the pages to map. Counted when answered; the kernel tells of every unmapping, and at the
    /// latest closes the file.
    pub(super) fn map_object(
        &mut self,
        object: ObjectFdId,
        caller: Pid,
        offset: u64,
        size: u64,
        write: bool,
    ) -> Reply {
        let by = self.identity(caller)?;
        let window = self.device.map_fd(object, by, offset, size, write)?;
        Ok(Answer::Value(window.get() as u64))
    }

    /// Through a node: an object as anybody's, or a client's own pages by that client; where a fork
    /// asks, also what has no handle any more, or in part.
    pub(super) fn map_node(
        &mut self,
        open: OpenId,
        caller: Pid,
        offset: u64,
        size: u64,
        again: bool,
    ) -> Reply {
        let is_user = FakeOffset::new(offset).is_some_and(FakeOffset::is_user);
        let mapped = match (is_user, again) {
            (false, _) => self.device.map(open, offset, size),
            (true, false) => self.device.map_userptr(open, caller, offset, size),
            // It completes no registration.
            (true, true) => self.device.map_again(open, offset, size),
        };
        let window = match mapped {
            Err(Error::NoSuchOffset(_) | Error::NotAllowed) if again => {
                self.device.map_again(open, offset, size)?
            }
            mapped => mapped?,
        };
        Ok(Answer::Value(window.get() as u64))
    }

    /// Never refused: the kernel has unmapped already and only tells. When this is answered,
    /// nothing of ours reaches the pages of a client's own that were among them.
    pub(super) fn unmap_node(&mut self, open: OpenId, by: Pid, offset: u64, size: u64) -> Reply {
        self.device.unmap_by(open, offset, size, Some(by));
        Ok(Answer::DONE)
    }

    /// The same, of an object fd. Nobody is asked who that is: whoever could say may be waiting for
    /// this, having ended the process whose mapping it was.
    pub(super) fn unmap_object(&mut self, object: ObjectFdId, by: Pid, size: u64) -> Reply {
        self.device.unmap_fd(object, size, by);
        Ok(Answer::DONE)
    }

    pub(super) fn read_object(
        &mut self,
        object: ObjectFdId,
        offset: Option<u64>,
        payload: &mut Payload,
    ) -> Reply {
        let offset = offset.ok_or(Errno(EINVAL))?;
        let bytes = in_one_go(payload);
        let length = self.device.read(object, offset, bytes)?;
        Ok(Answer::Value(length as u64))
    }

    pub(super) fn write_object(
        &mut self,
        object: ObjectFdId,
        offset: Option<u64>,
        payload: &mut Payload,
    ) -> Reply {
        let offset = offset.ok_or(Errno(EINVAL))?;
        let bytes = in_one_go(payload);
        let length = self.device.write(object, offset, bytes)?;
        Ok(Answer::Value(length as u64))
    }
}

/// As much of the payload as is copied without letting others have their turn.
fn in_one_go(payload: &mut Payload) -> &mut [u8] {
    let bytes = payload.bytes();
    let length = bytes.len().min(COPY);
    bytes.get_mut(..length).unwrap_or_default()
}
