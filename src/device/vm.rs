//! GPU address spaces: which object an open has bound where.
//!
//! A binding keeps nothing alive. It goes when its open unbinds it or lets go of its last handle on
//! the object, when a client takes its own pages back, and when the object is purged. Whoever changes page tables flushes
//! once, after all changes, and before anything else happens to the pages.

use alloc::collections::BTreeSet;

use super::Device;
use crate::driver::Driver;
use crate::error::Error;
use crate::ids::OpenId;
use crate::object::Backing;
use crate::pages::{Extents, PageSource, PlatformError};
use crate::slots::Key;
use crate::space::{Access, Place};
use crate::units::{Handle, PageCount, Pid};

/// Which pages of a client's a piece of work is about: those of this acquisition and of no other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sequence(u64);

impl<S: PageSource, D: Driver> Device<S, D> {
    /// The number of the pages that the object has now, for whoever may have to wait before it
    /// can use them. `None` where they are not a client's own, and stay.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT).
    pub fn sequence(&self, open: OpenId, handle: Handle) -> Result<Option<Sequence>, Error> {
        let key = self.object_of(open, handle)?;
        Ok(self.user(key).map(|(_, user)| Sequence(user.sequence())))
    }

    /// Lets the GPU find the object's pages from `place` on. A client's own pages are bound by the
    /// process that registered them, and only as long as they are those of `since`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT); [`Error::NoSuchPlace`] (EINVAL): no such address space;
    /// [`Error::BeyondGpu`] (E2BIG); [`Error::InUse`] (EBUSY): something is bound there;
    /// [`Error::NotHeld`], [`Error::NotOwner`], [`Error::Purged`] (EFAULT); [`Error::NoReadOnly`] (ENODEV); what the
    /// driver and the page source say, and with [`Error::NotReady`]: repeat the call.
    pub fn vm_bind(
        &mut self,
        open: OpenId,
        pid: Pid,
        handle: Handle,
        place: Place,
        since: Option<Sequence>,
    ) -> Result<(), Error> {
        self.active(open)?;
        let key = self.object_of(open, handle)?;
        let object = self.objects.get(key).ok_or(Error::NoSuchHandle(handle))?;
        let pages = object.pages();
        if let Backing::User(user) = &object.backing {
            if user.registrar.pid != pid {
                return Err(Error::NotOwner);
            }
            if user.held().is_none() || since.is_some_and(|Sequence(then)| then != user.sequence())
            {
                return Err(Error::NotHeld);
            }
        }
        let space = self.driver.space(place.space).ok_or(Error::NoSuchPlace)?;
        let size = space.size();
        let end = place.at.checked_add(pages).ok_or(Error::BeyondGpu(size))?;
        if end.get() > size.bytes() {
            return Err(Error::BeyondGpu(size));
        }
        if self.bindings.overlaps(place, pages) {
            return Err(Error::InUse);
        }
        let located;
        let (extents, access) = match &object.backing {
            Backing::Own(set) | Backing::Private(set) => (set.extents(), Access::ReadWrite),
            Backing::Purged(_) => return Err(Error::Purged),
            Backing::User(user) => {
                if user.read_only && !space.can_read_only() {
                    return Err(Error::NoReadOnly);
                }
                let set = user.held().ok_or(Error::NotHeld)?;
                located = self.source.locate_user(set)?;
                if count(&located) != Some(pages) {
                    return Err(Error::Platform(PlatformError::Failed));
                }
                let access = if user.read_only {
                    Access::ReadOnly
                } else {
                    Access::ReadWrite
                };
                (located.as_slice(), access)
            }
        };
        space.insert(place.at, extents, access)?;
        space.flush();
        self.bindings.insert(key, open, place, pages);
        Ok(())
    }

    /// When this returns, the GPU does not find the object there any more.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchHandle`] (ENOENT), [`Error::NoSuchPlace`] (EINVAL): this open has not bound it
    /// there.
    pub fn vm_unbind(&mut self, open: OpenId, handle: Handle, place: Place) -> Result<(), Error> {
        let key = self.object_of(open, handle)?;
        let pages = self.bindings.remove(key, open, place);
        let pages = pages.ok_or(Error::NoSuchPlace)?;
        if let Some(space) = self.driver.space(place.space) {
            space.clear(place.at, pages);
            space.flush();
        }
        Ok(())
    }

    /// When this returns, the GPU finds the object nowhere any more, or nowhere where `of` has
    /// bound it.
    pub(super) fn clear_bindings(&mut self, key: Key, of: Option<OpenId>) {
        let mut changed = BTreeSet::new();
        while let Some((place, pages)) = self.bindings.pop(key, of) {
            if let Some(space) = self.driver.space(place.space) {
                space.clear(place.at, pages);
                changed.insert(place.space);
            }
        }
        for space in changed {
            if let Some(space) = self.driver.space(space) {
                space.flush();
            }
        }
    }
}

fn count(extents: &Extents) -> Option<PageCount> {
    let mut runs = extents.as_slice().iter();
    runs.try_fold(PageCount::ZERO, |sum, run| sum.checked_add(run.pages))
}
