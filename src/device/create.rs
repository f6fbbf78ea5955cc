//! Objects and handles: made in two steps, undone as the mirror image.
//!
//! Making: limits and the charge, then pages, then the object, then a handle; what fails gives
//! back what was taken before it, in reverse, and the client has seen nothing. A handle is
//! published last and unpublished first, and its number is free only when the driver's hook has
//! been heard. The end of an object is not here but in `end_if_unused`.

use super::Device;
use crate::driver::Driver;
use crate::dumb;
use crate::error::Error;
use crate::handles::Reserved;
use crate::ids::OpenId;
use crate::ledger::{AccountKey, Counted, LedgerError, Load};
use crate::object::{Advice, Backing, Holders, Object};
use crate::pages::{Caching, PageRequest, PageSet, PageSource};
use crate::sharers::Sharers;
use crate::slots::Key;
use crate::units::{Handle, PageCount};

/// How a new object's pages are to be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CreateInfo {
    /// How the CPU caches them.
    pub caching: Caching,
    /// In one piece of physical memory.
    pub contiguous: bool,
}

/// A new dumb buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dumb {
    /// Its handle.
    pub handle: Handle,
    /// Bytes from one row to the next.
    pub pitch: u32,
    /// Its size in bytes, whole pages.
    pub size: u64,
}

impl<S: PageSource, D: Driver> Device<S, D> {
    /// A new object of `size` bytes, rounded up to pages, that reads as zero; and a handle on it.
    ///
    /// # Errors
    ///
    /// [`Error::ObjectSize`] (EINVAL) for 0 and for what overflows, [`Error::Limit`] (ENOMEM, EMFILE), [`Error::OutOfMemory`] (ENOMEM), [`Error::Platform`], and
    /// [`Error::NotReady`], [`Error::Unfinished`]: repeat the call.
    pub fn create(
        &mut self,
        open: OpenId,
        size: u64,
        info: CreateInfo,
    ) -> Result<(Handle, PageCount), Error> {
        let pages = PageCount::covering(size).filter(|pages| !pages.is_zero());
        let pages = pages.ok_or(Error::ObjectSize(size))?;
        let limit = self.ledger.limits().object;
        if pages > limit {
            return Err(LedgerError::Object(limit).into());
        }
        let account = self.account(open)?;
        // Before anything is purged or allocated for it: a handle or an object too many costs
        // nobody anything.
        self.check_handles(open)?;
        self.ledger.check(account, Counted::Objects)?;
        // What memory is short of is made up for at the next chance, if not now.
        let _ = self.relieve();
        self.make_room(account, pages)?;
        let room = self.ledger.room(account);
        self.ledger.charge_object(account, pages)?;
        match self.create_charged(open, account, pages, room, info) {
            Ok(handle) => Ok((handle, pages)),
            Err(error) => {
                self.ledger.refund_object(account, Load::of(pages));
                Err(error)
            }
        }
    }

    fn create_charged(
        &mut self,
        open: OpenId,
        account: AccountKey,
        pages: PageCount,
        room: PageCount,
        info: CreateInfo,
    ) -> Result<Handle, Error> {
        let request = PageRequest {
            owner: self.ledger.uid(account),
            pages,
            caching: info.caching,
            contiguous: info.contiguous,
            room,
        };
        let set = self.allocate(account, request)?;
        let (key, reserved) = self.adopt(open, account, Backing::Own(set), info.caching)?;
        self.publish_handle(open, reserved, key)
    }

    /// A new object whose pages are the driver's own (stolen memory, a device's). Clients can hold
    /// and share it, not map it; its bytes are charged like any other's. When the object ends, or
    /// is not made after all, the driver has the pages back ([`Driver::take_back`]).
    ///
    /// # Errors
    ///
    /// As [`Device::create`].
    pub fn create_private(
        &mut self,
        open: OpenId,
        set: PageSet,
        caching: Caching,
    ) -> Result<Handle, Error> {
        let pages = set.pages();
        let charged = self.account(open).and_then(|account| {
            self.ledger.charge_object(account, pages)?;
            Ok(account)
        });
        let account = match charged {
            Ok(account) => account,
            Err(error) => {
                self.driver.take_back(set);
                return Err(error);
            }
        };
        let (key, reserved) = self
            .adopt(open, account, Backing::Private(set), caching)
            .inspect_err(|_| self.ledger.refund_object(account, Load::of(pages)))?;
        self.publish_handle(open, reserved, key)
    }

    /// A new buffer for `width` × `height` pixels of `bits` each.
    ///
    /// # Errors
    ///
    /// [`Error::Dumb`] (EINVAL) for pixels that cannot be; otherwise as [`Device::create`].
    pub fn create_dumb(
        &mut self,
        open: OpenId,
        width: u32,
        height: u32,
        bits: u32,
    ) -> Result<Dumb, Error> {
        let shape = dumb::shape(width, height, bits).ok_or(Error::Dumb)?;
        let size = shape.pages.bytes();
        let (handle, _) = self.create(open, size, CreateInfo::default())?;
        Ok(Dumb {
            handle,
            pitch: shape.pitch,
            size,
        })
    }

    /// Makes an object of pages that are paid for, and the first handle on it, which is to be
    /// published. On failure the pages are back where they came from.
    pub(super) fn adopt(
        &mut self,
        open: OpenId,
        owner: AccountKey,
        backing: Backing,
        caching: Caching,
    ) -> Result<(Key, Reserved), Error> {
        let number = self.last_object + 1;
        let object = Object {
            number,
            backing,
            caching,
            advice: Advice::WillNeed,
            place: None,
            allocated_for: self.ledger.uid(owner),
            owner,
            sharers: Sharers::None,
            name: None,
            offset: None,
            handles: 0,
            fds: 0,
            mapped: PageCount::ZERO,
            is_at_work: false,
            holders: Holders::NONE,
        };
        let key = match self.objects.insert(object) {
            Ok(key) => key,
            Err(object) => {
                self.give_back(object);
                return Err(Error::NoSpace);
            }
        };
        self.last_object = number;
        let reserved = self.init_and_handle(open, key).inspect_err(|_| {
            if let Some(object) = self.objects.remove(key) {
                self.give_back(object);
            }
        })?;
        Ok((key, reserved))
    }

    fn init_and_handle(&mut self, open: OpenId, key: Key) -> Result<Reserved, Error> {
        let info = self.info(key).ok_or(Error::NoSpace)?;
        self.driver.object_init(info)?;
        self.reserve_handle(open, key).inspect_err(|_| {
            self.driver.object_free(info);
        })
    }

    /// Whether this open may have one more handle, and if its table must grow for that.
    pub(super) fn check_handles(&mut self, open: OpenId) -> Result<bool, Error> {
        let limit = self.ledger.limits().handles_per_open;
        let account = self.account(open)?;
        let state = self.active(open)?;
        if state.handles.len() >= limit {
            return Err(LedgerError::OpenCount(Counted::Handles, limit).into());
        }
        let grows = state.handles.is_full();
        if grows {
            self.ledger.check(account, Counted::Handles)?;
        }
        Ok(grows)
    }

    /// One more handle of this open on this object.
    pub(super) fn create_handle(
        &mut self,
        open: OpenId,
        key: Key,
        prime: bool,
    ) -> Result<Handle, Error> {
        let reserved = self.reserve_handle(open, key)?;
        if prime {
            self.set_prime(open, key, reserved.handle());
        }
        self.publish_handle(open, reserved, key)
    }

    /// All of a new handle but its being visible: reserve the number → allow mapping → the
    /// driver's hook. A failure undoes what was done, in reverse; the object itself is left to the
    /// caller.
    fn reserve_handle(&mut self, open: OpenId, key: Key) -> Result<Reserved, Error> {
        let grows = self.check_handles(open)?;
        let account = self.account(open)?;
        let info = self.info(key).ok_or(Error::NoSpace)?;
        let state = self.opens.get_mut(open.0).ok_or(Error::NoSuchOpen)?;
        let reserved = state.handles.reserve().ok_or(Error::NoSpace)?;
        if grows {
            // Has just been checked.
            self.ledger.charge(account, Counted::Handles)?;
        }
        self.count_handle(open, key);
        if let Err(error) = self.driver.handle_open(open, info) {
            self.uncount_handle(open, key);
            self.release(open, reserved);
            return Err(error.into());
        }
        Ok(reserved)
    }

    /// From now on the handle is visible.
    pub(super) fn publish_handle(
        &mut self,
        open: OpenId,
        reserved: Reserved,
        key: Key,
    ) -> Result<Handle, Error> {
        let state = self.opens.get_mut(open.0).ok_or(Error::NoSuchOpen)?;
        self.handles += 1;
        Ok(state.handles.publish(reserved, key))
    }

    /// Drops a handle that nobody has seen. The object is left to the caller.
    pub(super) fn withdraw_handle(&mut self, open: OpenId, reserved: Reserved, key: Key) {
        if let Some(info) = self.info(key) {
            self.driver.handle_close(open, info);
        }
        self.uncount_handle(open, key);
        self.release(open, reserved);
    }

    /// Drops a handle: unpublish → no device reaches the pages through this open → the driver's
    /// hook → no more mapping → the number is free → the name and the object go, if this was the
    /// last that held them.
    ///
    /// # Errors
    ///
    /// [`Error::NotClosable`] (EINVAL).
    pub fn close_handle(&mut self, open: OpenId, handle: Handle) -> Result<(), Error> {
        let state = self.opens.get_mut(open.0).ok_or(Error::NoSuchOpen)?;
        let unpublished = state.handles.unpublish(handle);
        let (reserved, key) = unpublished.ok_or(Error::NotClosable(handle))?;
        self.let_go(open, key);
        if let Some(info) = self.info(key) {
            self.driver.handle_close(open, info);
        }
        self.forget_prime(open, key, handle);
        self.uncount_handle(open, key);
        self.release(open, reserved);
        self.handles -= 1;
        self.end_name_if_unheld(key);
        self.end_if_unused(key);
        Ok(())
    }

    /// A handle of this open goes. With the last one go its bindings, and, where it registered the
    /// pages, the pages.
    fn let_go(&mut self, open: OpenId, key: Key) {
        let Some(object) = self.objects.get(key) else {
            return;
        };
        if object.holders.get(open).handles > 1 {
            return;
        }
        if matches!(&object.backing, Backing::User(user) if user.registrar.open == open) {
            self.give_pages_back(key);
        }
        self.clear_bindings(key, Some(open));
    }

    /// The size of the object behind a handle.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT).
    pub fn size(&self, open: OpenId, handle: Handle) -> Result<PageCount, Error> {
        let key = self.object_of(open, handle)?;
        let object = self.objects.get(key);
        Ok(object.ok_or(Error::NoSuchHandle(handle))?.pages())
    }

    /// The number is free again, and so are the places that the table no longer needs.
    fn release(&mut self, open: OpenId, reserved: Reserved) {
        let account = self.account(open);
        if let Some(state) = self.opens.get_mut(open.0)
            && let places @ 1.. = state.handles.release(reserved)
            && let Ok(account) = account
        {
            self.ledger.refund(account, Counted::Handles, places);
        }
    }

    fn count_handle(&mut self, open: OpenId, key: Key) {
        if let Some(object) = self.objects.get_mut(key) {
            object.handles += 1;
        }
        self.update_holder(open, key, |holder| holder.handles += 1);
    }

    fn uncount_handle(&mut self, open: OpenId, key: Key) {
        if let Some(object) = self.objects.get_mut(key) {
            object.handles -= 1;
        }
        self.update_holder(open, key, |holder| holder.handles -= 1);
    }

    pub(super) fn set_prime(&mut self, open: OpenId, key: Key, handle: Handle) {
        if let Some(object) = self.objects.get_mut(key) {
            object
                .holders
                .update(open, |holder| holder.prime = Some(handle));
        }
    }

    fn forget_prime(&mut self, open: OpenId, key: Key, handle: Handle) {
        if let Some(object) = self.objects.get_mut(key) {
            object.holders.update(open, |holder| {
                holder.prime = holder.prime.filter(|&prime| prime != handle);
            });
        }
    }

    fn end_name_if_unheld(&mut self, key: Key) {
        if let Some(object) = self.objects.get_mut(key)
            && object.handles == 0
            && let Some(name) = object.name.take()
        {
            self.names.remove(name);
            self.ledger.refund(object.owner, Counted::Names, 1);
        }
    }
}
