//! What people and tools read: directories, totals, one text per open, one line per object.
//!
//! A reader sees what belongs to its own uid, root sees everything; physical addresses are shown
//! to root only. What the lines say is the business of `lines`. `stats` and the text of an open are made anew for each read and cut at the offset,
//! so that an open file holds no text. `objects` can be long: it is read from start to end, a
//! chunk at a time, and a long stretch of objects that the reader may not see is walked in steps
//! that give others their turn.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use core::mem::take;

use gem::units::{Identity, Pid, Uid};
use gem::{Account, ObjectCursor, OpenStats};
use gem_wire::path::Path;
use syscall::dirent::{DirEntry, DirentBuf, DirentHeader, DirentKind};
use syscall::error::{EINVAL, ENOENT};

use super::{File, Reply, Server, Stop, lines};
use crate::answer::{Answer, Errno};
use crate::authority::{may_see, sees_only, sees_physical};
use crate::fds::FdId;
use crate::payload::Payload;
use crate::platform::Platform;

/// How many places of the object table are looked at before others get their turn.
const SLOTS_PER_TURN: usize = 1024;

/// A directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Directory {
    Root,
    Clients,
}

impl Directory {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Clients => "clients",
        }
    }
}

/// A text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Text {
    Stats,
    Objects,
    /// Of the open of this number, which there may not be, or not for the reader.
    Client(u64),
}

/// How far somebody has read `objects`.
#[derive(Debug, Default)]
pub(super) struct Listing {
    cursor: ObjectCursor,
    /// Lines that were made and not read to their end.
    pending: String,
    /// Where in the file `pending` begins.
    offset: u64,
    /// For whom the lines were made; `None` before the first read.
    reader: Option<Uid>,
}

impl Text {
    pub(super) fn path(self) -> String {
        match self {
            Self::Stats => String::from("stats"),
            Self::Objects => String::from("objects"),
            Self::Client(number) => format!("clients/{number}"),
        }
    }
}

impl<P: Platform> Server<P> {
    pub(super) fn read_text(
        &mut self,
        fd: FdId,
        offset: Option<u64>,
        caller: Pid,
        payload: &mut Payload,
    ) -> Reply {
        let offset = offset.ok_or(Errno(EINVAL))?;
        let reader = self.identity(caller)?;
        let text = match self.files.get_mut(fd) {
            Some(File::Text(Text::Stats, _)) => self.stats_text(reader.uid),
            Some(&mut File::Text(Text::Client(number), _)) => {
                lines::client(&self.visible_client(number, &reader)?)
            }
            Some(File::Text(Text::Objects, listing)) => {
                let mut listing = take(listing);
                let reply = self.read_objects(&mut listing, offset, &reader, payload);
                if let Some(File::Text(_, kept)) = self.files.get_mut(fd) {
                    *kept = listing;
                }
                return reply;
            }
            _ => return Err(Errno(EINVAL).into()),
        };
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| text.as_bytes().get(offset..));
        let length = payload.put(0, rest.unwrap_or_default());
        Ok(Answer::Value(length as u64))
    }

    /// Reads `objects` on from where the reader is, or from the start again.
    fn read_objects(
        &mut self,
        listing: &mut Listing,
        offset: u64,
        reader: &Identity,
        payload: &mut Payload,
    ) -> Reply {
        let is_anothers = listing.reader.is_some_and(|uid| uid != reader.uid);
        if offset == 0 && (listing.offset != 0 || is_anothers) {
            *listing = Listing::default();
        } else if offset != listing.offset || is_anothers {
            return Err(Errno(EINVAL).into());
        }
        if listing.reader.is_none() {
            listing.reader = Some(reader.uid);
            listing.pending.push_str(lines::OBJECTS);
        }
        let mut slots = SLOTS_PER_TURN;
        while listing.pending.len() < payload.len()
            && let Some(object) = self.device.next_object(&mut listing.cursor, &mut slots)
        {
            if may_see(reader, object.owner) {
                let physical = sees_physical(reader);
                lines::object(&mut listing.pending, &object, physical);
            }
        }
        if slots == 0 && listing.pending.is_empty() {
            return Err(Stop::Turn);
        }
        let length = payload.put(0, listing.pending.as_bytes());
        listing.pending = listing.pending.split_off(length);
        listing.offset += length as u64;
        Ok(Answer::Value(length as u64))
    }

    fn stats_text(&self, reader: Uid) -> String {
        let stats = self.device.stats();
        let account = self.device.account_of(reader).copied();
        let account = account.unwrap_or(Account::new(reader));
        lines::stats(&stats, &account, self.files.count(), self.waiting)
    }

    /// What the open of this number has, if the reader may know; ENOENT says no more than that.
    fn visible_client(&self, number: u64, reader: &Identity) -> Result<OpenStats, Stop> {
        let open = self.device.client(number);
        let stats = open.and_then(|open| self.device.open_stats(open).ok());
        let visible = stats.filter(|stats| {
            let owner = stats.identity.map(|identity| identity.uid);
            owner.is_some_and(|owner| may_see(reader, owner))
        });
        Ok(visible.ok_or(Errno(ENOENT))?)
    }

    /// Directory entries after this opaque id, as many as fit.
    pub(super) fn entries(
        &mut self,
        directory: Directory,
        after: u64,
        caller: Pid,
        payload: &mut Payload,
    ) -> Reply {
        let reader = self.identity(caller)?;
        let room = payload.bytes();
        let mut buffer =
            DirentBuf::new(room, size_of::<DirentHeader>() as u16).ok_or(Errno(EINVAL))?;
        let mut full = false;
        let mut put = |id: u64, name: &str, kind| {
            let entry = DirEntry {
                inode: 0,
                next_opaque_id: id,
                name,
                kind,
            };
            full = buffer.entry(entry).is_err();
            !full
        };
        match directory {
            Directory::Root => {
                let skip = usize::try_from(after).unwrap_or(usize::MAX);
                for (index, (name, path)) in Path::ENTRIES.iter().enumerate().skip(skip) {
                    if !put(index as u64 + 1, name, kind(*path)) {
                        break;
                    }
                }
            }
            Directory::Clients => {
                let mut digits = String::new();
                for (id, _) in self.device.clients(sees_only(&reader), after) {
                    digits.clear();
                    let _ = write!(digits, "{id}");
                    if !put(id, &digits, DirentKind::Regular) {
                        break;
                    }
                }
            }
        }
        match buffer.finalize() {
            0 if full => Err(Errno(EINVAL).into()),
            length => Ok(Answer::Value(length as u64)),
        }
    }
}

fn kind(path: Path) -> DirentKind {
    match path {
        Path::Card | Path::Render => DirentKind::CharDev,
        Path::Clients | Path::Root => DirentKind::Directory,
        _ => DirentKind::Regular,
    }
}
