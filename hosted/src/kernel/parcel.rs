//! Parcels: scheme files that travel as Linux file descriptors.
//!
//! A parcel is one end of a socket pair; the kernel keeps the other, and knows with it what the
//! parcel stands for. Whoever holds the end can pass it on over any Unix socket or to a child,
//! and present it: that gives a descriptor of the same description, as often as wanted. When the
//! last copy is closed the kernel's end hangs up, and what the parcel stood for is let go.
//!
//! A presented descriptor is recognized by its inode and its socket cookie, which nobody can
//! choose.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::fstat;
use syscall::error::{EBADF, EINVAL, EMFILE, ENFILE, Error, Result};

use super::State;
use super::call::{Caller, ClientId};
use super::files::{Description, FdTable};
use super::reply::Attachment;
use crate::proto::{Op, Request};

/// What a parcel stands for.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// One file.
    File(Arc<Description>),
    /// A whole table of file descriptors, for a forked child.
    Table(FdTable<Arc<Description>>),
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    inode: u64,
    cookie: u64,
}

#[derive(Debug)]
struct Parcel {
    content: Content,
    key: Key,
    maker: ClientId,
    _end: OwnedFd,
}

/// All parcels of which a copy is open somewhere.
#[derive(Debug, Default)]
pub(crate) struct Parcels {
    parcels: HashMap<u64, Parcel>,
    by_key: HashMap<Key, u64>,
    /// How many of each maker there are.
    made: HashMap<ClientId, usize>,
}

impl Parcels {
    /// Whether `maker` may make one more, where there may be `most` in all: nobody gets more
    /// than an eighth of them.
    pub(crate) fn has_room(&self, maker: ClientId, most: usize) -> bool {
        let made = self.made.get(&maker).copied().unwrap_or(0);
        self.parcels.len() < most && made < most.div_ceil(8)
    }

    /// Makes a parcel; `watch` is told of the kernel's end. Returns the end to send.
    pub(crate) fn make(
        &mut self,
        token: u64,
        maker: ClientId,
        content: Content,
        watch: impl FnOnce(BorrowedFd<'_>) -> nix::Result<()>,
    ) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (end, sent) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let key = key(sent.as_fd())?;
        watch(end.as_fd())?;
        let parcel = Parcel {
            content,
            key,
            maker,
            _end: end,
        };
        *self.made.entry(maker).or_default() += 1;
        self.parcels.insert(token, parcel);
        self.by_key.insert(key, token);
        Ok(sent)
    }

    /// What `presented` stands for, if it is a parcel.
    pub(crate) fn open(&self, presented: BorrowedFd<'_>) -> Option<&Content> {
        let token = self.by_key.get(&key(presented).ok()?)?;
        Some(&self.parcels.get(token)?.content)
    }

    /// The last copy of the parcel that epoll knows by `token` is closed.
    pub(crate) fn hang_up(&mut self, token: u64) {
        let Some(parcel) = self.parcels.remove(&token) else {
            return;
        };
        self.by_key.remove(&parcel.key);
        if let Entry::Occupied(mut made) = self.made.entry(parcel.maker) {
            *made.get_mut() -= 1;
            if *made.get() == 0 {
                made.remove();
            }
        }
    }
}

impl State {
    /// Makes a parcel of a file, or of the whole table, and sends it.
    pub(super) fn make_parcel(&mut self, id: ClientId, caller: &Caller, op: Op, request: &Request) {
        let end = self.try_make_parcel(id, caller, op, request);
        match end {
            Ok(end) => {
                self.reply_with(caller, Ok(0), 0, &[], Some(Attachment::Owned(end)));
            }
            Err(error) => self.reply(caller, Err(error)),
        }
    }

    fn try_make_parcel(
        &mut self,
        id: ClientId,
        caller: &Caller,
        op: Op,
        request: &Request,
    ) -> Result<OwnedFd> {
        if !self.parcels.has_room(id, self.budget.parcels) {
            return Err(Error::new(ENFILE));
        }
        let content = if op == Op::Fork {
            let client = self.clients.get(&id).ok_or(Error::new(EBADF))?;
            Content::Table(client.fds.clone())
        } else {
            let fd = usize::try_from(request.fd).unwrap_or(usize::MAX);
            Content::File(self.description(caller, fd)?)
        };
        let token = self.token();
        let epoll = self.epoll.clone();
        // A hang-up is reported without being asked for; what a holder writes is nobody's.
        let watch =
            |end: BorrowedFd<'_>| epoll.add(end, EpollEvent::new(EpollFlags::empty(), token));
        let made = self.parcels.make(token, id, content, watch);
        made.map_err(|_| Error::new(EMFILE))
    }

    /// Gives a client what a parcel stands for.
    pub(super) fn open_parcel(&mut self, id: ClientId, parcel: &OwnedFd, op: Op) -> Result<usize> {
        let content = self.parcels.open(parcel.as_fd()).ok_or(Error::new(EBADF))?;
        let client = self.clients.get_mut(&id).ok_or(Error::new(EBADF))?;
        match (op, content) {
            (Op::Unparcel, Content::File(description)) => client.fds.insert(description.clone(), 0),
            (Op::Adopt, Content::Table(table)) if client.fds.is_empty() => {
                client.fds = table.clone();
                Ok(0)
            }
            _ => Err(Error::new(EINVAL)),
        }
    }
}

fn key(fd: BorrowedFd<'_>) -> nix::Result<Key> {
    Ok(Key {
        inode: fstat(fd)?.st_ino,
        cookie: cookie(fd)?,
    })
}

/// The number that Linux gives to a socket and to no other.
fn cookie(fd: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: option value and length are alive, unaliased and of the size that `length` says.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(cookie)
}
