//! What every file can do, and opening them.
//!
//! One function for each kind of file says what each operation does to it, with the errno of
//! docs/wire.md for what it cannot do. Opening a path from the root needs nothing and gives
//! nothing away: who asked is known only with the first call on the file.

use core::mem::offset_of;

use gem::{Node, ObjectFdId, OpenId, Rights};
use gem_wire::path::Path;
use syscall::data::Stat;
use syscall::error::{EACCES, EEXIST, EINVAL, EISDIR, ENODEV, ENOENT, ENOTDIR, EOPNOTSUPP};
use syscall::flag::{MODE_CHR, MODE_DIR, MODE_FILE};

use super::text::{Directory, Listing, Text};
use super::{File, NodeFile, Reply, Server, Stop, name};
use crate::answer::{Answer, Errno};
use crate::authority::Right;
use crate::payload::Payload;
use crate::platform::Platform;
use crate::sqe::{OpenFlags, Operation, Request};

/// What a client is told of the page size (`st_blksize`).
const BLOCK_SIZE: u32 = gem::units::PAGE_SIZE as u32;

impl<P: Platform> Server<P> {
    /// Opens a path below the root directory. Who asks is not known here: on a full Redox it is
    /// the name space manager, whoever it asks for.
    pub(super) fn open_from_root(&mut self, path: Path, flags: OpenFlags) -> Reply {
        let rights = Rights {
            write: flags.contains(OpenFlags::WRITE),
        };
        let file = match path {
            Path::Root => File::Root,
            Path::Clients => File::Clients,
            Path::Card => File::Node(NodeFile::new(Node::Primary, rights)),
            Path::Render => File::Node(NodeFile::new(Node::Render, rights)),
            Path::Stats => File::Text(Text::Stats, Listing::default()),
            Path::Objects => File::Text(Text::Objects, Listing::default()),
            // Numbers begin at 1. Whether there is such an open is for nobody to know but its user,
            // and who that is only a read tells.
            Path::Client(0) => return Err(Errno(ENOENT).into()),
            Path::Client(number) => File::Text(Text::Client(number), Listing::default()),
            Path::Number(_) => return Err(Errno(ENOENT).into()),
            // The authority for a name is a primary node's fd, not the right to open paths.
            Path::Name(_) => return Err(Errno(EACCES).into()),
        };
        self.open_file(file, flags)
    }

    /// Opens a path relative to a node: an object by its global name.
    pub(super) fn open_from_node(&mut self, open: OpenId, path: Path, flags: OpenFlags) -> Reply {
        let Path::Name(raw) = path else {
            return Err(Errno(ENOTDIR).into());
        };
        self.allowed(open, Right::Names)?;
        refuse_impossible(flags, false)?;
        let rights = Rights {
            write: flags.contains(OpenFlags::WRITE),
        };
        let object = self.device.export_name(open, name(raw)?, rights)?;
        self.object_file(open, object)
    }

    /// Gives the file a number, if it can be opened like this.
    pub(super) fn open_file(&mut self, file: File, flags: OpenFlags) -> Reply {
        let directory = matches!(file, File::Root | File::Clients);
        let readable_only = !matches!(file, File::Node(..));
        refuse_impossible(flags, directory)?;
        if readable_only && flags.contains(OpenFlags::WRITE) {
            return Err(Errno(EACCES).into());
        }
        let positioned = matches!(file, File::Text(..));
        let id = self.files.insert(file)?;
        self.drops();
        Ok(Answer::File { id, positioned })
    }

    /// What a node can do whose it may be. `client` is its open's number, 0 while it is nobody's.
    pub(super) fn on_any_node(&mut self, node: Node, client: u64, request: &mut Request) -> Reply {
        let (path, mode) = match node {
            Node::Render => ("/scheme/gem/renderD128", MODE_CHR | 0o666),
            Node::Primary => ("/scheme/gem/card0", MODE_CHR | 0o660),
        };
        match request.operation {
            Operation::Stat => stat(&mut request.payload, mode, client, 0),
            // Nobody's open has no handle on anything.
            Operation::Map { .. } => Err(Errno(EACCES).into()),
            Operation::Fpath => fpath(&mut request.payload, format_args!("{path}")),
            Operation::Read { wait, .. } => self.read_events(wait, request),
            Operation::Watch { read } => Ok(self.watch(request.fd, read)),
            Operation::Write(_) | Operation::Size => Err(Errno(EINVAL).into()),
            Operation::Entries(_) => Err(Errno(ENOTDIR).into()),
            operation => common(operation),
        }
    }

    pub(super) fn on_any_object(&mut self, object: ObjectFdId, request: &mut Request) -> Reply {
        let info = self.device.object_fd(object)?;
        let number = info.object;
        match request.operation {
            Operation::Stat => {
                let mode = MODE_FILE | if info.rights.write { 0o600 } else { 0o400 };
                stat(&mut request.payload, mode, number, info.pages.bytes())
            }
            Operation::Fpath => fpath(
                &mut request.payload,
                format_args!("/scheme/gem/object/{number}"),
            ),
            Operation::Size => Ok(Answer::Value(info.pages.bytes())),
            Operation::Sync { since } => self.sync(object, since, request),
            Operation::Entries(_) | Operation::Open(..) => Err(Errno(ENOTDIR).into()),
            operation => common(operation),
        }
    }

    pub(super) fn on_directory(&mut self, directory: Directory, request: &mut Request) -> Reply {
        match (directory, request.operation) {
            (Directory::Root, Operation::Open(path, flags)) => self.open_from_root(path, flags),
            (Directory::Clients, Operation::Open(Path::Number(id), flags)) => {
                self.open_from_root(Path::Client(id), flags)
            }
            (Directory::Clients, Operation::Open(Path::Root, flags)) => {
                self.open_file(File::Clients, flags)
            }
            (Directory::Clients, Operation::Open(..)) => Err(Errno(ENOENT).into()),
            (_, Operation::Entries(after)) => {
                self.entries(directory, after, request.caller, &mut request.payload)
            }
            (_, Operation::Stat) => stat(&mut request.payload, MODE_DIR | 0o555, 0, 0),
            (_, Operation::Fpath) => fpath(
                &mut request.payload,
                format_args!("/scheme/gem/{}", directory.path()),
            ),
            (_, Operation::Read { .. } | Operation::Write(_)) => Err(Errno(EISDIR).into()),
            (_, Operation::Size) => Err(Errno(EINVAL).into()),
            (_, Operation::Map { .. }) => Err(Errno(ENODEV).into()),
            (_, operation) => common(operation),
        }
    }

    pub(super) fn on_text(&mut self, text: Text, request: &mut Request) -> Reply {
        match request.operation {
            Operation::Read { offset, .. } => {
                self.read_text(request.fd, offset, request.caller, &mut request.payload)
            }
            Operation::Write(_) => Err(Errno(EACCES).into()),
            Operation::Stat => stat(&mut request.payload, MODE_FILE | 0o444, 0, 0),
            Operation::Fpath => fpath(
                &mut request.payload,
                format_args!("/scheme/gem/{}", text.path()),
            ),
            Operation::Size => Err(Errno(EINVAL).into()),
            Operation::Entries(_) | Operation::Open(..) => Err(Errno(ENOTDIR).into()),
            Operation::Map { .. } => Err(Errno(ENODEV).into()),
            operation => common(operation),
        }
    }
}

/// What is the same for every file.
fn common(operation: Operation) -> Reply {
    match operation {
        Operation::Sync { .. } | Operation::StatusFlags | Operation::Unmap { .. } => {
            Ok(Answer::DONE)
        }
        Operation::Export(_) | Operation::Kick | Operation::Shutdown => Err(Errno(EINVAL).into()),
        _ => Err(Errno(EOPNOTSUPP).into()),
    }
}

fn refuse_impossible(flags: OpenFlags, directory: bool) -> Result<(), Stop> {
    if flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE) {
        Err(Errno(EEXIST).into())
    } else if flags.contains(OpenFlags::DIRECTORY) && !directory {
        Err(Errno(ENOTDIR).into())
    } else {
        Ok(())
    }
}

/// A `Stat` into the payload; EINVAL where it does not fit.
fn stat(payload: &mut Payload, mode: u16, number: u64, size: u64) -> Reply {
    if payload.len() < size_of::<Stat>() {
        return Err(Errno(EINVAL).into());
    }
    payload.put(0, &stat_bytes(mode, number, size));
    Ok(Answer::DONE)
}

/// A `Stat` as bytes. Field by field, because there is room between the fields of the struct, and
/// what lies there in our memory is nothing for clients.
fn stat_bytes(mode: u16, number: u64, size: u64) -> [u8; size_of::<Stat>()] {
    let mut bytes = [0; size_of::<Stat>()];
    let mut put = |offset: usize, value: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(offset).zip(value) {
            *to = *from;
        }
    };
    put(offset_of!(Stat, st_ino), &number.to_ne_bytes());
    put(offset_of!(Stat, st_mode), &mode.to_ne_bytes());
    put(offset_of!(Stat, st_nlink), &1_u32.to_ne_bytes());
    put(offset_of!(Stat, st_size), &size.to_ne_bytes());
    put(offset_of!(Stat, st_blksize), &BLOCK_SIZE.to_ne_bytes());
    // In units of 512 bytes, as everywhere.
    put(offset_of!(Stat, st_blocks), &(size / 512).to_ne_bytes());
    bytes
}

/// A path into the payload, cut where it ends; answers the length that was written.
fn fpath(payload: &mut Payload, path: core::fmt::Arguments<'_>) -> Reply {
    let path = alloc::fmt::format(path);
    let written = payload.put(0, path.as_bytes());
    Ok(Answer::Value(written as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_its_fields_and_zeros_between_them() {
        let bytes = stat_bytes(0x1234, 0x0102_0304_0506_0708, 10 << 12);
        let mut stat = Stat::default();
        stat.copy_from_slice(&bytes);
        let Stat {
            st_ino: 0x0102_0304_0506_0708,
            st_mode: 0x1234,
            st_nlink: 1,
            st_size: 40960,
            st_blksize: 4096,
            st_blocks: 80,
            ..
        } = stat
        else {
            panic!("{stat:?}");
        };
        for (field, end) in [
            (offset_of!(Stat, st_mode) + 2, offset_of!(Stat, st_nlink)),
            (
                offset_of!(Stat, st_blksize) + 4,
                offset_of!(Stat, st_blocks),
            ),
        ] {
            assert!(field < end, "there is room");
            assert!(bytes[field..end].iter().all(|&byte| byte == 0));
        }
    }
}
