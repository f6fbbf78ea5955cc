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
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::fstat;

use super::call::ClientId;
use super::files::{Description, FdTable};

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

    /// The last copy is closed. Whether `token` was a parcel's.
    pub(crate) fn hang_up(&mut self, token: u64) -> bool {
        let Some(parcel) = self.parcels.remove(&token) else {
            return false;
        };
        self.by_key.remove(&parcel.key);
        if let Entry::Occupied(mut made) = self.made.entry(parcel.maker) {
            *made.get_mut() -= 1;
            if *made.get() == 0 {
                made.remove();
            }
        }
        true
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
