//! Buffers: handles on objects.
//!
//! A [`Buffer`] is one handle of its node's, closed when the last buffer with that handle is dropped.
//! It keeps no mapping and no name; both are asked for, and outlive it as the server says.

use alloc::sync::Arc;

use gem_wire::native::{Advice, Call};
use libredox::Fd;

use crate::PAGE_SIZE;
use crate::card::{Name, OpenNode};
use crate::error::{Error, Result};
use crate::mapping::Mapping;
use crate::object_fd::{ObjectFd, Rights};

/// A handle on a buffer object. Dropping it drops the handle; the object lives on while somebody
/// else has it, or has it mapped.
pub struct Buffer {
    node: Arc<OpenNode>,
    handle: u32,
    pages: u32,
    released: bool,
}

impl core::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Buffer")
            .field("handle", &self.handle)
            .field("pages", &self.pages)
            .finish()
    }
}

/// A buffer for pixels.
#[derive(Debug)]
pub struct Dumb {
    /// The buffer itself.
    pub buffer: Buffer,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bits in a pixel.
    pub bits: u32,
    /// Bytes from one row to the next.
    pub pitch: u32,
}

impl Buffer {
    pub(crate) fn new(node: Arc<OpenNode>, handle: u32, pages: u32) -> Self {
        Self {
            node,
            handle,
            pages,
            released: false,
        }
    }

    /// The buffer of a handle that a call has just made.
    pub(crate) fn of_call(node: &Arc<OpenNode>, handle: u32, pages: u32) -> Self {
        node.add_handle(handle);
        Self::new(node.clone(), handle, pages)
    }

    pub(crate) fn node(&self) -> &Arc<OpenNode> {
        &self.node
    }

    /// The handle, for raw calls. It is closed with the last buffer that has it.
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// The size in bytes, whole pages.
    pub fn size(&self) -> usize {
        self.pages as usize * PAGE_SIZE
    }

    /// Its global name, made on first use; it goes with the object's last handle.
    ///
    /// # Errors
    ///
    /// EACCES on a render node and where the open is not authenticated.
    pub fn flink(&self) -> Result<Name> {
        let handle = self.handle;
        let answer = self.node.call("name a buffer", Call::Flink { handle })?;
        Name::new(answer as u32).ok_or(Error::new("name a buffer", syscall::error::EIO))
    }

    /// Where to map it through the node's fd, in bytes; [`Buffer::map`] does that.
    ///
    /// # Errors
    ///
    /// ENOSPC where offsets are used up.
    pub fn map_offset(&self) -> Result<u64> {
        let handle = self.handle;
        self.node
            .call("find a buffer's offset", Call::Map { handle })
    }

    /// Maps the whole buffer, to read and write.
    ///
    /// # Errors
    ///
    /// ENOMEM, EMFILE at the limits; ENODEV for a buffer that is a device's own memory; EFAULT for
    /// one that has lost its memory ([`Buffer::advise`]).
    pub fn map(&self) -> Result<Mapping> {
        let offset = self.map_offset()?;
        Mapping::new(self.node.fd(), offset, self.size(), Rights::ReadWrite)
    }

    /// An fd on the object: keeps it alive by itself, and can be given to another process.
    ///
    /// # Errors
    ///
    /// EMFILE at the limits.
    pub fn export(&self, rights: Rights) -> Result<ObjectFd> {
        let path = match rights {
            Rights::ReadWrite => alloc::format!("handle/{}", self.handle),
            Rights::ReadOnly => alloc::format!("handle/{}/ro", self.handle),
        };
        let fd = libredox::call::dup(self.node.fd(), path);
        fd.map(|fd| ObjectFd::from_fd(Fd::new(fd)))
            .map_err(Error::of("export a buffer"))
    }

    /// Says whether the buffer's contents are worth keeping, for all who hold it. What is not needed
    /// and not mapped by anybody may lose its memory when that runs short; it is charged less then,
    /// too. Whether the buffer has its memory still: once it has lost it, it never has any again
    /// (mapping and reading answer EFAULT), and a new buffer has to be made.
    ///
    /// # Errors
    ///
    /// ENODEV where the server is gone.
    pub fn advise(&self, advice: Advice) -> Result<bool> {
        let handle = self.handle;
        let call = Call::Advise { handle, advice };
        Ok(self.node.call("advise about a buffer", call)? != 0)
    }

    /// Drops the handle, and says whether that worked.
    ///
    /// # Errors
    ///
    /// ENODEV where the server is gone.
    pub fn close(mut self) -> Result<()> {
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        if core::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        self.node.close_handle(self.handle)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Fails only where the server is gone, and the handle with it.
        let _ = self.release();
    }
}
