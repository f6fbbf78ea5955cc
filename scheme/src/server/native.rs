//! Native calls: words in, one word out.
//!
//! Each arm asks `authority`, calls one method of the device and packs its result; nothing is
//! decided or kept here. Results never have an errno's low half (`gem_wire::native`). Import and
//! export are here as well, in whichever form they came.

use gem::units::{Handle, PageCount, Pid};
use gem::user::UserSource;
use gem::{CreateInfo, OpenId};
use gem_wire::limit::Limit;
use gem_wire::native::{Advice, Call, CreateFlags, Features, Hello, Sized, VERSION};
use gem_wire::path::Export;
use syscall::error::{EBADF, EINVAL};

use super::{File, Reply, Server, Stop, handle, handle_to_close, name, rule};
use crate::answer::{Answer, Errno};
use crate::authority::Right;
use crate::fds::FdId;
use crate::platform::Platform;
use gem::pages::Caching;

/// What this server can do on every machine.
const FEATURES: Features = Features::BUFFERS
    .union(Features::NAMES)
    .union(Features::PRIME)
    .union(Features::EVENTS)
    .union(Features::ADVICE);

impl<P: Platform> Server<P> {
    pub(super) fn native(&mut self, open: OpenId, caller: Pid, call: Call) -> Reply {
        self.allowed(open, Right::of_native(&call))?;
        let value = match call {
            Call::Hello { version: 0 } => return Err(Errno(EINVAL).into()),
            Call::Hello { .. } => Hello {
                version: VERSION,
                features: self.features(),
            }
            .pack(),
            Call::Create { size, flags } => sized(self.device.create(open, size, info(flags))?)?,
            Call::Close { handle } => {
                self.device.close_handle(open, handle_to_close(handle)?)?;
                0
            }
            Call::Flink { handle: raw } => self.device.flink(open, handle(raw)?)?.get().into(),
            Call::Open { name: raw } => sized(self.device.open_name(open, name(raw)?)?)?,
            Call::Map { handle: raw } => self.device.map_offset(open, handle(raw)?)?.get(),
            Call::Size { handle: raw } => self.device.size(open, handle(raw)?)?.get(),
            Call::Userptr {
                address,
                pages,
                flags,
            } => self.claim(open, caller, address, pages, flags)?,
            Call::GetMagic => self.device.magic(open)?.get().into(),
            Call::AuthMagic { magic } => {
                self.authenticate(magic)?;
                0
            }
            Call::Advise {
                handle: raw,
                advice,
            } => self
                .device
                .advise(open, handle(raw)?, as_meant(advice))?
                .into(),
            Call::GetLimit { limit } => Limit::pack(rule::get(self.device.limits(), limit)),
            Call::SetLimit { limit, value } => {
                self.set_limit(limit, value)?;
                0
            }
            Call::Revoke { client } => {
                self.revoke(client)?;
                0
            }
            // Comes as an operation of its own, with two files.
            Call::Import => return Err(Errno(EINVAL).into()),
        };
        Ok(Answer::Value(value))
    }

    fn features(&self) -> Features {
        if self.device.source().takes_user_pages() {
            FEATURES | Features::USERPTR
        } else {
            FEATURES
        }
    }

    /// A handle on the object behind another file: PRIME import.
    pub(super) fn import(&mut self, open: OpenId, object: FdId, packed: bool) -> Reply {
        self.allowed(open, Right::Every)?;
        let object = match self.files.get_mut(object) {
            Some(File::Object(object)) => *object,
            // As for a file that is no dma-buf on Linux.
            Some(_) => return Err(Errno(EINVAL).into()),
            None => return Err(Errno(EBADF).into()),
        };
        let (handle, pages) = self.device.import(open, object)?;
        let value = if packed {
            sized((handle, pages))?
        } else {
            handle.get().into()
        };
        Ok(Answer::Value(value))
    }

    /// A file for one of this node's objects: PRIME export.
    pub(super) fn export(&mut self, open: OpenId, export: Export) -> Reply {
        self.allowed(open, Right::Every)?;
        let rights = gem::Rights {
            write: export.write,
        };
        let object = self.device.export(open, handle(export.handle)?, rights)?;
        self.object_file(open, object)
    }

    /// Gives a new object fd its file, or takes it back.
    pub(super) fn object_file(&mut self, open: OpenId, object: gem::ObjectFdId) -> Reply {
        let owner = self.device.identity(open).ok_or(Errno(EBADF))?;
        let inserted = self.files.insert_for(owner.uid, File::Object(object));
        self.drops();
        match inserted {
            Ok(id) => Ok(Answer::File {
                id,
                positioned: true,
            }),
            Err(full) => {
                self.device.close_object_fd(object);
                Err(full.into())
            }
        }
    }

    pub(super) fn authenticate(&mut self, magic: u32) -> Result<(), Stop> {
        let magic = gem::Magic::new(magic).ok_or(Errno(EINVAL))?;
        Ok(self.device.authenticate(magic)?)
    }
}

pub(super) fn as_meant(advice: Advice) -> gem::Advice {
    match advice {
        Advice::WillNeed => gem::Advice::WillNeed,
        Advice::DontNeed => gem::Advice::DontNeed,
    }
}

fn info(flags: CreateFlags) -> CreateInfo {
    let caching = if flags.contains(CreateFlags::WRITE_COMBINING) {
        Caching::WriteCombining
    } else if flags.contains(CreateFlags::UNCACHED) {
        Caching::Uncached
    } else {
        Caching::WriteBack
    };
    CreateInfo {
        caching,
        contiguous: flags.contains(CreateFlags::CONTIGUOUS),
    }
}

/// `handle | pages << 32`. Objects are never larger than fits (`Limits::object`).
fn sized((handle, pages): (Handle, PageCount)) -> Result<u64, Stop> {
    Sized::pack(handle.get(), pages.get()).ok_or(Stop::Refused(Errno(EINVAL)))
}
