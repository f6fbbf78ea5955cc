//! File descriptions and the tables of file descriptors that refer to them.
//!
//! Invariants: a description belongs to one scheme and one of its numbers for life. It is
//! reference-counted: file descriptors, mappings, parcels, name-space entries and calls in flight
//! hold it, and when the last one lets go the scheme gets its `CloseMsg`, once. Tables hand out
//! the lowest free number, as Redox's C library does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use syscall::error::{EBADF, EEXIST, EINVAL, EMFILE, Error, Result};
use syscall::schemev2::{NewFdFlags, Opcode, Sqe};

use super::scheme::Scheme;
use crate::user::watch::Watch;

/// The first number that a table hands out by itself: 0 to 2 belong to the standard streams.
pub(crate) const FIRST_FD: usize = 3;
/// The most file descriptors in one table, as in the kernel.
pub(crate) const FD_MAX: usize = 65_536;

/// An open file of a scheme.
#[derive(Debug)]
pub(crate) struct Description {
    scheme: Arc<Scheme>,
    number: u64,
    offset: AtomicU64,
    flags: AtomicU32,
    positioned: bool,
    notify_on_detach: AtomicBool,
    vanished: AtomicBool,
    space: Option<Space>,
}

/// The address space that a file stands for, if it does.
#[derive(Clone, Debug)]
pub(crate) enum Space {
    /// The client's who made the file.
    Of(Arc<Watch>),
    /// One that was sent by another client than the one whose it is: its pages are not that one's
    /// to give.
    NotTheSenders,
}

impl Description {
    /// What the scheme calls `number`, as answered to an open or a dup.
    ///
    /// `extra` is the answer's `NewFdFlags`; unknown bits are EINVAL, and the number is then
    /// never closed, as in the kernel.
    pub(crate) fn new(scheme: Arc<Scheme>, number: u64, flags: u32, extra: u8) -> Result<Self> {
        Self::at_offset(scheme, number, flags, extra, 0)
    }

    /// Like [`Description::new`], with an offset to start from.
    pub(crate) fn at_offset(
        scheme: Arc<Scheme>,
        number: u64,
        flags: u32,
        extra: u8,
        offset: u64,
    ) -> Result<Self> {
        let extra = NewFdFlags::from_bits(extra).ok_or(Error::new(EINVAL))?;
        Ok(Self {
            scheme,
            number,
            offset: AtomicU64::new(offset),
            flags: AtomicU32::new(flags),
            positioned: extra.contains(NewFdFlags::POSITIONED),
            notify_on_detach: AtomicBool::new(false),
            vanished: AtomicBool::new(false),
            space: None,
        })
    }

    /// A file of the scheme `spaces` that stands for a client's address space.
    pub(crate) fn of_space(spaces: Arc<Scheme>, space: Space) -> Self {
        Self {
            scheme: spaces,
            number: 0,
            offset: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            positioned: false,
            notify_on_detach: AtomicBool::new(false),
            vanished: AtomicBool::new(false),
            space: Some(space),
        }
    }

    /// The address space that it stands for, if it does.
    pub(crate) fn space(&self) -> Option<&Space> {
        self.space.as_ref()
    }

    /// Whose file it is.
    pub(crate) fn scheme(&self) -> &Arc<Scheme> {
        &self.scheme
    }

    /// What the scheme calls it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The flags of open and `F_SETFL`.
    pub(crate) fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replaces the flags.
    pub(crate) fn set_flags(&self, flags: u32) {
        self.flags.store(flags, Ordering::Relaxed);
    }

    /// The offset that a read or write without one gets: the kernel's where the scheme asked for
    /// that, and else `u64::MAX`.
    pub(crate) fn implicit_offset(&self) -> u64 {
        if self.positioned {
            self.offset()
        } else {
            u64::MAX
        }
    }

    /// Moves the offset behind `bytes` that were read or written, where the kernel keeps it.
    pub(crate) fn advance(&self, bytes: u64) {
        if self.positioned {
            self.set_offset(self.offset().saturating_add(bytes));
        }
    }

    /// The kernel's offset.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Replaces the kernel's offset.
    pub(crate) fn set_offset(&self, offset: u64) {
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// Whether the scheme wants to hear of the next descriptor that is closed.
    pub(crate) fn set_notify_on_detach(&self, notify: bool) {
        self.notify_on_detach.store(notify, Ordering::Relaxed);
    }

    /// One descriptor of process `pid` is closed: says so to a scheme that asked for it.
    pub(crate) fn detach(&self, pid: u64) {
        if self.notify_on_detach.load(Ordering::Relaxed) {
            self.scheme.send(Sqe {
                opcode: Opcode::Detach as u8,
                args: [self.number, 0, 0, 0, 0, 0],
                caller: pid,
                ..Sqe::default()
            });
        }
    }

    /// Lets go of a description that a call consumed: if this was the last reference, the scheme
    /// gets no `CloseMsg`, since the call was its notice.
    pub(crate) fn consume(self: Arc<Self>) {
        if let Some(last) = Arc::into_inner(self) {
            last.vanished.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        if self.vanished.load(Ordering::Relaxed) {
            return;
        }
        self.scheme.send(Sqe {
            opcode: Opcode::CloseMsg as u8,
            args: [self.number, 0, 0, 0, 0, 0],
            ..Sqe::default()
        });
    }
}

/// A table of file descriptors.
#[derive(Clone, Debug)]
pub(crate) struct FdTable<T> {
    slots: Vec<Option<T>>,
    /// No number from [`FIRST_FD`] up to this one is free.
    lowest_free: usize,
    used: usize,
}

impl<T> Default for FdTable<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            lowest_free: FIRST_FD,
            used: 0,
        }
    }
}

impl<T> FdTable<T> {
    /// Puts `file` at the lowest free number, `least` or above. EMFILE where the table is full.
    pub(crate) fn insert(&mut self, file: T, least: usize) -> Result<usize> {
        let from_lowest = least <= self.lowest_free;
        let mut fd = least.max(self.lowest_free);
        while self.get(fd).is_some() {
            fd += 1;
        }
        if from_lowest {
            self.lowest_free = fd;
        }
        self.insert_at(file, fd).map_err(|_| Error::new(EMFILE))
    }

    /// Puts `file` at `fd`. EEXIST where that is taken, EMFILE where the table is full.
    pub(crate) fn insert_at(&mut self, file: T, fd: usize) -> Result<usize> {
        if fd >= FD_MAX || self.used >= FD_MAX {
            return Err(Error::new(EMFILE));
        }
        if fd >= self.slots.len() {
            self.slots.resize_with(fd + 1, || None);
        }
        match self.slots.get_mut(fd) {
            Some(slot @ None) => *slot = Some(file),
            _ => return Err(Error::new(EEXIST)),
        }
        self.used += 1;
        Ok(fd)
    }

    /// What `fd` refers to, if anything.
    pub(crate) fn get(&self, fd: usize) -> Option<&T> {
        self.slots.get(fd)?.as_ref()
    }

    /// Takes `fd` out of the table.
    pub(crate) fn remove(&mut self, fd: usize) -> Result<T> {
        let slot = self.slots.get_mut(fd).ok_or(Error::new(EBADF))?;
        let file = slot.take().ok_or(Error::new(EBADF))?;
        self.used -= 1;
        if (FIRST_FD..self.lowest_free).contains(&fd) {
            self.lowest_free = fd;
        }
        Ok(file)
    }

    /// Everything in the table, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    /// Everything in the table, by number, which is then empty.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(self).slots.into_iter().flatten()
    }

    /// Whether nothing is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_hands_out_the_lowest_free_number() {
        let mut table = FdTable::default();
        assert_eq!(table.insert('a', 0), Ok(3));
        assert_eq!(table.insert('b', 0), Ok(4));
        assert_eq!(table.insert('c', 10), Ok(10));
        assert_eq!(table.remove(3), Ok('a'));
        assert_eq!(table.insert('d', 0), Ok(3));
        assert_eq!(table.insert('e', 0), Ok(5));
        assert_eq!(table.insert_at('f', 10), Err(Error::new(EEXIST)));
        assert_eq!(table.remove(3 + 1), Ok('b'));
        assert_eq!(table.remove(4), Err(Error::new(EBADF)));
    }

    #[test]
    fn a_full_table_refuses() {
        let mut table = FdTable::default();
        for _ in FIRST_FD..FD_MAX {
            table.insert((), 0).unwrap();
        }
        assert_eq!(table.insert((), 0), Err(Error::new(EMFILE)));
        assert_eq!(table.insert_at((), FD_MAX), Err(Error::new(EMFILE)));
        table.remove(77).unwrap();
        assert_eq!(table.insert((), 0), Ok(77));
    }
}
