//! Sharing: global names, and fds on objects.
//!
//! A name holds nothing alive: it goes with the object's last handle. An object fd does, with or
//! without handles, and is charged to whoever made it, since nobody can tell who has it now.
//! Importing into an open gives the handle again that this open has from an import or has
//! exported; opening by name gives a new one each time. Who may use names is not known here.

use super::Device;
use crate::driver::Driver;
use crate::error::Error;
use crate::fd_mappings::FdMappings;
use crate::ids::{ObjectFdId, OpenId};
use crate::ledger::{Counted, LedgerError};
use crate::object::{ObjectFd, Rights};
use crate::pages::PageSource;
use crate::slots::Key;
use crate::units::{Handle, Name, PageCount};

/// What an object fd is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObjectFdInfo {
    /// The number of the object behind it.
    pub object: u64,
    /// The object's size.
    pub pages: PageCount,
    /// What the fd allows.
    pub rights: Rights,
}

impl<S: PageSource, D: Driver> Device<S, D> {
    /// The object's global name, made on first use and charged to whoever pays for the object.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT), [`Error::Limit`] (EMFILE), [`Error::NoSpace`] (ENOSPC)
    /// where names are used up.
    pub fn flink(&mut self, open: OpenId, handle: Handle) -> Result<Name, Error> {
        let key = self.object_of(open, handle)?;
        let object = self
            .objects
            .get_mut(key)
            .ok_or(Error::NoSuchHandle(handle))?;
        if let Some(name) = object.name {
            return Ok(name);
        }
        self.ledger.check(object.owner, Counted::Names)?;
        let name = self.names.insert(key).ok_or(Error::NoSpace)?;
        self.ledger.charge(object.owner, Counted::Names)?;
        object.name = Some(name);
        Ok(name)
    }

    /// A new handle on the object of this name, whether or not this open has one.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchName`] (ENOENT), and those of a new handle.
    pub fn open_name(&mut self, open: OpenId, name: Name) -> Result<(Handle, PageCount), Error> {
        let key = self.names.get(name).ok_or(Error::NoSuchName(name))?;
        let handle = self.create_handle(open, key, false)?;
        Ok((handle, self.pages_of(key)))
    }

    /// An fd on the object behind a handle. Importing it into this open gives this handle again.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT), [`Error::NotExportable`] (EINVAL), [`Error::Limit`]
    /// (EMFILE).
    pub fn export(
        &mut self,
        open: OpenId,
        handle: Handle,
        rights: Rights,
    ) -> Result<ObjectFdId, Error> {
        let key = self.object_of(open, handle)?;
        let fd = self.object_fd_on(open, key, rights)?;
        let holder = self.objects.get(key).map(|object| object.holders.get(open));
        if holder.is_some_and(|holder| holder.prime.is_none()) {
            self.set_prime(open, key, handle);
        }
        Ok(fd)
    }

    /// An fd on the object of this name.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchName`] (ENOENT), [`Error::NotExportable`] (EINVAL), [`Error::Limit`] (EMFILE).
    pub fn export_name(
        &mut self,
        open: OpenId,
        name: Name,
        rights: Rights,
    ) -> Result<ObjectFdId, Error> {
        let key = self.names.get(name).ok_or(Error::NoSuchName(name))?;
        self.object_fd_on(open, key, rights)
    }

    /// A handle on the object behind an fd: the same one again, if this open has one from an
    /// import or has exported it.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchObjectFd`] (EBADF), [`Error::ReadOnly`] (EACCES): a handle is always
    /// writeable; and those of a new handle.
    pub fn import(&mut self, open: OpenId, fd: ObjectFdId) -> Result<(Handle, PageCount), Error> {
        let state = self.object_fds.get(fd.0).ok_or(Error::NoSuchObjectFd)?;
        if !state.rights.write {
            return Err(Error::ReadOnly);
        }
        let key = state.object;
        let object = self.objects.get(key).ok_or(Error::NoSuchObjectFd)?;
        let pages = object.pages();
        if let Some(handle) = object.holders.get(open).prime {
            return Ok((handle, pages));
        }
        let handle = self.create_handle(open, key, true)?;
        Ok((handle, pages))
    }

    /// What an object fd is.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchObjectFd`] (EBADF).
    pub fn object_fd(&self, fd: ObjectFdId) -> Result<ObjectFdInfo, Error> {
        let state = self.object_fds.get(fd.0).ok_or(Error::NoSuchObjectFd)?;
        let object = self.objects.get(state.object);
        let object = object.ok_or(Error::NoSuchObjectFd)?;
        Ok(ObjectFdInfo {
            object: object.number,
            pages: object.pages(),
            rights: state.rights,
        })
    }

    /// Ends an object fd, and whatever is mapped through it. One that does not exist is none the
    /// worse.
    pub fn close_object_fd(&mut self, fd: ObjectFdId) {
        let Some(state) = self.object_fds.remove(fd.0) else {
            return;
        };
        if let Some(maker) = self.opens.get_mut(state.maker.0) {
            maker.object_fds -= 1;
        }
        if let Some(object) = self.objects.get_mut(state.object) {
            object.fds -= 1;
            object.mapped = object.mapped.saturating_sub(state.mapped.sum());
        }
        self.reconsider(state.object);
        self.leave(state.object, state.account);
        self.end_if_unused(state.object);
        for (account, pages) in state.mapped.by_account() {
            self.ledger.refund_mapped(account, pages, false);
        }
        self.ledger.refund(state.account, Counted::ObjectFds, 1);
    }

    fn object_fd_on(
        &mut self,
        open: OpenId,
        key: Key,
        rights: Rights,
    ) -> Result<ObjectFdId, Error> {
        if self.user(key).is_some() {
            return Err(Error::NotExportable);
        }
        let limit = self.ledger.limits().object_fds_per_open;
        let account = self.account(open)?;
        let state = self.active(open)?;
        if state.object_fds >= limit {
            return Err(LedgerError::OpenCount(Counted::ObjectFds, limit).into());
        }
        self.ledger.charge(account, Counted::ObjectFds)?;
        let fd = ObjectFd {
            object: key,
            rights,
            mapped: FdMappings::default(),
            maker: open,
            account,
        };
        let Ok(fd) = self.object_fds.insert(fd) else {
            self.ledger.refund(account, Counted::ObjectFds, 1);
            return Err(Error::NoSpace);
        };
        if let Some(maker) = self.opens.get_mut(open.0) {
            maker.object_fds += 1;
        }
        if let Some(object) = self.objects.get_mut(key) {
            object.fds += 1;
            object.join(account);
        }
        Ok(ObjectFdId(fd))
    }

    fn pages_of(&self, key: Key) -> PageCount {
        self.objects
            .get(key)
            .map_or(PageCount::ZERO, |object| object.pages())
    }
}
