//! Mappings, and the bytes of objects.
//!
//! The kernel maps, we count: pages per open (or object fd) and object, because mappings split
//! and join without our being told. What a count loses the closing of the file finds.

use super::Device;
use crate::driver::Driver;
use crate::error::Error;
use crate::ids::{ObjectFdId, OpenId};
use crate::ledger::{AccountKey, Counted};
use crate::object::{Backing, Object};
use crate::pages::{PageSet, PageSource};
use crate::shrink;
use crate::slots::Key;
use crate::units::{FakeOffset, Handle, Identity, PageCount, Pid, WindowAddr};
use crate::user::UserSet;

impl<S: PageSource, D: Driver> Device<S, D> {
    /// Where the object seems to lie in a node's file, in bytes. Made on demand, the same for
    /// every open, charged to whoever pays for the object. An object of a client's own pages has
    /// one only for its registrar, and only while it waits to be mapped again.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT), [`Error::Limit`] (EMFILE), [`Error::NoSpace`] (ENOSPC),
    /// [`Error::NotMappable`] (ENODEV).
    pub fn map_offset(&mut self, open: OpenId, handle: Handle) -> Result<FakeOffset, Error> {
        let key = self.object_of(open, handle)?;
        let object = self
            .objects
            .get_mut(key)
            .ok_or(Error::NoSuchHandle(handle))?;
        if let Backing::User(user) = &object.backing
            && (user.registrar.open != open || user.taken().is_none())
        {
            return Err(Error::NotMappable);
        }
        if let Some(offset) = object.offset {
            return Ok(offset);
        }
        self.ledger.check(object.owner, Counted::Offsets)?;
        let offset = self.offsets.allocate(object.pages(), key);
        let offset = offset.ok_or(Error::NoSpace)?;
        self.ledger.charge(object.owner, Counted::Offsets)?;
        object.offset = Some(offset);
        Ok(offset)
    }

    /// Where in the daemon's address space the pages are that a node maps from the fake offset
    /// `offset` on. They are charged to the open's user before the page source is asked, and counted
    /// when this succeeds.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchOffset`] (EINVAL): no object begins there; [`Error::NotAllowed`] (EACCES): the
    /// open has no handle on it; [`Error::Range`] (EINVAL): empty, misaligned, or past the end;
    /// [`Error::NotMappable`] (ENODEV); [`Error::Purged`] (EFAULT); [`Error::Limit`] (EMFILE); what
    /// the page source says.
    pub fn map(&mut self, open: OpenId, offset: u64, size: u64) -> Result<WindowAddr, Error> {
        let range = Error::Range { offset, size };
        let pages = some_pages(size).ok_or(range)?;
        let key = self.mappable(open, offset)?;
        if self.user(key).is_some() {
            return Err(Error::NotMappable);
        }
        self.map_of_node(open, key, PageCount::ZERO, pages, range)
    }

    /// As [`Device::map`], through an object fd, at byte offsets. Whoever maps pays, whoever made the
    /// fd: it may be in other hands.
    ///
    /// # Errors
    ///
    /// As [`Device::map`]; [`Error::NoSuchObjectFd`] (EBADF), [`Error::ReadOnly`] (EACCES).
    pub fn map_fd(
        &mut self,
        fd: ObjectFdId,
        by: Identity,
        offset: u64,
        size: u64,
        write: bool,
    ) -> Result<WindowAddr, Error> {
        let range = Error::Range { offset, size };
        let pages = some_pages(size).ok_or(range)?;
        let state = self.object_fds.get(fd.0).ok_or(Error::NoSuchObjectFd)?;
        if write && !state.rights.write {
            return Err(Error::ReadOnly);
        }
        let key = state.object;
        let first = PageCount::exact(offset).ok_or(range)?;
        self.check_range(key, first, pages, range)?;
        let account = self.ledger.open_account(by.uid)?;
        let window = self.charge_and_find(account, false, key, (first, pages), range);
        if window.is_err() {
            self.ledger.close_if_unused(account);
            return window;
        }
        if let Some(object) = self.objects.get_mut(key) {
            // The ledger's sums bound these.
            object.mapped = object.mapped.checked_add(pages).unwrap_or(PageCount::MAX);
        }
        if let Some(state) = self.object_fds.get_mut(fd.0) {
            state.mapped.add(by.pid, account, pages);
        }
        self.reconsider(key);
        window
    }

    /// As [`Device::map`], for what this open has mapped already: any part of it, and without a
    /// handle. A process that forks has its mappings made once more for its child,
    /// whatever has become of them; but pages that a client has taken back are nothing of ours to
    /// map.
    ///
    /// # Errors
    ///
    /// As [`Device::map`]; [`Error::NoSuchOffset`] (EINVAL): no object lies there;
    /// [`Error::NotAllowed`] (EACCES): this open has nothing of it mapped; [`Error::Revoked`] (ENODEV).
    pub fn map_again(&mut self, open: OpenId, offset: u64, size: u64) -> Result<WindowAddr, Error> {
        self.active(open)?;
        let none = Error::NoSuchOffset(offset);
        let range = Error::Range { offset, size };
        let pages = some_pages(size).ok_or(range)?;
        let place = FakeOffset::new(offset).ok_or(none)?;
        let key = self.offsets.containing(place).ok_or(none)?;
        let object = self.objects.get(key).ok_or(none)?;
        if object.holders.get(open).mapped.is_zero() {
            return Err(Error::NotAllowed);
        }
        let start = object.offset.map_or(0, FakeOffset::get);
        let first = PageCount::exact(offset.saturating_sub(start)).ok_or(range)?;
        self.map_of_node(open, key, first, pages, range)
    }

    /// Maps `pages` pages of an object from the page `first` on. `range` is the error where that is
    /// not inside it.
    fn map_of_node(
        &mut self,
        open: OpenId,
        key: Key,
        first: PageCount,
        pages: PageCount,
        range: Error,
    ) -> Result<WindowAddr, Error> {
        let object = self.check_range(key, first, pages, range)?;
        let another = object.holders.get(open).mapped.is_zero();
        let account = self.account(open)?;
        let window = self.charge_and_find(account, another, key, (first, pages), range)?;
        self.count_pages(open, key, pages);
        Ok(window)
    }

    /// The object, if that is inside it.
    fn check_range(
        &self,
        key: Key,
        first: PageCount,
        pages: PageCount,
        range: Error,
    ) -> Result<&Object, Error> {
        let object = self.objects.get(key).ok_or(range)?;
        let end = first.checked_add(pages).ok_or(range)?;
        if end > object.pages() {
            return Err(range);
        }
        Ok(object)
    }

    /// Where pages of an object are in the daemon's address space, charged to this account: what is
    /// too much is refused before the page source is asked.
    fn charge_and_find(
        &mut self,
        account: AccountKey,
        another: bool,
        key: Key,
        (first, pages): (PageCount, PageCount),
        range: Error,
    ) -> Result<WindowAddr, Error> {
        let object = self.objects.get(key).ok_or(range)?;
        let set = mapped_set(&object.backing)?;
        self.ledger.charge_mapped(account, pages, another)?;
        let window = match set {
            MappedSet::Own(set) => {
                set.expose();
                self.source.window(set)
            }
            MappedSet::User(set) => self.source.user_window(set),
        };
        let window = window.map_err(Error::from);
        let window = window.and_then(|window| window.checked_add(first).ok_or(range));
        if window.is_err() {
            self.ledger.refund_mapped(account, pages, another);
        }
        window
    }

    /// `size` bytes from the fake offset `offset` on are mapped through a node no more. Any numbers
    /// will do: what was not counted is not uncounted.
    pub fn unmap(&mut self, open: OpenId, offset: u64, size: u64) {
        self.unmap_by(open, offset, size, None);
    }

    /// As [`Device::unmap`]; where a client's own pages are taken back by it, the client is told
    /// that it was this process that did it.
    pub fn unmap_by(&mut self, open: OpenId, offset: u64, size: u64, by: Option<Pid>) {
        let key = FakeOffset::new(offset).and_then(|offset| self.offsets.containing(offset));
        if let (Some(pages), Some(key)) = (PageCount::covering(size), key) {
            self.uncount_node_pages(open, key, pages, by);
        }
    }

    /// `size` bytes are mapped through an object fd no more. Those of the process `by`, as far as it
    /// has mapped so many; the kernel does not always know whose they were.
    pub fn unmap_fd(&mut self, fd: ObjectFdId, size: u64, by: Pid) {
        let Some(pages) = PageCount::covering(size) else {
            return;
        };
        let Some(state) = self.object_fds.get_mut(fd.0) else {
            return;
        };
        let key = state.object;
        let ledger = &mut self.ledger;
        let refund = |account, pages| ledger.refund_mapped(account, pages, false);
        let uncounted = state.mapped.take(by, pages, refund);
        // The fd itself keeps the object alive.
        if let Some(object) = self.objects.get_mut(key) {
            object.mapped = object.mapped.saturating_sub(uncounted);
        }
        self.reconsider(key);
    }

    /// Copies bytes of the object, from `offset` on, and returns how many: fewer at the end, none
    /// behind it.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchObjectFd`] (EBADF), [`Error::NotMappable`] (ENODEV), [`Error::Purged`]
    /// (EFAULT), what the page source says.
    pub fn read(&mut self, fd: ObjectFdId, offset: u64, bytes: &mut [u8]) -> Result<usize, Error> {
        let state = self.object_fds.get(fd.0).ok_or(Error::NoSuchObjectFd)?;
        let object = self.objects.get(state.object);
        let object = object.ok_or(Error::NoSuchObjectFd)?;
        let length = room(object.pages(), offset, bytes.len());
        let Some(bytes) = bytes.get_mut(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok(0);
        };
        self.source
            .read(own_pages(&object.backing)?, offset, bytes)?;
        Ok(length)
    }

    /// Copies bytes into the object, from `offset` on, and returns how many: fewer at the end.
    ///
    /// # Errors
    ///
    /// As [`Device::read`], [`Error::ReadOnly`] (EACCES), and [`Error::NoSpace`] (ENOSPC) where not
    /// even the first byte is inside.
    pub fn write(&mut self, fd: ObjectFdId, offset: u64, bytes: &[u8]) -> Result<usize, Error> {
        let state = self.object_fds.get(fd.0).ok_or(Error::NoSuchObjectFd)?;
        if !state.rights.write {
            return Err(Error::ReadOnly);
        }
        let object = self.objects.get(state.object);
        let object = object.ok_or(Error::NoSuchObjectFd)?;
        let length = room(object.pages(), offset, bytes.len());
        if bytes.is_empty() {
            return Ok(0);
        }
        let bytes = bytes.get(..length).filter(|bytes| !bytes.is_empty());
        let bytes = bytes.ok_or(Error::NoSpace)?;
        let set = own_pages(&object.backing)?;
        set.expose();
        self.source.write(set, offset, bytes)?;
        Ok(length)
    }

    /// The object that begins at this fake offset, if the open may map it.
    pub(super) fn mappable(&self, open: OpenId, offset: u64) -> Result<Key, Error> {
        let none = Error::NoSuchOffset(offset);
        let exact = FakeOffset::new(offset).and_then(|offset| self.offsets.exact(offset));
        let key = exact.ok_or(none)?;
        let object = self.objects.get(key).ok_or(none)?;
        if object.holders.get(open).handles > 0 {
            Ok(key)
        } else {
            Err(Error::NotAllowed)
        }
    }

    pub(super) fn count_pages(&mut self, open: OpenId, key: Key, pages: PageCount) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        // The ledger's sums bound these.
        object.mapped = object.mapped.checked_add(pages).unwrap_or(PageCount::MAX);
        self.reconsider(key);
        self.update_holder(open, key, |holder| {
            holder.mapped = holder.mapped.checked_add(pages).unwrap_or(PageCount::MAX);
        });
        if let Some(state) = self.opens.get_mut(open.0) {
            state.mapped.insert(key);
        }
    }

    /// Uncounts up to `pages` pages of this open's. Any of a client's own that goes takes all of
    /// them with it, before anything else happens. One that another process lets go of need not be
    /// the registrar's: its child may have had them, too. As long as enough are mapped for the
    /// registrar to have them all, it has.
    pub(super) fn uncount_node_pages(
        &mut self,
        open: OpenId,
        key: Key,
        pages: PageCount,
        by: Option<Pid>,
    ) {
        if self.takes_back(open, key, pages, by) {
            self.give_pages_back(key);
            self.tell_revoked(key, by);
        }
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        let counted = object.holders.get(open).mapped;
        if counted.is_zero() {
            return;
        }
        let pages = pages.min(counted);
        object.mapped = object.mapped.saturating_sub(pages);
        self.update_holder(open, key, |holder| {
            holder.mapped = counted.saturating_sub(pages);
        });
        if pages == counted
            && let Some(state) = self.opens.get_mut(open.0)
        {
            state.mapped.remove(&key);
            shrink::set(&mut state.mapped);
        }
        if let Ok(account) = self.account(open) {
            self.ledger.refund_mapped(account, pages, pages == counted);
        }
        self.settle_user(key);
        self.reconsider(key);
        self.end_if_unused(key);
    }

    /// Whether so many pages fewer mapped through this open mean that a client has taken its own
    /// pages back.
    fn takes_back(&self, open: OpenId, key: Key, pages: PageCount, by: Option<Pid>) -> bool {
        let Some((object, user)) = self.user(key) else {
            return false;
        };
        if pages.is_zero() || user.registrar.open != open || user.held().is_none() {
            return false;
        }
        let left = object.holders.get(open).mapped.saturating_sub(pages);
        let by_another = by.is_some_and(|by| by != user.registrar.pid);
        !by_another || left < user.pages
    }
}

/// The pages that so many bytes cover, if any.
fn some_pages(size: u64) -> Option<PageCount> {
    PageCount::covering(size).filter(|pages| !pages.is_zero())
}

/// Pages that a client can map, or has.
enum MappedSet<'a> {
    Own(&'a PageSet),
    User(&'a UserSet),
}

fn mapped_set(backing: &Backing) -> Result<MappedSet<'_>, Error> {
    match backing {
        Backing::User(user) => user.held().map(MappedSet::User).ok_or(Error::NotMappable),
        backing => own_pages(backing).map(MappedSet::Own),
    }
}

fn own_pages(backing: &Backing) -> Result<&PageSet, Error> {
    match backing {
        Backing::Own(set) => Ok(set),
        Backing::Private(_) | Backing::User(_) => Err(Error::NotMappable),
        Backing::Purged(_) => Err(Error::Purged),
    }
}

/// How many of `wanted` bytes from `offset` on lie in an object of this size.
fn room(pages: PageCount, offset: u64, wanted: usize) -> usize {
    let rest = pages.bytes().saturating_sub(offset);
    usize::try_from(rest).unwrap_or(usize::MAX).min(wanted)
}
