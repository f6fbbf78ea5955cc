//! One request, one attempt: who is asking, may they, what is done, what is answered.
//!
//! The server owns the device and the table of open files, and knows which file is what. An
//! attempt either succeeds, changes nothing and says why, or changes nothing and says what it
//! waits for; the executor repeats those from the start. Handlers are split by what they serve:
//! `native` and `drm` for calls on nodes, `files` for what every file can do, `memory` for
//! mappings, `userptr` for clients' own pages, `releases` for answers that wait until those are back,
//! `events` for what clients wait for, `rule` for what root does, `text` for what people read and
//! `lines` for what it says.

mod drm;
mod events;
mod files;
mod lines;
mod memory;
mod native;
mod releases;
mod rule;
mod text;
mod userptr;

use alloc::collections::BTreeMap;

use gem::pages::Ticket;
use gem::units::{Identity, Pid, Uid};
use gem::{Config, Device, Node, ObjectFdId, ObjectId, OpenId, Rights};
use syscall::error::{EACCES, EBADF, EINVAL, EMFILE, ENOENT, EOPNOTSUPP};

use crate::answer::{Answer, Errno};
use crate::authority;
use crate::fds::{FdId, Full};
use crate::files::Files;
use crate::platform::Platform;
use crate::sqe::{Operation, Request};
pub use events::Happened;
use events::{News, Watch};
use releases::Releases;
use text::{Listing, Text};
use userptr::Begun;
pub use userptr::Obtain;

pub use rule::{get as get_limit, set as set_limit};

/// The most files that may be open at a time, all clients together. A node costs nothing but its
/// slot until its first call.
pub const MAX_FILES: usize = 1 << 20;

/// The most files that nobody has used yet. One more, and the oldest is dropped.
pub const MAX_NOBODYS: usize = 1 << 10;

/// Why an attempt came to nothing. Nothing has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// It will not be done.
    Refused(Errno),
    /// It can be done when this has happened.
    Wait(Cause),
    /// It has taken long enough: others first, then go on.
    Turn,
}

/// What a request waits for. That it has happened means only that the request is worth another
/// attempt.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Cause {
    /// The platform has finished this work.
    Finished(Ticket),
    /// There are events to read on this file.
    Readable(FdId),
    /// This object was idle.
    Idle(ObjectId),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl From<gem::Error> for Stop {
    fn from(error: gem::Error) -> Self {
        match error {
            gem::Error::NotReady(ticket) => Self::Wait(Cause::Finished(ticket)),
            gem::Error::Unfinished => Self::Turn,
            error => {
                log::debug!("refused: {error}");
                Self::Refused(error.into())
            }
        }
    }
}

impl From<Full> for Stop {
    fn from(Full: Full) -> Self {
        Self::Refused(Errno(EMFILE))
    }
}

type Reply = Result<Answer, Stop>;

/// What an open file is.
enum File {
    /// The scheme's root directory.
    Root,
    /// The directory of opens.
    Clients,
    /// A DRM node.
    Node(NodeFile),
    /// An object.
    Object(ObjectFdId),
    /// Something to read, and how far that has come.
    Text(Text, Listing),
    /// The daemon's own way to its socket thread; no client ever has one.
    Control,
}

/// An open node, as far as the memory manager need not know.
struct NodeFile {
    node: Node,
    /// Whether it was opened for writing.
    rights: Rights,
    /// `None` until its first call says whose it is.
    open: Option<OpenId>,
    watch: Watch,
}

impl NodeFile {
    fn new(node: Node, rights: Rights) -> Self {
        Self {
            node,
            rights,
            open: None,
            watch: Watch::default(),
        }
    }
}

/// The state of the daemon.
pub struct Server<P: Platform> {
    device: Device<P::Pages>,
    platform: P,
    files: Files<File>,
    /// The file of each open, for whoever wants something of an open by its number.
    nodes: BTreeMap<OpenId, FdId>,
    /// What has happened since the executor asked.
    news: News,
    /// How many requests wait: the executor counts them.
    pub(crate) waiting: usize,
    /// Acquisitions that requests wait for, by their tags.
    taking: BTreeMap<u32, Begun>,
    /// Acquisitions that nobody waits for, and of which the platform has something yet.
    abandoned: BTreeMap<Ticket, gem::Acquisition>,
    /// Answers that are to come when pages are back with their client.
    releases: Releases,
    obtain: Option<Obtain>,
    leaving: bool,
}

impl<P: Platform> Server<P> {
    /// A server without any open file.
    pub fn new(config: Config, platform: P, pages: P::Pages) -> Self {
        Self {
            device: Device::new(config, pages, gem::NoDriver),
            platform,
            files: Files::new(MAX_FILES, MAX_NOBODYS),
            nodes: BTreeMap::new(),
            news: News::default(),
            waiting: 0,
            taking: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            releases: Releases::default(),
            obtain: None,
            leaving: false,
        }
    }

    /// A file for the scheme's root: what the name space is given.
    pub fn root(&mut self) -> Result<FdId, Full> {
        self.files.insert_own(File::Root)
    }

    /// A file for the daemon's own threads: what KICK and SHUTDOWN are called on.
    pub fn control(&mut self) -> Result<FdId, Full> {
        self.files.insert_own(File::Control)
    }

    /// Whether the daemon was told to leave.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The state of the memory manager, to look at.
    pub fn device(&self) -> &Device<P::Pages> {
        &self.device
    }

    /// The state of the memory manager, for whoever drives hardware.
    pub fn device_mut(&mut self) -> &mut Device<P::Pages> {
        &mut self.device
    }

    /// Does what the request asks, if it may and can be done now.
    pub fn attempt(&mut self, request: &mut Request) -> Reply {
        if let Some(reply) = self.owed(request.tag) {
            return reply;
        }
        let reply = self.attempt_now(request);
        self.hold_back(request.tag, reply)
    }

    fn attempt_now(&mut self, request: &mut Request) -> Reply {
        if let Operation::SendFds { word, count } = request.operation {
            return self.on_sent(request, word, count);
        }
        let Some((file, owned)) = self.files.look(request.fd) else {
            return Err(Errno(EBADF).into());
        };
        if !owned && claims(file, request.operation) {
            self.bind(request.fd, request.caller)?;
            return self.attempt_now(request);
        }
        match *file {
            File::Node(NodeFile {
                rights,
                open: Some(open),
                ..
            }) => self.on_node(open, rights, request),
            File::Node(NodeFile { node, .. }) => self.on_any_node(node, 0, request),
            File::Object(object) => self.on_object(object, request),
            File::Root => self.on_directory(text::Directory::Root, request),
            File::Clients => self.on_directory(text::Directory::Clients, request),
            File::Text(text, _) => self.on_text(text, request),
            File::Control => self.on_control(request),
        }
    }

    /// The kernel has no more use for this file, nor for anything mapped through it.
    pub fn close(&mut self, fd: FdId) {
        match self.files.remove(fd) {
            Some(File::Node(NodeFile {
                open: Some(open), ..
            })) => {
                self.nodes.remove(&open);
                self.device.close(open);
            }
            Some(File::Object(object)) => self.device.close_object_fd(object),
            _ => {}
        }
        self.nobody_waits();
    }

    fn on_node(&mut self, open: OpenId, rights: Rights, request: &mut Request) -> Reply {
        self.refuse_if_revoked(open, request.operation)?;
        match request.operation {
            Operation::Native(call) => self.native(open, request.caller, call),
            Operation::Drm(call) => self.drm(open, request.caller, call, &mut request.payload),
            Operation::Import { object, packed } => self.import(open, object, packed),
            // As on Linux, where calls need no right to write, and mappings do.
            Operation::Map { write: true, .. } if !rights.write => Err(Errno(EACCES).into()),
            Operation::Map {
                offset,
                size,
                again,
                ..
            } => self.map_node(open, request.caller, offset, size, again),
            Operation::Unmap { offset, size } => {
                self.unmap_node(open, request.caller, offset, size)
            }
            Operation::Export(export) => self.export(open, export),
            Operation::Open(path, flags) => self.open_from_node(open, path, flags),
            _ => {
                let stats = self.device.open_stats(open)?;
                self.on_any_node(stats.node, stats.client, request)
            }
        }
    }

    fn on_object(&mut self, object: ObjectFdId, request: &mut Request) -> Reply {
        match request.operation {
            Operation::Map {
                offset,
                size,
                write,
                ..
            } => self.map_object(object, request.caller, offset, size, write),
            Operation::Unmap { size, .. } => self.unmap_object(object, request.caller, size),
            Operation::Read { offset, .. } => {
                self.read_object(object, offset, &mut request.payload)
            }
            Operation::Write(offset) => self.write_object(object, offset, &mut request.payload),
            _ => self.on_any_object(object, request),
        }
    }

    fn on_control(&mut self, request: &mut Request) -> Reply {
        match request.operation {
            Operation::Kick => {
                let pages = self.device.source_mut();
                self.platform.finished(pages, &mut self.news.finished);
                self.settle_abandoned();
                self.settle_releases();
                let relieved = self.device.relieve();
                // The worker itself waits for this answer.
                self.nobody_waits();
                relieved?;
                Ok(Answer::DONE)
            }
            Operation::Shutdown => {
                self.leaving = true;
                Ok(Answer::DONE)
            }
            _ => Err(Errno(EOPNOTSUPP).into()),
        }
    }

    /// The file's first use: from now on it is the caller's, and so is a node's open.
    #[cold]
    fn bind(&mut self, fd: FdId, caller: Pid) -> Result<(), Stop> {
        let identity = self.identity(caller)?;
        let Some(File::Node(NodeFile { node, .. })) = self.files.get_mut(fd) else {
            return Ok(self.files.bind(fd, identity.uid)?);
        };
        let node = *node;
        let open = self.device.open(node)?;
        if let Err(stop) = self.introduce(fd, open, node, identity) {
            self.device.close(open);
            return Err(stop);
        }
        if let Some(File::Node(file)) = self.files.get_mut(fd) {
            file.open = Some(open);
            self.nodes.insert(open, fd);
        }
        Ok(())
    }

    fn introduce(
        &mut self,
        fd: FdId,
        open: OpenId,
        node: Node,
        identity: Identity,
    ) -> Result<(), Stop> {
        self.device.bind(open, identity)?;
        self.files.bind(fd, identity.uid)?;
        if node == Node::Primary && !self.device.has_master() {
            self.device.set_master(open)?;
        }
        Ok(())
    }

    /// Whose process the caller is; EACCES where it is gone.
    pub fn user(&mut self, caller: Pid) -> Result<Uid, Errno> {
        let identity = self.platform.identity(caller).ok_or(Errno(EACCES))?;
        Ok(identity.uid)
    }

    /// Whose request on this file it is, as [`Server::user`] says; of the process whose node it is
    /// the server knows that already.
    pub fn asker(&mut self, fd: FdId, caller: Pid) -> Result<Uid, Errno> {
        if let Some(File::Node(NodeFile {
            open: Some(open), ..
        })) = self.files.get_mut(fd)
            && let Some(owner) = self.device.identity(*open)
            && owner.pid == caller
        {
            return Ok(owner.uid);
        }
        self.user(caller)
    }

    fn identity(&mut self, caller: Pid) -> Result<Identity, Stop> {
        self.platform
            .identity(caller)
            .ok_or(Stop::Refused(Errno(EACCES)))
    }

    fn allowed(&self, open: OpenId, right: authority::Right) -> Result<(), Stop> {
        Ok(authority::check(&self.device, open, right)?)
    }
}

/// Whether asking this makes a file the caller's. What anybody does with an fd that came from
/// elsewhere, to see what it is or to map it, does not: an open would be bound to whoever was given
/// it, and whoever gave it could act with it as that user.
fn claims(file: &File, operation: Operation) -> bool {
    use Operation::*;
    match file {
        File::Node(..) => matches!(
            operation,
            Native(_) | Drm(_) | Import { .. } | Export(_) | Open(..)
        ),
        _ => matches!(operation, Read { .. } | Entries(_) | Open(..)),
    }
}

/// A number of a client's that must be a handle, for calls that look one up.
fn handle(raw: u32) -> Result<gem::units::Handle, Stop> {
    gem::units::Handle::new(raw).ok_or(Stop::Refused(Errno(ENOENT)))
}

/// A number of a client's that must be a handle, for calls that close one.
fn handle_to_close(raw: u32) -> Result<gem::units::Handle, Stop> {
    gem::units::Handle::new(raw).ok_or(Stop::Refused(Errno(EINVAL)))
}

fn name(raw: u32) -> Result<gem::units::Name, Stop> {
    gem::units::Name::new(raw).ok_or(Stop::Refused(Errno(ENOENT)))
}
