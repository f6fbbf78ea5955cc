//! Nodes: where buffers are made, opened and imported.
//!
//! A [`Card`] owns its node's fd, together with the buffers that came of it: the fd is closed when
//! the last of them is dropped. Which handles are in use is kept in `handles`, because an import
//! can give a handle that a buffer has already. Closing a handle is tried again after a signal;
//! every other call says EINTR.

use alloc::sync::Arc;
use core::fmt;
use core::num::NonZeroU32;

use gem_wire::limit::Limit;
use gem_wire::native::{Call, CreateFlags, Features, Hello, Sized, VERSION};
use libredox::Fd;
use libredox::flag::{O_CLOEXEC, O_RDWR};
use syscall::CallFlags;
use syscall::error::EINTR;

use crate::buffer::{Buffer, Dumb};
use crate::drm;
use crate::error::{Error, Result};
use crate::handles::Handles;
use crate::object_fd::{ObjectFd, Rights};

/// Which node to open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Node {
    /// `card0`: everything; names, if authenticated.
    Primary,
    /// `renderD128`: buffers and sharing by fd.
    Render,
}

impl Node {
    /// The path of the node.
    pub fn path(self) -> &'static str {
        match self {
            Self::Primary => "/scheme/gem/card0",
            Self::Render => "/scheme/gem/renderD128",
        }
    }
}

/// A global name of a buffer: 1 to 2^31 − 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(NonZeroU32);

impl Name {
    /// The name with this number, or `None` where no name has it.
    pub fn new(raw: u32) -> Option<Self> {
        NonZeroU32::new(raw).filter(|_| raw >> 31 == 0).map(Self)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A magic number: shown to the master, it authenticates the open that it belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Magic(pub u32);

/// How a buffer's memory is to be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Create {
    flags: CreateFlags,
}

impl Create {
    /// Cached, wherever there is room.
    pub fn new() -> Self {
        Self::default()
    }

    /// Write-combined: for buffers that a display reads.
    pub fn write_combining(mut self) -> Self {
        self.flags |= CreateFlags::WRITE_COMBINING;
        self
    }

    /// Uncached.
    pub fn uncached(mut self) -> Self {
        self.flags |= CreateFlags::UNCACHED;
        self
    }

    /// In one piece of physical memory.
    pub fn contiguous(mut self) -> Self {
        self.flags |= CreateFlags::CONTIGUOUS;
        self
    }
}

/// An open node. Clones are the same open; it closes with the last clone and the last buffer.
#[derive(Clone)]
pub struct Card {
    pub(crate) node: Arc<OpenNode>,
}

/// What a card and its buffers share.
pub(crate) struct OpenNode {
    fd: Fd,
    handles: Handles,
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Card").field(&self.node.fd.raw()).finish()
    }
}

impl OpenNode {
    /// A call without payload.
    pub(crate) fn call(&self, action: &'static str, call: Call) -> Result<u64> {
        self.call_words(action, &call.encode(), &mut [])
    }

    pub(crate) fn call_words(
        &self,
        action: &'static str,
        words: &[u64],
        payload: &mut [u8],
    ) -> Result<u64> {
        let flags = CallFlags::empty();
        libredox::call::call_rw(self.fd.raw(), payload, flags, words)
            .map(|result| result as u64)
            .map_err(Error::of(action))
    }

    pub(crate) fn fd(&self) -> usize {
        self.fd.raw()
    }

    /// A call has made this handle.
    pub(crate) fn add_handle(&self, handle: u32) {
        self.handles.add(handle);
    }

    /// Lets go of a handle for one of its buffers. A signal does not stop this: nobody would try
    /// again.
    pub(crate) fn close_handle(&self, handle: u32) -> Result<()> {
        self.handles.release(handle, || {
            loop {
                match self.call("close a handle", Call::Close { handle }) {
                    Err(error) if error.errno() == EINTR => {}
                    result => return result.map(|_| ()),
                }
            }
        })
    }
}

impl Card {
    /// Opens a node, and greets the server: from then on the open is this process's. One that is
    /// nobody's is dropped where many are opened and not used.
    ///
    /// # Errors
    ///
    /// ENODEV where no gemd runs; EMFILE; EINVAL where the server does not speak this protocol.
    pub fn open(node: Node) -> Result<Self> {
        Self::open_at(node.path())
    }

    /// Opens a node at another path, where the server has another scheme name.
    ///
    /// # Errors
    ///
    /// As [`Card::open`], and ENOENT.
    pub fn open_at(path: &str) -> Result<Self> {
        let fd = Fd::open(path, O_RDWR | O_CLOEXEC, 0).map_err(Error::of("open the node"))?;
        let card = Self::from_fd(fd);
        card.features()?;
        Ok(card)
    }

    /// A card of a node's fd that came some other way. The first call on it says whose it is, if
    /// there was none yet.
    pub fn from_fd(fd: Fd) -> Self {
        Self {
            node: Arc::new(OpenNode {
                fd,
                handles: Handles::default(),
            }),
        }
    }

    /// The node's fd, for raw calls and for event queues: it is readable when there are
    /// [events](Card::events).
    pub fn raw_fd(&self) -> usize {
        self.node.fd()
    }

    /// What the server can do.
    ///
    /// # Errors
    ///
    /// EINVAL where the server does not speak this protocol.
    pub fn features(&self) -> Result<Features> {
        let version = VERSION;
        let answer = self
            .node
            .call("greet the server", Call::Hello { version })?;
        Ok(Hello::unpack(answer).features)
    }

    /// A new cached buffer of `size` bytes, rounded up to pages, that reads as zero.
    ///
    /// # Errors
    ///
    /// EINVAL for 0; ENOMEM, EMFILE at the limits (one buffer's size has one, too).
    pub fn create(&self, size: u64) -> Result<Buffer> {
        self.create_with(size, Create::new())
    }

    /// A new buffer.
    ///
    /// # Errors
    ///
    /// As [`Card::create`], and ENODEV where there is no memory of this kind.
    pub fn create_with(&self, size: u64, create: Create) -> Result<Buffer> {
        let flags = create.flags;
        self.bring("make a buffer", Call::Create { size, flags })
    }

    /// A new buffer for `width` × `height` pixels of `bits` each (1 to 32).
    ///
    /// # Errors
    ///
    /// As [`Card::create`]; EACCES on a render node, as on Linux.
    pub fn create_dumb(&self, width: u32, height: u32, bits: u32) -> Result<Dumb> {
        let made = drm::create_dumb(self, width, height, bits)?;
        let pages = made.size / crate::PAGE_SIZE as u64;
        Ok(Dumb {
            // At most 2^31 pages: the server's limit on one object.
            buffer: self.own(made.handle, pages as u32),
            width,
            height,
            bits,
            pitch: made.pitch,
        })
    }

    /// The buffer that somebody gave this name.
    ///
    /// # Errors
    ///
    /// ENOENT; EACCES on a render node and where this open is not authenticated.
    pub fn open_name(&self, name: Name) -> Result<Buffer> {
        let name = name.get();
        self.bring("open a buffer by name", Call::Open { name })
    }

    /// An fd on the object of this name, without a handle.
    ///
    /// # Errors
    ///
    /// As [`Card::open_name`].
    pub fn open_name_fd(&self, name: Name, rights: Rights) -> Result<ObjectFd> {
        let path = alloc::format!("name/{name}");
        let fd = libredox::call::openat(self.raw_fd(), path, rights.open_flags(), 0);
        fd.map(|fd| ObjectFd::from_fd(Fd::new(fd)))
            .map_err(Error::of("open an object by name"))
    }

    /// The buffer behind an object fd.
    ///
    /// # Errors
    ///
    /// EACCES for a read-only fd; EINVAL for an fd of another kind; EXDEV for one of another
    /// scheme.
    pub fn import(&self, fd: &ObjectFd) -> Result<Buffer> {
        let [number, flags, _] = Call::Import.encode();
        let fds: &[usize] = &[self.raw_fd(), fd.raw_fd()];
        let (handle, pages) = self.node.handles.import(|| {
            let empty = &mut [];
            let answer = libredox::call::call_rw(fds, empty, CallFlags::empty(), &[number, flags]);
            let answer = answer.map_err(Error::of("import an object"))?;
            let Sized { handle, pages } = Sized::unpack(answer as u64);
            Ok((handle, pages))
        })?;
        Ok(Buffer::new(self.node.clone(), handle, pages))
    }

    /// This open's magic number.
    ///
    /// # Errors
    ///
    /// EACCES on a render node.
    pub fn magic(&self) -> Result<Magic> {
        let answer = self.node.call("get a magic number", Call::GetMagic)?;
        Ok(Magic(answer as u32))
    }

    /// As master: lets the open that this magic number belongs to use names.
    ///
    /// # Errors
    ///
    /// EACCES where this open is not master, EINVAL for a number that is nobody's.
    pub fn authenticate(&self, Magic(magic): Magic) -> Result<()> {
        self.node
            .call("authenticate a client", Call::AuthMagic { magic })?;
        Ok(())
    }

    /// The value of a limit.
    ///
    /// # Errors
    ///
    /// EINVAL where the server does not know this limit.
    pub fn limit(&self, limit: Limit) -> Result<u64> {
        let word = self.node.call("read a limit", Call::GetLimit { limit })?;
        Ok(Limit::unpack(word))
    }

    /// As root: another limit from now on. What clients have beyond it stays theirs; only what is
    /// new is refused.
    ///
    /// # Errors
    ///
    /// EACCES for others than root; EINVAL for a value out of the limit's range.
    pub fn set_limit(&self, limit: Limit, value: u64) -> Result<()> {
        self.node
            .call("set a limit", Call::SetLimit { limit, value })?;
        Ok(())
    }

    /// As root: takes everything from an open, by its number in `clients`: its handles are closed
    /// and its calls answer ENODEV from now on. What its client has mapped stays mapped, and
    /// charged to the client's user, until the client unmaps it or ends; object fds live on.
    ///
    /// # Errors
    ///
    /// EACCES for others than root; ENOENT where there is no such open.
    pub fn revoke(&self, client: u64) -> Result<()> {
        self.node.call("revoke an open", Call::Revoke { client })?;
        Ok(())
    }

    /// A call that makes a new handle.
    fn bring(&self, action: &'static str, call: Call) -> Result<Buffer> {
        let Sized { handle, pages } = Sized::unpack(self.node.call(action, call)?);
        Ok(self.own(handle, pages))
    }

    /// The buffer of a handle that a call has just made.
    fn own(&self, handle: u32, pages: u32) -> Buffer {
        Buffer::of_call(&self.node, handle, pages)
    }
}
